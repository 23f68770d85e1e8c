"""Do views and angles go together? Small copies of the views tell of a wrong order, of nothing to see, of cut objects.

Neighbours in tilt resemble each other more than other views do. How much two views resemble each other is the largest
correlation coefficient of their band-passed copies over all shifts up to a quarter of the field, so the views need not
be aligned. The sign of the angles is not among what can be told: the mirrored specimen gives the same views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gigascope.tomography.correlation import band_pass, frame_taper
from gigascope.tomography.signal import SignalModel

F64 = NDArray[np.float64]
Spectra = NDArray[np.complex128]

SIZE = 128  # longest side of a small copy, pixels
SEARCH = 0.25  # of the field
LOW_PASS, HIGH_PASS, TAPER = 0.2, 0.02, 0.12
# How far two means over pairs of views must lie apart, in standard errors and as it is. On simulated series (SNR 0.2
# and 1, four orders of acquisition) no other order comes out above the right one, and noise within 2 of chance.
ERRORS = 4.0
LEAST = 0.02
# Share of an object's signal at the edge of the field from which on the object is taken to go on outside. Simulated
# objects that lie whole in the view reach 0.3 at SNR 1, cut ones 0.8 and more.
CUT = 0.5
CUT_VIEWS = 0.1
BLUR = 4.0
LISTED = 8


def thumbnail(view: NDArray) -> NDArray[np.float32]:
    """A view (y, x) by block means, at most 128 px long; what does not fill a block is cut off."""
    factor = max(1, math.ceil(max(view.shape) / SIZE))
    height, width = (max(1, n // factor) for n in view.shape)
    blocks = view[: height * factor, : width * factor].reshape(height, min(factor, view.shape[0]), width, -1)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def doubts(small: Sequence[NDArray[np.float32]], model: SignalModel, tilt: F64, tilt_axis: float) -> list[str]:
    """What a person should look at before trusting a series, in plain words.

    Parameters
    ----------
    small : (y, x) of every view, :func:`thumbnail` of its raw values, in file order
    model : of the series
    tilt : (tilt,) radians, file order
    tilt_axis : phi, radians
    """
    good = np.flatnonzero(model.good)
    signal = _signal(np.stack(small).astype(np.float64), model)
    found = [*_order_or_contrast(signal, good, tilt, model.extent)]
    if model.extent == "object":
        found += _cut_objects(signal, good, tilt_axis)
    return found


def spectra(signal: F64) -> Spectra:
    """Band-passed spectra of unit energy of tapered views (tilt, y, x), as of `rfft2`."""
    shape = (signal.shape[1], signal.shape[2])
    gain = band_pass(shape, LOW_PASS, HIGH_PASS, half=False).numpy().astype(np.float64)
    window = frame_taper(shape, TAPER).numpy().astype(np.float64)
    found = np.fft.fft2((signal - signal.mean(axis=(1, 2), keepdims=True)) * window) * gain
    energy = np.linalg.norm(found.reshape(len(found), -1), axis=1)
    return found[:, :, : shape[1] // 2 + 1] / np.maximum(energy, 1e-300)[:, None, None]


def resemblance(first: Spectra, second: Spectra, shape: tuple[int, int]) -> F64:
    """How much views resemble each other, pair by pair.

    Parameters
    ----------
    first, second : (pair, y, x // 2 + 1), from :func:`spectra`
    shape : (y, x) of the views

    Returns
    -------
    (pair,) float64, at most 1: the largest correlation coefficient over all shifts up to a quarter of the field
    """
    reach = [max(1, int(SEARCH * n)) for n in shape]
    out = np.empty(len(first))
    for k in range(len(first)):
        correlation = np.fft.irfft2(first[k].conj() * second[k], s=shape)
        near = np.roll(correlation, reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
        out[k] = near.max() * shape[0] * shape[1]
    return out


def likely_orders(tilt: F64) -> dict[str, NDArray[np.int64]]:
    """Orders of the views by angle, were the file in the order of a usual acquisition and the angles not.

    Parameters
    ----------
    tilt : (tilt,) radians, any order

    Returns
    -------
    name -> (tilt,) indices into the file, by ascending (or descending) angle
    """
    n = len(tilt)
    middle = int(np.argmin(np.abs(np.sort(tilt))))
    orders = {"as they stand in the file": np.arange(n)}
    for group in (1, 2, 3):
        for sign in (1, -1):
            acquired = _dose_symmetric(n, middle, group, sign)
            side = "positive" if sign > 0 else "negative"
            orders[f"taken as acquired outward from the middle, {group} at a time, {side} first"] = np.argsort(acquired)
    for first in (n - middle, middle + 1):
        # from the middle to one end, then from the middle to the other
        orders[f"taken as acquired in two branches, {first} and {n - first}"] = np.concatenate(
            [np.arange(n - 1, first - 1, -1), np.arange(first)]
        )
    return orders


def _dose_symmetric(n: int, middle: int, group: int, sign: int) -> NDArray[np.int64]:
    """Rank by angle of each view in the order of acquisition."""
    sides = {1: list(range(middle + 1, n)), -1: list(range(middle - 1, -1, -1))}
    acquired, side = [middle], sign
    while sides[1] or sides[-1]:
        acquired += sides[side][:group]
        sides[side] = sides[side][group:]
        side = -side
    return np.array(acquired)


def _signal(small: F64, model: SignalModel) -> F64:
    """As :func:`gigascope.tomography.signal.linearised`, of block means."""
    signal = small - model.dark
    if model.signal == "transmission":
        signal = -np.log(np.maximum(signal, model.floor) / model.i0)
    return -signal if model.invert else signal


def _order_or_contrast(signal: F64, good: NDArray[np.int64], tilt: F64, extent: str) -> list[str]:
    shape = (signal.shape[1], signal.shape[2])
    by_angle = good[np.argsort(tilt[good], kind="stable")]
    found = spectra(signal)
    given = resemblance(found[by_angle[:-1]], found[by_angle[1:]], shape)
    best, name = _Margin(ERRORS, 0.0, 0.0), ""
    for other, order in likely_orders(tilt).items():
        chain = order[np.isin(order, good)]
        values = resemblance(found[chain[:-1]], found[chain[1:]], shape)
        margin = _margin(_pairs(by_angle, given), _pairs(chain, values))
        if margin.errors > best.errors:
            best, name = margin, other
    if name:
        return [
            f"The tilt angles seem to be in another order than the views: neighbours by angle resemble each other less "
            f"({best.given:.2f}) than neighbours do when the views are {name} ({best.other:.2f}). Are the angles "
            f"sorted while the views stand as they were acquired, or the other way round? Check ingest.tilt_deg or the "
            f"file of angles."
        ]
    # turned by 180 degrees a view has the same spectrum, and nothing else in common with the next
    chance = resemblance(found[by_angle[:-1]], spectra(signal[by_angle[1:], ::-1, ::-1]), shape)
    # an isolated object was told from its surroundings already, and a round one resembles its turned copy
    if extent == "object" or (given.mean() - chance.mean()) > ERRORS * _error(given, chance):
        return []
    return [
        f"Nothing to align by was seen: neighbouring views resemble each other no more ({given.mean():.2f}) than views "
        f"turned by 180 degrees do ({chance.mean():.2f}). Shifts will follow the noise. Look at the pictures of the "
        f"views; set ingest.signal, or prealign.low_pass and high_pass, if there is something to be seen."
    ]


def _pairs(chain: NDArray[np.int64], values: F64) -> dict[frozenset[int], float]:
    return {frozenset(pair): float(v) for *pair, v in zip(chain[:-1].tolist(), chain[1:].tolist(), values)}


@dataclass(frozen=True)
class _Margin:
    """Mean resemblance of the pairs that only one of two orders has, and by how many standard errors they differ."""

    errors: float
    given: float
    other: float


def _margin(given: dict[frozenset[int], float], other: dict[frozenset[int], float]) -> _Margin:
    """How much more the neighbours that only `other` has resemble each other than those that only `given` has.

    The scatter is that from one pair to the next: the slow change with the tilt is none.
    """
    ours = np.array([v for pair, v in given.items() if pair not in other])
    theirs = np.array([v for pair, v in other.items() if pair not in given])
    if not len(ours) or not len(theirs) or theirs.mean() - ours.mean() < LEAST:
        return _Margin(0.0, 0.0, 0.0)
    steps = np.diff(list(other.values()))
    scatter = 1.4826 * float(np.median(np.abs(steps))) / math.sqrt(2.0) + 1e-9
    error = scatter * math.sqrt(1 / len(ours) + 1 / len(theirs))
    return _Margin(float(theirs.mean() - ours.mean()) / error, float(ours.mean()), float(theirs.mean()))


def _error(a: F64, b: F64) -> float:
    """Standard error of the difference of two means."""
    return float(np.sqrt(a.var() / len(a) + b.var() / len(b))) + 1e-9


def _cut_objects(signal: F64, good: NDArray[np.int64], tilt_axis: float) -> list[str]:
    """Views in which an isolated object reaches the edge of the field across the tilt axis."""
    if abs(math.sin(tilt_axis)) > math.sqrt(0.5):
        signal = signal.swapaxes(1, 2)
    edge = max(1, signal.shape[2] // 16)
    cut = []
    for i in good.tolist():
        view = gaussian_filter(signal[i], BLUR * max(signal.shape[1:]) / SIZE, mode="nearest")
        border = np.concatenate([view[:edge], view[-edge:]]).ravel(), view[:, :edge].ravel(), view[:, -edge:].ravel()
        above = np.abs(view - np.median(np.concatenate(border)))
        sides = max(above[:, :edge].mean(axis=1).max(), above[:, -edge:].mean(axis=1).max())
        if sides > CUT * np.percentile(above, 97):
            cut.append(i)
    # single views of a noisy series come above by chance: 3 of 61 at SNR 0.2
    if len(cut) < max(2, CUT_VIEWS * len(good)):
        return []
    listed = ", ".join(map(str, cut[:LISTED])) + (" ..." if len(cut) > LISTED else "")
    return [
        f"In {len(cut)} of {len(good)} views the object reaches the edge of the field across the tilt axis (views "
        f"{listed}): what lies outside is missing there, and with it the mass that an isolated object keeps. Leave "
        f"these views out (ingest.exclude), or set ingest.extent: crop."
    ]
