"""Overlap of the samples of two grids along one axis, the same in every implementation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# An edge this near to one of the input grid is meant to lie on it: 0.75 / 0.25 is 3, not 3.0000000000000004.
SNAP = 1e-6


def overlaps(ratio: float, start: float, n: int) -> tuple[Tensor, Tensor]:
    """Input samples that each output sample covers, and by which share of its length.

    Parameters
    ----------
    ratio : length of an output sample in input samples, > 0
    start : edge of the first output sample, in input samples from the edge of the first
    n : output samples

    Returns
    -------
    first : (n,) int64, first input sample
    weights : (n, taps) float64 of sum 1 along taps; 0 behind the last sample that is covered
    """
    edges = start + ratio * torch.arange(n + 1, dtype=torch.float64)
    whole = edges.round()
    edges = torch.where((edges - whole).abs() < SNAP, whole, edges)
    low, high = edges[:-1, None], edges[1:, None]
    first = low.floor()
    taps = max(1, int((high.ceil() - first).max())) if n else 1
    at = first + torch.arange(taps, dtype=torch.float64)
    covered = (torch.minimum(at + 1, high) - torch.maximum(at, low)).clamp_min(0)
    return first[:, 0].long(), covered / covered.sum(1, keepdim=True)


def reach(ratio: float, start: float, n: int) -> tuple[int, int]:
    """First input sample that is read, and one behind the last."""
    ends = [start, start + ratio * n]
    ends = [float(round(e)) if abs(e - round(e)) < SNAP else e for e in ends]
    return math.floor(ends[0]), math.ceil(ends[1])
