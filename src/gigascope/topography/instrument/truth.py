"""What a perfect reconstruction of a synthetic acquisition would find: heights, colours, focus, flow, visibility."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.topography.geometry.poses import Poses, to_view
from gigascope.topography.instrument.cameras import Rig
from gigascope.topography.instrument.heights import Window
from gigascope.topography.instrument.pyramid import blur_lattice
from gigascope.topography.instrument.render import Rays, visible_share
from gigascope.topography.instrument.world import World, bilinear

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
BOOL = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """Truth of an acquisition, on windows of the mosaic and on the pixels of a view.

    Attributes
    ----------
    world : the specimen
    rig : views
    """

    world: World
    rig: Rig

    @property
    def poses(self) -> Poses:
        """True poses; their gauge is that of a calibration."""
        return self.rig.poses

    @property
    def mosaic_shape(self) -> tuple[int, int]:
        """(rows, cols) of the mosaic; windows start at (0, 0)."""
        return self.rig.mosaic_shape

    def height_um(self, window: Window) -> F32:
        """(rows, cols) float32, um toward the cameras, 0 on the plane of the flat target."""
        return self.world.heights(window)

    def height_mm(self, window: Window) -> F32:
        """(rows, cols) float32, mm toward the cameras, 0 on the plane of the flat target."""
        return self.world.heights(window) / np.float32(1000.0)

    def albedo(self, window: Window, blur_px: float = 0.0) -> F32:
        """(3, rows, cols) float32, R, G, B; `blur_px` 0.9, the diffraction, is what an image in focus shows."""
        if blur_px <= 0.0:
            return self.world.albedo(window)
        margin = int(np.ceil(4.0 * blur_px)) + 1
        wide = blur_lattice(self.world.albedo(window.grown(margin)), blur_px)
        return np.ascontiguousarray(wide[:, margin:-margin, margin:-margin])

    def texture(self, window: Window) -> F32:
        """(rows, cols) float32, contrast of the albedo: 1 textured, 0 not."""
        return self.world.texture(window)

    def near_step(self, window: Window, distance_px: float, least_um: float = 5.0) -> BOOL:
        """(rows, cols) bool, closer than `distance_px` to a rise of `least_um` or more between two pixels.

        A focus window of radius sigma looks across a step of height h from sigma + NA h / p pixels on: heights there
        are judged apart.
        """
        margin = int(np.ceil(distance_px)) + 1
        heights = self.world.heights(window.grown(margin))
        step = np.zeros(heights.shape, np.bool_)
        for axis in (0, 1):
            jump = np.abs(np.diff(heights, axis=axis)) >= least_um
            low, high = [slice(None)] * 2, [slice(None)] * 2
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            step[tuple(low)] |= jump
            step[tuple(high)] |= jump
        if not step.any():
            return np.zeros(window.shape, np.bool_)
        near = ndimage.distance_transform_edt(~step) < distance_px
        return np.ascontiguousarray(near[margin:-margin, margin:-margin], dtype=np.bool_)

    def coverage(self, window: Window, margin_px: float = 0.0) -> NDArray[np.uint8]:
        """(rows, cols) uint8, number of views whose image, less a margin, holds each mosaic point."""
        size = self.rig.preset.size
        count = np.zeros(window.shape, np.uint8)
        centre = self.poses.translation + self.poses.offset + size / 2 - (window.row, window.col)
        # half a field, turned and stretched a little
        low = np.maximum(np.floor(centre - 0.55 * size), 0).astype(int)
        high = np.minimum(np.ceil(centre + 0.55 * size) + 1, window.shape).astype(int)
        for view in np.flatnonzero(np.all(low < high, axis=1)):
            box = slice(low[view, 0], high[view, 0]), slice(low[view, 1], high[view, 1])
            points = np.moveaxis(np.mgrid[box], 0, -1) + np.array([window.row, window.col])
            pixel = to_view(self.poses, int(view), points)
            inside = np.all((pixel >= margin_px) & (pixel <= size - 1 - margin_px), axis=-1)
            count[box] += inside.astype(np.uint8)
        return count

    def flow(self, view_row: int, view_col: int) -> F64:
        """(R, C, 2) float64, mosaic (row, col) of the point that each pixel has in focus."""
        return self.rig.focus(view_row, view_col)[0]

    def view_height_um(self, view_row: int, view_col: int) -> F64:
        """(R, C) float64, um, height of the point that each pixel has in focus."""
        return on_pixels(self.world.heights, self.flow(view_row, view_col))

    def view_texture(self, view_row: int, view_col: int) -> F64:
        """(R, C) float64, texture at the point that each pixel has in focus."""
        return on_pixels(self.world.texture, self.flow(view_row, view_col))

    def view_near_step(self, view_row: int, view_col: int, distance_px: float, least_um: float = 5.0) -> BOOL:
        """(R, C) bool, see :meth:`near_step`, for the point that each pixel has in focus."""

        def share(window: Window) -> F32:
            return self.near_step(window, distance_px, least_um).astype(np.float32)

        return on_pixels(share, self.flow(view_row, view_col)) > 0.0

    def nominal(self, view_row: int, view_col: int) -> F64:
        """(R, C) float64, slice at which the plane of height 0 is in focus."""
        return self._slices(view_row, view_col, self.rig.focus(view_row, view_col)[1])

    def index(self, view_row: int, view_col: int) -> F64:
        """(R, C) float64, slice at which the surface is in focus; nominal - z / dz where the stage steps evenly."""
        flow, lift = self.rig.focus(view_row, view_col)
        return self._slices(view_row, view_col, lift - on_pixels(self.world.heights, flow))

    def visible_share(self, view_row: int, view_col: int) -> F32:
        """(R, C) float32, share of the pupil that sees the point each pixel has in focus; 1 - this is occluded."""
        return visible_share(self.world, self.rays(view_row, view_col))

    def visible(self, view_row: int, view_col: int, least: float = 0.5) -> BOOL:
        """(R, C) bool, at least this share of the pupil sees the point in focus."""
        return self.visible_share(view_row, view_col) >= least

    def rays(self, view_row: int, view_col: int, block: Window | None = None) -> Rays:
        """Geometry of a view, or of a block of its pixels, for the renderers."""
        rig, optics = self.rig, self.rig.optics
        flow, lift = rig.focus(view_row, view_col, block)
        return Rays(
            flow=flow,
            lift_um=lift,
            stage_um=self._stage_um(view_row, view_col),
            foot=rig.foot(view_row, view_col),
            distance_um=optics.object_distance_um(rig.preset.size),
            na=optics.na,
            pixel_um=optics.pixel_um,
            diffraction_px=optics.diffraction_px,
        )

    def _stage_um(self, view_row: int, view_col: int) -> F64:
        scan_y, scan_x = self.rig.scan(view_row, view_col)
        return np.asarray(self.rig.stage_lift_um[scan_y * self.rig.preset.scan[1] + scan_x], dtype=np.float64)

    def _slices(self, view_row: int, view_col: int, lift: F64) -> F64:
        """Fractional slice at a stage lift: linear between slices and, with the mean step, beyond the stack."""
        stage = self._stage_um(view_row, view_col)
        n_z = len(stage)
        # the lift as one that rises with k
        sign = 1.0 if stage[-1] > stage[0] else -1.0
        rising, wanted = sign * stage, sign * lift
        step = (rising[-1] - rising[0]) / (n_z - 1)
        inside = np.interp(wanted, rising, np.arange(n_z, dtype=np.float64))
        below, above = np.minimum(wanted - rising[0], 0.0) / step, np.maximum(wanted - rising[-1], 0.0) / step
        return np.asarray(inside + below + above, dtype=np.float64)


def on_pixels(field: Callable[[Window], F32], flow: F64) -> F64:
    """Bilinear values (R, C) of a field of the mosaic, a function of a window, at points `flow` (R, C, 2)."""
    low = np.floor(flow.min(axis=(0, 1))).astype(int)
    high = np.ceil(flow.max(axis=(0, 1))).astype(int) + 2
    window = Window(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))
    return bilinear(field(window), window, flow[..., 0], flow[..., 1])
