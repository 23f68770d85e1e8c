"""Small tables that all implementations of the warp share: filter taps and interpolation weights along one axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# a footprint this close to a sample is that sample alone, so that rounding in a matrix does not cost a border row
SNAP = 1e-6

# pole of the cubic B-spline prefilter; Unser, IEEE Signal Process. Mag. 16(6), 22 (1999), box 2
SPLINE_POLE = math.sqrt(3.0) - 2.0


def spline_taps(dtype: torch.dtype) -> Tensor:
    """Taps sqrt(3) pole^|k| of the prefilter, cut where they fall below the rounding of `dtype`."""
    reach = 14 if dtype == torch.float32 else 30
    k = torch.arange(-reach, reach + 1, dtype=torch.float64).abs()
    return math.sqrt(3.0) * torch.pow(torch.tensor(SPLINE_POLE, dtype=torch.float64), k)


def gaussian_taps(sigma: float) -> Tensor:
    """Taps of a Gaussian with sum 1, cut at 4 sigma; float64."""
    reach = int(4 * sigma + 0.5)
    k = torch.arange(-reach, reach + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (k / sigma).square()) if reach else torch.ones(1, dtype=torch.float64)
    return taps / taps.sum()


def mirror(index: Tensor, n: int) -> Tensor:
    """Fold indices back into 0..n-1 about the first and the last sample."""
    if n == 1:
        return torch.zeros_like(index)
    folded = index.remainder(2 * n - 2)
    return torch.minimum(folded, 2 * n - 2 - folded)


def padded_index(n: int, reach: int, boundary: str) -> Tensor:
    """Source index of every sample of an axis that is continued by `reach` on both sides, (n + 2 reach,) int64."""
    index = torch.arange(-reach, n + reach)
    return mirror(index, n) if boundary == "mirror" else index.clamp(0, n - 1)


def axis_taps(coordinate: Tensor, n: int, order: int) -> tuple[Tensor, Tensor]:
    """Sources and weights of interpolation along one axis; coordinates outside are moved to the border.

    Parameters
    ----------
    coordinate : (...) float64
    n : samples of the axis
    order : 1 or 3

    Returns
    -------
    (..., order + 1) int64 indices and float64 weights
    """
    inside = coordinate.clamp(0, n - 1)
    low = inside.floor()
    fraction = inside - low
    f, g = fraction, 1 - fraction
    if order == 1:
        first, parts = 0, [g, f]
    else:
        first, parts = -1, [g**3 / 6, (4 - 6 * f**2 + 3 * f**3) / 6, (4 - 6 * g**2 + 3 * g**3) / 6, f**3 / 6]
    index = torch.stack([mirror(low.long() + first + k, n) for k in range(len(parts))], dim=-1)
    return index, torch.stack(parts, dim=-1)


def axis_footprint(coordinate: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """First and last sample that bilinear interpolation touches, clamped to the axis, and whether both are on it."""
    nearest = coordinate.round()
    snapped = torch.where((coordinate - nearest).abs() < SNAP, nearest, coordinate)
    low, high = snapped.floor(), snapped.ceil()
    inside = (low >= 0) & (high <= n - 1)
    return low.clamp(0, n - 1).long(), high.clamp(0, n - 1).long(), inside
