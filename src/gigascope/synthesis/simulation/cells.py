"""The coarse grid of cells on which light is computed, and where voxels of finer grids lie on it.

Positions are µm from the corner of the image's field; voxel i of a grid of voxel size v covers [i v, (i + 1) v).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CellGrid:
    """Cubic cells.

    Attributes
    ----------
    first : index (z, y, x) of the first cell; cell i covers [i spacing, (i + 1) spacing)
    shape : cells (z, y, x)
    spacing : edge, µm
    """

    first: tuple[int, int, int]
    shape: tuple[int, int, int]
    spacing: float

    @property
    def corner_um(self) -> tuple[float, float, float]:
        """Low corner of the grid."""
        z, y, x = (self.spacing * f for f in self.first)
        return z, y, x

    def centres(self) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
        """Coordinates of the cell centres along each axis, µm."""
        z, y, x = (np.float64(self.spacing) * (f + np.arange(n) + 0.5) for f, n in zip(self.first, self.shape))
        return z, y, x

    def places(self, voxel_um: Sequence[float]) -> tuple[list[float], list[float], list[int]]:
        """`step`, `first` and `corner` of :func:`gigascope.kernels.cells.light.read_out` for voxels of this size."""
        step = [v / self.spacing for v in voxel_um]
        return step, [s / 2 - 0.5 for s in step], list(self.first)

    def around(self, low_um: Sequence[float], high_um: Sequence[float]) -> tuple[CellGrid, tuple[slice, ...]]:
        """The cells that interpolation within a box needs, and where they are among all; the nearest ones outside."""
        slices = []
        for low, high, f, n in zip(low_um, high_um, self.first, self.shape):
            start = min(max(math.floor(low / self.spacing - 0.5) - f, 0), n - 1)
            stop = min(max(math.ceil(high / self.spacing - 0.5) + 1 - f, start + 1), n)
            slices.append(slice(start, stop))
        first = [f + s.start for f, s in zip(self.first, slices)]
        shape = [s.stop - s.start for s in slices]
        part = CellGrid((first[0], first[1], first[2]), (shape[0], shape[1], shape[2]), self.spacing)
        return part, tuple(slices)


def cell_grid(low_um: Sequence[float], high_um: Sequence[float], spacing: float) -> CellGrid:
    """Cells that cover a box.

    Parameters
    ----------
    low_um, high_um : corners (z, y, x)
    spacing : edge of a cell, µm
    """
    first = [math.floor(low / spacing) for low in low_um]
    shape = [max(1, math.ceil(high / spacing) - f) for high, f in zip(high_um, first)]
    return CellGrid((first[0], first[1], first[2]), (shape[0], shape[1], shape[2]), spacing)


def region_fraction(distance_um: NDArray[np.floating], spacing: float) -> NDArray[np.float32]:
    """How much of each cell lies in the region, from the signed distance of its centre to the surface, µm.

    Exact for a flat surface across an axis.
    """
    return np.clip(0.5 - distance_um / spacing, 0, 1).astype(np.float32)
