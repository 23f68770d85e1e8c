"""Which views of a series carry no usable image: dark ones and empty ones, judged by their neighbours in tilt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.tomography.correlation import band_pass, frame_taper

F64 = NDArray[np.float64]

MIN_COSINE = math.cos(math.radians(80.0))
EMPTY_FRACTION = 0.2  # of the neighbours' band-passed variance
ALL_NOISE = 1 / 3
BLACKOUT = 0.4  # of the tolerance for dark views: no change of dose or thickness makes that
COARSE = 256
N_NEIGHBOURS = 3


@dataclass(frozen=True)
class ViewStatistics:
    """What flags are decided on; arrays (tilt,) in any order of tilt.

    Parameters
    ----------
    means : mean intensity of the raw views, counts
    band : variance of the band-passed signal without its share of noise
    tilt : radians
    excluded : left out by hand
    transmission : intensities fall with thickness (else they rise with it)
    i0 : unscattered intensity, counts (transmission)
    """

    means: F64
    band: F64
    tilt: F64
    excluded: NDArray[np.bool_]
    transmission: bool
    i0: float


def flag_views(statistics: ViewStatistics, dark_tol: float) -> tuple[str, ...]:
    """ "excluded", "dark", "empty" or "" for each view.

    dark: mean intensity below `dark_tol` of what the median of the three nearest views predicts, both with a thickness
    that grows as 1 / cos t and without, so that neither a section nor an isolated object loses steep views.
    Views far darker still, 0.4 `dark_tol`, are dark whatever stands beside them: half of a series may be.
    empty: variance of the band-passed signal below 0.2 of the neighbours'.
    """
    s = statistics
    use = ~s.excluded
    flags = np.full(len(s.tilt), "", dtype=object)
    flags[s.excluded] = "excluded"
    black = _blacked_out(s, BLACKOUT * dark_tol)
    flags[black] = "dark"
    use &= ~black
    for i in np.flatnonzero(use).tolist():
        near = neighbours(s.tilt, use, i, N_NEIGHBOURS)
        if len(near) and _is_below(s, i, near, dark_tol):
            flags[i] = "dark"
    judged = np.flatnonzero(flags == "")
    # variances below the noise's share in this many views: it is all noise, and an empty view looks like every other
    if np.mean(s.band[judged] <= 0) > ALL_NOISE:
        judged = judged[:0]
    for i in judged.tolist():
        near = neighbours(s.tilt, flags == "", i, N_NEIGHBOURS)
        if len(near) and s.band[i] < EMPTY_FRACTION * np.median(s.band[near]):
            flags[i] = "empty"
    return tuple(str(flag) for flag in flags)


def _is_below(s: ViewStatistics, index: int, near: NDArray[np.int64], fraction: float) -> bool:
    """Whether a view is darker than this fraction of what the views `near` predict for it."""
    cosine = np.maximum(np.cos(s.tilt), MIN_COSINE)
    if s.transmission:
        absorbance = -np.log(np.maximum(s.means[near], 1e-6 * s.i0) / s.i0)
        with_law = s.i0 * np.exp(-np.median(absorbance * cosine[near]) / cosine[index])
    else:
        with_law = np.median(s.means[near] * cosine[near]) / cosine[index]
    expected = min(float(with_law), float(np.median(s.means[near])))
    # a signal that goes through zero (logged, or filtered) has no dark level
    return expected > 0 and s.means[~s.excluded].min() > -expected and s.means[index] < fraction * expected


def _blacked_out(s: ViewStatistics, fraction: float) -> NDArray[np.bool_]:
    """Views below a fraction of what the nearest *bright* views predict, growing from the brightest quarter of all.

    A series darkens slowly without being flagged, since every view that is accepted predicts the next.
    """
    use = np.flatnonzero(~s.excluded)
    bright, black = np.zeros(len(s.tilt), dtype=bool), np.zeros(len(s.tilt), dtype=bool)
    bright[use[np.argsort(-s.means[use], kind="stable")][: max(2, len(use) // 4)]] = True
    left = [int(i) for i in use if not bright[i]]
    while left:
        i = min(left, key=lambda j: float(np.abs(s.tilt[bright] - s.tilt[j]).min()))
        left.remove(i)
        black[i] = _is_below(s, i, neighbours(s.tilt, bright, i, N_NEIGHBOURS), fraction)
        bright[i] = not black[i]
    return black


def neighbours(tilt: F64, use: NDArray[np.bool_], index: int, n: int) -> NDArray[np.int64]:
    """Indices of the n used views nearest in tilt, without the view itself."""
    distance = np.where(use, np.abs(tilt - tilt[index]), np.inf)
    distance[index] = np.inf
    order = np.argsort(distance, kind="stable")[:n]
    return order[np.isfinite(distance[order])].astype(np.int64)


def running_median(values: F64, tilt: F64, use: NDArray[np.bool_], n: int) -> F64:
    """Median over each view and its n - 1 nearest used ones; the value itself where there is none."""
    out = np.array(values, dtype=np.float64)
    for i in range(len(out)):
        near = neighbours(tilt, use, i, n - 1)
        pool = np.append(near, i) if use[i] else near
        if len(pool):
            out[i] = np.median(values[pool])
    return out


def band_variance(signal: Tensor, noise: float) -> float:
    """Variance between 0.015 and 0.12 cycles per (coarse) pixel, less what noise of this variance puts there.

    Parameters
    ----------
    signal : (y, x) float, mean removed; binned to at most 256 px first
    noise : variance per pixel of `signal`
    """
    factor = max(1, math.ceil(max(signal.shape) / COARSE))
    coarse = torch.nn.functional.avg_pool2d(signal[None, None], min(factor, *signal.shape))[0, 0]
    shape = (coarse.shape[0], coarse.shape[1])
    window = frame_taper(shape, 0.12, device=signal.device)
    spectrum = torch.fft.fft2(coarse * window)
    gain = band_pass(shape, 0.12, 0.015, half=False, device=signal.device)
    power = float((spectrum.abs() ** 2 * gain**2).sum(dtype=torch.float64)) / (shape[0] * shape[1])
    energy = float((window**2).sum(dtype=torch.float64))
    share = float((gain**2).mean(dtype=torch.float64))
    return power / energy - noise / factor**2 * share
