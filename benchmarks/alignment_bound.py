"""Cramer-Rao bound of the shifts of a simulated series: no method that knows the specimen itself does better.

For a view p with noise of variance sigma^2 per pixel the Fisher information of its shift is sum g g^T / sigma^2, g the
gradient of the clean view; the constant of a section's view is not known, which centres g. The gauge, which errors are
reported without, takes 4 of 2 n numbers and is neglected.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gigascope.tomography.phantom import TiltSeriesSim


def cramer_rao(sim: TiltSeriesSim) -> float:
    """RMS over the views of the smallest possible 2-D error, pixels."""
    variances: list[NDArray[np.float64]] = []
    for clean in sim.clean.astype(np.float64):
        # the variance of -log(counts / i0) is 1 / counts
        precision = sim.i0 * np.exp(-clean)
        gradients = [
            g - (0.0 if sim.extent == "object" else np.average(g, weights=precision)) for g in np.gradient(clean)
        ]
        fisher = np.array([[(precision * a * b).sum() for b in gradients] for a in gradients])
        variances.append(np.trace(np.linalg.inv(fisher)))
    return float(np.sqrt(np.mean(variances)))
