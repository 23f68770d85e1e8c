"""The synthetic instrument: any view of a preset, alone and in any order, with the same bytes every time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.topography.instrument.cameras import Deviations, Optics, Rig, build_rig
from gigascope.topography.instrument.heights import Component, Wedge, Window
from gigascope.topography.instrument.noise import key
from gigascope.topography.instrument.presets import Preset, preset, scene
from gigascope.topography.instrument.render import Renderer, render_fast, render_reference
from gigascope.topography.instrument.sensor import Sensor
from gigascope.topography.instrument.truth import Truth
from gigascope.topography.instrument.world import Albedo, World

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

RENDERERS: dict[str, Renderer] = {"fast": render_fast, "reference": render_reference}
# Pixels along each side of what is rendered at once: bounds the memory of a view of 3072 pixels.
BLOCK = 768
# Stage position in the middle of the specimen's stack, mm.
STAGE_MIDDLE_MM = 12.0


@dataclass(frozen=True)
class FlatTarget:
    """The target that an instrument is calibrated on: a print of grey noise at height 0, seen with the same poses.

    Attributes
    ----------
    dz_um : its own step between slices
    n_z : slices
    wedge_deg : angle at which the target is mounted, rising along the columns about the mosaic's middle
    """

    dz_um: float = 30.0
    n_z: int = 9
    wedge_deg: float = 0.0


@dataclass(frozen=True)
class Acquisition:
    """One acquisition of an instrument: z-stacks of all views, simulated when they are read (a `Capture`).

    Attributes
    ----------
    truth : specimen or target, views and stage
    renderer : "fast" or "reference"
    seed, purpose : of the noise; the purpose tells two acquisitions apart
    stage_up : the specimen comes nearer with increasing slice number
    signs : (y, x), see :func:`cameras.build_rig`
    camera_mask : (camera rows, camera columns) bool, cameras that are there
    """

    truth: Truth
    sensor: Sensor
    renderer: str
    seed: int
    purpose: str
    stage_up: bool
    signs: tuple[int, int]
    camera_mask: NDArray[np.bool_]

    @property
    def preset(self) -> Preset:
        """Size of the instrument."""
        return self.truth.rig.preset

    @property
    def n_z(self) -> int:
        """Slices per stack."""
        return self.truth.rig.stage_lift_um.shape[1]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(view_rows, view_cols, n_z, R, C)."""
        return (*self.preset.views, self.n_z, self.preset.size, self.preset.size)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """uint8."""
        return np.dtype(np.uint8)

    @property
    def pattern(self) -> str | None:
        """Colours of the top-left 2 x 2 pixels by rows, or None without a colour mosaic."""
        return self.sensor.pattern

    @property
    def colours(self) -> int:
        """Values per pixel, 1 with a colour mosaic."""
        return self.sensor.n_channels

    @property
    def dz_mm(self) -> float:
        """Commanded step between slices, mm, > 0."""
        return self.truth.rig.optics.dz_um / 1000.0

    @property
    def z_stage_mm(self) -> F64:
        """(view_rows, view_cols, n_z) float64, stage coordinate, rising with k; all cameras of a shot share it."""
        rig, sign = self.truth.rig, self.stage_sign
        by_scan = STAGE_MIDDLE_MM + sign * rig.stage_lift_um / 1000.0
        stacks = by_scan.reshape(*rig.preset.scan, self.n_z)
        return np.tile(stacks, (*rig.preset.cameras, 1))

    @property
    def stage_sign(self) -> int:
        """+1 where a rising stage coordinate brings the specimen nearer; height = sign (Z_flat - Z_sample)."""
        return 1 if self.stage_up else -1

    def z_flat_mm(self, view_row: int, view_col: int) -> F64:
        """(R, C) float64, stage coordinate at which height 0 is in focus: what a calibration looks for."""
        return STAGE_MIDDLE_MM + self.stage_sign * self.truth.rig.focus(view_row, view_col)[1] / 1000.0

    def attributes(self) -> dict[str, object]:
        """What a raw store says of the acquisition, as JSON values with units in their names."""
        rig = self.truth.rig
        optics, size = rig.optics, rig.preset.size
        steps = np.abs(np.diff(rig.stage_xy_mm[..., 0], axis=1)), np.abs(np.diff(rig.stage_xy_mm[..., 1], axis=0))
        return {
            "dz_mm": self.dz_mm,
            "stage_up": self.stage_up,
            "bayer": self.pattern,
            "sensor_pitch_um": optics.sensor_pitch_um,
            "f_eff_mm": optics.focal_length_mm(size),
            "m_ref": optics.magnification,
            "ref_view": 0,
            "scan": list(rig.preset.scan),
            "scan_step_x_mm": float(steps[0].mean()) if steps[0].size else 0.0,
            "scan_step_y_mm": float(steps[1].mean()) if steps[1].size else 0.0,
            "sign_y": self.signs[0],
            "sign_x": self.signs[1],
            "camera_mask": self.camera_mask.tolist(),
        }

    def read(self, view_row: int, view_col: int) -> U8:
        """Simulate one z-stack.

        Returns
        -------
        (n_z, R, C) uint8, with 3 colours and no mosaic (n_z, R, C, 3)

        Raises
        ------
        UserError : there is no such view, or its camera is missing
        """
        rows, cols = self.preset.views
        if not (0 <= view_row < rows and 0 <= view_col < cols):
            raise UserError(f"no view ({view_row}, {view_col}), there are {rows} x {cols}")
        camera = self.truth.rig.camera(view_row, view_col)
        if not self.camera_mask[camera]:
            raise UserError(f"view ({view_row}, {view_col}) belongs to camera {camera}, which is missing")
        size = self.preset.size
        out = np.empty((self.colours, self.n_z, size, size), np.uint8)
        for block in self._blocks():
            box = (slice(block.row, block.row + block.rows), slice(block.col, block.col + block.cols))
            rays = self.truth.rays(view_row, view_col, block)
            shade = self.sensor.shading(size, camera, self.seed, block)
            for channel, seen in enumerate(self.sensor.seen(block)):
                radiance = RENDERERS[self.renderer](self.truth.world, rays, seen)
                purpose = (self.purpose, view_row, view_col, channel)
                out[(channel, slice(None), *box)] = self.sensor.expose(radiance, shade, self.seed, purpose, block)
        return out[0] if self.colours == 1 else np.ascontiguousarray(np.moveaxis(out, 0, -1))

    def _blocks(self) -> Iterator[Window]:
        """Blocks of a view; the ray tracer's diffraction reaches over borders, so it has one."""
        size = self.preset.size
        side = size if self.renderer == "reference" else BLOCK
        for row in range(0, size, side):
            for col in range(0, size, side):
                yield Window(row, col, min(side, size - row), min(side, size - col))


@dataclass(frozen=True)
class Instrument:
    """A multi-camera microscope over a stage, a specimen below it, and the flat target of its calibration.

    Parameters
    ----------
    preset : name, or a size of one's own
    seed : of the mounting, the specimen, the target and the noise, each with its own numbers
    specimen : name of a scene of :mod:`presets`, or a world
    optics, deviations, sensor, flat_target : see there
    stage_up : the stage rises from slice to slice; down, it visits the same positions in reverse
    signs : (y, x) of the raster: +1 where the field moves over the specimen with the stage coordinate; x is mirrored
    renderer : "fast" or "reference"
    missing : cameras (row, column) that are not there

    Raises
    ------
    UserError : an unknown preset, scene or renderer, a specimen higher than the stack covers, an overlap out of range
    """

    preset: Preset | str = "XS"
    seed: int = 0
    specimen: World | str = "relief"
    optics: Optics = field(default_factory=Optics)
    deviations: Deviations = field(default_factory=Deviations)
    sensor: Sensor = field(default_factory=Sensor)
    flat_target: FlatTarget = field(default_factory=FlatTarget)
    stage_up: bool = True
    signs: tuple[int, int] = (1, -1)
    renderer: str = "fast"
    missing: tuple[tuple[int, int], ...] = ()
    capture: Acquisition = field(init=False, repr=False)
    flat_capture: Acquisition = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.renderer not in RENDERERS:
            raise UserError(f"no renderer {self.renderer!r}, expected one of {', '.join(RENDERERS)}")
        if not 0.0 <= self.optics.overlap < 1.0:
            raise UserError(f"overlap is {self.optics.overlap}, expected 0 to less than 1")
        size = self.size
        rig = build_rig(size, self.seed, self.optics, self.deviations, stage_up=self.stage_up, signs=self.signs)
        mask = np.ones(size.cameras, np.bool_)
        for camera in self.missing:
            if not all(0 <= n < have for n, have in zip(camera, size.cameras)):
                raise UserError(f"camera {camera} cannot be missing, there are {size.cameras[0]} x {size.cameras[1]}")
            mask[camera] = False
        specimen = self._specimen(rig)
        shared = (self.sensor, self.renderer, self.seed)
        facts = (self.stage_up, self.signs, mask)
        object.__setattr__(self, "capture", Acquisition(Truth(specimen, rig), *shared, "specimen", *facts))
        target = Truth(self._target(rig), self._target_rig(rig))
        object.__setattr__(self, "flat_capture", Acquisition(target, *shared, "target", *facts))

    @property
    def size(self) -> Preset:
        """The preset itself."""
        return preset(self.preset) if isinstance(self.preset, str) else self.preset

    @property
    def truth(self) -> Truth:
        """Truth of the specimen's acquisition; that of the target is ``flat_capture.truth``."""
        return self.capture.truth

    def simulate(self, view_row: int, view_col: int) -> U8:
        """(n_z, R, C) uint8 stack of the specimen, see :meth:`Acquisition.read`."""
        return self.capture.read(view_row, view_col)

    def flat(self, view_row: int, view_col: int) -> U8:
        """(n_z, R, C) uint8 stack of the flat target, see :meth:`Acquisition.read`."""
        return self.flat_capture.read(view_row, view_col)

    def _specimen(self, rig: Rig) -> World:
        size, dz = self.size, self.optics.dz_um
        if isinstance(self.specimen, World):
            found = self.specimen
        else:
            found = scene(
                self.specimen, size, rig.mosaic_shape, seed=self.seed, dz_um=dz, pixel_um=self.optics.pixel_um
            )
        low, high = found.range_um
        stack = (size.n_z - 1) * dz
        if high - low > stack:
            raise UserError(
                f"the specimen is {high - low:.0f} um high, the stack of {size.n_z} slices {stack:.0f} um",
                do="Make it lower, or take more slices or a larger step.",
            )
        return found

    def _target(self, rig: Rig) -> World:
        rows, cols = rig.mosaic_shape
        slope = math.tan(math.radians(self.flat_target.wedge_deg)) * self.optics.pixel_um
        wedge = Wedge(slope, (rows / 2, cols / 2), cols / 2 + self.size.size)
        components: tuple[Component, ...] = (wedge,) if slope else ()
        return World(components, Albedo(key(self.seed, "target"), correlation=1.0))

    def _target_rig(self, rig: Rig) -> Rig:
        """The same views with the target's own stack; the stage returns to its positions up to its error in z."""
        size = replace(self.size, n_z=self.flat_target.n_z)
        optics = replace(self.optics, dz_um=self.flat_target.dz_um)
        return build_rig(
            size, self.seed, optics, self.deviations, stage_up=self.stage_up, signs=self.signs, visit="target"
        )
