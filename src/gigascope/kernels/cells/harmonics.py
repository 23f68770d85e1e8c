"""Real spherical harmonics to degree 8 on body directions, and a quadrature rule on the sphere.

Orthonormal on the unit sphere, without the Condon-Shortley phase: with u = (cos θ, sin θ sin φ, sin θ cos φ) for the
components (z, y, x), P_lm the associated Legendre function without sign and N_lm = √((2l + 1)/4π · (l - m)!/(l + m)!),

    Y_l0 = N_l0 P_l0(cos θ),  Y_lm = √2 N_lm P_lm(cos θ) cos mφ,  Y_l-m = √2 N_lm P_lm(cos θ) sin mφ  (m > 0).

Y_lm stands at index l² + l + m; so Y_10 ∝ z, Y_11 ∝ x and Y_1-1 ∝ y, all with positive factors.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

DEGREE = 8
N_HARMONICS = (DEGREE + 1) ** 2


def real_harmonics(directions: Tensor, degree: int = DEGREE) -> Tensor:
    """All Y_lm up to `degree`.

    Parameters
    ----------
    directions : (..., 3) unit vectors (z, y, x)
    degree : largest l

    Returns
    -------
    (..., (degree + 1)²) like `directions`
    """
    z, y, x = directions.unbind(-1)
    out: list[Tensor] = [z] * (degree + 1) ** 2
    cosine, sine = torch.ones_like(z), torch.zeros_like(z)  # of mφ, times sin^m θ
    sectoral = 1.0  # P_mm without sin^m θ: (2m - 1)!!
    for m in range(degree + 1):
        previous, current = torch.zeros_like(z), torch.full_like(z, sectoral)
        for degree_l in range(m, degree + 1):
            if degree_l > m:
                # (l - m) P_lm = (2l - 1) z P_(l-1)m - (l + m - 1) P_(l-2)m
                following = ((2 * degree_l - 1) * z * current - (degree_l + m - 1) * previous) / (degree_l - m)
                previous, current = current, following
            size = normalisation(degree_l, m)
            out[degree_l * degree_l + degree_l + m] = size * current * cosine
            if m > 0:
                out[degree_l * degree_l + degree_l - m] = size * current * sine
        cosine, sine = cosine * x - sine * y, sine * x + cosine * y
        sectoral *= 2 * m + 1
    return torch.stack(out, dim=-1)


def normalisation(degree: int, order: int) -> float:
    """N_lm, times √2 for orders above 0."""
    ratio = math.factorial(degree - order) / math.factorial(degree + order)
    return math.sqrt((2 * degree + 1) / (4 * math.pi) * ratio * (1 if order == 0 else 2))


def harmonic_scales(rms: float, exponent: float, degree: int = 6) -> Tensor:
    """Standard deviations of random coefficients whose sum has a wanted RMS over the sphere, in expectation.

    Parameters
    ----------
    rms : of Σ q_lm Y_lm
    exponent : p of the variance l^(-2p)
    degree : largest l, up to 8; the smallest is 2, since degree 0 is size and degree 1 a shift

    Returns
    -------
    (81,) float64, to be multiplied with normal numbers; 0 outside l = 2 .. degree
    """
    scales = torch.zeros(N_HARMONICS, dtype=torch.float64)
    for degree_l in range(2, degree + 1):
        scales[degree_l * degree_l : (degree_l + 1) ** 2] = float(degree_l) ** -exponent
    # orthonormality: the mean square over the sphere is Σ q² / 4π
    size = scales.square().sum().div(4 * math.pi).sqrt()
    return scales * (rms / size) if float(size) > 0 else scales


@functools.cache
def sphere_rule(n_rings: int = 24) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre in cos θ times equal steps in φ: exact for harmonics up to degree 2 n_rings - 1.

    Returns
    -------
    directions : (2 n_rings², 3) float64 unit vectors (z, y, x)
    weights : (2 n_rings²,) float64, sum 4π
    """
    heights, weights = np.polynomial.legendre.leggauss(n_rings)
    turns = (np.arange(2 * n_rings) + 0.5) * math.pi / n_rings
    z = np.repeat(heights, 2 * n_rings)
    flat = np.sqrt(1 - z * z)
    y, x = flat * np.tile(np.sin(turns), n_rings), flat * np.tile(np.cos(turns), n_rings)
    spread = np.repeat(weights, 2 * n_rings) * (math.pi / n_rings)
    return torch.from_numpy(np.stack((z, y, x), axis=1)), torch.from_numpy(spread)
