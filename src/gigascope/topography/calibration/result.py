"""What a calibration says of an instrument, and whether it is a calibration of this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.topography.calibration import illumination as light
from gigascope.topography.calibration.field import N_TERMS, whole_field
from gigascope.topography.calibration.flat_focus import slice_at
from gigascope.topography.calibration.layout import Layout, layout
from gigascope.topography.geometry.candidates import fit_mosaic
from gigascope.topography.geometry.poses import Poses, from_columns, metric_distance, same_scene, select, to_columns

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
# Relative difference of optical numbers that are the same.
SAME = 1e-3
# Residual vectors that are kept for the report's picture.
MOST_ARROWS = 20_000


@dataclass(frozen=True)
class InstrumentId:
    """What tells one instrument, and the way it scans, from another.

    Attributes
    ----------
    camera_rows, camera_cols : ids of the camera rows and columns, in the order of the views
    scan : (n_scan_y, n_scan_x) stage positions
    size : (R, C) pixels of a view
    sensor_pitch_um, f_eff_mm, magnification : of the reference view; None where unknown
    ref_view : number of the view that the magnification is of
    stage_sign : +1 where a larger stage position brings the sample nearer
    """

    camera_rows: tuple[int, ...]
    camera_cols: tuple[int, ...]
    scan: tuple[int, int]
    size: tuple[int, int]
    sensor_pitch_um: float | None = None
    f_eff_mm: float | None = None
    magnification: float | None = None
    ref_view: int = 0
    stage_sign: int = 1

    @property
    def cameras(self) -> tuple[int, int]:
        """(rows, columns) of cameras."""
        return len(self.camera_rows), len(self.camera_cols)

    @property
    def view_shape(self) -> tuple[int, int]:
        """(view_rows, view_cols)."""
        return self.cameras[0] * self.scan[0], self.cameras[1] * self.scan[1]

    @property
    def n_views(self) -> int:
        """V."""
        return self.view_shape[0] * self.view_shape[1]

    def name(self, view: int) -> str:
        """(view_row, view_col) of a view, as messages have it."""
        return str(divmod(view, self.view_shape[1]))

    @property
    def pixel_mm(self) -> float | None:
        """Pixel of the reference view on the sample; None where unknown."""
        if self.sensor_pitch_um is None or self.magnification is None:
            return None
        return self.sensor_pitch_um / self.magnification / 1000.0

    @property
    def distance_mm(self) -> float | None:
        """f (1 + 1 / M), from the pupil to the plane in focus; None where unknown."""
        if self.f_eff_mm is None or self.magnification is None:
            return None
        return self.f_eff_mm * (1.0 + 1.0 / self.magnification)

    @property
    def focal(self) -> float:
        """Image distance in units of the larger side of a view that makes angles true; 1 where optics are unknown."""
        if self.distance_mm is None or self.pixel_mm is None:
            return 1.0
        return self.distance_mm / (self.pixel_mm * max(self.size))

    def layout(self, camera_mask: ArrayLike | None = None) -> Layout:
        """Which view belongs to which camera and stage position; cameras numbered row by row."""
        return layout(self.cameras, self.scan, None if camera_mask is None else np.asarray(camera_mask, np.bool_))


@dataclass(frozen=True, eq=False)
class Quiver:
    """Residuals of tie points as arrows on the mosaic.

    Attributes
    ----------
    view : (Q, 2) int64, pair of views
    at : (Q, 2) float64, mosaic (row, col)
    residual : (Q, 2) float64, mosaic pixels
    """

    view: I64 = field(default_factory=lambda: np.empty((0, 2), np.int64))
    at: F64 = field(default_factory=lambda: np.empty((0, 2)))
    residual: F64 = field(default_factory=lambda: np.empty((0, 2)))


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated instrument.

    Attributes
    ----------
    instrument : which one
    poses : of V views, gauge fixed; offset such that the covered mosaic starts at (0, 0)
    mosaic_shape : (rows, cols) that the views cover
    present : (V,) bool, views that are there; the poses of others mean nothing
    focus_plane : (V, 6) float64, mm: stage position at which height 0 is in focus over the field,
        q0 + q1 x + q2 y + q3 x^2 + q4 x y + q5 y^2; NaN where unknown
    illumination : (cameras, 6) float64, see :class:`gigascope.topography.calibration.illumination.Illumination`
    gain : (cameras,) float64
    statistics : of the tie points' residuals, focus and illumination, numbers with units in their names
    quiver : residuals of some tie points
    source : where it is from: "flat target" or "known poses"
    """

    instrument: InstrumentId
    poses: Poses
    mosaic_shape: tuple[int, int]
    present: NDArray[np.bool_]
    focus_plane: F64
    illumination: F64
    gain: F64
    statistics: Mapping[str, float] = field(default_factory=dict)
    quiver: Quiver = field(default_factory=Quiver)
    source: str = "flat target"

    def __post_init__(self) -> None:
        n, cameras = self.instrument.n_views, self.instrument.cameras
        shapes = {
            "present": (n,),
            "focus_plane": (n, N_TERMS),
            "illumination": (cameras[0] * cameras[1], N_TERMS),
            "gain": (cameras[0] * cameras[1],),
        }
        if self.poses.n_views != n or self.poses.size != self.instrument.size:
            raise ShapeError(
                f"calibration: expected {n} poses of views of {self.instrument.size}, got {self.poses.n_views} of "
                f"{self.poses.size}"
            )
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ShapeError(f"calibration: {name}: expected {shape}, got {getattr(self, name).shape}")

    @property
    def camera(self) -> I64:
        """(V,) camera of every view, row by row over the array."""
        return self.instrument.layout().camera

    def focus_mm(self, view: int, rows: slice = slice(None), cols: slice = slice(None)) -> F64:
        """(rows, cols) stage position, mm, at which height 0 is in focus at the pixels of a view."""
        return whole_field(self.focus_plane[view], self.instrument.size, rows, cols)

    def nominal_slices(self, view: int, z_mm: ArrayLike, rows: slice = slice(None)) -> F64:
        """(rows, C) fractional slice of a stack with stage positions `z_mm` (n_z,) at which height 0 is in focus."""
        return slice_at(self.focus_mm(view, rows), z_mm)

    def height_mm(
        self, view: int, index: ArrayLike, z_mm: ArrayLike, rows: slice = slice(None), cols: slice = slice(None)
    ) -> F64:
        """(rows, cols) heights toward the cameras of fractional slices `index` there: s (Z_flat - Z_sample(index))."""
        z = np.asarray(z_mm, dtype=np.float64)
        sample = np.interp(np.asarray(index, dtype=np.float64), np.arange(len(z)), z)
        return np.asarray(self.instrument.stage_sign * (self.focus_mm(view, rows, cols) - sample))

    def correction(self, view: ArrayLike, rc: ArrayLike) -> F64:
        """(...) factors of the light at pixels (..., 2) of views (...)."""
        return light.correction(self.illumination, self.gain, self.camera[np.asarray(view)], rc, self.instrument.size)

    def correction_field(self, view: int) -> F64:
        """(R, C) factors of the light at every pixel of a view."""
        return light.correction_field(self.illumination, self.gain, int(self.camera[view]), self.instrument.size)

    def distances_mm(self) -> F64 | None:
        """(V,) from each pupil to the plane, mm; None where the optics are unknown."""
        f, m = self.instrument.f_eff_mm, self.instrument.magnification
        return None if f is None or m is None else metric_distance(self.poses, f, m, self.instrument.ref_view)


def place(poses: Poses, present: NDArray[np.bool_]) -> tuple[Poses, tuple[int, int]]:
    """Poses with an offset that puts the views that are there at (0, 0), and the shape of the mosaic."""
    seen = np.flatnonzero(present)
    fitted, shape = fit_mosaic(select(replace(poses, offset=np.zeros(2)), seen))
    return replace(poses, offset=fitted.offset), shape


def from_known_poses(
    poses: Poses,
    instrument: InstrumentId,
    *,
    focus_plane: ArrayLike | None = None,
    illumination: ArrayLike | None = None,
    gain: ArrayLike | None = None,
    present: ArrayLike | None = None,
) -> Calibration:
    """A calibration out of poses that are known already.

    Parameters
    ----------
    poses : in any gauge; maps are kept up to one similarity of the mosaic
    instrument : the one they are of
    focus_plane : (V, 6) mm; (V,) one stage position per view; none: unknown, heights are then relative
    illumination, gain : (cameras, 6), (cameras,); none: even light
    present : (V,) bool; none: all views

    Raises
    ------
    UserError : poses of another number or size of views
    """
    if poses.n_views != instrument.n_views or poses.size != instrument.size:
        raise UserError(
            f"poses of {poses.n_views} views of {_pixels(poses.size)} were given; the instrument has "
            f"{instrument.n_views} views of {_pixels(instrument.size)}.",
            do="Give the poses of these cameras and stage positions, one for each view.",
        )
    there = np.ones(poses.n_views, np.bool_) if present is None else np.asarray(present, np.bool_).ravel()
    moved, shape = place(same_scene(poses)[0], there)
    n_cameras = instrument.cameras[0] * instrument.cameras[1]
    planes = np.full((poses.n_views, N_TERMS), np.nan)
    if focus_plane is not None:
        given = np.asarray(focus_plane, dtype=np.float64)
        if given.ndim == 1:
            planes[:, 0], planes[:, 1:] = given, 0.0
        else:
            planes = given
    return Calibration(
        instrument,
        moved,
        shape,
        there,
        planes,
        np.zeros((n_cameras, N_TERMS)) if illumination is None else np.asarray(illumination, dtype=np.float64),
        np.ones(n_cameras) if gain is None else np.asarray(gain, dtype=np.float64),
        source="known poses",
    )


def for_instrument(calibration: Calibration, found: InstrumentId) -> Calibration:
    """The calibration of the cameras of an acquisition.

    Parameters
    ----------
    found : instrument of the acquisition; it may have fewer rows or columns of cameras than were calibrated

    Returns
    -------
    Calibration : of these cameras only; the same object where all are there

    Raises
    ------
    UserError : the calibration is of another instrument: cameras that were not calibrated, another raster, view size,
        optics or sense of the stage
    """
    known = calibration.instrument
    if wrong := _differences(known, found):
        raise UserError(
            f"the calibration is of another instrument: {'; '.join(wrong)}.",
            do="Calibrate this instrument on a flat target with the same cameras, stage positions and crop, or give "
            "the calibration that belongs to it.",
        )
    if (known.camera_rows, known.camera_cols) == (found.camera_rows, found.camera_cols):
        return calibration
    rows = [known.camera_rows.index(r) for r in found.camera_rows]
    cols = [known.camera_cols.index(c) for c in found.camera_cols]
    camera = (np.array(rows)[:, None] * len(known.camera_cols) + cols).ravel()
    grid = np.arange(known.n_views).reshape(known.view_shape)
    view_rows = np.concatenate([np.arange(known.scan[0]) + r * known.scan[0] for r in rows])
    view_cols = np.concatenate([np.arange(known.scan[1]) + c * known.scan[1] for c in cols])
    view = grid[view_rows[:, None], view_cols].ravel()
    present = calibration.present[view]
    poses, shape = place(same_scene(select(calibration.poses, view))[0], present)
    return Calibration(
        found,
        poses,
        shape,
        present,
        calibration.focus_plane[view],
        calibration.illumination[camera],
        calibration.gain[camera],
        calibration.statistics,
        source=calibration.source,
    )


def to_tables(calibration: Calibration) -> tuple[dict[str, NDArray], dict[str, NDArray], dict[str, Any]]:
    """Columns with one row per view, columns with one row per camera, and the rest as JSON values."""
    views, shared = to_columns(calibration.poses)
    views["present"] = calibration.present
    views |= {f"focus_q{k}_mm": calibration.focus_plane[:, k] for k in range(N_TERMS)}
    cameras = {"camera": np.arange(len(calibration.gain)), "gain": calibration.gain}
    cameras |= {f"a{k}": calibration.illumination[:, k] for k in range(N_TERMS)}
    identity = {f.name: _plain(getattr(calibration.instrument, f.name)) for f in fields(InstrumentId)}
    return (
        views,
        cameras,
        {
            "instrument": identity,
            "poses": shared,
            "mosaic_shape": list(calibration.mosaic_shape),
            "statistics": dict(calibration.statistics),
            "source": calibration.source,
        },
    )


def from_tables(
    views: Mapping[str, ArrayLike], cameras: Mapping[str, ArrayLike], shared: Mapping[str, Any]
) -> Calibration:
    """Calibration from what :func:`to_tables` gave; the arrows of the report are not kept in tables.

    Raises
    ------
    ShapeError : columns are missing, or poses whose gauge is not fixed
    """
    poses = from_columns(views, shared["poses"])
    if missing := [n for n in ("present", *(f"focus_q{k}_mm" for k in range(N_TERMS))) if n not in views]:
        raise ShapeError(f"calibration: column {missing[0]} is missing")
    identity: dict[str, Any] = {
        name: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in shared["instrument"].items()
    }
    return Calibration(
        InstrumentId(**identity),
        poses,
        (int(shared["mosaic_shape"][0]), int(shared["mosaic_shape"][1])),
        np.asarray(views["present"], dtype=np.bool_),
        np.stack([np.asarray(views[f"focus_q{k}_mm"], dtype=np.float64) for k in range(N_TERMS)], axis=1),
        np.stack([np.asarray(cameras[f"a{k}"], dtype=np.float64) for k in range(N_TERMS)], axis=1),
        np.asarray(cameras["gain"], dtype=np.float64),
        dict(shared["statistics"]),
        source=str(shared["source"]),
    )


def _differences(known: InstrumentId, found: InstrumentId) -> list[str]:
    """What of an acquisition cannot be of the calibrated instrument, in words."""
    wrong = []
    for axis, have, want in (
        ("rows", known.camera_rows, found.camera_rows),
        ("columns", known.camera_cols, found.camera_cols),
    ):
        if strange := sorted(set(want) - set(have)):
            wrong.append(f"camera {axis} {strange} were not calibrated ({list(have)} were)")
    if known.scan != found.scan:
        wrong.append(
            f"{known.scan[0]} x {known.scan[1]} stage positions calibrated, {found.scan[0]} x {found.scan[1]} taken"
        )
    if known.size != found.size:
        wrong.append(f"views of {_pixels(known.size)} calibrated, of {_pixels(found.size)} taken")
    for name, unit in (("sensor_pitch_um", " um"), ("f_eff_mm", " mm"), ("magnification", "")):
        have_it, want_it = getattr(known, name), getattr(found, name)
        if have_it is not None and want_it is not None and abs(have_it - want_it) > SAME * abs(have_it):
            wrong.append(f"{name} {have_it:g}{unit} calibrated, {want_it:g}{unit} taken")
    if known.stage_sign != found.stage_sign:
        wrong.append("the stage moves the other way with its coordinate")
    return wrong


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"


def _plain(value: Any) -> Any:
    return [int(v) for v in value] if isinstance(value, tuple) else value
