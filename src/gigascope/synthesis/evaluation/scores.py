"""What a segmenter makes of images with labels: scores of detection, segmentation and instances, by depth and class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.metrics.detection import Detection, detection
from gigascope.metrics.instance import (
    GroupScore,
    Matching,
    by_group,
    centroid_error,
    divisions,
    match_all,
    volume_bias,
)
from gigascope.metrics.overlap import OverlapCounter, Overlaps, merge_overlaps
from gigascope.synthesis.evaluation.volumes import ImageSet, Region, Volume, middle

I64 = NDArray[np.int64]
# (volume, region) -> (z, y, x) label image of the region
Segment = Callable[[Volume, Region], NDArray]
Progress = Callable[..., Iterable[Any]]
# At which instances count for scores of groups, bias and distance.
HALF = 0.5
# Labels of one volume are kept apart from the next one's by this.
APART = 2**32


@dataclass(frozen=True)
class Scores:
    """Of one segmenter on one set of images.

    Attributes
    ----------
    detection : DET, SEG and their counts
    matchings : one for each threshold
    splits, merges : see :func:`gigascope.metrics.instance.divisions`
    volume_bias : of pairs at half overlap, relative
    centroid_um : median distance of their centroids
    depth : scores by third of the depth, upper first
    classes : scores by class of the nuclei's table, empty without one
    """

    detection: Detection
    matchings: list[Matching]
    splits: int
    merges: int
    volume_bias: float
    centroid_um: float
    depth: dict[int, GroupScore]
    classes: dict[int, GroupScore]


@dataclass(frozen=True, eq=False)
class Found:
    """What a segmenter found in one volume.

    Attributes
    ----------
    volume : it
    region : that was segmented
    labels : (z, y, x) of the region
    overlaps : with the volume's labels
    """

    volume: Volume
    region: Region
    labels: NDArray
    overlaps: Overlaps


def segment_set(
    images: ImageSet, segment: Segment, most: int, progress: Progress = lambda items, **_: items
) -> list[Found]:
    """Segment every image that has labels.

    Parameters
    ----------
    segment : the segmenter
    most : voxels of all images together; of larger ones the middle is taken
    """
    volumes = images.labelled
    found = []
    for volume in progress(volumes, what=f"segmenting {images.title} images", unit="image"):
        region = middle(volume, max(1, most // len(volumes)))
        labels = segment(volume, region)
        counter = OverlapCounter()
        for z in range(0, labels.shape[0], 16):
            part = (slice(region[0].start + z, min(region[0].start + z + 16, region[0].stop)), *region[1:])
            origin = [r.start for r in part]
            counter.add(volume.read_labels(part), labels[z : z + 16], origin)
        found.append(Found(volume, region, labels, counter.result()))
    return found


def score(
    found: Sequence[Found], thresholds: Sequence[float], classes: Mapping[str, Mapping[int, int]] | None = None
) -> Scores:
    """Scores over all volumes together.

    Parameters
    ----------
    found : of :func:`segment_set`
    thresholds : of the intersection over union
    classes : by name of the volume: class of each label
    """
    voxel = found[0].volume.voxel_um
    apart = [_apart(f.overlaps, n) for n, f in enumerate(found)]
    overlaps = merge_overlaps_of_volumes(apart)
    matchings = match_all(overlaps, thresholds)
    half = match_all(overlaps, (HALF,))[0]
    cut = divisions(overlaps)
    depth = [_thirds(f, n) for n, f in enumerate(found)]
    ours, theirs = overlaps.references, overlaps.tests
    of_ours = {k: v for part in depth for k, v in part[0].items()}
    of_theirs = {k: v for part in depth for k, v in part[1].items()}
    groups = by_group(
        half,
        overlaps,
        np.array([of_ours[int(k)] for k in ours.ids], np.int64),
        np.array([of_theirs[int(k)] for k in theirs.ids], np.int64),
    )
    kinds: dict[int, GroupScore] = {}
    if classes:
        known = {n * APART + k: c for n, f in enumerate(found) for k, c in classes.get(f.volume.name, {}).items()}
        kinds = by_group(half, overlaps, np.array([known.get(int(k), 0) for k in ours.ids], np.int64))
    distance = centroid_error(half, overlaps, voxel)
    return Scores(
        detection(overlaps),
        matchings,
        cut.splits,
        cut.merges,
        volume_bias(half, overlaps),
        float(np.median(distance)) if distance.size else math.nan,
        groups,
        kinds,
    )


def merge_overlaps_of_volumes(parts: Sequence[Overlaps]) -> Overlaps:
    """Rows of volumes whose labels do not meet, one below the other."""
    columns = zip(*((o.reference, o.test, o.voxels, o.moments) for o in parts))
    reference, test, voxels, moments = (np.concatenate(c) for c in columns)
    return Overlaps(reference, test, voxels, moments) if len(reference) else merge_overlaps([])


def blobs(adapted: Found, naive: Found) -> int:
    """Objects found in an adapted image that touch no label, and nothing found in the image it was made from.

    Parameters
    ----------
    adapted, naive : what one segmenter found in one region of both
    """
    from gigascope.metrics.overlap import count_overlaps

    both = count_overlaps(naive.labels, adapted.labels)
    made = set(adapted.overlaps.tests.ids.tolist())
    labelled = set(adapted.overlaps.pairs.test.tolist())
    seen = set(both.pairs.test.tolist())
    return len(made - labelled - seen)


def _apart(o: Overlaps, number: int) -> Overlaps:
    """Labels of one volume, other than those of the others."""
    step = number * APART
    ours, theirs = (np.where(v > 0, v + step, 0) for v in (o.reference, o.test))
    return Overlaps(ours, theirs, o.voxels, o.moments)


def _thirds(found: Found, number: int) -> tuple[dict[int, int], dict[int, int]]:
    """Third of the depth of each object of labels and result: 0 is the upper one of the labels' extent."""
    ours, theirs = found.overlaps.references, found.overlaps.tests
    span = ours.centroids[:, 0] if ours.ids.size else np.zeros(1)
    low, high = float(span.min()), float(span.max())
    step = max((high - low) / 3, 1e-9)
    return tuple(  # type: ignore[return-value]
        {
            int(k) + number * APART: int(np.clip((z - low) // step, 0, 2))
            for k, z in zip(sizes.ids, sizes.centroids[:, 0])
        }
        for sizes in (ours, theirs)
    )
