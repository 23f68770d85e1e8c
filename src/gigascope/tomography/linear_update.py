"""In-plane rotation and magnification of every view, the optional degrees of freedom of the joint solve.

A view with rotation a and magnification m shows at m R(a) x + f what an aligned one shows at x (about the centre of the
frame). Same scheme as for the shifts, with the columns -y g_s + s g_y (rotation) and s g_s + y g_y (magnification).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.tomography.masks import weighted_mean

F64 = NDArray[np.float64]

# columns of (tilt, 2) arrays of these parameters: radians, and magnification - 1
COLUMNS = ("rotation", "magnification")
# expected deviations: a degree, one per cent
PRIOR = np.array([np.deg2rad(1.0), 0.01])
# longest step of an update, so that the edge of a field of 128 samples moves by 2
MAX_STEP = 2.0 / 64.0
# order of the polynomial over tilt that magnifications do not have
SLOW = 4


@dataclass(frozen=True)
class LinearEquations:
    """Per view: H = sum w c c^T and v = sum w c r over both columns c, and the residual variance (blurred images).

    Parameters
    ----------
    hessian : (tilt, 2, 2)
    gradient : (tilt, 2)
    variance : (tilt,) with the correlation that the blur gives the noise
    """

    hessian: F64
    gradient: F64
    variance: F64

    def step(self, now: F64, tilt: F64, dof: tuple[str, ...], use: NDArray[np.bool_]) -> F64:
        """Increment (tilt, 2) from the present values, 0 for parameters that are not in `dof`.

        The mean rotation over the used views is taken out, which is the tilt axis angle's; of the magnification all
        that is a polynomial of the tilt up to order 4: the mean is the pixel size's, and what the missing wedge does to
        the volume looks like a slow change (2 % from 0 to 60 degrees on a simulated object without any).
        """
        columns = np.flatnonzero([name in dof for name in COLUMNS])
        pick = np.ix_(np.arange(len(now)), columns, columns)
        mu = self.variance[:, None] / PRIOR[columns] ** 2
        damped = self.hessian[pick] + mu[:, :, None] * np.eye(len(columns))
        target = self.gradient[:, columns] - mu * now[:, columns]
        regular = np.abs(np.linalg.det(damped)) > np.finfo(np.float64).tiny
        increment = np.zeros_like(now)
        found = np.zeros_like(target)
        found[regular] = np.linalg.solve(damped[regular], target[regular, :, None])[:, :, 0]
        found = np.clip(found, -MAX_STEP, MAX_STEP)
        for k, column in enumerate(columns):
            order = SLOW if COLUMNS[column] == "magnification" else 0
            fit = np.polynomial.Polynomial.fit(tilt[use], found[use, k], min(order, int(use.sum()) - 1))
            increment[:, column] = found[:, k] - fit(tilt)
        return increment


def linear_equations(model: Tensor, data: Tensor, weights: Tensor, *, centre: bool, smooth: float) -> LinearEquations:
    """Normal equations of rotation and magnification.

    Parameters
    ----------
    model, data, weights : (tilt, s, y) float32, model and data blurred by `smooth` pixels
    centre : take weighted means out (section), as for the shifts
    """
    s, y = (torch.arange(n, dtype=model.dtype, device=model.device) - (n - 1) / 2 for n in model.shape[1:])
    g_s, g_y = torch.gradient(model, dim=(1, 2))
    columns = [s[:, None] * g_y - y * g_s, s[:, None] * g_s + y * g_y, model - data]
    if centre:
        columns = [c - weighted_mean(c, weights).to(c.dtype)[:, None, None] for c in columns]
    sums = np.empty((len(model), 3, 3))
    for i, a in enumerate(columns):
        for j, b in enumerate(columns[: i + 1]):
            product = (weights * a * b).sum(dim=(1, 2), dtype=torch.float64)
            sums[:, i, j] = sums[:, j, i] = product.cpu().numpy()
    area = weights.sum(dim=(1, 2), dtype=torch.float64).clamp_min(1.0).cpu().numpy()
    return LinearEquations(sums[:, :2, :2], sums[:, :2, 2], sums[:, 2, 2] / area * (1 + 12 * smooth**2))
