"""Blended gather on the GPU in Triton: a program has a row of a block and, side by side, the views that may see it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gpu import on_device_of
from gigascope.kernels.ortho.blocks import BLOCK, members
from gigascope.kernels.ortho.cuda import N_COLUMNS, pixel_of
from gigascope.kernels.ortho.reference_blend import MAD, SNAP

WARPS = 4
N_PHOTOMETRIC = tl.constexpr(8)
_MAD = tl.constexpr(MAD)
_SNAP = tl.constexpr(SNAP)


def blend(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    heights: Tensor,
    colours: Tensor,
    confidence: Tensor | None,
    clarity: Tensor | None,
    photometric: Tensor,
    corners: Tensor,
    start: Sequence[int],
    shape: Sequence[int],
    least_gate: float,
    gate: float,
    feather: float,
    epsilon: float,
    mode: str,
    sampling: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See :func:`gigascope.kernels.ortho.blend`; all contiguous."""
    device = heights.device
    lists, n_members = _lists(members(table, distortion, size, corners, heights.shape[1:], start, shape))
    colour = torch.empty(colours.shape[3], *shape, device=device)
    rest = torch.empty(4, *shape, device=device)
    # numbers that float32 arguments would round
    numbers = torch.tensor([*size, *start], dtype=torch.float64, device=device)
    trust, clear = (heights if maps is None else maps for maps in (confidence, clarity))
    views = (table, distortion, numbers, corners, photometric, lists.to(device), heights, trust, clear, colours)
    n_down, n_across = (-(-n // BLOCK) for n in shape)
    with on_device_of(heights):
        _blend[(n_down * n_across, min(BLOCK, shape[0]))](
            *views, colour, rest, least_gate, gate, feather, epsilon, *heights.shape[1:], *shape, n_across,
            ORDER=len(distortion), CHANNELS=colours.shape[3], TRUST=confidence is not None, CLEAR=clarity is not None,
            BEST=mode == "best", CUBIC=sampling == "cubic", M=n_members, X=BLOCK, num_warps=WARPS,
            enable_fp_fusion=True,
        )  # fmt: skip
    return colour, *rest.unbind(0)  # type: ignore[return-value]


def _lists(meets: Tensor) -> tuple[Tensor, int]:
    """Views of every block, ascending, -1 behind the last, (blocks, M) int32; M is a power of two, 2 at least."""
    flat = meets.flatten(0, 1)
    most = max(2, int(flat.sum(1).max()))
    n = 1 << (most - 1).bit_length()
    views = torch.where(flat, torch.arange(flat.shape[1]), flat.shape[1])
    ordered = views.sort(dim=1).values[:, :n]
    full = torch.full((len(flat), n), -1, dtype=torch.int32)
    full[:, : ordered.shape[1]] = torch.where(ordered < flat.shape[1], ordered, -1).int()
    return full, n


@triton.jit
def _bilinear(values, upper, lower, i, j, f, g, seen):
    """Samples between two rows and two columns of maps."""
    a = tl.load(values + upper + i, mask=seen, other=0).to(tl.float32)
    b = tl.load(values + upper + j, mask=seen, other=0).to(tl.float32)
    c = tl.load(values + lower + i, mask=seen, other=0).to(tl.float32)
    d = tl.load(values + lower + j, mask=seen, other=0).to(tl.float32)
    return (1.0 - f) * ((1.0 - g) * a + g * b) + f * ((1.0 - g) * c + g * d)


@triton.jit
def _cubic(f, tap: tl.constexpr):
    """Weight of the sample at tap - 1 for a place f of 0 to 1."""
    if tap == 0:
        weight = ((-0.5 * f + 1.0) * f - 0.5) * f
    elif tap == 1:
        weight = (1.5 * f - 2.5) * f * f + 1.0
    elif tap == 2:
        weight = ((-1.5 * f + 2.0) * f + 0.5) * f
    else:
        weight = (0.5 * f - 0.5) * f * f
    return weight


@triton.jit
def _sample(
    values, place, view, crop_r, crop_c, seen, CHANNELS: tl.constexpr, channel: tl.constexpr, CUBIC: tl.constexpr
):  # fmt: skip
    """Samples of a channel at what `_footprint` found; by cubic convolution with borders repeated, or bilinear."""
    upper, lower, left, right, f, g = place
    if not CUBIC:
        above, under = upper * CHANNELS + channel, lower * CHANNELS + channel
        return _bilinear(values, above, under, left * CHANNELS, right * CHANNELS, f, g, seen)
    first = view.to(tl.int64) * crop_r
    row = upper // crop_c - first
    total = f * 0.0
    for a in tl.static_range(4):
        line = (first + tl.minimum(tl.maximum(row + (a - 1), 0), crop_r - 1)) * crop_c
        for b in tl.static_range(4):
            at = line + tl.minimum(tl.maximum(left + (b - 1), 0), crop_c - 1)
            value = tl.load(values + at * CHANNELS + channel, mask=seen, other=0).to(tl.float32)
            total += _cubic(f, a) * _cubic(g, b) * value
    return total


@triton.jit
def _snapped(at, last):
    """Coordinates that rounding has put beyond the outermost pixel centre, on it."""
    at = tl.where((at < 0.0) & (at >= -_SNAP), 0.0, at)
    return tl.where((at > last) & (at <= last + _SNAP), last, at)


@triton.jit
def _footprint(r, c, view, corners, crop_r, crop_c, seen):
    """Rows and columns of the crops around pixels of the views, fractions, and which pixels are on their crop."""
    at_r = r - tl.load(corners + 2 * view).to(tl.float64)
    at_c = c - tl.load(corners + 2 * view + 1).to(tl.float64)
    seen = seen & (at_r >= 0.0) & (at_c >= 0.0) & (at_r <= crop_r - 1.0) & (at_c <= crop_c - 1.0)
    at_r, at_c = tl.where(seen, at_r, 0.0), tl.where(seen, at_c, 0.0)
    i, j = tl.floor(at_r), tl.floor(at_c)
    first = view.to(tl.int64) * crop_r
    upper = (first + i.to(tl.int64)) * crop_c
    lower = (first + tl.minimum(i + 1.0, crop_r - 1.0).to(tl.int64)) * crop_c
    left, right = j.to(tl.int64), tl.minimum(j + 1.0, crop_c - 1.0).to(tl.int64)
    return upper, lower, left, right, (at_r - i).to(tl.float32), (at_c - j).to(tl.float32), seen


@triton.jit
def _median(values, used, n, lane):
    """Median over the views of each pixel, the mean of the middle two of an even number."""
    ordered = tl.sort(tl.where(used, values, float("inf")), dim=1)
    low, high = (tl.maximum(n, 1) - 1) // 2, tl.minimum(n // 2, tl.maximum(n, 1) - 1)
    one = tl.sum(tl.where(lane == low[:, None], ordered, 0.0), axis=1)
    two = tl.sum(tl.where(lane == high[:, None], ordered, 0.0), axis=1)
    # halves of either: a pixel that nobody sees has infinities
    return tl.where(n > 0, 0.5 * one + 0.5 * two, 0.0)


@triton.jit
def _largest(w, used, lane, M: tl.constexpr):
    """The view of largest weight of each pixel, the first of equal ones."""
    first = tl.min(tl.where(used & (w == tl.max(w, axis=1)[:, None]), lane, M), axis=1)
    return used & (lane == first[:, None])


@triton.jit
def _store_numbers(target, n_pixels, height, total, n, deviation, inside):
    """Height, weight, number of views and deviation, each a plane of the tile."""
    tl.store(target, tl.where(total > 0.0, height, float("nan")), mask=inside)
    tl.store(target + n_pixels, total, mask=inside)
    tl.store(target + 2 * n_pixels, n.to(tl.float32), mask=inside)
    tl.store(target + 3 * n_pixels, tl.where(n > 1, deviation, float("nan")), mask=inside)


@triton.jit
def _light(correction, y, x, known):
    """Factor of the illumination polynomial."""
    total = 1.0 + tl.load(correction + 2, mask=known, other=0.0) + tl.load(correction + 3, mask=known, other=0.0) * x
    total += tl.load(correction + 4, mask=known, other=0.0) * y + tl.load(correction + 5, mask=known, other=0.0) * x * x
    total += tl.load(correction + 6, mask=known, other=0.0) * y * y
    return (total + tl.load(correction + 7, mask=known, other=0.0) * x * y).to(tl.float32)


@triton.jit
def _blend(
    table, distortion, numbers, corners, photometric, lists, heights, trust, clear, colours, colour, rest,
    least_gate, gate, feather, epsilon, crop_r, crop_c, n_rows, n_cols, n_across,
    ORDER: tl.constexpr, CHANNELS: tl.constexpr, TRUST: tl.constexpr, CLEAR: tl.constexpr, BEST: tl.constexpr,
    CUBIC: tl.constexpr, M: tl.constexpr, X: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    row = block // n_across * X + tl.program_id(1)
    col = block % n_across * X + tl.arange(0, X)
    inside = (row < n_rows) & (col < n_cols)
    lane = tl.arange(0, M)[None, :]
    view = tl.load(lists + block * M + lane)
    known = view >= 0
    view = tl.maximum(view, 0)
    size_r, size_c = tl.load(numbers), tl.load(numbers + 1)
    q_row, q_col = tl.load(numbers + 2) + row, (tl.load(numbers + 3) + col)[:, None]
    r, c = pixel_of(table + view * N_COLUMNS, distortion, size_r, size_c, q_row, q_col, known, ORDER)
    r, c = _snapped(r, size_r - 1.0), _snapped(c, size_c - 1.0)
    edge = tl.minimum(tl.minimum(r, size_r - 1.0 - r), tl.minimum(c, size_c - 1.0 - c))
    seen = known & inside[:, None] & (edge >= 0.0)
    upper, lower, left, right, f, g, seen = _footprint(r, c, view, corners, crop_r, crop_c, seen)

    h = _bilinear(heights, upper, lower, left, right, f, g, seen)
    certain = h * 0.0 + epsilon
    if TRUST:
        certain += _bilinear(trust, upper, lower, left, right, f, g, seen)
    fall = tl.minimum((edge.to(tl.float32) + 0.5) / feather, 1.0)
    weight = fall * fall * certain
    seen = seen & (h == h) & (weight > 0.0)
    h = tl.where(seen, h, 0.0)
    n = tl.sum(seen.to(tl.int32), axis=1)
    middle = _median(h, seen, n, lane)
    off = h - middle[:, None]
    spread = _median(tl.abs(off), seen, n, lane)
    limit = gate * tl.maximum(spread * _MAD, least_gate)
    used = seen & (tl.abs(off) <= limit[:, None])

    w = tl.where(used, weight, 0.0)
    total = tl.sum(w, axis=1)
    some = total > 0.0
    whole = tl.where(some, total, 1.0)
    n = tl.sum(used.to(tl.int32), axis=1)
    mean = tl.sum(w * off, axis=1) / whole
    apart = off - mean[:, None]
    deviation = tl.sqrt(tl.sum(w * apart * apart, axis=1) / whole)
    if BEST:
        mean = tl.sum(tl.where(_largest(w, used, lane, M), off, 0.0), axis=1)
    # by way of the program's row: a size of 1 is a constant, which has no type to change
    n_pixels = ((row * 0).to(tl.int64) + n_rows) * n_cols
    at = row.to(tl.int64) * n_cols + col
    _store_numbers(rest + at, n_pixels, middle + mean, total, n, deviation, inside)

    if CLEAR:
        w *= tl.where(used, _bilinear(clear, upper, lower, left, right, f, g, used), 0.0)
    whole, only = tl.where(some, tl.sum(w, axis=1), 1.0), _largest(w, used, lane, M)
    larger, correction = tl.maximum(size_r, size_c), photometric + view * N_PHOTOMETRIC
    light = _light(correction, (r - 0.5 * size_r) / larger, (c - 0.5 * size_c) / larger, known)
    gain, bias = tl.load(correction).to(tl.float32), tl.load(correction + 1).to(tl.float32)
    for channel in tl.static_range(CHANNELS):
        place = (upper, lower, left, right, f, g)
        value = (gain * _sample(colours, place, view, crop_r, crop_c, used, CHANNELS, channel, CUBIC) + bias) * light
        if BEST:
            blended = tl.sum(tl.where(only, value, 0.0), axis=1)
        else:
            blended = tl.sum(tl.where(used, w * value, 0.0), axis=1) / whole
        tl.store(colour + channel * n_pixels + at, tl.where(some, blended, float("nan")), mask=inside)
