"""TIFF tilt series: one multi-page file, or one file per view. Pages are read when asked for.

TIFF stores the top row first, so views are flipped to y up unless the caller says otherwise.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.source import TiltSeriesSource, as_view
from gigascope.store.readers.tiff_check import refuse_broken_chain, refuse_missing_pixels
from gigascope.store.readers.tiff_pixel import pixel_size_nm
from gigascope.store.readers.tilt_angles import read_text_lines

SUFFIXES = {".tif", ".tiff", ".btf", ".tf8"}
TABLE_SUFFIXES = {".txt", ".tsv", ".csv"}


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts view_2 before view_10: runs of digits compare as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in parts if part]


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
    tiff = _open(path)
    series = list(tiff.series)
    refuse_missing_pixels(tiff, path)
    if len(series) > 1:
        shape, dtype, read = _separate_series(series, path)
    else:
        shape, dtype, read = _one_series(series[0], path)
    flip = not y_up
    source = TiltSeriesSource(
        path=path,
        format=f"{_flavour(tiff)} of {shape[0]} pages",
        shape=shape,
        dtype=dtype,
        read_view=lambda i: as_view(_guard(read, i, path), dtype, flip=flip),
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
        raise UserError("holds no TIFF files.", where=where, do="Check inputs.tilt_series (a folder or a glob).")
    found: list[tuple[tuple[int, ...], np.dtype]] = []
    for file in files:
        with _open(file) as tiff:
            series = tiff.series[0]
            shape = tuple(int(n) for n in series.shape if n != 1)
            if len(tiff.series) > 1 or len(shape) != 2:
                raise UserError(
                    f"holds an image of shape {tuple(series.shape)} in {len(tiff.pages)} pages, one grey image per "
                    f"file is expected.",
                    where=file,
                    do="Name this file alone in inputs.tilt_series if it is a stack, or take it out of the folder.",
                )
            refuse_missing_pixels(tiff, file)
            found.append((shape, _real(series.dtype, file)))
    _refuse_mixed(files, found, where)
    (height, width), dtype = found[0]
    flip = not y_up
    source = TiltSeriesSource(
        path=where,
        format=f"{len(files)} TIFF files",
        shape=(len(files), height, width),
        dtype=dtype,
        read_view=lambda i: as_view(_guard(_read_file, files[i], files[i]), dtype, flip=flip),
        notes=[f"views in the order of {files[0].name}, {files[min(1, len(files) - 1)].name} ... {files[-1].name}"],
        files=list(files),
    )
    _note_rows(source, y_up)
    with _open(files[0]) as tiff:
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


def _open(path: Path) -> Any:
    import tifffile

    try:
        refuse_broken_chain(path)
        tiff = tifffile.TiffFile(path)
        tiff.series[0].get_shape()  # pages and series are parsed on first use
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot be read ({reason}).", where=path, do="Check inputs.tilt_series.") from None
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        what = f"is not a TIFF file, or is damaged ({error})."
        raise UserError(what, where=path, do="Copy it again, or check inputs.tilt_series.") from None
    return tiff


def _flavour(tiff: Any) -> str:
    return "OME-TIFF" if tiff.is_ome else "ImageJ TIFF" if tiff.is_imagej else "TIFF"


def _real(dtype: np.dtype, path: Path) -> np.dtype:
    if np.dtype(dtype).kind not in "uif":
        raise UserError(f"holds values of type {dtype}.", where=path, do="Save it with integer or real grey values.")
    return np.dtype(dtype).newbyteorder("=")


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
    dtype = _real(series.dtype, path)
    return (n_views, shape[-2], shape[-1]), dtype, lambda i: array[i] if len(shape) == 3 else array[:]


def _separate_series(series: list[Any], path: Path) -> tuple[tuple[int, int, int], np.dtype, Any]:
    """Pages that were appended one by one: a stack if all are alike."""
    shapes = [tuple(int(n) for n in s.get_shape(False) if n != 1) for s in series]
    kinds = [(shape, str(s.dtype)) for shape, s in zip(shapes, series, strict=True)]
    (common, dtype), n_common = Counter(kinds).most_common(1)[0]
    wrong = [i for i, kind in enumerate(kinds) if kind != (common, dtype)]
    if wrong:
        raise UserError(
            f"holds images of different shapes: image {wrong[0]} is {_size(shapes[wrong[0]])} {kinds[wrong[0]][1]}, "
            f"{n_common} are {_size(common)} {dtype}.",
            where=path,
            do="Take the images that do not belong to the series out of the file.",
        )
    if len(common) != 2:
        raise UserError(f"holds {len(series)} stacks.", where=path, do="Save the one tilt series as a file of its own.")
    height, width = common
    shape = (len(series), height, width)
    return shape, _real(series[0].dtype, path), lambda i: series[i].asarray().reshape(common)


def _refuse_mixed(files: list[Path], found: list[tuple[tuple[int, ...], np.dtype]], where: Path) -> None:
    count = Counter(found)
    common, n_common = count.most_common(1)[0]
    if len(count) == 1:
        return
    wrong = [(file, each) for file, each in zip(files, found, strict=True) if each != common]
    names = ", ".join(f"{file.name} ({_size(shape)} {dtype})" for file, (shape, dtype) in wrong[:5])
    example = files[found.index(common)].name
    raise UserError(
        f"{n_common} files are {_size(common[0])} {common[1]} (such as {example}), {len(wrong)} are not: {names}"
        f"{' ...' if len(wrong) > 5 else ''}.",
        where=where,
        do="Take out the files that do not belong to the series.",
    )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in reversed(shape))


def _read_file(path: Path) -> np.ndarray:
    import tifffile

    image = tifffile.imread(path)
    return image.reshape([n for n in image.shape if n != 1])


def _guard(read: Any, what: Any, path: Path) -> np.ndarray:
    try:
        return read(what)
    except (OSError, ValueError, RuntimeError, IndexError, TypeError) as error:
        page = f"page {what} " if isinstance(what, int) else ""
        raise UserError(f"{page}cannot be decoded ({error}).", where=path, do="Copy the file again.") from None


def _note_rows(source: TiltSeriesSource, y_up: bool | None) -> None:
    if y_up is None:
        source.notes.append("TIFF stores the top row first: flipped to y up (ingest.y_up: true leaves it)")


def _take_pixel_size(source: TiltSeriesSource, tiff: Any) -> None:
    size, origin = pixel_size_nm(tiff)
    if size is None:
        source.missing["pixel_size_nm"] = origin
    else:
        source.pixel_size_nm, source.origin["pixel_size_nm"] = size, origin
