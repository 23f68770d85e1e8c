"""Coarse image shifts of a tilt series by cosine-stretched, cumulative cross-correlation, outward from the lowest tilt.

Each view is compared with a running sum of the views before it, stretched across the tilt axis to the same
foreshortening (section), or as it is (isolated object). Then projection matching goes on from there. Of all that was
tried, the shifts by which the views predict each other best are kept: good to about 1 px; what is left is for the joint
solve.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gigascope.errors import ShapeError, UserError
from gigascope.kernels import warp
from gigascope.tomography.axial import refine_axial
from gigascope.tomography.centre_of_mass import centre_of_mass_shifts, centre_on_object
from gigascope.tomography.correlation import Correlator, frame_taper
from gigascope.tomography.geometry import gauge_of, gauge_shifts
from gigascope.tomography.matching import match_projections
from gigascope.tomography.quick_residual import quick_residual

log = logging.getLogger(__name__)

F64 = NDArray[np.float64]

MIN_COSINE = math.cos(math.radians(80.0))
MAX_STRETCH = 1.5
LEAVES_FRAME = 0.25  # of the width: a view shifted further shares too little with the others
CONVERGED = 0.05  # pixels RMS between two passes
MATCHING = "projection matching"
# objects at SNR 1: 0.1 % lower residuals go with errors of 0.15 and 0.19 px as often as the other way round; sections:
# 5 to 7 % lower with 0.3 instead of 0.9 px
CLEARLY_BETTER = 0.99


@dataclass(frozen=True)
class PrealignSettings:
    """Lengths in pixels of the views that are given, frequencies in cycles per such pixel.

    Parameters
    ----------
    max_shift : largest shift looked for; none: 20 % of the width
    low_pass, high_pass : of the correlated band
    taper : raised-cosine edge, fraction of each side
    cumulative : weight of the running reference against the last view; 0: neighbours only
    passes : over the series, at most; ends earlier when the shifts stand still
    min_peak : a peak below this fraction of the median marks a view as weak
    """

    max_shift: float | None = None
    low_pass: float = 0.12
    high_pass: float = 0.015
    taper: float = 0.12
    cumulative: float = 0.75
    passes: int = 4
    min_peak: float = 0.25


@dataclass(frozen=True)
class PrealignResult:
    """Shifts and what they are worth, in the order of the views.

    Parameters
    ----------
    shifts : (tilt, 2) float64, (f_s, f_y) in pixels of the views given
    peak : (tilt,) float64, correlation coefficient with the running reference in the pass band; NaN where not measured
    weak : (tilt,) bool, the shift is interpolated from the neighbours
    method : "correlation", "centre of mass", "centre of mass, correlation" or "projection matching"
    residuals : leave-group-out residual of each method that was tried
    steps : RMS change of the shifts in each pass of the chosen method, pixels
    tried : (tilt, 2) shifts of each method that was tried
    """

    shifts: F64
    peak: F64
    weak: NDArray[np.bool_]
    method: str
    residuals: dict[str, float]
    steps: tuple[float, ...]
    tried: dict[str, F64] = dataclasses.field(default_factory=dict)


def prealign(
    views: Tensor,
    valid: Tensor,
    tilt: ArrayLike,
    extent: str,
    settings: PrealignSettings = PrealignSettings(),
    *,
    good: ArrayLike | None = None,
    progress: Callable[[float], None] | None = None,
) -> PrealignResult:
    """Image shifts of prepared views in the rotated frame.

    Parameters
    ----------
    views : (tilt, s, y) float32, background removed
    valid : (tilt, s, y) uint8, 0 where a view is not known
    tilt : (tilt,) radians, ascending
    extent : "object": views are not stretched, and the centre of mass is tried as well; "section" or "crop"
    good : (tilt,) bool, views that may be used; the others get interpolated shifts
    progress : called with the fraction done

    Returns
    -------
    PrealignResult

    Raises
    ------
    ShapeError : shapes disagree, or the angles are not ascending
    UserError : fewer than two good views
    """
    tilt = np.asarray(tilt, dtype=np.float64)
    use = np.ones(len(tilt), dtype=bool) if good is None else np.array(good, dtype=bool)
    _check(views, valid, tilt, use)
    report = progress or (lambda fraction: None)
    valid = without_pinholes(valid)
    aligner = _Aligner(views, valid, tilt, use, extent, settings)
    candidates = _object_candidates if extent == "object" else _section_candidates
    results = candidates(aligner, lambda part: report(0.7 * part))

    def rho(result: PrealignResult) -> float:
        found = quick_residual(views, valid, tilt, result.shifts, use & ~result.weak, extent=extent)
        return found if math.isfinite(found) else math.inf

    residuals = {method: rho(result) for method, result in results.items()}
    best = results[min(residuals, key=residuals.__getitem__)]
    kept = use & ~best.weak
    matched = match_projections(views, valid, tilt, best.shifts, kept, extent, settings.taper)
    matched = interpolated(_least_moved(matched, tilt, use, extent), tilt, kept)
    results[MATCHING] = dataclasses.replace(best, shifts=matched, method=MATCHING)
    residuals[MATCHING] = rho(results[MATCHING])
    if residuals[MATCHING] < CLEARLY_BETTER * residuals[best.method]:
        best = results[MATCHING]
    log.info("prealign by %s: leave-group-out residuals %s", best.method, residuals)
    report(1.0)
    tried = {method: result.shifts for method, result in results.items()}
    return dataclasses.replace(best, residuals=residuals, tried=tried)


def _section_candidates(aligner: _Aligner, report: Callable[[float], None]) -> dict[str, PrealignResult]:
    """Shifts of a section by cosine-stretched correlation, with profiles along the axis aligned."""
    views, valid, tilt, use, settings = aligner.views, aligner.valid, aligner.tilt, aligner.use, aligner.settings
    shifts, peak, weak, steps = aligner.run(np.zeros((len(tilt), 2)), report)
    shifts = refine_axial(views, valid, tilt, shifts, use & ~weak, settings.low_pass, settings.high_pass)
    shifts = interpolated(_least_moved(shifts, tilt, use, "section"), tilt, use & ~weak)
    return {"correlation": PrealignResult(shifts, peak, weak, "correlation", {}, steps)}


def _object_candidates(aligner: _Aligner, report: Callable[[float], None]) -> dict[str, PrealignResult]:
    """Shifts of an isolated object by correlation alone, by its centre of mass alone, and by both in turn."""
    views, valid, tilt, use = aligner.views, aligner.valid, aligner.tilt, aligner.use
    mass = interpolated(centre_of_mass_shifts(views, valid, use), tilt, use)
    results = {}
    for k, (method, start) in enumerate({"correlation": 0.0 * mass, "centre of mass, correlation": mass}.items()):

        def part_done(part: float, k: int = k) -> None:
            report(0.1 + 0.35 * (k + part))

        shifts, peak, weak, steps = aligner.run(start, part_done)
        kept = use & ~weak
        shifts = _least_moved(centre_on_object(views, valid, shifts, kept), tilt, use, "object")
        results[method] = PrealignResult(interpolated(shifts, tilt, kept), peak, weak, method, {}, steps)
    # peaks and weak views are those of the correlation that started here
    mass = interpolated(_least_moved(mass, tilt, use, "object"), tilt, kept)
    results["centre of mass"] = PrealignResult(mass, peak, weak, "centre of mass", {}, ())
    return results


def _least_moved(shifts: F64, tilt: F64, use: NDArray[np.bool_], extent: str) -> F64:
    """Shifts without the translation along y, and of a section along x too: the images move least, and lose least.

    The translation along z stays: correlation has brought the specimen into the plane of the tilt axis. So does an
    object's along x, which lies on the axis.
    """
    x, y, _ = gauge_of(shifts, tilt, use)
    return shifts - gauge_shifts((0.0 if extent == "object" else x, y, 0.0), tilt)


def without_pinholes(valid: Tensor) -> Tensor:
    """Masks with holes of one or two pixels closed: hot pixels, whose replaced values serve a correlation.

    Left open, 2 % of hot pixels would take a third of all 2 x 2 blocks. `valid` : (tilt, s, y) uint8.
    """
    closed = torch.empty_like(valid)
    for view, out in zip(valid, closed):
        grown = torch.nn.functional.max_pool2d(view[None].float(), 3, 1, 1)
        out.copy_(-torch.nn.functional.max_pool2d(-grown, 3, 1, 1)[0])
    return closed


def interpolated(shifts: F64, tilt: F64, use: NDArray[np.bool_]) -> F64:
    """Shifts with those of unused views replaced by linear interpolation over tilt between used ones; (tilt, 2)."""
    if use.all() or not use.any():
        return shifts.copy()
    return np.stack([np.interp(tilt, tilt[use], column[use]) for column in shifts.T], axis=1) * ~use[
        :, None
    ] + np.where(use[:, None], shifts, 0.0)


class _Aligner:
    """Passes of outward correlation over one series."""

    def __init__(
        self, views: Tensor, valid: Tensor, tilt: F64, use: NDArray[np.bool_], extent: str, settings: PrealignSettings
    ) -> None:
        n_s, n_y = int(views.shape[1]), int(views.shape[2])
        self.views, self.valid, self.use, self.settings = views, valid, use, settings
        self.shape = (n_s, n_y)
        cosine = np.maximum(np.cos(tilt), MIN_COSINE)
        self.cosine = np.ones_like(cosine) if extent == "object" else cosine
        self.tilt = tilt
        self.start = int(np.flatnonzero(use)[np.argmin(np.abs(tilt[use]))])
        self.max_shift = 0.2 * n_s if settings.max_shift is None else settings.max_shift
        # a larger search was asked for by hand: then the guard follows it
        self.frame_limit = [max(LEAVES_FRAME * n, 1.25 * (settings.max_shift or 0.0)) for n in self.shape]
        self.correlator = Correlator(self.shape, settings.low_pass, settings.high_pass, self.max_shift, views.device)
        self.frame = frame_taper(self.shape, settings.taper, views.device)

    def run(
        self, start: F64, progress: Callable[[float], None]
    ) -> tuple[F64, F64, NDArray[np.bool_], tuple[float, ...]]:
        """Shifts, peaks, weak views and the RMS step of every pass, from starting shifts."""
        shifts, steps = start.copy(), []
        peak, weak = np.full(len(shifts), np.nan), ~self.use
        n_passes = self.settings.passes
        for k in range(n_passes):

            def part_done(part: float, k: int = k) -> None:
                progress((k + part) / n_passes)

            before = shifts.copy()
            shifts, peak, weak = self._one_pass(shifts, peak, part_done)
            step = shifts - before
            steps.append(float(np.sqrt((step[self.use] ** 2).sum(axis=1).mean())))
            if steps[-1] < CONVERGED:
                break
        progress(1.0)
        return shifts, peak, weak, tuple(steps)

    def _one_pass(
        self, shifts: F64, last_peak: F64, progress: Callable[[float], None]
    ) -> tuple[F64, F64, NDArray[np.bool_]]:
        shifts = shifts.copy()
        peak, weak = np.full(len(shifts), np.nan), ~self.use
        done = 0
        for order in (range(self.start + 1, len(shifts)), range(self.start - 1, -1, -1)):
            previous = self.start
            reference = self._moved(previous, shifts[previous], 1.0)
            for i in order:
                done += 1
                if not self.use[i]:
                    continue
                # c: how much wider a plane specimen appears in the lower of the two views
                c = min(self.cosine[previous] / self.cosine[i], MAX_STRETCH)
                pair = (reference, self._moved(i, shifts[i], c))
                found = self.correlator.peak(*(self.correlator.spectrum(image, self.frame) for image in pair))
                moved = shifts[i] + (found.shift[0] / c, found.shift[1])
                typical = np.concatenate([last_peak[np.isfinite(last_peak)], peak[np.isfinite(peak) & ~weak]])
                peak[i] = found.height
                too_low = len(typical) >= 3 and found.height < self.settings.min_peak * float(np.median(typical))
                out_of_frame = bool((np.abs(moved) > self.frame_limit).any())
                if found.height <= 0 or too_low or out_of_frame or found.at_limit:
                    weak[i] = True
                    continue
                shifts[i] = moved
                reference = self._squeezed(reference, c) * self.settings.cumulative + self._moved(i, moved, 1.0)
                previous = i
                progress(done / max(len(shifts) - 1, 1))
        return interpolated(shifts, self.tilt, ~weak), peak, weak

    def _moved(self, index: int, shift: F64, stretch: float) -> Tensor:
        """A view shifted and stretched across the axis about the centre; outside 0, which is the background's value."""
        centre = (self.shape[0] - 1) / 2
        matrix = torch.tensor(
            [[[1 / stretch, 0.0, centre - centre / stretch + shift[0]], [0.0, 1.0, shift[1]]]], dtype=torch.float64
        ).to(self.views.device)
        image, seen = warp.resample(
            self.views[index : index + 1], matrix, self.shape, 1, 1, self.valid[index : index + 1]
        )
        return image[0] * seen[0]

    def _squeezed(self, image: Tensor, stretch: float) -> Tensor:
        """An image in the foreshortening of a higher tilt: narrower by `stretch` about the centre."""
        if stretch == 1.0:
            return image
        centre = (self.shape[0] - 1) / 2
        matrix = torch.tensor([[[stretch, 0.0, centre - centre * stretch], [0.0, 1.0, 0.0]]], dtype=torch.float64)
        image, seen = warp.resample(image[None], matrix.to(image.device), self.shape, 1, 1, None)
        return (image * seen)[0]


def _check(views: Tensor, valid: Tensor, tilt: F64, use: NDArray[np.bool_]) -> None:
    if views.ndim != 3 or views.shape != valid.shape or tilt.shape != use.shape or len(tilt) != len(views):
        shapes = f"views {tuple(views.shape)}, valid {tuple(valid.shape)}, tilt {tilt.shape}, good {use.shape}"
        raise ShapeError(f"{shapes} do not go together")
    if bool((np.diff(tilt) < 0).any()):
        raise ShapeError("tilt angles must ascend; sort the views by angle first")
    if int(use.sum()) < 2:
        raise UserError(
            f"{int(use.sum())} of {len(use)} views can be used, at least 2 are needed to align.",
            do="Check ingest.exclude and ingest.dark_tol, and the pictures of the raw views.",
        )
