"""Prealignment of a whole series: binned views in, shifts in raw pixels, geometry and the aligned views out."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.tomography.alignment import Alignment
from gigascope.tomography.axis_search import AxisSearch, search_axis
from gigascope.tomography.layout import prealign_bin
from gigascope.tomography.prealign import PrealignResult, PrealignSettings, interpolated, prealign
from gigascope.tomography.series import Refinement, Series
from gigascope.tomography.slab import Slab, measure_slab

if TYPE_CHECKING:
    from gigascope.config.tomography import Prealign

# pixels across the views of a search of the tilt axis, which prepares them anew at every angle
AXIS_WIDTH = 128


@dataclass(frozen=True)
class CoarseAlignment:
    """Result of the prealignment, ascending tilt.

    Attributes
    ----------
    series : with the geometry that was found
    alignment : shifts in raw pixels and flags (`excluded`, `weak`); no uncertainties
    peak : (tilt,) correlation with the reference
    views : (tilt, s, y) float32, aligned, binned
    bin : of the views
    method : that was chosen
    residuals : leave-group-out residual of each method that was tried
    tried : (tilt, 2) shifts in raw pixels of each method
    axis : of the search of the tilt axis, if there was one
    slab : of the specimen, lengths in binned pixels, where it could be measured
    """

    series: Series
    alignment: Alignment
    peak: NDArray[np.float64]
    views: Tensor
    bin: int
    method: str
    residuals: dict[str, float]
    tried: dict[str, NDArray[np.float64]]
    axis: AxisSearch | None
    slab: Slab | None

    def describe(self) -> dict[str, Any]:
        """Attributes of the store."""
        found: dict[str, Any] = {"bin": self.bin, "method": self.method, "residuals": self.residuals}
        found["refined"] = dataclasses.asdict(self.series.refined)
        if self.axis is not None:
            found["axis_search"] = {
                "start_deg": self.axis.start,
                "found_deg": self.axis.found,
                "sigma_deg": self.axis.sigma if math.isfinite(self.axis.sigma) else None,
                "taken": self.axis.taken,
            }
        if self.slab is not None and math.isfinite(self.slab.inclination):
            found["inclination_deg"] = math.degrees(self.slab.inclination)
            found["inclination_sigma_deg"] = math.degrees(self.slab.inclination_sigma)
        return found

    @property
    def notes(self) -> list[str]:
        """What was found about the geometry, a line each."""
        lines, refined = [], self.series.refined
        if self.axis is not None:
            lines.append(
                f"tilt axis: {self.axis.found:.2f} +- {self.axis.sigma:.2f} degrees from the data, "
                f"{self.axis.start:.2f} given; going on with {self.axis.angle:.2f}"
            )
        if refined.thickness_nm is not None:
            lines.append(f"specimen: {refined.thickness_nm:.4g} +- {refined.thickness_sigma_nm:.2g} nm thick")
        if refined.tilt_offset_deg:
            lines.append(f"tilt angles: {refined.tilt_offset_deg:+.2f} degrees, so that the section lies flat")
        return lines


def coarse_alignment(series: Series, cfg: Prealign, device: torch.device) -> CoarseAlignment:
    """Find the shifts of a series at reduced size, and what else of its geometry is asked for.

    A series that came with an alignment keeps its shifts and its tilt axis.

    Raises
    ------
    UserError : fewer than two usable views
    """
    bin = prealign_bin(series.shape[1:], cfg.width)
    views, valid, found = _shifts(series, cfg, bin, device)
    axis = None
    if cfg.axis_search and series.given_shifts is None:
        axis = _search_axis(series, cfg, found.shifts * bin, device)
        if axis.taken:
            series = series.with_refinement(Refinement(axis.angle))
            views, valid, found = _shifts(series, cfg, bin, device)
    use = series.use & ~found.weak
    slab = measure_slab(views, valid, series.tilt, found.shifts, use, series.extent)
    series = series.with_refinement(_refinement(series, cfg, slab, bin))
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
    tried = {method: moved * bin for method, moved in found.tried.items()}
    return CoarseAlignment(
        series, alignment, found.peak, aligned, bin, found.method, found.residuals, tried, axis, slab
    )


def _shifts(series: Series, cfg: Prealign, bin: int, device: torch.device) -> tuple[Tensor, Tensor, PrealignResult]:
    """Prepared views, their masks and the shifts in binned pixels."""
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
    return views, valid, found


def _search_axis(series: Series, cfg: Prealign, shifts: NDArray[np.float64], device: torch.device) -> AxisSearch:
    """Search of the tilt axis on views of at most 128 px; `shifts` in raw pixels."""
    bin = prealign_bin(series.shape[1:], AXIS_WIDTH)

    def views_at(angle: float) -> tuple[Tensor, Tensor]:
        turned = series.with_refinement(Refinement(angle))
        return turned.prepared(device=device, bin=bin, spline=3)

    return search_axis(
        views_at,
        series.tilt,
        shifts / bin,
        series.use,
        start_deg=math.degrees(series.tilt_axis),
        range_deg=cfg.axis_range_deg,
        extent=series.extent,
        taper=cfg.taper,
    )


def _refinement(series: Series, cfg: Prealign, slab: Slab | None, bin: int) -> Refinement:
    """Geometry for the stages after this one; an angle of the axis that was taken is in the series already."""
    if slab is None:
        return series.refined
    nm = series.pixel_nm * bin
    return Refinement(
        series.refined.tilt_axis_deg,
        math.degrees(slab.tilt_offset) if cfg.tilt_offset_search else 0.0,
        slab.thickness * nm,
        slab.thickness_sigma * nm,
    )


def _given(series: Series, bin: int) -> PrealignResult | None:
    """Shifts of an alignment made elsewhere, as they are: nothing is measured. None where there is none."""
    if series.given_shifts is None:
        return None
    n = len(series.tilt)
    shifts = interpolated(series.given_shifts, series.tilt, series.use) / bin
    unknown, none = np.full(n, np.nan), np.zeros(n, dtype=bool)
    return PrealignResult(shifts, unknown, none, f"given by {series.attrs['alignment']}", {}, ())
