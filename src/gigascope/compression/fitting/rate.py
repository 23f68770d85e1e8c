"""Meeting a target: from fits of a few bricks at several lambdas to that of all, and how far to thin at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Exponents tried: bytes fall about as lambda to this power (bench crop, lambda 1.5 to 20).
SLOPE = -0.45
FIRST = 4.0
LARGEST = 1e5
# More Gaussians than the target needs are fitted, and the least of them thinned out at the end.
SURPLUS = 1.08
# Fewer bytes than the target by more than this factor: more Gaussians are let in when the seams are mended.
MISSING = 1.12
# Of a compact file, beside the payload: header and tables; and of each brick in the index (benchmarks/container.py).
FILE_BYTES = 760
BRICK_BYTES = 2.5
# Bins of the histogram of what each Gaussian saves: eighths of an octave, in units of the price.
BINS_PER_OCTAVE = 8
OCTAVES = 24
DECIBEL_SLOPE = -3.0


@dataclass(frozen=True)
class Sample:
    """What a few bricks came to at one lambda: bytes of the whole volume that they suggest, PSNR in the gate."""

    rate: float
    bytes: float
    psnr: float


def sampled_bricks(signal: Sequence[int], share: float = 0.05, least: int = 3) -> list[int]:
    """Bricks for the search of lambda: of those with signal, evenly by how much of it they hold.

    Parameters
    ----------
    signal : voxels of signal in each brick
    """
    filled = [b for b in np.argsort(signal, kind="stable").tolist() if signal[b] > 0]
    n = min(len(filled), max(least, math.ceil(share * len(filled))))
    # the middle of n equal shares: the emptiest and the fullest brick are typical of nothing
    return [filled[int((i + 0.5) * len(filled) / n)] for i in range(n)]


def next_rate(
    samples: Sequence[Sample], least: float, *, bytes: float | None = None, psnr: float | None = None
) -> float:
    """Lambda to try next, or to use: by the line through the two samples nearest to the target.

    Parameters
    ----------
    least : smallest one to try
    bytes, psnr : the target, one of the two
    """
    if not samples:
        return FIRST
    x = [math.log(s.rate) for s in samples]
    if bytes is not None:
        goal, y, slope = math.log(bytes), [math.log(max(s.bytes, 1.0)) for s in samples], SLOPE
    else:
        assert psnr is not None
        goal, y, slope = psnr, [s.psnr for s in samples], DECIBEL_SLOPE / math.log(4)
    near = sorted(range(len(x)), key=lambda i: abs(y[i] - goal))[:2]
    if len(near) == 2 and x[near[0]] != x[near[1]]:
        measured = (y[near[1]] - y[near[0]]) / (x[near[1]] - x[near[0]])
        # noise in two close samples must not turn the line around
        slope = min(max(measured, 3 * slope), slope / 3)
    return min(max(math.exp(x[near[0]] + (goal - y[near[0]]) / slope), least), LARGEST)


def near_enough(samples: Sequence[Sample], *, bytes: float | None = None, psnr: float | None = None) -> bool:
    """The last sample meets the target within what the rest of the fit makes up for."""
    if not samples:
        return False
    last = samples[-1]
    if bytes is not None:
        return abs(math.log(last.bytes / bytes)) < 0.04
    return psnr is not None and abs(last.psnr - psnr) < 0.1


def file_bytes(payload: float, n_bricks: int) -> float:
    """Size of a compact file from the bytes of its Gaussians."""
    return FILE_BYTES + BRICK_BYTES * n_bricks + payload


def histogram(costs: NDArray[np.float32], price: float) -> list[int]:
    """Counts of what each Gaussian saves, in eighths of an octave upwards from an eighth of the price."""
    found = np.maximum(np.asarray(costs, np.float64) / price, 1e-9)
    bins = np.clip(np.floor(BINS_PER_OCTAVE * (np.log2(found) + 3)), 0, BINS_PER_OCTAVE * OCTAVES - 1).astype(int)
    return np.bincount(bins, minlength=BINS_PER_OCTAVE * OCTAVES).tolist()


def growth_price(price: float, bytes_now: float, target: float) -> float | None:
    """What a further Gaussian must save where the fit so far has come out smaller than asked for; None: it has not."""
    missing = SURPLUS * target / bytes_now
    return price * missing ** (1 / SLOPE) if missing > MISSING else None


def thinning_price(counts: Sequence[int], n_kept: float, price: float) -> float:
    """The price at which `n_kept` of the Gaussians of a :func:`histogram` stay; never below `price`."""
    above = np.cumsum(np.asarray(counts, np.float64)[::-1])[::-1]
    if above[0] <= n_kept:
        return price
    # the first edge from which no more than n_kept are left, and how far into the bin below it
    k = int(np.argmax(above <= n_kept)) if (above <= n_kept).any() else len(above)
    inside = above[k - 1] - (above[k] if k < len(above) else 0)
    part = (above[k - 1] - n_kept) / inside if inside else 1.0
    return max(price, price * 2.0 ** ((k - 1 + part) / BINS_PER_OCTAVE - 3))
