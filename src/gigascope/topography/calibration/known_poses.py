"""Poses that are known already, read from a table: CSV, TSV or JSON, one row for each view.

Columns: `view_row` and `view_col` (or `view`, counted row by row), `translation_row` and `translation_col`: where the
pixel (0, 0) of the view lies on the mosaic, in its pixels. Further ones may be left out: `angle` (radians), `normal_x`,
`normal_y`, `normal_z` (of the plane, in camera axes), `height` over `focal` (the scale of a view), `focal` and
`distortion_1`, `distortion_2`, ... (the same in all rows), `focus_mm` or `focus_q0_mm` to `focus_q5_mm` (stage
position at which height 0 is in focus: at the centre, or over the field).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.topography.calibration.field import N_TERMS
from gigascope.topography.calibration.result import Calibration, InstrumentId, from_known_poses
from gigascope.topography.geometry.poses import Poses

F64 = NDArray[np.float64]
NEEDED = ("translation_row", "translation_col")
OPTIONAL = ("angle", "normal_x", "normal_y", "normal_z", "height", "focal", "focus_mm")
_PLACES = ("view", "view_row", "view_col")
_FOCUS = tuple(f"focus_q{k}_mm" for k in range(N_TERMS))
_DISTORTION = re.compile(r"distortion_(\d+)")
_DO = "See `known poses` in docs/topography.md for the columns."


def read_known_poses(path: Path, instrument: InstrumentId) -> Calibration:
    """The calibration that a table of poses stands for.

    Parameters
    ----------
    path : .csv, .tsv or .json (an object of columns, or a list of rows)
    instrument : whose views they are

    Returns
    -------
    Calibration : even light; its surfaces of focus are NaN where the table has none. Views without a row are absent

    Raises
    ------
    UserError : no such file, no table, columns missing or unknown, views twice or not of this instrument, no numbers
    """
    columns = _read(path)
    known = {*NEEDED, *OPTIONAL, *_PLACES, *_FOCUS, "present"}
    strange = [name for name in columns if name not in known and not _DISTORTION.fullmatch(name)]
    if strange:
        raise UserError(f"column {strange[0]!r} is unknown.", where=path, do=_DO)
    if missing := [name for name in NEEDED if name not in columns]:
        raise UserError(f"column {missing[0]} is missing.", where=path, do=_DO)
    view = _views(columns, instrument, path)
    numbers = {name: _numbers(values, name, path) for name, values in columns.items() if name not in _PLACES}
    if "present" in numbers:
        there = numbers.pop("present") != 0
        view, numbers = view[there], {name: values[there] for name, values in numbers.items()}
    for name, values in numbers.items():
        if not np.isfinite(values).all() and not name.startswith("focus_"):
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            what = f"{name} of view {instrument.name(int(view[at]))} is {values[at]}, a number was expected."
            raise UserError(what, where=path)
    if not len(view):
        raise UserError("holds no view.", where=path, do=_DO)
    present = np.zeros(instrument.n_views, np.bool_)
    present[view] = True
    try:
        poses = _poses(numbers, view, instrument, path)
        return from_known_poses(poses, instrument, focus_plane=_focus(numbers, view, instrument), present=present)
    except ShapeError as error:
        raise UserError(f"{error}.", where=path, do=_DO) from None


def _read(path: Path) -> dict[str, list[Any]]:
    """Columns by name, units in brackets taken off."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the known poses cannot be read ({error}).", where=path, do="Check calibrate.poses.") from None
    if path.suffix.lower() == ".json":
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"is no JSON ({error}).", where=path) from None
        if isinstance(found, dict) and found and all(isinstance(v, list) for v in found.values()):
            columns = dict(found)
        elif isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
            columns = {name: [row.get(name) for row in found] for name in found[0]}
        else:
            raise UserError("is neither an object of columns nor a list of rows.", where=path, do=_DO)
    else:
        lines = [line for line in text.splitlines() if line.strip()]
        rows = list(csv.reader(lines, delimiter="\t" if "\t" in text.partition("\n")[0] else ","))
        if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
            raise UserError("is no table with a header and a row for each view.", where=path, do=_DO)
        columns = {name: [row[k] for row in rows[1:]] for k, name in enumerate(rows[0])}
    if len({len(values) for values in columns.values()}) != 1:
        raise UserError("its columns differ in length.", where=path, do=_DO)
    return {re.sub(r"\s*\[[^\]]*\]$", "", name.strip()): values for name, values in columns.items()}


def _numbers(values: list[Any], name: str, path: Path) -> F64:
    words = {"true": 1.0, "false": 0.0, "": float("nan")}
    try:
        # text and JSON's own values alike
        return np.array([words[t] if (t := str(v).strip().lower()) in words else float(v) for v in values])
    except (TypeError, ValueError):
        raise UserError(f"column {name} holds something that is no number.", where=path) from None


def _views(columns: Mapping[str, list[Any]], instrument: InstrumentId, path: Path) -> NDArray[np.int64]:
    """(n,) number of the view of each row."""
    n_rows, n_cols = instrument.view_shape
    if "view_row" in columns and "view_col" in columns:
        row, col = (_numbers(columns[name], name, path) for name in ("view_row", "view_col"))
        inside = (row >= 0) & (row < n_rows) & (col >= 0) & (col < n_cols)
        view = row * n_cols + col
    elif "view" in columns:
        view = _numbers(columns["view"], "view", path)
        inside = (view >= 0) & (view < n_rows * n_cols)
    else:
        raise UserError("columns view_row and view_col, or view, are missing.", where=path, do=_DO)
    if not (inside & (view == np.rint(view))).all():
        at = int(np.flatnonzero(~(inside & (view == np.rint(view))))[0])
        what = f"row {at + 1} is of a view that is not there: the acquisition has {n_rows} x {n_cols} views from 0."
        raise UserError(what, where=path, do="Give the poses of these cameras and stage positions.")
    found = view.astype(np.int64)
    if len(np.unique(found)) != len(found):
        twice = int(np.flatnonzero(np.bincount(found) > 1)[0])
        raise UserError(f"view {instrument.name(twice)} stands there twice.", where=path)
    return found


def _shared(numbers: Mapping[str, F64], name: str, path: Path) -> float:
    values = numbers[name]
    if np.ptp(values) > 0:
        raise UserError(f"{name} differs from view to view; all share one.", where=path, do=_DO)
    return float(values[0])


def _poses(numbers: Mapping[str, F64], view: NDArray[np.int64], of: InstrumentId, path: Path) -> Poses:
    n = of.n_views
    if "height" in numbers and "focal" not in numbers:
        raise UserError("there are heights, and no column focal that they are to be divided by.", where=path, do=_DO)
    focal = _shared(numbers, "focal", path) if "focal" in numbers else of.focal
    given = [name for name in OPTIONAL[1:4] if name in numbers]
    if given and len(given) < 3:
        raise UserError("a normal has the columns normal_x, normal_y and normal_z.", where=path, do=_DO)
    orders = sorted(int(m[1]) for m in map(_DISTORTION.fullmatch, numbers) if m)
    if orders != list(range(1, len(orders) + 1)):
        raise UserError("the columns of the distortion are distortion_1, distortion_2, ...", where=path, do=_DO)

    def column(name: str, default: float) -> F64:
        # views without a row lie where the others do on average
        values = numbers.get(name, np.full(len(view), default))
        whole = np.full(n, values.mean() if name in NEEDED else default)
        whole[view] = values
        return whole

    return Poses(
        size=of.size,
        focal=focal,
        height=column("height", focal),
        normal=np.column_stack([column(f"normal_{axis}", value) for axis, value in zip("xyz", (0.0, 0.0, -1.0))]),
        angle=column("angle", 0.0),
        translation=np.column_stack([column(name, 0.0) for name in NEEDED]),
        distortion=np.array([_shared(numbers, f"distortion_{q}", path) for q in orders]),
        offset=np.zeros(2),
    )


def _focus(numbers: Mapping[str, F64], view: NDArray[np.int64], of: InstrumentId) -> F64 | None:
    """(V, 6) surfaces of focus, where the table has them."""
    if _FOCUS[0] in numbers:
        found = np.column_stack([numbers.get(name, np.zeros(len(view))) for name in _FOCUS])
    elif "focus_mm" in numbers:
        found = np.column_stack([numbers["focus_mm"], np.zeros((len(view), N_TERMS - 1))])
    else:
        return None
    planes = np.full((of.n_views, N_TERMS), np.nan)
    planes[view] = found
    return planes
