"""Definition of the filters in plain torch, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from gigascope.kernels.filters.taps import taps


def gaussian(stack: Tensor, sigma: float, truncate: float, border: str) -> Tensor:
    """Separable Gaussian."""
    return _filtered(stack.double(), sigma, truncate, border).float()


def sharpness(stack: Tensor, sigma: float, truncate: float, border: str, floor: float) -> Tensor:
    """G * sqrt(Dc^2 + Dr^2) of E = I / max(G * I, floor)."""
    image = stack.double()
    contrast = image / _filtered(image, sigma, truncate, border).clamp(min=floor)
    squares = torch.zeros_like(contrast)
    squares[:, :, :-1] += (contrast[:, :, :-1] - contrast[:, :, 1:]).square()
    squares[:, :-1] += (contrast[:, :-1] - contrast[:, 1:]).square()
    return _filtered(squares.sqrt(), sigma, truncate, border).float()


def _filtered(image: Tensor, sigma: float, truncate: float, border: str) -> Tensor:
    weights = taps(sigma, truncate).to(image.device)
    n = len(weights) // 2
    for axis in (1, 2):
        at = torch.arange(-n, image.shape[axis] + n, device=image.device)
        padded = image.index_select(axis, at.clamp(0, image.shape[axis] - 1))
        if border == "zero":
            outside = (at < 0) | (at >= image.shape[axis])
            padded = padded.masked_fill(outside.reshape(-1, 1) if axis == 1 else outside, 0.0)
        image = padded.unfold(axis, len(weights), 1) @ weights
    return image
