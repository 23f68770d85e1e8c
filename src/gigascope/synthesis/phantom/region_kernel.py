"""Signed distance of points to a region, compiled: lobes with rough surfaces, or values on a grid.

A lobe is an ellipsoid whose radius is multiplied by exp(Σ q_lm Y_lm). Its distance is that of first order (Taubin,
IEEE PAMI 13:1115, 1991): the implicit function over the length of its gradient, the roughness taken as constant.
"""

from __future__ import annotations

import math
from typing import Any

from numba import prange

from gigascope.kernels.parallel import exact_inline_kernel, exact_parallel_kernel


@exact_parallel_kernel
def lobe_distances(
    points: Any, distance: Any, radial: Any, centres: Any, axes: Any, powers: Any, blend: float, floor: float
) -> None:
    """Distance (negative inside) and position between centre (0) and surface (1) of points (n, 3).

    `powers` (m, 81) are the coefficients of the roughness as a polynomial, see
    :func:`gigascope.synthesis.phantom.region.polynomial`.
    """
    for i in prange(points.shape[0]):
        z, y, x = points[i, 0], points[i, 1], points[i, 2]
        nearest, total, innermost = math.inf, 0.0, math.inf
        for pass_ in range(2):
            for lobe in range(centres.shape[0]):
                d, rho = _lobe(
                    z - centres[lobe, 0], y - centres[lobe, 1], x - centres[lobe, 2], axes[lobe], powers[lobe]
                )
                if pass_ == 0:
                    nearest, innermost = min(nearest, d), min(innermost, rho)
                else:
                    # smooth minimum: -k log Σ exp(-d / k), with the nearest taken out so that nothing overflows
                    total += math.exp((nearest - d) / blend)
            if blend <= 0.0 or centres.shape[0] == 1:
                break
        if blend > 0.0 and centres.shape[0] > 1:
            nearest -= blend * math.log(total)
        distance[i] = max(nearest, floor - z)
        radial[i] = innermost


@exact_inline_kernel
def _lobe(z: float, y: float, x: float, axes: Any, powers: Any) -> tuple[float, float]:
    """Distance to the surface of a lobe, and where between centre and surface the point is."""
    r2 = z * z + y * y + x * x
    if r2 < 1e-18:
        return -min(axes[0], axes[1], axes[2]), 0.0
    sz, sy, sx = z / axes[0], y / axes[1], x / axes[2]
    k0 = math.sqrt(sz * sz + sy * sy + sx * sx)
    k1 = math.sqrt((sz / axes[0]) ** 2 + (sy / axes[1]) ** 2 + (sx / axes[2]) ** 2)
    r = math.sqrt(r2)
    rough = math.exp(_polynomial(z / r, y / r, x / r, powers))
    rho = k0 / rough
    return (rho - 1.0) * k0 * rough / k1, rho


@exact_inline_kernel
def _polynomial(z: float, y: float, x: float, powers: Any) -> float:
    """Σ c_ab z^a y^b x^(n-a-b) of the degrees 7 and 8, by Horner's rule; 36 + 45 terms."""
    total, k = 0.0, 0
    for degree in range(7, 9):
        outer = 0.0
        for a in range(degree, -1, -1):
            inner, px = 0.0, 1.0
            # Σ_b c_ab y^b x^(degree - a - b), from the highest power of y down
            for _ in range(degree - a + 1):
                inner = inner * y + powers[k] * px
                px *= x
                k += 1
            outer = outer * z + inner
        total += outer
    return total


@exact_parallel_kernel
def interpolate(points: Any, values: Any, low: Any, spacing: Any, out: Any) -> None:
    """Trilinear, from values at low + i spacing; beyond the grid the edge's value plus the way to it."""
    for i in prange(points.shape[0]):
        out[i] = grid_value(points[i, 0], points[i, 1], points[i, 2], values, low, spacing)


@exact_inline_kernel
def grid_value(z: float, y: float, x: float, values: Any, low: Any, spacing: Any) -> float:
    """One value of :func:`interpolate`."""
    gz, gy, gx = (z - low[0]) / spacing[0], (y - low[1]) / spacing[1], (x - low[2]) / spacing[2]
    cz = min(max(gz, 0.0), values.shape[0] - 1.0)
    cy = min(max(gy, 0.0), values.shape[1] - 1.0)
    cx = min(max(gx, 0.0), values.shape[2] - 1.0)
    iz, iy, ix = (
        min(int(cz), values.shape[0] - 2),
        min(int(cy), values.shape[1] - 2),
        min(int(cx), values.shape[2] - 2),
    )
    fz, fy, fx = cz - iz, cy - iy, cx - ix
    total = 0.0
    for dz in range(2):
        wz = fz if dz else 1.0 - fz
        for dy in range(2):
            wy = fy if dy else 1.0 - fy
            for dx in range(2):
                wx = fx if dx else 1.0 - fx
                total += wz * wy * wx * values[iz + dz, iy + dy, ix + dx]
    beyond = ((gz - cz) * spacing[0]) ** 2 + ((gy - cy) * spacing[1]) ** 2 + ((gx - cx) * spacing[2]) ** 2
    return total + math.sqrt(beyond)
