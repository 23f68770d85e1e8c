"""Warp ops on the CPU: tables along each axis first, then vectors along y."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import prange
from torch import Tensor

from gigascope.kernels.parallel import inline_kernel, parallel_kernel
from gigascope.kernels.warp.weights import (
    SNAP,
    axis_footprint,
    axis_taps,
    gaussian_taps,
    padded_index,
    spline_taps,
)


def spline_coefficients(views: Tensor) -> Tensor:
    """See :func:`gigascope.kernels.warp.spline_coefficients`; `views` contiguous."""
    return _separable(views, spline_taps(views.dtype), "mirror")


def gaussian_blur(views: Tensor, sigma: float) -> Tensor:
    """See :func:`gigascope.kernels.warp.gaussian_blur`; `views` contiguous."""
    return _separable(views, gaussian_taps(sigma), "nearest") if sigma > 0 else views.detach().clone()


def resample(
    views: Tensor, matrices: Tensor, shape_out: tuple[int, int], order: int, bin: int = 1, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See :func:`gigascope.kernels.warp.resample`; all contiguous."""
    out = views.new_empty(views.shape[0], *shape_out)
    valid = torch.empty_like(out)
    work = 20 * order * bin * bin * out.numel()
    numpy = views.detach().numpy(), matrices.cpu().numpy()
    _resample(*numpy, order == 3, bin, _mask(mask), out.numpy(), valid.numpy(), work=work)
    return out, valid


def translate(views: Tensor, shifts: Tensor, order: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See :func:`gigascope.kernels.warp.translate`; all contiguous."""
    out, valid = torch.empty_like(views), torch.empty_like(views)
    numpy = []
    for axis in (1, 2):
        n = views.shape[axis]
        where = _coordinates(shifts, axis, n)
        index, weights = axis_taps(where, n, order)
        tables = (index, weights.to(views.dtype), *axis_footprint(where, n))
        numpy += [table.numpy() for table in tables]
    work = 4 * (order + 1) * views.numel()
    inner = _run_of_constant_taps(index)
    _translate(views.detach().numpy(), *numpy, inner, _mask(mask), out.numpy(), valid.numpy(), work=work)
    return out, valid


def _run_of_constant_taps(columns: Tensor) -> np.ndarray:
    """First and last + 1 of the samples of y that have the same taps relative to themselves, (tilt, 2)."""
    n, n_taps = columns.shape[1:]
    samples = torch.arange(n)
    relative = columns - samples[:, None] - torch.arange(n_taps)
    middle = relative.median(dim=1, keepdim=True).values[:, :, :1]
    same = (relative == middle).all(2)
    begin = torch.where(same.any(1), same.int().argmax(1), n)
    after = ~same & (samples > begin[:, None])
    end = torch.where(after.any(1), after.int().argmax(1), n)
    return torch.stack((begin, torch.maximum(begin, end)), dim=1).numpy()


def translate_adjoint(cotangent: Tensor, shifts: Tensor, order: int) -> Tensor:
    """Transpose of `translate` with respect to the views; `cotangent` contiguous."""
    tables = []
    for axis in (1, 2):
        index, weights = axis_taps(_coordinates(shifts, axis, cotangent.shape[axis]), cotangent.shape[axis], order)
        tables += [index.numpy(), weights.to(cotangent.dtype).numpy()]
    out = torch.zeros_like(cotangent)
    _translate_adjoint(cotangent.detach().numpy(), *tables, out.numpy(), work=20 * order * out.numel())
    return out


def shift_sums(model: Tensor, data: Tensor, weights: Tensor) -> Tensor:
    """See :func:`gigascope.kernels.warp.shift_sums`; all contiguous."""
    rows = np.empty((*model.shape[:2], 10))
    _shift_sums(model.detach().numpy(), data.detach().numpy(), weights.detach().numpy(), rows, work=30 * model.numel())
    return torch.from_numpy(rows.sum(1))


def _coordinates(shifts: Tensor, axis: int, n: int) -> Tensor:
    """Source coordinate of every output sample of an axis, (tilt, n) float64."""
    return torch.arange(n, dtype=torch.float64) + shifts.detach().cpu()[:, axis - 1, None]


def _mask(mask: Tensor | None) -> np.ndarray:
    """The mask, or an empty array: numba compiles one version for both."""
    return np.empty((0, 0, 0), dtype=np.uint8) if mask is None else mask.numpy()


def _separable(views: Tensor, taps: Tensor, boundary: str) -> Tensor:
    """The same odd filter along both axes."""
    reach = len(taps) // 2
    tables = [padded_index(n, reach, boundary).numpy() for n in views.shape[1:]]
    out = torch.empty_like(views)
    _filter(
        views.detach().numpy(), taps.to(views.dtype).numpy(), *tables, out.numpy(), work=4 * len(taps) * out.numel()
    )
    return out


@parallel_kernel
def _filter(views, taps, rows, columns, out):
    n_t, n_s, n_y = views.shape
    n_taps = taps.size
    for task in prange(n_t * n_s):
        t, s = task // n_s, task % n_s
        line = np.zeros(n_y + n_taps - 1, dtype=views.dtype)
        reach = n_taps // 2
        middle = line[reach : reach + n_y]
        for k in range(n_taps):
            source, tap = views[t, rows[s + k]], taps[k]
            for y in range(n_y):
                middle[y] += tap * source[y]
        for y in range(reach):
            line[y] = middle[columns[y]]
            line[n_y + reach + y] = middle[columns[n_y + reach + y]]
        target = out[t, s]
        target[:] = 0
        for k in range(n_taps):
            shifted, tap = line[k : k + n_y], taps[k]
            for y in range(n_y):
                target[y] += tap * shifted[y]


@inline_kernel
def _cubic(f):
    """Weights of the cubic B-spline at a fraction, in the precision of the fraction."""
    one, four, sixth = f * 0 + 1, f * 0 + 4, (f * 0 + 1) / 6
    g = one - f
    ff, gg = f * f, g * g
    return g * gg * sixth, (four - 3 * ff * (one + g)) * sixth, (four - 3 * gg * (one + f)) * sixth, f * ff * sixth


@inline_kernel
def _mirrored(index, n):
    if n == 1:
        return 0
    folded = index % (2 * n - 2)
    return min(folded, 2 * n - 2 - folded)


@inline_kernel
def _snapped(coordinate):
    nearest = np.rint(coordinate)
    return nearest if abs(coordinate - nearest) < SNAP else coordinate


@inline_kernel
def _on_valid(mask, t, r, c, h, w):
    """Whether the bilinear footprint of the coordinate is on valid pixels."""
    r, c = _snapped(r), _snapped(c)
    r0, r1, c0, c1 = math.floor(r), math.ceil(r), math.floor(c), math.ceil(c)
    if r0 < 0 or c0 < 0 or r1 > h - 1 or c1 > w - 1:
        return False
    if mask.size == 0:
        return True
    i0, i1, j0, j1 = int(r0), int(r1), int(c0), int(c1)
    return mask[t, i0, j0] > 0 and mask[t, i0, j1] > 0 and mask[t, i1, j0] > 0 and mask[t, i1, j1] > 0


@inline_kernel
def _all_four(mask, r, c):
    """Whether the four samples around a coordinate inside are trusted; then its footprint is, snapped or not."""
    one = np.uint64(1)
    i, j = np.uint64(int(r)), np.uint64(int(c))
    return mask[i, j] and mask[i, j + one] and mask[i + one, j] and mask[i + one, j + one]


@inline_kernel
def _inner_run(start, slope, lowest, highest, n):
    """First and last + 1 of 0..n-1 with lowest <= start + slope index <= highest, less one on each side for safety."""
    if slope == 0.0 or lowest > highest:
        return (0, n) if lowest <= start <= highest else (0, 0)
    one, two = (lowest - start) / slope, (highest - start) / slope
    begin = math.ceil(min(max(min(one, two), -1.0), n)) + 1
    end = math.floor(max(min(max(one, two), n), -1.0))
    return (begin, end) if begin < end else (0, 0)


@inline_kernel
def _dot4(flat, a, q0, q1, q2, q3):
    one = np.uint64(1)
    b = a + one
    c = b + one
    return q0 * flat[a] + q1 * flat[b] + q2 * flat[c] + q3 * flat[c + one]


@inline_kernel
def _add_inner(view, r, step_r, c, step_c, cubic, line):
    """Add interpolated samples at equal steps, all with their taps inside the view."""
    kind, width = line.dtype.type, view.shape[1]
    flat = view.reshape(-1)
    for k in range(line.size):
        at_r, at_c = r + step_r * k, c + step_c * k
        i, j = int(at_r), int(at_c)
        f, g = kind(at_r - i), kind(at_c - j)
        if cubic:
            q0, q1, q2, q3 = _cubic(g)
            p0, p1, p2, p3 = _cubic(f)
            # unsigned: numba asks of every signed index whether it counts from the end
            a = np.uint64((i - 1) * width + j - 1)
            total = p0 * _dot4(flat, a, q0, q1, q2, q3)
            total += p1 * _dot4(flat, a + np.uint64(width), q0, q1, q2, q3)
            total += p2 * _dot4(flat, a + np.uint64(2 * width), q0, q1, q2, q3)
            line[k] += total + p3 * _dot4(flat, a + np.uint64(3 * width), q0, q1, q2, q3)
        else:
            a, one = np.uint64(i * width + j), np.uint64(1)
            b = a + np.uint64(width)
            upper = flat[a] + g * (flat[a + one] - flat[a])
            lower = flat[b] + g * (flat[b + one] - flat[b])
            line[k] += upper + f * (lower - upper)


@inline_kernel
def _border_sample(view, r, c, cubic, kind):
    """One interpolated sample with its coordinate moved inside and its taps mirrored."""
    h, w = view.shape
    r, c = min(max(r, 0.0), h - 1.0), min(max(c, 0.0), w - 1.0)
    i, j = int(r), int(c)
    f, g = kind(r - i), kind(c - j)
    if cubic:
        q0, q1, q2, q3 = _cubic(g)
        j0, j2, j3 = _mirrored(j - 1, w), _mirrored(j + 1, w), _mirrored(j + 2, w)
        total = kind(0)
        p0, p1, p2, p3 = _cubic(f)
        for k, p in enumerate((p0, p1, p2, p3)):
            line = view[_mirrored(i - 1 + k, h)]
            total += p * (q0 * line[j0] + q1 * line[j] + q2 * line[j2] + q3 * line[j3])
        return total
    a, b = view[i], view[min(i + 1, h - 1)]
    right = min(j + 1, w - 1)
    upper = a[j] + g * (a[right] - a[j])
    return upper + f * (b[j] + g * (b[right] - b[j]) - upper)


@parallel_kernel
def _resample(views, matrices, cubic, bin, mask, out, valid):
    n_t, n_0, n_1 = out.shape
    _, h, w = views.shape
    before, after = (1.0, 2.0) if cubic else (0.0, 1.0)
    kind = views.dtype.type
    scale = kind(1.0 / (bin * bin))
    for task in prange(n_t * n_0):
        t, i = task // n_0, task % n_0
        m, view, target = matrices[t], views[t], out[t, i]
        total = np.zeros(n_1 * bin, dtype=views.dtype)
        target[:] = 0
        valid[t, i] = 1
        for a in range(i * bin, (i + 1) * bin):
            r, c = m[0, 0] * a + m[0, 2], m[1, 0] * a + m[1, 2]
            begin, end = _inner_run(r, m[0, 1], before, h - 1.0 - after, total.size)
            begin_c, end_c = _inner_run(c, m[1, 1], before, w - 1.0 - after, total.size)
            begin, end = max(begin, begin_c), min(end, end_c)
            if begin < end:
                start_r, start_c = r + m[0, 1] * begin, c + m[1, 1] * begin
                _add_inner(view, start_r, m[0, 1], start_c, m[1, 1], cubic, total[begin:end])
            else:
                begin, end = 0, 0
            for k in range(total.size - end + begin):
                b = k if k < begin else k - begin + end
                total[b] += _border_sample(view, r + m[0, 1] * b, c + m[1, 1] * b, cubic, kind)
                if not _on_valid(mask, t, r + m[0, 1] * b, c + m[1, 1] * b, h, w):
                    valid[t, i, b // bin] = 0
            # inside the run every footprint is inside the array, and only a mask can object
            if mask.size > 0:
                for b in range(begin, end):
                    at_r, at_c = r + m[0, 1] * b, c + m[1, 1] * b
                    trusted = _all_four(mask[t], at_r, at_c)
                    if not trusted and not _on_valid(mask, t, at_r, at_c, h, w):
                        valid[t, i, b // bin] = 0
        for b in range(total.size):
            target[b // bin] += total[b] * scale


@parallel_kernel
def _translate(
    views, rows, row_weights, row_low, row_high, row_on, columns, weights, low, high, on, inner, mask, out, valid
):
    n_t, n_s, n_y = views.shape
    n_taps = rows.shape[2]
    for task in prange(n_t * n_s):
        t, s = task // n_s, task % n_s
        line = np.zeros(n_y, dtype=views.dtype)
        for k in range(n_taps):
            row, row_weight = views[t, rows[t, s, k]], row_weights[t, s, k]
            for y in range(n_y):
                line[y] += row_weight * row[y]
        begin, end = inner[t, 0], inner[t, 1]
        target = out[t, s]
        target[begin:end] = 0
        if begin < end:
            for k in range(n_taps):
                first, weight = columns[t, begin, k], weights[t, begin, k]
                source = line[first : first + end - begin]
                for y in range(end - begin):
                    target[begin + y] += weight * source[y]
        for y in range(n_y - end + begin):
            at = y if y < begin else y - begin + end
            total = line[columns[t, at, 0]] * weights[t, at, 0]
            for k in range(1, n_taps):
                total += line[columns[t, at, k]] * weights[t, at, k]
            target[at] = total
        if not row_on[t, s]:
            valid[t, s] = 0
        elif mask.size == 0:
            for y in range(n_y):
                valid[t, s, y] = 1 if on[t, y] else 0
        else:
            upper, lower = mask[t, row_low[t, s]], mask[t, row_high[t, s]]
            for y in range(n_y):
                a, b = low[t, y], high[t, y]
                good = on[t, y] and upper[a] > 0 and upper[b] > 0 and lower[a] > 0 and lower[b] > 0
                valid[t, s, y] = 1 if good else 0


@parallel_kernel
def _translate_adjoint(cotangent, rows, row_weights, columns, column_weights, out):
    n_t, n_s, n_y = cotangent.shape
    n_taps = rows.shape[2]
    for t in prange(n_t):
        line = np.empty(n_y, dtype=cotangent.dtype)
        for s in range(n_s):
            line[:] = 0
            for y in range(n_y):
                for k in range(n_taps):
                    line[columns[t, y, k]] += column_weights[t, y, k] * cotangent[t, s, y]
            for k in range(n_taps):
                target, weight = out[t, rows[t, s, k]], row_weights[t, s, k]
                for y in range(n_y):
                    target[y] += weight * line[y]


@parallel_kernel
def _shift_sums(model, data, weights, rows):
    n_t, n_s, n_y = model.shape
    for task in prange(n_t * n_s):
        t, s = task // n_s, task % n_s
        above, below = max(s - 1, 0), min(s + 1, n_s - 1)
        per_s = 1.0 / max(below - above, 1)
        here, previous, following = model[t, s], model[t, above], model[t, below]
        c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = c8 = c9 = 0.0
        for y in range(n_y):
            left, right = max(y - 1, 0), min(y + 1, n_y - 1)
            w = np.float64(weights[t, s, y])
            g_s = (np.float64(following[y]) - np.float64(previous[y])) * per_s
            g_y = (np.float64(here[right]) - np.float64(here[left])) / max(right - left, 1)
            r = np.float64(here[y]) - np.float64(data[t, s, y])
            if w > 0:
                c0 += w
                c1 += w * g_s
                c2 += w * g_y
                c3 += w * r
                c4 += w * g_s * g_s
                c5 += w * g_s * g_y
                c6 += w * g_y * g_y
                c7 += w * g_s * r
                c8 += w * g_y * r
                c9 += w * r * r
        total = rows[t, s]
        total[0], total[1], total[2], total[3], total[4] = c0, c1, c2, c3, c4
        total[5], total[6], total[7], total[8], total[9] = c5, c6, c7, c8, c9
