"""Frames measured one by one, and what they come to together: times and channels of one compressed file.

A frame is measured against its own range, so that a dim channel counts as much as a bright one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigascope.compression.quality.evaluate import Entry, Evaluation, Table

# Lists of sentences among the metrics.
SENTENCES = ("warnings", "notes")
# Added up over frames; everything else is a mean of some kind.
_SUMS = ("bytes", "raw_bytes", "n_gaussians", "seed_bytes", "n_parts", "n_parts_reference", "n_objects")


@dataclass(frozen=True)
class Frame:
    """A measured frame.

    Attributes
    ----------
    number : t * n_c + c
    index : by axis, of t and c, where the volume has these
    evaluation : what was measured
    """

    number: int
    index: Mapping[str, int]
    evaluation: Evaluation

    @property
    def name(self) -> str:
        """For people, such as "time 3, channel 1"; empty where there is only one frame."""
        words = {"t": "time", "c": "channel"}
        return ", ".join(f"{words[axis]} {i}" for axis, i in self.index.items())


def codec_frames(n_times: int, n_channels: int, n_voxels: int, max_voxels: int) -> set[int]:
    """Frames that codecs are run on: as many as fit, all channels of evenly spread times, at least one frame.

    Parameters
    ----------
    n_voxels : of a frame
    max_voxels : of all frames that are chosen
    """
    n = max(1, max_voxels // n_voxels)
    if n >= n_times * n_channels:
        return set(range(n_times * n_channels))
    channels = range(min(n, n_channels))
    steps = max(1, n // n_channels)
    times = {int((k + 0.5) * n_times / steps) for k in range(steps)}
    return {t * n_channels + c for t in times for c in channels}


def together(frames: Sequence[Frame]) -> dict[str, Any]:
    """Metrics of all frames as those of one: name to {"value", "unit", "label"}, "warnings", "notes".

    Bytes and counts are sums. A PSNR is that of the mean squared error of all frames, each in units of its own range
    and weighted by the voxels that it was measured over. Other measures are means over the frames that have them.
    """
    if len(frames) == 1:
        return dict(frames[0].evaluation.metrics)
    found: dict[str, Any] = {}
    all_metrics = [frame.evaluation.metrics for frame in frames]
    for name in dict.fromkeys(n for metrics in all_metrics for n in metrics if n not in SENTENCES):
        entries = [metrics.get(name) for metrics in all_metrics]
        some = next(entry for entry in entries if entry is not None)
        values = [math.nan if e is None or e["value"] is None else float(e["value"]) for e in entries]
        value = _together(name, some["unit"], values, all_metrics)
        n = sum(math.isfinite(v) for v in values)
        label = some["label"] if n in (0, len(frames)) else f"{some['label']} ({n} of {len(frames)} frames)"
        found[name] = {"value": value if math.isfinite(value) else None, "unit": some["unit"], "label": label}
    _ratios(found)
    return found | {kind: _said(frames, kind) for kind in SENTENCES}


def frame_table(frames: Sequence[Frame]) -> Table:
    """Columns and units: one row per frame, one column per number."""
    names = list(dict.fromkeys(n for f in frames for n in f.evaluation.metrics if n not in SENTENCES))
    columns: dict[str, Any] = {"frame": [f.number for f in frames]}
    columns |= {axis: [f.index[axis] for f in frames] for axis in frames[0].index}
    units = {}
    for name in names:
        entries: list[Entry | None] = [f.evaluation.metrics.get(name) for f in frames]
        columns[name] = [math.nan if e is None or e["value"] is None else float(e["value"]) for e in entries]
        units[name] = next(e["unit"] for e in entries if e is not None)
    return columns, {name: unit for name, unit in units.items() if unit}


def tables(frames: Sequence[Frame]) -> dict[str, Table]:
    """The tables of the evaluations of all frames below each other, with a first column `frame`."""
    per_frame = [frame.evaluation.tables() for frame in frames]
    found: dict[str, Table] = {}
    for name in dict.fromkeys(n for one in per_frame for n in one):
        parts = [(frame.number, *one[name]) for frame, one in zip(frames, per_frame) if name in one]
        columns: dict[str, list[Any]] = {"frame": []}
        columns |= {c: [] for c in dict.fromkeys(c for _, part, _ in parts for c in part)}
        for number, part, _ in parts:
            n = len(next(iter(part.values())))
            columns["frame"] += [number] * n
            for column in list(columns)[1:]:
                columns[column] += list(part[column]) if column in part else [math.nan] * n
        found[name] = columns, {c: u for _, _, units in parts for c, u in units.items()}
    return found


def _together(name: str, unit: str, values: list[float], metrics: Sequence[Mapping[str, Any]]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return math.nan
    if name in _SUMS or (unit == "byte" and name.startswith("bytes_") and name != "bytes_per_gaussian"):
        return math.fsum(finite)
    if unit == "dB":
        return _decibel(values, [_weight(name, m) for m in metrics])
    if name.startswith("bytes_vs_"):
        return math.expm1(float(np.mean(np.log1p(finite))))
    if name.startswith("ratio"):
        return 1.0 / float(np.mean([1.0 / v for v in finite]))
    kind: Callable[..., Any] = {"residual_sd_least": min, "residual_sd_most": max}.get(name, np.mean)
    return float(kind(finite))


def _weight(name: str, metrics: Mapping[str, Any]) -> float:
    """Share of the voxels of a frame that a PSNR was measured over."""
    region = next((r for r in ("fg", "gate") if f"_{r}" in name), "fg" if name.startswith("seed_") else None)
    entry = metrics.get(f"fraction_{region}") if region else {"value": 1.0}
    return float((entry or {}).get("value") or 0.0)


def _decibel(values: list[float], weights: list[float]) -> float:
    kept = [(v, w) for v, w in zip(values, weights) if math.isfinite(v) and w > 0]
    total = sum(w for _, w in kept)
    return -10 * math.log10(sum(w * 10 ** (-v / 10) for v, w in kept) / total) if total else math.nan


def _ratios(found: dict[str, Any]) -> None:
    """What follows from the sums, in place."""

    def value(name: str) -> float:
        return float(found.get(name, {}).get("value") or math.nan)

    def put(name: str, number: float) -> None:
        if name in found:
            found[name]["value"] = number if math.isfinite(number) else None

    put("ratio", value("raw_bytes") / value("bytes"))
    put("bytes_per_gaussian", value("bytes") / max(1.0, float(found["n_gaussians"]["value"] or 0)))
    put("seed_ratio", 16.0 / value("seed_bpp"))
    lossless = [value(n) for n in found if n.startswith("ratio_") and n != "ratio_lossless"]
    if lossless:
        put("ratio_lossless", value("ratio") / max(lossless))


def _said(frames: Sequence[Frame], kind: str) -> list[str]:
    """Each sentence once, after the frames that it was said of."""
    said: dict[str, list[str]] = {}
    for frame in frames:
        for sentence in frame.evaluation.metrics[kind]:
            said.setdefault(sentence, []).append(frame.name)
    return [s if len(names) == len(frames) else f"{_listed(names)}: {s}" for s, names in said.items()]


def _listed(names: Sequence[str]) -> str:
    shown = "; ".join(names[:3]) + (f" and {len(names) - 3} more frames" if len(names) > 3 else "")
    return shown[0].upper() + shown[1:]
