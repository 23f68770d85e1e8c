"""Pictures of the synthesis page: slices of real, simulated and adapted images to one contrast, with their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigascope.report.figures import Plane, picture
from gigascope.report.page import Html, figure, grid, heading, join, tag
from gigascope.report.synthesis_result import NAIVE, NM_PER_UM, REAL, TITLES

if TYPE_CHECKING:
    from gigascope.report.synthesis_result import SynthesisResult

F32 = NDArray[np.float32]
# Of the configured size: three pictures stand side by side.
SHARE = 0.65
# What is shown black and white, between the percentiles of a set: haze and the brightest nuclei are to be seen.
WINDOW = (-0.02, 0.9)
# Crops of a training that are shown, and moments.
MOST_CROPS, MOST_MOMENTS = 3, 4


def montage(result: SynthesisResult, picture_px: int) -> Html:
    """x-y and x-z slices of every kind of images, and the same with outlines of the labels."""
    size = round(picture_px * SHARE)
    plain = [_shown(result, key, "xy", size) for key in result.sets]
    side = [_shown(result, key, "xz", size) for key in result.sets]
    labelled = [_shown(result, key, "xy", size, "xy_labels") for key in result.sets]
    labelled_side = [_shown(result, key, "xz", size, "xz_labels") for key in result.sets]
    if len(result.sets) == 1:
        # alone, a picture would be as wide as the page: its views stand side by side
        views = grid(*plain, *labelled, *side, *labelled_side, columns="two")
        what = " Then from the side: z downward from the objective. Outlines are those of the labels."
        return figure(views, _caption(result) + (what if any(labelled) else ""))
    columns = "three" if len(result.sets) > 2 else "two"
    blocks = [
        figure(grid(*plain, columns=columns), _caption(result)),
        figure(grid(*side, columns=columns), "Seen from the side: z downward from the objective, x to the right."),
    ]
    if any(labelled):
        what = "Outlines of the labels. Those of adapted images are the labels of the simulated ones."
        blocks.append(figure(grid(*labelled, *labelled_side, columns=columns), what))
    return join(blocks)


def found(result: SynthesisResult, picture_px: int) -> Html:
    """What the segmenter found in each kind of images."""
    size = round(picture_px * SHARE)
    shown = [_shown(result, key, "xy", size, "xy_found") for key in result.sets]
    if not any(shown):
        return Html("")
    what = "Outlines of what the segmenter found in the slices above; it is the same for all kinds of images."
    return figure(grid(*shown, columns="three" if len(result.sets) > 2 else "two"), what)


def crops(result: SynthesisResult) -> Html:
    """What the network made of some crops in the course of its training."""
    store = result.stores.get("training")
    moments = [int(m) for m in (store.attrs.get("moments") or [])] if store is not None else []
    if store is None or not moments:
        return Html("")
    naive, real, adapted = (np.asarray(store.member(n)[...], np.float32) for n in ("naive", "real", "adapted"))
    chosen = np.unique(np.linspace(0, len(moments) - 1, min(MOST_MOMENTS, len(moments))).round().astype(int))
    rows = []
    for n in range(min(MOST_CROPS, len(naive))):
        shown = [_crop(naive[n], "simulated", f"Crop {n + 1}, simulated")]
        shown += [_crop(adapted[k, n], f"step {moments[k]}", f"Crop {n + 1}, step {moments[k]}") for k in chosen]
        if n < len(real):
            shown.append(_crop(real[n], "a real one", f"A real crop to compare crop {n + 1} with"))
        rows.append(tag("div", *shown, class_="grid small"))
    caption = (
        "Middle slices of crops: as simulated, what the network made of them in the course of the training, and a crop "
        "of a real image, which shows other nuclei."
    )
    return join([heading("Crops"), figure(tag("div", *rows, class_="grid"), caption)])


def outlines(labels: NDArray) -> NDArray[np.bool_]:
    """(rows, columns) bool: labelled pixels beside another label or background."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        one, other = [slice(None)] * 2, [slice(None)] * 2
        one[axis], other[axis] = slice(None, -1), slice(1, None)
        differ = labels[tuple(one)] != labels[tuple(other)]
        edge[tuple(one)] |= differ
        edge[tuple(other)] |= differ
    return edge & (labels > 0)


def _shown(result: SynthesisResult, key: str, name: str, size: int, labels: str | None = None) -> Html:
    values = result.plane(key, name)
    drawn = result.plane(key, labels) if labels else None
    if values is None or (labels and drawn is None):
        return Html("")
    low, high = result.scale(key)
    z, y, x = result.voxel_um
    grey = (values.astype(np.float32) - low) / (high - low)
    # the middle, in full resolution: labels cannot be averaged
    part = tuple(slice((n - min(n, size)) // 2, (n - min(n, size)) // 2 + min(n, size)) for n in grey.shape)
    spacing = (NM_PER_UM * (y if name == "xy" else z), NM_PER_UM * x)
    direction = "x–y slice through the middle" if name == "xy" else "x–z slice through the middle"
    alt = f"{TITLES[key].capitalize()} image: {direction}"
    outline = None
    if drawn is not None:
        outline = outlines(drawn[part])
        alt += ", labels outlined" if labels in ("xy_labels", "xz_labels") else ", what the segmenter found outlined"
    return picture(Plane(grey[part], spacing), WINDOW, alt=alt, name=TITLES[key], outline=outline)


def _caption(result: SynthesisResult) -> str:
    text = "Slices through the middle of the first image of each kind, each kind between its own percentiles."
    if REAL in result.sets:
        text = (
            "Slices through the middle of the first image of each kind. Adapted and real images have one grey scale; "
            "simulated ones are shown between their own percentiles, as the network sees them."
        )
    elif result.sets == [NAIVE]:
        text = "Slice through the middle of the first simulated image, x to the right."
    return text


def _crop(values: F32, name: str, alt: str) -> Html:
    """A crop between -1 and 1, as the networks see it."""
    return picture(Plane(values, (1.0, 1.0)), (-1.0, 0.9), alt=alt, name=name, bar=False)
