"""Gain and offset of a camera from the noise of an image: variance of neighbouring voxels against brightness."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gigascope.metrics.photon_transfer import PhotonTransfer
from gigascope.synthesis.calibration.estimate import Estimate

# Noise that neighbours share by more than this was smoothed, and says nothing of photons.
_SHARED = 0.3
# A gain whose error is a larger share of it is none.
_UNSURE = 0.5
# Slabs of the image that are looked at apart, for the error.
_PARTS = 4


def camera(image: NDArray) -> tuple[Estimate, Estimate]:
    """Grey values per electron (times the excess noise factor), and grey value without light.

    Parameters
    ----------
    image : (z, y, x) grey values, as the camera gave them
    """
    low, high = (float(v) for v in np.percentile(image[:, ::2, ::2], (0.5, 99.9)))
    gains, offsets, shared = [], [], []
    for slab in np.array_split(image, min(_PARTS, len(image))):
        curve = PhotonTransfer(low, high)
        curve.add(slab, np.ones(slab.shape, bool))
        line = curve.line()
        shared.append(max(abs(c) for c in curve.correlation))
        usable = len(curve.curve[0]) >= 4 and line.slope > 0
        gains.append(line.slope if usable else math.nan)
        offsets.append(-line.at_zero / line.slope if usable else math.nan)
    correlation = float(np.nanmean(shared)) if np.isfinite(shared).any() else math.nan
    if correlation > _SHARED:
        share = f"{100 * correlation:.0f} %"
        why = f"not identifiable: neighbouring voxels share {share} of their noise (smoothed or resampled)"
        return Estimate(None, math.nan, why), Estimate(None, math.nan, why)
    gain = Estimate.of_parts(gains, "slope of noise variance over brightness")
    offset = Estimate.of_parts(offsets, "brightness at which that line has no noise; read noise makes it smaller")
    if gain.value is not None and gain.error > _UNSURE * gain.value:
        why = f"not identifiable: parts of the image give different gains ({gain.value:.2g} +- {gain.error:.1g})"
        return Estimate(None, gain.error, why), Estimate(None, offset.error, why)
    if offset.value is not None and offset.value < 0:
        offset = Estimate(None, offset.error, f"not identifiable: the line ends at {offset.value:.3g}, below 0")
    return gain, offset
