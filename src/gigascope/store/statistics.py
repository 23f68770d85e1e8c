"""Minimum, maximum, mean and percentiles of an array that passes by in blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# Values kept for the percentiles of the display window: the 0.5 % tails then rest on some 5,000 values each.
SAMPLES = 1_000_000
# Darkest and brightest half percent: single hot pixels and beam stops do not set the window.
WINDOW_PERCENTILES = (0.5, 99.5)


def sample_step(n_total: int) -> int:
    """Distance along the last two axes between the samples kept of an array of `n_total` values."""
    return max(1, math.ceil(math.sqrt(n_total / SAMPLES)))


@dataclass
class Statistics:
    """Statistics of one block, or of several added up in a fixed order.

    Attributes
    ----------
    lowest, highest : extremes of the finite values; inf and -inf where there is none
    total : float64 sum of the finite values
    n_finite, n_not_finite : counts
    first_bad : index in the block of its first value that is not finite
    samples : finite values at regular places, for the percentiles
    """

    lowest: float = math.inf
    highest: float = -math.inf
    total: float = 0.0
    n_finite: int = 0
    n_not_finite: int = 0
    first_bad: tuple[int, ...] | None = None
    samples: list[NDArray] = field(default_factory=list)

    @classmethod
    def of(cls, block: NDArray, step: int) -> Self:
        """Statistics of a block that is not empty, every `step`-th sample kept along its last two axes."""
        lowest, highest = block.min(), block.max()
        sample = block[..., ::step, ::step] if block.ndim > 1 else block[::step]
        first_bad, n_bad = None, 0
        # A NaN anywhere is in both extremes, an infinity in one: no pass of its own for blocks in order.
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            finite = np.isfinite(block)
            first_bad = tuple(int(i) for i in np.unravel_index(int(finite.argmin()), block.shape))
            n_bad = block.size - int(np.count_nonzero(finite))
            sample = sample[np.isfinite(sample)]
            block = block[finite]
            if not block.size:
                return cls(n_not_finite=n_bad, first_bad=first_bad)
            lowest, highest = block.min(), block.max()
        # float64 sum: in float32 the mean of 2^30 values loses its fourth digit
        total = float(block.sum(dtype=np.float64))
        return cls(float(lowest), float(highest), total, block.size, n_bad, first_bad, [sample.flatten()])

    def add(self, other: Statistics) -> None:
        """Take in the statistics of a further block."""
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)
        self.total += other.total
        self.n_finite += other.n_finite
        self.n_not_finite += other.n_not_finite
        self.samples += other.samples

    def summary(self) -> dict[str, Any]:
        """`min`, `max`, `mean` of the finite values (None where there is none) and `not_finite`, as JSON values."""
        if not self.n_finite:
            return {"min": None, "max": None, "mean": None, "not_finite": self.n_not_finite}
        mean = self.total / self.n_finite
        return {"min": self.lowest, "max": self.highest, "mean": mean, "not_finite": self.n_not_finite}

    def window(self) -> tuple[float, float]:
        """Darkest and brightest value to show: robust percentiles, never of zero width."""
        samples = np.concatenate(self.samples) if self.samples else np.zeros(0)
        if not samples.size:
            return 0.0, 1.0
        low, high = (float(value) for value in np.percentile(samples.astype(np.float64), WINDOW_PERCENTILES))
        if low == high:
            low, high = self.lowest, self.highest
        return (low, high) if low < high else (low, low + 1.0)
