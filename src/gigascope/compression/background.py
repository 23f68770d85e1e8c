"""The coarse background of a volume: one value per cell of 32^3 voxels, linear between the centres of the cells.

The centre of cell j lies at voxel ``32 j + 15.5``; outside the outermost centres the outermost values hold. Whatever
piece of the field is asked for, a voxel gets the same bits: its interpolation depends on its own place alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

CELL = (32, 32, 32)
# The level of a cell is that of the means of blocks of this size. Where there is less than a photon in a voxel the
# median voxel has none, and the median of the voxels is below their mean by all of the background's light. On the bench
# volume, with 10 photons, the level of blocks is as near to the truth as that of voxels.
POOL = (2, 4, 4)

# Values further from the level than this many spreads are taken for signal. 2.5 leaves 0.6 % of a normal noise out on
# either side, which moves its median by 0.8 % of a standard deviation.
CLIP = 2.5
# From the median of the lower quarter to the level is 1.15 standard deviations at the start and 0.67 at the end; the
# level is then within 0.01 of them after 5 rounds, of a tenth of background among nine of signal after 12.
ROUNDS = 12
# A cell is filled by an object if it scatters this many times as much as the quieter cells. On the bench volume cells
# of background reach 3.8 times as much, the two cells within somata 50 times.
FILLED = 5.0
# Standard deviations of a normal distribution in its median absolute deviation.
MAD = 1.4826


F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Level:
    """The level that most of the lower values scatter around.

    Attributes
    ----------
    centre : median of the values that scatter around it
    spread : their standard deviation, from those below the centre
    fraction : of all values
    """

    centre: float
    spread: float
    fraction: float


def grid_shape(shape: Sequence[int], cell: Sequence[int] = CELL) -> tuple[int, int, int]:
    """Number of cells along z, y and x."""
    nz, ny, nx = (-(-n // c) for n, c in zip(shape, cell, strict=True))
    return nz, ny, nx


def lower_half_median(block: NDArray) -> float:
    """Median of the lower half of the values: below the level of the background by 0.67 of its noise, where all of the
    block is background, and at it where half is; see :func:`background_level`.
    """
    values = np.sort(block, axis=None)
    return float(np.median(values[: max(1, values.size // 2)]))


def background_level(values: NDArray) -> Level:
    """Level and spread of the background among values of background and brighter signal.

    Starts at the median of the lower half and clips what is further above the level than 2.5 spreads, until nothing
    changes. With less than a quarter of background the darker part of the signal is the background.

    Parameters
    ----------
    values : (n,) sorted, n at least 1, finite

    Notes
    -----
    Kappa-sigma clipping (Bertin & Arnouts, SExtractor, Astron. Astrophys. Suppl. 117 (1996), 393) from below, because
    signal only adds.
    """
    end = values.size
    centre, spread = _median(values, end // 2 or 1), 0.0
    for _ in range(ROUNDS):
        # half of those at the centre count as below it, or steps of few photons would look like no scatter at all
        below = (int(np.searchsorted(values, centre)) + int(np.searchsorted(values, centre, side="right")) + 1) // 2
        spread = MAD * max(0.0, centre - _median(values, max(1, below)))
        new_end = max(1, int(np.searchsorted(values, centre + CLIP * spread, side="right")))
        new = _median(values, new_end)
        done = new_end == end and new == centre
        centre, end = new, new_end
        if done:
            break
    return Level(centre, spread, end / values.size)


def _median(values: NDArray, end: int) -> float:
    """Median of the first `end` sorted values."""
    middle = (end - 1) // 2
    return (float(values[middle]) + float(values[end - 1 - middle])) / 2


def interpolate(
    grid: Tensor,
    cell: Sequence[int] = CELL,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    shape: Sequence[int] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """The field on a lattice of samples.

    Parameters
    ----------
    grid : (nz, ny, nx) values of the cells
    cell : (z, y, x) voxels
    origin : (z, y, x) of the first sample, voxels
    shape : (z, y, x) samples; none: the cells' voxels
    spacing : (z, y, x) voxels from sample to sample

    Returns
    -------
    (z, y, x) float32 on the grid's device, differentiable in `grid`

    Notes
    -----
    Differences, products and sums of elements, no matrix product and no fused operation, because these would change the
    bits of a voxel with the piece that is asked for.
    """
    shape = tuple(n * c for n, c in zip(grid.shape, cell)) if shape is None else shape
    along = [_weights(*of) for of in zip(grid.shape, cell, origin, shape, spacing, strict=True)]
    if grid.device.type == "cpu" and not grid.requires_grad:
        return torch.from_numpy(_interpolated(grid.numpy().astype(np.float32, copy=False), along))
    field = grid.to(torch.float32)
    for axis in (2, 1, 0):
        low, weight = (torch.from_numpy(found).to(field.device) for found in along[axis])
        above = field.index_select(axis, torch.clamp(low + 1, max=field.shape[axis] - 1))
        below = field.index_select(axis, low)
        field = below + weight.reshape([-1 if i == axis else 1 for i in range(3)]) * (above - below)
    return field


def _interpolated(field: F32, along: Sequence[tuple[NDArray[np.int64], F32]]) -> F32:
    """The same with the same bits, plane by plane: what is read and written then stays in the cache."""
    for axis in (2, 1):
        low, weight = along[axis]
        above = np.take(field, np.minimum(low + 1, field.shape[axis] - 1), axis)
        below = np.take(field, low, axis)
        field = below + weight.reshape([-1 if i == axis else 1 for i in range(3)]) * (above - below)
    low, weight = along[0]
    out = np.empty((len(low), *field.shape[1:]), np.float32)
    for plane, below_at, share in zip(out, low, weight):
        below = field[below_at]
        np.subtract(field[min(below_at + 1, len(field) - 1)], below, out=plane)
        plane *= share
        plane += below
    return out


def _weights(n_cells: int, cell: int, origin: float, n: int, spacing: float) -> tuple[NDArray[np.int64], F32]:
    """Cell below each of `n` samples, and the share of the cell above it."""
    place = (origin + spacing * np.arange(n, dtype=np.float64) - (cell - 1) / 2) / cell
    place = np.clip(place, 0.0, n_cells - 1.0)
    low = np.minimum(place.astype(np.int64), max(0, n_cells - 2))
    return low, (place - low).astype(np.float32)


def windows(n: int, cell: int) -> list[slice]:
    """Voxels that speak for each cell along an axis of n: the cell's own, and for a last one that is cut the last
    `cell` voxels, because a sliver may lie in the middle of an object.
    """
    return [slice(max(0, min(start, n - cell)), min(start + cell, n)) for start in range(0, n, cell)]


def cell_columns(layer: NDArray, cell: Sequence[int] = CELL) -> NDArray[np.float32]:
    """Statistics of every cell of a layer of cells.

    Parameters
    ----------
    layer : (z, y, x), the voxels that speak for the cells along z; finite

    Returns
    -------
    (6, ny, nx) float32 : minimum, maximum, mean, standard deviation, background level and its spread, in the unit of
        the values; the spread is that of block means, times the root of a block's voxels
    """
    rows, columns = windows(layer.shape[1], cell[1]), windows(layer.shape[2], cell[2])
    found = np.empty((6, len(rows), len(columns)), np.float32)
    for j, i in itertools.product(range(len(rows)), range(len(columns))):
        values = layer[:, rows[j], columns[i]]
        means, voxels = pooled(values)
        level = background_level(np.sort(means, axis=None))
        mean, sd = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        found[:, j, i] = values.min(), values.max(), mean, sd, level.centre, math.sqrt(voxels) * level.spread
    return found


def pooled(values: NDArray, pool: Sequence[int] = POOL) -> tuple[NDArray[np.float32], int]:
    """Means of blocks, what is left over at the ends dropped, and the voxels of a block; smaller in a thin volume."""
    block = [min(p, n) for p, n in zip(pool, values.shape)]
    count = [n // b for n, b in zip(values.shape, block)]
    cut = values[tuple(slice(0, c * b) for c, b in zip(count, block))]
    cut = cut.reshape(count[0], block[0], count[1], block[1], count[2], block[2])
    return cut.mean(axis=(1, 3, 5), dtype=np.float32), math.prod(block)


def filled_cells(levels: F32, spreads: F32, noise_sd: F32) -> NDArray[np.bool_]:
    """Which cells an object fills, so that their level is not that of a background.

    In a filled cell the darker half scatters by the object's own structure, far more than by noise. How much more it
    does in cells of background differs from volume to volume (texture of tissue), so it is compared with that of the
    quarter of the cells in which it is least.

    Parameters
    ----------
    levels, spreads : (nz, ny, nx) of the cells; see :func:`cell_columns`
    noise_sd : (nz, ny, nx) standard deviation of the noise at the levels
    """
    excess = spreads / noise_sd
    return excess > FILLED * max(1.0, float(np.quantile(excess, 0.25)))


def without_objects(levels: F32, filled: NDArray[np.bool_]) -> F32:
    """Levels of the background alone: a cell that an object fills gets the level of the nearest that is not filled."""
    if not filled.any() or filled.all():
        return levels
    nearest = ndimage.distance_transform_edt(filled, return_distances=False, return_indices=True)
    return np.ascontiguousarray(levels[tuple(nearest)])
