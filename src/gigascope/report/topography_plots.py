"""Plots of the topography page: height errors, estimators, seams, calibration residuals, training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.report.page import Html, details, grid, heading, join, number, paragraph, quantity, table
from gigascope.report.plots import Axis, Mark, Series, plot, ticks

if TYPE_CHECKING:
    from gigascope.report.evaluated import Columns
    from gigascope.report.topography_result import TopographyResult

F64 = NDArray[np.float64]
# Arrows of a quiver; more cannot be told apart.
MOST_ARROWS = 250
# Of the mosaic's longer side: length of the arrow that a twentieth of the residuals exceed.
ARROW = 0.035
SMOOTH_STEPS = 40


def height_errors(result: TopographyResult, picture: Html) -> Html:
    """Where heights are off, their histogram, errors against the true height and against the place in the field."""
    blocks = [picture, _histogram(result), _deciles(result), _field(result)]
    return join([grid(*blocks), _planes(result)])


def _histogram(result: TopographyResult) -> Html:
    found = result.tables["height_histogram"]
    if not _filled(found):
        return Html("")
    error, share = (np.asarray(found[n], np.float64) for n in ("error", "share"))
    unit = result.height_unit
    width = float(error[1] - error[0])
    p95 = result.value("height_p95")
    marks = [Mark("x", sign * p95, "95 %" if sign > 0 else "") for sign in (-1, 1)] if p95 is not None else []
    return plot(
        [Series("", error, 100 * share, style="line", colour=1)],
        Axis(f"height error ({unit})"),
        Axis(f"pixels (% per {number(width, 2)} {unit})", zero=True),
        title="How far heights are off",
        description="Histogram of the height errors of textured, unoccluded pixels away from steps",
        marks=[*marks, Mark("x", 0.0)],
    )


def _deciles(result: TopographyResult) -> Html:
    found, unit = result.tables["height_deciles"], result.height_unit
    if not _filled(found):
        return Html("")
    low, high, rmse, bias = (np.asarray(found[n], np.float64) for n in ("from", "to", "rmse", "bias"))
    middle = (low + high) / 2
    names = [
        f"{number(a)} to {number(b)} {unit}: RMSE {quantity(r, unit)}, bias {quantity(m, unit)}, {int(n):,} pixels"
        for a, b, r, m, n in zip(low, high, rmse, bias, found["pixels"])
    ]
    return plot(
        [
            Series("RMSE", middle, rmse, style="linedots", colour=1, names=names),
            Series("bias", middle, bias, style="linedots", colour=2, names=names),
        ],
        Axis(f"true height ({unit})"),
        Axis(f"error ({unit})"),
        title="Error against height",
        description="RMSE and bias of the heights by tenth of the true heights",
        marks=[Mark("y", 0.0)],
    )


def _field(result: TopographyResult) -> Html:
    found, unit = result.tables["field_radius"], result.height_unit
    if not _filled(found):
        return Html("")
    low, high = (np.asarray(found[n], np.float64) for n in ("from", "to"))
    middle = (low + high) / 2
    series = []
    for name, label, style, colour in (
        ("rmse", "heights, RMSE", "linedots", 1),
        ("bias", "heights, bias", "linedots", 2),
        ("focus_rmse", "focus alone, RMSE", "dashdots", 0),
    ):
        values = np.asarray(found[name], np.float64)
        names = [f"{label} at {number(r)} px: {quantity(v, unit)}" for r, v in zip(middle, values)]
        series.append(Series(label, middle, values, style=style, colour=colour, names=names))  # type: ignore[arg-type]
    return plot(
        series,
        Axis("distance from the axis of the view (px)", zero=True),
        Axis(f"error ({unit})"),
        title="Error against the place in the field, single views",
        description="RMSE and bias of the heights of single views against the distance from the axis",
        marks=[Mark("y", 0.0)],
    )


def _planes(result: TopographyResult) -> Html:
    found, unit = result.tables["gauge_planes"], result.height_unit
    if not _filled(found):
        return Html("")
    true, height, std = (np.asarray(found[n], np.float64) for n in ("true", "found", "std"))
    rows = [
        [t, h, *((b - a, d - c) if n else (None, None)), s]
        for n, (t, h, s, (a, b), (c, d)) in enumerate(
            zip(true, height, std, zip(np.r_[0, true], true), zip(np.r_[0, height], height))
        )
    ]
    head = ["plane", "found", "step", "found", "standard deviation"]
    return table(head, rows, f"Gauge planes, {unit}; the common offset of the heights is not removed")


def estimators(result: TopographyResult) -> Html:
    """Ours, section 12's estimators and the true slice, in single views and averaged."""
    found = result.tables["estimators"]
    if not _filled(found):
        return Html("")
    body = []
    for label in dict.fromkeys(map(str, found["label"])):
        row: list[Any] = [label]
        for views in ("single", "mean"):
            here = np.flatnonzero((found["label"] == label) & (found["views"] == views))
            names = ("height_rmse", "height_p95", "psnr", *(("views_per_pixel",) if views == "mean" else ()))
            row += [_number(found[n][here[0]]) if here.size else None for n in names]
        body.append(row)
    unit = result.height_unit
    view = [f"RMSE ({unit})", f"95 % ({unit})", "PSNR (dB)"]
    head = ["", *view, *(f"averaged: {v}" for v in view), "views per pixel"]
    caption = "Heights and all-in-focus picture of single views, and averaged over views, on the same pixels"
    text = paragraph(
        "Classical estimators of focus, run on the same stacks: the sharpness with a window of 8 pixels in every "
        "slice, and where its curve has its top. Their averages weigh all views alike. The true slice gives what the "
        "picture would be if focus were known: noise and the distance of the slices leave no more. Errors are about "
        "their own median, on textured, unoccluded pixels away from steps.",
        class_="note",
    )
    return join([heading("Beside classical estimators"), table(head, body, caption), text])


def seams(result: TopographyResult) -> Html:
    """Gradients by the distance from the border of a view."""
    found = result.tables["seam_profile"]
    if not _filled(found):
        return Html("")
    distance = np.asarray(found["distance"], np.float64)
    series = []
    for name, label, colour in (("gradient", "picture", 1), ("height_gradient", "heights", 2)):
        values = np.asarray(found[name], np.float64)
        mean = float(np.average(values, weights=found["pixels"])) or 1.0
        names = [f"{label}, {number(d)} px from a border: {number(v / mean)}" for d, v in zip(distance, values)]
        series.append(Series(label, distance, values / mean, style="linedots", colour=colour, names=names))
    energy = result.value("seam_energy")
    high = max(1.2, *(float(np.asarray(s.y).max()) + 0.05 for s in series))
    return plot(
        series,
        Axis("distance from the border of a view (px)", zero=True),
        Axis("gradient over its mean", (min(0.8, *(float(np.asarray(s.y).min()) - 0.05 for s in series)), high)),
        title=f"Seams: picture {number(energy)} at borders" if energy is not None else "Seams",
        description="Mean gradient of picture and heights against the distance from the nearest border of a view",
        marks=[Mark("y", 1.0, "no seam"), Mark("y", 1.05)],
    )


def quiver(result: TopographyResult) -> Html:
    """Residuals of tie points as arrows on the mosaic."""
    arrows = result.calibration.quiver
    if not len(arrows.at):
        return Html("")
    some = np.unique(np.linspace(0, len(arrows.at) - 1, min(MOST_ARROWS, len(arrows.at))).round().astype(int))
    at, by = arrows.at[some], arrows.residual[some]
    rows, cols = result.calibration.mosaic_shape
    size = np.linalg.norm(by, axis=1)
    scale = ARROW * max(rows, cols) / max(float(np.percentile(size, 95)), 1e-9)
    gap = np.full(len(at), np.nan)
    # rows run down
    x = np.stack([at[:, 1], at[:, 1] + scale * by[:, 1], gap], axis=1).ravel()
    y = -np.stack([at[:, 0], at[:, 0] + scale * by[:, 0], gap], axis=1).ravel()
    labels = [(-v, number(v)) for v in ticks(0, rows, 4)]
    height = float(np.clip(440 * rows / cols, 200, 440))
    return plot(
        [Series("", x, y, style="line", colour=1)],
        Axis("column of the mosaic (px)", (-0.02 * cols, 1.02 * cols)),
        Axis("row (px)", (-1.02 * rows, 0.02 * rows), ticks=labels),
        title=f"Residuals of the calibration, {number(scale, 2)} times as long as they are",
        description="Residuals of tie points between views as arrows at their places on the mosaic",
        height=height,
        equal=True,
    )


def calibration(result: TopographyResult) -> Html:
    """Arrows, and the numbers of the calibration."""
    names = {
        "tie_points": "tie points between views",
        "tie_residual_median": "their residual, median",
        "tie_residual_p95": "their residual, 95th percentile",
        "focus_error": "plane of focus, expected error of a view",
        "light_residual": "light of two views of a point, difference left",
        "reprojection_median": "poses against the truth, median",
        "reprojection_p95": "poses against the truth, 95th percentile",
        "datum_rms_dz": "plane of focus against the truth, rms",
        "datum_offset": "plane of focus against the truth, common offset",
        "shading_rms": "shading left after correction, rms",
        "lateral_error": "mosaic against the truth, lateral, median",
    }
    body = [
        [label, quantity(value, _unit(result, name))]
        for name, label in names.items()
        if (value := result.value(name)) is not None
    ]
    return grid(quiver(result), table(["", "value"], body, "Calibration"))


def losses(result: TopographyResult) -> Html:
    """Loss curves of the training."""
    found = result.tables["losses"]
    if not _filled(found) or "step" not in found or "loss" not in found:
        return Html("")
    step = np.asarray(found["step"], np.float64)
    names = [n for n in found if n not in ("step", "rate", "gradient")]
    blocks = []
    for name in names:
        values = np.asarray(found[name], np.float64)
        if not np.isfinite(values).any() or not np.any(values):
            continue
        label = "loss" if name == "loss" else name.replace("_", " ")
        series = [Series("each step", step, values, style="line", colour=0)]
        if len(step) > 2 * SMOOTH_STEPS:
            series.append(Series(f"mean of {SMOOTH_STEPS}", step, _smooth(values), style="line", colour=1))
        positive = bool((values > 0).all()) and values.max() > 20 * values.min()
        blocks.append(
            plot(
                series,
                Axis("step"),
                Axis(label, log=positive),
                title=label[0].upper() + label[1:],
                description=f"{label} against the step of the training",
                height=210,
            )
        )
    return join([heading("Losses"), grid(*blocks)]) if blocks else Html("")


def loader(result: TopographyResult) -> Html:
    """What reading patches cost the training."""
    attrs = result.stores["training"].attrs
    if "loader_batches" not in attrs:
        return Html("")
    rows = [
        ["batches", quantity(attrs["loader_batches"])],
        ["read", quantity(attrs["loader_read_MB"], "MB")],
        ["of it used", quantity(attrs["loader_used_MB"], "MB")],
        ["read over used", quantity(attrs["loader_amplification"])],
        ["read per second of the training", quantity(attrs["loader_read_MB_s"], "MB/s")],
        ["time that the training waited for reading", f"{number(100 * attrs['loader_wait_share'], 2)} %"],
        ["most memory of the queue", quantity(attrs["loader_peak_MB"], "MB")],
    ]
    drawn = _waiting(result.stores["training"])
    return join([heading("Reading patches"), grid(table(["", "value"], rows, "Loader of patches"), drawn)])


def _waiting(store: Any) -> Html:
    if "loader" not in store.tables:
        return Html("")
    found = store.table("loader")
    step, wait, total = (np.asarray(found[n], np.float64) for n in ("step", "wait_s", "total_s"))
    series = [
        Series("all of it", step, _smooth(1000 * total), style="line", colour=0),
        Series("waiting for patches", step, _smooth(1000 * wait), style="line", colour=2),
    ]
    return plot(
        series,
        Axis("step"),
        Axis("time of a step (ms)", zero=True),
        title="Time of a step",
        description="Time of each step of the training, and how much of it was spent waiting for patches",
        height=210,
    )


def tables_of_errors(result: TopographyResult) -> Html:
    """The numbers behind the plots."""
    found = result.tables["height_deciles"]
    if not _filled(found):
        return Html("")
    names = ("from", "to", "pixels", "bias", "rmse", "p95")
    body = [[_number(found[n][i]) for n in names] for i in range(len(found["from"]))]
    head = ["from", "to", "pixels", "bias", "RMSE", "95 %"]
    return details("Heights by tenth", table(head, body, f"Tenths of the true heights, {result.height_unit}"))


def _unit(result: TopographyResult, name: str) -> str:
    entry = result.metrics.get(name) or {}
    unit = str(entry.get("unit") or "")
    return "z-steps" if unit == "dz" else unit


def _filled(found: Columns) -> bool:
    return len(next(iter(found.values()), ())) > 0


def _number(value: Any) -> float | int | None:
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and math.isnan(plain) else plain


def _smooth(values: F64, n: int = SMOOTH_STEPS) -> F64:
    """Running mean over n values about each, fewer at the ends."""
    n = max(1, min(n, len(values) // 4))
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    place = np.arange(len(values))
    starts, ends = np.maximum(place - n // 2, 0), np.minimum(place + n // 2 + 1, len(values))
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))
