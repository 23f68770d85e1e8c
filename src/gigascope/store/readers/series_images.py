"""The images of a tilt series, opened by what their name or their first bytes say they are."""

from __future__ import annotations

from pathlib import Path

from gigascope.errors import UserError
from gigascope.store.readers import dm, matlab, mrc, tiff, tilt_hdf5, zarr
from gigascope.store.readers.source import TiltSeriesSource
from gigascope.store.readers.tiff_file import SUFFIXES, tiff_files
from gigascope.store.readers.volume_hdf5 import hdf5_path
from gigascope.store.readers.zarr_image import MARKERS, is_zarr

_READ_LATER = {".ser", ".eer", ".png", ".jpg"}
_NOT_IMAGES = {".mdoc", ".tlt", ".rawtlt", ".xf", ".aln"}


def open_images(path: Path, y_up: bool | None) -> tuple[TiltSeriesSource, list[float] | None]:
    suffix = path.suffix.lower()
    if path.name in MARKERS and path.is_file():
        return zarr.open_zarr(path.parent, y_up), None
    if (found := hdf5_path(path, tilt_hdf5.SUFFIXES)) is not None:
        return tilt_hdf5.open_hdf5_series(*found, y_up), None
    if (found := hdf5_path(path, matlab.SUFFIXES)) is not None:
        return matlab.open_matlab(*found, y_up), None
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
    if suffix in dm.SUFFIXES:
        return dm.open_dm(path, y_up), None
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
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return tilt_hdf5.open_hdf5_series(path, "", y_up)
    kind = f"{suffix} files are" if suffix in _READ_LATER else "this kind of file is"
    raise UserError(
        f"{kind} not read.",
        where=path,
        do="Convert it to MRC, TIFF or OME-Zarr; .mrc, .st, .ali, .rec, .tif, .zarr, .dm3, .dm4, .h5, .hspy, .emd and "
        ".mat are read.",
    )
