"""Non-negative amplitudes for viewers that cannot take light away: the same field, as well as it can be done.

Minimises ``|Phi (a - a0)|^2`` over ``a >= 0``, `Phi` the samples of all Gaussians, by accelerated projected gradients,
each Gaussian in the unit of its own energy; negative Gaussians carved edges and gaps that the positive ones around them
now have to leave out. Beck and Teboulle, SIAM J. Imaging Sci. 2, 183 (2009), restarted where the step turns uphill:
O'Donoghue and Candes, Found. Comput. Math. 15, 715 (2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gigascope.compression.decoding.indexing import Box, boxes
from gigascope.compression.mixture import Mixture
from gigascope.kernels import gaussians

BLOCK = (64, 128, 128)
ITERATIONS = 60
# A step this much smaller than the amplitudes ends the search: a thousandth of a grey value in 12 bits.
TOLERANCE = 1e-6

Report = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class Baked:
    """The outcome.

    Attributes
    ----------
    mixture : the Gaussians that are left, amplitudes above 0
    misfit : norm of the change of the field over the norm of the field, without background
    """

    mixture: Mixture
    misfit: float


def bake(
    mixture: Mixture,
    cuts: Tensor,
    shape: Sequence[int],
    iterations: int = ITERATIONS,
    report: Report = lambda steps: steps,
) -> Baked:
    """Refit the amplitudes of a mixture so that none is negative.

    Parameters
    ----------
    mixture, cuts : N Gaussians in voxels, and where they end; on the device that computes
    shape : (z, y, x) voxels of the volume; its field is made block by block, never whole
    iterations : at most
    report : wraps the iterations, to show how far they are
    """
    if len(mixture) == 0 or bool((mixture.amplitudes >= 0).all()):
        return Baked(mixture, 0.0)
    gram = _Gram(mixture, cuts, shape)
    start = mixture.amplitudes.double()
    unit = gram.diagonal.clamp_min(1e-12).sqrt()

    def gradient(u: Tensor) -> Tensor:
        return gram.times(u / unit - start) / unit

    step = 1 / _largest_eigenvalue(lambda u: gram.times(u / unit) / unit, unit)
    u = point = start.clamp_min(0) * unit
    momentum = 1.0
    for _ in report(range(iterations)):
        slope = gradient(point)
        following = (point - step * slope).clamp_min(0)
        moved = following - u
        if float(((point - following) * moved).sum()) > 0:  # uphill: forget the momentum
            momentum = 1.0
        faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        point = following + (momentum - 1) / faster * moved
        u, momentum = following, faster
        if float(moved.norm()) <= TOLERANCE * float(u.norm()):
            break
    amplitudes = u / unit
    change = amplitudes - start
    misfit = math.sqrt(max(0.0, _dot(change, gram.times(change)) / max(_dot(start, gram.times(start)), 1e-30)))
    kept = amplitudes > 0
    return Baked(replace(mixture, amplitudes=amplitudes.to(mixture.amplitudes))[kept], misfit)


class _Gram:
    """Products with the matrix of inner products of Gaussians, through their samples, block by block."""

    def __init__(self, mixture: Mixture, cuts: Tensor, shape: Sequence[int]) -> None:
        self.parts: list[tuple[Box, Tensor]] = []
        extents = mixture.extents(cuts)
        z, y, x = (slice(0, n) for n in shape)
        for box in boxes((z, y, x), BLOCK):
            low = mixture.means.new_tensor([b.start for b in box])
            high = mixture.means.new_tensor([b.stop - 1 for b in box])
            reaching = ((mixture.means + extents >= low) & (mixture.means - extents <= high)).all(1)
            if reaching.any():
                self.parts.append((box, reaching.nonzero()[:, 0]))
        self.mixture, self.cuts = mixture, cuts
        self.diagonal = self._sum(self._energies)

    def times(self, amplitudes: Tensor) -> Tensor:
        """(N,) float64 inner products of every Gaussian with the field of these amplitudes (N,)."""
        return self._sum(lambda box, rows: self._products(box, rows, amplitudes))

    def _sum(self, of_block: Callable[[Box, Tensor], Tensor]) -> Tensor:
        total = torch.zeros(len(self.mixture), dtype=torch.float64, device=self.mixture.means.device)
        for box, rows in self.parts:
            total[rows] += of_block(box, rows).double()
        return total

    def _products(self, box: Box, rows: Tensor, amplitudes: Tensor) -> Tensor:
        geometry, cuts, origin, shape = self._block(box, rows)
        field = gaussians.evaluate(*geometry, amplitudes[rows].to(geometry[0]), cuts, shape, origin)
        return gaussians.moments(*geometry, cuts, field, origin)[:, 0]

    def _energies(self, box: Box, rows: Tensor) -> Tensor:
        geometry, cuts, origin, shape = self._block(box, rows)
        return gaussians.squared_sums(*geometry, cuts, geometry[0].new_ones(shape), origin)

    def _block(self, box: Box, rows: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, list[float], list[int]]:
        chosen = self.mixture[rows]
        geometry = chosen.means, chosen.log_scales, chosen.quaternions
        return geometry, self.cuts[rows], [float(b.start) for b in box], [b.stop - b.start for b in box]


def _largest_eigenvalue(times: Callable[[Tensor], Tensor], like: Tensor, iterations: int = 12) -> float:
    """Upper estimate by the power method; no entry of the matrix is negative, so ones are a good start."""
    vector = torch.ones_like(like)
    value = 1.0
    for _ in range(iterations):
        vector = times(vector / vector.norm())
        value = float(vector.norm())
    return 1.05 * value


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())
