"""Views as a perfect inference would leave them, of the synthetic instrument, with noise; their stores too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.plan import ShardPlan
from gigascope.topography.calibration.compare import field_points, fit_similarity
from gigascope.topography.calibration.field import terms
from gigascope.topography.calibration.result import Calibration, InstrumentId, from_known_poses
from gigascope.topography.calibration.stored import write_calibration
from gigascope.topography.geometry.candidates import Candidates, find_candidates
from gigascope.topography.geometry.poses import to_mosaic
from gigascope.topography.instrument.heights import Window
from gigascope.topography.instrument.instrument import Instrument
from gigascope.topography.mosaic.views import Views

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MadeViews:
    """Views of an instrument, and what is true.

    Attributes
    ----------
    instrument : with its truth
    calibration, candidates : from the true poses and surfaces of focus
    index, confidence : (view_row, view_col, R, C) float32
    aif : (view_row, view_col, R, C, 3) uint8
    clean : (view_row, view_col, R, C, 3) float32, the same without noise and rounding
    """

    instrument: Instrument
    calibration: Calibration
    candidates: Candidates
    index: F32
    confidence: F32
    aif: NDArray[np.uint8]
    clean: F32

    @property
    def z_mm(self) -> NDArray[np.float64]:
        """(V, n_z) stage positions."""
        return self.instrument.capture.z_stage_mm.reshape(self.calibration.instrument.n_views, -1)

    def views(self, **more: Any) -> Views:
        """As the mosaic reads them."""
        return Views(
            self.index,
            self.confidence,
            self.aif,
            more.pop("calibration", self.calibration),
            more.pop("candidates", self.candidates),
            self.z_mm,
            more.pop("present", self.calibration.present),
            **more,
        )

    @cached_property
    def similarity(self) -> NDArray[np.float64]:
        """(2, 3) from (row, col) of the mosaic to the grid of the truth."""
        points = field_points(self.calibration.poses.size)
        view = np.arange(self.calibration.instrument.n_views)[:, None]
        found, true = (
            to_mosaic(p, view, points[None]).reshape(-1, 2)
            for p in (self.calibration.poses, self.instrument.truth.poses)
        )
        return fit_similarity(found, true)

    @cached_property
    def truth(self) -> dict[str, F32]:
        """Heights (um), colours (3, ..., of 255), texture and coverage on the grid of the mosaic.

        Only for a mosaic that is a shift of the truth's by whole pixels, as it is with true poses.
        """
        shift = np.rint(self.similarity[:, 2]).astype(int)
        np.testing.assert_allclose(self.similarity, np.column_stack((np.eye(2), shift)), atol=1e-6)
        window = Window(int(shift[0]), int(shift[1]), *self.candidates.shape)
        truth = self.instrument.truth
        return {
            "height": truth.height_um(window),
            "colour": truth.albedo(window, truth.rig.optics.diffraction_px) * self.instrument.sensor.white,
            "texture": truth.texture(window),
            "coverage": truth.coverage(window).astype(np.float32),
        }

    def write(self, folder: Path, *, chunk: int = 64, missing: tuple[int, ...] = ()) -> dict[str, Path]:
        """Stores `raw` (without pixels), `calibration` and `views`; views that are missing are not in the stacks."""
        grid, n_z = self.calibration.instrument.view_shape, self.z_mm.shape[1]
        present = ~np.isin(np.arange(grid[0] * grid[1]), missing)
        raw = create_store(folder / "raw.zarr")
        for name, values in (("z_stage_mm", self.z_mm.reshape(*grid, n_z)), ("view_mask", present.reshape(grid))):
            kept = np.asarray(values, np.uint8 if name == "view_mask" else np.float64)
            raw.create_member(name, ShardPlan(kept.shape, kept.itemsize, kept.shape, kept.shape), kept.dtype)[...] = (
                kept
            )
        raw.write_table("views", {"highest": np.full(present.size, float(self.aif.max()))})
        raw.attrs |= {**self.instrument.capture.attributes(), "dz_known": True, "flat": None}
        finish(raw, {})
        calibration = create_store(folder / "calibration.zarr")
        write_calibration(calibration, self.calibration, self.candidates)
        finish(calibration, {})
        views = create_store(folder / "views.zarr")
        for name in ("index", "confidence", "aif"):
            values = np.array(getattr(self, name))
            if values.dtype == np.float32:
                values[~present.reshape(grid)] = np.nan if name == "index" else 0
            more = values.shape[4:]
            side = -(-values.shape[2] // chunk) * chunk
            plan = ShardPlan(values.shape, values.itemsize, (1, 1, chunk, chunk, *more), (1, 1, side, side, *more))
            views.create_member(name, plan, values.dtype)[...] = values
        finish(views, {})
        return {name: folder / f"{name}.zarr" for name in ("raw", "calibration", "views")}


def made_views(
    rng: np.random.Generator,
    preset: str = "XS",
    *,
    specimen: str = "relief",
    noise_dz: float = 0.1,
    snr: float = 55.0,
    bias_dz: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> MadeViews:
    """Views with the true index, noise of `noise_dz` slices that is smooth over a few pixels, and light to correct.

    Parameters
    ----------
    bias_dz : (V, 3) error of the index of each view, slices: 1, x, y
    """
    instrument = Instrument(preset, seed, specimen)
    calibration, candidates = calibration_of(instrument)
    rows, cols = instrument.size.views
    size = (instrument.size.size,) * 2
    index, clean = np.empty((rows, cols, *size), np.float32), np.empty((rows, cols, *size, 3), np.float32)
    aif = np.empty((rows, cols, *size, 3), np.uint8)
    truth, white = instrument.truth, instrument.sensor.white
    polynomial = terms(np.stack(np.indices(size), axis=-1), size)[..., :3]
    for row, col in np.ndindex(rows, cols):
        exact = truth.index(row, col) + noise_dz * smooth_noise(rng, size)
        if bias_dz is not None:
            exact = exact + polynomial @ bias_dz[row * cols + col]
        index[row, col] = np.clip(exact, 0, instrument.size.n_z - 1)
        flow = truth.flow(row, col)
        shade = instrument.sensor.shading(size[0], truth.rig.camera(row, col), seed, Window(0, 0, *size))
        low = np.floor(flow.min(axis=(0, 1))).astype(int) - 8
        high = np.ceil(flow.max(axis=(0, 1))).astype(int) + 9
        albedo = truth.albedo(Window(*low, *(high - low)), truth.rig.optics.diffraction_px)
        for c in range(3):
            # splines: bilinear interpolation would blur the truth itself
            found = map_coordinates(albedo[c], np.moveaxis(flow - low, -1, 0), order=3)
            clean[row, col, ..., c] = found * white * shade
        seen = clean[row, col]
        noisy = seen + rng.normal(size=seen.shape) * np.sqrt(np.maximum(seen, 1) * 0.4 * white) / snr
        aif[row, col] = np.clip(np.rint(noisy), 0, 255)
    confidence = np.full(index.shape, 1 / (1 + (noise_dz / 0.25) ** 2), np.float32)
    return MadeViews(instrument, calibration, candidates, index, confidence, aif, clean)


def smooth_noise(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Noise of standard deviation 1 that is alike over some pixels, as that of a focus measure is."""
    noise = gaussian_filter(rng.normal(size=size), 3.0)
    return np.asarray(noise / noise.std())


def calibration_of(instrument: Instrument) -> tuple[Calibration, Candidates]:
    """What a perfect calibration finds: true poses, surfaces of focus and light."""
    capture, preset = instrument.capture, instrument.size
    facts = capture.attributes()
    known = InstrumentId(
        tuple(range(preset.cameras[0])),
        tuple(range(preset.cameras[1])),
        preset.scan,
        (preset.size, preset.size),
        instrument.optics.sensor_pitch_um,
        facts["f_eff_mm"],  # type: ignore[arg-type]
        instrument.optics.magnification,
        0,
        capture.stage_sign,
    )
    where = np.stack(np.meshgrid(*[np.linspace(0, preset.size - 1, 13)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    pixel = where.astype(int)
    columns = terms(pixel, (preset.size, preset.size))

    def fitted(field: NDArray) -> NDArray[np.float64]:
        return np.linalg.lstsq(columns, field[pixel[:, 0], pixel[:, 1]].astype(np.float64), rcond=None)[0]

    focus = [fitted(capture.z_flat_mm(row, col)) for row, col in np.ndindex(*preset.views)]
    window = Window(0, 0, preset.size, preset.size)
    light = np.array([
        fitted(1.0 / instrument.sensor.shading(preset.size, camera, instrument.seed, window))
        for camera in np.ndindex(*preset.cameras)
    ])  # fmt: skip
    # the order of the illumination's coefficients: x^2 and y^2 before x y
    illumination = (light / light[:, :1])[:, [0, 1, 2, 3, 5, 4]]
    illumination[:, 0] = 0.0
    found = from_known_poses(
        instrument.truth.poses, known, focus_plane=np.array(focus), illumination=illumination, gain=light[:, 0]
    )
    found = replace(found, source="flat target")
    return found, find_candidates(found.poses, found.mosaic_shape)
