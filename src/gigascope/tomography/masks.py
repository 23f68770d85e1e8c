"""Which data samples count, and how much: rays through the whole thickness, valid pixels, noise and excluded views.

Masks are geometric: they come from coordinates and the input's mask, never from pixel values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gigascope.kernels import projector

# a ray counts when it crosses this share of the longest path; below it part of the specimen lies outside the volume
FULL_PATH = 0.98


def full_rays(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float, extent: str) -> Tensor:
    """full_i(s): 1 where the ray crosses the whole thickness inside the volume; (tilt, s) float32.

    For an isolated object every ray counts. `angles` : (tilt,) float64 radians.
    """
    if extent == "object":
        return torch.ones(len(angles), n_s, dtype=torch.float32, device=angles.device)
    rows = projector.row_sums(angles, n_s, shape_zx, hz)
    return (rows >= FULL_PATH * rows.amax(dim=1, keepdim=True)).to(torch.float32)


def weights(valid: Tensor, full: Tensor, per_view: Tensor) -> Tensor:
    """w = valid * full * v / noise.

    Parameters
    ----------
    valid : (tilt, s, y) float32 0/1
    full : (tilt, s) float32 0/1
    per_view : (tilt,) float32, 1 / relative noise variance, 0 for views out of use

    Returns
    -------
    (tilt, s, y) float32
    """
    return valid * (full * per_view[:, None])[:, :, None]


def weighted_mean(data: Tensor, weight: Tensor) -> Tensor:
    """Mean of `data` (tilt, s, y) under `weight` per view, (tilt,) float64; 0 for views without weight."""
    total = weight.sum(dim=(1, 2), dtype=torch.float64)
    return (data * weight).sum(dim=(1, 2), dtype=torch.float64) / total.clamp_min(torch.finfo(torch.float64).tiny)
