"""What a reconstruction with fixed shifts takes from series and config: sizes, data, weights, operator, constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels import projector
from gigascope.tomography import masks
from gigascope.tomography.alignment import Alignment
from gigascope.tomography.layout import Layout, lay_out
from gigascope.tomography.reconstruct import ReconstructParameters, TvSolver, tomogram_lambda
from gigascope.tomography.series import Series

if TYPE_CHECKING:
    from gigascope.config.tomography import Reconstruct

F64 = NDArray[np.float64]

# Weight of the total variation in the joint alignment, at most; the least elsewhere. Below it hardly matters, but an
# object at SNR 1 comes to 0.10 px with 0.2, 0.3 with 0.3 and 3 with 0.4: what suits a tomogram ruins its alignment.
LEAST_LAMBDA = 0.1


def layout_of(series: Series, cfg: Reconstruct, further_bin: int = 1) -> Layout:
    """Sizes of the reconstruction of a series."""
    return lay_out(
        series.shape[1:],
        series.tilt,
        tilt_axis=series.tilt_axis,
        pixel_nm=series.pixel_nm,
        extent=series.extent,
        cfg=cfg,
        further_bin=further_bin,
        measured_nm=series.refined.volume_nm,
    )


def regularization(series: Series, cfg: Reconstruct, n_views: int, bin: int) -> float:
    """Weight of the total variation for data of a bin.

    Given: lambda times the bin (tomography.md 6.5); otherwise from the noise, see
    :func:`gigascope.tomography.reconstruct.tomogram_lambda`.
    """
    if cfg.regularization is not None:
        return cfg.regularization * bin
    return max(LEAST_LAMBDA * bin, tomogram_lambda(noise_sigma(series, bin), n_views))


def noise_sigma(series: Series, bin: int) -> float:
    """Standard deviation of the noise per pixel of a bin, for data of unit standard deviation; median over views."""
    return float(np.sqrt(np.median(series.model.noise[series.model.good]))) / bin


def unsolved(series: Series, shifts: F64) -> Alignment:
    """Shifts of which nothing else is known."""
    n = len(series.tilt)
    return Alignment(
        shifts=shifts,
        sigma=np.full((n, 2), np.nan),
        residual=np.full(n, np.nan),
        overlap=np.ones(n),
        flags=["" if use else "excluded" for use in series.use],
        offsets=np.zeros(n),
    )


def aligned_data(
    series: Series, layout: Layout, alignment: Alignment, noise: F64, bin: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Aligned views and their weights at a bin, (tilt, s, y) float32; flagged views have no weight."""
    views, valid = series.prepared(
        device=device,
        bin=bin,
        largest_bin=layout.largest_bin,
        shifts=alignment.shifts,
        linear=alignment.linear,
        spline=3,
    )
    angles = torch.as_tensor(series.tilt, dtype=torch.float64, device=device)
    full = masks.full_rays(angles, views.shape[1], layout.shape(bin)[:2], layout.hz, layout.extent)
    precision = torch.as_tensor(precision_of(alignment, noise), dtype=torch.float32, device=device)
    return views, masks.weights(valid.to(torch.float32), full, precision)


def precision_of(alignment: Alignment, noise: F64) -> F64:
    """(tilt,) weights of the views in a volume: 0 for flagged ones."""
    good = np.array([flag == "" for flag in alignment.flags])
    return good / noise


def operator_of(cfg: Reconstruct) -> Any:
    """The projector of the config: ours, or ASTRA behind the same calls.

    Raises
    ------
    UserError : ASTRA is asked for and not installed, or cannot do the voxel shape
    """
    if cfg.projector == "astra":
        from gigascope.tomography.astra_projector import AstraProjector

        return AstraProjector(cfg.hz)
    return projector


def constants_solver(
    series: Series,
    layout: Layout,
    alignment: Alignment,
    cfg: Reconstruct,
    bin: int,
    chosen: NDArray[np.intp],
    device: torch.device,
) -> TvSolver:
    """A coarse tomogram of the chosen views that solves the constants of a section's views.

    They are sums over all slices, in every iteration: slabs cannot know them. So a tomogram of bin `bin` takes them
    from one that is small enough to be done whole, as it takes those of the joint solve.
    """
    coarse = layout.coarser(bin)
    noise = series.noise if cfg.weights == "noise" else np.ones(len(series.tilt))
    views, weights = aligned_data(series, layout, alignment, noise, coarse, device)
    rows = torch.from_numpy(chosen).to(device)
    lam = regularization(series, cfg, len(chosen), coarse)
    return TvSolver(
        views[rows],
        weights[rows],
        series.tilt[chosen],
        shape=layout.shape(coarse),
        solve=True,
        hz=layout.hz,
        parameters=ReconstructParameters(
            lam=lam, iterations=cfg.iterations, tol=cfg.tol, positivity=cfg.positivity, round=cfg.round
        ),
        operator=operator_of(cfg),
    )
