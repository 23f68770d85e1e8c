"""A small 3D U-Net that finds nuclei: it holds the label term to the labels, and is the built-in quick segmenter.

It says of every voxel how surely it is nucleus, and how near the centre of its nucleus: 1 there, 0 at the farthest
voxel. Çiçek et al. 2016 (arXiv 1606.06650), with :class:`ChannelNorm`, so that windows give what the whole gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gigascope.synthesis.adaptation.norms import ChannelNorm

BASE, LEVELS = 16, 3
# With plain ReLU, losses of 80 steps of 8 channels end at 1.12 and, at three times the rate, find nothing; with this at
# 0.99 and 0.77.
SLOPE = 0.1
# Of the centre distance beside the foreground.
DISTANCE_WEIGHT = 2.0


class Segmenter(nn.Module):
    """Foreground and centre distance of nuclei.

    Parameters
    ----------
    base : channels of the first level, doubled from level to level
    flat : the first pooling leaves z as it is, for voxels that are twice as long as wide

    Attributes
    ----------
    stride : (z, y, x) voxels of the coarsest level
    """

    def __init__(self, base: int = BASE, flat: bool = True) -> None:
        super().__init__()
        self.base, self.flat = base, flat
        pools = [(1, 2, 2) if flat and n == 0 else (2, 2, 2) for n in range(LEVELS - 1)]
        self.stride = tuple(int(np.prod([p[axis] for p in pools])) for axis in range(3))
        self._pools = pools
        widths = [base * 2**n for n in range(LEVELS)]
        self.down = nn.ModuleList(_double(1 if n == 0 else widths[n - 1], widths[n]) for n in range(LEVELS))
        self.up = nn.ModuleList(_double(widths[n] + widths[n + 1], widths[n]) for n in range(LEVELS - 1))
        self.last = nn.Conv3d(base, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1, z, y, x) in [-1, 1] to (n, 2, z, y, x) float32: logit of the foreground, and centre distance."""
        z, y, x = image.shape[2:]
        more = [-n % s for n, s in zip((z, y, x), self.stride)]
        values = functional.pad(image, [k for m in reversed(more) for k in (0, m)], mode="replicate")
        seen = []
        for n, layer in enumerate(self.down):
            if n:
                values = functional.max_pool3d(values, self._pools[n - 1])
            values = layer(values)
            seen.append(values)
        for n in range(LEVELS - 2, -1, -1):
            values = functional.interpolate(values, size=seen[n].shape[2:], mode="nearest")
            values = self.up[n](torch.cat([seen[n], values], 1))
        return self.last(values)[..., :z, :y, :x].float()

    @property
    def reach(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) on either side that a voxel of the output may depend on."""
        found = []
        for axis in range(3):
            step, total = 1, 0
            for n in range(LEVELS):
                step *= self._pools[n - 1][axis] if n else 1
                # two convolutions on the way down, two on the way up, one voxel of rounding
                total += step * (5 if n < LEVELS - 1 else 3)
            found.append(total)
        return (found[0], found[1], found[2])


@dataclass(frozen=True, eq=False)
class Targets:
    """What a segmenter is to say of images.

    Attributes
    ----------
    foreground : (n, 1, z, y, x) float32, 0 or 1
    distance : (n, 1, z, y, x) float32, 1 at the centre of a nucleus, 0 at its farthest voxel and outside
    known : (n, 1, z, y, x) float32, 0 where a nucleus is cut by the border and its centre is not known
    """

    foreground: Tensor
    distance: Tensor
    known: Tensor

    def to(self, device: torch.device) -> Targets:
        """On a device."""
        parts = (self.foreground, self.distance, self.known)
        return Targets(*(part.to(device, non_blocking=True) for part in parts))


def targets_of(labels: NDArray, voxel_um: tuple[float, float, float]) -> NDArray[np.float32]:
    """Foreground, centre distance and where that is known.

    Parameters
    ----------
    labels : (z, y, x) integers, 0 is background
    voxel_um : edges (z, y, x)

    Returns
    -------
    (3, z, y, x) float32, as :class:`Targets` has them
    """
    ids, flat = np.unique(labels, return_inverse=True)
    flat = flat.reshape(-1)
    at = np.indices(labels.shape, dtype=np.float32).reshape(3, -1) * np.array(voxel_um, np.float32)[:, None]
    count = np.bincount(flat, minlength=len(ids)).astype(np.float64)
    centre = np.stack([np.bincount(flat, weights=row, minlength=len(ids)) / count for row in at])
    away = np.sqrt(((at - centre.astype(np.float32)[:, flat]) ** 2).sum(0))
    farthest = np.zeros(len(ids), np.float32)
    np.maximum.at(farthest, flat, away)
    inside = labels.reshape(-1) != 0
    distance = np.where(inside, 1 - away / np.maximum(farthest[flat], 1e-6), 0).astype(np.float32)
    faces = [np.take(labels, side, axis) for axis in range(3) for side in (0, -1) if labels.shape[axis] > 1]
    cut = np.isin(ids, np.unique(np.concatenate([face.reshape(-1) for face in faces])))
    known = ~(cut[flat] & inside)
    return np.stack([inside.astype(np.float32), distance, known.astype(np.float32)]).reshape(3, *labels.shape)


def label_loss(said: Tensor, targets: Targets) -> Tensor:
    """Cross-entropy and soft Dice of the foreground: what holds a generator to the labels."""
    logit = said[:, :1]
    entropy = functional.binary_cross_entropy_with_logits(logit, targets.foreground)
    p, t = logit.sigmoid().flatten(1), targets.foreground.flatten(1)
    dice = 1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)
    return entropy + dice.mean()


def segmenter_loss(said: Tensor, targets: Targets) -> Tensor:
    """What a segmenter learns from: :func:`label_loss`, and the absolute error of the centre distance where known."""
    error = (said[:, 1:] - targets.distance).abs() * targets.known
    # by image, so that a batch in pieces is learned from as one
    each = error.flatten(1).sum(1) / targets.known.flatten(1).sum(1).clamp_min(1)
    return label_loss(said, targets) + DISTANCE_WEIGHT * each.mean()


def _double(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inside, outside):
        layers += [nn.Conv3d(channels, outside, 3, padding=1), ChannelNorm(outside), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)
