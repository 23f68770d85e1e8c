"""Rate against quality: the average saving of one codec over another at equal quality.

Bjontegaard, VCEG-M33 (2001), with the piecewise cubic interpolation that does not overshoot between the points
(PCHIP), as is usual today.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class DeltaRate:
    """Mean difference of rates over an interval of quality.

    Attributes
    ----------
    value : fraction, -0.4: 40 % fewer bytes than the anchor at equal quality; NaN where the curves do not overlap
    low, high : interval of quality that was compared
    """

    value: float
    low: float
    high: float


def delta_rate(
    anchor: Sequence[tuple[float, float]],
    test: Sequence[tuple[float, float]],
    interval: tuple[float, float] = (-math.inf, math.inf),
) -> DeltaRate:
    """Mean of ln(rate of test / rate of anchor) over the quality both reach, as a fraction.

    Parameters
    ----------
    anchor, test : (rate, quality) of each point, at least two; any unit of rate, quality usually in dB
    interval : quality outside is not compared

    Notes
    -----
    A point that another one beats in both rate and quality is left out (:func:`front`): against a noise-free volume,
    the quality of a codec falls again once it codes the noise.
    """
    curves = [front(points) for points in (anchor, test)]
    if any(len(curve) < 2 for curve in curves):
        return DeltaRate(math.nan, math.nan, math.nan)
    low = max(interval[0], *(curve[0, 1] for curve in curves))
    high = min(interval[1], *(curve[-1, 1] for curve in curves))
    if not low < high:
        return DeltaRate(math.nan, low, high)
    means = [
        float(PchipInterpolator(curve[:, 1], np.log(curve[:, 0])).integrate(low, high)) / (high - low)
        for curve in curves
    ]
    return DeltaRate(math.expm1(means[1] - means[0]), float(low), float(high))


def front(points: Sequence[tuple[float, float]]) -> F64:
    """The (rate, quality) points that no other one beats, both columns strictly rising; (n, 2) float64."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted((r, -q) for r, q in points if np.isfinite(r) and np.isfinite(q)):
        if not kept or -quality > kept[-1][1]:
            kept.append((rate, -quality))
    return np.array(kept, np.float64).reshape(-1, 2)


def quality_at(points: Sequence[tuple[float, float]], rate: float) -> float:
    """Quality at a rate, interpolated over the logarithm of the rate; NaN outside the points."""
    curve = front(points)
    if len(curve) < 2 or not curve[0, 0] <= rate <= curve[-1, 0]:
        return math.nan
    return float(PchipInterpolator(np.log(curve[:, 0]), curve[:, 1])(math.log(rate)))


def rate_at(points: Sequence[tuple[float, float]], quality: float) -> float:
    """Rate at a quality, its logarithm interpolated over the quality; NaN outside the points."""
    curve = front(points)
    if len(curve) < 2 or not curve[0, 1] <= quality <= curve[-1, 1]:
        return math.nan
    return math.exp(float(PchipInterpolator(curve[:, 1], np.log(curve[:, 0]))(quality)))
