"""Scores on the synthesis page: whether labels fit, what segmenters find, what networks learned, the training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gigascope.report.page import Html, details, grid, heading, join, number, paragraph, table
from gigascope.report.plots import Axis, Mark, Series, bars, plot
from gigascope.report.synthesis_plots import COLOURS
from gigascope.report.synthesis_result import TITLES
from gigascope.synthesis.evaluation.alignment import MEDIAN, P95

if TYPE_CHECKING:
    from gigascope.report.synthesis_result import SynthesisResult

SCORES = {"det": "DET", "seg": "SEG"}
MOST_CURVES = 20


def alignment(result: SynthesisResult) -> Html:
    """Shifts of adapted images, block by block, and how nuclei stand out."""
    found = result.tables["alignment"]
    n = len(found.get("image", ()))
    if not n:
        return Html("")
    names = ("image", "auc_simulated", "auc_adapted", "median", "p95", "blocks", "new_blobs")
    rows = [[*(_plain(found[k][i]) for k in names), "yes" if found["aligned"][i] else "no"] for i in range(n)]
    head = ["image", "AUC, simulated", "AUC, adapted", "shift, median", "shift, 95 %", "blocks", "new nuclei", "fits"]
    text = paragraph(
        "AUC: chance that a voxel of a nucleus is brighter than one within 3 µm beside it. Shifts are voxels by which "
        f"blocks of the image moved; images fit below {MEDIAN:g} (median) and {P95:g} (95 %). New nuclei were found in "
        "the adapted image, have no label, and were not in the simulated one.",
        class_="note",
    )
    return join([grid(_map(result), _lengths(result)), table(head, rows, "Labels and adapted images"), text])


def found(result: SynthesisResult) -> Html:
    """Scores of the segmenter on each kind of images, by overlap, depth and class; networks that learned from them."""
    scores = result.tables["scores"]
    drawn = []
    for name, title in SCORES.items():
        rows = [
            (TITLES[str(k)], max(0.0, float(v)), f"{number(v)}{_counts(scores, i) if name == 'det' else ''}")
            for i, (k, v) in enumerate(zip(scores.get("images", ()), scores.get(name, ())))
            if math.isfinite(float(v))
        ]
        drawn.append(bars(rows, title=title, full=1.0))
    drawn.append(_half_overlap(result))
    blocks = [grid(*drawn, _by_overlap(result)), _groups(result), _downstream(result)]
    return join([b for b in blocks if b])


def training(result: SynthesisResult) -> Html:
    """Curves of the training, where there was one."""
    store = result.stores.get("training")
    if store is None or "losses" not in store.tables:
        return Html("")
    columns = store.table("losses")
    steps = np.asarray(columns.get("step", np.arange(len(next(iter(columns.values()), ())))), np.float64)
    blocks: list[Html] = []
    for name, values in columns.items():
        if name == "step" or name.endswith("_s") or values.dtype.kind not in "fiu" or len(blocks) == MOST_CURVES:
            continue
        curve = np.asarray(values, np.float64)
        if not np.isfinite(curve).any() or not np.nanmax(np.abs(curve)) > 0:
            continue
        label = name.replace("_", " ")
        blocks.append(
            plot(
                [Series("", steps, curve, style="line", colour=1)],
                Axis("step"),
                Axis(label),
                title=label[0].upper() + label[1:],
                description=f"{label} against the step of the training",
                height=200,
            )
        )
    return join([heading("Losses"), grid(*blocks, columns="three")]) if blocks else Html("")


def _map(result: SynthesisResult) -> Html:
    shifts = result.tables["shifts"]
    y, x = (np.asarray(shifts[k], np.float64) for k in ("y", "x"))
    length = _shift_lengths(result)
    if not length.size:
        return Html("")
    series = []
    for low, high, label, colour in (
        (0.0, MEDIAN, f"below {MEDIAN:g} voxels", 1),
        (MEDIAN, P95, f"{MEDIAN:g} to {P95:g}", 3),
        (P95, math.inf, f"above {P95:g}", 2),
    ):
        use = (length >= low) & (length < high)
        names = [f"{i}: {number(v)} voxels" for i, v in zip(np.asarray(shifts["image"])[use], length[use])]
        series.append(Series(label, x[use], -y[use], style="dots", colour=colour, names=names))
    return plot(
        series,
        Axis("x (µm)"),
        Axis("−y (µm)"),
        title="Shift of each block",
        description="Place of each block of the adapted images, by how far it moved",
        equal=True,
    )


def _lengths(result: SynthesisResult) -> Html:
    length = np.sort(_shift_lengths(result))
    if not length.size:
        return Html("")
    share = 100.0 * (np.arange(length.size) + 1) / length.size
    return plot(
        [Series("", length, share, style="linedots" if length.size < 60 else "line", colour=1)],
        # of images that stay as they are every shift is 0: the axis reaches the limits all the same
        Axis("shift (voxels)", limits=(0.0, 1.05 * max(float(length[-1]), P95))),
        Axis("blocks that moved no further (%)", limits=(0.0, 104.0)),
        title="How far blocks moved",
        description="Share of blocks that moved no further than a shift",
        marks=[Mark("x", MEDIAN, f"median: {MEDIAN:g}"), Mark("x", P95, f"95 %: {P95:g}")],
    )


def _shift_lengths(result: SynthesisResult) -> Any:
    shifts = result.tables["shifts"]
    parts = [np.asarray(shifts[f"shift_{a}"], np.float64) for a in "zyx"] if "shift_z" in shifts else [np.zeros(0)]
    return np.sqrt(np.sum(np.square(parts), axis=0))


def _counts(scores: Any, i: int) -> str:
    n, split, missed, false = (int(scores[k][i]) for k in ("nuclei", "to_split", "missed", "false"))
    return f" ({n} nuclei: {missed} missed, {false} false, {split} to split)"


def _half_overlap(result: SynthesisResult) -> Html:
    """Average precision at half overlap, with what it counts."""
    rows = []
    for key in result.sets:
        found = result.rows("instances", images=key)
        for i in np.flatnonzero(np.abs(np.asarray(found["iou"], np.float64) - 0.5) < 1e-9)[:1]:
            tp, fn, fp = (int(found[k][i]) for k in ("tp", "fn", "fp"))
            ap = float(found["ap"][i])
            rows.append((TITLES[key], ap, f"{number(ap)} ({tp} found, {fn} missed, {fp} false)"))
    return bars(rows, title="AP at half overlap", full=1.0)


def _by_overlap(result: SynthesisResult) -> Html:
    series = []
    for key in result.sets:
        rows = result.rows("instances", images=key)
        if len(rows["iou"]) > 1:
            series.append(Series(TITLES[key], rows["iou"], rows["ap"], style="linedots", colour=COLOURS[key]))
    if not series:
        return Html("")
    return plot(
        series,
        Axis("overlap that counts as found (IoU)"),
        Axis("TP / (TP + FP + FN)", limits=(0.0, 1.04)),
        title="Nuclei found, by overlap",
        description="Share of nuclei found against the overlap that is asked for",
        height=220,
    )


def _groups(result: SynthesisResult) -> Html:
    found = result.tables["groups"]
    n = len(found.get("images", ()))
    if not n:
        return Html("")
    rows = []
    for i in range(n):
        tp, fn = float(found["tp"][i]), float(found["fn"][i])
        recall = tp / (tp + fn) if tp + fn else None
        cells = [_plain(found[k][i]) for k in ("tp", "fn", "fp", "mean_iou")]
        rows.append([TITLES[str(found["images"][i])], str(found["group"][i]), recall, *cells])
    head = ["images", "nuclei", "share found", "found", "missed", "false", "mean overlap"]
    return details("By depth and class", table(head, rows, "At half overlap"))


def _downstream(result: SynthesisResult) -> Html:
    found = result.tables["downstream"]
    names = list(dict.fromkeys(map(str, found.get("learned_from", ()))))
    if not names:
        return Html("")
    rows, drawn = [], []
    for name in names:
        part = result.rows("downstream", learned_from=name)
        words = " and ".join(TITLES[k] for k in name.split("+"))
        cells: list[Any] = [words]
        for column in ("det", "seg", "ap50"):
            v = np.asarray(part[column], np.float64)
            cells.append(f"{number(v.mean())} ({number(v.min())} to {number(v.max())})")
        rows.append([*cells, *(float(np.mean(part[k])) for k in ("to_split", "missed", "false"))])
        det = np.asarray(part["det"], np.float64)
        drawn.append((words, max(0.0, float(det.mean())), number(det.mean())))
    head = ["learned from", "DET", "SEG", "AP at half overlap", "to split", "missed", "false"]
    text = "Networks of equal size, steps and seeds that learned from each kind of images, tested on real ones."
    listed = table(head, rows, "Mean and range over seeds")
    shown = bars(drawn, title="DET on real images", full=1.0)
    return join([heading("Learned from the images"), shown, listed, paragraph(text)])


def _plain(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and math.isnan(plain) else plain
