"""One picture that is sharp everywhere, from a stack and the index map that says where each pixel is sharp."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gigascope.errors import ShapeError
from gigascope.kernels.filters import gaussian
from gigascope.topography.focus.stream import luminance

Mix = Literal["nearest", "linear"]


def fuse(stack: NDArray | Tensor, index: Tensor, *, mix: Mix = "linear") -> NDArray:
    """All-in-focus picture: every pixel from the slice, or the two slices, that its index names.

    Parameters
    ----------
    stack : (z, r, c) or (z, r, c, colours)
    index : (r, c) float32, slices; beyond the ends counts as the end
    mix : nearest, the slice nearest to the index; linear, both neighbours by their distance

    Returns
    -------
    (r, c[, colours]) of the stack's dtype, rounded where that is integer

    Raises
    ------
    ShapeError : maps of another size
    """
    values = torch.as_tensor(stack)
    _check(values, index)
    last = values.shape[0] - 1
    place = index.to(values.device).clamp(0, last)
    if mix == "nearest":
        return _pick(values, place.round().long()).numpy(force=True)
    low = place.floor().long().clamp_max(max(last - 1, 0))
    share = (place - low).float()
    if values.ndim == 4:
        share = share[..., None]
    pair = [_pick(values, (low + d).clamp_max(last)).to(torch.float32) for d in (0, 1)]
    return _as_dtype(pair[0] + share * (pair[1] - pair[0]), values.dtype)


def _check(values: Tensor, index: Tensor) -> None:
    if values.ndim not in (3, 4) or tuple(index.shape) != tuple(values.shape[1:3]):
        raise ShapeError(
            f"fuse: a stack {tuple(values.shape)} and an index map {tuple(index.shape)} do not go together"
        )


def _pick(values: Tensor, slices: Tensor) -> Tensor:
    """Values at one slice per pixel."""
    rows, columns = (torch.arange(n, device=values.device) for n in values.shape[1:3])
    return values[slices, rows[:, None], columns[None, :]]


def _as_dtype(image: Tensor, dtype: torch.dtype) -> NDArray:
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        image = image.round().clamp(info.min, info.max)
    result = image.numpy(force=True)
    return result.astype(str(dtype).removeprefix("torch."))


def fuse_pyramid(
    stack: NDArray | Tensor, index: Tensor, *, reach: float = 1.5, sharpen: float = 4.0, levels: int | None = None
) -> NDArray:
    """All-in-focus picture from a Laplacian pyramid, detail by detail from the sharpest of the slices near the index.

    Parameters
    ----------
    stack : (z, r, c) or (z, r, c, colours)
    index : (r, c) float32, slices
    reach : slices farther than this from the index do not contribute; what keeps the blurred edge of something nearer
        (halo) and noise out
    sharpen : power to which the local energy of a detail is raised as its weight; large: the largest alone
    levels : of the pyramid; none: until the coarsest is about 16 pixels wide

    Returns
    -------
    (r, c[, colours]) of the stack's dtype

    Raises
    ------
    ShapeError : maps of another size

    Notes
    -----
    Burt and Kolczynski, Proc. ICCV 1993, 173 (selection by local energy); the coarsest level is mixed by the distance
    to the index alone, since brightness there is not sharpness. Memory: two pyramids; slices come one after another.
    """
    values = torch.as_tensor(stack)
    _check(values, index)
    size = tuple(values.shape[1:3])
    depth = levels if levels is not None else max(1, int(np.log2(min(size) / 16)))
    place = index.to(values.device).clamp(0, values.shape[0] - 1)
    sums: list[Tensor] = []
    totals: list[Tensor] = []
    for k in range(values.shape[0]):
        near = (1.0 - ((place - k).abs() / reach) ** 2).clamp_min(0.0)
        if not bool((near > 0).any()):
            continue
        image = values[k].float()
        colours = image[None] if image.ndim == 2 else image.permute(2, 0, 1).contiguous()
        grey = luminance(values[k : k + 1])
        details, energies = _laplacian(colours, depth), _laplacian(grey, depth)
        gates = _gates(near, depth)
        for level in range(depth + 1):
            weight = gates[level]
            if level < depth:
                weight = weight * (_smooth(energies[level] ** 2)[0] + 1e-3) ** (0.5 * sharpen)
            if len(sums) <= level:
                sums.append(torch.zeros_like(details[level]))
                totals.append(torch.zeros_like(weight))
            sums[level] += weight * details[level]
            totals[level] += weight
    mixed = [s / t.clamp_min(1e-30) for s, t in zip(sums, totals, strict=True)]
    result = _collapse(mixed)
    return _as_dtype(result[0] if values.ndim == 3 else result.permute(1, 2, 0), values.dtype)


def _smooth(images: Tensor) -> Tensor:
    """(n, r, c) under 5 taps of sigma 1, as wide as the binomial of the Burt-Adelson pyramid, borders continued."""
    return gaussian(images.contiguous(), 1.0, 2.0)


def _grow(images: Tensor, size: tuple[int, int]) -> Tensor:
    """To the next finer level, of that size."""
    return functional.interpolate(images[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


def _laplacian(images: Tensor, depth: int) -> list[Tensor]:
    """Details from fine to coarse, and the remaining low-pass last."""
    levels = []
    for _ in range(depth):
        coarse = _smooth(images)[:, ::2, ::2]
        levels.append(images - _grow(coarse, (int(images.shape[1]), int(images.shape[2]))))
        images = coarse
    return [*levels, images]


def _gates(near: Tensor, depth: int) -> list[Tensor]:
    """The weight of one slice on every level."""
    levels = [near]
    for _ in range(depth):
        levels.append(_smooth(levels[-1][None])[0, ::2, ::2])
    return levels


def _collapse(levels: list[Tensor]) -> Tensor:
    image = levels[-1]
    for detail in reversed(levels[:-1]):
        image = detail + _grow(image, (int(detail.shape[1]), int(detail.shape[2])))
    return image
