"""The captures that a dataset names, opened: readers called with what the config says, or a simulated instrument."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigascope.errors import UserError
from gigascope.topography.capture.arranged import kept_sensor
from gigascope.topography.capture.z_order import ascending

if TYPE_CHECKING:
    from gigascope.config.topography import FlatTarget, Ingest, TopographyInputs
    from gigascope.store.open import StoreReader
    from gigascope.topography.capture.capture import FileCapture

# Of the published instrument: what captures in its layout do not say themselves (STARCAM, J. Big Data 11:62, 2024).
PUBLISHED = {"sensor_pitch_um": 1.1, "f_eff_mm": 25.05486, "m_ref": 0.8448, "camera_pitch_mm": 13.5}


@dataclass(frozen=True)
class Acquisition:
    """What a dataset is made from.

    Attributes
    ----------
    sample, flat : z-stacks in ascending order of stage positions; flat is None where there is no flat target
    sensor : ((first, last + 1) rows, columns) of the sensor that they show
    whole_sensor : (rows, columns) of the sensor
    stage_up : a larger stage position is nearer to the cameras
    optics : sensor_pitch_um, f_eff_mm, m_ref, ref_view, camera_pitch_mm; None where not known
    """

    sample: FileCapture
    flat: FileCapture | None
    sensor: tuple[tuple[int, int], tuple[int, int]]
    whole_sensor: tuple[int, int]
    stage_up: bool
    optics: dict[str, Any]


def open_acquisition(
    inputs: TopographyInputs, cfg: Ingest, sample: StoreReader | None = None, target: StoreReader | None = None
) -> Acquisition:
    """Open sample and flat target; no pixels are read.

    Parameters
    ----------
    sample, target : stores of the simulated instrument, where the dataset has one

    Raises
    ------
    UserError : files missing, damaged or not alike; a flat target of another instrument
    """
    from gigascope.topography.ingest import refuse_other_instrument

    opened = _open_simulated(sample, cfg) if sample is not None else _open(inputs, cfg, cfg.dz_mm)
    first = opened
    found, sensor = _arranged(opened, cfg)
    if not found.dz_known:
        found.warnings.append(
            "the z-step is not known: 1 mm was assumed, so that heights in millimetres count slices; set ingest.dz_mm."
        )
    flat = None
    if target is not None:
        flat = _arranged(_open_simulated(target, cfg), cfg)[0]
    elif inputs.flat.given:
        same = cfg.model_copy(update={"camera_rows": found.grid.camera_rows, "camera_cols": found.grid.camera_cols})
        flat = _arranged(_open(inputs.flat, same, inputs.flat.dz_mm), cfg)[0]
    if flat is not None:
        refuse_other_instrument(found, flat)
    stage_up = bool(first.facts.get("stage_up", cfg.stage_up))
    return Acquisition(found, flat, sensor, first.shape[3:], stage_up, _optics(inputs, cfg, first, found))


def _open(inputs: TopographyInputs | FlatTarget, cfg: Ingest, dz_mm: float | None) -> FileCapture:
    mirrored = (cfg.mirror_y, cfg.mirror_x)
    cameras: dict[str, Any] = {"camera_rows": cfg.camera_rows, "camera_cols": cfg.camera_cols, "mirrored": mirrored}
    if inputs.captures is not None:
        from gigascope.topography.capture.netcdf import open_captures

        names = (inputs.captures,) if isinstance(inputs.captures, str) else inputs.captures
        found = open_captures([Path(name) for name in names], pattern=cfg.bayer, missing=cfg.missing, **cameras)
        if found.pattern is None:
            note = "the files record no Bayer pattern: GBRG was taken, that of the published instrument"
            found = replace(found, pattern="GBRG", notes=[*found.notes, note])
        return _with_step(found, dz_mm)
    if inputs.stacks is not None:
        from gigascope.topography.capture.stacks import open_stacks

        more: dict[str, Any] = {"bayer": cfg.bayer, "dz_mm": dz_mm, "scan_step_mm": cfg.scan_step_mm}
        return open_stacks(inputs.stacks, missing=cfg.missing, **more, **cameras)
    from gigascope.topography.capture.images import open_images

    if inputs.images is None:
        raise ValueError("a simulated instrument has no files")
    return open_images(inputs.images, pattern=cfg.bayer, dz_mm=dz_mm, missing=cfg.missing)


def _with_step(capture: FileCapture, dz_mm: float | None) -> FileCapture:
    """Positions counted in steps given by hand, in place of those in the files."""
    if dz_mm is None:
        return capture
    import numpy as np

    z = capture.z_stage_mm
    down = capture.dz_known and z.shape[2] > 1 and float(np.median(np.diff(z, axis=2))) < 0
    counted = np.arange(z.shape[2], dtype=np.float64) * (-dz_mm if down else dz_mm)
    note = f"z-step of {dz_mm:g} mm from ingest.dz_mm, in place of the stage positions in the files"
    return replace(
        capture, z_stage_mm=np.broadcast_to(counted, z.shape).copy(), dz_known=True, notes=[*capture.notes, note]
    )


def _open_simulated(store: StoreReader, cfg: Ingest) -> FileCapture:
    """The simulated instrument says itself what the config would say of files."""
    from gigascope.topography.capture.stored import open_stored

    found = open_stored(store)
    if cfg.bayer is not None and cfg.bayer != found.pattern:
        found = replace(found, pattern=cfg.bayer)
    return _with_step(_only(found, cfg), cfg.dz_mm)


def _only(capture: FileCapture, cfg: Ingest) -> FileCapture:
    """The cameras that are kept."""
    import numpy as np

    from gigascope.topography.capture.grid import kept_ids

    whole = capture.grid
    rows, cols = (
        kept_ids(wanted, len(ids))
        for wanted, ids in ((cfg.camera_rows, whole.camera_rows), (cfg.camera_cols, whole.camera_cols))
    )
    for key, ids, there in (("camera_rows", rows, whole.camera_rows), ("camera_cols", cols, whole.camera_cols)):
        if beyond := [i for i in ids if i not in there]:
            what = f"the instrument has no {key[:-1].replace('_', ' ').replace('col', 'column')} {beyond[0]}."
            raise UserError(what, where=f"ingest.{key}", do=f"It has 0 to {len(there) - 1}.")
    grid = replace(whole, camera_rows=rows, camera_cols=cols)
    if grid == whole:
        return capture
    view_rows = np.concatenate([np.arange(whole.scan[0]) + whole.scan[0] * i for i in rows])
    view_cols = np.concatenate([np.arange(whole.scan[1]) + whole.scan[1] * i for i in cols])
    chosen = np.ix_(view_rows, view_cols)
    read, one_slice = capture.read, capture.one_slice
    return replace(
        capture,
        grid=grid,
        shape=(*grid.shape, *capture.shape[2:]),
        z_stage_mm=capture.z_stage_mm[chosen],
        present=capture.present[chosen],
        read_view=lambda row, col: read(int(view_rows[row]), int(view_cols[col])),
        read_slice=lambda row, col, z: one_slice(int(view_rows[row]), int(view_cols[col]), z),
    )


def _arranged(capture: FileCapture, cfg: Ingest) -> tuple[FileCapture, tuple[tuple[int, int], tuple[int, int]]]:
    return kept_sensor(ascending(capture, cfg.missing), cfg.crop)


def _optics(inputs: TopographyInputs, cfg: Ingest, opened: FileCapture, found: FileCapture) -> dict[str, Any]:
    """By hand, else as the source says, else as published for captures in that layout."""
    published = PUBLISHED if inputs.captures is not None else {}
    optics: dict[str, Any] = {}
    assumed = []
    for name in PUBLISHED:
        value = getattr(cfg, name)
        if value is None:
            value = opened.facts.get(name)
        if value is None and name in published:
            value = published[name]
            assumed.append(f"{name} {value:g}")
        optics[name] = value
    if assumed:
        found.notes.append(f"{', '.join(assumed)}: of the published instrument, since the files do not say")
    n_views = found.shape[0] * found.shape[1]
    if cfg.ref_view >= n_views:
        what = f"there are {n_views} views, counted from 0, and no view {cfg.ref_view}."
        raise UserError(what, where="ingest.ref_view", do="Correct it.")
    optics["ref_view"] = cfg.ref_view
    return optics
