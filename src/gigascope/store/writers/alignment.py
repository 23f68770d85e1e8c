"""The alignment of a tilt series as files hold it, and the two ways in which programs write a shift.

With r a point of the raw view and a the same point aligned, both relative to the centre, x right and y up:
a = R(-phi) r - f and r = R(phi) a + T with T = R(phi) f. IMOD stores d = -f, AreTomo and the CryoET data portal T.
R(a) = [[cos a, -sin a], [sin a, cos a]]. With a magnification m, a = m R(-phi) (r - T): d = -m f.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError


@dataclass(frozen=True)
class Alignment:
    """Shifts and angles of every section of a raw stack, in stack order.

    Attributes
    ----------
    shifts : (tilt, 2) float64, f = (f_s, f_y) in pixels of the raw series, 0 for excluded views
    tilt_axis_deg : (tilt,) float64
    tilt_deg : (tilt,) float64; NaN where the file does not say it
    excluded : (tilt,) bool
    magnification : (tilt,) float64, size in the aligned view over that in the raw one; 1 where the file has none
    """

    shifts: NDArray[np.float64]
    tilt_axis_deg: NDArray[np.float64]
    tilt_deg: NDArray[np.float64]
    excluded: NDArray[np.bool_]
    magnification: NDArray[np.float64]

    @staticmethod
    def of(
        shifts: ArrayLike,
        tilt_axis_deg: ArrayLike,
        tilt_deg: ArrayLike | None = None,
        excluded: ArrayLike | None = None,
        magnification: ArrayLike | None = None,
    ) -> Alignment:
        """Check the arrays and fill in what is left out; `tilt_axis_deg` may be one number for all views.

        Raises
        ------
        ShapeError : `shifts` is not (tilt, 2), another array does not have `tilt` entries, or a value is not finite
        """
        f = np.asarray(shifts, dtype=np.float64)
        if f.ndim != 2 or f.shape[1] != 2:
            raise ShapeError(f"shifts have the shape {f.shape}, expected (tilt, 2) in the order s, y")
        n = len(f)
        axis = np.broadcast_to(np.asarray(tilt_axis_deg, dtype=np.float64), (n,)).copy()
        tilt = np.full(n, np.nan) if tilt_deg is None else np.asarray(tilt_deg, dtype=np.float64)
        out = np.zeros(n, dtype=bool) if excluded is None else np.asarray(excluded, dtype=bool)
        size = np.ones(n) if magnification is None else np.asarray(magnification, dtype=np.float64)
        for name, array in (("tilt_deg", tilt), ("excluded", out), ("magnification", size)):
            if array.shape != (n,):
                raise ShapeError(f"{name} has the shape {array.shape}, expected ({n},)")
        if not np.isfinite(f[~out]).all() or not np.isfinite([axis, size]).all() or np.isinf(tilt).any():
            raise ShapeError("an alignment with values that are not finite cannot be written")
        return Alignment(np.where(out[:, None], 0.0, f), axis, tilt, out, size)

    @property
    def n_views(self) -> int:
        """Number of sections of the stack."""
        return len(self.shifts)


def rotations(angle_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """R(angle), (tilt, 2, 2)."""
    angle = np.radians(angle_deg)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)


def raw_shifts(alignment: Alignment) -> NDArray[np.float64]:
    """T = R(phi) f, (tilt, 2) in x, y of the raw views."""
    return np.einsum("nij,nj->ni", rotations(alignment.tilt_axis_deg), alignment.shifts)


def aligned_shifts(raw: NDArray[np.float64], tilt_axis_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """f = R(-phi) T, (tilt, 2) in s, y of the aligned views."""
    return np.einsum("nij,nj->ni", rotations(-tilt_axis_deg), raw)
