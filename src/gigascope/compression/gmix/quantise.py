"""Gaussians as integers and back, by a fixed or the adaptive law.

The arithmetic of the way back is exact in the sense of :mod:`gigascope.compression.gmix.exact`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.gmix import adaptive_law, fixed_law, frames, law_rows, morton
from gigascope.compression.gmix.quantiser import CELL, LEVEL_0, Quantiser
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError

__all__ = [
    "CELL",
    "LEVEL_0",
    "Quantiser",
    "Symbols",
    "bits_per_gaussian",
    "dequantise",
    "quantise",
    "straight_through",
    "with_amplitudes",
]

# Bits beyond the logarithms of the numbers of choices: of the cell, the class of the amplitude and its sign, and of the
# logarithm of the spread of the log scales.
_ADAPTIVE_BITS = 8.4
_FIXED_BITS = 4.7


@dataclass(frozen=True)
class Symbols:
    """Integers of N Gaussians of one brick, rows in Z-order of `cell`.

    Attributes
    ----------
    cell : (N, 3) int32, cells of :data:`CELL` voxels from the low corner of the brick
    place : (N, 3) int32, place in the cell
    scales : (N, 3) int32, descending; fixed law: index of the log scale; adaptive law: signed steps from the middle
    rotation : (N, 3) int32; fixed law: x, y, z of the quaternion; adaptive law: ring, azimuth, roll
    amplitude : (N,) int32, signed
    """

    cell: NDArray[np.int32]
    place: NDArray[np.int32]
    scales: NDArray[np.int32]
    rotation: NDArray[np.int32]
    amplitude: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.amplitude)

    @property
    def columns(self) -> tuple[NDArray[np.int32], ...]:
        """cell, place, scales, rotation, amplitude."""
        return self.cell, self.place, self.scales, self.rotation, self.amplitude

    def __getitem__(self, rows: NDArray | slice) -> Symbols:
        return Symbols(*(column[rows] for column in self.columns))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The same as int64 on the CPU."""
        return tuple(torch.from_numpy(np.ascontiguousarray(column)).to(torch.int64) for column in self.columns)

    @staticmethod
    def empty() -> Symbols:
        """No Gaussians."""
        three = np.zeros((0, 3), np.int32)
        return Symbols(three, three, three, three, np.zeros(0, np.int32))


def quantise(
    mixture: Mixture, shape: Sequence[int], quantiser: Quantiser, amplitude_scale: float = 1.0
) -> tuple[Symbols, NDArray[np.int64]]:
    """Integers of a brick's Gaussians, in canonical order.

    Means are clamped to the brick, ``[-1/2, n - 1/2)``: a brick owns what lies in its voxels. Scales are clamped to the
    quantiser's range.

    Parameters
    ----------
    mixture : N Gaussians, means relative to the brick's first voxel
    shape : (z, y, x) of the brick, voxels
    quantiser : the law
    amplitude_scale : fixed law: the amplitude of the largest integer

    Returns
    -------
    the integers, and (N,) int64, the row of `mixture` that each of them came from

    Raises
    ------
    ShapeError : a parameter is not finite
    """
    if not all(torch.isfinite(column).all() for column in mixture.tensors):
        raise ShapeError("a Gaussian to be quantised has a parameter that is not finite")
    steps = _round(mixture, shape, quantiser, amplitude_scale)[0]
    symbols = Symbols(*(column.cpu().numpy().astype(np.int32) for column in steps))
    keys = [key for column in symbols.columns[:0:-1] for key in np.atleast_2d(column.T)]
    order = np.lexsort([*keys, cell_codes(symbols.cell, shape)])
    return symbols[order], order


def dequantise(symbols: Symbols, shape: Sequence[int], quantiser: Quantiser, amplitude_scale: float = 1.0) -> Mixture:
    """The Gaussians of integers: float64 arithmetic that is the same everywhere, rounded to float32.

    Parameters
    ----------
    symbols, shape, quantiser, amplitude_scale : see :func:`quantise`

    Returns
    -------
    mixture on the CPU, means relative to the brick's first voxel, quaternions in the canonical frame
    """
    n = len(symbols)
    columns = [np.empty((n, *shape), np.float32) for shape in ((3,), (3,), (4,), ())]
    law_rows.dequantise(law_rows.law_rows(quantiser, amplitude_scale), *symbols.columns, *columns)
    return Mixture(*(torch.from_numpy(column) for column in columns))


def straight_through(
    mixture: Mixture, shape: Sequence[int], quantiser: Quantiser, amplitude_scale: float = 1.0
) -> Mixture:
    """What the Gaussians become by quantisation; same rows, same frames, same device.

    For fitting with quantised values and gradients as if they were not: own axes keep their places, and a rotation that
    is not coded because the ellipsoid is round is left as it is, so gradients with respect to the values returned can
    be applied to `mixture`.
    """
    (cell, place, scales, rotation, amplitude), (latent, order, change) = _round(
        mixture, shape, quantiser, amplitude_scale
    )
    log_scales, turned, counts = _geometry(scales, rotation, amplitude, quantiser, latent)
    values = _amplitudes(amplitude, log_scales, quantiser, amplitude_scale)
    own = frames.multiply(frames.aligned(turned, latent), frames.conjugate(change))
    columns = (_position(cell, place, counts), frames.unsort_scales(log_scales, order), own, values)
    return Mixture(*(column.to(like.dtype) for column, like in zip(columns, mixture.tensors)))


def with_amplitudes(
    symbols: Symbols, amplitudes: Tensor, quantiser: Quantiser, amplitude_scale: float = 1.0
) -> Symbols:
    """The same geometry with other amplitudes, as from a least-squares solve on the quantised geometry.

    With the adaptive law the amplitude may move only within its class, on which the steps of the geometry depend.
    Rows stay in place, so the order is no longer canonical among Gaussians of the same cell, which nothing relies on.
    """
    given = amplitudes.detach().cpu().to(torch.float64)
    _, _, scales, rotation, amplitude = symbols.tensors
    if quantiser.adaptive:
        log_scales = adaptive_law.geometry(scales, rotation, amplitude, quantiser)[0]
        moved = adaptive_law.within_class(given, amplitude, log_scales, quantiser)
    else:
        moved = fixed_law.amplitude_integers(given, quantiser, amplitude_scale)
    return replace(symbols, amplitude=moved.numpy().astype(np.int32))


def bits_per_gaussian(
    mixture: Mixture, shape: Sequence[int], quantiser: Quantiser, amplitude_scale: float = 1.0
) -> Tensor:
    """(N,) float32, about the bits that each Gaussian takes in a compact file, on the mixture's device.

    Cells and steps are counted as they are; what they are worth on average, their probabilities, is that of fitted
    neurons (``python benchmarks/container.py``). For deciding what to keep, not for accounting.
    """
    (_, _, scales, rotation, amplitude), _ = _round(mixture, shape, quantiser, amplitude_scale)
    _, _, counts = _geometry(scales, rotation, amplitude, quantiser)
    choices = torch.log2(counts.to(torch.float64)).sum(1)
    if quantiser.adaptive:
        choices = choices + adaptive_law.choices(scales, amplitude, quantiser)
    else:
        low, high = quantiser.log_range
        choices = choices + 3 * quantiser.scale_bits - 3 * math.log2(high - low) + 3 * quantiser.rotation_bits
        choices = choices + quantiser.amplitude_bits
    return (choices + (_ADAPTIVE_BITS if quantiser.adaptive else _FIXED_BITS)).to(torch.float32)


def cell_codes(cell: NDArray, shape: Sequence[int]) -> NDArray[np.uint64]:
    """(N,) Z-order codes of cells (N, 3) in a brick of `shape`."""
    return morton.encode(cell, cell_bits(shape))


def cell_bits(shape: Sequence[int]) -> tuple[int, ...]:
    """Bits of the cell along each axis of a brick of `shape`."""
    return morton.bits_of([-(-n // CELL) for n in shape])


def _round(
    mixture: Mixture, shape: Sequence[int], quantiser: Quantiser, amplitude_scale: float
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Integers row by row; and quaternions, order and change of the sorted axes (see frames.sort_axes)."""
    means, log_scales, q, amplitudes = (column.detach().to(torch.float64) for column in mixture.tensors)
    log_scales, latent, order, change = frames.sort_axes(log_scales, frames.normalised(q))
    log_scales = torch.clamp(log_scales, *quantiser.log_range)
    if quantiser.adaptive:
        integers = adaptive_law.to_integers(log_scales, latent, amplitudes, quantiser)
    else:
        integers = fixed_law.to_integers(log_scales, latent, amplitudes, quantiser, amplitude_scale)
    rounded, turned, counts = _geometry(*integers, quantiser)
    # errors along z, y and x of one mean may make up for each other; with the fixed law they are left alone
    shares = adaptive_law.compensation(rounded, turned) if quantiser.adaptive else None
    cell, place = _cells(means, counts, shape, shares)
    return (cell, place, *integers), (latent, order, change)


def _cells(
    means: Tensor, counts: Tensor, shape: Sequence[int], shares: tuple[Tensor, Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Cells (N, 3) and places in them (N, 3)."""
    cells: list[Tensor] = []
    places: list[Tensor] = []
    errors: list[Tensor] = []
    for axis in range(3):
        wanted = means[:, axis]
        if shares is not None and axis == 1:
            wanted = wanted + shares[0] * errors[0]
        elif shares is not None and axis == 2:
            wanted = wanted + shares[1] * errors[0] + shares[2] * errors[1]
        corner = torch.clamp(wanted + 0.5, 0.0, shape[axis] * (1 - 1e-12)) / CELL
        cell = torch.floor(corner).to(torch.int64)
        inside = (corner - cell.to(torch.float64)) * counts[:, axis].to(torch.float64)
        place = torch.minimum(torch.floor(inside).to(torch.int64), counts[:, axis] - 1)
        errors.append(_position(cell, place, counts[:, axis]) - means[:, axis])
        cells.append(cell)
        places.append(place)
    return torch.stack(cells, dim=1), torch.stack(places, dim=1)


def _geometry(
    scales: Tensor, rotation: Tensor, amplitude: Tensor, quantiser: Quantiser, latent: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    if quantiser.adaptive:
        return adaptive_law.geometry(scales, rotation, amplitude, quantiser, latent)
    return fixed_law.geometry(scales, rotation, quantiser)


def _position(cell: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    inside = (place.to(torch.float64) + 0.5) / counts.to(torch.float64)
    return CELL * (cell.to(torch.float64) + inside) - 0.5


def _amplitudes(amplitude: Tensor, log_scales: Tensor, quantiser: Quantiser, amplitude_scale: float) -> Tensor:
    if quantiser.adaptive:
        return adaptive_law.amplitudes_of(amplitude, log_scales, quantiser)
    return fixed_law.amplitudes_of(amplitude, quantiser, amplitude_scale)
