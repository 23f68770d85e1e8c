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


def interval(values: ArrayLike, level: float = 0.95, centre: float | None = None) -> tuple[float, float]:
    """Percentile interval of a statistic's values over draws; NaN without finite ones.

    Parameters
    ----------
    centre : the statistic of all tiles, to which the median of the draws is moved. Distances of draws are larger than
        that of the sets, since tiles that are drawn twice scatter more, and would else lie beside it
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return math.nan, math.nan
    low, middle, high = (float(q) for q in np.quantile(finite, [(1 - level) / 2, 0.5, (1 + level) / 2]))
    moved = 0.0 if centre is None else centre - middle
    return low + moved, high + moved
