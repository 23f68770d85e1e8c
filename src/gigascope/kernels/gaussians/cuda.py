"""Gaussian mixtures on the GPU in Triton: tiles of 4 x 8 x 8 samples, each with the list of its Gaussians; no atomics.

Tile kernels hold samples as (x, row) or (x, Gaussian, row): with 32 rows to a warp a thread owns rows of x, so that
c_z and c_y are computed once per row and sums along x stay in registers. The moments of a tile are those of raw
coordinates from its centre, sums over rows being small matrix products; they are written once per pair and added up by
Gaussian in the order of its tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gaussians.cuda_adam import adam_, parameter_gradients
from gigascope.kernels.gaussians.cuda_bins import COEFFICIENTS, FRAME, TILE, Bins, bins_of
from gigascope.kernels.gaussians.cuda_points import evaluate_points
from gigascope.kernels.gpu import on_device_of

__all__ = ["adam_", "count_pairs", "evaluate", "evaluate_points", "moments", "parameter_gradients", "squared_sums"]

# Gaussians whose moments are one matrix product: the least that tensor cores take
GROUP = 16
N_RAW = 16
# pairs of one Gaussian that are added up side by side
PAIRS = 32

_FRAME, _COEFFICIENTS, _N_RAW = tl.constexpr(FRAME), tl.constexpr(COEFFICIENTS), tl.constexpr(N_RAW)
# float32 decides what is inside a cut up to this much of cut^2; closer samples are decided in float64
_DOUBT = tl.constexpr(1e-5)
# the upper 10 bits of a mantissa, all that a TF32 product keeps
_TF32_BITS = tl.constexpr(-8192)


def evaluate(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    cuts: Tensor,
    shape: Sequence[int],
    origin: Sequence[float],
    spacing: Sequence[float],
) -> Tensor:
    """See :func:`gigascope.kernels.gaussians.evaluate`; all contiguous."""
    bins = bins_of((means, log_scales, quaternions, cuts), shape, origin, spacing)
    out = means.new_empty(tuple(shape))
    _launch(_evaluate, bins, 1, amplitudes, out, *shape)
    return out


def moments(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    upstream: Tensor,
    origin: Sequence[float],
    spacing: Sequence[float],
) -> Tensor:
    """See :func:`gigascope.kernels.gaussians.moments`; all contiguous."""
    bins = bins_of((means, log_scales, quaternions, cuts), upstream.shape, origin, spacing)
    raw = means.new_zeros(bins.pairs.shape[0], N_RAW)
    _launch(_raw_moments, bins, 4, bins.pairs, upstream, raw, *upstream.shape, G=GROUP)
    sums = means.new_empty(means.shape[0], 10)
    _add_up(_add_moments, bins, raw, sums)
    return sums


def squared_sums(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    weight: Tensor,
    origin: Sequence[float],
    spacing: Sequence[float],
) -> Tensor:
    """See :func:`gigascope.kernels.gaussians.squared_sums`; all contiguous."""
    bins = bins_of((means, log_scales, quaternions, cuts), weight.shape, origin, spacing)
    return _tile_sums(bins, weight, weight.shape, counting=False).to(means.dtype)


def count_pairs(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    shape: Sequence[int],
    origin: Sequence[float],
    spacing: Sequence[float],
) -> int:
    """See :func:`gigascope.kernels.gaussians.count_pairs`; all contiguous."""
    bins = bins_of((means, log_scales, quaternions, cuts), shape, origin, spacing)
    return int(_tile_sums(bins, means, shape, counting=True).sum())


def _tile_sums(bins: Bins, weight: Tensor, shape: Sequence[int], counting: bool) -> Tensor:
    """(N,) float64 sums of w phi^2, or numbers of samples inside the cuts."""
    raw = weight.new_zeros(bins.pairs.shape[0])
    _launch(_raw_squares, bins, 4, bins.pairs, weight, raw, *shape, G=GROUP, COUNTING=counting)
    sums = torch.zeros(bins.offsets.shape[0] - 1, dtype=torch.float64, device=raw.device)
    _add_up(_add_squares, bins, raw, sums)
    return sums


def _launch(kernel, bins: Bins, n_warps: int, *arguments: Tensor | int, **constants: int) -> None:
    """One program per tile."""
    z, y, x = bins.n_tiles
    frames, coefficients, anchors = bins.frames[:3]
    lists = frames, coefficients, anchors, bins.starts, bins.gaussians
    tile = {"Z": TILE[0], "Y": TILE[1], "X": TILE[2]}
    with on_device_of(frames):
        kernel[(z * y * x,)](*lists, *arguments, y, x, **tile, **constants, num_warps=n_warps, enable_fp_fusion=True)


def _add_up(kernel, bins: Bins, raw: Tensor, sums: Tensor) -> None:
    """One program per Gaussian."""
    z, y, x = bins.n_tiles
    tile = {"Z": TILE[0], "Y": TILE[1], "X": TILE[2]}
    lists = bins.frames.frames, bins.offsets, bins.tiles
    if sums.shape[0]:
        with on_device_of(raw):
            kernel[(sums.shape[0],)](
                *lists, raw, sums, z * y * x, y, x, **tile, P=PAIRS, num_warps=1, enable_fp_fusion=True
            )


@triton.jit
def _samples(tiles_y, tiles_x, Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr):
    """Indices z, y of the rows of this tile, and x of the samples in a row."""
    tile = tl.program_id(0)
    row, x = tl.arange(0, Z * Y), tl.arange(0, X)
    z = tile // (tiles_x * tiles_y) * Z + row // Y
    return z, tile // tiles_x % tiles_y * Y + row % Y, tile % tiles_x * X + x


@triton.jit
def _kernel_values(frames, coefficients, anchors, i, z, y, x):
    """phi of Gaussians i at samples z, y, x: shapes that broadcast together; and which samples are beyond the cut."""
    c, anchor = coefficients + i * _COEFFICIENTS, anchors + 4 * i
    d_z = (z - tl.load(anchor)).to(tl.float32) - tl.load(c)
    d_y = (y - tl.load(anchor + 1)).to(tl.float32) - tl.load(c + 1)
    d_x = (x - tl.load(anchor + 2)).to(tl.float32) - tl.load(c + 2)
    c_z, c_y = tl.load(c + 3) * d_z, tl.load(c + 4) * (d_y + tl.load(c + 6) * d_z)
    c_x = tl.load(c + 5) * (d_x + (tl.load(c + 7) * d_y + tl.load(c + 8) * d_z))
    m, end = (c_z * c_z + c_y * c_y) + c_x * c_x, tl.load(c + 9)
    beyond = m >= end
    if tl.max((tl.abs(m - end) < end * _DOUBT).to(tl.int32)) > 0:
        f = frames + i * _FRAME
        e_z, e_y, e_x = z - tl.load(f), y - tl.load(f + 1), x - tl.load(f + 2)
        c_z64, c_y64 = tl.load(f + 3) * e_z, tl.load(f + 4) * (e_y + tl.load(f + 6) * e_z)
        c_x64 = tl.load(f + 5) * (e_x + tl.load(f + 7) * e_y + tl.load(f + 8) * e_z)
        beyond = (c_z64 * c_z64 + c_y64 * c_y64) + c_x64 * c_x64 >= tl.load(f + 9)
    return tl.where(beyond, 0.0, tl.exp2(-m)), beyond


@triton.jit
def _evaluate(
    frames, coefficients, anchors, starts, gaussians, amplitudes, out, n_z, n_y, n_x, tiles_y, tiles_x,
    Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr
):  # fmt: skip
    z, y, x = _samples(tiles_y, tiles_x, Z, Y, X)
    z, y, x = z[None, :], y[None, :], x[:, None]
    total = tl.zeros((X, Z * Y), tl.float32)
    for p in range(tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)):
        i = tl.load(gaussians + p)
        phi, _beyond = _kernel_values(frames, coefficients, anchors, i, z, y, x)
        total += tl.load(amplitudes + i) * phi
    at = (z.to(tl.int64) * n_y + y) * n_x + x
    tl.store(out + at, total, mask=(z < n_z) & (y < n_y) & (x < n_x))


@triton.jit
def _high_and_low(a):
    """Two numbers of 10 bits that add up to a, to 21 bits: what TF32 products keep of each."""
    high = (a.to(tl.int32, bitcast=True) & _TF32_BITS).to(tl.float32, bitcast=True)
    return high, a - high


@triton.jit
def _add_product(a, b, total):
    """total + a b with a to 21 bits on tensor cores; b must be exact in 10 bits."""
    high, low = _high_and_low(a)
    return tl.dot(low, b, tl.dot(high, b, total, input_precision="tf32"), input_precision="tf32")


@triton.jit
def _raw_moments(
    frames, coefficients, anchors, starts, gaussians, pairs, upstream, raw, n_z, n_y, n_x, tiles_y, tiles_x,
    Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, G: tl.constexpr
):  # fmt: skip
    """Sums over a tile of g phi times 1, t_z, t_y, t_x, t_z^2, t_y^2, t_x^2, t_y t_x, t_z t_x, t_z t_y."""
    z, y, x = _samples(tiles_y, tiles_x, Z, Y, X)
    z, y, x = z[None, None, :], y[None, None, :], x[:, None, None]
    at = (z.to(tl.int64) * n_y + y) * n_x + x
    g = tl.load(upstream + at, mask=(z < n_z) & (y < n_y) & (x < n_x), other=0.0)
    # columns of the products with sums of g phi, g phi t_x and g phi t_x^2 over rows: exact in TF32
    row, column = tl.arange(0, Z * Y)[:, None], tl.arange(0, _N_RAW)[None, :]
    t_z, t_y = (row // Y) - (Z - 1) * 0.5, (row % Y) - (Y - 1) * 0.5
    by_0 = tl.where(column == 0, 1.0, tl.where(column == 1, t_z, tl.where(column == 2, t_y, 0.0)))
    by_0 = tl.where(column == 4, t_z * t_z, tl.where(column == 5, t_y * t_y, by_0))
    by_0 = tl.where(column == 9, t_z * t_y, by_0)
    by_1 = tl.where(column == 3, 1.0, tl.where(column == 7, t_y, tl.where(column == 8, t_z, 0.0)))
    by_2 = tl.where(column == 6, 1.0, 0.0 * t_z)
    t_x = tl.arange(0, X)[:, None, None] - (X - 1) * 0.5
    begin, end = tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)
    for first in range(begin, end, G):
        p = first + tl.arange(0, G)
        listed = tl.minimum(p, end - 1)
        i = tl.load(gaussians + listed)[None, :, None]
        phi, beyond = _kernel_values(frames, coefficients, anchors, i, z, y, x)
        # what lies beyond the cut does not count, even if it is not a number
        weighted = tl.where(beyond, 0.0, g * phi)
        along = weighted * t_x
        sums = _add_product(tl.sum(weighted, axis=0), by_0, tl.zeros((G, _N_RAW), tl.float32))
        sums = _add_product(tl.sum(along, axis=0), by_1, sums)
        sums = _add_product(tl.sum(along * t_x, axis=0), by_2, sums)
        to = raw + tl.load(pairs + listed)[:, None] * _N_RAW + column
        tl.store(to, sums, mask=(p < end)[:, None] & (column < 10))


@triton.jit
def _raw_squares(
    frames, coefficients, anchors, starts, gaussians, pairs, weight, raw, n_z, n_y, n_x, tiles_y, tiles_x,
    Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, G: tl.constexpr, COUNTING: tl.constexpr
):  # fmt: skip
    """Sums over a tile of w phi^2, or numbers of samples inside the cuts."""
    z, y, x = _samples(tiles_y, tiles_x, Z, Y, X)
    z, y, x = z[None, None, :], y[None, None, :], x[:, None, None]
    inside = (z < n_z) & (y < n_y) & (x < n_x)
    if COUNTING:
        w = tl.where(inside, 1.0, 0.0)
    else:
        w = tl.load(weight + (z.to(tl.int64) * n_y + y) * n_x + x, mask=inside, other=0.0)
    begin, end = tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)
    for first in range(begin, end, G):
        p = first + tl.arange(0, G)
        listed = tl.minimum(p, end - 1)
        i = tl.load(gaussians + listed)[None, :, None]
        phi, beyond = _kernel_values(frames, coefficients, anchors, i, z, y, x)
        values = tl.where(beyond, 0.0, w if COUNTING else w * phi * phi)
        tl.store(raw + tl.load(pairs + listed), tl.sum(tl.sum(values, axis=0), axis=1), mask=p < end)


@triton.jit
def _add_squares(
    frames, offsets, tiles, raw, sums, n_tiles, tiles_y, tiles_x,
    Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """Pairs of one Gaussian added up."""
    i = tl.program_id(0)
    total = tl.zeros((P,), tl.float64)
    end = tl.load(offsets + i + 1)
    for first in range(tl.load(offsets + i), end, P):
        p = first + tl.arange(0, P)
        kept = tl.load(tiles + p, mask=p < end, other=n_tiles) < n_tiles
        total += tl.load(raw + p, mask=kept, other=0.0)
    tl.store(sums + i, tl.sum(total, axis=0))


@triton.jit
def _add_moments(
    frames, offsets, tiles, raw, sums, n_tiles, tiles_y, tiles_x,
    Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """Moments of the tiles of one Gaussian, moved from their centres to nu, added up, and turned to its own axes."""
    i = tl.program_id(0)
    f = frames + i * _FRAME
    nu_z, nu_y, nu_x = tl.load(f), tl.load(f + 1), tl.load(f + 2)
    s, s_z, s_y, s_x = (tl.zeros((P,), tl.float64),) * 4
    s_zz, s_yy, s_xx, s_yx, s_zx, s_zy = (tl.zeros((P,), tl.float64),) * 6
    end = tl.load(offsets + i + 1)
    for first in range(tl.load(offsets + i), end, P):
        p = first + tl.arange(0, P)
        tile = tl.load(tiles + p, mask=p < end, other=n_tiles)
        kept = tile < n_tiles
        v_z = tile // (tiles_x * tiles_y) * Z + (Z - 1) * 0.5 - nu_z
        v_y = tile // tiles_x % tiles_y * Y + (Y - 1) * 0.5 - nu_y
        v_x = tile % tiles_x * X + (X - 1) * 0.5 - nu_x
        r = raw + p * _N_RAW
        m, m_z, m_y, m_x = _load_four(r, kept)
        m_zz, m_yy, m_xx, m_yx = _load_four(r + 4, kept)
        m_zx, m_zy, _, _ = _load_four(r + 8, kept)
        s, s_z, s_y, s_x = s + m, s_z + m_z + v_z * m, s_y + m_y + v_y * m, s_x + m_x + v_x * m
        s_zz += m_zz + 2 * v_z * m_z + v_z * v_z * m
        s_yy += m_yy + 2 * v_y * m_y + v_y * v_y * m
        s_xx += m_xx + 2 * v_x * m_x + v_x * v_x * m
        s_yx += m_yx + v_y * m_x + v_x * m_y + v_y * v_x * m
        s_zx += m_zx + v_z * m_x + v_x * m_z + v_z * v_x * m
        s_zy += m_zy + v_z * m_y + v_y * m_z + v_z * v_y * m
    s_z, s_y, s_x = tl.sum(s_z, axis=0), tl.sum(s_y, axis=0), tl.sum(s_x, axis=0)
    s_zz, s_yy, s_xx = tl.sum(s_zz, axis=0), tl.sum(s_yy, axis=0), tl.sum(s_xx, axis=0)
    s_yx, s_zx, s_zy = tl.sum(s_yx, axis=0), tl.sum(s_zx, axis=0), tl.sum(s_zy, axis=0)
    tl.store(sums + 10 * i, tl.sum(s, axis=0).to(tl.float32))
    for k in tl.static_range(6):
        one = f + 10 + 3 * (k if k < 3 else (1 if k == 3 else 0))
        two = f + 10 + 3 * (k if k < 3 else (2 if k < 5 else 1))
        z, y, x, v, u, t = (
            tl.load(one),
            tl.load(one + 1),
            tl.load(one + 2),
            tl.load(two),
            tl.load(two + 1),
            tl.load(two + 2),
        )
        if k < 3:
            tl.store(sums + 10 * i + 1 + k, (z * s_z + y * s_y + x * s_x).to(tl.float32))
        value = z * v * s_zz + y * u * s_yy + x * t * s_xx
        value += (y * t + x * u) * s_yx + (z * t + x * v) * s_zx + (z * u + y * v) * s_zy
        tl.store(sums + 10 * i + 4 + k, value.to(tl.float32))


@triton.jit
def _load_four(at, kept):
    return (
        tl.load(at, mask=kept, other=0.0).to(tl.float64),
        tl.load(at + 1, mask=kept, other=0.0).to(tl.float64),
        tl.load(at + 2, mask=kept, other=0.0).to(tl.float64),
        tl.load(at + 3, mask=kept, other=0.0).to(tl.float64),
    )
