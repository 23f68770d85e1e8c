"""Even light: gain of every camera and the fall of its light over the field, from the flat target.

Two views that see the same point of the target differ by their cameras' light alone, whatever the target's albedo is.
The mean intensities of the two blocks of every tie point say so for the whole field at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.topography.calibration.field import N_TERMS, evaluate, terms, whole_field
from gigascope.topography.calibration.layout import Layout
from gigascope.topography.calibration.tie_points import TiePoints

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# A camera whose light no tie point tells has none to correct: standard deviations of log gain and of coefficients.
PRIOR_GAIN, PRIOR_TERM = 1.0, 1.0
# Relative scatter of a block's ratio below which there is only noise.
LEAST_SCALE = 1e-4


@dataclass(frozen=True, eq=False)
class Illumination:
    """Factors that make the light of all cameras even.

    Attributes
    ----------
    coefficients : (cameras, 6) float64: 1 + a0 + a1 x + a2 y + a3 x^2 + a4 y^2 + a5 x y, coordinates as in
        :mod:`gigascope.topography.calibration.field`; a0 is 0, the gain holds it
    gain : (cameras,) float64, geometric mean 1
    residual : relative rms of what two views of one point still differ by
    """

    coefficients: F64
    gain: F64
    residual: float


# Order of the coefficients a0..a5 (1, x, y, x^2, y^2, x y) in the order of the field's terms (1, x, y, x^2, x y, y^2).
_ORDER = np.array([0, 1, 2, 3, 5, 4])


def fit_illumination(ties: TiePoints, where: Layout, size: tuple[int, int], *, rounds: int = 8) -> Illumination:
    """Gains and coefficients of all cameras.

    Parameters
    ----------
    ties : with the mean intensity of their blocks
    where : cameras of the views
    size : (R, C) of a view

    Notes
    -----
    Gauss-Newton on log I_a g_a P_a(p_a) - log I_b g_b P_b(p_b) with weights of Cauchy. A linear fall of light is seen
    too: views of one camera at two stage positions differ by it, and have the same gain.
    """
    lit = (ties.light > 0).all(axis=1)
    camera = where.camera[ties.view[lit]]
    ratio = np.log(ties.light[lit, 0] / ties.light[lit, 1])
    fields = [terms(p[lit], size)[:, 1:] for p in (ties.first, ties.second)]
    n = where.n_cameras
    x = np.zeros((n, N_TERMS))  # log gain, then the five terms
    prior = np.tile(np.array([PRIOR_GAIN] + [PRIOR_TERM] * (N_TERMS - 1)) ** -2.0, n)
    residual, scale = ratio, 1.0
    for _ in range(rounds):
        shape = [1.0 + np.einsum("tk,tk->t", f, x[camera[:, i], 1:]) for i, f in enumerate(fields)]
        residual = ratio + x[camera[:, 0], 0] - x[camera[:, 1], 0] + np.log(shape[0] / shape[1])
        scale = max(2.4 * 1.4826 * float(np.median(np.abs(residual))), LEAST_SCALE) if len(residual) else LEAST_SCALE
        weight = 1.0 / (1.0 + (residual / scale) ** 2) / (scale / 2.4) ** 2
        rows = [np.column_stack((np.ones(len(f)), f / s[:, None])) for f, s in zip(fields, shape)]
        matrix, right = _normal_equations(camera, np.concatenate((rows[0], -rows[1]), axis=1), weight, residual, n)
        matrix[np.diag_indices_from(matrix)] += prior
        x = x - np.linalg.solve(matrix, right + prior * x.ravel()).reshape(n, N_TERMS)
        # a factor that reaches 0 within the field is no light
        x[:, 1:] = np.clip(x[:, 1:], -1.5, 1.5)
    gain = np.exp(x[:, 0] - x[:, 0].mean())
    coefficients = np.zeros((n, N_TERMS))
    coefficients[:, _ORDER[1:]] = x[:, 1:]
    return Illumination(coefficients, gain, 1.4826 * float(np.median(np.abs(residual))) if len(residual) else 0.0)


def correction(
    coefficients: ArrayLike, gain: ArrayLike, camera: ArrayLike, rc: ArrayLike, size: tuple[int, int]
) -> F64:
    """(...) factors that pixels (..., 2) of views of cameras (...) are multiplied by.

    Parameters
    ----------
    coefficients, gain : (cameras, 6) and (cameras,) of :class:`Illumination`

    Returns
    -------
    float64: g / mean(g) (1 + (a0 - mean(a0)) + a1 x + a2 y + a3 x^2 + a4 y^2 + a5 x y)
    """
    a, g, i = np.asarray(coefficients), np.asarray(gain), np.asarray(camera)
    return np.asarray(g[i] / g.mean() * evaluate(_polynomial(a)[i], rc, size))


def correction_field(coefficients: ArrayLike, gain: ArrayLike, camera: int, size: tuple[int, int]) -> F64:
    """(R, C) float64: :func:`correction` at every pixel of the views of one camera."""
    a, g = np.asarray(coefficients), np.asarray(gain)
    return np.asarray(g[camera] / g.mean() * whole_field(_polynomial(a)[camera], size))


def _polynomial(coefficients: NDArray) -> F64:
    """Coefficients in the order of the field's terms, with the constant."""
    values = coefficients[..., _ORDER].astype(np.float64)
    values[..., 0] += 1.0 - coefficients[..., 0].mean()
    return np.asarray(values)


def _normal_equations(camera: I64, rows: F64, weight: F64, residual: F64, n: int) -> tuple[F64, F64]:
    """J^T W J (6 n, 6 n) and J^T W r of rows (t, 12): six of the first camera, six of the second."""
    matrix, right = np.zeros((n * N_TERMS, n * N_TERMS)), np.zeros(n * N_TERMS)
    code = camera[:, 0] * n + camera[:, 1]
    for pair in np.unique(code):
        here = np.flatnonzero(code == pair)
        index = np.concatenate([c * N_TERMS + np.arange(N_TERMS) for c in divmod(int(pair), n)])
        block = rows[here]
        weighted = block * weight[here, None]
        # one camera twice: both halves fall on the same six
        np.add.at(matrix, (index[:, None], index[None]), weighted.T @ block)
        np.add.at(right, index, weighted.T @ residual[here])
    return matrix, right
