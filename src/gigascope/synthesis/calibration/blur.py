"""An upper bound of the width of a point spread function, from how fast the spectrum of an image falls.

A Gaussian of width s multiplies the power by exp(-4 pi² s² f²). What the specimen itself has at high frequencies is not
known, so the slope over f² gives the blur of specimen and microscope together.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gigascope.synthesis.calibration.depth import Size3
from gigascope.synthesis.calibration.estimate import Estimate

# The floor of the noise is the median above this share of the Nyquist frequency; values count above this many floors.
_FLOOR_FROM, _ABOVE = 0.85, 3.0


def blur(image: NDArray, region: NDArray[np.bool_], voxel_um: Size3) -> tuple[list[Estimate], Estimate]:
    """Lateral width (standard deviation, µm) in each depth third of the region, and along z in all of it."""
    slices = np.flatnonzero(region.any(axis=(1, 2)))
    thirds = np.array_split(slices, 3)
    lateral = []
    for third in thirds:
        widths = [_width(image[z], region[z], voxel_um[1:], 1) for z in third]
        widths += [_width(image[z], region[z], voxel_um[1:], 0) for z in third]
        lateral.append(Estimate.of_parts(widths, "fall of the spectrum in the plane, at most"))
    rows = np.flatnonzero(region.any(axis=(0, 2)))
    along = [_width(image[:, y], region[:, y], (voxel_um[0], voxel_um[2]), 0) for y in rows[:: max(1, len(rows) // 32)]]
    return lateral, Estimate.of_parts(along, "fall of the spectrum along z, at most")


def _width(plane: NDArray, region: NDArray[np.bool_], size: tuple[float, ...], axis: int) -> float:
    """Of lines along an axis of a plane that lie in the region; NaN where there is too little of it."""
    box = [np.flatnonzero(region.any(axis=a)) for a in (1, 0)]
    if min(len(b) for b in box) < 12:
        return math.nan
    part = plane[box[0][0] : box[0][-1] + 1, box[1][0] : box[1][-1] + 1].astype(np.float64)
    part = np.moveaxis(part, axis, -1)
    part = (part - part.mean(axis=-1, keepdims=True)) * np.hanning(part.shape[-1])
    power = (np.abs(np.fft.rfft(part, axis=-1)) ** 2).mean(axis=0)
    frequency = np.arange(len(power)) / (part.shape[-1] * size[axis])
    top = frequency > _FLOOR_FROM * frequency[-1]
    floor = float(np.median(power[top]))
    signal = power - floor
    good = (signal > _ABOVE * floor) & (np.arange(len(power)) >= 2) & ~top
    if np.count_nonzero(good) < 4:
        return math.nan
    slope = np.polyfit(frequency[good] ** 2, np.log(signal[good]), 1)[0]
    return math.sqrt(-slope / (4 * math.pi**2)) if slope < 0 else math.nan
