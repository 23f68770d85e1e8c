"""What an analysis would find in a decoded volume: skeletons, connected parts, and the objects' light and place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import ShapeError

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

# every neighbour that shares a face, an edge or a corner
_TOUCHING = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class CentrelineDice:
    """Agreement of two tubular masks by their skeletons.

    Attributes
    ----------
    precision : share of the test's skeleton inside the reference's mask
    recall : share of the reference's skeleton inside the test's mask
    """

    precision: float
    recall: float

    @property
    def value(self) -> float:
        """Harmonic mean of the two; Shit et al., CVPR 2021, equation 2 (clDice)."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total > 0 else (0.0 if total == 0 else math.nan)


def centreline_dice(reference: Mask, reference_skeleton: Mask, test: Mask, test_skeleton: Mask) -> CentrelineDice:
    """clDice of two masks with their skeletons, all (z, y, x) bool; NaN where a skeleton is empty.

    Raises
    ------
    ShapeError : the shapes differ
    """
    if len({v.shape for v in (reference, reference_skeleton, test, test_skeleton)}) != 1:
        raise ShapeError("masks and skeletons have one shape")
    return CentrelineDice(_share(test_skeleton, reference), _share(reference_skeleton, test))


def components(mask: Mask, smallest: int = 1) -> tuple[Labels, int]:
    """Connected parts (26 neighbours) with at least `smallest` voxels: label image, 0 outside, and their number."""
    labels, n = ndimage.label(mask, _TOUCHING)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    keep = sizes >= smallest
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return renumbered[labels], int(keep.sum())


@dataclass(frozen=True)
class Objects:
    """Light and place of labelled objects.

    Attributes
    ----------
    light : (n,) float64, sum of value - background
    centres : (n, 3) float64, voxels, (z, y, x), weighted by value - background where that is positive
    """

    light: F64
    centres: F64


def measure(labels: Labels, n: int, volume: NDArray[np.generic], background: float) -> Objects:
    """Integrated intensity and centroid of the objects 1..n of a label image.

    Parameters
    ----------
    labels : (z, y, x), 0 is background
    volume : (z, y, x), units of the file
    background : value that counts as no light
    """
    inside = np.nonzero(labels)
    which = labels[inside] - 1
    light = volume[inside].astype(np.float64) - background
    weight = np.maximum(light, 0.0)
    mass = np.bincount(which, weight, minlength=n).astype(np.float64)
    # an object without light has no centroid: NaN, which the medians leave out
    mass[mass == 0] = np.nan
    centres = np.stack([np.bincount(which, weight * place, minlength=n) / mass for place in inside], axis=1)
    return Objects(np.bincount(which, light, minlength=n).astype(np.float64), centres)


@dataclass(frozen=True)
class ObjectErrors:
    """How far objects are from the reference's, over objects; NaN without objects.

    Attributes
    ----------
    light_median, light_p95 : median and 95th percentile of the relative error of the integrated intensity
    light_total : signed relative error of the sum over all objects
    place_median, place_p95 : median and 95th percentile of the distance of the centroids, in the unit of the spacing
    """

    light_median: float
    light_p95: float
    light_total: float
    place_median: float
    place_p95: float


def object_errors(
    reference: Objects, test: Objects, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> ObjectErrors:
    """Compare the same objects in two volumes; `spacing` is the voxel size (z, y, x)."""
    total = float(reference.light.sum())
    bright = reference.light > 0
    light = np.abs(test.light[bright] / reference.light[bright] - 1.0)
    place = np.linalg.norm((test.centres - reference.centres) * np.asarray(spacing), axis=1)
    place = place[np.isfinite(place)]
    return ObjectErrors(
        light_median=_percentile(light, 50),
        light_p95=_percentile(light, 95),
        light_total=float(test.light.sum()) / total - 1.0 if total > 0 else math.nan,
        place_median=_percentile(place, 50),
        place_p95=_percentile(place, 95),
    )


def _percentile(values: F64, percent: float) -> float:
    return float(np.percentile(values, percent)) if values.size else math.nan


def _share(skeleton: Mask, mask: Mask) -> float:
    n = int(np.count_nonzero(skeleton))
    return int(np.count_nonzero(skeleton & mask)) / n if n else math.nan
