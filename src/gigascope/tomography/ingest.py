"""Raw tilt series into their store: from a file, view by view, or from a phantom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.source import TiltSeriesSource
from gigascope.tomography import phantom
from gigascope.tomography.series import SeriesFacts
from gigascope.tomography.signal import SignalModel, SignalSettings

if TYPE_CHECKING:
    from gigascope.config.tomography import Ingest, PhantomSeries


def excluded_views(source: TiltSeriesSource, cfg: Ingest) -> tuple[int, ...]:
    """Views left out by hand, and those that the alignment leaves out, if one is given."""
    left_out = () if source.alignment is None else np.flatnonzero(source.alignment.excluded).tolist()
    return tuple(sorted({*cfg.exclude, *left_out}))


def signal_settings(cfg: Ingest, exclude: tuple[int, ...]) -> SignalSettings:
    """The part of the config that the signal model needs; `exclude` from :func:`excluded_views`."""
    return SignalSettings(
        signal=cfg.signal,
        invert=cfg.invert,
        i0=cfg.i0,
        dark=cfg.dark,
        exclude=exclude,
        dark_tol=cfg.dark_tol,
        spike=cfg.spike,
        equalize=cfg.equalize,
        extent=cfg.extent,
    )


def facts_of(source: TiltSeriesSource, cfg: Ingest) -> SeriesFacts:
    """What a file and the config say about a series."""
    notes = list(source.notes)
    if source.tilt_axis_deg is None:
        notes.append(
            "tilt axis angle not found: 0 degrees (vertical) was assumed; set ingest.tilt_axis_deg if it is not"
        )
    notes.append(
        f"the sign of the tilt angles is {'that' if cfg.tilt_sign > 0 else 'the opposite'} of "
        f"{source.origin.get('tilt_deg', 'the series')}: no view tells it, and the other one mirrors the tomogram in z "
        f"(ingest.tilt_sign)"
    )
    return SeriesFacts(
        pixel_size_nm=float(source.pixel_size_nm or 0),
        tilt_deg=cfg.tilt_sign * np.asarray(source.tilt_deg, dtype=np.float64),
        tilt_axis_deg=float(source.tilt_axis_deg or 0.0),
        tilt_sign=cfg.tilt_sign,
        source=str(source.path),
        notes=tuple(notes),
        dose=source.dose,
        given_shifts=None if source.alignment is None else source.alignment.shifts,
        alignment=source.origin.get("alignment", ""),
    )


def checked_views(source: TiltSeriesSource, exclude: tuple[int, ...]) -> Iterator[NDArray]:
    """Views of a file, one at a time, with the unusable ones refused.

    Raises
    ------
    UserError : a view that is not excluded is constant or holds values that are not finite
    """
    for i in range(source.n_views):
        view = source.read(i)
        if i not in exclude:
            where = f"{source.path}, view {i}"
            advice = f"Exclude it (ingest.exclude: [{i}]) or repair the file."
            if view.dtype.kind == "f" and not np.isfinite(view).all():
                bad = int((~np.isfinite(view)).sum())
                y, x = (int(k) for k in np.argwhere(~np.isfinite(view))[0])
                raise UserError(
                    f"holds {bad} values that are not finite (NaN or infinite), the first at y {y}, x {x}.",
                    where=where,
                    do=advice,
                )
            if view.min() == view.max():
                raise UserError(f"is constant: every pixel is {view.flat[0]:g}.", where=where, do=advice)
        yield view


def warnings(model: SignalModel, facts: SeriesFacts) -> list[str]:
    """What a person should know about a series before trusting what follows, in plain words."""
    lines = []
    for flag, what in (("dark", "too dark"), ("empty", "empty (no contrast)")):
        views = [i for i, f in enumerate(model.flags) if f == flag]
        if views:
            listed = ", ".join(f"{i} ({facts.tilt_deg[i]:.0f}°)" for i in views)
            lines.append(f"{len(views)} of {len(model.flags)} views are {what} and were left out: {listed}.")
    left, lost = facts.tilt_deg[model.good], [f for f in model.flags if f in ("dark", "empty")]
    if 3 * len(lost) > len(model.flags):
        lines.append(
            f"Only {len(left)} of {len(model.flags)} views can be used, from {left.min():.0f}° to {left.max():.0f}°: "
            f"the tomogram will be smeared along what is missing. Was the beam on, and is ingest.signal right?"
        )
    spikes = float(np.mean(model.spikes))
    if spikes > 0.001:
        lines.append(
            f"{100 * spikes:.1f} % of the pixels were hot and were replaced by the median of their neighbours."
        )
    return lines


def simulated(cfg: PhantomSeries, seed: int) -> tuple[NDArray[np.float32], SeriesFacts]:
    """A phantom's tilt series, (tilt, y, x) float32 counts, and its facts with the true shifts."""
    make = phantom.object_phantom if cfg.kind == "object" else phantom.section_phantom
    tilt = np.deg2rad(np.linspace(-cfg.max_tilt_deg, cfg.max_tilt_deg, cfg.n_tilts))
    rng = np.random.default_rng([seed, 10])
    if cfg.drift:
        shifts = phantom.true_shifts(cfg.n_tilts, rng, cfg.shift_sigma_px)
    else:
        shifts = rng.normal(0.0, cfg.shift_sigma_px, (cfg.n_tilts, 2))
    sim = phantom.simulate(
        make(seed), seed=seed, snr=cfg.snr, tilt=tilt, shape=(cfg.size_px, cfg.size_px), shifts=shifts
    )
    facts = SeriesFacts(
        pixel_size_nm=cfg.pixel_size_nm,
        tilt_deg=np.rad2deg(tilt),
        tilt_axis_deg=0.0,
        tilt_sign=1,
        source="phantom",
        notes=(f"simulated from a phantom ({cfg.kind}, SNR {cfg.snr:g}); the true shifts are known",),
        true_shifts=shifts,
    )
    return np.ascontiguousarray(sim.views.transpose(0, 2, 1)), facts
