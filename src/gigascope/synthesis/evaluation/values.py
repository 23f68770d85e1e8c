"""The single numbers of an evaluation, by the names of :data:`gigascope.synthesis.evaluation.labels.LABELS`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gigascope.synthesis.evaluation.evaluation import Results
from gigascope.synthesis.evaluation.scores import Scores


def values(out: Results) -> dict[str, float]:
    """Everything that was measured, as numbers."""
    found: dict[str, float] = {f"images_{key}": float(n) for key, n in out.sizes.items()}
    for pair, rows in out.distances.items():
        found |= {f"{row.measure}_{pair}": row.value for row in rows}
    for pair, apart in out.edge_distances.items():
        found[f"edge_{pair}"] = apart[0]
    for measure in ("w1", "spectrum", "kernel"):
        before, after = (found.get(f"{measure}_{pair}", math.nan) for pair in ("real_naive", "real_adapted"))
        if math.isfinite(before) and math.isfinite(after):
            found[f"{measure}_gain"] = before / after if after > 0 else math.inf
    for key, scores in out.scores.items():
        found |= _of_scores(key, scores)
    for key, measures in out.measures.items():
        line, (axial, lateral) = measures.noise.line(), measures.noise.correlation
        found |= {f"gain_{key}": line.slope, f"offset_{key}": line.offset}
        found |= {f"noise_axial_{key}": axial, f"noise_lateral_{key}": lateral}
    return found | _of_alignment(out) | _of_downstream(out)


def _of_scores(key: str, scores: Scores) -> dict[str, float]:
    of = scores.detection
    found = {
        f"det_{key}": of.det,
        f"seg_{key}": of.seg,
        f"merges_{key}": float(of.splits),
        f"missed_{key}": float(of.missed),
        f"false_{key}": float(of.false),
        f"nuclei_{key}": float(of.n_reference),
        f"volume_bias_{key}": 100.0 * scores.volume_bias,
        f"centroid_{key}": scores.centroid_um,
    }
    half = [m for m in scores.matchings if abs(m.threshold - 0.5) < 1e-9]
    return found | ({f"ap50_{key}": half[0].ap, f"f1_50_{key}": half[0].f1, f"pq50_{key}": half[0].pq} if half else {})


def _of_alignment(out: Results) -> dict[str, float]:
    images = out.alignments
    if not images:
        return {}
    lengths = np.concatenate([a.lengths for a in images])
    far = [float(np.linalg.norm(a.shift)) for a in images if np.isfinite(a.shift).all()]
    found = {
        "auc_naive": float(np.mean([a.auc_naive for a in images])),
        "auc_adapted": float(np.mean([a.auc for a in images])),
        "aligned": 100.0 * sum(a.passed for a in images) / len(images),
    }
    if lengths.size:
        found |= {"shift_median": float(np.median(lengths)), "shift_p95": float(np.quantile(lengths, 0.95))}
    if far:
        found["shift_global"] = max(far)
    if out.new_blobs:
        found["new_blobs"] = float(sum(out.new_blobs.values()))
    return found


def _of_downstream(out: Results) -> dict[str, float]:
    found = {}
    for lessons in out.downstream:
        key = lessons.name.replace("+", "_and_")
        found[f"downstream_det_{key}"] = _mean([s.detection.det for s in lessons.scores])
        found[f"downstream_seg_{key}"] = _mean([s.detection.seg for s in lessons.scores])
        half = [m.ap for s in lessons.scores for m in s.matchings if abs(m.threshold - 0.5) < 1e-9]
        found[f"downstream_ap50_{key}"] = _mean(half)
    return found


def _mean(numbers: Sequence[float]) -> float:
    return float(np.mean(numbers)) if len(numbers) else math.nan
