"""The fixed law: the same steps for every Gaussian."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gigascope.compression.gmix import frames
from gigascope.compression.gmix.quantiser import CELL, Quantiser


def to_integers(
    log_scales: Tensor, q: Tensor, amplitudes: Tensor, quantiser: Quantiser, amplitude_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Integers of scales (N, 3), rotation (N, 3) and amplitude (N,); see :func:`adaptive_law.to_integers`."""
    low, high = quantiser.log_range
    n_steps = (1 << quantiser.scale_bits) - 1
    scales = torch.round((log_scales - low) * (n_steps / (high - low))).to(torch.int64)
    return scales, _rotation_steps(q, quantiser), amplitude_integers(amplitudes, quantiser, amplitude_scale)


def geometry(scales: Tensor, rotation: Tensor, quantiser: Quantiser) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 3) log scales, (N, 4) quaternions in the canonical frame, (N, 3) int64 places in a cell, of integers."""
    low, high = quantiser.log_range
    log_scales = low + scales.to(torch.float64) * ((high - low) / ((1 << quantiser.scale_bits) - 1))
    return log_scales, _quaternions(rotation, quantiser), torch.full_like(scales, CELL << quantiser.position_bits)


def amplitude_integers(values: Tensor, quantiser: Quantiser, scale: float) -> Tensor:
    """(N,) int64, square root of the amplitude in steps, with its sign; `scale` is the amplitude of the largest."""
    most = _most(quantiser)
    size = torch.clamp(torch.round(torch.sqrt(values.abs() / scale) * most), max=most).to(torch.int64)
    return torch.where(values < 0, -size, size)


def amplitudes_of(amplitude: Tensor, quantiser: Quantiser, scale: float) -> Tensor:
    """(N,) float64 amplitudes of integers."""
    size = amplitude.to(torch.float64) / _most(quantiser)
    return size * size.abs() * scale


def _most(quantiser: Quantiser) -> int:
    return (1 << (quantiser.amplitude_bits - 1)) - 1


def _half(quantiser: Quantiser) -> int:
    """Steps of a component of the quaternion on either side of 0, so that 0 itself is kept."""
    return (1 << (quantiser.rotation_bits - 1)) - 1


def _quaternions(rotation: Tensor, quantiser: Quantiser) -> Tensor:
    small = (rotation - _half(quantiser)).to(torch.float64) / _half(quantiser) * math.sqrt(0.5)
    square = small[:, 0] * small[:, 0] + small[:, 1] * small[:, 1] + small[:, 2] * small[:, 2]
    q = torch.cat((torch.sqrt(torch.clamp(1 - square, min=0.0))[:, None], small), dim=1)
    return frames.normalised(q)


def _rotation_steps(q: Tensor, quantiser: Quantiser) -> Tensor:
    half = _half(quantiser)

    def steps(q: Tensor) -> Tensor:
        small = frames.smallest_angle(q)[:, 1:] * (math.sqrt(2.0) * half)
        return torch.clamp(torch.round(small).to(torch.int64), -half, half) + half

    # Where two components tie, rounding may make another one the largest. The integers, and what they become when
    # quantised again, then go around in a short circle; its least member stands for all.
    found = steps(q)
    again = steps(_quaternions(found, quantiser))
    open_rows = (again != found).any(dim=1).nonzero()[:, 0]
    if len(open_rows) == 0:
        return found
    circle = [again[open_rows]]
    for _ in range(12):
        circle.append(steps(_quaternions(circle[-1], quantiser)))
    members = torch.stack(circle[6:])
    width = 2 * half + 1
    least = ((members[..., 0] * width + members[..., 1]) * width + members[..., 2]).argmin(dim=0)
    return found.index_copy(0, open_rows, members[least, torch.arange(len(open_rows), device=q.device)])


def rotation_values(quantiser: Quantiser) -> int:
    """Number of values of a component of the quaternion."""
    return 2 * _half(quantiser) + 1
