"""Sums of a mixture along an axis without its voxels: every Gaussian's share of a pixel is an error function.

Along a line through a Gaussian the whitened distance is ``m2 + u^2``: `m2` of its marginal in the plane, `u` the
standardised distance from the conditional mean. Inside the cut, ``u^2 < cut^2 - m2``, the integral is
``a exp(-m2 / 2) s sqrt(pi / 2) (erf(u1 / sqrt 2) - erf(u0 / sqrt 2))``; without a cut that is the marginal Gaussian of
height ``a sqrt(2 pi / (Sigma^-1)_zz)``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.decoding import resolution
from gigascope.compression.mixture import Mixture
from gigascope.kernels.parallel import parallel_kernel

# Below this standard deviation along the line, in voxels, samples are added one by one: the sum of samples departs from
# the integral by 2 exp(-2 pi^2 s^2) of it, 1.3e-4 here and 4 % at the narrowest that is fitted (Poisson's sum formula).
DIRECT = 0.7
# rows of the picture that a thread fills at a time
BAND = 16
# columns of a line: mean in the plane (2), along it, precision in the plane (3), slopes (2), s, cut^2, a, extents (2)
N_COLUMNS = 13


def add_sums(
    picture: NDArray[np.float64],
    mixture: Mixture,
    cuts: Tensor,
    axis: int,
    limits: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    """Add to each pixel the samples of the mixture along an axis.

    Parameters
    ----------
    picture : the two other axes, in their order; written
    mixture, cuts : N Gaussians (voxels) and where they end
    axis : that is summed over
    limits : first and last + 1 voxel along it
    corner : voxel of the first pixel along the two other axes
    """
    if len(mixture) == 0:
        return
    lines = _lines(mixture, cuts, axis)
    lines[:, 0] -= corner[0]
    lines[:, 1] -= corner[1]
    work = 400.0 * float((lines[:, 11] * lines[:, 12]).sum())
    _add(lines, limits[0], limits[1], picture, work=work)


def _lines(mixture: Mixture, cuts: Tensor, axis: int) -> NDArray[np.float64]:
    """(N, N_COLUMNS) what the loop over pixels needs."""
    plane = [k for k in range(3) if k != axis]
    sigma = resolution.covariances(mixture)
    means, amplitudes, cut = (t.double().cpu() for t in (mixture.means, mixture.amplitudes, cuts))
    yy, xx, yx = sigma[:, plane[0], plane[0]], sigma[:, plane[1], plane[1]], sigma[:, plane[0], plane[1]]
    ay, ax = sigma[:, axis, plane[0]], sigma[:, axis, plane[1]]
    det = yy * xx - yx * yx
    p_yy, p_xx, p_yx = xx / det, yy / det, -yx / det
    slope_y, slope_x = ay * p_yy + ax * p_yx, ay * p_yx + ax * p_xx
    along = (sigma[:, axis, axis] - slope_y * ay - slope_x * ax).clamp_min(1e-12).sqrt()
    columns = [means[:, plane[0]], means[:, plane[1]], means[:, axis], p_yy, p_xx, p_yx, slope_y, slope_x, along]
    columns += [cut * cut, amplitudes, cut * yy.sqrt(), cut * xx.sqrt()]
    return torch.stack(columns, 1).numpy()


@parallel_kernel
def _add(lines: NDArray[np.float64], first: int, last: int, picture: NDArray[np.float64]) -> None:
    n_y, n_x = picture.shape
    for band in prange((n_y + BAND - 1) // BAND):
        top, bottom = band * BAND, min((band + 1) * BAND, n_y)
        for i in range(lines.shape[0]):
            line = lines[i]
            y0 = max(top, math.ceil(line[0] - line[11]))
            y1 = min(bottom - 1, math.floor(line[0] + line[11]))
            x0 = max(0, math.ceil(line[1] - line[12]))
            x1 = min(n_x - 1, math.floor(line[1] + line[12]))
            for y in range(y0, y1 + 1):
                d_y = y - line[0]
                for x in range(x0, x1 + 1):
                    d_x = x - line[1]
                    m = line[3] * d_y * d_y + line[4] * d_x * d_x + 2 * line[5] * d_y * d_x
                    if m >= line[9]:
                        continue
                    middle = line[2] + line[6] * d_y + line[7] * d_x
                    half = math.sqrt(line[9] - m)
                    share = 0.0
                    if line[8] < DIRECT:
                        z0 = max(first, math.ceil(middle - half * line[8]))
                        z1 = min(last - 1, math.floor(middle + half * line[8]))
                        for z in range(z0, z1 + 1):
                            u = (z - middle) / line[8]
                            share += math.exp(-0.5 * u * u)
                    else:
                        u0 = max(-half, (first - 0.5 - middle) / line[8])
                        u1 = min(half, (last - 0.5 - middle) / line[8])
                        if u1 > u0:
                            share = math.erf(u1 * math.sqrt(0.5)) - math.erf(u0 * math.sqrt(0.5))
                            share *= line[8] * math.sqrt(0.5 * math.pi)
                    picture[y, x] += line[10] * math.exp(-0.5 * m) * share
