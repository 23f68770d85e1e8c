"""Intervals of statistics of many tiles, by drawing tiles again with replacement.

A draw is kept as how often each tile was drawn: statistics that are sums over tiles are then matrix products. Efron and
Tibshirani, *An Introduction to the Bootstrap* (Chapman and Hall 1993), 13.3.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]


def draws(n_tiles: int, n_draws: int, random: np.random.Generator) -> F64:
    """(n_draws, n_tiles) float64: how often each tile is in each draw of n_tiles."""
    return random.multinomial(n_tiles, np.full(n_tiles, 1.0 / n_tiles), size=n_draws).astype(np.float64)


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a statistic's values over draws; NaN without finite ones."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
