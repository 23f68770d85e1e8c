"""What generators and discriminators are to make small; all (n, 1, z, y, x) float32 in, means out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Voxels (z, y, x) over which the structure term takes away what is smooth.
SMOOTH = (3, 7, 7)


def adversarial(judged: Tensor, real: bool) -> Tensor:
    """Least squares (Mao et al. 2017, arXiv 1611.04076): mean (D - 1)^2 for what passes as real, else mean D^2."""
    return (judged.float() - float(real)).square().mean()


def discriminator_loss(of_real: Tensor, of_made: Tensor) -> Tensor:
    """½ [mean (D(real) - 1)² + mean D(made)²]."""
    return 0.5 * (adversarial(of_real, True) + adversarial(of_made, False))


def difference(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference, for cycles and identities."""
    return (made.float() - wanted.float()).abs().mean()


def edges(image: Tensor) -> Tensor:
    """Field of normalised gradients of what is not smooth.

    Parameters
    ----------
    image : (n, 1, z, y, x)

    Returns
    -------
    (n, 3, z, y, x), vectors of a length below 1: that of a gradient of the image's own RMS is 0.7
    """
    image = image.float()
    size = tuple(min(s, n - (n + 1) % 2) for s, n in zip(SMOOTH, image.shape[2:]))
    pad = [k for s in reversed(size) for k in (s // 2, s // 2)]
    smooth = functional.avg_pool3d(functional.pad(image, pad, mode="replicate"), size, 1)
    high = image - smooth
    parts = []
    for axis in (2, 3, 4):
        if image.shape[axis] < 2:
            parts.append(torch.zeros_like(high))
        else:
            parts.append(torch.gradient(high, dim=axis)[0])
    field = torch.cat(parts, 1)
    squares = field.square().sum(1, keepdim=True)
    typical = squares.mean((1, 2, 3, 4), keepdim=True).detach() + 1e-8
    return field * torch.rsqrt(squares + typical)


def structure(made: Tensor, source: Tensor) -> Tensor:
    """Mean absolute difference of the :func:`edges` of an image and of what it was made of: no nucleus may move."""
    return (edges(made) - edges(source)).abs().mean()
