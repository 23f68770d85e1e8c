"""The grid of the background as small integers: steps, and what a smooth continuation of the neighbours leaves."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.gmix.header import BackgroundScale

I64 = NDArray[np.int64]
# Integers of the grid are below this.
LEVELS = 1 << 16


def quantise(grid: NDArray[np.float32], step: float) -> tuple[BackgroundScale, I64]:
    """Integers of a grid (nz, ny, nx) in steps of `step`, or as fine as 16 bits allow."""
    low, high = float(grid.min()), float(grid.max())
    # few digits, because they stand in the header; rounded up where the range needs all 16 bits
    least = (high - low) / (LEVELS - 2)
    step = float(f"{step:.3g}") if step > least else float(f"{least * 1.005:.3g}")
    if step <= 0:
        step = 1.0
    low = float(f"{math.floor(low / step) * step:.10g}")
    return BackgroundScale(low, step), np.rint((grid.astype(np.float64) - low) / step).astype(np.int64)


def dequantise(integers: I64, scale: BackgroundScale) -> Tensor:
    """(nz, ny, nx) float32."""
    return torch.from_numpy((scale.offset + scale.step * integers.astype(np.float64)).astype(np.float32))


def residuals(integers: I64) -> I64:
    """What is left of a grid (nz, ny, nx) of integers when each is predicted from those before it."""
    left = np.empty_like(integers)
    for place in np.ndindex(integers.shape):
        left[place] = integers[place] - _predicted(integers, place)
    return left.ravel()


def from_residuals(left: I64, shape: tuple[int, int, int]) -> I64:
    """The grid again."""
    integers = np.zeros(shape, np.int64)
    for place, value in zip(np.ndindex(shape), left.tolist()):
        integers[place] = value + _predicted(integers, place)
    return integers


def _predicted(grid: I64, place: tuple[int, ...]) -> int:
    """Mean of the neighbours before this one along each axis; of a smooth grid under noise it leaves the least."""
    total = count = 0
    for axis in range(3):
        if place[axis] > 0:
            before = list(place)
            before[axis] -= 1
            total += int(grid[tuple(before)])
            count += 1
    return total // count if count else 0
