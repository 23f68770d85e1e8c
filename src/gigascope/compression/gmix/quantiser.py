"""The law by which parameters of Gaussians become integers, as numbers that stand in a file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gigascope.compression.gmix import exact

# Positions are coded as a cell of this edge (voxels) and a place in it; the cell gives the order of the rows.
CELL = 2
# More than any integer of an amplitude needs.
_N_CLASSES = 64


@dataclass(frozen=True)
class Quantiser:
    """How parameters become integers.

    Attributes
    ----------
    position_bits : fixed law: binary digits of the position below one voxel
    scale_bits : fixed law: log scales are one of ``2**scale_bits`` values
    rotation_bits : fixed law: of each of the three small components of the quaternion
    amplitude_bits : fixed law: with the sign
    adaptive : steps from the expected error, see :mod:`gigascope.compression.gmix.adaptive_law`
    theta : adaptive law: expected increase of the squared error per parameter, units of the amplitude squared x voxels
    sigma_min, sigma_max : range of the standard deviations, voxels
    delta_min, delta_max : adaptive law: bounds of the relative step
    """

    position_bits: int = 4
    scale_bits: int = 8
    rotation_bits: int = 8
    amplitude_bits: int = 10
    adaptive: bool = False
    theta: float = 0.0
    sigma_min: float = 0.4
    sigma_max: float = 20.0
    delta_min: float = 0.002
    delta_max: float = 0.6

    def __post_init__(self) -> None:
        if self.adaptive and not (math.isfinite(self.theta) and self.theta > 0):
            raise ValueError(f"the adaptive law needs a positive theta, got {self.theta}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} are no range")
        if not 0 < self.delta_min <= self.delta_max:
            raise ValueError(f"delta_min {self.delta_min} and delta_max {self.delta_max} are no range")
        bits = (self.position_bits, self.scale_bits, self.rotation_bits, self.amplitude_bits)
        if any(not low <= n <= high for n, low, high in zip(bits, (0, 2, 2, 2), (12, 12, 14, 16))):
            raise ValueError(f"bits {bits} of position, scale, rotation, amplitude are outside 0-12, 2-12, 2-14, 2-16")

    @property
    def log_range(self) -> tuple[float, float]:
        """Smallest and largest log scale."""
        return exact.log(self.sigma_min), exact.log(self.sigma_max)

    @property
    def amplitude_step(self) -> float:
        """Adaptive law: step of b."""
        return math.sqrt(12 * self.theta)

    def deltas(self) -> Tensor:
        """Adaptive law: (n,) float64, the relative step by class of b."""
        octaves = [2.0 ** (k // 2) * math.sqrt(3.0 if k % 2 else 1.5) for k in range(_N_CLASSES)]
        return torch.tensor([min(max(1 / o, self.delta_min), self.delta_max) for o in octaves], dtype=torch.float64)


# Interoperable tables: fine enough that nothing is lost that a viewer could show.
LEVEL_0 = Quantiser(position_bits=5, scale_bits=8, rotation_bits=10, amplitude_bits=12)
