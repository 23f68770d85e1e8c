"""Random mixtures of Gaussians for the kernel tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Gaussians(NamedTuple):
    """The arguments of the ops, in their order."""

    means: Tensor
    log_scales: Tensor
    quaternions: Tensor
    amplitudes: Tensor
    cuts: Tensor

    @property
    def geometry(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What ops on all but the amplitudes take."""
        return self.means, self.log_scales, self.quaternions, self.cuts

    def to(self, *target: torch.dtype | str) -> Gaussians:
        """In another dtype or on another device."""
        return Gaussians(*(tensor.to(*target) for tensor in self))


def mixture(
    rng: np.random.Generator,
    n: int,
    shape: Sequence[int],
    scales: tuple[float, float] = (0.45, 4.5),
    aspect: float = 10.0,
    c_max: float = 3.5,
    eps: float = 1e-4,
    margin: float = 2.0,
) -> Gaussians:
    """Signed amplitudes up to 1, every rotation, means also `margin` outside of the shape; float32.

    Scales are within `scales`, those of one Gaussian within a ratio of `aspect`; a Gaussian ends at `c_max` or where
    it is below `eps`.
    """
    means = rng.uniform(-margin, np.array(shape) - 1 + margin, (n, 3))
    middle = rng.uniform(*np.log(scales), (n, 1))
    log_scales = middle + rng.uniform(-0.5, 0.5, (n, 3)) * math.log(aspect)
    quaternions = rng.standard_normal((n, 4)) * rng.uniform(0.2, 3, (n, 1))
    amplitudes = rng.uniform(0.05, 1, n) * rng.choice([-1, 1], n)
    arrays = means, np.clip(log_scales, *np.log(scales)), quaternions, amplitudes
    tensors = [torch.from_numpy(array).float() for array in arrays]
    ratio = torch.clamp(tensors[3].abs() / eps, min=1)
    return Gaussians(*tensors, torch.sqrt(2 * torch.log(ratio)).clamp(max=c_max))
