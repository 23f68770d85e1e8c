"""The truth of a simulated acquisition, brought onto the mosaic and onto the views of a calibration."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import UserError
from gigascope.topography.calibration.compare import mosaic_to_truth
from gigascope.topography.geometry.poses import Poses, select

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader
    from gigascope.topography.calibration.result import Calibration

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
BOOL = NDArray[np.bool_]
GREEN = 1
# Standard deviation of the window of the sharpness, pixels: how far from a step it sees both sides.
WINDOW_PX = 8.0
# Rise between two pixels that is a step, um; and pixels over which the whole rise is looked for.
STEP_UM = 5.0
RISE_PX = 15
# Samples around a window that a spline needs.
SPLINE = 12


@dataclass(frozen=True)
class Surface:
    """What there is at points of the truth.

    Attributes
    ----------
    height_um : float64
    texture : contrast of the albedo, 0 to 1
    near_step : bool, a focus window there sees across a step
    inside : bool, on the grid of the truth
    """

    height_um: F64
    texture: F64
    near_step: BOOL
    inside: BOOL


class Truth:
    """A truth store beside the calibration that it judges.

    Parameters
    ----------
    store : written by `topography.synth`
    calibration : of its cameras, or of some of them

    Raises
    ------
    UserError : the calibration is of cameras, stage positions or parts of the field that the truth is not of
    """

    def __init__(self, store: StoreReader, calibration: Calibration) -> None:
        self.store, self.attrs = store, store.attrs
        every, instrument = _poses(store), calibration.instrument
        view_rows, view_cols = store.member("index").shape[:2]
        # cameras may have been left out when the stacks were read
        rows, cols = (
            (np.array(ids)[:, None] * n + np.arange(n)).ravel()
            for ids, n in zip((instrument.camera_rows, instrument.camera_cols), instrument.scan)
        )
        if every.size != instrument.size or rows.max() >= view_rows or cols.max() >= view_cols:
            raise UserError(
                f"holds the truth of {view_rows} x {view_cols} views of {every.size[1]} x {every.size[0]} pixels; the "
                f"calibration is of {instrument.view_shape[0]} x {instrument.view_shape[1]} views of "
                f"{instrument.size[1]} x {instrument.size[0]}.",
                where=store.path,
            )
        self._place = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
        self.poses = select(every, self._place[:, 0] * view_cols + self._place[:, 1])
        self.views = np.flatnonzero(calibration.present)
        self.matrix = mosaic_to_truth(calibration.poses, self.poses, self.views)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of the true mosaic."""
        rows, cols = self.attrs["mosaic_shape"]
        return int(rows), int(cols)

    @functools.cached_property
    def height_range_um(self) -> tuple[float, float]:
        """Lowest and highest point."""
        heights = self.store.member("height_mm")
        low, high = math.inf, -math.inf
        for row in range(0, heights.shape[0], 1024):
            band = np.asarray(heights[row : row + 1024])
            low, high = min(low, float(band.min())), max(high, float(band.max()))
        return 1000 * low, 1000 * high

    @property
    def step_reach_px(self) -> float:
        """Largest distance from a step at which it is seen: window + NA * height / pixel."""
        low, high = self.height_range_um
        return WINDOW_PX + float(self.attrs["na"]) * (high - low) / float(self.attrs["pixel_um"])

    def on_truth(self, points: F64) -> F64:
        """(..., 2) points of the calibrated mosaic on the true one."""
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2])

    def on_mosaic(self, points: F64) -> F64:
        """(..., 2) points of the true mosaic on the calibrated one."""
        return np.asarray((points - self.matrix[:, 2]) @ np.linalg.inv(self.matrix[:, :2]).T)

    def surface(self, points: F64) -> Surface:
        """What there is at points (rows, cols, 2) of the true mosaic."""
        box, inside = self._box(points, math.ceil(self.step_reach_px) + RISE_PX)
        height = 1000.0 * np.asarray(self.store.member("height_mm")[box], np.float64)
        texture = np.asarray(self.store.member("texture")[box], np.float64)
        attrs = self.attrs
        near = near_steps(height, na=float(attrs["na"]), pixel_um=float(attrs["pixel_um"]))
        at = np.moveaxis(points, -1, 0) - np.array([[[box[0].start]], [[box[1].start]]])
        found = [ndimage.map_coordinates(v, at, order=1, mode="nearest") for v in (height, texture)]
        beside = ndimage.map_coordinates(near.astype(np.float32), at, order=1, mode="nearest") > 0
        return Surface(found[0], found[1], beside, inside)

    def albedo(self, points: F64) -> F64:
        """(3, rows, cols) albedo at points (rows, cols, 2) of the true mosaic, as an image in focus shows it."""
        box, _ = self._box(points, SPLINE)
        values = np.asarray(self.store.member("albedo")[(slice(None), *box)], np.float64)
        at = np.moveaxis(points, -1, 0) - np.array([[[box[0].start]], [[box[1].start]]])
        return np.stack([ndimage.map_coordinates(v, at, order=3, mode="nearest") for v in values])

    def coverage(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """Views that see the points of a window of the true mosaic."""
        return np.asarray(self.store.member("coverage")[rows, cols])

    def view(self, name: str, number: int, rows: slice = slice(None), cols: slice = slice(None)) -> F32:
        """`index`, `flow` or `visible` of a view of the calibration, or of some of its pixels."""
        row, col = self._place[number]
        return np.asarray(self.store.member(name)[row, col, rows, cols])

    def _box(self, points: F64, margin: int) -> tuple[tuple[slice, slice], BOOL]:
        """Window of the grid that holds points with a margin, and which of them are on the grid."""
        last = np.array(self.shape) - 1
        low = np.clip(np.floor(points.min(axis=(0, 1))).astype(int) - margin, 0, last - 1)
        high = np.clip(np.ceil(points.max(axis=(0, 1))).astype(int) + margin + 1, low + 2, last + 1)
        inside = np.all((points >= 0) & (points <= last), axis=-1)
        return (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))), inside


def near_steps(
    height_um: F64, *, na: float, pixel_um: float, window_px: float = WINDOW_PX, least_um: float = STEP_UM
) -> BOOL:
    """Pixels from which a focus window sees across a step.

    Parameters
    ----------
    height_um : (rows, cols)
    na, pixel_um : aperture and pixel: blur widens the window by NA h / p beside a step of height h
    window_px : standard deviation of the window
    least_um : rise between two pixels that counts as a step

    Returns
    -------
    (rows, cols) bool: closer than window + NA h / p to a step, h the rise over the pixels around it
    """
    step = np.zeros(height_um.shape, np.bool_)
    for axis in (0, 1):
        jump = np.abs(np.diff(height_um, axis=axis)) >= least_um
        for part in (slice(None, -1), slice(1, None)):
            step[(slice(None),) * axis + (part,)] |= jump
    if not step.any():
        return step
    rise = ndimage.maximum_filter(height_um, RISE_PX) - ndimage.minimum_filter(height_um, RISE_PX)
    # to the next 4 pixels: few distances to be found
    reach = np.ceil((window_px + na * rise / pixel_um) / 4) * 4
    near = np.zeros_like(step)
    for distance in np.unique(reach[step]):
        near |= ndimage.distance_transform_edt(~(step & (reach == distance))) < distance
    return near


def _poses(store: StoreReader) -> Poses:
    table, attrs = store.table("poses"), store.attrs
    return Poses(
        size=(int(attrs["size"][0]), int(attrs["size"][1])),
        focal=float(attrs["focal"]),
        height=table["height"],
        normal=np.stack([table[f"normal_{axis}"] for axis in "xyz"], axis=1),
        angle=table["angle"],
        translation=np.stack([table["row"], table["col"]], axis=1),
        distortion=np.asarray(attrs["distortion"]),
        offset=np.asarray(attrs["offset"]),
    )
