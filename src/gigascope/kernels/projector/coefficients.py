"""Where rays meet the grid: one line of five numbers per view, from which every kernel computes its weights.

In both branches of Joseph's method a ray visits an outer index m one by one (plane k or column j) and sits at a real
position on the inner axis (x or z) that is linear in the detector sample i and in m:

    position(i, m) = alpha i + beta m + gamma,     weight  g (1 - |position - n|) at the inner index n
"""

from __future__ import annotations

import torch
from torch import Tensor

N_COLUMNS = 5
BRANCH, ALPHA, BETA, GAMMA, WEIGHT = range(N_COLUMNS)


def ray_table(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float) -> Tensor:
    """Coefficients of all rays of all views, in float64 because positions reach thousands of voxels.

    Parameters
    ----------
    angles : (tilt,) float64, radians
    n_s : detector samples across the tilt axis
    shape_zx : (z, x) of the volume
    hz : voxel size in z over voxel size in x

    Returns
    -------
    (tilt, 5) float64: branch (0: planes, inner axis x; 1: columns, inner axis z), alpha, beta, gamma, g
    """
    n_z, n_x = shape_zx
    cos, sin = torch.cos(angles), torch.sin(angles)
    planes = cos.abs() >= sin.abs() * hz
    one = torch.ones_like(cos)
    # the unused branch may divide by zero: give it a harmless divisor first
    c, s = torch.where(planes, cos, one), torch.where(planes, one, sin)
    alpha = torch.where(planes, 1 / c, 1 / (s * hz))
    beta = torch.where(planes, -hz * sin / c, -cos / (s * hz))
    inner_centre = torch.where(planes, (n_x - 1) / 2 * one, (n_z - 1) / 2 * one)
    outer_centre = torch.where(planes, (n_z - 1) / 2 * one, (n_x - 1) / 2 * one)
    gamma = inner_centre - alpha * ((n_s - 1) / 2) - beta * outer_centre
    weight = torch.where(planes, hz / c.abs(), 1 / s.abs())
    return torch.stack(((~planes).to(torch.float64), alpha, beta, gamma, weight), dim=1)
