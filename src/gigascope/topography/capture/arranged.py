"""A part of the sensor, and an even number of rows and columns where there is a mosaic."""

from __future__ import annotations

from dataclasses import replace

from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.topography.capture.capture import FileCapture

Span = tuple[int, int]


def kept_sensor(capture: FileCapture, crop: tuple[Span, Span] | None) -> tuple[FileCapture, tuple[Span, Span]]:
    """The rows and columns that are kept.

    Parameters
    ----------
    crop : (first, last + 1) of rows and columns; None: all

    Returns
    -------
    capture, and what of the sensor it shows

    Raises
    ------
    UserError : beyond the sensor, or a crop that would shift the mosaic
    """
    sizes = capture.shape[3:]
    spans = [(0, n) for n in sizes] if crop is None else list(crop)
    for word, (first, last), n in zip(("rows", "columns"), spans, sizes):
        if last > n:
            what = f"has {n} {word}, ingest.crop asks for {first} to {last}."
            raise UserError(what, where=capture.path, do="Correct ingest.crop.")
        if capture.pattern is not None and first % 2:
            what = f"a crop that starts at {word[:-1]} {first} would shift the colours of the mosaic."
            raise UserError(what, where="ingest.crop", do="Start at an even row and column.")
    notes = list(capture.notes)
    if capture.pattern is not None and any((last - first) % 2 for first, last in spans):
        spans = [(first, last - (last - first) % 2) for first, last in spans]
        notes.append("the last row or column was left out: a mosaic has an even number of them")
    (top, bottom), (left, right) = spans
    kept = ((top, bottom), (left, right))
    if kept == ((0, sizes[0]), (0, sizes[1])):
        return capture, kept
    read, one_slice = capture.read, capture.one_slice

    def read_kept(view_row: int, view_col: int) -> NDArray:
        return read(view_row, view_col)[:, top:bottom, left:right]

    def slice_kept(view_row: int, view_col: int, z: int) -> NDArray:
        return one_slice(view_row, view_col, z)[top:bottom, left:right]

    shape = (*capture.shape[:3], bottom - top, right - left)
    return replace(capture, shape=shape, read_view=read_kept, read_slice=slice_kept, notes=notes), kept
