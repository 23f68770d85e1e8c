"""Judges of images: one number for each patch or each voxel, 1 for an image of the domain, 0 for one that is made."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gigascope.errors import ShapeError
from gigascope.synthesis.adaptation.architecture import Architecture
from gigascope.synthesis.adaptation.norms import InstanceNorm

SLOPE = 0.2
# Strides (z, y, x) of the convolutions of a patch discriminator; the last two keep the resolution.
_STRIDES = ((2, 2, 2), (1, 2, 2), (1, 2, 2), (1, 1, 1), (1, 1, 1))


class Discriminator(nn.Module):
    """Of patches (Isola et al. 2017, arXiv 1611.07004) or of voxels.

    Parameters
    ----------
    architecture : of the adaptation

    Notes
    -----
    Patches in three dimensions are 28 x 70 x 70 voxels. Instance normalisation as published, whatever the generators
    have: a discriminator is never used in tiles.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.layers = nn.Sequential(*(_patch if architecture.discriminator == "patch" else _pixel)(architecture))

    @property
    def n_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self.parameters())

    def forward(self, image: Tensor, depth: Tensor | None = None) -> Tensor:
        """Judgements.

        Parameters
        ----------
        image : (n, 1, z, y, x), in [-1, 1]
        depth : (n, 1, z, 1, 1), where the architecture says so

        Returns
        -------
        (n, 1, z', y', x') float32; in two dimensions (n z, 1, y', x')
        """
        known = image if depth is None else torch.cat([image, depth.to(image.dtype).expand_as(image)], 1)
        if self.architecture.dimensions == 2:
            known = known.movedim(2, 1).flatten(0, 1)
        return self.layers(known).float()


def patch_shape(shape: tuple[int, int, int], architecture: Architecture) -> tuple[int, int, int]:
    """Judgements (z, y, x) of an image of that shape.

    Raises
    ------
    ShapeError : the image is smaller than the discriminator can look at
    """
    if architecture.discriminator == "pixel":
        return shape
    found = list(shape)
    for stride in _STRIDES:
        found = [(n + 2 - 4) // s + 1 for n, s in zip(found, stride)]
    if architecture.dimensions == 2:
        found[0] = shape[0]
    if min(found) < 1:
        raise ShapeError(f"discriminator: an image of {shape} voxels is too small to be judged")
    return (found[0], found[1], found[2])


def least_shape(architecture: Architecture) -> tuple[int, int, int]:
    """Smallest image (z, y, x) of which it says one thing."""
    found = [1, 1, 1]
    if architecture.discriminator == "patch":
        for stride in reversed(_STRIDES):
            found = [(n - 1) * s + 2 for n, s in zip(found, stride)]
    # an image that is smaller than the padding of the generator's first layer cannot be reflected
    z, y, x = (max(4, n) for n in found)
    return (1 if architecture.dimensions == 2 else z, y, x)


def _patch(a: Architecture) -> list[nn.Module]:
    kind = nn.Conv3d if a.dimensions == 3 else nn.Conv2d
    widths = [1 + int(a.depth), a.width, 2 * a.width, 4 * a.width, 8 * a.width, 1]
    layers: list[nn.Module] = []
    for n, stride in enumerate(_STRIDES):
        layers.append(kind(widths[n], widths[n + 1], 4, stride[3 - a.dimensions :], 1))  # type: ignore[arg-type]
        if 0 < n < 4:
            layers.append(InstanceNorm())
        if n < 4:
            layers.append(nn.LeakyReLU(SLOPE))
    return layers


def _pixel(a: Architecture) -> list[nn.Module]:
    w = a.width
    if a.dimensions == 3:
        return [
            nn.Conv3d(1 + int(a.depth), w, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv3d(w, 2 * w, 1),
            nn.BatchNorm3d(2 * w),
            nn.LeakyReLU(SLOPE),
            nn.Conv3d(2 * w, 1, 1),
        ]
    return [
        nn.Conv2d(1 + int(a.depth), w, 1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(w, 2 * w, 1),
        nn.BatchNorm2d(2 * w),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(2 * w, 1, 1),
    ]
