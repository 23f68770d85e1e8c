"""Prealignment of a whole series: binned views in, shifts in raw pixels and the aligned views out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.tomography.alignment import Alignment
from gigascope.tomography.layout import prealign_bin
from gigascope.tomography.prealign import PrealignResult, PrealignSettings, interpolated, prealign
from gigascope.tomography.series import Series

if TYPE_CHECKING:
    from gigascope.config.tomography import Prealign


@dataclass(frozen=True)
class CoarseAlignment:
    """Result of the prealignment, ascending tilt.

    Attributes
    ----------
    alignment : shifts in raw pixels and flags (`excluded`, `weak`); no uncertainties
    peak : (tilt,) correlation with the reference
    views : (tilt, s, y) float32, aligned, binned
    bin : of the views
    method : that was chosen
    residuals : leave-group-out residual of each method that was tried
    """

    alignment: Alignment
    peak: NDArray[np.float64]
    views: Tensor
    bin: int
    method: str
    residuals: dict[str, float]


def coarse_alignment(series: Series, cfg: Prealign, device: torch.device) -> CoarseAlignment:
    """Find the shifts of a series at reduced size, or take those of the alignment that it came with.

    Raises
    ------
    UserError : fewer than two usable views
    """
    bin = prealign_bin(series.shape[1:], cfg.width)
    views, valid = series.prepared(device=device, bin=bin)
    settings = PrealignSettings(
        max_shift=None if cfg.max_shift_nm is None else cfg.max_shift_nm / (series.pixel_nm * bin),
        low_pass=cfg.low_pass,
        high_pass=cfg.high_pass,
        taper=cfg.taper,
        cumulative=cfg.cumulative,
        passes=cfg.passes,
        min_peak=cfg.min_peak,
    )
    found = _given(series, bin) or prealign(views, valid, series.tilt, series.extent, settings, good=series.use)
    shifts = found.shifts * bin
    n = len(series.tilt)
    flags = np.where(~series.use, "excluded", np.where(found.weak, "weak", ""))
    alignment = Alignment(
        shifts=shifts,
        sigma=np.full((n, 2), np.nan),
        residual=np.full(n, np.nan),
        overlap=np.ones(n),
        flags=[str(flag) for flag in flags],
        offsets=np.zeros(n),
    )
    aligned, _ = series.prepared(device=device, bin=bin, shifts=shifts, spline=3)
    return CoarseAlignment(alignment, found.peak, aligned, bin, found.method, found.residuals)


def _given(series: Series, bin: int) -> PrealignResult | None:
    """Shifts of an alignment made elsewhere, as they are: nothing is measured. None where there is none."""
    if series.given_shifts is None:
        return None
    n = len(series.tilt)
    shifts = interpolated(series.given_shifts, series.tilt, series.use) / bin
    unknown, none = np.full(n, np.nan), np.zeros(n, dtype=bool)
    return PrealignResult(shifts, unknown, none, f"given by {series.attrs['alignment']}", {}, ())
