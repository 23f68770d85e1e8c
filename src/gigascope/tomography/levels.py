"""Resolution levels of the joint solve: which bins, and how views, masks and volumes change between them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gigascope.kernels import warp
from gigascope.tomography.geometry import level_shape, linear_maps
from gigascope.tomography.masks import weighted_mean


class BinnedViews:
    """Stands in for views and masks (tilt, s, y) of bin 1 where only some bins of them are wanted.

    Views are put in one by one, and only their bins are kept: with a mask for each, 120 views of 4096 x 4096 pixels
    would be 10 GB. It is handed around in place of either array; indexed it gives views in another order.

    Parameters
    ----------
    shape : (tilt, s, y) at bin 1
    bins : wanted
    device : to keep them on
    """

    dtype = torch.float32

    def __init__(self, shape: tuple[int, int, int], bins: Sequence[int], device: torch.device) -> None:
        self.shape, self.device = shape, device
        self._bins: dict[int, tuple[Tensor, Tensor]] = {}
        for factor in bins:
            binned = (shape[0], *level_shape(shape[1:], factor))
            empty = torch.zeros(binned, device=device), torch.zeros(binned, dtype=torch.uint8, device=device)
            self._bins[factor] = empty
        self._order: Tensor | None = None

    def put(self, k: int, view: Tensor, valid: Tensor) -> None:
        """View k and its mask, (s, y) each at bin 1."""
        for factor, (views, masks) in self._bins.items():
            binned, mask = bin_views(view[None], valid[None], factor)
            views[k], masks[k] = binned[0], mask[0]

    def at(self, factor: int) -> tuple[Tensor, Tensor]:
        """What :func:`bin_views` makes of the views and masks."""
        views, masks = self._bins[factor]
        return (views, masks) if self._order is None else (views[self._order], masks[self._order])

    def __getitem__(self, order: ArrayLike | Tensor) -> BinnedViews:
        found = copy.copy(self)
        chosen = torch.as_tensor(order).to(self.device)
        found._order = chosen if self._order is None else self._order[chosen]
        found.shape = (len(chosen), *self.shape[1:])
        return found


def bin_views(views: Tensor | BinnedViews, valid: Any, factor: int) -> tuple[Tensor, Tensor]:
    """Block mean of the valid samples; a block counts when at least half of its samples do.

    Parameters
    ----------
    views : (tilt, s, y) float32
    valid : (tilt, s, y) bool or 0/1
    factor : bin, dividing s and y

    Returns
    -------
    (views, valid) at the level: float32 and uint8, (tilt, s / factor, y / factor)

    Raises
    ------
    ShapeError : s or y is not a multiple of the bin
    """
    if isinstance(views, BinnedViews):
        return views.at(factor)
    n_s, n_y = level_shape(tuple(views.shape[1:]), factor)
    if factor == 1:
        return views.contiguous(), valid.to(torch.uint8)
    blocks = (len(views), n_s, factor, n_y, factor)
    mask = valid.to(views.dtype)
    count = mask.reshape(blocks).sum(dim=(2, 4))
    total = (views * mask).reshape(blocks).sum(dim=(2, 4))
    return total / count.clamp_min(1.0), (2 * count >= factor * factor).to(torch.uint8)


def bin_volume(volume: Tensor, factor: int) -> Tensor:
    """Density of the level from that of bin 1: block mean, times the bin because a voxel is longer; (z, x, y)."""
    n_z, n_x, n_y = level_shape(tuple(volume.shape), factor)
    blocks = volume.reshape(n_z, factor, n_x, factor, n_y, factor)
    return blocks.mean(dim=(1, 3, 5)) * factor


def upsample_volume(volume: Tensor, factor: int) -> Tensor:
    """Start of a finer level: linear interpolation of (..., z, x, y), divided by the bin ratio; centres stay."""
    lead = volume.shape[:-3]
    fine = torch.nn.functional.interpolate(
        volume.reshape(-1, 1, *volume.shape[-3:]), scale_factor=factor, mode="trilinear", align_corners=False
    )
    return (fine / factor).reshape(*lead, *fine.shape[-3:])


class LevelViews:
    """The views of one level and what they look like under given shifts; unshifted views are resampled once.

    Parameters
    ----------
    views, valid : (tilt, s, y) at bin 1, the views of the solve in its order, or :class:`BinnedViews` of them
    factor : bin of the level
    smooth : sigma in level pixels of the Gaussian that shift updates see
    order : of the interpolation, 1 or 3
    """

    def __init__(self, views: Tensor | BinnedViews, valid: Any, factor: int, smooth: float, order: int) -> None:
        binned, self.mask = bin_views(views, valid, factor)
        mask = self.mask.to(binned.dtype)
        binned = torch.where(self.mask > 0, binned, weighted_mean(binned, mask).to(binned.dtype)[:, None, None])
        blurred = warp.gaussian_blur(binned, smooth) if smooth > 0 else binned
        self.order, self.smooth = order, smooth
        self.views = warp.spline_coefficients(binned) if order == 3 else binned
        self.blurred = warp.spline_coefficients(blurred) if order == 3 else blurred
        self.shape = tuple(binned.shape[1:])

    def at(self, shifts: Tensor, linear: ArrayLike | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Views, blurred views and their validity (float32 0/1) under shifts (tilt, 2) in level pixels.

        `linear` : (tilt, 2) rotations and magnifications less 1, none: 0.
        """
        if linear is not None and np.any(linear):
            matrices = self._matrices(shifts, linear)
            shape = (self.shape[0], self.shape[1])
            data, valid = warp.resample(self.views, matrices, shape, self.order, 1, self.mask)
            return data, warp.resample(self.blurred, matrices, shape, self.order)[0], valid
        data, valid = warp.translate(self.views, shifts, self.order, self.mask)
        blurred, _ = warp.translate(self.blurred, shifts, self.order, None)
        return data, blurred, valid

    def _matrices(self, shifts: Tensor, linear: ArrayLike) -> Tensor:
        """(tilt, 2, 3) index maps of shifts, rotations and magnifications about the centre."""
        centre = torch.tensor([(n - 1) / 2 for n in self.shape], dtype=torch.float64, device=shifts.device)
        maps = torch.from_numpy(linear_maps(linear)).to(shifts.device)
        return torch.cat([maps, (centre - maps @ centre + shifts)[:, :, None]], dim=2)
