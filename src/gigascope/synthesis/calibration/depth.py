"""Attenuation with depth: how fast bright values fall along the way through the region."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.synthesis.calibration.estimate import Estimate

# Depths are taken together in steps of this many micrometres; shares of the brightest values of each.
_STEP_UM = 5.0
_QUANTILE = 0.9
# A step counts with this many voxels.
_LEAST = 500
_RIM_UM = 8.0

Size3 = tuple[float, float, float]


def attenuation(image: NDArray, region: NDArray[np.bool_], voxel_um: Size3, offset: float) -> Estimate:
    """Attenuation per micrometre of tissue above, of excitation and emission together.

    Parameters
    ----------
    image : (z, y, x) grey values
    region : True in the tissue
    offset : grey value without light
    """
    depth = (np.cumsum(region, axis=0) - 0.5) * voxel_um[0]
    # the outermost micrometres have few nuclei, whatever the depth
    inner = ndimage.distance_transform_edt(region, sampling=voxel_um) > _RIM_UM
    slopes = [
        _slope(image[:, rows], depth[:, rows], inner[:, rows], offset)
        for rows in np.array_split(np.arange(image.shape[1]), 4)
    ]
    found = Estimate.of_parts(slopes, "slope of the logarithm of the 90 % quantile over depth in tissue")
    if found.value is not None and found.value < 0:
        return Estimate(None, found.error, f"not identifiable: brightness grows with depth ({found.value:.3g} per um)")
    return found


def _slope(image: NDArray, depth: NDArray, region: NDArray[np.bool_], offset: float) -> float:
    """Of a part of the image; NaN where too few depths have enough voxels."""
    step = (depth[region] / _STEP_UM).astype(np.int64)
    values = image[region].astype(np.float64) - offset
    order = np.argsort(step, kind="stable")
    places, starts, counts = np.unique(step[order], return_index=True, return_counts=True)
    x, y = [], []
    for place, start, count in zip(places, starts, counts):
        bright = float(np.quantile(values[order[start : start + count]], _QUANTILE))
        if count >= _LEAST and bright > 0:
            x.append((place + 0.5) * _STEP_UM)
            y.append(math.log(bright))
    # above the brightest step, nuclei are not yet as dense
    first = int(np.argmax(y)) if y else 0
    return -float(np.polyfit(x[first:], y[first:], 1)[0]) if len(x) - first >= 4 else math.nan
