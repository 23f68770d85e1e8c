"""Definition of the ops on Gaussian mixtures in plain torch, in float64, one Gaussian at a time.

``phi = exp(-m / 2)``, ``m = |y|^2``, ``y = diag(1 / sigma) R(q)^T (x - mu)``, and 0 where ``m >= cut^2``. A Gaussian
whose mean, scales or rotation are not numbers makes every sample it is asked for not a number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_UNIT = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def rotations(quaternions: Tensor) -> Tensor:
    """(N, 3, 3) rotation matrices of quaternions (w, x, y, z) of any length; columns are the own axes."""
    w, x, y, z = (quaternions / quaternions.norm(dim=1, keepdim=True)).unbind(1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def evaluate(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    cuts: Tensor,
    shape: Sequence[int],
    origin: Sequence[float] = _UNIT[0],
    spacing: Sequence[float] = _UNIT[1],
) -> Tensor:
    """Sum of a phi at the samples of a grid (z, y, x)."""
    points = _grid(means, shape, origin, spacing)
    return evaluate_points(means, log_scales, quaternions, amplitudes, cuts, points).reshape(*shape)


def evaluate_points(
    means: Tensor, log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, cuts: Tensor, points: Tensor
) -> Tensor:
    """Sum of a phi at points (P, 3)."""
    result = points.double().new_zeros(points.shape[0])
    for i in range(means.shape[0]):
        _, phi = _kernel(means, log_scales, quaternions, cuts, points, i)
        result = result + amplitudes[i].double() * phi
    return result.to(means.dtype)


def moments(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    upstream: Tensor,
    origin: Sequence[float] = _UNIT[0],
    spacing: Sequence[float] = _UNIT[1],
) -> Tensor:
    """Ten sums of g phi (1, y, y y^T) per Gaussian: s0, s1 (3), M11, M22, M33, M23, M13, M12."""
    points, g = _grid(means, upstream.shape, origin, spacing), upstream.reshape(-1).double()
    result = means.new_zeros(means.shape[0], 10, dtype=torch.float64)
    for i in range(means.shape[0]):
        y, phi = _kernel(means, log_scales, quaternions, cuts, points, i)
        # where and not a product: what lies outside the cut does not count, even if it is not a number
        weighted = torch.where(phi == 0, 0.0, g * phi)
        second = torch.einsum("p,pi,pj->ij", weighted, y, y)
        pairs = [second[0, 0], second[1, 1], second[2, 2], second[1, 2], second[0, 2], second[0, 1]]
        result[i] = torch.cat((weighted.sum()[None], weighted @ y, torch.stack(pairs)))
    return result.to(means.dtype)


def squared_sums(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    weight: Tensor,
    origin: Sequence[float] = _UNIT[0],
    spacing: Sequence[float] = _UNIT[1],
) -> Tensor:
    """Sum of w phi^2 per Gaussian."""
    points, w = _grid(means, weight.shape, origin, spacing), weight.reshape(-1).double()
    result = means.new_zeros(means.shape[0], dtype=torch.float64)
    for i in range(means.shape[0]):
        _, phi = _kernel(means, log_scales, quaternions, cuts, points, i)
        result[i] = torch.where(phi == 0, 0.0, w * phi * phi).sum()
    return result.to(means.dtype)


def count_pairs(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    shape: Sequence[int],
    origin: Sequence[float] = _UNIT[0],
    spacing: Sequence[float] = _UNIT[1],
) -> int:
    """Samples of a grid inside the cut of each Gaussian, summed."""
    points = _grid(means, shape, origin, spacing)
    n = 0
    for i in range(means.shape[0]):
        n += int((_kernel(means, log_scales, quaternions, cuts, points, i)[1] > 0).sum())
    return n


def parameter_gradients(
    log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of means, log-scales, quaternions and amplitudes from the ten sums."""
    sigma, q, a, sums64 = log_scales.double().exp(), quaternions.double(), amplitudes.double(), sums.double()
    s0, s1, diagonal, mixed = sums64[:, 0], sums64[:, 1:4], sums64[:, 4:7], sums64[:, 7:10]
    d_means = a[:, None] * (rotations(q) @ (s1 / sigma)[:, :, None])[:, :, 0]
    d_log_scales = a[:, None] * diagonal
    # sigma_2 / sigma_3 - sigma_3 / sigma_2 and its cyclic followers go with M23, M13, M12
    ratio = sigma.roll(-1, 1) / sigma.roll(-2, 1)
    turn = a[:, None] * mixed * (ratio - 1 / ratio)
    length = q.norm(dim=1, keepdim=True)
    w, x, y, z = (q / length).unbind(1)
    g1, g2, g3 = turn.unbind(1)
    product = (
        -(x * g1 + y * g2 + z * g3),
        w * g1 + y * g3 - z * g2,
        w * g2 + z * g1 - x * g3,
        w * g3 + x * g2 - y * g1,
    )
    d_quaternions = 2 / length * torch.stack(product, dim=1)
    return tuple(g.to(sums.dtype) for g in (d_means, d_log_scales, d_quaternions, s0))  # type: ignore[return-value]


def _grid(like: Tensor, shape: Sequence[int], origin: Sequence[float], spacing: Sequence[float]) -> Tensor:
    """(z y x, 3) float64 positions of the samples."""
    axes = [o + s * torch.arange(n, dtype=torch.float64, device=like.device) for n, o, s in zip(shape, origin, spacing)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def _kernel(
    means: Tensor, log_scales: Tensor, quaternions: Tensor, cuts: Tensor, points: Tensor, i: int
) -> tuple[Tensor, Tensor]:
    """Whitened coordinates (P, 3) and phi (P,) of one Gaussian, float64."""
    d = points.double() - means[i].double()
    y = d @ rotations(quaternions[i : i + 1].double())[0] / log_scales[i].double().exp()
    m, cut = y.square().sum(1), cuts[i].double()
    end = cut * cut.abs()
    return y, torch.where(m >= end, 0.0, torch.where(m < end, torch.exp(-m / 2), torch.nan))


def adam_(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    gradients: Sequence[Tensor],
    first: Tensor,
    second: Tensor,
    steps: Tensor,
    rates: Sequence[float],
    betas: Sequence[float],
    eps: float,
    log_scale_range: Sequence[float],
    mean_range: Sequence[float],
) -> None:
    """One step of Adam on all parameters; log-scales and means clamped, quaternions of length 1 afterwards."""
    parameters = torch.cat((means, log_scales, quaternions, amplitudes[:, None]), dim=1).double()
    gradient = torch.cat((*gradients[:3], gradients[3][:, None]), dim=1).double()
    steps += 1
    m = betas[0] * first.double() + (1 - betas[0]) * gradient
    v = betas[1] * second.double() + (1 - betas[1]) * gradient.square()
    first.copy_(m)
    second.copy_(v)
    t = steps.double()[:, None]
    rate = torch.repeat_interleave(parameters.new_tensor(list(rates)), torch.tensor([3, 3, 4, 1]).to(means.device))
    parameters -= rate * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    low, high = parameters.new_tensor(list(mean_range[:3])), parameters.new_tensor(list(mean_range[3:]))
    means.copy_(torch.clamp(parameters[:, :3], low, high))
    log_scales.copy_(parameters[:, 3:6].clamp(*log_scale_range))
    q = parameters[:, 6:10]
    quaternions.copy_(q / q.norm(dim=1, keepdim=True))
    amplitudes.copy_(parameters[:, 10])
