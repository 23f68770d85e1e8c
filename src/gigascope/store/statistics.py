"""Minimum, maximum, mean and percentiles of an array that passes by in blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Values kept for the percentiles of the display window: the 0.5 % tails then rest on some 5,000 values each.
SAMPLES = 1_000_000
# Darkest and brightest half percent: single hot pixels and beam stops do not set the window.
WINDOW_PERCENTILES = (0.5, 99.5)


class Statistics:
    """Running statistics; the order of the blocks matters only for the rounding of the mean.

    Attributes
    ----------
    lowest, highest : extremes of the finite values; inf and -inf while there is none
    n_not_finite : count of NaN and infinite values
    """

    def __init__(self, n_total: int) -> None:
        self.lowest = math.inf
        self.highest = -math.inf
        self.n_not_finite = 0
        self._sum = 0.0
        self._count = 0
        self._step = max(1, math.ceil(math.sqrt(n_total / SAMPLES)))
        self._samples: list[NDArray] = []

    def add(self, block: NDArray) -> tuple[int, ...] | None:
        """Take a block in; returns the index within it of its first value that is not finite, None if all are."""
        first = None
        lowest, highest = block.min(), block.max()
        # Extremes and their NaN tell of everything that is not finite, without a pass of its own.
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            bad = ~np.isfinite(block)
            first = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
            self.n_not_finite += int(np.count_nonzero(bad))
            block = np.where(bad, np.nan, block)
            if bad.all():
                return first
            lowest, highest = np.nanmin(block), np.nanmax(block)
            self._sum += float(np.nansum(block, dtype=np.float64))
            self._count += int(bad.size - np.count_nonzero(bad))
        else:
            # float64 sum: a float32 sum of 2^30 values loses the mean's fourth digit
            self._sum += float(block.sum(dtype=np.float64))
            self._count += block.size
        self.lowest = min(self.lowest, float(lowest))
        self.highest = max(self.highest, float(highest))
        sample = block[..., :: self._step, :: self._step] if block.ndim > 1 else block[:: self._step]
        self._samples.append(sample[np.isfinite(sample)].ravel())
        return first

    def summary(self) -> dict[str, Any]:
        """`min`, `max`, `mean` of the finite values (None where there is none) and `not_finite`, as JSON values."""
        if not self._count:
            return {"min": None, "max": None, "mean": None, "not_finite": self.n_not_finite}
        mean = self._sum / self._count
        return {"min": self.lowest, "max": self.highest, "mean": mean, "not_finite": self.n_not_finite}

    def window(self) -> tuple[float, float]:
        """Darkest and brightest value to show: robust percentiles, never of zero width."""
        samples = np.concatenate(self._samples) if self._samples else np.zeros(0)
        if not samples.size:
            return 0.0, 1.0
        low, high = (float(value) for value in np.percentile(samples.astype(np.float64), WINDOW_PERCENTILES))
        if low == high:
            low, high = self.lowest, self.highest
        return (low, high) if low < high else (low, low + 1.0)
