"""Detection, segmentation and tracking scores of the Cell Tracking Challenge, from sparse overlaps.

Matula et al., Cell tracking accuracy measurement based on comparison of acyclic oriented graphs, PLOS ONE 10, e0144959
(2015); celltrackingchallenge.net/evaluation-methodology. An object of the test matches one of the reference if it
covers more than half of it: each reference object has at most one match, a test object may match several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.metrics.overlap import Overlaps

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

# What repairing a result by hand costs: splitting an object, adding one, removing one; removing, adding and changing
# an edge between time points.
SPLIT, MISSED, FALSE = 5.0, 10.0, 1.0
EDGE_REMOVED, EDGE_ADDED, EDGE_CHANGED = 1.0, 1.5, 1.0


@dataclass(frozen=True)
class Detection:
    """What separates a segmentation from its reference.

    Attributes
    ----------
    n_reference, n_test : objects
    splits : objects to be split: of a test object with m matches, m - 1 (the reference's objects were merged)
    missed : objects of the reference without match (false negatives)
    false : objects of the test that match none (false positives)
    seg : mean over the reference's objects of the intersection over union with their match, 0 without one
    """

    n_reference: int
    n_test: int
    splits: int
    missed: int
    false: int
    seg: float

    @property
    def det(self) -> float:
        """DET; NaN without objects in the reference."""
        return det_score(self.n_reference, splits=self.splits, missed=self.missed, false=self.false)


def det_score(n_reference: int, *, splits: int, missed: int, false: int) -> float:
    """DET = 1 - min(AOGM_D, AOGM_D0) / AOGM_D0 with AOGM_D = 5 splits + 10 missed + false, AOGM_D0 = 10 n."""
    return tra_score(n_reference, 0, splits=splits, missed=missed, false=false)


def tra_score(
    n_reference: int,
    n_edges: int,
    *,
    splits: int,
    missed: int,
    false: int,
    edges_removed: int = 0,
    edges_added: int = 0,
    edges_changed: int = 0,
) -> float:
    """TRA: as DET, with the cost of the edges between time points; of a single one there are none, and TRA is DET.

    Parameters
    ----------
    n_reference, n_edges : vertices and edges of the reference's graph

    Returns
    -------
    0 to 1; NaN where the reference is empty
    """
    whole = MISSED * n_reference + EDGE_ADDED * n_edges
    cost = SPLIT * splits + MISSED * missed + FALSE * false
    cost += EDGE_REMOVED * edges_removed + EDGE_ADDED * edges_added + EDGE_CHANGED * edges_changed
    return 1.0 - min(cost, whole) / whole if whole > 0 else math.nan


def matches(overlaps: Overlaps) -> tuple[I64, I64, F64]:
    """Matched labels of reference and test, and their intersection over union; ascending by reference."""
    sizes, tests, pairs = overlaps.references, overlaps.tests, overlaps.pairs
    size = sizes.voxels[sizes.rows(pairs.reference)]
    good = 2 * pairs.voxels > size
    reference, test, shared = pairs.reference[good], pairs.test[good], pairs.voxels[good]
    union = size[good] + tests.voxels[tests.rows(test)] - shared
    return reference, test, shared / union


def detection(overlaps: Overlaps) -> Detection:
    """Scores of a segmentation against its reference.

    Parameters
    ----------
    overlaps : of the whole volume, from :class:`gigascope.metrics.overlap.OverlapCounter`
    """
    reference, test, iou = matches(overlaps)
    n_reference, n_test = overlaps.references.ids.size, overlaps.tests.ids.size
    matched, times = np.unique(test, return_counts=True)
    # fsum: the mean does not depend on the order of the objects
    seg = math.fsum(iou) / n_reference if n_reference else math.nan
    return Detection(
        n_reference=n_reference,
        n_test=n_test,
        splits=int((times - 1).sum()),
        missed=n_reference - reference.size,
        false=n_test - matched.size,
        seg=seg,
    )
