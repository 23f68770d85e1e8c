"""Nuclei drawn on grids: labels, brightness, volume fraction. Signatures, checks and meta functions."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.cells.bodies import Grid
from gigascope.kernels.cells.table import NucleiTable, check_nuclei
from gigascope.kernels.dispatch import backend
from gigascope.kernels.library import define

_SCHEMA = (
    "(Tensor[] table, int octaves, int[] origin, SymInt[] shape, float[] voxel, float gap, int subsample) -> Tensor"
)


def labels(
    table: NucleiTable,
    origin: Sequence[int],
    shape: Sequence[int],
    voxel: Sequence[float],
    gap: float = 0.0,
    subsample: int = 2,
) -> Tensor:
    """Label image of one block of a grid.

    Parameters
    ----------
    table : nuclei, n < 2^24; those far from the block cost a look at their reach only. Its device computes
    origin : (z, y, x) index of the block's first voxel; voxel i covers [i v, (i + 1) v) µm. May be negative
    shape : (z, y, x) voxels of the block
    voxel : (z, y, x) µm
    gap : µm; a sample closer than that to being owned by a second nucleus, (ρ_second - ρ_owner) r < gap, is nobody's
    subsample : samples of a voxel along each axis

    Returns
    -------
    (z, y, x) int32, row of the nucleus + 1, or 0

    Raises
    ------
    ShapeError : columns, sizes or numbers that do not fit

    Notes
    -----
    A sample belongs to the nucleus with the smallest ρ, of equal ones to the first, if ρ <= 1. A voxel gets a label if
    more than half of its samples belong to nuclei, or half of them and its centre (counting all halves as inside makes
    a ball of 5 voxels 4 % too large): the label that owns most of them, of equal ones the smallest. In float32 with a
    fixed order of operations from the offset x - centre on, which is taken in float64: the same bits in whatever
    blocks and with whatever number of threads the grid is computed.
    """
    return _call(torch.ops.gigascope.cells_labels, table, origin, shape, voxel, gap, subsample)


def density(
    table: NucleiTable, origin: Sequence[int], shape: Sequence[int], voxel: Sequence[float], gap: float = 0.0
) -> Tensor:
    """Fluorophore at the centres of the voxels of one block, relative to the median nucleus.

    Parameters
    ----------
    table, origin, shape, voxel, gap : as in :func:`labels`

    Returns
    -------
    (z, y, x) float32, 0 outside nuclei

    Raises
    ------
    ShapeError : columns, sizes or numbers that do not fit

    Notes
    -----
    I · T · rim · Π nucleoli of the owner. T = max(0, 1 + σ n(b)), with n gradient noise of unit variance in the body
    frame (Perlin, *Improving noise*, 2002): gradients with three independent components of ten bits from a hash of
    lattice point and nucleus, on a lattice that begins elsewhere in each nucleus and octave. With a library texture
    T = max(0, crop(b))^gamma, trilinear. rim = 1 + A exp(-(1 - ρ) r / 0.5 µm). A nucleolus takes half of the
    brightness, with an edge of 0.3 µm.
    """
    return _call(torch.ops.gigascope.cells_density, table, origin, shape, voxel, gap, 1)


def fraction(
    table: NucleiTable,
    origin: Sequence[int],
    shape: Sequence[int],
    voxel: Sequence[float],
    gap: float = 0.0,
    subsample: int = 4,
) -> Tensor:
    """Share of each cell of a coarse grid that nuclei fill, from samples inside the cell.

    Parameters
    ----------
    table, origin, shape, voxel, gap, subsample : as in :func:`labels`

    Returns
    -------
    (z, y, x) float32, 0 to 1; sums over cells are the volume of the nuclei, since no sample is of two cells

    Raises
    ------
    ShapeError : columns, sizes or numbers that do not fit
    """
    return _call(torch.ops.gigascope.cells_fraction, table, origin, shape, voxel, gap, subsample)


def _call(
    op: torch._ops.OpOverloadPacket,
    table: NucleiTable,
    origin: Sequence[int],
    shape: Sequence[int],
    voxel: Sequence[float],
    gap: float,
    subsample: int,
) -> Tensor:
    columns = [value for value in table if isinstance(value, Tensor)]
    numbers = [float(size) for size in voxel]
    result: Tensor = op(columns, table.octaves, [int(i) for i in origin], list(shape), numbers, float(gap), subsample)
    return result


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.cells import cpu_raster

        return cpu_raster
    if chosen == "cuda":
        from gigascope.kernels.cells import cuda_raster

        return cuda_raster
    from gigascope.kernels.cells import reference_raster

    return reference_raster


def checked(
    op: str,
    columns: Sequence[Tensor],
    octaves: int,
    origin: Sequence[int],
    shape: Sequence[int],
    voxel: Sequence[float],
    gap: float,
    subsample: int,
) -> tuple[NucleiTable, Grid]:
    """Table and grid of samples of a call.

    Raises
    ------
    ShapeError : what does not fit
    """
    named = dict(zip(NucleiTable._fields, (column.detach().contiguous() for column in columns)))
    table = NucleiTable(**named, octaves=octaves)
    check_nuclei(op, table)
    if len(origin) != 3:
        raise ShapeError(f"{op}: origin: expected (z, y, x), got {tuple(origin)}")
    if len(shape) != 3 or min(shape) < 1:
        raise ShapeError(f"{op}: shape: expected (z, y, x) above 0, got {tuple(shape)}")
    if len(voxel) != 3 or not min(voxel) > 0:
        raise ShapeError(f"{op}: voxel: expected three sizes above 0, got {tuple(voxel)}")
    if not gap >= 0:
        raise ShapeError(f"{op}: gap: expected 0 or more, got {gap}")
    if subsample < 1:
        raise ShapeError(f"{op}: subsample: expected 1 or more, got {subsample}")
    first = [int(i) * subsample for i in origin]
    size = [int(n) * subsample for n in shape]
    step = [v / subsample for v in voxel]
    return table, Grid((first[0], first[1], first[2]), (size[0], size[1], size[2]), (step[0], step[1], step[2]))


@define("cells_labels", _SCHEMA)
def _labels(
    columns: list[Tensor],
    octaves: int,
    origin: list[int],
    shape: list[int],
    voxel: list[float],
    gap: float,
    subsample: int,
) -> Tensor:
    table, grid = checked("labels", columns, octaves, origin, shape, voxel, gap, subsample)
    result: Tensor = _implementation(columns[0]).labels(table, grid, gap, subsample)
    return result


@define("cells_density", _SCHEMA)
def _density(
    columns: list[Tensor],
    octaves: int,
    origin: list[int],
    shape: list[int],
    voxel: list[float],
    gap: float,
    subsample: int,
) -> Tensor:
    table, grid = checked("density", columns, octaves, origin, shape, voxel, gap, subsample)
    result: Tensor = _implementation(columns[0]).density(table, grid, gap)
    return result


@define("cells_fraction", _SCHEMA)
def _fraction(
    columns: list[Tensor],
    octaves: int,
    origin: list[int],
    shape: list[int],
    voxel: list[float],
    gap: float,
    subsample: int,
) -> Tensor:
    table, grid = checked("fraction", columns, octaves, origin, shape, voxel, gap, subsample)
    result: Tensor = _implementation(columns[0]).fraction(table, grid, gap, subsample)
    return result


def _meta(dtype: torch.dtype):  # type: ignore[no-untyped-def]
    def fake(columns, octaves, origin, shape, voxel, gap, subsample):  # type: ignore[no-untyped-def]
        return columns[0].new_empty(tuple(shape), dtype=dtype)

    return fake


_labels.register_fake(_meta(torch.int32))
_density.register_fake(_meta(torch.float32))
_fraction.register_fake(_meta(torch.float32))
