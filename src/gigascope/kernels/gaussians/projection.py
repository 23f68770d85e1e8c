"""Projections of a mixture through a volume that never exists as a whole: rendered slab by slab."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.gaussians.op import evaluate

# samples of a slab along the projected axis: enough that a Gaussian of sigma 2 is cut into two or three
SLAB = 16

Background = Tensor | Callable[[tuple[slice, slice, slice]], Tensor]


def max_projection(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    cuts: Tensor,
    background: Background | None,
    shape: Sequence[int],
    axis: int,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Maximum of background plus Gaussians along one axis; memory for a slab, not for the volume.

    Parameters
    ----------
    means, log_scales, quaternions, amplitudes, cuts : as in :func:`gigascope.kernels.gaussians.evaluate`
    background : added before the maximum: a volume (z, y, x) like `means`, or what returns its part for three slices
        (of samples, with steps of 1); None adds nothing
    shape : (z, y, x) samples of the volume
    axis : 0, 1 or 2, the one that is projected
    origin, spacing : (z, y, x) voxels

    Returns
    -------
    The two axes that are left, in their order, like `means`

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or there is no such axis
    """
    if len(shape) != 3 or axis not in (0, 1, 2):
        raise ShapeError(
            f"max_projection: expected a shape (z, y, x) and an axis 0, 1 or 2, got {tuple(shape)}, {axis}"
        )
    if isinstance(background, Tensor) and background.shape != torch.Size(shape):
        raise ShapeError(f"max_projection: background: expected {tuple(shape)}, got {tuple(background.shape)}")
    # the largest deviation bounds the half size along any axis
    reach = cuts * log_scales.max(dim=1).values.exp() if len(means) else cuts
    result: Tensor | None = None
    for first in range(0, shape[axis], SLAB):
        last = min(first + SLAB, shape[axis])
        begin, end = origin[axis] + spacing[axis] * first, origin[axis] + spacing[axis] * (last - 1)
        apart = (means[:, axis] + reach < begin) | (means[:, axis] - reach > end)
        mu, logs, turns, weights, ends = (t[~apart] for t in (means, log_scales, quaternions, amplitudes, cuts))
        window = [slice(0, n) for n in shape]
        window[axis] = slice(first, last)
        start = [o if j != axis else begin for j, o in enumerate(origin)]
        slab = evaluate(mu, logs, turns, weights, ends, [s.stop - s.start for s in window], start, spacing)
        if background is not None:
            part = (window[0], window[1], window[2])
            slab += background[part] if isinstance(background, Tensor) else background(part)
        highest = slab.amax(dim=axis)
        result = highest if result is None else torch.maximum(result, highest)
    if result is None:
        raise ShapeError(f"max_projection: expected at least one sample along every axis, got {tuple(shape)}")
    return result
