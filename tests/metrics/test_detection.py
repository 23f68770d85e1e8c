"""DET, SEG and TRA: published numbers, closed forms, brute force and the challenge's matching in py-ctcmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile

from gigascope.metrics.detection import det_score, detection, tra_score
from gigascope.metrics.overlap import OverlapCounter, count_overlaps


@pytest.mark.parametrize(
    ("splits", "missed", "false", "expected"),
    [(30, 0, 220, 0.81592), (15, 1, 66, 0.924876), (17, 0, 63, 0.926368), (12, 43, 71, 0.720896)],
)
def test_published_detection_scores(splits, missed, false, expected):
    """S1."""
    assert det_score(201, splits=splits, missed=missed, false=false) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_seg_of_shifted_cubes(rng, axis):
    """S2."""
    side = int(rng.integers(6, 14))
    for d in range(side + 1):
        a, b = (np.zeros((40, 40, 40), np.uint16) for _ in range(2))
        box = [slice(5, 5 + side)] * 3
        a[tuple(box)] = 7
        box[axis] = slice(5 + d, 5 + d + side)
        b[tuple(box)] = 9
        expected = (side - d) / (side + d) if d < side / 2 else 0.0
        found = detection(count_overlaps(a, b))
        assert found.seg == pytest.approx(expected, abs=1e-15)
        assert (found.missed, found.false) == ((0, 0) if d < side / 2 else (1, 1))


def test_scores_by_brute_force_whole_and_in_chunks(rng):
    """S3, against the definition written out."""
    for _ in range(5):
        a, b = two_segmentations(rng)
        whole = detection(count_overlaps(a, b))
        assert whole == brute(a, b)
        counter = OverlapCounter()
        size = rng.integers(3, 12, 3)
        for corner in np.ndindex(*(-(-n // s) for n, s in zip(a.shape, size))):
            origin = tuple(int(c * s) for c, s in zip(corner, size))
            part = tuple(slice(o, o + s) for o, s in zip(origin, size))
            counter.add(a[part], b[part], origin)
        assert detection(counter.result()) == whole


def test_scores_are_those_of_py_ctcmetrics(rng, tmp_path):
    """S3, against the challenge's measures in another implementation, up to 200 objects."""
    pytest.importorskip("ctc_metrics", reason="pip install py-ctcmetrics to run this test")
    from ctc_metrics.metrics.technical import det as their_det
    from ctc_metrics.metrics.technical import seg as their_seg
    from ctc_metrics.utils.representations import match

    for n in range(4):
        a, b = two_segmentations(rng)
        files = [tmp_path / f"{name}{n}.tif" for name in "ab"]
        for file, labels in zip(files, (a, b)):
            tifffile.imwrite(file, labels.astype(np.uint16))
        ours, theirs, mapped_ours, mapped_theirs, iou = match(*map(str, files))
        found = detection(count_overlaps(a, b))
        assert found.seg == pytest.approx(their_seg.seg([ours], [iou]), abs=1e-12)
        counts = np.unique(mapped_theirs, return_counts=True)[1]
        costs = {
            "NS": int((counts - 1).sum()),
            "FN": len(ours) - len(mapped_ours),
            "FP": len(theirs) - len(counts),
        }
        assert found.det == pytest.approx(their_det.det(num_vertices=len(ours), **costs), abs=1e-12)


def test_tracking_score_counts_edges_and_is_det_without_them():
    assert tra_score(10, 0, splits=2, missed=1, false=3) == det_score(10, splits=2, missed=1, false=3)
    # 10 n + 1.5 e = 130; 5 + 10 + 1 + 2 * 1 + 4 * 1.5 + 3 * 1 = 27
    found = tra_score(10, 20, splits=1, missed=1, false=1, edges_removed=2, edges_added=4, edges_changed=3)
    assert found == pytest.approx(1 - 27 / 130, abs=1e-15)


def test_score_of_a_bad_result_is_nought_and_of_no_reference_unknown():
    assert det_score(3, splits=0, missed=3, false=100) == 0.0
    assert math.isnan(det_score(0, splits=0, missed=0, false=2))
    nothing = np.zeros((2, 2, 2), int)
    assert math.isnan(detection(count_overlaps(nothing, nothing)).seg)


def two_segmentations(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A reference of boxes and a test with some of them moved, merged, lost or made up."""
    shape = (20, 40, 40)
    a, b = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    last = 0
    for label in rng.permutation(np.arange(1, 41)) * 5:
        low = [int(rng.integers(0, n - 6)) for n in shape]
        high = [int(o + rng.integers(2, 7)) for o in low]
        a[tuple(slice(o, p) for o, p in zip(low, high))] = label
        shift = rng.integers(-1, 2, 3)
        kind = rng.random()
        if kind < 0.7:
            last = label if kind < 0.5 or not last else last
            moved = tuple(slice(max(0, o + s), p + s) for o, p, s in zip(low, high, shift))
            b[moved] = last
    b[:2, :3, :3] = 999
    return a, b


def brute(a, b):
    from gigascope.metrics.detection import Detection

    refs, tests = (np.unique(v[v > 0]) for v in (a, b))
    hits: dict[int, int] = {int(t): 0 for t in tests}
    seg, missed = [], 0
    for r in refs:
        inside = a == r
        partner = [t for t in tests if np.count_nonzero(inside & (b == t)) > 0.5 * np.count_nonzero(inside)]
        if not partner:
            missed += 1
            continue
        hits[int(partner[0])] += 1
        other = b == partner[0]
        seg.append(np.count_nonzero(inside & other) / np.count_nonzero(inside | other))
    splits = sum(m - 1 for m in hits.values() if m > 1)
    false = sum(m == 0 for m in hits.values())
    return Detection(len(refs), len(tests), splits, missed, false, math.fsum(seg) / len(refs))
