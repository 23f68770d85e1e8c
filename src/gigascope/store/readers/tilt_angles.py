"""Tilt angles: text files of one angle per line, and the choice between several sources.

Priority: given by hand > .tlt > .rawtlt > .mdoc > extended header > axis. Angles are degrees, in stack order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError

CONFLICT_DEG = 0.5  # two sources further apart than this are about different series, or one is in another order
LIMIT_DEG = 90.001  # stages read back a few ten-thousandths beyond 90
SAME_DEG = 0.005  # angles are written with two decimals


class EvenSeries(Protocol):
    """Evenly spaced angles, given by the first and the last."""

    @property
    def first_deg(self) -> float: ...

    @property
    def last_deg(self) -> float: ...


AnglesByHand = Sequence[float] | np.ndarray | Path | str | EvenSeries


@dataclass(frozen=True)
class AngleList:
    """Angles that one source states."""

    name: str
    values: NDArray[np.float64]


def read_text_lines(path: Path) -> list[str]:
    """Lines of a small text file of unknown encoding.

    Raises
    ------
    UserError : it cannot be read, or it is not text
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}).", where=path) from None
    if b"\0" in raw:
        raise UserError("is not a text file.", where=path, do="Give the text file that belongs to the series.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # degree and micro signs of older microscope software
    return text.splitlines()


def read_tilt_angles(path: str | Path) -> NDArray[np.float64]:
    """Angles of a .tlt or .rawtlt file: one per line, blank lines allowed; of two columns the first is the angle.

    Returns
    -------
    (tilt,) float64, degrees, in file order

    Raises
    ------
    UserError : unreadable, empty, a line that is not a finite number (with its number), more than two columns
    """
    path = Path(path)
    angles: list[float] = []
    for number, line in enumerate(read_text_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) > 2:
            raise UserError(
                f"line {number} has {len(words)} columns, a file of tilt angles has one or two.",
                where=path,
                do="Give a file with one angle in degrees per line.",
            )
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = [float("nan")]
        if not np.isfinite(values).all():
            raise UserError(
                f"line {number} is not a number: {line.strip()!r}.",
                where=path,
                do="Keep one angle in degrees per line and nothing else.",
            )
        angles.append(values[0])
    if not angles:
        raise UserError("holds no tilt angles.", where=path, do="Write one angle in degrees per line, in stack order.")
    return np.array(angles, dtype=np.float64)


def angles_by_hand(given: AnglesByHand, n_views: int) -> AngleList:
    """Angles named in the config: a list, the path of a text file, or first and last of an even series.

    Raises
    ------
    UserError : the file is unreadable, or a value is not finite
    """
    if isinstance(given, str | Path):
        return AngleList(f"{Path(given).name} (ingest.tilt_deg)", read_tilt_angles(given))
    if not isinstance(given, Sequence | np.ndarray):
        values = np.linspace(given.first_deg, given.last_deg, n_views)
        return AngleList("ingest.tilt_deg (even spacing)", values)
    values = np.asarray(given, dtype=np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise UserError("holds a value that is not a finite number.", where="ingest.tilt_deg", do="Give degrees.")
    return AngleList("ingest.tilt_deg", values)


def choose_angles(sources: list[AngleList], n_views: int, where: Path) -> AngleList | None:
    """The first of the sources, after making sure that the others say the same.

    Parameters
    ----------
    sources : by falling priority
    n_views : images in the stack
    where : the stack, for messages

    Raises
    ------
    UserError : a source has another count than the stack has images; two differ by more than 0.5 deg
    """
    for source in sources:
        if len(source.values) != n_views:
            raise UserError(
                f"has {n_views} images, {source.name} has {len(source.values)} angles.",
                where=where,
                do="Give one angle per image, in stack order (was the last exposure dropped?), or set ingest.tilt_deg.",
            )
    for later in sources[1:]:
        first = sources[0]
        apart = np.abs(first.values - later.values)
        if apart.max() > CONFLICT_DEG:
            view, common = int(apart.argmax()), in_common(first.values, later.values)
            raise UserError(
                f"two sources of tilt angles differ by up to {apart.max():.2f} deg, in {np.sum(apart > CONFLICT_DEG)} "
                f"of {n_views} views: view {view} is {first.values[view]:.2f} in {first.name} and "
                f"{later.values[view]:.2f} in {later.name}{common}.\n  {_summary(first)}\n  {_summary(later)}\n ",
                where=where,
                do="Move the wrong file away, or set ingest.tilt_deg to the path of the right one.",
            )
    return sources[0] if sources else None


def angle_problems(angles: NDArray[np.float64], name: str) -> list[tuple[str, str]]:
    """What makes angles unusable, as (what, do): outside +-90 deg, more than two equal."""
    problems = []
    outside = np.flatnonzero(np.abs(angles) > LIMIT_DEG)
    if outside.size:
        view = int(outside[0])
        problems.append(
            (
                f"{outside.size} tilt angles of {name} lie outside +-90 deg (view {view}: {angles[view]:.2f}).",
                "Set ingest.tilt_deg to degrees between -90 and 90.",
            )
        )
    ordered = np.argsort(angles, kind="stable")
    same = angles[ordered][2:] - angles[ordered][:-2] <= SAME_DEG
    if same.any():
        views = sorted(int(v) for v in ordered[int(same.argmax()) : int(same.argmax()) + 3])
        problems.append(
            (
                f"more than two views have the tilt angle {angles[views[0]]:.2f} deg in {name} (views {views}).",
                "Check that the angles belong to this series, or set ingest.tilt_deg.",
            )
        )
    return problems


def in_common(these: NDArray[np.float64], those: NDArray[np.float64]) -> str:
    """What two lists of angles that differ have in common, up to an offset, in brackets for a message; or nothing."""

    def alike(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
        return bool(np.abs(a - b - np.median(a - b)).max() <= CONFLICT_DEG)

    if alike(these, -those):
        return " (the same with the opposite sign: one of them turns the specimen the other way)"
    if alike(these, those[::-1]):
        return " (the same from the other end: the order of the views, or the sign)"
    if alike(np.sort(these), np.sort(those)):
        return " (the same angles in another order: as acquired and sorted, perhaps)"
    return ""


def _summary(angles: AngleList) -> str:
    values = angles.values
    shown = [f"{v:.2f}" for v in values[:3]] + ["..."] + [f"{v:.2f}" for v in values[-2:]]
    return f"{angles.name}: {', '.join(shown)}"
