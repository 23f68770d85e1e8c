"""Which camera and which stage position a view belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError

I64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layout:
    """Which camera and which stage position a view belongs to.

    Attributes
    ----------
    camera, stage : (V,) int64
    present : (V,) bool, views that are there
    """

    camera: I64
    stage: I64
    present: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    def __post_init__(self) -> None:
        if self.camera.shape != self.stage.shape or self.camera.ndim != 1:
            raise ShapeError(f"layout: expected two of (V,), got {self.camera.shape} and {self.stage.shape}")
        if self.present.size == 0:
            object.__setattr__(self, "present", np.ones(len(self.camera), np.bool_))

    @property
    def n_cameras(self) -> int:
        return int(self.camera.max()) + 1

    @property
    def n_stages(self) -> int:
        return int(self.stage.max()) + 1


def layout(cameras: tuple[int, int], scan: tuple[int, int], camera_mask: NDArray | None = None) -> Layout:
    """Layout of a grid of views: the scan runs fastest inside a camera.

    Parameters
    ----------
    cameras : (rows, columns)
    scan : (n_scan_y, n_scan_x)
    camera_mask : (rows, columns) bool, cameras that are there; none: all
    """
    shape = (cameras[0] * scan[0], cameras[1] * scan[1])
    row, col = np.indices(shape)
    camera = (row // scan[0]) * cameras[1] + col // scan[1]
    stage = (row % scan[0]) * scan[1] + col % scan[1]
    mask = np.ones(cameras, np.bool_) if camera_mask is None else np.asarray(camera_mask, dtype=np.bool_)
    return Layout(camera.ravel(), stage.ravel(), mask.ravel()[camera.ravel()])
