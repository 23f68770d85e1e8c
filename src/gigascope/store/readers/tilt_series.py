"""Open a tilt series, whatever its format, with everything that stands beside it: angles, pixel size, tilt axis, dose.

Angles: given by hand > .tlt > .rawtlt > .mdoc > header > axis. Pixel size: given by hand > .mdoc > header. Tilt axis:
given by hand > .mdoc > title in the header. Angle sources that disagree are an error unless they are given by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers import mrc, tiff, zarr
from gigascope.store.readers.mdoc import Mdoc, read_mdoc
from gigascope.store.readers.source import TiltSeriesSource
from gigascope.store.readers.tiff_file import SUFFIXES, tiff_files
from gigascope.store.readers.tilt_angles import (
    AngleList,
    AnglesByHand,
    angle_problems,
    angles_by_hand,
    choose_angles,
    read_tilt_angles,
)
from gigascope.store.readers.zarr_image import MARKERS, is_zarr

MIN_VIEWS = 7
_COMPOUND = (".ome.tif", ".ome.tiff", ".ome.zarr")
_READ_LATER = {".dm3", ".dm4", ".hspy", ".emd", ".h5", ".hdf5", ".ser", ".eer", ".png", ".jpg"}
_NOT_IMAGES = {".mdoc", ".tlt", ".rawtlt", ".xf", ".aln"}


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
) -> TiltSeriesSource:
    """Open a tilt series that has all it needs: views, one angle each, a pixel size.

    Parameters
    ----------
    path : MRC file, TIFF file, folder, glob or table of TIFF files, or OME-Zarr store
    angles : degrees in stack order, or a text file of them, or first and last of an even series; None: look for them
    mdoc : SerialEM's .mdoc; None: look beside the series
    pixel_size_nm, tilt_axis_deg : override what the files say
    y_up : the first row is the bottom of the image; None: as the format does it

    Returns
    -------
    TiltSeriesSource : `tilt_deg` and `pixel_size_nm` are set; `tilt_axis_deg` may be None

    Raises
    ------
    UserError : anything the user has to put right, all that was found missing or impossible in one message
    """
    source = find_tilt_series(
        path, angles=angles, mdoc=mdoc, pixel_size_nm=pixel_size_nm, tilt_axis_deg=tilt_axis_deg, y_up=y_up
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
) -> TiltSeriesSource:
    """As :func:`open_tilt_series`, but what nothing states stays None, with the reason in `missing`.

    For looking at a file before its config is complete. Broken files and contradictions raise all the same.
    """
    path = Path(path)
    source, table_angles = _open_images(path, y_up)
    by_hand = _ByHand(angles, pixel_size_nm, tilt_axis_deg)
    beside = _Siblings.of(path)
    described = _find_mdoc(source, beside, None if mdoc is None else Path(mdoc), by_hand)
    _settle_angles(source, beside, described, table_angles, by_hand)
    _settle_pixel_size(source, described, by_hand)
    _settle_axis(source, described, by_hand)
    if described is not None:
        source.notes += described.notes
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
                f"Put {_stem(source.path)}.tlt beside it (one angle per line), or set ingest.tilt_deg.",
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


def _open_images(path: Path, y_up: bool | None) -> tuple[TiltSeriesSource, list[float] | None]:
    suffix = path.suffix.lower()
    if path.name in MARKERS and path.is_file():
        return zarr.open_zarr(path.parent, y_up), None
    if any(sign in path.name for sign in "*?[") and not path.exists():
        return tiff.open_tiff_files(tiff_files(path.parent.glob(path.name)), path, y_up), None
    if not path.exists():
        raise UserError("no such file or folder.", where=path, do="Check inputs.tilt_series.")
    if is_zarr(path):
        return zarr.open_zarr(path, y_up), None
    if path.is_dir():
        return tiff.open_tiff_files(tiff_files(path.iterdir()), path, y_up), None
    if suffix in tiff.TABLE_SUFFIXES:
        files, angles = tiff.read_view_table(path)
        source = tiff.open_tiff_files(files, path, y_up)
        source.files.append(path)
        return source, angles
    if suffix in SUFFIXES:
        return tiff.open_tiff(path, y_up), None
    if suffix in mrc.SUFFIXES:
        return mrc.open_mrc(path, y_up), None
    return _open_by_content(path, y_up), None


def _open_by_content(path: Path, y_up: bool | None) -> TiltSeriesSource:
    """For an unknown suffix: what the first bytes say."""
    suffix = path.suffix.lower()
    if suffix in {".gz", ".bz2", ".xz", ".zip"}:
        raise UserError("is compressed.", where=path, do="Unpack it first, so that single views can be read from it.")
    if suffix in _NOT_IMAGES:
        raise UserError("holds no images.", where=path, do="Name the image stack in inputs.tilt_series.")
    try:
        with path.open("rb") as file:
            start = file.read(212)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}).", where=path, do="Check inputs.tilt_series.") from None
    if start[208:211] == b"MAP":
        return mrc.open_mrc(path, y_up)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return tiff.open_tiff(path, y_up)
    kind = f"{suffix} files are" if suffix in _READ_LATER else "this kind of file is"
    raise UserError(
        f"{kind} not read.",
        where=path,
        do="Convert it to MRC, TIFF or OME-Zarr; .mrc, .st, .ali, .rec, .tif and .zarr are read.",
    )


def _stem(path: Path) -> str:
    for ending in _COMPOUND:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name if path.is_dir() and path.suffix != ".zarr" else path.stem


@dataclass(frozen=True)
class _Siblings:
    """Files that belong to a series by their name; None where there is none."""

    tlt: Path | None
    rawtlt: Path | None
    mdoc: Path | None

    @staticmethod
    def of(path: Path) -> _Siblings:
        path = path.parent if path.name in MARKERS else path
        names = dict.fromkeys([_stem(path), path.stem])

        def find(*candidates: str) -> Path | None:
            return next((path.parent / c for c in candidates if (path.parent / c).is_file()), None)

        inside = _Siblings._inside(path)
        return _Siblings(
            tlt=find(*(f"{name}.tlt" for name in names)) or inside.get(".tlt"),
            rawtlt=find(*(f"{name}.rawtlt" for name in names)) or inside.get(".rawtlt"),
            mdoc=find(f"{path.name}.mdoc", *(f"{name}.mdoc" for name in names)) or inside.get(".mdoc"),
        )

    @staticmethod
    def _inside(path: Path) -> dict[str, Path]:
        """In a folder of views: the only file of its kind there."""
        folder = path if path.is_dir() and not is_zarr(path) else path.parent if "*" in path.name else None
        if folder is None or not folder.is_dir():
            return {}
        found = {ending: list(folder.glob(f"*{ending}")) for ending in (".tlt", ".rawtlt", ".mdoc")}
        return {ending: files[0] for ending, files in found.items() if len(files) == 1}


def _find_mdoc(source: TiltSeriesSource, beside: _Siblings, named: Path | None, by_hand: _ByHand) -> Mdoc | None:
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
    beside: _Siblings,
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
