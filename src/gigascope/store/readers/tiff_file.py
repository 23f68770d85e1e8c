"""What every reader of TIFF files shares: opening with plain words, stacks of pages, files that must be alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.tiff_check import refuse_broken_chain

SUFFIXES = {".tif", ".tiff", ".btf", ".tf8"}


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts view_2 before view_10: runs of digits compare as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in parts if part]


def tiff_files(candidates: Iterable[Path]) -> list[Path]:
    """Those that are named as TIFF files, in natural order."""
    return sorted((f for f in candidates if f.suffix.lower() in SUFFIXES), key=natural_key)


def open_file(path: Path, key: str) -> Any:
    """An open `tifffile.TiffFile` whose pages are all described in it.

    Parameters
    ----------
    key : of the config that names the file, for messages

    Raises
    ------
    UserError : missing, no TIFF, truncated or damaged
    """
    import tifffile

    try:
        refuse_broken_chain(path, key)
        tiff = tifffile.TiffFile(path)
        tiff.series[0].get_shape()  # pages and series are parsed on first use
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot be read ({reason}).", where=path, do=f"Check {key}.") from None
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        what = f"is not a TIFF file, or is damaged ({error})."
        raise UserError(what, where=path, do=f"Copy it again, or check {key}.") from None
    return tiff


def flavour(tiff: Any) -> str:
    """Which program's kind of TIFF it is, for people."""
    return "OME-TIFF" if tiff.is_ome else "ImageJ TIFF" if tiff.is_imagej else "TIFF"


def real_dtype(dtype: np.dtype, path: Path) -> np.dtype:
    """The type in native byte order.

    Raises
    ------
    UserError : it is not of real numbers
    """
    if np.dtype(dtype).kind not in "uif":
        raise UserError(f"holds values of type {dtype}.", where=path, do="Save it with integer or real grey values.")
    return np.dtype(dtype).newbyteorder("=")


def separate_images(series: list[Any], path: Path) -> tuple[tuple[int, int, int], np.dtype, Any]:
    """Pages that were appended one by one: a stack if all are alike.

    Returns
    -------
    shape (image, y, x), type, and a function that reads one image

    Raises
    ------
    UserError : they differ, or are stacks themselves
    """
    shapes = [tuple(int(n) for n in s.get_shape(False) if n != 1) for s in series]
    kinds = [(shape, str(s.dtype)) for shape, s in zip(shapes, series, strict=True)]
    (common, dtype), n_common = Counter(kinds).most_common(1)[0]
    wrong = [i for i, kind in enumerate(kinds) if kind != (common, dtype)]
    if wrong:
        raise UserError(
            f"holds images of different shapes: image {wrong[0]} is {size_text(shapes[wrong[0]])} "
            f"{kinds[wrong[0]][1]}, {n_common} are {size_text(common)} {dtype}.",
            where=path,
            do="Take the images that do not belong together out of the file.",
        )
    if len(common) != 2:
        raise UserError(
            f"holds {len(series)} stacks.", where=path, do="Save the one that is wanted as a file of its own."
        )
    height, width = common
    shape = (len(series), height, width)
    return shape, real_dtype(series[0].dtype, path), lambda i: series[i].asarray().reshape(common)


def refuse_mixed(files: list[Path], found: list[tuple[tuple[int, ...], np.dtype]], where: Path) -> None:
    """Files must be alike.

    Parameters
    ----------
    found : shape and type of each
    where : folder or glob, for the message

    Raises
    ------
    UserError : with the names of those that differ from most
    """
    count = Counter(found)
    common, n_common = count.most_common(1)[0]
    if len(count) == 1:
        return
    wrong = [(file, each) for file, each in zip(files, found, strict=True) if each != common]
    names = ", ".join(f"{file.name} ({size_text(shape)} {dtype})" for file, (shape, dtype) in wrong[:5])
    example = files[found.index(common)].name
    raise UserError(
        f"{n_common} files are {size_text(common[0])} {common[1]} (such as {example}), {len(wrong)} are not: {names}"
        f"{' ...' if len(wrong) > 5 else ''}.",
        where=where,
        do="Take out the files that do not belong together.",
    )


def size_text(shape: tuple[int, ...]) -> str:
    """Width first, as people say it."""
    return " x ".join(str(n) for n in reversed(shape))


def guarded(read: Any, what: Any, path: Path) -> np.ndarray:
    """`read(what)`, with what a damaged page throws in plain words."""
    try:
        return read(what)
    except (OSError, ValueError, RuntimeError, IndexError, TypeError) as error:
        page = f"page {what} " if isinstance(what, int) else ""
        raise UserError(f"{page}cannot be decoded ({error}).", where=path, do="Copy the file again.") from None
