"""Optics, mounting errors and scan of the synthetic instrument: poses of the views, focus over the field, stage z.

Every point of a view's focal surface projects to the mosaic by the view's pose, exactly: at its own in-focus slice a
surface point has no parallax. Off focus its chief ray runs through the pupil, above the foot of the pose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gigascope.topography.geometry.poses import Poses, foot, to_mosaic
from gigascope.topography.instrument.heights import Window
from gigascope.topography.instrument.noise import generator
from gigascope.topography.instrument.presets import FULL_SIZE, Preset

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Optics:
    """A camera and the steps of the stage, as built.

    Attributes
    ----------
    na : numerical aperture on the object's side
    diffraction_px : standard deviation of the blur in focus (NA 0.1, 550 nm)
    sensor_pitch_um, magnification : their quotient is the pixel on the object
    f_eff_mm : focal length of the instrument with 3072 pixels; smaller ones shrink it with their field
    dz_um : stage step between slices
    overlap : of neighbouring views, as a share of the field
    """

    na: float = 0.1
    diffraction_px: float = 0.9
    sensor_pitch_um: float = 1.1
    magnification: float = 0.8448
    f_eff_mm: float = 25.05486
    dz_um: float = 40.0
    overlap: float = 0.58

    @property
    def pixel_um(self) -> float:
        """Pixel on the object, um: also the mosaic's."""
        return self.sensor_pitch_um / self.magnification

    def focal_length_mm(self, size: int) -> float:
        """Effective focal length of an instrument with `size` pixels, mm."""
        return self.f_eff_mm * size / FULL_SIZE

    def object_distance_um(self, size: int) -> float:
        """Distance f (1 + 1/M) from pupil to focus, um. Field angle and pixels per slice are the same for all sizes."""
        return 1000.0 * self.focal_length_mm(size) * (1.0 + 1.0 / self.magnification)


@dataclass(frozen=True)
class Deviations:
    """How far mounting and stage are from the drawing; standard deviations unless said otherwise.

    Attributes
    ----------
    xy_um : of a view's centre, along each axis: a third of the variance each from camera, stage position and view
    angle_rad : roll, pitch and yaw of a camera; a stage position adds a twentieth of it to all cameras
    height_um : of a camera
    distortion : first radial coefficient, the same for all views
    curvature_um : sag of the focal surface at the corner of the field
    backlash_um : along x, the stage stops short in every other row of a serpentine scan
    stage_z_um : of each stage position in z; the stage reads it
    magnification : relative, of a camera
    """

    xy_um: float = 3.0
    angle_rad: float = 2e-3
    height_um: float = 10.0
    distortion: float = 3e-3
    curvature_um: float = 20.0
    backlash_um: float = 2.0
    stage_z_um: float = 1.0
    magnification: float = 0.0


NO_DEVIATIONS = Deviations(*(0.0,) * 8)


@dataclass(frozen=True)
class Rig:
    """The views of an instrument.

    Attributes
    ----------
    poses : true poses in the gauge of a calibration (mean angle and translation 0); the offset puts the first mosaic
        pixel at the corner of the covered area
    mosaic_shape : (rows, cols) of that area
    lift_um : (V,) stage lift at which the flat target is in focus on the axis
    stage_lift_um : (scan positions, n_z) lift of the specimen at each slice: position toward the cameras, 0 in the
        middle of the stack, falling with k when the stage moves down
    stage_xy_mm : (n_scan_y, n_scan_x, 2) commanded (x, y); x falls with scan_x where the raster is mirrored
    """

    preset: Preset
    optics: Optics
    deviations: Deviations
    poses: Poses
    mosaic_shape: tuple[int, int]
    lift_um: F64
    stage_lift_um: F64
    stage_xy_mm: F64

    def camera(self, view_row: int, view_col: int) -> tuple[int, int]:
        """(row, column) of the camera of a view."""
        return view_row // self.preset.scan[0], view_col // self.preset.scan[1]

    def scan(self, view_row: int, view_col: int) -> tuple[int, int]:
        """(scan_y, scan_x) of a view."""
        return view_row % self.preset.scan[0], view_col % self.preset.scan[1]

    def number(self, view_row: int, view_col: int) -> int:
        """Number of a view in `poses`."""
        return view_row * self.preset.views[1] + view_col

    def focus(self, view_row: int, view_col: int, block: Window | None = None) -> tuple[F64, F64]:
        """Where the pixels of a view are in focus.

        Parameters
        ----------
        block : pixels of the view; none: all

        Returns
        -------
        flow : (rows, cols, 2) float64, mosaic (row, col) of the point in focus, at whatever height it is
        lift : (rows, cols) float64, um, stage lift at which the plane of height 0 is in focus
        """
        size, view = self.preset.size, self.number(view_row, view_col)
        block = Window(0, 0, size, size) if block is None else block
        rows, cols = block.axes()
        pixels = np.stack(np.broadcast_arrays(rows, cols), axis=-1)
        flow = to_mosaic(self.poses, view, pixels)
        axis = self.poses.translation[view] + self.poses.offset + size / 2
        normal = self.poses.normal[view]
        tilt = ((flow[..., 1] - axis[1]) * normal[0] + (flow[..., 0] - axis[0]) * normal[1]) / abs(normal[2])
        corner = 2.0 * ((rows - size / 2) ** 2 + (cols - size / 2) ** 2) / size**2
        lift = self.lift_um[view] + tilt * self.optics.pixel_um + self.deviations.curvature_um * corner
        return flow, lift

    def foot(self, view_row: int, view_col: int) -> F64:
        """(row, col) of the mosaic below the pupil of a view."""
        return np.asarray(foot(self.poses)[self.number(view_row, view_col)], dtype=np.float64)


def build_rig(
    preset: Preset,
    seed: int,
    optics: Optics,
    deviations: Deviations,
    *,
    stage_up: bool = True,
    signs: tuple[int, int] = (1, -1),
    visit: str = "specimen",
    margin: int = 4,
) -> Rig:
    """Mount the cameras and scan the stage.

    Parameters
    ----------
    seed : of the deviations; every camera, stage position and view has its own numbers
    stage_up : the specimen comes nearer with increasing slice number; down, the same positions are visited in reverse
    signs : (y, x) +1 where the field moves over the specimen with the stage coordinate, -1 where against it
    visit : tells the z errors of two scans with the same stage apart
    margin : mosaic pixels around what the views cover
    """
    poses, lift = _mounted(preset, seed, optics, deviations)
    poses, shape = _placed(poses, preset, margin)
    k = np.arange(preset.n_z) - (preset.n_z - 1) / 2
    positions = [
        k * optics.dz_um + deviations.stage_z_um * generator(seed, "stage z", visit, number).standard_normal(preset.n_z)
        for number in range(preset.scan[0] * preset.scan[1])
    ]
    stage = np.array(positions) if stage_up else np.array(positions)[:, ::-1]
    return Rig(preset, optics, deviations, poses, shape, lift, stage, _raster(preset, optics, signs))


def step_px(preset: Preset, optics: Optics) -> float:
    """Lateral stage step in mosaic pixels; cameras stand n_scan steps apart."""
    return (1.0 - optics.overlap) * preset.size


def _raster(preset: Preset, optics: Optics, signs: tuple[int, int]) -> F64:
    """Commanded (x, y) of the stage per (scan_y, scan_x), mm, from 0 up."""
    step = step_px(preset, optics) * optics.pixel_um / 1000.0
    along = [np.arange(n) if sign > 0 else np.arange(n)[::-1] for n, sign in zip(preset.scan, signs)]
    y, x = np.meshgrid(along[0] * step, along[1] * step, indexing="ij")
    return np.stack([x, y], axis=-1)


def _mounted(preset: Preset, seed: int, optics: Optics, deviations: Deviations) -> tuple[Poses, F64]:
    """Poses with mean angle and translation 0, and lifts (V,) of focus on the axis, um."""
    rows, cols = preset.views
    share = deviations.xy_um / optics.pixel_um / math.sqrt(3.0)
    translation, angles = np.empty((rows, cols, 2)), np.empty((rows, cols, 3))
    lift, scale = np.empty((rows, cols)), np.empty((rows, cols))
    for row, col in np.ndindex(rows, cols):
        camera = (row // preset.scan[0], col // preset.scan[1])
        scan = (row % preset.scan[0], col % preset.scan[1])
        mount = generator(seed, "camera", *camera).standard_normal(7)
        stage = generator(seed, "stage", *scan).standard_normal(5)
        own = generator(seed, "view", row, col).standard_normal(2)
        translation[row, col] = share * (mount[:2] + stage[:2] + own) + np.array([row, col]) * step_px(preset, optics)
        translation[row, col, 1] += (scan[0] % 2) * deviations.backlash_um / optics.pixel_um
        angles[row, col] = deviations.angle_rad * (mount[2:5] + 0.05 * stage[2:])
        lift[row, col] = deviations.height_um * mount[5]
        scale[row, col] = 1.0 + deviations.magnification * mount[6]
    focal = optics.object_distance_um(preset.size) / (optics.pixel_um * preset.size)
    scale /= np.exp(np.log(scale).mean())
    flat = angles.reshape(-1, 3)
    poses = Poses(
        size=(preset.size, preset.size),
        focal=focal,
        height=focal * scale.ravel(),
        normal=np.concatenate([np.tan(flat[:, :2]), np.full((len(flat), 1), -1.0)], axis=1),
        angle=flat[:, 2] - flat[:, 2].mean(),
        translation=translation.reshape(-1, 2) - translation.reshape(-1, 2).mean(axis=0),
        distortion=np.array([deviations.distortion]),
        offset=np.zeros(2),
    )
    return poses, lift.ravel()


def _placed(poses: Poses, preset: Preset, margin: int) -> tuple[Poses, tuple[int, int]]:
    """Poses with the offset that puts the covered area at (margin, margin), and the shape with margins."""
    edge = np.linspace(0.0, preset.size - 1.0, 9)
    low, high = np.zeros_like(edge), np.full_like(edge, preset.size - 1.0)
    border = np.concatenate([np.stack(pair, axis=1) for pair in ((edge, low), (edge, high), (low, edge), (high, edge))])
    points = to_mosaic(poses, np.arange(poses.n_views)[:, None], border[None])
    first = np.floor(points.min(axis=(0, 1))) - margin
    extent = np.ceil(points.max(axis=(0, 1))) + margin + 1 - first
    return replace(poses, offset=-first), (int(extent[0]), int(extent[1]))
