"""The star-convex surface of a nucleus: radius, volume, bounds. All float64; shapes as in :class:`NucleiTable`."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from gigascope.kernels.cells.harmonics import real_harmonics, sphere_rule

# nuclei at once: their values on the rule's directions are then below 30 MiB
_BATCH = 1024
# rule on which the bound of the harmonics is taken, and how far a direction can be from the nearest of it in radians:
# the poles are, at j / (n + 1/2) from the outermost ring with j the first zero of the Bessel function J0 (Szegő)
_BOUND_RINGS = 32
_BOUND_SPACING = 2.4049 / (_BOUND_RINGS + 0.5)


def rotation_matrices(rotation: Tensor) -> Tensor:
    """R(q) of unit quaternions (n, 4): (n, 3, 3), by which b = R (x - centre)."""
    w, a, b, c = rotation.unbind(-1)
    rows = (
        (1 - 2 * (b * b + c * c), 2 * (a * b - w * c), 2 * (a * c + w * b)),
        (2 * (a * b + w * c), 1 - 2 * (a * a + c * c), 2 * (b * c - w * a)),
        (2 * (a * c - w * b), 2 * (b * c + w * a), 1 - 2 * (a * a + b * b)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def radius(semi_axes: Tensor, exponent: Tensor, harmonics: Tensor, directions: Tensor) -> Tensor:
    """Distance from centre to surface in given directions of the body frame.

    Parameters
    ----------
    semi_axes, exponent, harmonics : columns of n nuclei
    directions : (k, 3) unit vectors for all nuclei, or (n, k, 3)

    Returns
    -------
    (n, k) float64 µm
    """
    u = directions.double()
    stretched = ((u if u.ndim == 3 else u[None]) / semi_axes[:, None]).abs()
    power = exponent[:, None]
    if bool((exponent == 2).all()):  # powers of arrays are slow
        base = stretched.square().sum(-1).rsqrt()
    else:
        base = stretched.pow(power[..., None]).sum(-1).pow(-1 / power)
    return base * log_factor(harmonics, u).exp()


def log_factor(harmonics: Tensor, directions: Tensor) -> Tensor:
    """Σ q_lm Y_lm in directions (k, 3) or (n, k, 3): (n, k) float64."""
    used = harmonics.ne(0).any(dim=0).nonzero()
    degree = 0 if len(used) == 0 else math.isqrt(int(used.max()))
    waves = real_harmonics(directions, degree)
    some = harmonics[:, : waves.shape[-1]].double()
    return some @ waves.T if waves.ndim == 2 else torch.einsum("nc,nkc->nk", some, waves)


def volume(semi_axes: Tensor, exponent: Tensor, harmonics: Tensor) -> Tensor:
    """Volume of isolated nuclei: (n,) float64 µm³.

    Notes
    -----
    1/3 ∮ r³ dΩ with 1152 directions. Relative error below 1e-5 for ellipsoids with an axis ratio of 0.28 and below 1e-4
    for exponents of 1.8 to 3 (measured against 8192 directions).
    """
    directions, weights = (tensor.to(semi_axes.device) for tensor in sphere_rule())
    parts = zip(semi_axes.split(_BATCH), exponent.split(_BATCH), harmonics.split(_BATCH))
    return torch.cat([radius(*columns, directions).pow(3) @ weights / 3 for columns in parts])


def volume_factor(semi_axes: Tensor, exponent: Tensor, harmonics: Tensor, wanted: Tensor) -> Tensor:
    """Harmonics with the q_00 that gives nuclei wanted volumes.

    Parameters
    ----------
    semi_axes, exponent, harmonics : columns; whatever q_00 holds is replaced
    wanted : (n,) float64 µm³

    Returns
    -------
    (n, 81) float32. The factor s itself is exp(q_00 / √(4π)).
    """
    shape = harmonics.double().clone()
    shape[:, 0] = 0
    log_s = (wanted / volume(semi_axes, exponent, shape)).log() / 3
    shape[:, 0] = log_s * math.sqrt(4 * math.pi)
    return shape.float()


def scaled(harmonics: Tensor, factor: Tensor | float) -> Tensor:
    """Harmonics of nuclei whose radii are multiplied by `factor`, a number or (n,): (n, 81) float32."""
    changed = harmonics.double().clone()
    changed[:, 0] += torch.as_tensor(factor, dtype=torch.float64, device=harmonics.device).log() * math.sqrt(
        4 * math.pi
    )
    return changed.float()


def reach(semi_axes: Tensor, exponent: Tensor, harmonics: Tensor) -> Tensor:
    """Upper bound of the radius: (n,) float64 µm, proven and a few percent above the largest radius.

    It is F · max a, and F times the ellipsoid of the semi-axes contains the nucleus: the rasterisers rely on that.
    """
    return semi_axes.max(dim=-1).values * bulge(exponent) * log_bounds(harmonics)[:, 1].exp()


def bulge(exponent: Tensor) -> Tensor:
    """How far a super-ellipsoid reaches beyond its ellipsoid, at most: 3^(1/2 - 1/e) above e = 2, else 1."""
    return (3.0 ** (0.5 - 1 / exponent)).clamp(min=1)


@functools.cache
def _bound_waves() -> Tensor:
    """(2048, 80) float64, all but Y_00 in the directions of the bounds."""
    return real_harmonics(sphere_rule(_BOUND_RINGS)[0])[:, 1:].contiguous()


def log_bounds(harmonics: Tensor) -> Tensor:
    """Bounds of Σ q_lm Y_lm over all directions: (n, 2) float64, below and above.

    Notes
    -----
    On a great circle the sum without its mean is a trigonometric polynomial of degree L, so its second derivative is at
    most L² times its largest value (Bernstein). Its extremes are therefore no further than L² δ²/2 of that from samples
    with no direction further than δ from one of them.
    """
    waves = _bound_waves().to(harmonics.device)
    used = harmonics[:, 1:].ne(0).any(dim=0).nonzero()
    degree = 0 if len(used) == 0 else math.isqrt(int(used.max()) + 1)
    curvature = 0.5 * (degree * _BOUND_SPACING) ** 2
    bounds = []
    for part in harmonics.double().split(_BATCH):
        low, high = (part[:, 1:] @ waves.T).aminmax(dim=1)
        margin = curvature / (1 - curvature) * torch.maximum(high, -low)
        mean = part[:, 0] / math.sqrt(4 * math.pi)
        bounds.append(torch.stack((mean + low - margin, mean + high + margin), dim=1))
    return torch.cat(bounds) if bounds else harmonics.new_zeros((0, 2), dtype=torch.float64)
