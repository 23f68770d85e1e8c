"""AreTomo's .aln: one row per section that takes part, dark sections in the header.

ROT is phi; (TX, TY) = R(phi) f in pixels of the raw series. AreTomo3 counts sections from 1, older versions from 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.store.readers.tilt_angles import read_text_lines
from gigascope.store.writers.alignment import Alignment, aligned_shifts, raw_shifts
from gigascope.store.writers.whole_file import write_text

_FIELD = re.compile(r"^#\s*(RawSize|NumPatches|DarkFrame|AlphaOffset|BetaOffset|Thickness)\s*=\s*(.*)$")
_N_COLUMNS = 10


@dataclass(frozen=True)
class AlnFile:
    """What a .aln holds.

    Attributes
    ----------
    alignment : in stack order, with the sections that are not in the table excluded
    raw_shape : (y, x) of the raw views
    thickness_px : None where the file does not say it
    alpha_offset_deg : tilt offset, already in the tilt angles
    beta_offset_deg : rotation of the specimen about x
    """

    alignment: Alignment
    raw_shape: tuple[int, int]
    thickness_px: int | None
    alpha_offset_deg: float
    beta_offset_deg: float


def write_aln(
    path: str | Path,
    shifts: ArrayLike,
    tilt_deg: ArrayLike,
    tilt_axis_deg: ArrayLike,
    *,
    raw_shape: tuple[int, int],
    thickness_px: int = 0,
    excluded: ArrayLike | None = None,
    tilt_offset_deg: float = 0.0,
) -> None:
    """Write a .aln as AreTomo3 does: rows by ascending tilt, sections counted from 1.

    Parameters
    ----------
    shifts : (tilt, 2), f_s and f_y in pixels of the raw series, stack order
    tilt_deg : (tilt,), after `tilt_offset_deg` was added
    tilt_axis_deg : phi, one number or (tilt,)
    raw_shape : (y, x) of the raw views
    thickness_px : thickness of the specimen, 0 where it is not known
    excluded : (tilt,) bool; these become DarkFrame lines

    Raises
    ------
    ShapeError : arrays that do not go together
    UserError : the disk is full or must not be written to
    """
    alignment = Alignment.of(shifts, tilt_axis_deg, tilt_deg, excluded)
    if np.isnan(alignment.tilt_deg).any():
        raise ShapeError("a .aln needs the tilt angle of every view")
    by_tilt = np.argsort(alignment.tilt_deg, kind="stable")
    dark = [
        # place among the sorted views from 0, section from 1
        f"# DarkFrame =  {place:4d} {view + 1:4d} {alignment.tilt_deg[view]:8.3f}"
        for place, view in enumerate(by_tilt)
        if alignment.excluded[view]
    ]
    raw = raw_shifts(alignment)
    rows = [
        f"{view + 1:5d}  {alignment.tilt_axis_deg[view]:11.6f}  {1:9.5f}  {raw[view, 0]:11.5f}  {raw[view, 1]:11.5f}  "
        f"{1:7.2f}  {1:7.2f}  {1:7.2f}  {0:7.2f}  {alignment.tilt_deg[view]:9.3f}"
        for view in by_tilt
        if not alignment.excluded[view]
    ]
    lines = [
        "# AreTomo Alignment / Priims bprmMn",
        f"# RawSize = {raw_shape[1]} {raw_shape[0]} {alignment.n_views}",
        "# NumPatches = 0",
        *dark,
        f"# AlphaOffset = {tilt_offset_deg:8.2f}",
        f"# BetaOffset = {0:8.2f}",
        f"# Thickness = {thickness_px}",
        "# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT",
        *rows,
    ]
    write_text(Path(path), "\n".join(lines) + "\n")


def read_aln(path: str | Path) -> AlnFile:
    """Read the global alignment of a .aln; a local one is left aside.

    The lowest section being 0 means that they are counted from 0.

    Raises
    ------
    UserError : unreadable, no RawSize, a row that is not understood (with its line), a section that cannot be
    """
    path = Path(path)
    header: dict[str, list[list[float]]] = {}
    rows: list[list[float]] = []
    for number, line in enumerate(read_text_lines(path), start=1):
        if line.startswith("#"):
            if "Local Alignment" in line:
                break
            match = _FIELD.match(line)
            if match:
                header.setdefault(match.group(1), []).append(_numbers(match.group(2), number, path))
        elif line.strip():
            row = _numbers(line, number, path)
            if len(row) != _N_COLUMNS:
                raise UserError(f"line {number} has {len(row)} columns.", where=path, do=f"A .aln has {_N_COLUMNS}.")
            rows.append(row)
    size = header.get("RawSize", [[]])[0]
    if len(size) != 3 or not rows:
        raise UserError("has no RawSize of three numbers, or no sections.", where=path, do="Give the .aln of AreTomo.")
    alignment = _in_stack_order(np.array(rows), header.get("DarkFrame", []), int(size[2]), path)
    first = {name: values[0][0] for name, values in header.items() if values[0]}
    return AlnFile(
        alignment=alignment,
        raw_shape=(int(size[1]), int(size[0])),
        thickness_px=int(first["Thickness"]) if "Thickness" in first else None,
        alpha_offset_deg=first.get("AlphaOffset", 0.0),
        beta_offset_deg=first.get("BetaOffset", 0.0),
    )


def _numbers(text: str, number: int, path: Path) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        raise UserError(f"line {number} is not numbers: {text.strip()!r}.", where=path, do="Make it again.") from None


def _in_stack_order(rows: NDArray[np.float64], dark: list[list[float]], n_views: int, path: Path) -> Alignment:
    named = [(int(each[1]), each[2]) for each in dark if len(each) == 3]
    if len({section for section, _ in named}) < len(named):
        named = []  # some writers leave the section of a dark frame at 0 for all
    sections = rows[:, 0].astype(int)
    base = 0 if 0 in sections or any(section == 0 for section, _ in named) else 1
    views = sections - base
    if len(set(views.tolist())) < len(views) or views.min() < 0 or views.max() >= n_views:
        raise UserError(
            f"names a section twice or outside the {n_views} of RawSize.", where=path, do="Give the .aln of this stack."
        )
    tilt, axis, raw = np.full(n_views, np.nan), np.full(n_views, np.median(rows[:, 1])), np.zeros((n_views, 2))
    excluded = np.ones(n_views, dtype=bool)
    axis[views], raw[views], tilt[views], excluded[views] = rows[:, 1], rows[:, 3:5], rows[:, 9], False
    for section, angle in named:
        if 0 <= section - base < n_views and excluded[section - base]:
            tilt[section - base] = angle
    return Alignment.of(aligned_shifts(raw, axis), axis, tilt, excluded)
