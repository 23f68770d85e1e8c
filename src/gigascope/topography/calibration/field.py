"""Quadratic polynomials over the field of a camera: the surface of focus, the illumination.

Coordinates are x = (column - C/2) / D and y = (row - R/2) / D with D = max(R, C), as in the poses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]
# 1, x, y, x^2, x y, y^2
N_TERMS = 6


def normalised(rc: ArrayLike, size: tuple[int, int]) -> tuple[F64, F64]:
    """(x, y) of pixels (..., 2) of an image of R x C pixels, -0.5 to 0.5 along the longer side."""
    at, larger = np.asarray(rc, dtype=np.float64), max(size)
    return (at[..., 1] - size[1] / 2) / larger, (at[..., 0] - size[0] / 2) / larger


def terms(rc: ArrayLike, size: tuple[int, int]) -> F64:
    """(..., 6) float64: 1, x, y, x^2, x y, y^2 at pixels (..., 2)."""
    x, y = normalised(rc, size)
    return np.stack((np.ones_like(x), x, y, x * x, x * y, y * y), axis=-1)


def evaluate(coefficients: ArrayLike, rc: ArrayLike, size: tuple[int, int]) -> F64:
    """(...) float64: values at pixels (..., 2) of a polynomial with coefficients (6,), or (..., 6) for each pixel."""
    return np.asarray((terms(rc, size) * np.asarray(coefficients, dtype=np.float64)).sum(axis=-1))


def whole_field(
    coefficients: ArrayLike, size: tuple[int, int], rows: slice = slice(None), cols: slice = slice(None)
) -> F64:
    """(rows, cols) float64: values of a polynomial at the pixels of some rows and columns of an image."""
    q = np.asarray(coefficients, dtype=np.float64)
    larger = max(size)
    y = ((np.arange(size[0])[rows] - size[0] / 2) / larger)[:, None]
    x = ((np.arange(size[1])[cols] - size[1] / 2) / larger)[None]
    return np.asarray(q[0] + q[2] * y + q[5] * y * y + x * (q[1] + q[4] * y + q[3] * x))
