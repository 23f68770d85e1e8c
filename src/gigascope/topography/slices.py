"""Slices that show nothing, or what another one shows: seen in the numbers of every slice while a view is read."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.topography.capture.capture import FileCapture

# What a store says of them: [view row, view column, slice, why] of each that shows nothing, and the names of the slices
# of a single view.
LOST, NAMES = "lost_slices", "slice_names"
# A slice is black below this share of the usual light, where it also has less than that of the usual contrast: defocus
# takes contrast but no light, a flickering lamp takes light and as much contrast.
_DIM, _FLAT = 0.5, 0.1
# Share of saturated pixels from which on a slice is white, and overexposed, beside what is usual in its stack.
_WHITE, _OVEREXPOSED = 0.5, 0.05
_STEP = 4
_SHOWN = 8

View = tuple[int, int]
Numbers = Mapping[str, Any]


def slice_numbers(stack: NDArray) -> dict[str, Any]:
    """Numbers of every slice of a view, as JSON values.

    Parameters
    ----------
    stack : (n_z, rows, cols[, 3]) integers

    Returns
    -------
    `mean`, `spread` (standard deviation), `saturated` (share of pixels at the largest value of the type) over every
    fourth row and column; `twins`, pairs of slices with the same pixels
    """
    some = [np.ascontiguousarray(image[::_STEP, ::_STEP]) for image in stack]
    limit = np.iinfo(stack.dtype).max
    sums = [zlib.crc32(image.tobytes()) for image in some]
    first: dict[int, int] = {}
    twins = []
    for k, checksum in enumerate(sums):
        before = first.setdefault(checksum, k)
        if before != k and np.array_equal(stack[before], stack[k]):
            twins.append([before, k])
    return {
        "mean": [float(image.mean(dtype=np.float64)) for image in some],
        "spread": [float(image.std(dtype=np.float64)) for image in some],
        "saturated": [float(np.count_nonzero(image == limit)) / image.size for image in some],
        "twins": twins,
    }


def lost_slices(found: Numbers) -> dict[int, str]:
    """Slices of a view that show nothing, and why: black, white or blank; none where all of them are alike.

    Parameters
    ----------
    found : of :func:`slice_numbers`
    """
    mean, spread, saturated = (np.array(found[name]) for name in ("mean", "spread", "saturated"))
    shows = spread > 0
    if not shows.any():
        return {}
    light, contrast, glare = (float(np.median(values[shows])) for values in (mean, spread, saturated))
    black = (mean < _DIM * light) & (spread < _FLAT * contrast)
    white = (saturated > _WHITE) & (glare < _OVEREXPOSED)
    kinds = {"white": white, "black": black, "blank": ~shows}
    return {
        k: next(kind for kind, which in kinds.items() if which[k])
        for k in range(len(mean))
        if any(which[k] for which in kinds.values())
    }


def lost_of(views: Mapping[View, Numbers]) -> list[list[Any]]:
    """For the store, see :data:`LOST`."""
    return [[*view, k, why] for view, found in views.items() for k, why in lost_slices(found).items()]


def names_of(capture: FileCapture) -> list[str] | None:
    """For the store, see :data:`NAMES`; none: there are several views."""
    return [capture.slice_of(0, 0, k) for k in range(capture.shape[2])] if capture.shape[:2] == (1, 1) else None


def slice_warnings(capture: FileCapture, views: Mapping[View, Numbers]) -> list[str]:
    """What a person should know of single slices, by the names of their files.

    Parameters
    ----------
    views : numbers of the views that are there
    """
    lines = []
    lost = lost_of(views)
    alone = capture.shape[:2] == (1, 1)
    if lost:
        do = (
            "They are left out when the slices are registered."
            if alone
            else "Heights and colours of these views are not to be trusted there: copy or take them again."
        )
        named = [f"{_name(capture, (row, col), k)} ({why})" for row, col, k, why in lost]
        lines.append(f"{_count(capture, len(lost))} show nothing: {_list(named)}. {do}")
    glaring = []
    for view, found in views.items():
        usual, gone = float(np.median(found["saturated"])), lost_slices(found)
        glaring += [
            f"{_name(capture, view, k)} ({share:.0%})"
            for k, share in enumerate(found["saturated"])
            if share > usual + _OVEREXPOSED and k not in gone
        ]
    if glaring:
        lines.append(
            f"{_count(capture, len(glaring))} are overexposed beside the others of their view: {_list(glaring)}."
        )
    twins = [
        f"{_name(capture, view, b)} as {_name(capture, view, a)}"
        for view, found in views.items()
        for a, b in found["twins"]
        if b not in lost_slices(found)
    ]
    if twins:
        lines.append(
            f"{_count(capture, len(twins))} have the same pixels as another one: {_list(twins)}. One of the two was "
            "copied or named wrongly, or the camera gave it twice."
        )
    return lines


def _count(capture: FileCapture, n: int) -> str:
    total = capture.shape[2] * int(capture.present.sum())
    return f"{n} of {total} slices"


def _name(capture: FileCapture, view: View, k: int) -> str:
    name = capture.slice_of(*view, k)
    return name if capture.shape[:2] == (1, 1) else f"{name} of {capture.name(*view)}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
