"""Settings of one member of an ensemble: every distribution among the keys is replaced by a value drawn from it.

Draws are keyed by the path of the key, so that a key that is added elsewhere changes no other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from gigascope.synthesis.seeds import generator


def resolve(settings: Any, seed: int, path: str = "") -> Any:
    """`settings` with constants only.

    Parameters
    ----------
    settings : JSON values; a mapping with a key `dist` (uniform, normal, lognormal, choice) is a distribution
    seed : of the member and the section, see :func:`gigascope.synthesis.seeds.seed_of`
    path : dotted path of `settings` itself

    Raises
    ------
    ValueError : a distribution that is not known
    """
    if isinstance(settings, Mapping):
        if "dist" in settings:
            return draw(settings, generator(seed, path))
        return {key: resolve(value, seed, f"{path}.{key}") for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [resolve(value, seed, f"{path}.{number}") for number, value in enumerate(settings)]
    return settings


def draw(distribution: Mapping[str, Any], rng: np.random.Generator) -> Any:
    """One value; a whole number where the distribution is marked `whole`."""
    kind, u, whole = distribution["dist"], float(rng.random()), bool(distribution.get("whole"))
    if kind == "uniform":
        low, high = float(distribution["low"]), float(distribution["high"])
        return math.floor(low + u * (high - low + 1.0)) if whole else low + u * (high - low)
    if kind == "choice":
        values, weights = distribution["values"], distribution.get("weights")
        share = np.cumsum(np.ones(len(values)) if weights is None else np.asarray(weights, np.float64))
        # the first that reaches the draw: a value of no weight is never taken
        return values[int(np.searchsorted(share, u * share[-1], side="right"))]
    if kind == "normal":
        value = _cut(distribution, u, float(distribution["mean"]), float(distribution["std"]), logarithm=False)
        return round(value) if whole else value
    if kind == "lognormal":
        variance = math.log1p(float(distribution["cv"]) ** 2)
        mean = math.log(float(distribution["mean"])) - variance / 2.0
        value = _cut(distribution, u, mean, math.sqrt(variance), logarithm=True)
        return round(value) if whole else value
    raise ValueError(f"no distribution {kind!r}")


def _cut(distribution: Mapping[str, Any], u: float, mean: float, std: float, *, logarithm: bool) -> float:
    """Quantile of a Gaussian that is cut off, or its exponential."""
    low, high = distribution.get("low"), distribution.get("high")
    ends = []
    for end, otherwise in ((low, -math.inf), (high, math.inf)):
        if end is None:
            ends.append(otherwise)
        elif logarithm:
            ends.append(math.log(end) if end > 0 else -math.inf)
        else:
            ends.append(float(end))
    below, above = (float(ndtr((end - mean) / std)) for end in ends)
    value = mean + std * float(ndtri(below + u * (above - below)))
    value = math.exp(value) if logarithm else value
    # the quantile may miss a bound by a rounding, and so far out in a tail that all is 0 or 1 it is infinite
    if not math.isfinite(value):
        value = float(low) if low is not None and value > 0 else math.exp(mean) if logarithm else mean
    value = value if low is None else max(value, float(low))
    return value if high is None else min(value, float(high))
