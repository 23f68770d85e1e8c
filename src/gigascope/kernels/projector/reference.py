"""Definition of the projector (Joseph's method) in plain torch, one view after the other, in float64.

Joseph, IEEE Trans. Med. Imaging 1, 192 (1982): step along the axis that the ray follows most, interpolate linearly
along the other. Voxels outside count 0, and a sample with one neighbour inside keeps that one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def view_weights(angle: float, n_s: int, shape_zx: tuple[int, int], hz: float) -> Tensor:
    """Weights of one view as a dense (s, z, x) float64 array."""
    n_z, n_x = shape_zx
    cos, sin = math.cos(angle), math.sin(angle)
    s, z, x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (n_s, n_z, n_x))
    if abs(cos) >= abs(sin) * hz:
        position = (s[:, None] - z[None, :] * hz * sin) / cos
        return hz / abs(cos) * torch.clamp(1 - (position[:, :, None] - x).abs(), min=0)
    position = (s[:, None] - x[None, :] * cos) / (sin * hz)
    return 1 / abs(sin) * torch.clamp(1 - (position[:, None, :] - z[:, None]).abs(), min=0)


def project(volume: Tensor, angles: Tensor, n_s: int, hz: float = 1.0, out: Tensor | None = None) -> Tensor:
    """Line integrals of `volume` (z, x, y) -> (tilt, s, y)."""
    u = volume.to("cpu", torch.float64)
    shape_zx = (u.shape[0], u.shape[1])
    views = [torch.einsum("szx,zxy->sy", view_weights(float(t), n_s, shape_zx, hz), u) for t in angles]
    return _deliver(torch.stack(views), volume, out)


def backproject(
    sinogram: Tensor, angles: Tensor, shape_zx: tuple[int, int], hz: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """Transpose of `project`: (tilt, s, y) -> (z, x, y)."""
    q = sinogram.to("cpu", torch.float64)
    volume = torch.zeros(*shape_zx, q.shape[2], dtype=torch.float64)
    for i, t in enumerate(angles):
        volume += torch.einsum("szx,sy->zxy", view_weights(float(t), q.shape[1], shape_zx, hz), q[i])
    return _deliver(volume, sinogram, out)


def row_sums(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float = 1.0) -> Tensor:
    """A 1: (tilt, s) float64."""
    return torch.stack([view_weights(float(t), n_s, shape_zx, hz).sum((1, 2)) for t in angles])


def column_sums(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float = 1.0) -> Tensor:
    """A^T 1: (z, x) float64."""
    return sum((view_weights(float(t), n_s, shape_zx, hz).sum(0) for t in angles), torch.zeros(shape_zx).double())


def _deliver(result: Tensor, like: Tensor, out: Tensor | None) -> Tensor:
    result = result.to(like.device, like.dtype)
    return result if out is None else out.copy_(result)
