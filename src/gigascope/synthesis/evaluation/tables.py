"""The tables of an evaluation: columns with their units, one row for each of what was told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.metrics.spectrum import frequencies
from gigascope.metrics.wasserstein import REGIONS
from gigascope.synthesis.evaluation.distances import NAMES
from gigascope.synthesis.evaluation.evaluation import Results
from gigascope.synthesis.evaluation.labels import CLASSES, DISTANCE_UNITS, DISTANCES, TABLES
from gigascope.synthesis.evaluation.profiles import depth_profile
from gigascope.synthesis.evaluation.tiles import BINS, LOWEST, PER_UNIT

Table = tuple[dict[str, NDArray[Any]], dict[str, str]]
Rows = Iterable[Sequence[Any]]
# Bins of the histograms of intensities that are kept, of those that were counted.
TOGETHER = 16
THIRDS = ("upper third", "middle third", "lower third")


def all_tables(out: Results, nuclei: Table) -> dict[str, Table]:
    """Every table by its name; those of what is not known are empty.

    Parameters
    ----------
    nuclei : of :func:`gigascope.synthesis.evaluation.nuclei.histograms`
    """
    found = {
        "distances": _distances(out),
        "depth_distances": _depth_distances(out),
        "depth_profiles": _profiles(out),
        "edge_curves": _edges(out),
        "spectra": _spectra(out),
        "intensities": _intensities(out),
        "photon_transfer": _noise(out),
        "scores": _scores(out),
        "instances": _instances(out),
        "groups": _groups(out),
        "alignment": _alignment(out),
        "shifts": _shifts(out),
        "downstream": _downstream(out),
        "nuclei": nuclei,
        "parity": _parity(out),
    }
    return {name: found[name] for name in TABLES}


def table(names: str, rows: Rows, units: Mapping[str, str] | None = None) -> Table:
    """Columns from rows; names parted by spaces, those of texts with a colon behind them."""
    columns = list(zip(*rows))
    found: dict[str, NDArray[Any]] = {}
    for n, name in enumerate(names.split()):
        values = columns[n] if columns else ()
        text = name.endswith(":")
        found[name.rstrip(":")] = (
            np.array(values, dtype=np.dtypes.StringDType()) if text else np.asarray(values, np.float64)
        )
    return found, dict(units or {})


def _distances(out: Results) -> Table:
    rows: list[Sequence[Any]] = []
    for pair, measured in out.distances.items():
        for d in measured:
            rows.append(
                (pair, d.measure, DISTANCES[d.measure], d.value, d.low, d.high, DISTANCE_UNITS.get(d.measure, ""))
            )
    for pair, apart in out.edge_distances.items():
        rows.append((pair, "edge", DISTANCES["edge"], apart[0], np.nan, np.nan, ""))
    return table("pair: measure: label: value low high unit:", rows)


def _depth_distances(out: Results) -> Table:
    rows = [
        (pair, NAMES[d.region], REGIONS[d.region], d.depth_um, d.w1, d.score)
        for pair, found in out.by_depth.items()
        for d in found
    ]
    return table("pair: region: label: depth w1 score", rows, {"depth": "um"})


def _profiles(out: Results) -> Table:
    rows: list[Sequence[Any]] = []
    for key, measures in out.measures.items():
        profile = depth_profile(measures)
        rows += [(key, *row) for row in zip(profile.depth_um, profile.mean, profile.q95)]
    return table("images: depth mean q95", rows, {"depth": "um"})


def _edges(out: Results) -> Table:
    rows: list[Sequence[Any]] = []
    for key, edges in out.edges.items():
        c = edges.curve
        rows += [(key, k * edges.step, m, s, n) for k, (m, s, n) in enumerate(zip(c.mean, c.std, c.n))]
    return table("images: depth mean std curves", rows, {"depth": "um"})


def _spectra(out: Results) -> Table:
    along, rings = frequencies(out.tile)
    z, _, x = out.voxel_um
    rows: list[Sequence[Any]] = []
    for key, measures in out.measures.items():
        power = measures.power.mean(axis=0)
        lateral, axial = power.mean(axis=0), power.mean(axis=1)
        rows += [(key, "lateral", f / x, p) for f, p in zip(rings[1:], lateral[1:])]
        rows += [(key, "axial", f / z, p) for f, p in zip(along[1:], axial[1:])]
    return table("images: axis: frequency power", rows, {"frequency": "1/um"})


def _intensities(out: Results) -> Table:
    middles = (LOWEST + (np.arange(BINS // TOGETHER) + 0.5) * TOGETHER / PER_UNIT + 1.0) / 2.0
    rows: list[Sequence[Any]] = []
    for key, measures in out.measures.items():
        for region, name in NAMES.items():
            counts = measures.counts[:, region - 1].sum(axis=0, dtype=np.int64)
            total = max(1, int(counts.sum()))
            share = counts[: BINS // TOGETHER * TOGETHER].reshape(-1, TOGETHER).sum(axis=1) / total
            rows += [(key, name, REGIONS[region], m, s) for m, s in zip(middles, share)]
    return table("images: region: label: intensity share", rows)


def _noise(out: Results) -> Table:
    rows: list[Sequence[Any]] = []
    for key, measures in out.measures.items():
        rows += [(key, *row) for row in zip(*measures.noise.curve)]
    return table("images: brightness variance error", rows)


def _scores(out: Results) -> Table:
    rows = []
    for key, s in out.scores.items():
        d = s.detection
        rows.append(
            (key, d.n_reference, d.n_test, d.det, d.seg, d.splits, d.missed, d.false, s.splits, s.merges)
            + (100 * s.volume_bias, s.centroid_um)
        )
    names = "images: nuclei found det seg to_split missed false splits merges volume_bias centroid"
    return table(names, rows, {"volume_bias": "%", "centroid": "um"})


def _instances(out: Results) -> Table:
    rows = [
        (key, m.threshold, m.tp, m.fp, m.fn, m.precision, m.recall, m.f1, m.ap, m.pq, m.mean_iou)
        for key, s in out.scores.items()
        for m in s.matchings
    ]
    return table("images: iou tp fp fn precision recall f1 ap pq mean_iou", rows)


def _groups(out: Results) -> Table:
    rows: list[Sequence[Any]] = []
    for key, s in out.scores.items():
        for kind, names, groups in (("depth", dict(enumerate(THIRDS)), s.depth), ("class", CLASSES, s.classes)):
            for group, g in sorted(groups.items()):
                fp = np.nan if g.fp is None else g.fp
                rows.append((key, kind, names.get(group, str(group)), g.tp, g.fn, fp, g.mean_iou))
    return table("images: kind: group: tp fn fp mean_iou", rows)


def _alignment(out: Results) -> Table:
    rows = [
        (a.name, a.auc_naive, a.auc, *a.shift, a.median, a.p95, len(a.blocks), float(a.passed))
        + (out.new_blobs.get(a.name, np.nan),)
        for a in out.alignments
    ]
    units = dict.fromkeys(("shift_z", "shift_y", "shift_x", "median", "p95"), "voxels")
    names = "image: auc_simulated auc_adapted shift_z shift_y shift_x median p95 blocks aligned new_blobs"
    return table(names, rows, units)


def _shifts(out: Results) -> Table:
    rows = [(a.name, *row) for a in out.alignments for row in a.blocks]
    units = dict.fromkeys(("z", "y", "x"), "um") | dict.fromkeys(("shift_z", "shift_y", "shift_x"), "voxels")
    return table("image: z y x shift_z shift_y shift_x", rows, units)


def _downstream(out: Results) -> Table:
    rows = []
    for lessons in out.downstream:
        for seed, s in enumerate(lessons.scores):
            half = [m.ap for m in s.matchings if abs(m.threshold - 0.5) < 1e-9]
            d = s.detection
            rows.append((lessons.name, seed, d.det, d.seg, half[0] if half else np.nan, d.splits, d.missed, d.false))
    return table("learned_from: seed det seg ap50 to_split missed false", rows)


def _parity(out: Results) -> Table:
    rows: list[Sequence[Any]] = []
    for key, p in out.parity.items():
        n = p.slices.shape[1]
        for third, name in enumerate(THIRDS):
            part = p.slices[:, third * n // 3 : (third + 1) * n // 3]
            for row, region in zip(part, REGIONS):
                known = row[np.isfinite(row)]
                median = float(np.median(known)) if known.size else np.nan
                rows.append((key, NAMES[region], name, median, known.size, p.edges[1 + third]))
    return table("images: region: depth: score slices edge_distance", rows)
