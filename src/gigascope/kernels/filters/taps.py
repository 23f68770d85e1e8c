"""Taps of the truncated Gaussian, the same in every implementation."""

from __future__ import annotations

import torch
from torch import Tensor


def reach(sigma: float, truncate: float) -> int:
    """Samples on each side of the centre."""
    return int(truncate * sigma + 0.5)


def taps(sigma: float, truncate: float) -> Tensor:
    """(2 reach + 1,) float64 with sum 1."""
    n = reach(sigma, truncate)
    k = torch.arange(-n, n + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (k / sigma).square())
    return weights / weights.sum()
