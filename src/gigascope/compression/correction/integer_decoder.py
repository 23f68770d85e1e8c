"""The decoder behind a residual layer: Gaussians and background in integers, the same grey values on every machine.

A bound on the error of every voxel holds only if the decoder predicts exactly what the encoder corrected. Coefficients
are therefore made on the CPU in float64 from sums, products, quotients and square roots alone (:mod:`.exact`), rounded
to integers, and summed by :mod:`gigascope.kernels.integer_field`. Every residual layer builds on it, that of a bound
above 0 too: a bound kept by slack in the encoder (``e - 1`` for ``e``) costs rate, needs a proof of how far floating
point decoders drift apart, and does not exist for 0.

The field differs from that of the floating-point decoder by rounding: each term by 2^-16 grey values and 4e-9 of
itself, and Gaussians end 1e-4 of their radius earlier, so that the boxes which a file stores for them hold all of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from gigascope.compression.background import CELL
from gigascope.compression.gmix import exact
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError, UserError
from gigascope.kernels import integer_field as kernel
from gigascope.kernels.integer_field import layout

Roi = tuple[slice, slice, slice]

# 8 and 16 bits: integers of 32 would need an amplitude beyond int64
DTYPES = ("uint8", "int8", "uint16", "int16")

HALF_LOG2_E = 0.7213475204444817
# What an ellipsoid is cut short by, in the exponent: more than the rounding of coefficients and of stored boxes.
LIMIT_MARGIN = 1.0 / 1024
# Bounds within which exponents over a whole box stay below 2^62.
SMALLEST_SCALE, LARGEST_SCALE = 0.1, 128.0
LARGEST_POSITION = 1 << 30

# 2 / ln 2 / (2 k + 1): log2((1 + s) / (1 - s)) as a series in s^2 < 0.03
_LOG2 = [2.8853900817779268 / (2 * k + 1) for k in range(13)]


@dataclass(frozen=True)
class IntegerField:
    """A mixture over a background, prepared for decoding in integers.

    Attributes
    ----------
    gaussians : (N, 21) int64, rows of :mod:`gigascope.kernels.integer_field.layout`
    grid : (nz, ny, nx) int64, grey value of each cell of the background, 16 binary digits behind the point
    cell : (z, y, x) voxels
    dtype : of the volume; the field is clipped to its range
    """

    gaussians: Tensor
    grid: Tensor
    cell: tuple[int, int, int]
    dtype: str

    def region(self, roi: Sequence[slice], device: torch.device | str = "cpu") -> Tensor:
        """Rounded field in a box.

        Parameters
        ----------
        roi : first and last + 1 voxel along z, y and x
        device : where the sums are done; the result does not depend on it

        Returns
        -------
        (z, y, x) int32 grey values within the range of the dtype, on the device
        """
        origin, shape = _box(roi)
        total = background_field(self.grid.to(device), self.cell, origin, shape)
        kernel.add_(total, self.gaussians.to(device), origin)
        limits = np.iinfo(self.dtype)
        half = 1 << (layout.FIELD_BITS - 1)
        return ((total + half) >> layout.FIELD_BITS).clamp_(int(limits.min), int(limits.max)).to(torch.int32)


def integer_field(
    mixture: Mixture,
    grid: Tensor,
    roi: Sequence[slice],
    *,
    offset: float,
    scale: float,
    c_max: float,
    eps: float,
    dtype: DTypeLike,
    cell: Sequence[int] = CELL,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Decode a box in integers; see :func:`prepare` and :meth:`IntegerField.region`."""
    prepared = prepare(mixture, grid, offset=offset, scale=scale, c_max=c_max, eps=eps, dtype=dtype, cell=cell)
    return prepared.region(roi, device)


def prepare(
    mixture: Mixture,
    grid: Tensor,
    *,
    offset: float,
    scale: float,
    c_max: float,
    eps: float,
    dtype: DTypeLike,
    cell: Sequence[int] = CELL,
) -> IntegerField:
    """Round a mixture and its background to integers.

    Parameters
    ----------
    mixture : as read from the file, means relative to the volume's origin; more Gaussians than reach the boxes to be
        decoded, and any order of them, give the same field there
    grid : (nz, ny, nx) float32 background, one value per cell, in units of `scale`
    offset, scale : grey value of 0 and grey values per unit
    c_max, eps : largest radius of a Gaussian, and amplitude at which it ends, in units of `scale`
    dtype : uint8, int8, uint16 or int16
    cell : (z, y, x) voxels

    Raises
    ------
    UserError : another dtype, or a Gaussian beyond what the integers hold
    """
    name = np.dtype(dtype).name
    if name not in DTYPES:
        raise UserError(
            f"a bound on the error of every voxel needs integers of 8 or 16 bits, not {name}",
            do="Leave max_error out, or convert the volume to one of " + ", ".join(DTYPES) + ".",
        )
    nz, ny, nx = cell
    rows = _rows(mixture.to("cpu"), float(scale), float(c_max), float(eps))
    levels = grid.to("cpu", torch.float64) * float(scale) + float(offset)
    return IntegerField(rows, _fixed(levels, layout.FIELD_BITS), (int(nz), int(ny), int(nx)), name)


def background_field(grid: Tensor, cell: Sequence[int], origin: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Trilinear interpolation between the centres of cells, rounded down once at the end.

    Parameters
    ----------
    grid : (nz, ny, nx) int64, at most 2^36
    cell : (z, y, x) voxels, at most 256 each
    origin, shape : of the box, voxels

    Returns
    -------
    (z, y, x) int64 in the unit of the grid
    """
    field = grid
    for axis, (c, first, n) in enumerate(zip(cell, origin, shape, strict=True)):
        # in units of half a voxel over a cell: voxel x lies at (2 x + 1 - c) / (2 c) between the centres
        place = 2 * torch.arange(first, first + n, device=grid.device) + (1 - c)
        below = torch.div(place, 2 * c, rounding_mode="floor")
        weight = (place - 2 * c * below).view([-1 if k == axis else 1 for k in range(3)])
        last = grid.shape[axis] - 1
        low = field.index_select(axis, below.clamp(0, last))
        high = field.index_select(axis, (below + 1).clamp(0, last))
        field = low * (2 * c - weight) + high * weight
    whole = 8 * math.prod(cell)
    if whole & (whole - 1) == 0:  # a shift rounds down as the division does, in a tenth of the time
        return field >> (whole.bit_length() - 1)
    return torch.div(field, whole, rounding_mode="floor")


def _rows(mixture: Mixture, scale: float, c_max: float, eps: float) -> Tensor:
    """(N, 21) int64 of the Gaussians that exceed `eps` anywhere."""
    means, log_scales, quaternions, amplitudes = (column.detach().double() for column in mixture.tensors)
    # a scale far outside is refused below, as is what is not a number
    sigmas = exact.exp(log_scales.nan_to_num(-9.0).clamp(-9.0, 9.0))
    _check(means, sigmas, amplitudes * scale, quaternions)
    limits = (_log2(amplitudes.abs() / eps)).clamp_max(HALF_LOG2_E * c_max * c_max) - LIMIT_MARGIN
    kept = limits > 0
    means, sigmas, limits = means[kept], sigmas[kept], limits[kept]
    axes = _rotations(quaternions[kept])
    precision, spread = _quadratic_form(axes, sigmas)

    rows = torch.empty(len(means), layout.N_COLUMNS, dtype=torch.int64)
    anchors = torch.round(means)
    d = means - anchors
    rows[:, layout.ANCHOR] = anchors.long()
    # E(t) = (t - d) . L (t - d) with t relative to the anchor
    pull = [precision[j][0] * d[:, 0] + precision[j][1] * d[:, 1] + precision[j][2] * d[:, 2] for j in range(3)]
    constant = pull[0] * d[:, 0] + pull[1] * d[:, 1] + pull[2] * d[:, 2]
    rows[:, layout.CONSTANT] = _fixed(constant, layout.EXPONENT_BITS)
    for column, value in zip(itertools.count(layout.LINEAR.start), pull):
        rows[:, column] = _fixed(-2 * value, layout.EXPONENT_BITS)
    for column, j in zip(itertools.count(layout.SQUARE.start), range(3)):
        rows[:, column] = _fixed(precision[j][j], layout.EXPONENT_BITS)
    for column, (j, k) in zip(itertools.count(layout.MIXED.start), ((0, 1), (0, 2), (1, 2))):
        rows[:, column] = _fixed(2 * precision[j][k], layout.EXPONENT_BITS)
    rows[:, layout.LIMIT] = _fixed(limits, layout.EXPONENT_BITS)
    rows[:, layout.AMPLITUDE] = _fixed(amplitudes[kept] * scale, layout.AMPLITUDE_BITS)
    # a voxel wider than the ellipsoid: the rounded form may reach 0.02 voxels further
    reach = torch.sqrt(limits[:, None] / HALF_LOG2_E * torch.stack(spread, dim=1))
    rows[:, layout.LOW] = torch.floor(means - reach).long() - 1
    rows[:, layout.HIGH] = torch.ceil(means + reach).long() + 1
    return rows


def _rotations(quaternions: Tensor) -> list[list[Tensor]]:
    """Columns are the own axes, components (z, y, x); entries (N,)."""
    w, x, y, z = quaternions.unbind(1)
    norm = torch.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def _quadratic_form(axes: list[list[Tensor]], sigmas: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
    """``log2(e) / 2`` times the inverse covariance, and the diagonal of the covariance; entries (N,)."""
    variances = [sigma * sigma for sigma in sigmas.unbind(1)]
    weights = [HALF_LOG2_E / variance for variance in variances]

    def product(j: int, k: int, factors: list[Tensor]) -> Tensor:
        terms = [axes[j][m] * axes[k][m] * factors[m] for m in range(3)]
        return terms[0] + terms[1] + terms[2]

    return (
        [[product(j, k, weights) for k in range(3)] for j in range(3)],
        [product(j, j, variances) for j in range(3)],
    )


def _log2(x: Tensor) -> Tensor:
    """Binary logarithm of positive float64 from exact operations; 0 gives a large negative number."""
    mantissa, exponent = torch.frexp(x.clamp_min(1e-300))
    small = mantissa < 0.7071067811865476
    mantissa, exponent = torch.where(small, 2 * mantissa, mantissa), exponent.double() - small.double()
    s = (mantissa - 1) / (mantissa + 1)
    square = s * s
    series = torch.full_like(s, _LOG2[-1])
    for coefficient in reversed(_LOG2[:-1]):
        series = series * square + coefficient
    return s * series + exponent


def _fixed(values: Tensor, bits: int) -> Tensor:
    """Rounded to integers with `bits` digits behind the binary point; the product is exact."""
    return torch.round(values * float(1 << bits)).long()


def _check(means: Tensor, sigmas: Tensor, amplitudes: Tensor, quaternions: Tensor) -> None:
    """Written so that what is not a number does not pass."""
    inside = (means.abs() < LARGEST_POSITION).all(1) & (amplitudes.abs() < layout.LARGEST_AMPLITUDE)
    inside &= (sigmas >= SMALLEST_SCALE).all(1) & (sigmas <= LARGEST_SCALE).all(1)
    lengths = quaternions.square().sum(1)
    inside &= (lengths > 1e-12) & (lengths < 1e12)
    if not bool(inside.all()):
        first = int((~inside).nonzero()[0])
        raise UserError(
            f"Gaussian {first} with standard deviations {sigmas[first].tolist()} and amplitude "
            f"{float(amplitudes[first]):g} is outside what the integer decoder takes: {SMALLEST_SCALE:g} to "
            f"{LARGEST_SCALE:g} voxels and {layout.LARGEST_AMPLITUDE} grey values",
            do="Leave max_error out, or fit again with the default bounds.",
        )


def _box(roi: Sequence[slice]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    if len(roi) != 3 or any(r.step not in (None, 1) or not r.start < r.stop for r in roi):
        raise ShapeError(f"region {tuple(roi)} is not a box of (z, y, x) voxels")
    z, y, x = ((r.start, r.stop - r.start) for r in roi)
    return (z[0], y[0], x[0]), (z[1], y[1], x[1])
