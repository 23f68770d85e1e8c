"""Gaussian PSFs whose widths grow with depth."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, erfinv

F64 = NDArray[np.float64]


def widths(sigma_um: tuple[float, float, float], growth_um: float, depth: float) -> tuple[float, ...]:
    """(z, y, x) standard deviations at a depth: sigma sqrt(1 + (depth / growth)^2)."""
    return tuple(s * math.sqrt(1 + (depth / growth_um) ** 2) for s in sigma_um)


def reach(sigma: tuple[float, ...], energy: float) -> tuple[float, float, float]:
    """(z, y, x) half sizes that hold `energy`, half of the loss along z, half outside an ellipse in y and x."""
    loss = (1 - energy) / 2
    around = math.sqrt(-2 * math.log(loss))
    return sigma[0] * math.sqrt(2) * float(erfinv(1 - loss)), sigma[1] * around, sigma[2] * around


def octant(sigma: tuple[float, ...], half: tuple[int, int, int], voxel: tuple[float, float, float]) -> F64:
    """(2 half_z + 1, half_y + 1, half_x + 1) means over voxels, by the error function."""
    axes = []
    for axis, (s, h, v) in enumerate(zip(sigma, half, voxel)):
        edges = (np.arange(-h if axis == 0 else 0, h + 2) - 0.5) * v
        axes.append(np.diff(erf(edges / (math.sqrt(2) * s))) / 2)
    z, y, x = axes
    return z[:, None, None] * y[:, None] * x
