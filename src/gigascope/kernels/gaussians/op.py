"""Ops on mixtures of 3D Gaussians: signatures, checks, meta functions and autograd.

A mixture is five tensors: means, log-scales, quaternions, amplitudes and cuts; the field is the sum of
``a exp(-m / 2)`` with ``m = |diag(1 / sigma) R(q)^T (x - mu)|^2``, exactly 0 where ``m >= cut^2``. Positions in voxels,
components in the order (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check, check_positive
from gigascope.kernels.library import define

MIXTURE: dict[str, tuple[int | str, ...]] = {
    "means": ("n*", 3),
    "log_scales": ("n*", 3),
    "quaternions": ("n*", 4),
    "amplitudes": ("n*",),
    "cuts": ("n*",),
}
_VOLUME = ("z", "y", "x")
_ZEROS, _ONES = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def evaluate(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    cuts: Tensor,
    shape: Sequence[int],
    origin: Sequence[float] = _ZEROS,
    spacing: Sequence[float] = _ONES,
) -> Tensor:
    """Sum of all Gaussians at the samples of a grid; sample (i, j, k) sits at ``origin + spacing (i, j, k)``.

    Parameters
    ----------
    means : (N, 3) float32 (float64 on a CPU), voxels, (z, y, x); N may be 0
    log_scales : (N, 3) natural logarithm of the standard deviations along the own axes, voxels
    quaternions : (N, 4) (w, x, y, z) of any length above 0; the columns of R are the own axes
    amplitudes : (N,) signed
    cuts : (N,) where each Gaussian ends, in its standard deviations; beyond 13 (2e-37) it ends anyway
    shape : (z, y, x) samples
    origin, spacing : (z, y, x) voxels

    Returns
    -------
    (z, y, x) like `means`. The terms of a sample are added in the order of the Gaussians. On a CPU the values are the
    same to the bit whatever the number of threads and, in float32 with spacing 1, whatever part of a grid is asked for

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or a spacing is not above 0

    Notes
    -----
    Differentiable with respect to the first four; the cuts count as constants.
    """
    grid = [float(o) for o in origin], [float(s) for s in spacing]
    return torch.ops.gigascope.gaussians_evaluate(means, log_scales, quaternions, amplitudes, cuts, list(shape), *grid)


def moments(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    upstream: Tensor,
    origin: Sequence[float] = _ZEROS,
    spacing: Sequence[float] = _ONES,
) -> Tensor:
    """Sums over the samples of g phi times 1, y and y y^T, y the coordinates along the own axes in own deviations.

    Parameters
    ----------
    means, log_scales, quaternions, cuts, origin, spacing : as in :func:`evaluate`
    upstream : (z, y, x) g, the derivative of a scalar with respect to the samples

    Returns
    -------
    (N, 10) like `means`: s0 = sum g phi, s1 = sum g phi y (3), then M11, M22, M33, M23, M13, M12 of
    M = sum g phi y y^T; :func:`parameter_gradients` makes the gradients of them. s0 is the adjoint of
    :func:`evaluate` with respect to the amplitudes

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or a spacing is not above 0
    """
    grid = [float(o) for o in origin], [float(s) for s in spacing]
    return torch.ops.gigascope.gaussians_moments(means, log_scales, quaternions, cuts, upstream, *grid)


def parameter_gradients(
    log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the parameters from the ten sums of :func:`moments`.

    Parameters
    ----------
    log_scales, quaternions, amplitudes : as in :func:`evaluate`
    sums : (N, 10)

    Returns
    -------
    Gradients with respect to means (N, 3), log_scales (N, 3), quaternions (N, 4) as they are stored, with their length,
    and amplitudes (N,)

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree
    """
    return torch.ops.gigascope.gaussians_parameter_gradients(log_scales, quaternions, amplitudes, sums)


def squared_sums(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    weight: Tensor,
    origin: Sequence[float] = _ZEROS,
    spacing: Sequence[float] = _ONES,
) -> Tensor:
    """Sum over the samples of w phi^2: the diagonal of the normal equations of the amplitudes.

    Parameters
    ----------
    means, log_scales, quaternions, cuts, origin, spacing : as in :func:`evaluate`
    weight : (z, y, x) w

    Returns
    -------
    (N,) like `means`

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or a spacing is not above 0
    """
    grid = [float(o) for o in origin], [float(s) for s in spacing]
    return torch.ops.gigascope.gaussians_squared_sums(means, log_scales, quaternions, cuts, weight, *grid)


def evaluate_points(
    means: Tensor, log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, cuts: Tensor, points: Tensor
) -> Tensor:
    """Sum of all Gaussians at arbitrary points, with the same cuts as on a grid.

    Parameters
    ----------
    means, log_scales, quaternions, amplitudes, cuts : as in :func:`evaluate`
    points : (P, 3) like `means`, voxels, (z, y, x); P may be 0

    Returns
    -------
    (P,) like `means`

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree
    """
    return torch.ops.gigascope.gaussians_evaluate_points(means, log_scales, quaternions, amplitudes, cuts, points)


def count_pairs(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    shape: Sequence[int],
    origin: Sequence[float] = _ZEROS,
    spacing: Sequence[float] = _ONES,
) -> int:
    """Pairs of a Gaussian and a sample inside its cut: the unit in which throughput is counted.

    Parameters
    ----------
    means, log_scales, quaternions, cuts, shape, origin, spacing : as in :func:`evaluate`

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or a spacing is not above 0
    """
    _check_mixture("count_pairs", means=means, log_scales=log_scales, quaternions=quaternions, cuts=cuts)
    _check_grid("count_pairs", shape, origin, spacing)
    arrays = (array.contiguous() for array in (means, log_scales, quaternions, cuts))
    return implementation(means).count_pairs(*arrays, shape, origin, spacing)


def implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.gaussians import cpu

        return cpu
    if chosen == "cuda":
        from gigascope.kernels.gaussians import cuda

        return cuda
    from gigascope.kernels.gaussians import reference

    return reference


def _check_mixture(op: str, **tensors: Tensor) -> None:
    check(op, MIXTURE | {"upstream": _VOLUME, "weight": _VOLUME, "points": ("p*", 3), "sums": ("n*", 10)}, **tensors)


def _check_grid(op: str, shape: Sequence[int] | None, origin: Sequence[float], spacing: Sequence[float]) -> None:
    for name, numbers in (("shape", shape), ("origin", origin), ("spacing", spacing)):
        if numbers is not None and len(numbers) != 3:
            raise ShapeError(f"{op}: {name}: expected (z, y, x), got {tuple(numbers)}")
    check_positive(op, **{f"spacing of {axis}": s for axis, s in zip("zyx", spacing)})
    if shape is not None:
        check_positive(op, **{f"{axis} of shape": n for axis, n in zip("zyx", shape)})


@define(
    "gaussians_evaluate",
    "(Tensor means, Tensor log_scales, Tensor quaternions, Tensor amplitudes, Tensor cuts, SymInt[] shape, "
    "float[] origin, float[] spacing) -> Tensor",
)
def _evaluate(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    cuts: Tensor,
    shape: list[int],
    origin: list[float],
    spacing: list[float],
) -> Tensor:
    geometry = {"means": means, "log_scales": log_scales, "quaternions": quaternions}
    _check_mixture("evaluate", **geometry, amplitudes=amplitudes, cuts=cuts)
    _check_grid("evaluate", shape, origin, spacing)
    arrays = (array.contiguous() for array in (means, log_scales, quaternions, amplitudes, cuts))
    return implementation(means).evaluate(*arrays, shape, origin, spacing)


@_evaluate.register_fake
def _evaluate_meta(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    cuts: Tensor,
    shape: list[int],
    origin: list[float],
    spacing: list[float],
) -> Tensor:
    return means.new_empty(shape)


def _evaluate_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:5])
    ctx.grid = inputs[6:]


def _evaluate_backward(ctx, upstream):  # type: ignore[no-untyped-def]
    means, log_scales, quaternions, amplitudes, cuts = ctx.saved_tensors
    ops = torch.ops.gigascope
    sums = ops.gaussians_moments(means, log_scales, quaternions, cuts, upstream, *ctx.grid)
    gradients = ops.gaussians_parameter_gradients(log_scales, quaternions, amplitudes, sums)
    return *gradients, None, None, None, None


_evaluate.register_autograd(_evaluate_backward, setup_context=_evaluate_context)


@define(
    "gaussians_moments",
    "(Tensor means, Tensor log_scales, Tensor quaternions, Tensor cuts, Tensor upstream, float[] origin, "
    "float[] spacing) -> Tensor",
)
def _moments(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    upstream: Tensor,
    origin: list[float],
    spacing: list[float],
) -> Tensor:
    geometry = {"means": means, "log_scales": log_scales, "quaternions": quaternions, "cuts": cuts}
    _check_mixture("moments", **geometry, upstream=upstream)
    _check_grid("moments", None, origin, spacing)
    arrays = (array.contiguous() for array in (*geometry.values(), upstream))
    return implementation(means).moments(*arrays, origin, spacing)


@_moments.register_fake
def _moments_meta(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    upstream: Tensor,
    origin: list[float],
    spacing: list[float],
) -> Tensor:
    return means.new_empty(means.shape[0], 10)


@define(
    "gaussians_squared_sums",
    "(Tensor means, Tensor log_scales, Tensor quaternions, Tensor cuts, Tensor weight, float[] origin, "
    "float[] spacing) -> Tensor",
)
def _squared_sums(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    weight: Tensor,
    origin: list[float],
    spacing: list[float],
) -> Tensor:
    geometry = {"means": means, "log_scales": log_scales, "quaternions": quaternions, "cuts": cuts}
    _check_mixture("squared_sums", **geometry, weight=weight)
    _check_grid("squared_sums", None, origin, spacing)
    arrays = (array.contiguous() for array in (*geometry.values(), weight))
    return implementation(means).squared_sums(*arrays, origin, spacing)


@_squared_sums.register_fake
def _squared_sums_meta(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    weight: Tensor,
    origin: list[float],
    spacing: list[float],
) -> Tensor:
    return means.new_empty(means.shape[0])


@define(
    "gaussians_parameter_gradients",
    "(Tensor log_scales, Tensor quaternions, Tensor amplitudes, Tensor sums) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _parameter_gradients(
    log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays = {"log_scales": log_scales, "quaternions": quaternions, "amplitudes": amplitudes, "sums": sums}
    _check_mixture("parameter_gradients", **arrays)
    return implementation(sums).parameter_gradients(*(array.contiguous() for array in arrays.values()))


@_parameter_gradients.register_fake
def _parameter_gradients_meta(
    log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = sums.shape[0]
    return sums.new_empty(n, 3), sums.new_empty(n, 3), sums.new_empty(n, 4), sums.new_empty(n)


@define(
    "gaussians_evaluate_points",
    "(Tensor means, Tensor log_scales, Tensor quaternions, Tensor amplitudes, Tensor cuts, Tensor points) -> Tensor",
)
def _evaluate_points(
    means: Tensor, log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, cuts: Tensor, points: Tensor
) -> Tensor:
    mixture = {"means": means, "log_scales": log_scales, "quaternions": quaternions, "amplitudes": amplitudes}
    _check_mixture("evaluate_points", **mixture, cuts=cuts, points=points)
    arrays = (array.contiguous() for array in (*mixture.values(), cuts, points))
    return implementation(means).evaluate_points(*arrays)


@_evaluate_points.register_fake
def _evaluate_points_meta(
    means: Tensor, log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, cuts: Tensor, points: Tensor
) -> Tensor:
    return points.new_empty(points.shape[0])
