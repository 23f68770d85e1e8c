"""Splat and re-prediction on the GPU in Triton: sums of integers, which are the same in whichever order they come.

A weight times a value becomes an integer with 40 binary digits below the largest value of the call (32 where it is
divided by the sum of its weights, which may be 0.004 at an edge); 2^22 pixels may meet on one canvas pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gpu import n_blocks, on_device_of
from gigascope.kernels.ortho.splatting import BORDERS, FAR, SIGMA

BLOCK = 256
WARPS = 4
DIGITS, DIGITS_DIVIDED = 40, 32

_FAR = tl.constexpr(FAR)
_SHARPNESS = tl.constexpr(math.log2(math.e) / (2 * SIGMA**2))
_STEEPNESS = tl.constexpr(1 / SIGMA**2)
# constants stand behind what they multiply: in front, Triton's interpreter takes the product for a constant
_WRAP = tl.constexpr(BORDERS.index("wrap"))
_CLAMP = tl.constexpr(BORDERS.index("clamp"))
_UNIT = tl.constexpr(2.0**DIGITS)


def splat(
    values: Tensor, coords: Tensor, group: Tensor, n_groups: int, shape: Sequence[int], border: str
) -> tuple[Tensor, Tensor]:
    """See :func:`gigascope.kernels.ortho.splat`; all contiguous. In float64."""
    return _sums(values, coords, group, (n_groups, *shape), border, divide=False)


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
    mosaic = torch.where(weights > 0, sums / weights, 0.0).float()
    predicted = torch.empty_like(values)
    _launch(_predict, values, shape, border, mosaic, coords, group, predicted)
    return predicted, mosaic, weights.float()


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
    """Gradients of `splat_predict` with respect to values and coordinates; all contiguous."""
    grad_values, grad_coords, back = torch.zeros_like(values), torch.empty_like(coords), mosaic
    if through_mosaic:
        sums, _ = _sums(cotangent, coords, group, mosaic.shape, border, divide=True)
        back = torch.where(weights > 0, sums / weights, 0.0).float()
    arguments = (cotangent, values, coords, group, mosaic, back, grad_values, grad_coords)
    _launch(_gradients, values, mosaic.shape[1:], border, *arguments, THROUGH=through_mosaic)
    return grad_values, grad_coords


def _sums(
    values: Tensor, coords: Tensor, group: Tensor, canvas: Sequence[int], border: str, divide: bool
) -> tuple[Tensor, Tensor]:
    """Sums of weight times value and of weights on canvases (groups, rows, columns), float64."""
    # a power of two, found on the device: nobody waits for it; not a number where a value is none
    exponent = torch.frexp(values.abs().amax()).exponent.double()
    digits = DIGITS_DIVIDED if divide else DIGITS
    scale = torch.where(values.abs().amax().isfinite(), torch.exp2(digits - exponent), torch.nan)
    sums, counts = (torch.zeros(*canvas, dtype=torch.int64, device=values.device) for _ in range(2))
    _launch(_splat, values, canvas[1:], border, values, coords, group, scale, sums, counts, DIVIDE=divide)
    return sums.double() / scale, counts.double() / _UNIT.value


def _launch(kernel, like: Tensor, canvas: Sequence[int], border: str, *arguments: Tensor, **constants: int) -> None:
    """One program per view and stretch of its pixels."""
    n, h, w = like.shape
    with on_device_of(like):
        kernel[(n_blocks(h * w, BLOCK), n)](
            *arguments, h * w, canvas[0], canvas[1], BORDER=BORDERS.index(border), B=BLOCK, num_warps=WARPS,
            enable_fp_fusion=True, **constants,
        )  # fmt: skip


@triton.jit
def _axis(q, n, BORDER: tl.constexpr):
    """The two neighbours along an axis, their weights (0 outside), fraction, and whether the place moves with q."""
    free = q == q
    if BORDER == _CLAMP:
        free = (q >= 0.0) & (q <= n - 1.0)
        q = tl.where(q < 0.0, 0.0, tl.where(q > n - 1.0, n - 1.0, q))
    known = tl.abs(q) < _FAR
    q = tl.where(known, q, 0.0)
    low = tl.floor(q)
    d = q - low
    first = low.to(tl.int32)
    second = first + 1
    if BORDER == _WRAP:
        # the remainder of a negative number is negative in Triton
        first, second = ((first % n) + n) % n, ((second % n) + n) % n
    first_on, second_on = known & (first >= 0) & (first < n), known & (second >= 0) & (second < n)
    near = tl.where(first_on, tl.exp2(d * d * -_SHARPNESS), 0.0)
    far = tl.where(second_on, tl.exp2((1.0 - d) * (1.0 - d) * -_SHARPNESS), 0.0)
    return tl.where(first_on, first, 0), tl.where(second_on, second, 0), near, far, d, free


@triton.jit
def _pixel(coords, n_pixels, B: tl.constexpr):
    """Number of the view, offset of its pixels, which of them exist, and their coordinates."""
    k, at = tl.program_id(1).to(tl.int64), tl.program_id(0) * B + tl.arange(0, B)
    inside = at < n_pixels
    row = tl.load(coords + 2 * k * n_pixels + at, mask=inside, other=0.0)
    col = tl.load(coords + (2 * k + 1) * n_pixels + at, mask=inside, other=0.0)
    return k, k * n_pixels + at, inside, row, col


@triton.jit
def _add(sums, counts, at, weight, value, scale, inside, DIVIDE: tl.constexpr):
    """Add integers to one canvas pixel per pixel."""
    used = inside & (weight > 0.0)
    term = weight.to(tl.float64) * value * scale
    tl.atomic_add(sums + at, tl.floor(term + 0.5).to(tl.int64), mask=used, sem="relaxed")
    if not DIVIDE:
        tl.atomic_add(counts + at, tl.floor(weight.to(tl.float64) * _UNIT + 0.5).to(tl.int64), mask=used, sem="relaxed")


@triton.jit
def _splat(
    values, coords, group, scale, sums, counts, n_pixels, n_rows, n_cols,
    BORDER: tl.constexpr, B: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    k, at, inside, row, col = _pixel(coords, n_pixels, B)
    r0, r1, y0, y1, _, _ = _axis(row, n_rows, BORDER)
    c0, c1, x0, x1, _, _ = _axis(col, n_cols, BORDER)
    value, unit = tl.load(values + at, mask=inside, other=0.0).to(tl.float64), tl.load(scale)
    if DIVIDE:
        total = (y0 + y1) * (x0 + x1)
        value = tl.where(total > 0.0, value / tl.where(total > 0.0, total, 1.0), 0.0)
    canvas = tl.load(group + k).to(tl.int64) * n_rows * n_cols
    upper, lower = canvas + r0.to(tl.int64) * n_cols, canvas + r1.to(tl.int64) * n_cols
    _add(sums, counts, upper + c0, y0 * x0, value, unit, inside, DIVIDE)
    _add(sums, counts, upper + c1, y0 * x1, value, unit, inside, DIVIDE)
    _add(sums, counts, lower + c0, y1 * x0, value, unit, inside, DIVIDE)
    _add(sums, counts, lower + c1, y1 * x1, value, unit, inside, DIVIDE)


@triton.jit
def _four(canvas, upper, lower, c0, c1, inside):
    """The four neighbours of every pixel."""
    a, b = tl.load(canvas + upper + c0, mask=inside, other=0.0), tl.load(canvas + upper + c1, mask=inside, other=0.0)
    c, d = tl.load(canvas + lower + c0, mask=inside, other=0.0), tl.load(canvas + lower + c1, mask=inside, other=0.0)
    return a, b, c, d


@triton.jit
def _predict(
    mosaic, coords, group, predicted, n_pixels, n_rows, n_cols, BORDER: tl.constexpr, B: tl.constexpr
):  # fmt: skip
    k, at, inside, row, col = _pixel(coords, n_pixels, B)
    r0, r1, y0, y1, _, _ = _axis(row, n_rows, BORDER)
    c0, c1, x0, x1, _, _ = _axis(col, n_cols, BORDER)
    canvas = tl.load(group + k).to(tl.int64) * n_rows * n_cols
    a, b, c, d = _four(mosaic, canvas + r0.to(tl.int64) * n_cols, canvas + r1.to(tl.int64) * n_cols, c0, c1, inside)
    total = (y0 + y1) * (x0 + x1)
    read = (y0 * (x0 * a + x1 * b) + y1 * (x0 * c + x1 * d)) / tl.where(total > 0.0, total, 1.0)
    tl.store(predicted + at, tl.where(total > 0.0, read, float("nan")), mask=inside)


@triton.jit
def _gradients(
    cotangent, values, coords, group, mosaic, back, grad_values, grad_coords, n_pixels, n_rows, n_cols,
    BORDER: tl.constexpr, B: tl.constexpr, THROUGH: tl.constexpr,
):  # fmt: skip
    k, at, inside, row, col = _pixel(coords, n_pixels, B)
    r0, r1, y0, y1, f, free_r = _axis(row, n_rows, BORDER)
    c0, c1, x0, x1, e, free_c = _axis(col, n_cols, BORDER)
    canvas = tl.load(group + k).to(tl.int64) * n_rows * n_cols
    upper, lower = canvas + r0.to(tl.int64) * n_cols, canvas + r1.to(tl.int64) * n_cols
    # derivatives of the weights: one neighbour comes nearer as the other goes
    p0, p1 = f * y0 * -_STEEPNESS, (1.0 - f) * y1 * _STEEPNESS
    q0, q1 = e * x0 * -_STEEPNESS, (1.0 - e) * x1 * _STEEPNESS
    a, b, c, d = _four(mosaic, upper, lower, c0, c1, inside)
    total = (y0 + y1) * (x0 + x1)
    seen = total > 0.0
    whole = tl.where(seen, total, 1.0)
    read = (y0 * (x0 * a + x1 * b) + y1 * (x0 * c + x1 * d)) / whole
    share = tl.where(seen, tl.load(cotangent + at, mask=inside, other=0.0), 0.0) / whole
    by_a, by_b, by_c, by_d = share * (a - read), share * (b - read), share * (c - read), share * (d - read)
    if THROUGH:
        v = tl.load(values + at, mask=inside, other=0.0)
        ga, gb, gc, gd = _four(back, upper, lower, c0, c1, inside)
        tl.store(grad_values + at, y0 * (x0 * ga + x1 * gb) + y1 * (x0 * gc + x1 * gd), mask=inside)
        by_a += (v - a) * ga
        by_b += (v - b) * gb
        by_c += (v - c) * gc
        by_d += (v - d) * gd
    across_r = p0 * (x0 * by_a + x1 * by_b) + p1 * (x0 * by_c + x1 * by_d)
    across_c = q0 * (y0 * by_a + y1 * by_c) + q1 * (y0 * by_b + y1 * by_d)
    place = 2 * k * n_pixels + (at - k * n_pixels)
    tl.store(grad_coords + place, tl.where(seen & free_r, across_r, 0.0), mask=inside)
    tl.store(grad_coords + place + n_pixels, tl.where(seen & free_c, across_c, 0.0), mask=inside)
