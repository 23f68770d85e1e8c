"""How well single objects were found: one-to-one matching by intersection over union, and its scores.

At thresholds of a half and more a matching is unique; below it is the one with most pairs, and among those the one with
the largest sum (as in StarDist's `matching`). It is found by the Hungarian method within the connected parts of the
graph of candidates, so that its cost grows with the objects and not with their square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gigascope.metrics.overlap import Overlaps

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Matching:
    """One-to-one matching of the objects of reference and test.

    Attributes
    ----------
    threshold : least intersection over union of a pair
    reference, test : (n,) int64, labels of the pairs, ascending by reference
    iou : (n,) float64
    missed : labels of the reference without a partner
    false : labels of the test without a partner
    """

    threshold: float
    reference: I64
    test: I64
    iou: F64
    missed: I64
    false: I64

    @property
    def tp(self) -> int:
        """Pairs."""
        return int(self.reference.size)

    @property
    def fn(self) -> int:
        """Missed objects."""
        return int(self.missed.size)

    @property
    def fp(self) -> int:
        """Objects that are none."""
        return int(self.false.size)

    @property
    def precision(self) -> float:
        """Share of the test's objects that have a partner."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the reference's objects that have a partner."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def ap(self) -> float:
        """TP / (TP + FP + FN), called average precision or accuracy at a threshold."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def mean_iou(self) -> float:
        """Of the pairs; NaN without any."""
        return math.fsum(self.iou) / self.tp if self.tp else math.nan

    @property
    def pq(self) -> float:
        """Panoptic quality: Kirillov et al., CVPR 2019, equation 1."""
        return _ratio(math.fsum(self.iou), self.tp + 0.5 * (self.fp + self.fn))


def candidates(overlaps: Overlaps) -> tuple[I64, I64, F64]:
    """Pairs of objects that meet, and their intersection over union."""
    pairs, ours, theirs = overlaps.pairs, overlaps.references, overlaps.tests
    union = ours.voxels[ours.rows(pairs.reference)] + theirs.voxels[theirs.rows(pairs.test)] - pairs.voxels
    return pairs.reference, pairs.test, pairs.voxels / union


def match(overlaps: Overlaps, threshold: float) -> Matching:
    """The matching with most pairs whose intersection over union is at least `threshold` (above 0)."""
    reference, test, iou = candidates(overlaps)
    good = iou >= threshold
    reference, test, iou = reference[good], test[good], iou[good]
    chosen = _assign(reference, test, iou)
    reference, test, iou = reference[chosen], test[chosen], iou[chosen]
    missed = np.setdiff1d(overlaps.references.ids, reference)
    false = np.setdiff1d(overlaps.tests.ids, test)
    return Matching(threshold, reference, test, iou, missed, false)


def match_all(overlaps: Overlaps, thresholds: Sequence[float] = THRESHOLDS) -> list[Matching]:
    """A matching for each threshold."""
    return [match(overlaps, t) for t in thresholds]


@dataclass(frozen=True)
class Divisions:
    """Objects that were cut or run together.

    Attributes
    ----------
    splits : of reference objects that hold more than half of each of k test objects, k - 1
    merges : of test objects that hold more than half of each of m reference objects, m - 1
    """

    splits: int
    merges: int


def divisions(overlaps: Overlaps) -> Divisions:
    """Count splits and merges by who holds the larger part of whom."""
    return Divisions(splits=_extra(overlaps.swapped()), merges=_extra(overlaps))


def volume_bias(matching: Matching, overlaps: Overlaps) -> float:
    """Mean of test's over reference's volume less 1, over the pairs; NaN without any."""
    ours, theirs = overlaps.references, overlaps.tests
    ratio = theirs.voxels[theirs.rows(matching.test)] / ours.voxels[ours.rows(matching.reference)]
    return float(ratio.mean()) - 1.0 if ratio.size else math.nan


def centroid_error(matching: Matching, overlaps: Overlaps, spacing: Sequence[float]) -> F64:
    """(n,) distance of the centroids of each pair, in the unit of `spacing` (voxel size z, y, x)."""
    ours, theirs = overlaps.references, overlaps.tests
    apart = theirs.centroids[theirs.rows(matching.test)] - ours.centroids[ours.rows(matching.reference)]
    return np.linalg.norm(apart * np.asarray(spacing), axis=1)


@dataclass(frozen=True)
class GroupScore:
    """Scores of the objects of one kind, such as a depth or a class.

    Attributes
    ----------
    tp, fn : objects of the reference of this kind that have a partner, or none
    fp : of the test's objects of this kind; none: the test's objects are of no known kind
    mean_iou : of the pairs, by the reference's kind; NaN without any
    """

    tp: int
    fn: int
    fp: int | None
    mean_iou: float


def by_group(
    matching: Matching, overlaps: Overlaps, reference_groups: I64, test_groups: I64 | None = None
) -> dict[int, GroupScore]:
    """Scores of each group.

    Parameters
    ----------
    reference_groups : (n,) group of each object of the reference, in the order of `overlaps.references.ids`
    test_groups : the same of the test, where it is known
    """
    ours, theirs = overlaps.references, overlaps.tests
    paired = reference_groups[ours.rows(matching.reference)]
    missed = reference_groups[ours.rows(matching.missed)]
    false = None if test_groups is None else test_groups[theirs.rows(matching.false)]
    kinds = [reference_groups, *([] if false is None else [false])]
    found = {}
    for kind in np.unique(np.concatenate(kinds)):
        iou = matching.iou[paired == kind]
        found[int(kind)] = GroupScore(
            tp=int(iou.size),
            fn=int((missed == kind).sum()),
            fp=None if false is None else int((false == kind).sum()),
            mean_iou=float(iou.mean()) if iou.size else math.nan,
        )
    return found


def _assign(reference: I64, test: I64, iou: F64) -> I64:
    """Rows of the candidates that are chosen."""
    if not reference.size:
        return np.zeros(0, np.int64)
    _, row = np.unique(reference, return_inverse=True)
    _, column = np.unique(test, return_inverse=True)
    n, m = int(row.max()) + 1, int(column.max()) + 1
    graph = coo_matrix((np.ones(row.size), (row, column + n)), shape=(n + m, n + m))
    _, part = connected_components(graph, directed=False)
    order = np.argsort(part[row], kind="stable")
    edges = np.flatnonzero(np.diff(part[row][order])) + 1
    chosen = [_assign_part(row[k], column[k], iou[k], k) for k in np.split(order, edges)]
    return np.sort(np.concatenate(chosen))


def _assign_part(row: I64, column: I64, iou: F64, index: I64) -> I64:
    if index.size == 1:
        return index
    rows, r = np.unique(row, return_inverse=True)
    columns, c = np.unique(column, return_inverse=True)
    weight = np.zeros((rows.size, columns.size))
    # one more pair counts for more than all that pairs can gain in overlap
    weight[r, c] = 1.0 + iou / (2.0 * min(weight.shape))
    chosen = np.zeros(weight.shape, bool)
    chosen[linear_sum_assignment(weight, maximize=True)] = True
    return index[chosen[r, c]]


def _extra(overlaps: Overlaps) -> int:
    sizes, pairs = overlaps.references, overlaps.pairs
    held = pairs.test[2 * pairs.voxels > sizes.voxels[sizes.rows(pairs.reference)]]
    return int(held.size - np.unique(held).size)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
