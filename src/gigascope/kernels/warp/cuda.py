"""Warp ops on the GPU in Triton: tiles along y; interpolation weights of a translation come from tables per axis."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gpu import n_blocks, on_device_of, y_block
from gigascope.kernels.warp.weights import (
    SNAP,
    axis_footprint,
    axis_taps,
    gaussian_taps,
    padded_index,
    spline_taps,
)

ROWS = 4
LARGEST_Y = 256
WARPS = 4
N_SUMS = 10

_SNAP = tl.constexpr(SNAP)


def spline_coefficients(views: Tensor) -> Tensor:
    """See :func:`gigascope.kernels.warp.spline_coefficients`; `views` contiguous."""
    return _separable(views, spline_taps(views.dtype), "mirror")


def gaussian_blur(views: Tensor, sigma: float) -> Tensor:
    """See :func:`gigascope.kernels.warp.gaussian_blur`; `views` contiguous."""
    return _separable(views, gaussian_taps(sigma), "nearest") if sigma > 0 else views.clone()


def resample(
    views: Tensor, matrices: Tensor, shape_out: tuple[int, int], order: int, bin: int = 1, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See :func:`gigascope.kernels.warp.resample`; all contiguous."""
    out = views.new_empty(views.shape[0], *shape_out)
    valid = torch.empty_like(out)
    trusted = views if mask is None else mask
    arguments = (views, matrices.to(views.device), trusted, out, valid, views.shape[1], views.shape[2], bin)
    _launch(_resample, out, *arguments, MASKED=mask is not None, ORDER=order)
    return out, valid


def translate(views: Tensor, shifts: Tensor, order: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See :func:`gigascope.kernels.warp.translate`; all contiguous."""
    out, valid = torch.empty_like(views), torch.empty_like(views)
    tables: list[Tensor] = []
    for axis in (1, 2):
        where = _coordinates(shifts, views, axis)
        low, high, inside = axis_footprint(where, views.shape[axis])
        tables += [*_taps(where, views, axis, order), low.int(), high.int(), inside.to(torch.uint8)]
    trusted = views if mask is None else mask
    _launch(_translate, views, views, *tables, trusted, out, valid, MASKED=mask is not None, TAPS=order + 1)
    return out, valid


def translate_adjoint(cotangent: Tensor, shifts: Tensor, order: int) -> Tensor:
    """Transpose of `translate` with respect to the views; `cotangent` contiguous."""
    result = cotangent
    for axis in (1, 2):
        index, weights = _taps(_coordinates(shifts, cotangent, axis), cotangent, axis, order)
        across = result if axis == 1 else result.transpose(1, 2).contiguous()
        out = torch.empty_like(across)
        _launch(_scatter_rows, out, across, index, weights, out, TAPS=order + 1)
        result = out if axis == 1 else out.transpose(1, 2).contiguous()
    return result


def shift_sums(model: Tensor, data: Tensor, weights: Tensor) -> Tensor:
    """See :func:`gigascope.kernels.warp.shift_sums`; all contiguous."""
    n_t, n_s, n_y = model.shape
    shape = (n_t, n_blocks(n_s, ROWS), n_blocks(n_y, y_block(n_y, LARGEST_Y)), N_SUMS)
    partial = torch.empty(shape, dtype=torch.float64, device=model.device)
    _launch(_shift_sums, model, model, data, weights, partial)
    return partial.sum((1, 2))


def _coordinates(shifts: Tensor, views: Tensor, axis: int) -> Tensor:
    """Source coordinate of every output sample of an axis, (tilt, n) float64."""
    samples = torch.arange(views.shape[axis], dtype=torch.float64, device=views.device)
    return samples + shifts.to(views.device)[:, axis - 1, None]


def _taps(where: Tensor, views: Tensor, axis: int, order: int) -> tuple[Tensor, Tensor]:
    """Sources (int32) and weights along one axis, (tilt, n, order + 1)."""
    index, weights = axis_taps(where, views.shape[axis], order)
    return index.int(), weights.to(views.dtype)


def _separable(views: Tensor, taps: Tensor, boundary: str) -> Tensor:
    """The same odd filter along both axes."""
    taps = taps.to(views.device, views.dtype)
    result = views
    for axis in (1, 2):
        index = padded_index(views.shape[axis], len(taps) // 2, boundary).to(views.device, torch.int32)
        out = torch.empty_like(views)
        _launch(_filter, out, result, taps, index, out, N_TAPS=len(taps), ALONG_Y=axis == 2)
        result = out
    return result


def _launch(kernel, like: Tensor, *arguments: Tensor | int, **constants: int) -> None:
    """One program per view, ROWS rows and stretch of y of an array (tilt, s, y)."""
    n_t, n_s, n_y = like.shape
    block = y_block(n_y, LARGEST_Y)
    grid = (n_t, n_blocks(n_s, ROWS), n_blocks(n_y, block))
    with on_device_of(like):
        kernel[grid](*arguments, n_s, n_y, S=ROWS, Y=block, num_warps=WARPS, enable_fp_fusion=True, **constants)


@triton.jit
def _tile(n_s, n_y, S: tl.constexpr, Y: tl.constexpr):
    """View, rows and samples of this program, offset of its view, and which elements exist."""
    t = tl.program_id(0)
    s = (tl.program_id(1) * S + tl.arange(0, S))[:, None]
    y = (tl.program_id(2) * Y + tl.arange(0, Y))[None, :]
    return t, s, y, (s < n_s) & (y < n_y)


@triton.jit
def _filter(
    views, taps, index, out, n_s, n_y, S: tl.constexpr, Y: tl.constexpr, N_TAPS: tl.constexpr, ALONG_Y: tl.constexpr
):
    t, s, y, inside = _tile(n_s, n_y, S, Y)
    view = t.to(tl.int64) * n_s * n_y
    total = tl.zeros((S, Y), dtype=tl.float32)
    for k in range(N_TAPS):
        if ALONG_Y:
            at = s * n_y + tl.load(index + y + k, mask=y < n_y, other=0)
        else:
            at = tl.load(index + s + k, mask=s < n_s, other=0) * n_y + y
        total += tl.load(taps + k) * tl.load(views + view + at, mask=inside, other=0.0)
    tl.store(out + view + s * n_y + y, total, mask=inside)


@triton.jit
def _translate(
    views, rows, row_weights, row_low, row_high, row_on, columns, weights, low, high, on, mask, out, valid, n_s, n_y,
    S: tl.constexpr, Y: tl.constexpr, MASKED: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    t, s, y, inside = _tile(n_s, n_y, S, Y)
    view = t.to(tl.int64) * n_s * n_y
    at_s, at_y = t * n_s + s, t * n_y + y
    has_s, has_y = s < n_s, y < n_y
    total = tl.zeros((S, Y), dtype=tl.float32)
    for j in tl.static_range(TAPS):
        row = tl.load(rows + at_s * TAPS + j, mask=has_s, other=0)
        row_weight = tl.load(row_weights + at_s * TAPS + j, mask=has_s, other=0.0)
        for k in tl.static_range(TAPS):
            column = tl.load(columns + at_y * TAPS + k, mask=has_y, other=0)
            weight = tl.load(weights + at_y * TAPS + k, mask=has_y, other=0.0)
            total += row_weight * weight * tl.load(views + view + row * n_y + column, mask=inside, other=0.0)
    tl.store(out + view + s * n_y + y, total, mask=inside)

    good = (tl.load(row_on + at_s, mask=has_s, other=0) != 0) & (tl.load(on + at_y, mask=has_y, other=0) != 0)
    if MASKED:
        above, below = tl.load(row_low + at_s, mask=has_s, other=0), tl.load(row_high + at_s, mask=has_s, other=0)
        left, right = tl.load(low + at_y, mask=has_y, other=0), tl.load(high + at_y, mask=has_y, other=0)
        good = good & _trusted(mask + view, above, below, left, right, n_y, inside)
    tl.store(valid + view + s * n_y + y, good.to(tl.float32), mask=inside)


@triton.jit
def _trusted(mask, above, below, left, right, width, inside):
    """Whether the four corners of a footprint are all on mask > 0."""
    good = tl.load(mask + above * width + left, mask=inside, other=0) != 0
    good = good & (tl.load(mask + above * width + right, mask=inside, other=0) != 0)
    good = good & (tl.load(mask + below * width + left, mask=inside, other=0) != 0)
    return good & (tl.load(mask + below * width + right, mask=inside, other=0) != 0)


@triton.jit
def _scatter_rows(cotangent, index, weights, out, n_s, n_y, S: tl.constexpr, Y: tl.constexpr, TAPS: tl.constexpr):
    """Transpose of interpolation along s in gather form: every source row is looked at, those that count are added."""
    t, s, y, inside = _tile(n_s, n_y, S, Y)
    view = t.to(tl.int64) * n_s * n_y
    total = tl.zeros((S, Y), dtype=tl.float32)
    for i in range(n_s):
        weight = tl.zeros((S, 1), dtype=tl.float32)
        for k in tl.static_range(TAPS):
            at = (t * n_s + i) * TAPS + k
            weight += tl.where(s == tl.load(index + at), tl.load(weights + at), 0.0)
        if tl.max(tl.max(tl.abs(weight), axis=1), axis=0) > 0.0:
            total += weight * tl.load(cotangent + view + i * n_y + y, mask=y < n_y, other=0.0)
    tl.store(out + view + s * n_y + y, total, mask=inside)


@triton.jit
def _folded(index, n):
    """Index folded back into 0..n-1 about the first and the last sample."""
    period = tl.maximum(2 * n - 2, 1)
    # the remainder of a negative number is negative in Triton
    rest = ((index % period) + period) % period
    return tl.where(n == 1, 0, tl.minimum(rest, period - rest))


@triton.jit
def _axis(coordinate, n, ORDER: tl.constexpr):
    """Sample before a coordinate moved onto the axis, fraction; corners of its footprint and whether they exist."""
    nearest = tl.floor(coordinate + 0.5)
    snapped = tl.where(tl.abs(coordinate - nearest) < _SNAP, nearest, coordinate)
    low, high = tl.floor(snapped), tl.ceil(snapped)
    on = (low >= 0) & (high <= n - 1)
    moved = tl.minimum(tl.maximum(coordinate, 0.0), (n - 1) * 1.0)
    first = tl.floor(moved)
    fraction = (moved - first).to(tl.float32)
    low = tl.minimum(tl.maximum(low, 0.0), (n - 1) * 1.0)
    high = tl.minimum(tl.maximum(high, 0.0), (n - 1) * 1.0)
    return first.to(tl.int32), fraction, low.to(tl.int32), high.to(tl.int32), on


@triton.jit
def _weight(f, k: tl.constexpr, ORDER: tl.constexpr):
    """Weight of tap k at a fraction, linear or cubic B-spline."""
    g = 1.0 - f
    if ORDER == 1:
        return g if k == 0 else f
    if k == 0:
        return g * g * g / 6.0
    if k == 1:
        return (4.0 - 6.0 * f * f + 3.0 * f * f * f) / 6.0
    if k == 2:
        return (4.0 - 6.0 * g * g + 3.0 * g * g * g) / 6.0
    return f * f * f / 6.0


@triton.jit
def _resample(
    views, matrices, mask, out, valid, h, w, bin, n_s, n_y,
    S: tl.constexpr, Y: tl.constexpr, MASKED: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    t, i, j, inside = _tile(n_s, n_y, S, Y)
    view = t.to(tl.int64) * h * w
    m = matrices + t * 6
    m00, m01, m02 = tl.load(m), tl.load(m + 1), tl.load(m + 2)
    m10, m11, m12 = tl.load(m + 3), tl.load(m + 4), tl.load(m + 5)
    total = tl.zeros((S, Y), dtype=tl.float32)
    good = inside
    for sample in range(bin * bin):
        a, b = i * bin + sample // bin, j * bin + sample % bin
        row, f, above, below, on_rows = _axis(m00 * a + m01 * b + m02, h, ORDER)
        column, g, left, right, on_columns = _axis(m10 * a + m11 * b + m12, w, ORDER)
        good = good & on_rows & on_columns
        if MASKED:
            good = good & _trusted(mask + view, above, below, left, right, w, inside)
        for p in tl.static_range(ORDER + 1):
            r = _folded(row + p - ORDER // 2, h) * w
            for q in tl.static_range(ORDER + 1):
                c = _folded(column + q - ORDER // 2, w)
                weight = _weight(f, p, ORDER) * _weight(g, q, ORDER)
                total += weight * tl.load(views + view + r + c, mask=inside, other=0.0)
    at = (t.to(tl.int64) * n_s + i) * n_y + j
    tl.store(out + at, total / (bin * bin), mask=inside)
    tl.store(valid + at, good.to(tl.float32), mask=inside)


@triton.jit
def _shift_sums(model, data, weights, partial, n_s, n_y, S: tl.constexpr, Y: tl.constexpr):
    t, s, y, inside = _tile(n_s, n_y, S, Y)
    view = t.to(tl.int64) * n_s * n_y
    here = model + view + s * n_y + y
    one_s, two_s = tl.maximum(s - 1, 0), tl.minimum(s + 1, n_s - 1)
    one_y, two_y = tl.maximum(y - 1, 0), tl.minimum(y + 1, n_y - 1)
    previous = tl.load(model + view + one_s * n_y + y, mask=inside, other=0.0).to(tl.float64)
    following = tl.load(model + view + two_s * n_y + y, mask=inside, other=0.0).to(tl.float64)
    left = tl.load(model + view + s * n_y + one_y, mask=inside, other=0.0).to(tl.float64)
    right = tl.load(model + view + s * n_y + two_y, mask=inside, other=0.0).to(tl.float64)
    g_s = (following - previous) / tl.maximum(two_s - one_s, 1)
    g_y = (right - left) / tl.maximum(two_y - one_y, 1)
    d = tl.load(data + view + s * n_y + y, mask=inside, other=0.0).to(tl.float64)
    r = tl.load(here, mask=inside, other=0.0).to(tl.float64) - d
    w = tl.load(weights + view + s * n_y + y, mask=inside, other=0.0).to(tl.float64)
    used = w > 0.0
    place = (t * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2) + tl.program_id(2)
    target = partial + place * 10
    w_s, w_y, w_r = w * g_s, w * g_y, w * r
    _store_sum(target, used, w)
    _store_sum(target + 1, used, w_s)
    _store_sum(target + 2, used, w_y)
    _store_sum(target + 3, used, w_r)
    _store_sum(target + 4, used, w_s * g_s)
    _store_sum(target + 5, used, w_s * g_y)
    _store_sum(target + 6, used, w_y * g_y)
    _store_sum(target + 7, used, w_s * r)
    _store_sum(target + 8, used, w_y * r)
    _store_sum(target + 9, used, w_r * r)


@triton.jit
def _store_sum(target, used, terms):
    """Sum of a tile over the elements in use."""
    tl.store(target, tl.sum(tl.sum(tl.where(used, terms, 0.0), axis=1), axis=0))
