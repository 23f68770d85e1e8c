"""Plots of the tomography page: shifts, their error, residuals, convergence, Fourier correlation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.report.page import Html, grid, join, number, paragraph, plain
from gigascope.report.plots import Axis, Mark, Series, Style, plot

if TYPE_CHECKING:
    from gigascope.report.evaluated import Columns
    from gigascope.report.tomography_result import TomographyResult, Views

F64 = NDArray[np.float64]
TILT = Axis("tilt (°)")
THRESHOLDS = (0.5, 0.143)


def alignment(views: Views, pixel_nm: float) -> Html:
    """Shifts against tilt, what the joint solve changed, the error against the truth, and the path of the images."""
    reference = found_frame(views)
    blocks = [
        _shifts(views, 0, "across the tilt axis", Html("f<sub>s</sub>"), reference),
        _shifts(views, 1, "along the tilt axis", Html("f<sub>y</sub>"), reference),
        _errors(views, views.truth) if views.truth is not None else _changes(views),
        _path(views),
    ]
    lead = (
        f"Displacement of each view's content in pixels of the raw views (1 px = {plain(pixel_nm)} nm), band: two "
        "predicted standard deviations. A common translation of the specimen cannot be measured and was taken out of "
        "every comparison."
    )
    return join([paragraph(lead, class_="lead"), grid(*blocks)])


def found_frame(views: Views) -> F64:
    """The true shifts in the frame of the found ones (n, 2), or NaN."""
    if views.truth is None:
        return np.full_like(views.found, np.nan)
    return views.truth + _gauge(views.found - views.truth, views)


def _gauge(difference: F64, views: Views) -> F64:
    """The part of a difference of shifts that a translation of the specimen explains, (n, 2)."""
    from gigascope.tomography.geometry import gauge_of, gauge_shifts

    use = views.use & np.isfinite(difference).all(axis=1)
    if use.sum() < 3:
        return np.zeros_like(difference)
    return gauge_shifts(gauge_of(np.nan_to_num(difference), views.tilt, use), views.tilt)


def gauge_free(difference: F64, views: Views) -> F64:
    """A difference of shifts without the translation of the specimen, (n, 2)."""
    return difference - _gauge(difference, views)


def _names(views: Views, values: F64) -> list[str]:
    """What the pointer shows at each view."""
    return [
        f"view {i} at {plain(t)}°: {number(v)} px" + (f" ({why})" if why else "")
        for i, t, v, why in zip(views.index, map(float, views.tilt_deg), map(float, values), views.reason)
    ]


def _shifts(views: Views, axis: int, where: str, symbol: Html, reference: F64) -> Html:
    y = views.found[:, axis]
    coarse = (views.coarse + _gauge(views.found - views.coarse, views))[:, axis]
    series = [
        Series("true", views.tilt_deg, reference[:, axis], style="wide", colour=3),
        Series("pre-aligned", views.tilt_deg, coarse, style="hollow", colour=0, names=_names(views, coarse)),
        Series("aligned", views.tilt_deg, y, band=2 * views.sigma[:, axis], style="line", colour=1),
        Series("", views.tilt_deg, y, style="dots", colour=1, names=_names(views, y)),
    ]
    if not views.use.all():
        series.append(_left_out(views, y))
    description = f"Shift {where}, in pixels, against tilt: pre-aligned and finally aligned"
    return plot(series, TILT, Axis("shift (px)"), title=join([f"Shift {where}, ", symbol]), description=description)


def _left_out(views: Views, y: F64) -> Series:
    return Series("left out", views.tilt_deg[~views.use], y[~views.use], style="hollow", colour=2)


def _errors(views: Views, truth: F64) -> Html:
    """Length of the error of each view after the gauge is removed."""
    return plot(
        [
            _error("pre-aligned", views.coarse - truth, views, "hollow", 0),
            _error("aligned", views.found - truth, views, "linedots", 1),
        ],
        TILT,
        Axis("error (px)", zero=True),
        title="Error against the truth",
        description="Alignment error of each view against the true shifts, in pixels, against tilt",
    )


def _error(label: str, difference: F64, views: Views, style: Style, colour: int) -> Series:
    error = np.linalg.norm(gauge_free(difference, views), axis=1)
    rms = float(np.sqrt(np.nanmean(error[views.use] ** 2))) if np.isfinite(error[views.use]).any() else np.nan
    names = _names(views, error)
    return Series(f"{label}, RMS {number(rms)} px", views.tilt_deg, error, style=style, colour=colour, names=names)


def _changes(views: Views) -> Html:
    change = gauge_free(views.found - views.coarse, views)
    series = [
        Series("across (s)", views.tilt_deg, change[:, 0], band=2 * views.sigma[:, 0], style="linedots", colour=1,
               names=_names(views, change[:, 0])),
        Series("along (y)", views.tilt_deg, change[:, 1], band=2 * views.sigma[:, 1], style="linedots", colour=2,
               names=_names(views, change[:, 1])),
    ]  # fmt: skip
    description = "What the joint alignment changed against the pre-alignment, in pixels, against tilt"
    return plot(
        series,
        TILT,
        Axis("change (px)"),
        title="What the joint alignment changed",
        description=description,
        marks=[Mark("y", 0.0)],
    )


def _path(views: Views) -> Html:
    names = [f"view {i} at {plain(float(t))}°" for i, t in zip(views.index, views.tilt_deg)]
    s, y = views.found.T
    lowest = int(np.argmin(np.abs(views.tilt_deg)))
    series = [
        Series("", s, y, style="line", colour=0),
        Series(
            "negative tilt",
            *_where(s, y, views.tilt_deg < 0),
            style="dots",
            colour=2,
            names=_some(names, views.tilt_deg < 0),
        ),
        Series(
            "positive tilt",
            *_where(s, y, views.tilt_deg >= 0),
            style="dots",
            colour=1,
            names=_some(names, views.tilt_deg >= 0),
        ),
        Series(
            f"lowest tilt, {plain(float(views.tilt_deg[lowest]))}°", s[[lowest]], y[[lowest]], style="hollow", colour=3
        ),
    ]
    description = (
        "Path of the image shift over the series: shift along the tilt axis against shift across it, in pixels"
    )
    return plot(
        series, Axis("f_s (px)"), Axis("f_y (px)"), title="Path of the images", description=description, equal=True
    )


def _where(s: F64, y: F64, mask: NDArray[np.bool_]) -> tuple[F64, F64]:
    return s[mask], y[mask]


def _some(names: list[str], mask: NDArray[np.bool_]) -> list[str]:
    return [name for name, keep in zip(names, mask) if keep]


def quality(result: TomographyResult, views: Views) -> Html:
    """Residual and FRC per view, FSC of the halves, convergence."""
    blocks = [*_resolution(result, views), _residuals(result, views), *_convergence(result.history)]
    shown = grid(*[b for b in blocks if b])
    note = (
        "Both halves share the alignment, so the FSC speaks of noise, not of the alignment; the FRC of each view "
        "against the reprojection of the other half is the stricter measure."
    )
    if result.halves is None:
        note = "No half tomograms were written (halves.enabled: false): the FSC is from quick ones, binned. " + note
    return join([paragraph(note, class_="lead"), shown])


_FSC_LABELS = {
    "fsc": "half tomograms",
    "fsc_full": "full tomogram, 2 FSC / (1 + FSC)",
    "fsc_raw": "raw views",
    "fsc_prealigned": "pre-aligned views",
    "fsc_aligned": "aligned views",
}
_NOT_CURVES = ("shell", "ring", "n_samples", "resolution", "view", "tilt", "wavelength")


def _frequency(columns: Columns) -> str | None:
    return next((name for name in columns if name.startswith(("frequency", "k_"))), None)


def _resolution(result: TomographyResult, views: Views) -> list[Html]:
    x = _frequency(result.fsc)
    if x is None or len(result.fsc[x]) < 2:
        return [_frc(result.frc_views, views)]
    frequency, unit = _readable(np.asarray(result.fsc[x], dtype=np.float64), result.fsc_units.get(x, ""))
    curves = [n for n, v in result.fsc.items() if n != x and not n.startswith(_NOT_CURVES) and v.dtype.kind == "f"]
    colours = {"fsc": 1, "fsc_full": 0, "fsc_raw": 2, "fsc_prealigned": 4, "fsc_aligned": 1}
    series = [
        Series(
            _FSC_LABELS.get(n, n.replace("_", " ")), frequency, result.fsc[n],
            style="dashed" if n == "fsc_full" else "line", colour=colours.get(n, 3),
        )
        for n in curves
    ]  # fmt: skip
    title = "Fourier shell correlation of the halves"
    shells = plot(
        series,
        Axis(f"spatial frequency ({unit or 'cycles/px'})"),
        Axis("correlation", (-0.1, 1.05)),
        title=title,
        description=f"{title} against spatial frequency, with the thresholds 0.5 and 0.143",
        marks=[Mark("y", t, plain(t)) for t in THRESHOLDS],
    )
    return [shells, _frc(result.frc_views, views)]


def _readable(frequency: F64, unit: str) -> tuple[F64, str]:
    """Frequencies without the shell at 0, which says nothing, in a unit that needs few zeros."""
    frequency = np.where(frequency > 0, frequency, np.nan)
    if unit == "1/nm" and np.nanmax(frequency) < 0.05:
        return frequency * 1e3, "1/µm"
    return frequency, unit


def _frc(columns: Columns, views: Views) -> Html:
    """Resolution or mean correlation of each view against the reprojection of the others."""
    wanted = [n for n in columns if n.startswith(("resolution", "frc")) and columns[n].dtype.kind == "f"]
    if not wanted or "view" not in columns or len(columns["view"]) != len(views.index):
        return Html("")
    series = []
    for colour, name in zip((1, 2, 4), wanted):
        y = per_view(columns, name, views)
        series.append(Series(_frc_label(name), views.tilt_deg, y, style="linedots", colour=colour))
    unit = "nm" if any("nm" in n or n.startswith("resolution") for n in wanted) else ""
    label = "resolution (nm)" if unit else "FRC"
    return plot(
        series, TILT, Axis(label), title="FRC of each view against the others",
        description="Agreement of each view with the reprojection of the tomogram of the other views, against tilt",
    )  # fmt: skip


def _frc_label(name: str) -> str:
    words = name.removesuffix("_nm").replace("resolution", "FRC at").replace("_", " ").replace("frc", "FRC").strip()
    return words if words != "FRC at" else "FRC"


def per_view(columns: Mapping[str, NDArray[Any]], name: str, views: Views) -> F64:
    """A column of a table with one row per view, in the order of `views`; NaN where a view has no row."""
    at = {int(v): float(x) for v, x in zip(columns["view"], columns[name])}
    return np.array([at.get(int(i), np.nan) for i in views.index])


_RESIDUAL_LABELS: dict[str, tuple[str, int, Style]] = {
    "residual_raw": ("raw", 2, "hollow"),
    "residual_prealigned": ("pre-aligned", 0, "hollow"),
    "residual_aligned": ("aligned", 1, "linedots"),
    "residual": ("aligned", 1, "linedots"),
}


def _residuals(result: TomographyResult, views: Views) -> Html:
    """Leave-group-out residual of each view before and after."""
    columns = result.frc_views
    series = []
    if "view" in columns and len(columns["view"]) == len(views.index):
        for name, (label, colour, style) in _RESIDUAL_LABELS.items():
            if name in columns:
                series.append(Series(label, views.tilt_deg, per_view(columns, name, views), style=style, colour=colour))
    if not any(s.label == "aligned" for s in series):
        series.append(Series("aligned", views.tilt_deg, views.residual, style="linedots", colour=1))
    description = (
        "Reprojection residual of each view against the tomogram of the other views, relative to the view, against tilt"
    )
    return plot(series, TILT, Axis("residual"), title="Reprojection residual", description=description)


def _convergence(history: Columns) -> list[Html]:
    """Steps of the joint solve and objective of the final reconstruction."""
    if "stage" not in history or not len(history["stage"]):
        return []
    stage = np.array([str(s) for s in history["stage"]])
    # a second try of single views is no step of the series
    event = np.array([str(e) for e in history.get("event", [""] * len(stage))])
    return [_joint(history, (stage == "joint") & (event != "retry")), _final(history, stage == "tomogram")]


def _joint(history: Columns, rows: NDArray[np.bool_]) -> Html:
    if rows.sum() < 2 or "step_rms_px" not in history:
        return Html("")
    n = np.arange(1.0, int(rows.sum()) + 1)
    bins = np.asarray(history["bin"], dtype=np.float64)[rows] if "bin" in history else np.ones(len(n))
    starts = [0, *(np.flatnonzero(np.diff(bins)) + 1)]
    marks = [Mark("x", float(n[i]) - 0.5 if i else float(n[0]), f"bin {plain(float(bins[i]))}") for i in starts]
    curves: list[tuple[str, str, Style, int]] = [
        ("RMS over the views", "step_rms_px", "linedots", 1),
        ("largest", "step_max_px", "line", 0),
    ]
    series = [
        Series(label, *_broken(n, _positive(history[name][rows]), starts[1:]), style=style, colour=colour)
        for label, name, style, colour in curves
        if name in history
    ]
    return plot(
        series, Axis("update"), Axis("step (px)", log=True), title="Joint alignment: steps of the shifts", marks=marks,
        description="Length of the steps in each update of the joint alignment, in pixels, on a logarithmic scale",
    )  # fmt: skip


def _broken(x: F64, y: F64, before: list[int]) -> tuple[F64, F64]:
    """A curve with gaps before the given points."""
    return np.insert(x, before, np.nan), np.insert(y, before, np.nan)


def _final(history: Columns, rows: NDArray[np.bool_]) -> Html:
    if rows.sum() < 2 or "objective" not in history:
        return Html("")
    n = np.asarray(history["update"], dtype=np.float64)[rows]
    return plot(
        [Series("", n, _positive(history["objective"][rows]), style="line", colour=1)],
        Axis("iteration"), Axis("objective", log=True), title="Tomogram: objective",
        description="Objective of the final reconstruction against iteration, on a logarithmic scale",
    )  # fmt: skip


def _positive(values: NDArray[Any]) -> F64:
    v = np.asarray(values, dtype=np.float64)
    return np.where(v > 0, v, np.nan)


def rms_error(shifts: F64, views: Views) -> float | None:
    """RMS over the used views of the 2-D error against the truth, pixels; none without a truth."""
    if views.truth is None or not views.use.any():
        return None
    error = gauge_free(shifts - views.truth, views)[views.use]
    return float(np.sqrt(np.nanmean((error**2).sum(axis=1))))
