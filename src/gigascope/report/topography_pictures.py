"""Pictures of the topography page: mosaic, heights, relief, a view before and after, errors, agreement, coverage.

Rows run down and columns to the right, as the stacks have them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.report.compression_pictures import busiest_part
from gigascope.report.figures import Plane, length, picture, robust_window, shrink
from gigascope.report.page import Html, figure, grid, heading, join, number, tag
from gigascope.report.topography_colours import Ramp, colour_bar, coloured
from gigascope.topography.evaluation.view_scores import tenengrad
from gigascope.topography.mosaic.relief import UNSEEN, height_limits, shaded_relief

if TYPE_CHECKING:
    from gigascope.report.topography_result import TopographyResult

F32 = NDArray[np.float32]
NM_PER_UM = 1000.0
# Of the configured size: three pictures stand side by side.
SHARE = 0.65
# Edge of an enlarged part of a view, pixels.
PART = 128
# Slope of the relief that is lit, median of the steepest tenth: below it heights are exaggerated.
SLOPE = 0.35
# Patches of a training that are shown, and moments.
MOST_PATCHES, MOST_MOMENTS = 2, 4
BRIGHT = (0.2, 99.8)


def mosaic(result: TopographyResult, picture_px: int) -> Html:
    """All-in-focus picture, heights and shaded relief of the whole mosaic."""
    max_px = round(picture_px * SHARE)
    channels, factor = result.channels(max_px)
    small, shrunk = shrink(np.stack([*np.moveaxis(result.picture(channels), -1, 0), channels["height"]]), max_px)
    height, colours = small[3], np.moveaxis(small[:3], 0, -1)
    step = factor * shrunk
    limits, window = height_limits(height), robust_window([colours], BRIGHT)
    relief, exaggeration = _relief(result, height, step)
    unit = result.height_unit
    blocks = [
        _picture(result, colours, step, window, "all in focus", "All-in-focus picture of the mosaic"),
        tag(
            "div",
            _false(result, height, step, limits, "height", "heights", "Heights of the mosaic in false colours"),
            colour_bar(limits, unit),
        ),
        _picture(result, relief, step, (0, 255), "relief", "Shaded relief of the heights, lit from the upper left"),
    ]
    rows, cols = result.mosaic.shape[1:]
    factor_words = "" if exaggeration is None else f", heights {number(exaggeration, 2)} times as high as they are"
    if exaggeration == 1.0:
        factor_words = ", to scale"
    what = (
        f"The whole mosaic of {cols} × {rows} pixels{_size(result, rows, cols)}. Heights in {unit}{_datum(result)}; "
        f"the relief is lit from the upper left{factor_words}. Light grey: no view sees it."
    )
    return figure(grid(*blocks, columns="three"), what)


def one_view(result: TopographyResult, picture_px: int) -> Html:
    """One view: its sharpest slice, all in focus, and which slice is in focus where; a part of it enlarged."""
    max_px = round(picture_px * SHARE)
    index, aif = result.view("index").astype(np.float32), result.view("aif").astype(np.float32)
    if aif.shape[-1] == 1:
        aif = np.repeat(aif, 3, axis=-1)
    best = _sharpest(result)
    before = result.slice(best)
    window, span = robust_window([before, aif], BRIGHT), height_limits(index)
    n = result.n_slices
    name = f"slice {best + 1} of {n}"

    def three(part: tuple[slice, slice], size: int, words: str) -> list[Html]:
        shown = [
            _picture(result, _small(v[part], size)[0], _small(v[part], size)[1], window, title, f"{title}, {words}")
            for v, title in ((before, name), (aif, "all in focus"))
        ]
        small, step = shrink(index[part], size)
        chosen = _false(result, small, step, span, "height", "slice in focus", f"Slice in focus, {words}")
        return [*shown, tag("div", chosen, colour_bar((span[0] + 1, span[1] + 1), "slice"))]

    whole = (slice(0, index.shape[0]), slice(0, index.shape[1]))
    blocks = [figure(grid(*three(whole, max_px, "the whole view"), columns="three"), _view_words(result, best))]
    if max(index.shape) >= 2 * PART:
        grey = before.mean(axis=-1)
        gain = np.abs(_fine(aif.mean(axis=-1))) - np.abs(_fine(grey))
        part = busiest_part(ndimage.uniform_filter(np.maximum(gain, 0), 9), (PART, PART))
        caption = f"A part of {PART} × {PART} pixels of it, where the single slice lacks most."
        blocks.append(figure(grid(*three(part, PART, "enlarged"), columns="three"), caption))
    return join(blocks)


def errors(result: TopographyResult, picture_px: int) -> Html:
    """Where heights are off."""
    store = result.stores["evaluation"]
    if not result.simulated:
        return Html("")
    values = np.asarray(store.side("height_error")[...], np.float32)
    small, shrunk = shrink(values, picture_px)
    if not np.isfinite(small).any():
        return Html("")
    step = int(store.attrs["pixels"]) * shrunk
    spread = _spread(small, result.dz)
    drawn = _false(result, small, step, (-spread, spread), "error", "height error", "Height errors of the mosaic")
    caption = "Found less true height, the common offset removed. Red is too high, blue too low; grey was not measured."
    if step > 1:
        caption += f" Every pixel here is the mean over {step} × {step} of the mosaic."
    return figure(tag("div", drawn, colour_bar((-spread, spread), result.height_unit, "error")), caption)


def agreement(result: TopographyResult, picture_px: int) -> list[Html]:
    """How far the views' heights scatter, and how many views see a pixel."""
    max_px = round(picture_px * SHARE)
    channels, factor = result.channels(max_px)
    small, shrunk = shrink(np.stack([channels["height_std"], channels["n_views"]]), max_px)
    step, (std, count) = factor * shrunk, small
    count = np.where(np.isfinite(shrink(channels["height"], max_px)[0]), count, np.nan)
    most = float(np.nanmax(count)) if np.isfinite(count).any() else 1.0
    blocks = []
    if np.isfinite(std).any():
        limits = (0.0, _spread(std, 0.0))
        drawn = _false(result, std, step, limits, "height", "scatter of heights", "Scatter of the heights of the views")
        blocks.append(tag("div", drawn, colour_bar(limits, result.height_unit)))
    if result.n_views > 1:
        drawn = _false(result, count, step, (0.0, most), "grey", "views", "How many views see each pixel")
        blocks.append(tag("div", drawn, colour_bar((0.0, most), "views", "grey")))
    return blocks


def patches(result: TopographyResult) -> Html:
    """What the network made of some patches in the course of its training."""
    store = result.stores["training"]
    moments = [int(m) for m in store.attrs.get("moments") or []]
    if not moments:
        return Html("")
    slices, prior = (np.asarray(store.member(n)[...], np.float32) for n in ("slice", "prior"))
    heights, sharp = (np.asarray(store.member(n)[...], np.float32) for n in ("network", "in_focus"))
    chosen = np.unique(np.linspace(0, len(moments) - 1, min(MOST_MOMENTS, len(moments))).round().astype(int))
    rows = []
    for n in range(min(MOST_PATCHES, len(slices))):
        window, limits = robust_window([slices[n], sharp[-1, n]], BRIGHT), height_limits(prior[n])
        shown = [
            _bare(coloured(slices[n], window, "grey"), "one slice", f"Patch {n + 1}: one slice"),
            _bare(coloured(sharp[-1, n], window, "grey"), "all in focus", f"Patch {n + 1}: all in focus"),
            _bare(coloured(prior[n], limits), "focus prior", f"Patch {n + 1}: heights of the focus prior"),
        ]
        shown += [
            _bare(coloured(heights[k, n], limits), f"step {moments[k]}", f"Patch {n + 1}: heights at step {moments[k]}")
            for k in chosen
        ]
        rows.append(tag("div", *shown, class_="grid small"))
    caption = (
        "Patches of single views: one slice, the picture at the last step, and heights in z-steps as the prior and the "
        "network find them in the course of the training, each row with its own colours."
    )
    return join([heading("Patches"), figure(tag("div", *rows, class_="grid"), caption)])


def _relief(result: TopographyResult, height: F32, step: int) -> tuple[F32, float | None]:
    """Shaded relief and by how much heights were exaggerated; none: to no known scale."""
    pixel = (result.pixel_um or 0.0) * step if result.height_unit == "µm" else 0.0
    known = ndimage.gaussian_filter(np.nan_to_num(height, nan=float(np.nanmedian(height))), 1.0)
    slope = np.hypot(*np.gradient(known))
    steep = float(np.percentile(slope, 90)) or 1.0
    if pixel <= 0:
        return shaded_relief(height, steep / SLOPE).astype(np.float32), None
    wanted = SLOPE * pixel / steep
    # flat things are shown with relief, steep ones as they are
    factor = max(1.0, float(f"{wanted:.1g}"))
    return shaded_relief(height, pixel, exaggeration=factor).astype(np.float32), factor


def _sharpest(result: TopographyResult) -> int:
    """Slice of the view with the largest gradients."""
    return int(np.argmax([tenengrad(result.slice(k).mean(axis=-1)) for k in range(result.n_slices)]))


def _small(values: F32, max_px: int) -> tuple[F32, int]:
    small, step = shrink(np.moveaxis(values, -1, 0), max_px)
    return np.moveaxis(small, 0, -1), step


def _fine(values: NDArray) -> NDArray:
    """What is finer than two pixels."""
    return np.asarray(values - ndimage.gaussian_filter(values, 2.0))


def _picture(
    result: TopographyResult, colours: F32, step: int, window: tuple[float, float], name: str, alt: str
) -> Html:
    pixel = result.pixel_um
    spacing = (pixel or 1.0) * step * NM_PER_UM
    # light grey where nothing was seen, as the relief has it
    unseen = window[0] + (window[1] - window[0]) * UNSEEN / 255
    plane = Plane(np.nan_to_num(colours, nan=unseen), (spacing, spacing))
    return picture(plane, window, alt=alt, name=name, bar=pixel is not None)


def _false(
    result: TopographyResult, values: F32, step: int, limits: tuple[float, float], ramp: Ramp, name: str, alt: str
) -> Html:
    return _picture(result, coloured(values, limits, ramp), step, (0, 255), name, alt)


def _bare(colours: F32, name: str, alt: str) -> Html:
    return picture(Plane(colours, (1.0, 1.0)), (0, 255), alt=alt, name=name, bar=False)


def _spread(values: F32, least: float) -> float:
    """A round limit that all but half a percent of values lie within, at least a tenth of `least`."""
    most = float(np.nanpercentile(np.abs(values), 99.5))
    most = max(most, 0.1 * least, 1e-6)
    power = 10.0 ** math.floor(math.log10(most))
    return next(m * power for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * power >= most * (1 - 1e-9))


def _size(result: TopographyResult, rows: int, cols: int) -> str:
    pixel = result.pixel_um
    if pixel is None:
        return ""
    return f", {length(cols * pixel * NM_PER_UM)} × {length(rows * pixel * NM_PER_UM)}"


def _datum(result: TopographyResult) -> str:
    datum = str(result.mosaic.attrs.get("height_datum", ""))
    if datum == "flat target":
        return " above the plane of the flat target"
    return "" if not datum else f", 0 at the {datum}" if datum.startswith("middle") else ""


def _view_words(result: TopographyResult, best: int) -> str:
    cols = result.calibration.instrument.view_shape[1]
    row, col = divmod(result.looked_at, cols)
    which = "The stack" if result.n_views == 1 else f"View ({row}, {col}), in the middle of the acquisition"
    return (
        f"{which}: slice {best + 1}, the sharpest single one of {result.n_slices}; the same in focus everywhere, which "
        "takes every pixel from the slices around the one in focus there; and which slice that is."
    )
