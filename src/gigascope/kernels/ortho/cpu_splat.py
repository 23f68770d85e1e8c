"""Splat and re-prediction on the CPU: bands of the canvas, each filled by one thread in the order of the pixels.

Every canvas pixel adds up in the order view, row, column of what reaches it, in float64: neither threads nor the cut
into bands show in a single bit. Weights come as vectors, a segment of a row of pixels at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numba import prange
from torch import Tensor

from gigascope.kernels.ortho.splatting import BORDERS, FAR, SIGMA
from gigascope.kernels.parallel import inline_kernel, parallel_kernel
from gigascope.kernels.simd import exp2, lanes_of, load, multiply, splat_like, store

# rows of a band; pixels of a segment, which a turned view may take through as many rows
BAND = 128
SEGMENT = 64
# exp(-d^2 / (2 sigma^2)) = 2^(-SHARPNESS d^2)
SHARPNESS = math.log2(math.e) / (2 * SIGMA**2)
# of the weight: g'(d) = -STEEPNESS d g(d)
STEEPNESS = 1 / SIGMA**2

DROP, WRAP, CLAMP = range(len(BORDERS))
# a place that is on no canvas, wrapped or not
NOWHERE = -4.0 * FAR


def splat(
    values: Tensor, coords: Tensor, group: Tensor, n_groups: int, shape: Sequence[int], border: str
) -> tuple[Tensor, Tensor]:
    """See :func:`gigascope.kernels.ortho.splat`; all contiguous. In float64."""
    sums = torch.zeros(n_groups, *shape, dtype=torch.float64)
    weights = torch.zeros_like(sums)
    _run_splat(values, coords, group, border, False, sums, weights)
    return sums, weights


def splat_predict(
    values: Tensor,
    coords: Tensor,
    group: Tensor,
    n_groups: int,
    shape: Sequence[int],
    border: str,
    through_mosaic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`gigascope.kernels.ortho.splat_predict`; all contiguous."""
    sums, weights = splat(values, coords, group, n_groups, shape, border)
    mosaic = torch.where(weights > 0, sums / weights, 0.0).to(values.dtype)
    predicted = torch.empty_like(values)
    work = 60 * values.numel()
    _predict(mosaic.numpy(), coords.numpy(), group.numpy(), BORDERS.index(border), predicted.numpy(), work=work)
    return predicted, mosaic, weights.to(values.dtype)


def splat_predict_backward(
    cotangent: Tensor,
    values: Tensor,
    coords: Tensor,
    group: Tensor,
    mosaic: Tensor,
    weights: Tensor,
    border: str,
    through_mosaic: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of `splat_predict` with respect to values and coordinates; all contiguous.

    The adjoint of reading is the splat of cotangent / sum of weights, the adjoint of the mean the reading of that.
    """
    grad_values, grad_coords = torch.zeros_like(values), torch.empty_like(coords)
    back = torch.zeros(0, 0, 0, dtype=torch.float64)
    if through_mosaic:
        back = torch.zeros(mosaic.shape, dtype=torch.float64)
        _run_splat(cotangent, coords, group, border, True, back, torch.zeros(0, 0, 0, dtype=torch.float64))
        back = torch.where(weights > 0, back / weights, 0.0)
    numpy = [tensor.numpy() for tensor in (cotangent, values, coords, group, mosaic, back)]
    _gradients(*numpy, BORDERS.index(border), grad_values.numpy(), grad_coords.numpy(), work=120 * values.numel())
    return grad_values, grad_coords


def _run_splat(
    values: Tensor, coords: Tensor, group: Tensor, border: str, divide: bool, sums: Tensor, weights: Tensor
) -> None:
    """Add to sums and, unless they are empty, to weights; `divide` splats values / sum of their weights."""
    n, h, w = values.shape
    code, (_, n_rows, n_cols) = BORDERS.index(border), sums.shape
    reach = np.empty((n, h, math.ceil(w / SEGMENT), 2), dtype=np.int32)
    _reach(coords.numpy(), n_rows, code, reach, work=10 * values.numel())
    numpy = [tensor.detach().numpy() for tensor in (values, coords, group)]
    _splat(*numpy, reach, code, divide, n_cols, sums.numpy(), weights.numpy(), work=80 * values.numel())


@inline_kernel
def _place_segment(coordinates, n, border, first, second, near, far, fraction):
    """Neighbours of a segment of pixels along one axis and their weights, 0 outside; all scratch but `coordinates`."""
    count = coordinates.size
    for j in range(count):
        q = np.float64(coordinates[j])
        if border == CLAMP:
            q = 0.0 if q < 0.0 else (n - 1.0 if q > n - 1.0 else q)
        # also where it is not a number
        q = q if abs(q) < FAR else NOWHERE
        low = math.floor(q)
        d = q - low
        first[j] = int(low)
        fraction[j] = d
        near[j] = d * d
        far[j] = (1.0 - d) * (1.0 - d)
    scale, lanes = splat_like(near, -SHARPNESS), lanes_of(near)
    for j in range(0, count, lanes):
        store(near, j, exp2(multiply(scale, load(near, j))))
        store(far, j, exp2(multiply(scale, load(far, j))))
    for j in range(count):
        a = first[j]
        b = a + 1
        if border == WRAP and a > NOWHERE and (a < 0 or b >= n):
            a, b = a % n, b % n
        if a < 0 or a >= n:
            a, near[j] = 0, 0.0
        if b < 0 or b >= n:
            b, far[j] = 0, 0.0
        first[j], second[j] = a, b


@parallel_kernel
def _reach(coords, n_rows, border, reach):
    """First and last row of the canvas that each segment of pixels reaches; all rows where it goes over its edge."""
    n, n_lines, n_segments, _ = reach.shape
    width = coords.shape[3]
    for task in prange(n * n_lines):
        k, i = task // n_lines, task % n_lines
        for s in range(n_segments):
            low, high, lost = np.inf, -np.inf, False
            for j in range(s * SEGMENT, min((s + 1) * SEGMENT, width)):
                q = np.float64(coords[k, 0, i, j])
                low, high, lost = min(low, q), max(high, q), lost or q != q
            inside = low >= 0.0 and high < n_rows - 1.0 and not lost
            beyond = border == DROP and (high < -1.0 or low >= n_rows) and not lost
            reach[k, i, s, 0] = n_rows if beyond else int(low) if inside else 0
            reach[k, i, s, 1] = -1 if beyond else int(high) + 1 if inside else n_rows - 1


@inline_kernel
def _add(canvas, at, next_at, near, far, value):
    """Add one value to two columns of a canvas without its ends."""
    canvas[np.uint64(at)] += near * value
    canvas[np.uint64(next_at)] += far * value


@parallel_kernel
def _splat(values, coords, group, reach, border, divide, n_cols, sums, weights):
    n_groups, n_rows, _ = sums.shape
    n, n_lines, width = values.shape
    n_bands, counted = (n_rows + BAND - 1) // BAND, weights.size > 0
    for task in prange(n_groups * n_bands):
        g, begin = task // n_bands, task % n_bands * BAND
        end = min(begin + BAND, n_rows)
        index, scratch = np.empty((4, SEGMENT), dtype=np.int64), np.zeros((5, SEGMENT))
        r0, r1, c0, c1 = index[0], index[1], index[2], index[3]
        y0, y1, x0, x1, rest = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
        canvas = sums[g].reshape(-1)
        counts = weights[g].reshape(-1) if counted else canvas
        for k in range(n):
            if group[k] != g:
                continue
            for i in range(n_lines):
                for s in range(reach.shape[2]):
                    if reach[k, i, s, 1] < begin or reach[k, i, s, 0] >= end:
                        continue
                    start, stop = s * SEGMENT, min((s + 1) * SEGMENT, width)
                    _place_segment(coords[k, 0, i, start:stop], n_rows, border, r0, r1, y0, y1, rest)
                    _place_segment(coords[k, 1, i, start:stop], n_cols, border, c0, c1, x0, x1, rest)
                    line = values[k, i, start:stop]
                    for j in range(stop - start):
                        a, b, left, right = y0[j], y1[j], x0[j], x1[j]
                        total = (a + b) * (left + right)
                        if total == 0.0:
                            continue
                        v = np.float64(line[j]) / total if divide else np.float64(line[j])
                        # what lies outside has the index 0 and no weight
                        if a > 0.0 and r0[j] >= begin and r0[j] < end:
                            at = r0[j] * n_cols
                            _add(canvas, at + c0[j], at + c1[j], a * left, a * right, v)
                            if counted:
                                _add(counts, at + c0[j], at + c1[j], a * left, a * right, 1.0)
                        if b > 0.0 and r1[j] >= begin and r1[j] < end:
                            at = r1[j] * n_cols
                            _add(canvas, at + c0[j], at + c1[j], b * left, b * right, v)
                            if counted:
                                _add(counts, at + c0[j], at + c1[j], b * left, b * right, 1.0)


@inline_kernel
def _four(canvas, r0, r1, c0, c1):
    """The four neighbours; what lies outside has the index 0 and no weight."""
    r0, r1, c0, c1 = np.uint64(r0), np.uint64(r1), np.uint64(c0), np.uint64(c1)
    upper, lower = np.float64(canvas[r0, c0]), np.float64(canvas[r1, c0])
    return upper, np.float64(canvas[r0, c1]), lower, np.float64(canvas[r1, c1])


@parallel_kernel
def _predict(mosaic, coords, group, border, predicted):
    _, n_rows, n_cols = mosaic.shape
    n, n_lines, width = predicted.shape
    for task in prange(n * n_lines):
        k, i = task // n_lines, task % n_lines
        index, scratch = np.empty((4, SEGMENT), dtype=np.int64), np.zeros((5, SEGMENT))
        r0, r1, c0, c1 = index[0], index[1], index[2], index[3]
        y0, y1, x0, x1, rest = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
        for start in range(0, width, SEGMENT):
            stop = min(start + SEGMENT, width)
            _place_segment(coords[k, 0, i, start:stop], n_rows, border, r0, r1, y0, y1, rest)
            _place_segment(coords[k, 1, i, start:stop], n_cols, border, c0, c1, x0, x1, rest)
            for j in range(stop - start):
                total = (y0[j] + y1[j]) * (x0[j] + x1[j])
                a, b, c, d = _four(mosaic[group[k]], r0[j], r1[j], c0[j], c1[j])
                read = y0[j] * (x0[j] * a + x1[j] * b) + y1[j] * (x0[j] * c + x1[j] * d)
                predicted[k, i, start + j] = read / total if total > 0.0 else np.nan


@inline_kernel
def _free(q, n, border):
    """Whether a coordinate moves the place that is read, and was not clamped to the border."""
    return border != CLAMP or (q >= 0 and q <= n - 1)


@parallel_kernel
def _gradients(cotangent, values, coords, group, mosaic, back, border, grad_values, grad_coords):
    _, n_rows, n_cols = mosaic.shape
    n, n_lines, width = values.shape
    through = back.size > 0
    for task in prange(n * n_lines):
        k, i = task // n_lines, task % n_lines
        index, scratch = np.empty((4, SEGMENT), dtype=np.int64), np.zeros((6, SEGMENT))
        r0, r1, c0, c1 = index[0], index[1], index[2], index[3]
        y0, y1, x0, x1, f, e = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4], scratch[5]
        for start in range(0, width, SEGMENT):
            stop = min(start + SEGMENT, width)
            _place_segment(coords[k, 0, i, start:stop], n_rows, border, r0, r1, y0, y1, f)
            _place_segment(coords[k, 1, i, start:stop], n_cols, border, c0, c1, x0, x1, e)
            for j in range(stop - start):
                total = (y0[j] + y1[j]) * (x0[j] + x1[j])
                at = start + j
                if total == 0.0:
                    grad_coords[k, 0, i, at] = 0
                    grad_coords[k, 1, i, at] = 0
                    continue
                # derivatives of the weights: one neighbour comes nearer as the other goes
                p0, p1 = -STEEPNESS * f[j] * y0[j], STEEPNESS * (1.0 - f[j]) * y1[j]
                q0, q1 = -STEEPNESS * e[j] * x0[j], STEEPNESS * (1.0 - e[j]) * x1[j]
                a, b, c, d = _four(mosaic[group[k]], r0[j], r1[j], c0[j], c1[j])
                read = (y0[j] * (x0[j] * a + x1[j] * b) + y1[j] * (x0[j] * c + x1[j] * d)) / total
                share = np.float64(cotangent[k, i, at]) / total
                by_a, by_b, by_c, by_d = share * (a - read), share * (b - read), share * (c - read), share * (d - read)
                if through:
                    v = np.float64(values[k, i, at])
                    ga, gb, gc, gd = _four(back[group[k]], r0[j], r1[j], c0[j], c1[j])
                    mean = y0[j] * (x0[j] * ga + x1[j] * gb) + y1[j] * (x0[j] * gc + x1[j] * gd)
                    grad_values[k, i, at] = mean
                    by_a += (v - a) * ga
                    by_b += (v - b) * gb
                    by_c += (v - c) * gc
                    by_d += (v - d) * gd
                across_r = p0 * (x0[j] * by_a + x1[j] * by_b) + p1 * (x0[j] * by_c + x1[j] * by_d)
                across_c = q0 * (y0[j] * by_a + y1[j] * by_c) + q1 * (y0[j] * by_b + y1[j] * by_d)
                grad_coords[k, 0, i, at] = across_r if _free(coords[k, 0, i, at], n_rows, border) else 0.0
                grad_coords[k, 1, i, at] = across_c if _free(coords[k, 1, i, at], n_cols, border) else 0.0
