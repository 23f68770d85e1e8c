"""Models of attenuation: how much of the light of every cell arrives, as one effective optical depth, and the haze.

The factor is exp(-tau), tau = tau_ex + tau_em - ln(staining): excitation along one direction, emission as the mean over
rays in the collection cone. tau is smooth, so a grid of 2 µm and linear interpolation between its cells do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels.cells.light import cone_depth

# a Gaussian ends at this many standard deviations
HAZE_REACH = 3.0


@dataclass(frozen=True)
class Attenuating:
    """Parameters of all models; lengths in µm, attenuation per µm.

    Attributes
    ----------
    model : beer_lambert, power or none
    mu_ex, mu_em, mu_nuc : of excitation and emission in the region, and what nuclei add to both
    power_length, power_exponent, power_start : (1 + max(0, path - start) / length)^-exponent
    half_angle : of the collection cone, asin(NA / n)
    cone_rays : 1, or 9: the axis and eight at two thirds of the half angle
    illumination : epi, lightsheet_left, lightsheet_right or lightsheet_both
    fusion : of lightsheet_both: mean or max
    stain_depth : e-folding depth of the staining, or None
    stain_floor : staining that is left far inside
    haze_fraction, haze : share of the scattered light, and standard deviation of the Gaussian that scatters it
    """

    model: str = "beer_lambert"
    mu_ex: float = 0.010
    mu_em: float = 0.008
    mu_nuc: float = 0.004
    power_length: float = 225.0
    power_exponent: float = 6.0
    power_start: float = 0.0
    half_angle: float = math.asin(0.5 / 1.45)
    cone_rays: int = 9
    illumination: str = "epi"
    fusion: str = "mean"
    stain_depth: float | None = None
    stain_floor: float = 0.3
    haze_fraction: float = 0.1
    haze: float = 20.0


def optical_depth(
    region: Tensor, nuclei: Tensor, how: Attenuating, spacing: float, distance: Tensor | None = None
) -> Tensor:
    """Effective optical depth of every cell.

    Parameters
    ----------
    region, nuclei : (z, y, x) float32, share of each cell in the region and in nuclei
    how : parameters
    spacing : edge of a cell, µm
    distance : (z, y, x) float32 µm, signed distance to the region's surface, negative inside; for the staining

    Returns
    -------
    (z, y, x) float32, on the device of `region`

    Notes
    -----
    Beer-Lambert, with mu = mu_region region + mu_nuc nuclei. `power`: Bruch et al. (2023), factor f2p, of the path in
    tissue straight above.
    """
    if how.model == "none":
        tau = torch.zeros_like(region)
    elif how.model == "power":
        path = (_depth_along(region, 0) * spacing - how.power_start).clamp(min=0)
        tau = how.power_exponent * torch.log1p(path / how.power_length)
    else:
        # in place where it can be: a spheroid of 1 mm has 150 million cells
        excitation = _excitation_depth(_path(region, nuclei, how.mu_ex, how.mu_nuc, spacing), how)
        slopes = cone_slopes(how.half_angle, how.cone_rays)
        tau = cone_depth(_path(region, nuclei, how.mu_em, how.mu_nuc, spacing), slopes)
        # a logarithm of a mean of ones may be a little below nothing
        tau.clamp_(min=0).add_(excitation)
    if how.stain_depth is not None:
        if distance is None:
            raise ValueError("a staining gradient needs the distance to the surface")
        depth = (-distance).clamp(min=0)
        tau = tau - torch.log(how.stain_floor + (1 - how.stain_floor) * torch.exp(-depth / how.stain_depth))
    return tau


def cone_slopes(half_angle: float, n_rays: int) -> Tensor:
    """(ray, 2) float64: lateral cells per cell upwards of the axis, and of eight rays at two thirds of the angle."""
    if n_rays == 1:
        return torch.zeros(1, 2, dtype=torch.float64)
    slope = math.tan(half_angle * 2 / 3)
    turns = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    around = slope * torch.stack([torch.sin(turns), torch.cos(turns)], 1)
    return torch.cat([torch.zeros(1, 2, dtype=torch.float64), around])


def haze(emission: Tensor, tau: Tensor, how: Attenuating, spacing: float) -> Tensor:
    """Scattered light of every cell: a share of the light that arrives, blurred.

    Parameters
    ----------
    emission : (z, y, x) float32, mean density of fluorophores of each cell
    tau : (z, y, x) float32, of :func:`optical_depth`
    how : parameters
    spacing : edge of a cell, µm

    Returns
    -------
    (z, y, x) float32, on the device of `emission`, in the units of `emission`
    """
    if how.haze_fraction == 0:
        return torch.zeros_like(emission)
    arriving: NDArray[np.float32] = tau.neg().exp_().mul_(emission).cpu().numpy()
    scipy.ndimage.gaussian_filter(
        arriving, how.haze / spacing, mode="constant", truncate=HAZE_REACH, output=arriving
    )
    arriving *= np.float32(how.haze_fraction)
    return torch.from_numpy(arriving).to(emission.device)


def _path(region: Tensor, nuclei: Tensor, of_region: float, of_nuclei: float, spacing: float) -> Tensor:
    """Attenuation on the way through each cell."""
    return (region * of_region).add_(nuclei, alpha=of_nuclei).mul_(spacing)


def _depth_along(mu: Tensor, axis: int) -> Tensor:
    """Sum of the cells before each one and half of itself; float64 sums, a layer at a time."""
    found = torch.empty_like(mu)
    total = torch.zeros(mu.shape[1:], dtype=torch.float64, device=mu.device)
    for z, layer in enumerate(mu):
        if axis == 0:
            total += layer
            found[z] = total - layer / 2
        else:
            found[z] = layer.double().cumsum(axis - 1) - layer / 2
    return found


def _excitation_depth(mu: Tensor, how: Attenuating) -> Tensor:
    if how.illumination == "epi":
        return _depth_along(mu, 0)
    left = _depth_along(mu, 2)
    right = _depth_along(mu.flip(2), 2).flip(2)
    if how.illumination == "lightsheet_left":
        return left
    if how.illumination == "lightsheet_right":
        return right
    if how.fusion == "max":
        return torch.minimum(left, right)
    return -torch.log((torch.exp(-left) + torch.exp(-right)) / 2)
