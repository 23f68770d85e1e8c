"""Shifts of an isolated object from its centre of mass, which must move as x cos t + z sin t over tilt."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels import warp

F64 = NDArray[np.float64]

ROUNDS = 2
NEIGHBOURS = 7  # views on each side whose mean shows where the object is
SUPPORT = 0.1  # of the peak of that mean
SMOOTH = 0.01  # of the width
GROW = 0.025  # of the width: the support must not cut the object


def centre_of_mass_shifts(views: Tensor, valid: Tensor, use: NDArray[np.bool_]) -> F64:
    """Shifts that bring the centre of mass of every view to the frame's centre; (tilt, 2) float64, pixels.

    First over the whole frame, then twice inside the object's support, which leaves out the noise around it.

    Parameters
    ----------
    views : (tilt, s, y) float32, background removed
    valid : (tilt, s, y) uint8
    use : (tilt,) bool; the others keep 0
    """
    shifts = np.zeros((len(use), 2))
    indices = np.flatnonzero(use)
    for i in indices:
        whole = torch.ones_like(views[i])
        shifts[i] = _bounded(_centre(views[i] * valid[i], whole), views.shape)
    for _ in range(ROUNDS):
        shifts = _refined(views, valid, shifts, indices)
    return shifts


def centre_on_object(views: Tensor, valid: Tensor, shifts: F64, use: NDArray[np.bool_]) -> F64:
    """Shifts moved by one constant so that the object's mean centre lies on the tilt axis.

    Correlation without stretch keeps the object where the first view shows it; only on the axis does it stay at one
    place for all tilts, elsewhere the constant along s is an error that no translation of the specimen explains.
    """
    if not use.any():
        return shifts.copy()
    total = torch.zeros_like(views[0])
    for i in np.flatnonzero(use):
        total += _moved(views, valid, shifts, int(i))
    return shifts + _bounded(_centre(total, _support(total)), views.shape)


def _refined(views: Tensor, valid: Tensor, shifts: F64, indices: NDArray[np.intp]) -> F64:
    moved = torch.stack([_moved(views, valid, shifts, int(i)) for i in indices])
    out = shifts.copy()
    for k, i in enumerate(indices):
        near = moved[max(0, k - NEIGHBOURS) : k + NEIGHBOURS + 1].mean(0)
        out[i] += _bounded(_centre(moved[k], _support(near)), views.shape)
    return out


def _moved(views: Tensor, valid: Tensor, shifts: F64, index: int) -> Tensor:
    at = slice(index, index + 1)
    image, seen = warp.translate(views[at], torch.from_numpy(shifts[at]).to(views.device), 1, valid[at])
    return (image * seen)[0]


def _support(image: Tensor) -> Tensor:
    """1 on the object and a little around it, else 0."""
    width = max(image.shape)
    smooth = warp.gaussian_blur(image[None], max(1.0, SMOOTH * width))
    inside = (smooth > SUPPORT * smooth.max()).to(image.dtype)
    grow = max(1, round(GROW * width))
    return torch.nn.functional.max_pool2d(inside[None], 2 * grow + 1, 1, grow)[0, 0]


def _centre(image: Tensor, support: Tensor) -> F64:
    """Centre of mass (s, y) about the frame's centre, pixels; NaN without positive mass."""
    weighted = (image * support).double()
    mass = float(weighted.sum())
    if mass <= 0:
        return np.full(2, np.nan)
    axes = [torch.arange(n, dtype=torch.float64, device=image.device) - (n - 1) / 2 for n in image.shape]
    return np.array([float((weighted.sum(1) * axes[0]).sum()), float((weighted.sum(0) * axes[1]).sum())]) / mass


def _bounded(centre: F64, shape: tuple[int, ...]) -> F64:
    """0 where the centre is unknown or beyond a quarter of the frame: noise around zero mass, not a place."""
    limit = 0.25 * np.array(shape[-2:])
    return np.where(np.isfinite(centre) & (np.abs(centre) <= limit), centre, 0.0)
