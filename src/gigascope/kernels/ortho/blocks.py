"""Which views may reach which block of a mosaic tile, so that a pixel asks a few views and not all of the tile's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gigascope.kernels.ortho.reference import forward

BLOCK = 64
# samples per side of a crop whose bounds are taken, and what a curved side may lie outside them, mosaic pixels
OUTLINE, BEND = 33, 2.0


def members(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    corners: Tensor,
    crop: Sequence[int],
    start: Sequence[int],
    shape: Sequence[int],
) -> Tensor:
    """Views whose crop's bounding box meets each block of BLOCK x BLOCK mosaic pixels of a tile.

    Returns
    -------
    (block rows, block columns, n) bool, on the CPU
    """
    line = torch.linspace(0, 1, OUTLINE, dtype=torch.float64)
    none, full = torch.zeros_like(line), torch.ones_like(line)
    sides = [torch.stack(side) for side in ((none, line), (full, line), (line, none), (line, full))]
    outline = torch.cat(sides, dim=1) * (torch.tensor(list(crop), dtype=torch.float64)[:, None] - 1)
    at = forward(table.cpu(), distortion.cpu(), size, corners.cpu()[:, :, None] + outline)
    low, high = at.amin(2) - BEND, at.amax(2) + BEND
    meets = []
    for axis in (0, 1):
        first = start[axis] + BLOCK * torch.arange(-(-shape[axis] // BLOCK))
        last = (first + BLOCK).clamp(max=start[axis] + shape[axis]) - 1
        meets.append((low[:, axis] <= last[:, None]) & (high[:, axis] >= first[:, None]))
    return meets[0][:, None] & meets[1][None]
