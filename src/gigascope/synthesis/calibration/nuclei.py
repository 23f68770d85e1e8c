"""Size and number of nuclei without labels: blobs of a scale space (differences of Gaussians).

A ball of radius r answers most strongly to a Laplacian of Gaussian of sigma r / sqrt(3): Lindeberg, IJCV 30, 79 (1998).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.synthesis.calibration.depth import Size3
from gigascope.synthesis.calibration.estimate import Estimate

_RATIO = 1.15
# Of the strongest answer (its 99.9 % quantile): weaker ones are noise.
_LEAST = 0.25


def blobs(
    image: NDArray,
    region: NDArray[np.bool_],
    voxel_um: Size3,
    diameters_um: tuple[float, float] = (4.0, 20.0),
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (n, 3) µm and diameters (n,) µm of bright blobs in a region.

    Parameters
    ----------
    image : (z, y, x)
    region : where blobs count
    diameters_um : smallest and largest that are looked for
    """
    low, high = (d / 2 / math.sqrt(3) for d in diameters_um)
    n = max(3, math.ceil(math.log(high / low) / math.log(_RATIO)) + 1)
    sigmas = low * _RATIO ** np.arange(-1, n + 2)
    values = np.log1p(np.maximum(image.astype(np.float32) - np.percentile(image, 1), 0))
    smooth = [ndimage.gaussian_filter(values, [s / v for v in voxel_um], mode="nearest") for s in sigmas]
    # a difference of Gaussians of a fixed ratio is the Laplacian times sigma squared: scales compare
    answers = np.stack([a - b for a, b in itertools.pairwise(smooth)])
    near = ndimage.maximum_filter(answers, size=(3, 3, 3, 3), mode="nearest")
    strong = _LEAST * float(np.quantile(answers[1:-1, region], 0.999))
    found = np.argwhere((answers == near)[1:-1] & (answers[1:-1] > strong) & region)
    centres = (found[:, 1:] + 0.5) * np.asarray(voxel_um)
    middle = sigmas[1:-1][found[:, 0]] * math.sqrt(_RATIO)
    diameters = np.asarray(2 * math.sqrt(3) * middle, np.float64)
    return _apart(centres, diameters, answers[found[:, 0] + 1, found[:, 1], found[:, 2], found[:, 3]])


def nuclei(
    diameters: NDArray[np.float64], region: NDArray[np.bool_], voxel_um: Size3
) -> tuple[Estimate, Estimate, Estimate]:
    """Mean diameter µm, its coefficient of variation, and the share of the region's volume that is nuclei.

    Parameters
    ----------
    diameters : (n,) µm, of :func:`blobs`
    region : where they were looked for
    """
    why = f"{len(diameters)} blobs; blur makes them larger, and merges those that touch"
    if len(diameters) < 8:
        nothing = Estimate(None, math.nan, f"not identifiable: only {len(diameters)} blobs")
        return nothing, nothing, nothing
    n = math.sqrt(len(diameters))
    size, spread = float(np.median(diameters)), float(diameters.std() / diameters.mean())
    volume = np.count_nonzero(region) * math.prod(voxel_um)
    share = float((math.pi / 6 * diameters**3).sum() / volume)
    # of a volume the error is three times that of a diameter, and their number has its own
    unsure = share * (3 * float(diameters.std() / diameters.mean()) + 1) / n
    return (
        Estimate(size, float(diameters.std()) / n, why),
        Estimate(spread, spread / n / math.sqrt(2), why),
        Estimate(min(max(share, 0.02), 0.5), unsure, why),
    )


def _apart(
    centres: NDArray[np.float64], diameters: NDArray[np.float64], answers: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Without blobs whose centre lies in a stronger one."""
    from scipy.spatial import cKDTree

    order = np.argsort(-answers, kind="stable")
    centres, diameters = centres[order], diameters[order]
    if not len(centres):
        return centres, diameters
    tree = cKDTree(centres)
    kept = np.ones(len(centres), bool)
    for i in range(len(centres)):
        if kept[i]:
            for j in tree.query_ball_point(centres[i], diameters[i] / 2):
                kept[j] &= j <= i
    return centres[kept], diameters[kept]
