"""A cheap leave-group-out prediction: small volumes of the other views predict each view, at a coarse bin.

It ranks candidate alignments before the joint solve, and is what projection matching and the estimate of the thickness
work on: conjugate gradients, stopped early, on 64 blurred samples across the axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels import projector, warp
from gigascope.tomography.algebraic import AlgebraicParameters, CglsSolver
from gigascope.tomography.masks import full_rays, weighted_mean
from gigascope.tomography.residual import interleaved, residual

F64 = NDArray[np.float64]

COARSE_WIDTH = 64
GROUPS = 4
ITERATIONS = 12
# coarse pixels; without it noise hides errors below 0.5 px at one signal to noise per pixel, with it 0.2 px show
BLUR = 1.0


@dataclass(frozen=True)
class Prediction:
    """Coarse views and what the volumes of the other groups predict of them.

    Parameters
    ----------
    data, model, weight : (views, s, y) float32, coarse pixels
    volumes : (groups, z, x, y) float32, of each group alone
    indices : (views,) of the series
    factor : coarse pixels in pixels of the views
    """

    data: Tensor
    model: Tensor
    weight: Tensor
    volumes: Tensor
    indices: NDArray[np.intp]
    factor: int

    @property
    def residual(self) -> float:
        """rho of the views in use taken together."""
        return residual(self.model, self.data, self.weight).total


def quick_residual(
    views: Tensor,
    valid: Tensor,
    tilt: F64,
    shifts: F64,
    use: NDArray[np.bool_],
    *,
    extent: str = "object",
    n_z: int | None = None,
    width: int = COARSE_WIDTH,
) -> float:
    """rho of the blurred, aligned views against reprojections of volumes they took no part in; NaN with too few views.

    Parameters and result as for :func:`quick_prediction`.
    """
    found = quick_prediction(views, valid, tilt, shifts, use, extent=extent, n_z=n_z, width=width)
    return math.nan if found is None else found.residual


def quick_prediction(
    views: Tensor,
    valid: Tensor,
    tilt: F64,
    shifts: F64,
    use: NDArray[np.bool_],
    *,
    extent: str = "object",
    n_z: int | None = None,
    width: int = COARSE_WIDTH,
    groups: int = GROUPS,
    iterations: int = ITERATIONS,
) -> Prediction | None:
    """Predict every view from small volumes that it took no part in; none with too few views.

    Parameters
    ----------
    views : (tilt, s, y) float32
    valid : (tilt, s, y) uint8
    tilt : (tilt,) radians, ascending
    shifts : (tilt, 2) pixels of `views`
    use : (tilt,) bool, views that take part
    extent : "object" or "section": width of the volume and rays that count
    n_z : planes of the volume at the bin of `views`; default n_s for an object, half of it for a section
    width : samples across the axis at most
    groups : of interleaved views
    iterations : conjugate-gradient steps of the volumes
    """
    indices = np.flatnonzero(use)
    if len(indices) < 2 * groups:
        return None
    factor = max(1, math.ceil(views.shape[1] / width))
    data, weight = _coarse(views, valid, shifts, indices, factor)
    angles = torch.from_numpy(np.asarray(tilt, dtype=np.float64)[indices]).to(views.device)
    n_s = data.shape[1]
    planes = math.ceil((n_z or (views.shape[1] if extent == "object" else views.shape[1] // 2)) / factor)
    if extent == "object":
        across = math.ceil(1.25 * n_s)
    else:
        steepest = min(float(angles.abs().max()), math.radians(75.0))
        across = math.ceil(n_s / math.cos(steepest) + planes * math.tan(steepest))
    shape = (planes, across, data.shape[2])
    weight = weight * full_rays(angles, n_s, shape[:2], 1.0, extent)[:, :, None]
    data = (data - weighted_mean(data, weight).float()[:, None, None]) * (weight > 0)
    members = [torch.from_numpy(group).to(views.device) for group in interleaved(len(indices), groups)]
    volumes = torch.stack(
        [
            CglsSolver(
                data[at],
                weight[at],
                angles[at].cpu(),
                shape=shape,
                solve=True,
                parameters=AlgebraicParameters(iterations),
            ).run()
            for at in members
        ]
    )
    total = volumes.sum(dim=0)
    model = torch.empty_like(data)
    for at, volume in zip(members, volumes, strict=True):
        model[at] = projector.project((total - volume) / (groups - 1), angles[at], n_s)
    return Prediction(data, model, weight, volumes, indices, factor)


def _coarse(views: Tensor, valid: Tensor, shifts: F64, indices: NDArray[np.intp], factor: int) -> tuple[Tensor, Tensor]:
    """Aligned, blurred block means and the blocks that are known whole, view by view."""
    shape = (int(views.shape[1]) // factor, int(views.shape[2]) // factor)
    if min(shape) < 1:
        shape = (max(shape[0], 1), max(shape[1], 1))
    # the coarse frame is centred on the fine one
    corner = [(n - m * factor) / 2 for n, m in zip(views.shape[1:], shape)]
    out, weight = [], []
    for i in indices:
        matrix = torch.tensor(
            [[[1.0, 0.0, corner[0] + shifts[i, 0]], [0.0, 1.0, corner[1] + shifts[i, 1]]]], dtype=torch.float64
        ).to(views.device)
        image, seen = warp.resample(views[i : i + 1], matrix, shape, 1, factor, valid[i : i + 1])
        out.append(image[0])
        weight.append(seen[0])
    return warp.gaussian_blur(torch.stack(out), BLUR), torch.stack(weight)
