"""Definition of the light in plain torch, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Places = list[tuple[Tensor, Tensor]]


def cone_depth(mu: Tensor, slopes: list[list[float]]) -> Tensor:
    """-ln of the mean of exp(-tau) over rays, each a sum over the layers above."""
    transmitted = torch.zeros(mu.shape, dtype=torch.float64, device=mu.device)
    for along_y, along_x in slopes:
        transmitted += torch.exp(-math.hypot(1.0, along_y, along_x) * sheared_sums(mu.double(), along_y, along_x))
    return -torch.log(transmitted / len(slopes)).float()


def sheared_sums(mu: Tensor, along_y: float, along_x: float) -> Tensor:
    """Sum along the ray of the layers above and half of the own, in the frame Y = y + z along_y, X = x + z along_x."""
    n_z, n_y, n_x = mu.shape
    low = [min(0, math.floor((n_z - 1) * s)) - 1 for s in (along_y, along_x)]
    high = [n + max(0, math.ceil((n_z - 1) * s)) + 1 for n, s in zip((n_y, n_x), (along_y, along_x))]
    rows, columns = (torch.arange(a, b, dtype=torch.float64, device=mu.device) for a, b in zip(low, high))
    total = mu.new_zeros(len(rows), len(columns))
    y, x = (torch.arange(n, dtype=torch.float64, device=mu.device) for n in (n_y, n_x))
    layers = []
    for z, layer in enumerate(mu):
        here = _bilinear(layer, rows - z * along_y, columns - z * along_x)
        layers.append(_bilinear(total + here / 2, y + z * along_y - low[0], x + z * along_x - low[1]))
        total = total + here
    return torch.stack(layers)


def _bilinear(layer: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Values at all y and x, 0 outside."""
    for axis, at in ((0, y), (1, x)):
        below = at.floor()
        weight = (at - below).unsqueeze(1 - axis)
        parts = []
        for index in (below, below + 1):
            inside = ((index >= 0) & (index < layer.shape[axis])).unsqueeze(1 - axis)
            taken = layer.index_select(axis, index.long().clamp(0, layer.shape[axis] - 1))
            parts.append(torch.where(inside, taken, 0.0))
        layer = parts[0] * (1 - weight) + parts[1] * weight
    return layer


def attenuate_(density: Tensor, tau: Tensor, places: Places) -> None:
    """Multiply by exp(-tau)."""
    density.copy_(density.double() * torch.exp(-_trilinear(tau, places)))


def read_out(grid: Tensor, places: Places) -> Tensor:
    """Linear interpolation."""
    return _trilinear(grid, places).float()


def _trilinear(grid: Tensor, places: Places) -> Tensor:
    values = grid.double()
    for axis, (below, weight) in enumerate(places):
        shape = [-1 if k == axis else 1 for k in range(3)]
        w = weight.to(values).reshape(shape)
        above = (below + 1).clamp(max=grid.shape[axis] - 1)
        values = values.index_select(axis, below.to(grid.device)) * (1 - w) + (
            values.index_select(axis, above.to(grid.device)) * w
        )
    return values
