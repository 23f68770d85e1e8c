"""Definition of the total-variation ops in plain torch, in float64.

Chambolle and Pock, J. Math. Imaging Vis. 40, 120 (2011), algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gradient(u: Tensor, hz: float = 1.0) -> Tensor:
    """Forward differences (3, z, x, y) in the order z (divided by hz), x, y; the last one of each axis is 0."""
    u64 = u.double()
    result = u64.new_zeros(3, *u.shape)
    result[0, :-1] = (u64[1:] - u64[:-1]) / hz
    result[1, :, :-1] = u64[:, 1:] - u64[:, :-1]
    result[2, :, :, :-1] = u64[:, :, 1:] - u64[:, :, :-1]
    return result.to(u.dtype)


def gradient_adjoint(p: Tensor, hz: float = 1.0) -> Tensor:
    """Transpose of `gradient`."""
    p64 = p.double()
    result = p64.new_zeros(p.shape[1:])
    result[1:] += p64[0, :-1] / hz
    result[:-1] -= p64[0, :-1] / hz
    result[:, 1:] += p64[1, :, :-1]
    result[:, :-1] -= p64[1, :, :-1]
    result[:, :, 1:] += p64[2, :, :, :-1]
    result[:, :, :-1] -= p64[2, :, :, :-1]
    return result.to(p.dtype)


def dual_step_(p: Tensor, ubar: Tensor, lam: float, sigma: float, hz: float = 1.0) -> None:
    """p <- P(p + sigma grad ubar), P(p) = p / max(1, |p| / lambda) per voxel."""
    raised = p.double() + sigma * gradient(ubar.double(), hz)
    norm = raised.norm(dim=0)
    p.copy_(torch.where(norm > lam, lam / norm, 1.0) * raised)


def primal_step_(
    u: Tensor, ubar: Tensor, p: Tensor, atq: Tensor, tau: Tensor, hz: float = 1.0, positivity: bool = False
) -> None:
    """u+ = u - tau (grad^T p + A^T q), at least 0 with `positivity`; ubar <- 2 u+ - u; u <- u+."""
    old = u.double()
    new = old - tau.double()[:, :, None] * (gradient_adjoint(p.double(), hz) + atq.double())
    new = new.clamp(min=0) if positivity else new
    ubar.copy_(2 * new - old)
    u.copy_(new)


def data_step_(
    q: Tensor, projection: Tensor, views: Tensor, weights: Tensor, sigma_q: Tensor, offset: Tensor
) -> Tensor:
    """q <- w (q + sigma (A u + o - b)) / (w + sigma), 0 where w = 0; sums of the new q per view."""
    w, sigma = weights.double(), sigma_q.double()[:, :, None]
    residual = projection.double() + offset.double()[:, None, None] - views.double()
    new = torch.where(w > 0, w * (q.double() + sigma * residual) / (w + sigma), 0.0)
    q.copy_(new)
    return q.double().sum((1, 2))


def tv_norm(u: Tensor, hz: float = 1.0) -> Tensor:
    """Sum over voxels of |grad u|, a float64 scalar."""
    return gradient(u.double(), hz).norm(dim=0).sum()


def data_misfit(projection: Tensor, views: Tensor, weights: Tensor, offset: Tensor) -> Tensor:
    """Sums per view of w (A u + o - b)^2, float64."""
    residual = projection.double() + offset.double()[:, None, None] - views.double()
    return torch.where(weights > 0, weights.double() * residual.square(), 0.0).sum((1, 2))
