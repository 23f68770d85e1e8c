"""Refinement of the shifts along the tilt axis: along it nothing foreshortens, so profiles of all views are alike."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels import warp
from gigascope.tomography.correlation import edge_taper, vertex

F64 = NDArray[np.float64]

COMMON = 0.4  # |x| below this times n_s is seen in every view after foreshortening
ROUNDS = 3
TAPER = 0.12
SEARCH = 0.06  # of the field: larger axial errors are not left by correlation, and would be chance
MIN_SEARCH = 4.0


def refine_axial(
    views: Tensor, valid: Tensor, tilt: F64, shifts: F64, use: NDArray[np.bool_], low_pass: float, high_pass: float
) -> F64:
    """Shifts with f_y refined: every view's profile over y is aligned to the mean profile, three rounds.

    For a section only: the profile of a small object changes with tilt.

    Parameters
    ----------
    views : (tilt, s, y) float32
    valid : (tilt, s, y) uint8
    tilt : (tilt,) radians
    shifts : (tilt, 2) pixels
    use : (tilt,) bool, views that take part; the others keep their shifts
    low_pass, high_pass : band of the profiles, cycles per pixel

    Returns
    -------
    (tilt, 2) float64
    """
    n_y = int(views.shape[2])
    shifts = shifts.copy()
    indices = np.flatnonzero(use)
    k = torch.fft.rfftfreq(n_y, dtype=torch.float64)
    band = torch.exp(-(k**2) / (2 * low_pass**2)) * (1 - torch.exp(-(k**2) / (2 * max(high_pass, 1e-9) ** 2)))
    window = edge_taper(n_y, TAPER * n_y).double()
    lags = torch.fft.fftfreq(n_y, d=1.0 / n_y, dtype=torch.float64)
    near = lags.abs() <= max(MIN_SEARCH, SEARCH * n_y)
    for _ in range(ROUNDS):
        profiles = torch.stack([_profile(views, valid, tilt, shifts, int(i)) for i in indices])
        profiles = profiles - (profiles * window).sum(1, keepdim=True) / window.sum()
        spectra = torch.fft.rfft(profiles * window) * band
        surfaces = torch.fft.irfft(spectra.mean(0).conj() * spectra, n=n_y)
        for i, surface in zip(indices, surfaces):
            top = int(torch.where(near, surface, surface.new_tensor(-math.inf)).argmax())
            around = surface[[(top - 1) % n_y, top, (top + 1) % n_y]].tolist()
            shifts[i, 1] += float(lags[top]) + vertex(*around)
    return shifts


def _profile(views: Tensor, valid: Tensor, tilt: F64, shifts: F64, index: int) -> Tensor:
    """Mean over the part of the specimen that every view sees, as a function of y; (y,) float64 on the CPU."""
    at = slice(index, index + 1)
    moved, seen = warp.translate(views[at], torch.from_numpy(shifts[at]).to(views.device), 1, valid[at])
    n_s = moved.shape[1]
    s = (torch.arange(n_s, device=views.device) - (n_s - 1) / 2).abs()
    weight = seen[0] * (s <= COMMON * n_s * max(math.cos(tilt[index]), 1.0 / n_s))[:, None]
    total = weight.sum(0, dtype=torch.float64)
    profile = (moved[0] * weight).sum(0, dtype=torch.float64) / torch.clamp(total, min=1.0)
    return torch.where(total > 0, profile, profile.sum() / torch.clamp((total > 0).sum(), min=1)).cpu()
