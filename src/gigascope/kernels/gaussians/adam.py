"""The optimiser of a mixture: one fused step of Adam over all eleven parameters of every Gaussian."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import check, check_in_place
from gigascope.kernels.gaussians.op import MIXTURE, implementation
from gigascope.kernels.library import define


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
    *,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-12,
    log_scale_range: tuple[float, float] = (-math.inf, math.inf),
    mean_range: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:
    """One step of Adam in place; afterwards scales and means are within their ranges and quaternions have length 1.

    Parameters
    ----------
    means (N, 3), log_scales (N, 3), quaternions (N, 4), amplitudes (N,) : contiguous, written; N may be 0
    gradients : one like each of the four
    first, second : (N, 11) running means of the gradients and of their squares, written; columns as the four, in turn
    steps : (N,) int32, steps that each Gaussian has had, written: its moments are corrected by its own count
    rates : four learning rates: of the means (voxels), the log-scales, the quaternions and the amplitudes
    betas, eps : decay of the running means, and what keeps the division finite
    log_scale_range : least and largest log-scale
    mean_range : least and largest mean (z, y, x), voxels; None leaves them free

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or what is written is not contiguous

    Notes
    -----
    Kingma and Ba, ICLR 2015, algorithm 1, without weight decay. A gradient that is not a number stays visible.
    """
    low, high = mean_range if mean_range is not None else ([-math.inf] * 3, [math.inf] * 3)
    if len(gradients) != 4 or len(rates) != 4 or len(low) != 3 or len(high) != 3:
        raise ShapeError(
            f"adam_: expected 4 gradients, 4 rates and ranges (z, y, x), got {len(gradients)} gradients, "
            f"{tuple(rates)}, {tuple(low)}, {tuple(high)}"
        )
    torch.ops.gigascope.gaussians_adam_(
        *(means, log_scales, quaternions, amplitudes),
        *(*gradients, first, second, steps),
        [float(rate) for rate in rates],
        *([float(beta) for beta in betas], float(eps)),
        [float(end) for end in log_scale_range],
        [float(end) for end in (*low, *high)],
    )


@define(
    "gaussians_adam_",
    "(Tensor(a!) means, Tensor(b!) log_scales, Tensor(c!) quaternions, Tensor(d!) amplitudes, Tensor d_means, "
    "Tensor d_log_scales, Tensor d_quaternions, Tensor d_amplitudes, Tensor(e!) first, Tensor(f!) second, "
    "Tensor(g!) steps, float[] rates, float[] betas, float eps, float[] log_scale_range, float[] mean_range) -> ()",
)
def _adam(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    d_means: Tensor,
    d_log_scales: Tensor,
    d_quaternions: Tensor,
    d_amplitudes: Tensor,
    first: Tensor,
    second: Tensor,
    steps: Tensor,
    rates: list[float],
    betas: list[float],
    eps: float,
    log_scale_range: list[float],
    mean_range: list[float],
) -> None:
    parameters = {"means": means, "log_scales": log_scales, "quaternions": quaternions, "amplitudes": amplitudes}
    slopes = dict(zip(("d_means", "d_log_scales", "d_quaternions", "d_amplitudes"),
                      (d_means, d_log_scales, d_quaternions, d_amplitudes)))  # fmt: skip
    shapes = MIXTURE | {"d_" + name: MIXTURE[name] for name in parameters}
    shapes |= {"first": ("n*", 11), "second": ("n*", 11)}
    check("adam_", shapes, **parameters, **slopes, first=first, second=second)
    if steps.shape != amplitudes.shape or steps.dtype != torch.int32 or steps.device != means.device:
        raise ShapeError(
            f"adam_: steps: expected {tuple(amplitudes.shape)} torch.int32 on {means.device}, "
            f"got {tuple(steps.shape)} {steps.dtype} on {steps.device}"
        )
    check_in_place("adam_", **parameters, first=first, second=second, steps=steps)
    gradients = [slope.contiguous() for slope in slopes.values()]
    numbers = rates, betas, eps, log_scale_range, mean_range
    implementation(means).adam_(*parameters.values(), gradients, first, second, steps, *numbers)


@_adam.register_fake
def _adam_meta(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    d_means: Tensor,
    d_log_scales: Tensor,
    d_quaternions: Tensor,
    d_amplitudes: Tensor,
    first: Tensor,
    second: Tensor,
    steps: Tensor,
    rates: list[float],
    betas: list[float],
    eps: float,
    log_scale_range: list[float],
    mean_range: list[float],
) -> None:
    return None
