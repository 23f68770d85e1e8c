"""A mixture of 3D Gaussians as a table of tensors, and what follows from its parameters alone.

Positions in voxels, components in the order (z, y, x), the centre of voxel i at the integer i. The field is
``background + sum a exp(-m / 2)``, ``m = |diag(1 / sigma) R(q)^T (x - mu)|^2``, exactly zero where ``m >= cut^2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """N Gaussians.

    Attributes
    ----------
    means : (N, 3) float32, voxels, (z, y, x)
    log_scales : (N, 3) float32, natural logarithm of the standard deviations along the own axes, voxels
    quaternions : (N, 4) float32, (w, x, y, z); normalised where it is used; R's columns are the own axes
    amplitudes : (N,) float32, signed, in units of the volume's scale
    """

    means: Tensor
    log_scales: Tensor
    quaternions: Tensor
    amplitudes: Tensor

    def __len__(self) -> int:
        return self.means.shape[0]

    @staticmethod
    def empty(device: torch.device | str = "cpu") -> Mixture:
        """No Gaussians."""
        means, log_scales, quaternions = (torch.zeros(0, n, device=device) for n in (3, 3, 4))
        return Mixture(means, log_scales, quaternions, torch.zeros(0, device=device))

    @staticmethod
    def concatenate(mixtures: Iterable[Mixture]) -> Mixture:
        """One after the other; nothing gives an empty mixture."""
        parts = [m for m in mixtures if len(m)]
        return (
            Mixture(*(torch.cat(columns) for columns in zip(*(m.tensors for m in parts)))) if parts else Mixture.empty()
        )

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four columns, in the order of the kernels' arguments."""
        return self.means, self.log_scales, self.quaternions, self.amplitudes

    def __getitem__(self, rows: Tensor | slice) -> Mixture:
        return Mixture(*(column[rows] for column in self.tensors))

    def to(self, device: torch.device | str) -> Mixture:
        """On another device."""
        return Mixture(*(column.to(device) for column in self.tensors))

    def moved(self, offset: Sequence[float]) -> Mixture:
        """With `offset` (z, y, x), voxels, added to every mean."""
        return Mixture(self.means + self.means.new_tensor(list(offset)), *self.tensors[1:])

    def cuts(self, c_max: float, eps: float) -> Tensor:
        """(N,) radius at which each Gaussian ends, in its own standard deviations; 0 below `eps`.

        The contribution there is `eps` (in the unit of the amplitudes), or the radius is `c_max`.
        """
        ratio = torch.clamp(self.amplitudes.abs() / eps, min=1.0)
        return torch.clamp(torch.sqrt(2 * torch.log(ratio)), max=c_max)

    def rotations(self) -> Tensor:
        """(N, 3, 3), columns are the own axes, components (z, y, x)."""
        w, x, y, z = torch.nn.functional.normalize(self.quaternions, dim=1).unbind(1)
        rows = (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)

    def covariances(self) -> Tensor:
        """(N, 3, 3), voxels squared, components (z, y, x)."""
        axes = self.rotations() * self.log_scales.exp()[:, None, :]
        return axes @ axes.transpose(1, 2)

    def extents(self, cuts: Tensor) -> Tensor:
        """(N, 3) half sizes of the axis-aligned boxes around the cut ellipsoids, voxels."""
        axes = self.rotations() * self.log_scales.exp()[:, None, :]
        return cuts[:, None] * axes.square().sum(2).sqrt()

    def energies(self) -> Tensor:
        """(N,) integral of each squared Gaussian of amplitude 1, ``pi^(3/2) sigma1 sigma2 sigma3``, voxels."""
        return math.pi**1.5 * self.log_scales.sum(1).exp()
