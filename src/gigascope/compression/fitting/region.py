"""What the fit of one brick sees: target, weights and gate over brick and halo, and how well a field fits them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gigascope.compression.mixture import Mixture
from gigascope.kernels import gaussians


@dataclass(frozen=True)
class Truncation:
    """Where a Gaussian ends: at `eps` (in the unit of the amplitudes) or at `c_max` standard deviations."""

    c_max: float
    eps: float

    def cuts(self, mixture: Mixture) -> Tensor:
        """(N,) radii in own standard deviations."""
        return mixture.cuts(self.c_max, self.eps)


@dataclass(frozen=True)
class Region:
    """A brick with its halo, on one device.

    Attributes
    ----------
    target : (z, y, x) float32: volume minus background minus the Gaussians of other bricks, in units of the scale
    weight : (z, y, x) or () float32: of the squared error, one over the noise variance that counts
    gate : (z, y, x) bool: signal
    origin : (z, y, x) of the first voxel in the volume
    core : (first, last + 1) along z, y and x of the brick itself, in the volume
    truncation : of the Gaussians
    """

    target: Tensor
    weight: Tensor
    gate: Tensor
    origin: tuple[int, int, int]
    core: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    truncation: Truncation
    corner: tuple[float, float, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "corner", tuple(float(o) for o in self.origin))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of brick and halo."""
        z, y, x = self.target.shape
        return z, y, x

    def render(self, mixture: Mixture, cuts: Tensor | None = None) -> Tensor:
        """(z, y, x) sum of the Gaussians."""
        cuts = self.truncation.cuts(mixture) if cuts is None else cuts
        return gaussians.evaluate(*mixture.tensors, cuts, self.shape, self.corner)

    def correlate(self, mixture: Mixture, cuts: Tensor, volume: Tensor) -> Tensor:
        """(N,) sums of `volume` times each Gaussian of amplitude 1."""
        columns = (mixture.means, mixture.log_scales, mixture.quaternions)
        return gaussians.moments(*columns, cuts, volume, self.corner)[:, 0]

    def squares(self, mixture: Mixture, cuts: Tensor, volume: Tensor | None = None) -> Tensor:
        """(N,) sums of `volume` (none: the weight) times each squared Gaussian of amplitude 1."""
        weight = self.weight if volume is None else volume
        columns = (mixture.means, mixture.log_scales, mixture.quaternions)
        return gaussians.squared_sums(*columns, cuts, weight.expand(self.shape).contiguous(), self.corner)

    def distortion(self, residual: Tensor) -> float:
        """Weighted squared error."""
        return float((self.weight * residual.square()).sum(dtype=torch.float64))

    def inner(self) -> tuple[slice, slice, slice]:
        """The brick itself as slices into the region."""
        z, y, x = (slice(a - o, b - o) for (a, b), o in zip(self.core, self.origin))
        return z, y, x

    def psnr(self, residual: Tensor) -> float:
        """PSNR in the gate of the brick itself, decibels, peak 1; of the whole brick where the gate is empty."""
        inner = self.inner()
        errors, gate = residual[inner], self.gate[inner]
        chosen = errors[gate] if gate.any() else errors
        mse = float(chosen.square().mean(dtype=torch.float64))
        return -10 * math.log10(max(mse, 1e-20))

    def owned(self, mixture: Mixture) -> Tensor:
        """(N,) bool: the mean lies in the half-open brick, voxel i reaching from i - 1/2 to i + 1/2."""
        low = mixture.means.new_tensor([a - 0.5 for a, _ in self.core])
        high = mixture.means.new_tensor([b - 0.5 for _, b in self.core])
        return ((mixture.means >= low) & (mixture.means < high)).all(1)


def bounds(core: Sequence[tuple[int, int]], halo: int, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Brick and halo, clipped to the volume."""
    return tuple((max(0, a - halo), min(n, b + halo)) for (a, b), n in zip(core, shape))
