"""Matching of single objects: brute force over all assignments, closed forms, and what must not matter."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from gigascope.metrics.instance import (
    THRESHOLDS,
    by_group,
    candidates,
    centroid_error,
    divisions,
    match,
    match_all,
    volume_bias,
)
from gigascope.metrics.overlap import count_overlaps


def cut(rng: np.random.Generator, shape=(6, 14, 14), n=6) -> np.ndarray:
    """Cells of random points, every second left out."""
    points = rng.uniform(0, 1, (n, 3)) * shape
    grid = np.stack(np.meshgrid(*(np.arange(k) for k in shape), indexing="ij"), axis=-1)
    labels = np.linalg.norm(grid[..., None, :] - points, axis=-1).argmin(axis=-1) + 1
    return np.where(rng.random(n)[labels - 1] < 0.8, labels, 0)


def best(o, threshold: float) -> tuple[int, float]:
    """Most pairs, and then the largest sum, over all one-to-one assignments."""
    iou = {(r, t): v for r, t, v in zip(*(c.tolist() for c in candidates(o))) if v >= threshold}
    refs = sorted({r for r, _ in iou})
    found = (0, 0.0)
    options = [[None, *(t for q, t in iou if q == r)] for r in refs]
    for choice in itertools.product(*options):
        taken = [t for t in choice if t is not None]
        if len(set(taken)) == len(taken):
            total = math.fsum(iou[r, t] for r, t in zip(refs, choice) if t is not None)
            found = max(found, (len(taken), total))
    return found


def test_matching_is_the_best_of_all_assignments(rng):
    for _ in range(4):
        o = count_overlaps(cut(rng), cut(rng))
        for t in THRESHOLDS:
            m = match(o, t)
            n, total = best(o, t)
            assert m.tp == n
            assert math.fsum(m.iou) == pytest.approx(total, abs=1e-12)
            assert len(set(m.reference.tolist())) == len(set(m.test.tolist())) == m.tp
            assert m.tp + m.fn == o.references.ids.size
            assert m.tp + m.fp == o.tests.ids.size


def test_scores_follow_from_the_counts(rng):
    o = count_overlaps(cut(rng, n=12), cut(rng, n=12))
    for m in match_all(o, (0.1, 0.3, 0.5)):
        if not m.tp:
            continue
        assert m.precision == m.tp / (m.tp + m.fp)
        assert m.recall == m.tp / (m.tp + m.fn)
        assert m.f1 == pytest.approx(2 * m.precision * m.recall / (m.precision + m.recall), rel=1e-12)
        assert m.ap == m.tp / (m.tp + m.fp + m.fn)
        assert m.pq == pytest.approx(m.mean_iou * m.f1, rel=1e-12)


def test_identical_segmentations_are_perfect_whatever_their_ids(rng):
    a = cut(rng, n=9)
    names = rng.permutation(100)[: a.max() + 1] + 1
    b = np.where(a > 0, names[a], 0)
    o = count_overlaps(a, b)
    for m in match_all(o):
        assert m.f1 == m.ap == m.pq == m.mean_iou == 1.0
        assert volume_bias(m, o) == 0.0
        assert centroid_error(m, o, (1, 1, 1)).max() == 0.0
    assert (divisions(o).splits, divisions(o).merges) == (0, 0)


def test_splits_merges_bias_and_distance_of_known_boxes():
    a, b = (np.zeros((4, 10, 40), int) for _ in range(2))
    a[:, :, 0:10] = 1
    b[:, :, 0:4], b[:, :, 4:10] = 1, 2
    a[:, :, 10:15], a[:, :, 15:20] = 2, 3
    b[:, :, 10:20] = 3
    a[:, :, 24:34] = 4
    b[:, :, 26:34] = 4
    o = count_overlaps(a, b)
    assert (divisions(o).splits, divisions(o).merges) == (1, 1)
    m = match(o, 0.7)
    assert (m.tp, m.fp, m.fn) == (1, 3, 3)
    assert volume_bias(m, o) == pytest.approx(-0.2, abs=1e-12)
    assert centroid_error(m, o, (1.5, 0.5, 0.5)) == pytest.approx([0.5], abs=1e-12)


def test_groups_add_up_to_the_whole(rng):
    o = count_overlaps(cut(rng, n=14), cut(rng, n=14))
    m = match(o, 0.2)
    ours = rng.integers(0, 3, o.references.ids.size)
    theirs = rng.integers(0, 3, o.tests.ids.size)
    found = by_group(m, o, ours, theirs)
    assert sum(g.tp for g in found.values()) == m.tp
    assert sum(g.fn for g in found.values()) == m.fn
    assert sum(g.fp or 0 for g in found.values()) == m.fp
    for kind, g in found.items():
        assert g.tp + g.fn == np.count_nonzero(ours == kind)
    assert all(g.fp is None for g in by_group(m, o, ours).values())


def test_nothing_found_scores_nothing():
    a = np.zeros((2, 4, 4), int)
    a[:, :2] = 1
    m = match(count_overlaps(a, np.zeros_like(a)), 0.5)
    assert (m.tp, m.fn, m.fp, m.f1, m.ap, m.pq) == (0, 1, 0, 0.0, 0.0, 0.0)
    assert math.isnan(m.mean_iou)
    assert math.isnan(m.precision)
