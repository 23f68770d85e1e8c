"""Reading an image between its pixels, without moving it."""

from __future__ import annotations

import torch


def cubic(image: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Values (...) of an image (R, C) at points (..., 2) by cubic convolution; borders are repeated.

    Notes
    -----
    Keys, IEEE Trans. ASSP 29, 1153 (1981), a = -1/2: third order, symmetric, so that it moves nothing.
    """
    base = at.floor()
    share = (at - base).to(image.dtype)
    weights = [_keys(share[..., axis]) for axis in (0, 1)]
    index = base.long()
    result = torch.zeros(at.shape[:-1], dtype=image.dtype, device=image.device)
    cols = [(index[..., 1] + d).clamp(0, image.shape[1] - 1) for d in range(-1, 3)]
    for dy in range(4):
        rows = (index[..., 0] + dy - 1).clamp(0, image.shape[0] - 1) * image.shape[1]
        line = torch.zeros_like(result)
        for dx in range(4):
            line += weights[1][dx] * image.reshape(-1)[rows + cols[dx]]
        result += weights[0][dy] * line
    return result


def _keys(t: torch.Tensor) -> list[torch.Tensor]:
    t2, t3 = t * t, t * t * t
    return [0.5 * (-t + 2 * t2 - t3), 1 - 2.5 * t2 + 1.5 * t3, 0.5 * (t + 4 * t2 - 3 * t3), 0.5 * (t3 - t2)]
