"""Amplitudes by least squares: for fixed geometry the field is linear in them, and conjugate gradients solve for all.

The normal equations ``(Phi^T W Phi + mu I) a = Phi^T W v`` are applied with the kernels: `Phi a` is a rendering,
`Phi^T e` the correlation of a volume with every Gaussian. Hestenes and Stiefel, J. Res. NBS 49, 409 (1952).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gigascope.compression.fitting.region import Region
from gigascope.compression.mixture import Mixture

# Fraction of each Gaussian's own energy that is added to the diagonal: two that coincide would share any amplitude.
DAMPING = 1e-3
# Squared residual, of the first one, at which float32 has no more to give; further steps would divide 0 by 0.
CONVERGED = 1e-12


def solve_amplitudes(
    region: Region, mixture: Mixture, iterations: int = 8, nonneg: bool = False, start: Tensor | None = None
) -> Mixture:
    """The mixture with the amplitudes that fit the region best; the squared error falls with every iteration.

    Parameters
    ----------
    mixture : its amplitudes tell where each Gaussian ends
    start : (N,) amplitudes to begin with; None: the mixture's
    iterations : of conjugate gradients, preconditioned by the energies
    nonneg : negative amplitudes are set to 0
    """
    if len(mixture) == 0:
        return mixture
    cuts = region.truncation.cuts(mixture)
    diagonal = region.squares(mixture, cuts).clamp_min(1e-12)
    damping = DAMPING * diagonal

    def apply(a: Tensor) -> Tensor:
        field = region.render(replace(mixture, amplitudes=a), cuts)
        return region.correlate(mixture, cuts, region.weight * field) + damping * a

    amplitudes = mixture.amplitudes if start is None else start
    rendered = region.render(replace(mixture, amplitudes=amplitudes), cuts)
    r = region.correlate(mixture, cuts, region.weight * (region.target - rendered))
    step = torch.zeros_like(mixture.amplitudes)
    z = r / diagonal
    p = z.clone()
    rho = first = _dot(r, z)
    for _ in range(iterations):
        if rho <= CONVERGED * first:
            break
        q = apply(p)
        alpha = rho / _dot(p, q)
        step += alpha * p
        r = r - alpha * q
        z = r / diagonal
        rho, before = _dot(r, z), rho
        p = z + (rho / before) * p
    amplitudes = amplitudes + step
    return replace(mixture, amplitudes=amplitudes.clamp_min(0) if nonneg else amplitudes)


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())
