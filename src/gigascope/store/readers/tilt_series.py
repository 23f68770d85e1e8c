"""Open a tilt series, whatever its format, with everything that stands beside it: angles, pixel size, tilt axis, dose.

Angles: given by hand > .tlt > .rawtlt > .mdoc > header > axis. Pixel size: given by hand > .mdoc > header. Tilt axis:
given by hand > .mdoc > title in the header. Angle sources that disagree are an error unless they are given by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.alignment import apply_alignment, read_alignment
from gigascope.store.readers.mdoc import Mdoc, read_mdoc
from gigascope.store.readers.series_images import open_images
from gigascope.store.readers.siblings import Siblings, stem_of
from gigascope.store.readers.source import TiltSeriesSource
from gigascope.store.readers.tilt_angles import (
    AngleList,
    AnglesByHand,
    angle_problems,
    angles_by_hand,
    choose_angles,
    read_tilt_angles,
)

MIN_VIEWS = 7


@dataclass(frozen=True)
class _ByHand:
    """What the config says itself."""

    angles: AnglesByHand | None
    pixel_size_nm: float | None
    tilt_axis_deg: float | None


def open_tilt_series(
    path: str | Path,
    *,
    angles: AnglesByHand | None = None,
    mdoc: str | Path | None = None,
    pixel_size_nm: float | None = None,
    tilt_axis_deg: float | None = None,
    y_up: bool | None = None,
    alignment: str | Path | None = None,
) -> TiltSeriesSource:
    """Open a tilt series that has all it needs: views, one angle each, a pixel size.

    Parameters
    ----------
    path : MRC, DM, TIFF, HDF5 or MATLAB file, folder, glob or table of TIFF files, or OME-Zarr store
    angles : degrees in stack order, or a text file of them, or first and last of an even series; None: look for them
    mdoc : SerialEM's .mdoc; None: look beside the series
    pixel_size_nm, tilt_axis_deg : override what the files say
    y_up : the first row is the bottom of the image; None: as the format does it
    alignment : made by another program; its angles and tilt axis come next after those given by hand

    Returns
    -------
    TiltSeriesSource : `tilt_deg` and `pixel_size_nm` are set; `tilt_axis_deg` may be None

    Raises
    ------
    UserError : anything the user has to put right, all that was found missing or impossible in one message
    """
    source = find_tilt_series(
        path,
        angles=angles,
        mdoc=mdoc,
        pixel_size_nm=pixel_size_nm,
        tilt_axis_deg=tilt_axis_deg,
        y_up=y_up,
        alignment=alignment,
    )
    problems = series_problems(source)
    if len(problems) == 1:
        what, do = problems[0]
        raise UserError(what, where=source.path, do=do)
    if problems:
        listed = "".join(f"\n  - {what} {do}" for what, do in problems)
        raise UserError(f"cannot be used yet, {len(problems)} things are wrong:{listed}", where=source.path)
    return source


def find_tilt_series(
    path: str | Path,
    *,
    angles: AnglesByHand | None = None,
    mdoc: str | Path | None = None,
    pixel_size_nm: float | None = None,
    tilt_axis_deg: float | None = None,
    y_up: bool | None = None,
    alignment: str | Path | None = None,
) -> TiltSeriesSource:
    """As :func:`open_tilt_series`, but what nothing states stays None, with the reason in `missing`.

    For looking at a file before its config is complete. Broken files and contradictions raise all the same.
    """
    path = Path(path)
    source, table_angles = open_images(path, y_up)
    by_hand = _ByHand(angles, pixel_size_nm, tilt_axis_deg)
    beside = Siblings.of(source.path)
    described = _find_mdoc(source, beside, None if mdoc is None else Path(mdoc), by_hand)
    _settle_angles(source, beside, described, table_angles, by_hand)
    _settle_pixel_size(source, described, by_hand)
    _settle_axis(source, described, by_hand)
    if described is not None:
        source.notes += described.notes
    if alignment is not None:
        file = read_alignment(alignment, source.n_views)
        by_hand_axis, by_hand_angles = tilt_axis_deg is not None, angles is not None
        apply_alignment(source, file, angles_by_hand=by_hand_angles, axis_by_hand=by_hand_axis)
    return source


def series_problems(source: TiltSeriesSource) -> list[tuple[str, str]]:
    """What keeps a series from being used, as (what, do)."""
    problems = []
    if source.n_views < MIN_VIEWS:
        problems.append(
            (
                f"it has {source.n_views} views, at least {MIN_VIEWS} are needed.",
                "Give the whole tilt series in inputs.tilt_series.",
            )
        )
    if source.tilt_deg is None:
        problems.append(
            (
                "no tilt angles were found" + _reason(source, "tilt_deg") + ".",
                f"Put {stem_of(source.path)}.tlt beside it (one angle per line), or set ingest.tilt_deg.",
            )
        )
    else:
        problems += angle_problems(source.tilt_deg, source.origin.get("tilt_deg", "the series"))
    if source.pixel_size_nm is None:
        problems.append(
            (
                "the pixel size is missing" + _reason(source, "pixel_size_nm") + ".",
                "Set ingest.pixel_size_nm in nanometres.",
            )
        )
    elif not (np.isfinite(source.pixel_size_nm) and source.pixel_size_nm > 0):
        problems.append(
            (
                f"the pixel size is {source.pixel_size_nm} nm.",
                "Set ingest.pixel_size_nm to a positive number of nanometres.",
            )
        )
    return problems


def _reason(source: TiltSeriesSource, name: str) -> str:
    return f": {source.missing[name]}" if name in source.missing else ""


def _find_mdoc(source: TiltSeriesSource, beside: Siblings, named: Path | None, by_hand: _ByHand) -> Mdoc | None:
    path = named or beside.mdoc
    if path is None:
        return None
    try:
        described = read_mdoc(path)
    except UserError as error:
        everything = None not in (by_hand.angles, by_hand.pixel_size_nm, by_hand.tilt_axis_deg)
        if named is None and everything:  # it is not needed, and nobody asked for it
            source.notes.append(f"{path.name} beside the series was left aside: {error.what}")
            return None
        raise
    source.files.append(path)
    if described.n_sections == source.n_views:
        if described.dose is not None:
            source.dose, source.origin["dose"] = described.dose, path.name
        if described.acquisition_order is not None:
            source.acquisition_order = described.acquisition_order
            source.origin["acquisition_order"] = f"DateTime in {path.name}"
    elif by_hand.angles is not None:
        described.tilt_deg = None
        source.notes.append(
            f"{path.name} has {described.n_sections} sections for {source.n_views} views: only pixel size and tilt "
            f"axis are taken from it"
        )
    else:
        raise UserError(
            f"has {source.n_views} images, {path.name} has {described.n_sections} sections.",
            where=source.path,
            do="Give the .mdoc of this stack in inputs.mdoc, or set ingest.tilt_deg.",
        )
    return described


def _settle_angles(
    source: TiltSeriesSource,
    beside: Siblings,
    described: Mdoc | None,
    table_angles: list[float] | None,
    by_hand: _ByHand,
) -> None:
    found: list[AngleList] = []
    if by_hand.angles is not None:
        found.append(angles_by_hand(by_hand.angles, source.n_views))
        if isinstance(by_hand.angles, str | Path):
            source.files.append(Path(by_hand.angles))
    else:
        if table_angles is not None:
            found.append(AngleList(source.path.name, np.array(table_angles, dtype=np.float64)))
        for path in (beside.tlt, beside.rawtlt):
            if path is not None:
                found.append(AngleList(path.name, read_tilt_angles(path)))
                source.files.append(path)
        if described is not None and described.tilt_deg is not None:
            found.append(AngleList(described.path.name, described.tilt_deg))
        if source.tilt_deg is not None:
            found.append(AngleList(source.origin["tilt_deg"], source.tilt_deg))
    chosen = choose_angles(found, source.n_views, source.path)
    if chosen is None:
        source.missing.setdefault("tilt_deg", "no .tlt, .rawtlt or .mdoc stands beside it and the header has none")
        return
    source.tilt_deg, source.origin["tilt_deg"] = chosen.values, chosen.name
    if by_hand.angles is None:
        agree = f" ({', '.join(each.name for each in found[1:])} say the same)" if len(found) > 1 else ""
        source.notes.append(f"tilt angles from {chosen.name}{agree}")


def _settle_pixel_size(source: TiltSeriesSource, described: Mdoc | None, by_hand: _ByHand) -> None:
    stated = None if described is None else described.pixel_size_nm
    if by_hand.pixel_size_nm is not None:
        source.pixel_size_nm, source.origin["pixel_size_nm"] = by_hand.pixel_size_nm, "ingest.pixel_size_nm"
    elif described is not None and stated is not None:
        _refuse_other_binning(source, described)
        header, name = source.pixel_size_nm, described.path.name
        note = f"pixel size {stated:.4g} nm from {name}"
        if header is not None and abs(header - stated) > 0.02 * stated:
            says = f"{source.origin['pixel_size_nm']} says {header:.4g} nm"
            note += f", but {says}: check it, or set ingest.pixel_size_nm"
        source.notes.append(note)
        source.pixel_size_nm, source.origin["pixel_size_nm"] = stated, name
    if source.pixel_size_nm is not None:
        source.missing.pop("pixel_size_nm", None)


def _refuse_other_binning(source: TiltSeriesSource, described: Mdoc) -> None:
    """A stack binned after its .mdoc was written has another pixel size than the .mdoc says."""
    if described.image_shape is None or described.pixel_size_nm is None:
        return
    (_, height, width), (described_height, described_width) = source.shape, described.image_shape
    factor = described_width / width
    if abs(factor - described_height / height) > 0.01 * factor or abs(factor - 1) < 0.01:
        return
    raise UserError(
        f"the images are {width} x {height} px, {described.path.name} describes {described_width} x {described_height} "
        f"px of {described.pixel_size_nm:.4g} nm: the stack was binned after it was written.",
        where=source.path,
        do=f"Set ingest.pixel_size_nm (probably {described.pixel_size_nm * factor:.4g}).",
    )


def _settle_axis(source: TiltSeriesSource, described: Mdoc | None, by_hand: _ByHand) -> None:
    if by_hand.tilt_axis_deg is not None:
        source.tilt_axis_deg, source.origin["tilt_axis_deg"] = by_hand.tilt_axis_deg, "ingest.tilt_axis_deg"
        return
    stated = None if described is None else described.tilt_axis_deg
    if described is not None and stated is not None:
        header = source.tilt_axis_deg
        source.tilt_axis_deg = stated
        source.origin["tilt_axis_deg"] = f"{described.axis_origin} of {described.path.name}"
        if header is not None and abs(header - stated) > 0.5:
            source.notes.append(
                f"the header states a tilt axis of {header:.2f} deg, {described.path.name} {stated:.2f}: check it, or "
                f"set ingest.tilt_axis_deg"
            )
    if source.tilt_axis_deg is None:
        source.missing.setdefault("tilt_axis_deg", "no .mdoc and no title of the header states it")
    else:
        source.notes.append(f"tilt axis {source.tilt_axis_deg:.2f} deg from {source.origin['tilt_axis_deg']}")
