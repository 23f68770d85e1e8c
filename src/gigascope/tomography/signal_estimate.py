"""Estimate the signal model of a raw tilt series, reading it twice, one view at a time."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.tomography import cleaning
from gigascope.tomography.cleaning import ViewSource, as_mask, as_view
from gigascope.tomography.extent import decide_extent
from gigascope.tomography.flags import ViewStatistics, band_variance, flag_views, running_median
from gigascope.tomography.signal import SignalModel, SignalSettings, prepare_view

log = logging.getLogger(__name__)

F64 = NDArray[np.float64]

FRAME = 4  # pixels along each border that are background when the object is isolated
I0_PERCENTILE = 99.5  # not the maximum: robust to holes and hot pixels
FLOOR_FRACTION = 1e-3  # of I0: intensities below count as this, absorbance 6.9
MIN_SIGNAL_FRACTION = 0.05  # of the variance that is taken for signal at least, so that pure noise has a scale
TAIL = 1.5e-3  # fraction of the brightest and of the darkest pixels that a variance does not see
MIN_GOOD_VIEWS = 7  # as a series needs
EQUALIZE_OVER = 5  # views whose standard deviations are compared


@dataclass(frozen=True)
class _Survey:
    """First reading: intensities (counts after subtraction of dark), and which views can be read at all."""

    i0: float
    floor: float
    means: F64
    readable: NDArray[np.bool_]


@dataclass(frozen=True)
class _Statistics:
    """Second reading, in units of the unscaled signal: one number per view."""

    mean: F64
    frame: F64
    variance: F64
    noise: F64
    band: F64
    spikes: F64


def estimate_signal(
    views: ViewSource,
    tilt: ArrayLike,
    settings: SignalSettings,
    *,
    tilt_axis: float = 0.0,
    valid: ViewSource | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> SignalModel:
    """Estimate intensity, noise, background, scale, bad views and extent of a raw tilt series.

    Parameters
    ----------
    views : (tilt, y, x) raw values, read one view at a time, rows y up
    tilt : (tilt,) radians, any order
    settings : what the user decides
    tilt_axis : phi, radians; tells which image direction lies across the axis
    valid : (tilt, y, x) masks, 0 where a pixel is unusable; none: all usable
    progress : called with the fraction done

    Returns
    -------
    SignalModel

    Raises
    ------
    UserError : views with NaN, or constant ones, that are not excluded; fewer than 7 good views; an excluded index out
        of range; no light at all
    ShapeError : `tilt` has another length than `views`
    """
    tilt = np.asarray(tilt, dtype=np.float64)
    n_views = int(views.shape[0])
    if tilt.shape != (n_views,):
        raise ShapeError(f"tilt has shape {tilt.shape}, expected ({n_views},)")
    report = progress or (lambda fraction: None)
    excluded = _excluded(settings.exclude, n_views)
    survey = _survey(views, valid, settings, excluded, device, lambda part: report(0.4 * part))
    level = _unscaled(settings, survey)
    statistics = _statistics(views, valid, level, survey.readable, device, lambda part: report(0.4 + 0.5 * part))
    judged = ViewStatistics(survey.means, statistics.band, tilt, excluded, settings.signal == "transmission", survey.i0)
    flags = flag_views(judged, settings.dark_tol)
    good = np.array([flag == "" for flag in flags])
    if good.sum() < MIN_GOOD_VIEWS:
        raise UserError(
            f"only {int(good.sum())} of {n_views} views are usable, at least {MIN_GOOD_VIEWS} are needed "
            f"({_summary(flags)}).",
            do="Check ingest.signal, ingest.dark and ingest.exclude; lower ingest.dark_tol if the views are in order.",
        )
    level = dataclasses.replace(level, flags=flags)
    if settings.extent == "auto":
        level = _with_extent(level, views, valid, tilt, tilt_axis, device)
    model = _scaled(level, statistics, tilt, settings.equalize)
    report(1.0)
    contrasts = ", ".join(f"view {i}: d = {d:.1f}" for i, d in zip(model.extent_views, model.extent_contrast))
    log.info("extent %s (%s)", model.extent, contrasts or "given")
    log.info("signal %s: i0 %.6g counts, scale %.4g", model.signal, model.i0, model.scale)
    log.info("views flagged: %s", _summary(model.flags))
    return model


def _unscaled(settings: SignalSettings, survey: _Survey) -> SignalModel:
    """The model before statistics: no background, factor 1."""
    n_views = len(survey.means)
    return SignalModel(
        signal=settings.signal,
        invert=settings.invert,
        dark=settings.dark,
        spike=settings.spike,
        i0=survey.i0,
        floor=survey.floor,
        scale=1.0,
        extent="section" if settings.extent == "auto" else settings.extent,
        extent_views=(),
        extent_contrast=(),
        background=np.zeros(n_views),
        gain=np.ones(n_views),
        noise=np.zeros(n_views),
        spikes=np.zeros(n_views),
        flags=("",) * n_views,
    )


def _with_extent(
    level: SignalModel,
    views: ViewSource,
    valid: ViewSource | None,
    tilt: F64,
    tilt_axis: float,
    device: torch.device | str,
) -> SignalModel:
    """`level` with the extent that three of its views show."""

    def prepared(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        raw = as_view(views, index, device)
        return prepare_view(raw, level, index, valid=as_mask(valid, index, raw.shape, device))[:2]

    extent, chosen, contrast = decide_extent(prepared, tilt, level.good, tilt_axis)
    return dataclasses.replace(level, extent=extent, extent_views=chosen, extent_contrast=contrast)


def _scaled(level: SignalModel, statistics: _Statistics, tilt: F64, equalize: bool) -> SignalModel:
    """Background, gain and scale from the statistics, for the extent and flags of `level`."""
    good = level.good
    floor = MIN_SIGNAL_FRACTION * statistics.variance
    sigma = np.sqrt(np.maximum(statistics.variance - statistics.noise, floor))
    gain = np.ones(len(tilt))
    if equalize:
        np.divide(running_median(sigma, tilt, good, EQUALIZE_OVER), sigma, out=gain, where=good & (sigma > 0))
    lowest = int(np.flatnonzero(good)[np.argmin(np.abs(tilt[good]))])
    scale = float(sigma[lowest] * gain[lowest])
    return dataclasses.replace(
        level,
        background=statistics.frame if level.extent == "object" else statistics.mean,
        gain=gain,
        scale=scale,
        noise=statistics.noise * (gain / scale) ** 2,
        spikes=statistics.spikes,
    )


def _statistics(
    views: ViewSource,
    valid: ViewSource | None,
    level: SignalModel,
    readable: NDArray[np.bool_],
    device: torch.device | str,
    progress: Callable[[float], None],
) -> _Statistics:
    rows = np.zeros((len(readable), len(dataclasses.fields(_Statistics))))
    for i in range(len(readable)):
        if readable[i]:
            rows[i] = _view_statistics(views, valid, level, i, device)
        progress((i + 1) / len(readable))
    return _Statistics(*rows.T)


def _view_statistics(
    views: ViewSource, valid: ViewSource | None, level: SignalModel, index: int, device: torch.device | str
) -> tuple[float, ...]:
    """The fields of `_Statistics` of one view."""
    raw = as_view(views, index, device)
    signal, usable, spikes = prepare_view(raw, level, index, valid=as_mask(valid, index, raw.shape, device))
    noise = cleaning.noise_sigma(signal, usable) ** 2
    values = signal.reshape(-1) if bool(usable.all()) else signal[usable]
    mean = float(values.mean(dtype=torch.float64))
    border = usable.clone()
    border[FRAME:-FRAME, FRAME:-FRAME] = False
    return (
        mean,
        cleaning.median(signal[border]) if bool(border.any()) else mean,
        float(_without_tails(values).var(correction=0)),
        noise,
        band_variance((signal - mean) * usable, noise),
        float(spikes.float().mean()),
    )


def _without_tails(values: torch.Tensor) -> torch.Tensor:
    """Values bounded by their 0.15 % quantiles: clusters of hot pixels survive the cleaning and would rule it."""
    if values.numel() < 4 / TAIL:
        return values
    some = cleaning.sample(values).sort().values
    cut = int(TAIL * some.numel())
    return values.clamp(float(some[cut]), float(some[-1 - cut]))


def _survey(
    views: ViewSource,
    valid: ViewSource | None,
    settings: SignalSettings,
    excluded: NDArray[np.bool_],
    device: torch.device | str,
    progress: Callable[[float], None],
) -> _Survey:
    n_views = len(excluded)
    means, readable = np.zeros(n_views), np.zeros(n_views, dtype=bool)
    samples: list[NDArray[np.float32]] = []
    not_finite: list[int] = []
    constant: list[int] = []
    lowest = np.inf
    share = max(1024, 16 * cleaning.SAMPLES_PER_VIEW // n_views)
    for i in range(n_views):
        view = as_view(views, i, device)
        mask = as_mask(valid, i, view.shape, device)
        fault = cleaning.fault(view[mask])
        if fault:
            (not_finite if fault == "not finite" else constant).append(i)
        else:
            readable[i] = True
            # 2 % hot pixels would otherwise be the 99.5th percentile, and light up a dark view
            values = cleaning.typical_values(view, settings.spike, mask) - settings.dark
            means[i] = float(values.mean(dtype=torch.float64))
            positive = values[values > 0]
            if not excluded[i]:
                samples.append(cleaning.sample(values, share).cpu().numpy())
                lowest = min(lowest, float(positive.min())) if positive.numel() else lowest
        progress((i + 1) / n_views)
    cleaning.raise_unusable(*([i for i in bad if not excluded[i]] for bad in (not_finite, constant)))
    if settings.signal != "transmission":
        return _Survey(1.0, 0.0, means, readable)
    i0 = settings.i0
    if i0 is None:
        i0 = float(np.percentile(np.concatenate(samples), I0_PERCENTILE)) if samples else 0.0
    if i0 <= 0 or not np.isfinite(lowest):
        raise UserError(
            f"the unscattered intensity comes out as {i0:g} counts after subtraction of dark = {settings.dark:g}.",
            do="Set ingest.signal: linear for dark field or logged data, or ingest.i0 and ingest.dark by hand.",
        )
    # a pixel without a count is taken for half of the smallest count that occurs
    quantum = 0.5 * lowest if lowest < 0.5 * i0 else 0.0
    return _Survey(i0, max(FLOOR_FRACTION * i0, quantum), means, readable)


def _excluded(indices: Sequence[int], n_views: int) -> NDArray[np.bool_]:
    wrong = [i for i in indices if not 0 <= i < n_views]
    if wrong:
        raise UserError(
            f"view {wrong[0]} does not exist, the series has {n_views} views (0 to {n_views - 1}).",
            where="ingest.exclude",
            do="Count views from 0 in file order.",
        )
    excluded = np.zeros(n_views, dtype=bool)
    excluded[list(indices)] = True
    return excluded


def _summary(flags: Sequence[str]) -> str:
    return ", ".join(f"{flags.count(kind)} {kind}" for kind in sorted(set(flags)) if kind) or "none"
