"""What each nucleus keeps of its volume where nuclei touch: voxels of its label, counted without a label image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.cells.bodies import all_bodies
from gigascope.kernels.cells.raster import checked
from gigascope.kernels.cells.table import NucleiTable


class Owned(NamedTuple):
    """Voxels that :func:`gigascope.kernels.cells.labels` gives to k nuclei on an endless grid.

    Attributes
    ----------
    voxels : (k,) int64, with its label
    alone : (k,) int64, that it had without the others; clip fraction is 1 - voxels / alone
    fragments : (k,) int64, 26-connected pieces
    centroid : (k, 3) float64 µm, mean of its voxels' centres; NaN without voxels
    box : (k, 6) int64, first and one past the last voxel along z, y, x; all 0 without voxels
    """

    voxels: Tensor
    alone: Tensor
    fragments: Tensor
    centroid: Tensor
    box: Tensor


def owned(
    table: NucleiTable,
    voxel: Sequence[float],
    rows: Tensor | None = None,
    gap: float = 0.0,
    subsample: int = 2,
) -> Owned:
    """Measure nuclei on their own patches of the grid, with all that touches them.

    Parameters
    ----------
    table : nuclei, on the CPU
    voxel, gap, subsample : as in :func:`gigascope.kernels.cells.labels`
    rows : (k,) int64, the nuclei to measure; all by default

    Returns
    -------
    Counts in the order of `rows`; the same voxels as in any label image that contains them whole

    Raises
    ------
    ShapeError : columns or numbers that do not fit, rows that the table does not have

    Notes
    -----
    The cost is that of the measured nuclei and their neighbours; the whole table costs a look at its reach.
    """
    from gigascope.kernels.cells import cpu_owned

    columns = [value for value in table if isinstance(value, Tensor)]
    table, grid = checked("owned", columns, table.octaves, (0, 0, 0), (1, 1, 1), voxel, gap, subsample)
    wanted = torch.arange(table.n) if rows is None else rows.to(torch.int64)
    if wanted.ndim != 1 or (len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < table.n):
        raise ShapeError(f"owned: rows: expected (k,) rows of {table.n} nuclei, got {tuple(wanted.shape)}")
    if len(wanted) == 0:
        none = torch.zeros(0, dtype=torch.int64)
        return Owned(none, none, none, torch.zeros(0, 3, dtype=torch.float64), none.reshape(0, 6))
    near = _neighbourhood(table, wanted)
    bodies = all_bodies(table.rows(near), grid, gap)
    own = all_bodies(table.rows(wanted), grid, 0.0).boxes
    return cpu_owned.measure(bodies, own, grid, gap, subsample, torch.searchsorted(near, wanted))


def _neighbourhood(table: NucleiTable, wanted: Tensor) -> Tensor:
    """Rows, ascending, of all that may touch the wanted ones: within the box around these."""
    if len(wanted) == table.n:
        return torch.arange(table.n)
    reach = 2 * table.reach.max()
    low, high = table.centre[wanted].min(dim=0).values - reach, table.centre[wanted].max(dim=0).values + reach
    return ((table.centre >= low) & (table.centre <= high)).all(dim=1).nonzero()[:, 0]
