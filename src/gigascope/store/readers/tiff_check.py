"""Is a TIFF file all there? A library that reads what it can gives a truncated stack as a shorter one.

The chain of image file directories is followed (TIFF 6.0, section 2; BigTIFF), then the extent of the pixel data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from gigascope.errors import UserError


def refuse_broken_chain(path: Path, key: str) -> None:
    """Every directory must lie inside the file.

    Parameters
    ----------
    key : of the config that names the file, for messages

    Raises
    ------
    UserError : the file is no TIFF, or ends before its last directory
    OSError : it cannot be read
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(16)
        order = {b"II": "little", b"MM": "big"}.get(start[:2])
        version = int.from_bytes(start[2:4], order) if order else 0  # type: ignore[arg-type]
        if order is None or version not in (42, 43):
            raise UserError("is not a TIFF file.", where=path, do=f"Check {key}.")
        big = version == 43
        at = int.from_bytes(start[8:16] if big else start[4:8], order)  # type: ignore[arg-type]
        seen: set[int] = set()
        while at and at not in seen:
            seen.add(at)
            following = _next_directory(file, at, order, big)
            if following is None:
                raise UserError(
                    f"is truncated: page {len(seen) - 1} is described at byte {at}, the file has {size} bytes.",
                    where=path,
                    do="Copy or download it again; was it still being written?",
                )
            at = following


def refuse_missing_pixels(tiff: Any, path: Path) -> None:
    """The pixel data of every page must lie inside the file.

    Raises
    ------
    UserError : the file ends before its last page does
    """
    ends: dict[Path, tuple[int, int]] = {}
    for series in tiff.series:
        if tiff.is_ome and any(page is None for page in series.pages):
            absent = sum(page is None for page in series.pages)
            raise UserError(
                f"describes {len(series.pages)} planes, {absent} of them are not there.",
                where=tiff.filehandle.path,
                do="Put all files of the set beside each other, with the names they were written with.",
            )
        pages = [page for page in series.pages if page is not None]
        if series.dataoffset is not None:
            _reach(ends, pages[0].parent, series.dataoffset + series.nbytes)
        for page in pages:
            if page.dataoffsets:
                last = max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
                _reach(ends, page.parent, last)
    for file, (end, size) in ends.items():
        if end > size:
            raise UserError(
                f"is truncated: its pages reach to byte {end}, found {size} bytes.",
                where=path if file.name == path.name else file,
                do="Copy or download it again; was it still being written?",
            )


def _reach(ends: dict[Path, tuple[int, int]], tiff: Any, end: int) -> None:
    """Note that pages of a file, which need not be the one that was opened, reach to a byte."""
    file = Path(tiff.filehandle.path)
    ends[file] = (max(end, ends.get(file, (0, 0))[0]), tiff.filehandle.size)


def _next_directory(file: BinaryIO, at: int, order: Any, big: bool) -> int | None:
    """Offset of the directory after the one at `at`, 0 after the last; None where the file ends too early."""
    width, entry, offset = (8, 20, 8) if big else (2, 12, 4)
    file.seek(at)
    count = file.read(width)
    if len(count) < width:
        return None
    file.seek(at + width + entry * int.from_bytes(count, order))
    following = file.read(offset)
    return int.from_bytes(following, order) if len(following) == offset else None
