"""IMOD's .xf and .tlt.

A line of a .xf maps raw to aligned coordinates, both relative to the centre of the image (newstack):
x' = a11 x + a12 y + dx, y' = a21 x + a22 y + dy; here the matrix is R(-phi) and d = -f.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.store.readers.tilt_angles import read_text_lines, read_tilt_angles
from gigascope.store.writers.alignment import Alignment, rotations
from gigascope.store.writers.whole_file import write_text

_IDENTITY = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])


def write_xf(
    path: str | Path,
    shifts: ArrayLike,
    tilt_axis_deg: ArrayLike,
    *,
    excluded: ArrayLike | None = None,
    bin: int = 1,
    magnification: ArrayLike = 1.0,
) -> None:
    """Write one line per section of the raw stack; the identity for excluded ones.

    Parameters
    ----------
    shifts : (tilt, 2), f_s and f_y in pixels of the raw series
    tilt_axis_deg : phi, one number or (tilt,)
    excluded : (tilt,) bool
    bin : for use on a stack binned by this: d is divided by it
    magnification : of each view's content, one number or (tilt,); what is written undoes it

    Raises
    ------
    ShapeError : arrays that do not go together
    UserError : the disk is full or must not be written to
    """
    alignment = Alignment.of(shifts, tilt_axis_deg, excluded=excluded)
    rows = np.concatenate([rotations(-alignment.tilt_axis_deg).reshape(-1, 4), -alignment.shifts / bin], axis=1)
    rows /= np.broadcast_to(np.asarray(magnification, dtype=np.float64), len(rows))[:, None]
    rows[alignment.excluded] = _IDENTITY
    rounded = np.round(rows, 7) + 0.0  # the sum turns -0 into 0
    write_text(Path(path), "".join(" ".join(f"{value:11.7f}" for value in row) + "\n" for row in rounded))


def read_xf(path: str | Path, *, bin: int = 1) -> Alignment:
    """Read the rotation and shift of each section; magnification and stretch, if any, are left in neither.

    Sections whose line is the identity, while the others are rotated, are taken as excluded.

    Parameters
    ----------
    bin : the file belongs to a stack binned by this: shifts are multiplied by it

    Raises
    ------
    UserError : unreadable, or a line that is not six finite numbers (with its number), or a mirrored transform
    """
    rows = _six_columns(Path(path))
    identity = (rows == _IDENTITY).all(axis=1)
    # The rotation nearest to the matrix: its angle is that of its antisymmetric over its symmetric part.
    axis = np.degrees(np.arctan2(rows[:, 1] - rows[:, 2], rows[:, 0] + rows[:, 3]))
    rotated = ~identity & (np.abs(axis) > 0.01)
    excluded = identity & rotated.any()
    if excluded.any():
        axis[excluded] = np.median(axis[~excluded])
    return Alignment.of(-rows[:, 4:] * bin, axis, excluded=excluded)


def read_xf_matrices(path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The transforms as they stand: matrices (tilt, 2, 2) and shifts d (tilt, 2) in pixels.

    Raises
    ------
    UserError : as :func:`read_xf`
    """
    rows = _six_columns(Path(path))
    return rows[:, :4].reshape(-1, 2, 2), rows[:, 4:]


def write_tlt(path: str | Path, tilt_deg: ArrayLike) -> None:
    """Write one tilt angle per section, in stack order, degrees with three decimals.

    Raises
    ------
    ShapeError : not one finite angle per section
    UserError : the disk is full or must not be written to
    """
    angles = np.asarray(tilt_deg, dtype=np.float64)
    if angles.ndim != 1 or not np.isfinite(angles).all():
        raise ShapeError(f"tilt angles have the shape {angles.shape} or are not finite, expected (tilt,)")
    write_text(Path(path), "".join(f"{angle:9.3f}\n" for angle in np.round(angles, 3) + 0.0))


def read_tlt(path: str | Path) -> NDArray[np.float64]:
    """Angles of a .tlt, (tilt,) degrees; :func:`gigascope.store.readers.tilt_angles.read_tilt_angles`."""
    return read_tilt_angles(path)


def _six_columns(path: Path) -> NDArray[np.float64]:
    rows = []
    for number, line in enumerate(read_text_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) != 6 or not np.isfinite(values).all():
            raise UserError(
                f"line {number} is not six numbers: {line.strip()!r}.",
                where=path,
                do="A .xf has a11 a12 a21 a22 dx dy per section.",
            )
        if values[0] * values[3] - values[1] * values[2] <= 0:
            raise UserError(f"line {number} mirrors the image.", where=path, do="Make the .xf again.")
        rows.append(values)
    if not rows:
        raise UserError("holds no transforms.", where=path, do="A .xf has one line per section.")
    return np.array(rows, dtype=np.float64)
