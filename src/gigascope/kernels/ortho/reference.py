"""Definition of the ortho ops in plain torch, in float64; differentiable throughout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gigascope.kernels.ortho.splatting import FAR, SIGMA
from gigascope.kernels.ortho.table import DISTANCE, FOOT, FORWARD, INVERSE

NEWTON_STEPS = 3


def coordinates(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    corners: Tensor,
    shape: Sequence[int],
    spacing: float,
    heights: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Mosaic coordinates of the pixels of a crop of every view."""
    grid = _grid(shape, table.device) * spacing
    at = forward(table, distortion, size, corners[:, :, None, None] + grid)
    if heights is not None:
        foot = table[:, FOOT, None, None]
        at = foot + (at - foot) * (1 - heights.double() / table[:, DISTANCE, None, None])[:, None]
    return at.to(dtype)


def pixels(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    start: Sequence[int],
    shape: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    """Pixels of every view that see the pixels of a tile of the mosaic."""
    grid = _grid(shape, table.device) + torch.tensor(start, dtype=torch.float64, device=table.device)[:, None, None]
    return backward(table, distortion, size, grid.expand(table.shape[0], -1, -1, -1)).to(dtype)


def forward(table: Tensor, distortion: Tensor, size: Sequence[int], rc: Tensor) -> Tensor:
    """(n, 2, ...) pixels of a view to mosaic coordinates."""
    larger = max(size)
    y, x = (rc[:, 0] - size[0] / 2) / larger, (rc[:, 1] - size[1] / 2) / larger
    m = 1 + _polynomial(distortion, 2 * (x * x + y * y))[0]
    return _projected(table[:, FORWARD], y * m, x * m)


def backward(table: Tensor, distortion: Tensor, size: Sequence[int], at: Tensor) -> Tensor:
    """(n, 2, ...) mosaic coordinates to pixels of a view."""
    yx = _projected(table[:, INVERSE], at[:, 0], at[:, 1])
    t = 2 * yx.square().sum(1)
    ratio = torch.ones_like(t)
    for _ in range(NEWTON_STEPS):
        m, slope = _polynomial(distortion, t * ratio * ratio)
        ratio = ratio - (ratio * (1 + m) - 1) / (1 + slope)
    half = torch.tensor(list(size), dtype=torch.float64, device=at.device) / 2
    return yx * ratio[:, None] * max(size) + half.reshape(1, 2, *(1,) * (at.ndim - 2))


def splat(
    values: Tensor, coords: Tensor, group: Tensor, n_groups: int, shape: Sequence[int], border: str
) -> tuple[Tensor, Tensor]:
    """Sums of weight times value, and of weights, on one canvas per group; float64."""
    index, weight, _ = _neighbours(coords, group, n_groups, shape, border)
    canvas = values.new_zeros(n_groups * shape[0] * shape[1], dtype=torch.float64)
    value = values.double()[:, None].expand_as(weight)
    # outside there is no weight, but nothing times NaN would be NaN
    product = torch.where(weight > 0, weight * value, 0.0)
    sums = canvas.index_add(0, index.flatten(), product.flatten())
    weights = canvas.index_add(0, index.flatten(), weight.flatten())
    return sums.reshape(n_groups, *shape), weights.reshape(n_groups, *shape)


def splat_predict(
    values: Tensor,
    coords: Tensor,
    group: Tensor,
    n_groups: int,
    shape: Sequence[int],
    border: str,
    through_mosaic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Value of the mosaic at every pixel, the mosaic and its weights."""
    if through_mosaic:
        sums, weights = splat(values, coords, group, n_groups, shape, border)
    else:
        sums, weights = splat(values.detach(), coords.detach(), group, n_groups, shape, border)
    mosaic = torch.where(weights > 0, sums / weights.clamp(min=torch.finfo(weights.dtype).tiny), 0.0)
    index, weight, seen = _neighbours(coords, group, n_groups, shape, border)
    total = torch.where(seen, weight.sum(1), 1.0)
    predicted = (weight * mosaic.flatten()[index]).sum(1) / total
    predicted = torch.where(seen, predicted, torch.nan)
    return predicted.to(values.dtype), mosaic.to(values.dtype), weights.to(values.dtype)


def splat_predict_backward(
    cotangent: Tensor,
    values: Tensor,
    coords: Tensor,
    group: Tensor,
    mosaic: Tensor,
    weights: Tensor,
    border: str,
    through_mosaic: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of `splat_predict` with respect to values and coordinates."""
    with torch.enable_grad():
        v, q = values.detach().requires_grad_(), coords.detach().requires_grad_()
        predicted = splat_predict(v, q, group, len(mosaic), mosaic.shape[1:], border, through_mosaic)[0]
        used = torch.where(predicted.isnan(), 0.0, cotangent)
        gradients = torch.autograd.grad(predicted, (v, q), used, allow_unused=True)
    grad_values, grad_coords = (torch.zeros_like(t) if g is None else g for g, t in zip(gradients, (values, coords)))
    return grad_values, grad_coords


def _grid(shape: Sequence[int], device: torch.device) -> Tensor:
    """(2, rows, columns) row and column numbers."""
    lines = [torch.arange(n, dtype=torch.float64, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))


def _projected(matrix: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(n, 2, ...) from a projective map (n, 9) of (a, b)."""
    m = matrix.reshape(-1, 9, *(1,) * (a.ndim - 1))
    w = m[:, 6] * a + m[:, 7] * b + m[:, 8]
    return torch.stack(((m[:, 0] * a + m[:, 1] * b + m[:, 2]) / w, (m[:, 3] * a + m[:, 4] * b + m[:, 5]) / w), dim=1)


def _polynomial(distortion: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of d_q t^q and of (2 q + 1) d_q t^q, q from 1."""
    value, slope = torch.zeros_like(t), torch.zeros_like(t)
    for q in range(len(distortion), 0, -1):
        value = (value + distortion[q - 1]) * t
        slope = (slope + (2 * q + 1) * distortion[q - 1]) * t
    return value, slope


def _neighbours(
    coords: Tensor, group: Tensor, n_groups: int, shape: Sequence[int], border: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Canvas index and weight (n, 4, h, w) of the 2 x 2 neighbours of every pixel; seen where one is on the canvas."""
    (r, row_on, row_weight), (c, column_on, column_weight) = (
        _axis(coords[:, axis].double(), shape[axis], border) for axis in (0, 1)
    )
    own = ((group >= 0) & (group < n_groups))[:, None, None]
    index, weight = [], []
    for a in (0, 1):
        for b in (0, 1):
            # a weight at the far end of an axis is no less than g(1)^2 = 0.004: 0 means outside
            weight.append(torch.where(row_on[a] & column_on[b] & own, row_weight[a] * column_weight[b], 0.0))
            place = (group.clamp(0, n_groups - 1)[:, None, None] * shape[0] + r[a]) * shape[1] + c[b]
            index.append(place)
    stacked = torch.stack(weight, dim=1)
    return torch.stack(index, dim=1), stacked, (stacked > 0).any(1)


def _axis(q: Tensor, n: int, border: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two neighbours along one axis, whether they are on the canvas, their weights."""
    if border == "clamp":
        q = q.clamp(0, n - 1)
    known = q.abs() < FAR
    q = torch.where(known, q, 0.0)
    low = q.detach().floor()
    fraction = q - low
    first = low.long()
    second = first + 1
    if border == "wrap":
        first, second = first.remainder(n), second.remainder(n)
    on = tuple(known & (i >= 0) & (i < n) for i in (first, second))
    weights = tuple(torch.exp(-d * d / (2 * SIGMA**2)) for d in (fraction, 1 - fraction))
    return (first.clamp(0, n - 1), second.clamp(0, n - 1)), (on[0], on[1]), (weights[0], weights[1])
