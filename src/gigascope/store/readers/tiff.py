"""TIFF tilt series: one multi-page file, or one file per view. Pages are read when asked for.

TIFF stores the top row first, so views are flipped to y up unless the caller says otherwise.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.source import TiltSeriesSource, as_view
from gigascope.store.readers.tiff_check import refuse_missing_pixels
from gigascope.store.readers.tiff_file import flavour, guarded, open_file, real_dtype, refuse_mixed, separate_images
from gigascope.store.readers.tiff_pixel import pixel_size_nm
from gigascope.store.readers.tilt_angles import read_text_lines

KEY = "inputs.tilt_series"
TABLE_SUFFIXES = {".txt", ".tsv", ".csv"}


def open_tiff(path: str | Path, y_up: bool | None = None) -> TiltSeriesSource:
    """Open one multi-page TIFF as a tilt series; pages may be ImageJ's, OME's or plain.

    Parameters
    ----------
    y_up : the first row is the bottom of the image; None: false

    Raises
    ------
    UserError : not a TIFF, truncated, colour, pages of different shapes, more than three dimensions
    """
    path = Path(path)
    tiff = open_file(path, KEY)
    series = list(tiff.series)
    refuse_missing_pixels(tiff, path)
    if len(series) > 1:
        shape, dtype, read = separate_images(series, path)
    else:
        shape, dtype, read = _one_series(series[0], path)
    flip = not y_up
    source = TiltSeriesSource(
        path=path,
        format=f"{flavour(tiff)} of {shape[0]} pages",
        shape=shape,
        dtype=dtype,
        read_view=lambda i: as_view(guarded(read, i, path), dtype, flip=flip),
        files=[path],
    )
    _note_rows(source, y_up)
    _take_pixel_size(source, tiff)
    return source


def open_tiff_files(files: list[Path], where: Path, y_up: bool | None = None) -> TiltSeriesSource:
    """Open one TIFF per view, in the order given.

    Raises
    ------
    UserError : no files, a file that is no TIFF or has several pages, files of different shapes or types (by name)
    """
    if not files:
        raise UserError("holds no TIFF files.", where=where, do=f"Check {KEY} (a folder or a glob).")
    found: list[tuple[tuple[int, ...], np.dtype]] = []
    for file in files:
        with open_file(file, KEY) as tiff:
            series = tiff.series[0]
            shape = tuple(int(n) for n in series.shape if n != 1)
            if len(tiff.series) > 1 or len(shape) != 2:
                raise UserError(
                    f"holds an image of shape {tuple(series.shape)} in {len(tiff.pages)} pages, one grey image per "
                    f"file is expected.",
                    where=file,
                    do=f"Name this file alone in {KEY} if it is a stack, or take it out of the folder.",
                )
            refuse_missing_pixels(tiff, file)
            found.append((shape, real_dtype(series.dtype, file)))
    refuse_mixed(files, found, where)
    (height, width), dtype = found[0]
    flip = not y_up
    source = TiltSeriesSource(
        path=where,
        format=f"{len(files)} TIFF files",
        shape=(len(files), height, width),
        dtype=dtype,
        read_view=lambda i: as_view(guarded(_read_file, files[i], files[i]), dtype, flip=flip),
        notes=[f"views in the order of {files[0].name}, {files[min(1, len(files) - 1)].name} ... {files[-1].name}"],
        files=list(files),
    )
    _note_rows(source, y_up)
    with open_file(files[0], KEY) as tiff:
        _take_pixel_size(source, tiff)
    return source


def read_view_table(path: Path) -> tuple[list[Path], list[float] | None]:
    """Files of the views in stack order from a text table: a name per line, relative to the table, and maybe an angle.

    Raises
    ------
    UserError : a line that is not understood, a file that is not there (both with the line), no lines
    """
    files: list[Path] = []
    angles: list[float] = []
    for number, line in enumerate(read_text_lines(path), start=1):
        words = [word for word in re.split(r"\t|,|;|\s{2,}|\s(?=[-+.\d]+\s*$)", line.strip()) if word]
        if not words or line.lstrip().startswith("#"):
            continue
        file = path.parent / words[0]
        if not file.is_file():
            raise UserError(f"line {number}: no file {words[0]}.", where=path, do="Write names relative to the table.")
        files.append(file)
        if len(words) > 1:
            try:
                angles.append(float(words[1]))
            except ValueError:
                raise UserError(
                    f"line {number}: {words[1]!r} is not an angle in degrees.",
                    where=path,
                    do="Write: file name, angle.",
                ) from None
    if not files:
        raise UserError("names no files.", where=path, do="Write one file name per line, in the order of the views.")
    if angles and len(angles) != len(files):
        raise UserError(
            f"has {len(files)} files and {len(angles)} angles.", where=path, do="Give every file its angle, or none."
        )
    return files, angles or None


def _one_series(series: Any, path: Path) -> tuple[tuple[int, int, int], np.dtype, Any]:
    import zarr

    kept = [axis for axis, n in zip(series.get_axes(False), series.get_shape(False), strict=True) if n != 1]
    shape = tuple(int(n) for n in series.get_shape(False) if n != 1)
    if "S" in kept:
        raise UserError("is a colour image.", where=path, do="Save the views as grey values.")
    if len(shape) not in (2, 3):
        raise UserError(
            f"has the shape {tuple(series.shape)} (axes {series.axes}), a tilt series has three axes: view, y, x.",
            where=path,
            do="Save one channel and one position as a stack.",
        )
    array: Any = zarr.open(series.aszarr(squeeze=True), mode="r")
    n_views = shape[0] if len(shape) == 3 else 1
    dtype = real_dtype(series.dtype, path)
    return (n_views, shape[-2], shape[-1]), dtype, lambda i: array[i] if len(shape) == 3 else array[:]


def _read_file(path: Path) -> np.ndarray:
    import tifffile

    image = tifffile.imread(path)
    return image.reshape([n for n in image.shape if n != 1])


def _note_rows(source: TiltSeriesSource, y_up: bool | None) -> None:
    if y_up is None:
        source.notes.append("TIFF stores the top row first: flipped to y up (ingest.y_up: true leaves it)")


def _take_pixel_size(source: TiltSeriesSource, tiff: Any) -> None:
    size, origin = pixel_size_nm(tiff)
    if size is None:
        source.missing["pixel_size_nm"] = origin
    else:
        source.pixel_size_nm, source.origin["pixel_size_nm"] = size, origin
