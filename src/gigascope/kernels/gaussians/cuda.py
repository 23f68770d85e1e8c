"""Gaussian mixtures on the GPU in Triton: tiles of 4 x 8 x 8 samples, each with the list of its Gaussians; no atomics.

A program is one warp and holds its samples as (x, row): a thread owns a row of x, so that c_z and c_y are computed once
per row and sums along x stay in registers. The sums of a tile are written once per pair and added up by Gaussian in
the order of its tiles.
"""

from __future__ import annotations

import math
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

# columns of the sums of a pair, ten of them used: 64 bytes
N_RAW = 16
# pairs of one Gaussian that are added up side by side
PAIRS = 32

_FRAME, _COEFFICIENTS, _N_RAW = tl.constexpr(FRAME), tl.constexpr(COEFFICIENTS), tl.constexpr(N_RAW)
# float32 decides what is inside a cut up to this much of cut^2; closer samples are decided in float64
_DOUBT, _BELOW = tl.constexpr(1e-5), tl.constexpr(1 - 1e-7)
# scale of c in the kernels: exponents are in units of log 2
_PER_ROOT = tl.constexpr(1 / math.sqrt(0.5 * math.log2(math.e)))


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
    _launch(_evaluate, bins, amplitudes, out, *shape)
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
    _launch(_raw_moments, bins, bins.pairs, upstream, raw, *upstream.shape)
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
    _launch(_raw_squares, bins, bins.pairs, weight, raw, *shape, COUNTING=counting)
    sums = torch.zeros(bins.offsets.shape[0] - 1, dtype=torch.float64, device=raw.device)
    _add_up(_add_squares, bins, raw, sums)
    return sums


def _launch(kernel, bins: Bins, *arguments: Tensor | int, **constants: int) -> None:
    """One program per tile."""
    z, y, x = bins.n_tiles
    frames, coefficients, anchors = bins.frames[:3]
    lists = frames, coefficients, anchors, bins.starts, bins.gaussians
    tile = {"Z": TILE[0], "Y": TILE[1], "X": TILE[2]}
    with on_device_of(frames):
        kernel[(z * y * x,)](*lists, *arguments, y, x, **tile, **constants, num_warps=1, enable_fp_fusion=True)


def _add_up(kernel, bins: Bins, raw: Tensor, sums: Tensor) -> None:
    """One program per Gaussian."""
    z, y, x = bins.n_tiles
    lists = bins.frames.frames, bins.offsets, bins.tiles
    if sums.shape[0]:
        with on_device_of(raw):
            kernel[(sums.shape[0],)](*lists, raw, sums, z * y * x, P=PAIRS, num_warps=1, enable_fp_fusion=True)


@triton.jit
def _samples(tiles_y, tiles_x, n_z, n_y, n_x, Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr):
    """First sample of this tile, samples from there (whole numbers), their offsets in an array, and which exist."""
    tile = tl.program_id(0)
    first = tile // (tiles_x * tiles_y) * Z, tile // tiles_x % tiles_y * Y, tile % tiles_x * X
    row, x = tl.arange(0, Z * Y)[None, :], tl.arange(0, X)[:, None]
    z, y = row // Y, row % Y
    at = ((first[0] + z).to(tl.int64) * n_y + first[1] + y) * n_x + first[2] + x
    inside = (first[0] + z < n_z) & (first[1] + y < n_y) & (first[2] + x < n_x)
    return first, (z.to(tl.float32), y.to(tl.float32), x.to(tl.float32)), at, inside


@triton.jit
def _load_by_rows(array, at, inside):
    """Load with a row to a thread. The compiler would lay threads along x, where memory is contiguous, and all that is
    made of the load with them; a zero that it does not know hides that."""
    return tl.load(array + (at ^ tl.minimum(tl.num_programs(0), 0)), mask=inside, other=0.0)


@triton.jit
def _kernel_values(frames, coefficients, anchors, i, first, samples):
    """phi of Gaussian i, the coordinates c_z, c_y, c_x it is made of, and which samples are beyond the cut."""
    c, anchor = coefficients + i * _COEFFICIENTS, anchors + i * 4
    z, y, x = samples
    # sums of whole numbers are exact: distances do not depend on where the tile starts
    d_z = ((first[0] - tl.load(anchor)).to(tl.float32) + z) - tl.load(c)
    d_y = ((first[1] - tl.load(anchor + 1)).to(tl.float32) + y) - tl.load(c + 1)
    t_x = (first[2] - tl.load(anchor + 2)).to(tl.float32) + x
    s_x, end = tl.load(c + 5), tl.load(c + 9)  # of cut^2 in the unit of the exponent
    c_z, c_y = tl.load(c + 3) * d_z, tl.load(c + 4) * (d_y + tl.load(c + 6) * d_z)
    row = s_x * (tl.load(c + 7) * d_y + tl.load(c + 8) * d_z - tl.load(c + 2))
    # one rounding of the same kind for every x
    c_x = tl.fma(t_x, s_x, row)
    exponent = tl.fma(-c_x, c_x, -(c_z * c_z + c_y * c_y))
    margin = tl.min(tl.abs(exponent + end), axis=0)
    if tl.max((margin < end * _DOUBT).to(tl.int32), axis=0) > 0:
        f = frames + i * _FRAME
        e_z, e_y, e_x = (first[0] + z) - tl.load(f), (first[1] + y) - tl.load(f + 1), (first[2] + x) - tl.load(f + 2)
        k_z, k_y = tl.load(f + 3) * e_z, tl.load(f + 4) * (e_y + tl.load(f + 6) * e_z)
        k_x = tl.load(f + 5) * (e_x + tl.load(f + 7) * e_y + tl.load(f + 8) * e_z)
        outside = (k_z * k_z + k_y * k_y) + k_x * k_x >= tl.load(f + 9)
        within = tl.where(exponent <= -end, -end * _BELOW, exponent)
        exponent = tl.where(outside, tl.where(exponent > -end, -end, exponent), within)
    beyond = exponent <= -end
    return tl.where(beyond, 0.0, tl.exp2(exponent)), (c_z, c_y, c_x), beyond


@triton.jit
def _evaluate(
    frames, coefficients, anchors, starts, gaussians, amplitudes, out, n_z, n_y, n_x, tiles_y, tiles_x,
    Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr
):  # fmt: skip
    first, samples, at, inside = _samples(tiles_y, tiles_x, n_z, n_y, n_x, Z, Y, X)
    total = tl.zeros((X, Z * Y), tl.float32)
    for p in range(tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)):
        i = tl.load(gaussians + p)
        phi, _c, _beyond = _kernel_values(frames, coefficients, anchors, i, first, samples)
        total += tl.load(amplitudes + i) * phi
    tl.store(out + at, total, mask=inside)


@triton.jit
def _raw_moments(
    frames, coefficients, anchors, starts, gaussians, pairs, upstream, raw, n_z, n_y, n_x, tiles_y, tiles_x,
    Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr
):  # fmt: skip
    """Sums over a tile of g phi times 1, c_z, c_y, c_x, c_z^2, c_y^2, c_x^2, c_y c_x, c_z c_x, c_z c_y."""
    first, samples, at, inside = _samples(tiles_y, tiles_x, n_z, n_y, n_x, Z, Y, X)
    g = _load_by_rows(upstream, at, inside)
    for p in range(tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)):
        i = tl.load(gaussians + p)
        phi, c, beyond = _kernel_values(frames, coefficients, anchors, i, first, samples)
        # what lies beyond the cut does not count, even if it is not a number
        weighted = tl.where(beyond, 0.0, g * phi)
        along = weighted * c[2]
        s, s_x, s_xx = _row_sum(weighted), _row_sum(along), _row_sum(along * c[2])
        s_z, s_y = s * c[0], s * c[1]
        to = raw + tl.load(pairs + p) * _N_RAW
        _store_ten(to, (s, s_z, s_y, s_x, s_z * c[0], s_y * c[1], s_xx, s_x * c[1], s_x * c[0], s_z * c[1]))


@triton.jit
def _row_sum(values):
    return tl.sum(values, axis=0, keep_dims=True)


@triton.jit
def _store_ten(to, columns):
    """Sums over rows, written by neighbouring threads at once."""
    number = tl.arange(0, _N_RAW)
    values = tl.zeros((_N_RAW,), tl.float32)
    for k in tl.static_range(10):
        values = tl.where(number == k, tl.sum(columns[k]), values)
    tl.store(to + number, values, mask=number < 10)


@triton.jit
def _raw_squares(
    frames, coefficients, anchors, starts, gaussians, pairs, weight, raw, n_z, n_y, n_x, tiles_y, tiles_x,
    Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, COUNTING: tl.constexpr
):  # fmt: skip
    """Sums over a tile of w phi^2, or numbers of samples inside the cuts."""
    first, samples, at, inside = _samples(tiles_y, tiles_x, n_z, n_y, n_x, Z, Y, X)
    if COUNTING:
        w = tl.where(inside, 1.0, 0.0)
    else:
        w = _load_by_rows(weight, at, inside)
    for p in range(tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)):
        i = tl.load(gaussians + p)
        phi, _c, beyond = _kernel_values(frames, coefficients, anchors, i, first, samples)
        values = tl.where(beyond, 0.0, w if COUNTING else w * phi * phi)
        tl.store(raw + tl.load(pairs + p), tl.sum(_row_sum(values)))


@triton.jit
def _add_squares(frames, offsets, tiles, raw, sums, n_tiles, P: tl.constexpr):
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
def _add_moments(frames, offsets, tiles, raw, sums, n_tiles, P: tl.constexpr):
    """Pairs of one Gaussian added up and turned to its own axes: s1 = Q s, M = Q S Q^T."""
    i = tl.program_id(0)
    total = tl.zeros((P, _N_RAW), tl.float64)
    column = tl.arange(0, _N_RAW)[None, :]
    end = tl.load(offsets + i + 1)
    for first in range(tl.load(offsets + i), end, P):
        p = first + tl.arange(0, P)[:, None]
        kept = tl.load(tiles + p, mask=p < end, other=n_tiles) < n_tiles
        total += tl.load(raw + p * _N_RAW + column, mask=kept & (column < 10), other=0.0)
    s = tl.sum(total, axis=0)[None, :]
    # rows 1 to 3 of the result take s_z, s_y, s_x; rows 4 to 9 the products of two rows of Q with the six of S
    row, q = tl.arange(0, _N_RAW)[:, None], frames + i * _FRAME + 10
    pair = tl.where((row >= 4) & (row < 10), row - 4, 0)
    one = tl.where(row < 4, tl.maximum(row - 1, 0), tl.where(pair < 3, pair, tl.where(pair == 3, 1, 0)))
    two = tl.where(pair < 3, pair, tl.where(pair < 5, 2, 1))
    one_z, one_y, one_x = tl.load(q + 3 * one), tl.load(q + 3 * one + 1), tl.load(q + 3 * one + 2)
    two_z, two_y, two_x = tl.load(q + 3 * two), tl.load(q + 3 * two + 1), tl.load(q + 3 * two + 2)
    first_order = tl.where(column == 1, one_z, tl.where(column == 2, one_y, tl.where(column == 3, one_x, 0.0)))
    squares = tl.where(column == 4, one_z * two_z, tl.where(column == 5, one_y * two_y, one_x * two_x))
    mixed = tl.where(column == 8, one_z * two_x + one_x * two_z, one_z * two_y + one_y * two_z)
    mixed = tl.where(column == 7, one_y * two_x + one_x * two_y, mixed)
    second_order = tl.where(column < 4, 0.0, tl.where(column < 7, squares, mixed))
    matrix = tl.where(row < 4, first_order * _PER_ROOT, second_order * (_PER_ROOT * _PER_ROOT))
    matrix = tl.where(row == 0, tl.where(column == 0, 1.0, 0.0), matrix)
    values = tl.sum(tl.where(column < 10, matrix * s, 0.0), axis=1)
    number = tl.arange(0, _N_RAW)
    tl.store(sums + i * 10 + number, values.to(tl.float32), mask=number < 10)
