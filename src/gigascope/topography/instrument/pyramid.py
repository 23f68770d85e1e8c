"""Albedo blurred in advance: a stack of levels whose variance doubles, sampled the more coarsely the smoother they are.

The level's grid is finer than its blur by a factor of 1.8 or more; the variance that bilinear reading adds on average,
a sixth of the spacing squared, is left out of the blur. Between two levels reading is linear in the variance, which is
exact for the second moment of the mixture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from gigascope.kernels.parallel import parallel_kernel

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# Samples per pixel of the first level, and levels after which this halves.
FIRST_RATE = 2.0
LEVELS_PER_RATE = 2


@dataclass(frozen=True)
class Pyramid:
    """Blurred copies of an albedo window.

    Attributes
    ----------
    values : all levels one after the other, each (colours, rows, cols), float32
    start : (levels,) first value of each level
    shape : (levels, 2) rows and cols of each level; sample (i, j) lies at (i, j) / rate pixels from the window's origin
    rate : (levels,) float32, samples per pixel
    variance : blur variance of the first level, px^2; level n has 2^n of it
    """

    values: F32
    start: I64
    shape: I64
    rate: F32
    variance: float


def n_levels(sigma_px: float, largest_px: float) -> int:
    """Levels needed for blurs from `sigma_px` to `largest_px`; at least 2."""
    return max(2, math.ceil(2.0 * math.log2(max(largest_px / sigma_px, 1.0))) + 1)


def blur_pyramid(albedo: F32, sigma_px: float, levels: int) -> Pyramid:
    """Blur an albedo window with standard deviations sigma, sqrt(2) sigma, 2 sigma, ...

    Parameters
    ----------
    albedo : (colours, rows, cols) float32 on the pixel lattice; borders are repeated outward
    sigma_px : standard deviation of the first level, at least 0.5
    levels : see :func:`n_levels`
    """
    variance, rate = sigma_px**2, FIRST_RATE
    # the lattice is read as points, so the first level needs its whole variance but what reading adds
    level = np.stack([_refined(plane, variance - _added(rate)) for plane in albedo])
    found, rates = [level], [rate]
    for index in range(1, levels):
        more = variance
        halve = index % LEVELS_PER_RATE == 0
        after = rate / 2.0 if halve else rate
        more += _added(rate) - _added(after)
        level = np.stack([_blurred(plane, math.sqrt(more) * rate) for plane in level])
        if halve:
            level = np.ascontiguousarray(level[:, ::2, ::2])
        variance, rate = 2.0 * variance, after
        found.append(level)
        rates.append(rate)
    return Pyramid(
        values=np.concatenate([level.ravel() for level in found]),
        start=np.cumsum([0] + [level.size for level in found[:-1]]).astype(np.int64),
        shape=np.array([level.shape[1:] for level in found], np.int64),
        rate=np.array(rates, np.float32),
        variance=sigma_px**2,
    )


def blur_lattice(albedo: F32, sigma_px: float) -> F32:
    """Gaussian blur (colours, rows, cols) of an albedo window on its own lattice; borders are repeated outward."""
    return np.stack([_blurred(plane, sigma_px) for plane in albedo])


def _added(rate: float) -> float:
    """Mean variance of bilinear reading, px^2: the mean of t (1 - t) over a cell."""
    return 1.0 / (6.0 * rate * rate)


def _taps(sigma: float, shift: float = 0.0) -> F32:
    """Gaussian weights at the integers -n .. n, of a centre at `shift`; they sum to 1."""
    reach = math.ceil(3.6 * sigma + 0.5)
    offset = np.arange(-reach, reach + 1) - shift
    weight = np.exp(-0.5 * (offset / sigma) ** 2)
    return (weight / weight.sum()).astype(np.float32)


def _refined(plane: F32, variance: float) -> F32:
    """Blur of lattice points sampled at every half pixel, (2 rows - 1, 2 cols - 1)."""
    sigma = math.sqrt(variance)
    # half a pixel on is the same Gaussian seen from its new centre
    taps, between = _taps(sigma), _taps(sigma, 0.5)
    out = np.empty((2 * plane.shape[0] - 1, 2 * plane.shape[1] - 1), np.float32)
    for odd_row, odd_col in np.ndindex(2, 2):
        rows, cols = between if odd_row else taps, between if odd_col else taps
        phase = _filtered(plane, rows, cols)
        out[odd_row::2, odd_col::2] = phase[: plane.shape[0] - odd_row, : plane.shape[1] - odd_col]
    return out


def _blurred(plane: F32, sigma: float) -> F32:
    taps = _taps(sigma)
    return _filtered(plane, taps, taps)


def _filtered(plane: F32, row_taps: F32, col_taps: F32) -> F32:
    """Separable correlation along both axes, borders repeated."""
    across, out = np.empty_like(plane), np.empty_like(plane)
    work = float(plane.size * (len(row_taps) + len(col_taps)))
    _separable(np.ascontiguousarray(plane), across, out, row_taps, col_taps, work=work)
    return out


@parallel_kernel
def _separable(plane, across, out, row_taps, col_taps):  # type: ignore[no-untyped-def]
    n_rows, n_cols = plane.shape
    row_reach, col_reach = len(row_taps) // 2, len(col_taps) // 2
    for i in numba.prange(n_rows):
        across[i] = 0.0
        for t in range(len(row_taps)):
            weight = row_taps[t]
            source = plane[min(max(i + t - row_reach, 0), n_rows - 1)]
            for j in range(n_cols):
                across[i, j] += weight * source[j]
    for i in numba.prange(n_rows):
        line = np.empty(n_cols + 2 * col_reach, np.float32)
        line[:col_reach] = across[i, 0]
        line[col_reach : col_reach + n_cols] = across[i]
        line[col_reach + n_cols :] = across[i, n_cols - 1]
        out[i] = 0.0
        for t in range(len(col_taps)):
            weight = col_taps[t]
            for j in range(n_cols):
                out[i, j] += weight * line[j + t]
