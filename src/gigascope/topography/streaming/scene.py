"""What has to be known of the views to draw from them: where they lie, which camera took them, where they focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError
from gigascope.topography.calibration.field import N_TERMS
from gigascope.topography.geometry.candidates import Candidates
from gigascope.topography.geometry.poses import F64, Poses


@dataclass(frozen=True, eq=False)
class Scene:
    """V calibrated views; a view's number is view_row * n_view_cols + view_col.

    Parameters
    ----------
    grid : (view rows, view columns)
    poses, candidates : of all views; the mosaic is that of `candidates`
    camera : (V,) int64, number of each view's camera, see :func:`cameras_of`
    present : (V,) bool, views that were taken
    distance_mm : (V,) float64, from the pinhole to the plane of height 0
    datum_mm : (V, 6) float64, stage position of focus of the flat target, see :mod:`..calibration.field`
    nominal : (V,) float64, slice at which the flat target is in focus
    z_mm : (V, n_z) float64, stage position of each slice
    dz_mm : step between slices, > 0
    stage_up : a larger stage position brings the sample nearer to the cameras

    Raises
    ------
    ShapeError : shapes that do not go together
    """

    grid: tuple[int, int]
    poses: Poses
    candidates: Candidates
    camera: NDArray[np.int64]
    present: NDArray[np.bool_]
    distance_mm: F64
    datum_mm: F64
    nominal: F64
    z_mm: F64
    dz_mm: float
    stage_up: bool

    def __post_init__(self) -> None:
        n = self.poses.n_views
        if self.grid[0] * self.grid[1] != n:
            raise ShapeError(f"scene: grid: expected {n} views as there are poses, got {self.grid}")
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("camera", "present", "distance_mm", "nominal"), (n,))
        shapes |= {"datum_mm": (n, N_TERMS), "z_mm": (n, self.z_mm.shape[-1])}
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ShapeError(f"scene: {name}: expected {shape} for {n} views, got {found}")


def cameras_of(grid: tuple[int, int], scan: tuple[int, int]) -> NDArray[np.int64]:
    """(V,) camera of each view of a grid in which the scan index runs fastest: view_row = camera_row * n_y + scan_y.

    Raises
    ------
    ShapeError : the grid is not a whole number of rasters
    """
    if grid[0] % scan[0] or grid[1] % scan[1]:
        raise ShapeError(f"cameras_of: views {grid} are no whole number of rasters {scan}")
    rows, cols = np.indices(grid)
    return np.asarray((rows // scan[0] * (grid[1] // scan[1]) + cols // scan[1]).reshape(-1), dtype=np.int64)
