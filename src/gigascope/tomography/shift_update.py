"""One Gauss-Newton step of the shifts from ten sums per view, with prior, covariance and gauge.

All on the host in float64: the sums are the only numbers that leave the device in an update.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.tomography.geometry import remove_gauge

F64 = NDArray[np.float64]

# longest step in pixels of the level; beyond it the linearisation of the model does not hold
MAX_STEP = 2.0


@dataclass(frozen=True)
class NormalEquations:
    """Per view: H = sum w g g^T, v = sum w g r and the residual variance s^2 (blurred images).

    Parameters
    ----------
    area : (tilt,) sum of weights
    hessian : (tilt, 2, 2)
    gradient : (tilt, 2)
    variance : (tilt,) s^2
    kappa : 1 + 12 sigma_g^2, the correlation that the blur gives the noise
    """

    area: F64
    hessian: F64
    gradient: F64
    variance: F64
    kappa: float

    def covariance(self, prior: float | None) -> F64:
        """Cov(f_i) in squared pixels of the level, (tilt, 2, 2); `prior`: its sigma in pixels, none: without it."""
        damped = self.hessian + (0.0 if prior is None else self._damping(prior)[:, None, None] * np.eye(2))
        noise = self.variance * self.kappa
        covariance = np.full_like(damped, np.inf)
        regular = np.linalg.det(damped) > np.finfo(np.float64).tiny
        covariance[regular] = noise[regular, None, None] * np.linalg.inv(damped[regular])
        return covariance

    def sigma(self, prior: float | None = None) -> F64:
        """Standard deviations of (f_s, f_y), (tilt, 2), pixels of the level."""
        return np.sqrt(np.diagonal(self.covariance(prior), axis1=1, axis2=2))

    def step(self, offset: F64, prior: float) -> F64:
        """d = (H + mu I)^-1 (v - mu (f - f0)), (tilt, 2); `offset` is f - f0 in pixels of the level."""
        mu = self._damping(prior)
        damped = self.hessian + mu[:, None, None] * np.eye(2)
        target = self.gradient - mu[:, None] * offset
        increment = np.zeros_like(target)
        regular = np.linalg.det(damped) > np.finfo(np.float64).tiny
        increment[regular] = np.linalg.solve(damped[regular], target[regular, :, None])[:, :, 0]
        return increment

    def _damping(self, prior: float) -> F64:
        return self.variance * self.kappa / prior**2


def normal_equations(sums: F64, *, centre: bool, smooth: float) -> NormalEquations:
    """Normal equations from the raw sums of `kernels.warp.shift_sums`.

    Parameters
    ----------
    sums : (tilt, 10) float64: 1, g_s, g_y, r, g_s g_s, g_s g_y, g_y g_y, g_s r, g_y r, r r
    centre : remove the weighted means of g and r (an unknown constant per view); not for an isolated object, whose mass
        carries information
    smooth : sigma of the blur in pixels
    """
    area = sums[:, 0]
    scale = 1 / np.maximum(area, np.finfo(np.float64).tiny) if centre else np.zeros_like(area)
    g_s, g_y, r = sums[:, 1], sums[:, 2], sums[:, 3]
    hessian = np.empty((len(sums), 2, 2))
    hessian[:, 0, 0] = sums[:, 4] - g_s * g_s * scale
    hessian[:, 0, 1] = hessian[:, 1, 0] = sums[:, 5] - g_s * g_y * scale
    hessian[:, 1, 1] = sums[:, 6] - g_y * g_y * scale
    gradient = np.stack([sums[:, 7] - g_s * r * scale, sums[:, 8] - g_y * r * scale], axis=1)
    variance = np.maximum(sums[:, 9] - r * r * scale, 0.0) / np.maximum(area, 1.0)
    return NormalEquations(area, hessian, gradient, variance, 1 + 12 * smooth**2)


def damped_increment(
    equations: NormalEquations,
    offset: F64,
    previous: F64,
    tilt: F64,
    use: NDArray[np.bool_],
    *,
    prior: float,
    beta: float,
    step: float,
) -> F64:
    """Increment of the shifts in pixels of the level: Gauss-Newton, momentum, length limit, gauge.

    Parameters
    ----------
    equations : of all views
    offset : (tilt, 2), f - f0
    previous : (tilt, 2), the last increment
    tilt : (tilt,) radians
    use : (tilt,) views that determine the gauge
    prior : sigma of the prior, pixels of the level
    beta, step : momentum, and a factor on the step

    Returns
    -------
    (tilt, 2) float64
    """
    increment = step * equations.step(offset, prior) + beta * previous
    length = np.linalg.norm(increment, axis=1, keepdims=True)
    increment = increment * np.minimum(1.0, MAX_STEP / np.maximum(length, MAX_STEP))
    return remove_gauge(increment, tilt, use)
