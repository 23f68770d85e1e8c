"""Errors of many samples in one pass and little memory: how they are distributed, and how well a score separates.

Counts are kept in bins, sums exactly; samples come in any number of calls.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """How errors are distributed.

    Attributes
    ----------
    n : samples
    bias : mean
    rmse : root of the mean square
    p95 : 95th percentile of the absolute error
    """

    n: int
    bias: float
    rmse: float
    p95: float


class ErrorDistribution:
    """Errors by a second quantity, such as the height at which they were made.

    Parameters
    ----------
    span : lowest and highest value of the second quantity; what lies beyond counts in the outermost bins
    limit : errors of a larger magnitude count in the outermost bins, where percentiles cannot be told; means are exact
    groups : bins of the second quantity
    bins : of the errors between -limit and limit

    Raises
    ------
    ShapeError : an empty span or a limit that is not positive
    """

    def __init__(self, span: tuple[float, float], limit: float, *, groups: int = 64, bins: int = 4000) -> None:
        if not span[1] > span[0] or not limit > 0:
            raise ShapeError(f"errors: expected a span and a limit above 0, got {span} and {limit}")
        self.span, self.limit = span, limit
        self.counts = np.zeros((groups, bins), np.int64)
        self._sums = np.zeros((groups, 2))

    @property
    def n(self) -> int:
        """Samples so far."""
        return int(self.counts.sum())

    @property
    def centres(self) -> F64:
        """(bins,) middle of each bin of the errors."""
        bins = self.counts.shape[1]
        return np.asarray((np.arange(bins) + 0.5) * (2 * self.limit / bins) - self.limit)

    @property
    def values(self) -> F64:
        """(groups,) middle of each bin of the second quantity."""
        groups = len(self.counts)
        return self.span[0] + (np.arange(groups) + 0.5) * (self.span[1] - self.span[0]) / groups

    def add(self, errors: ArrayLike, values: ArrayLike) -> None:
        """Count samples.

        Parameters
        ----------
        errors, values : of one shape, finite
        """
        error, value = (np.asarray(a, np.float64).ravel() for a in (errors, values))
        groups, bins = self.counts.shape
        group = np.clip((value - self.span[0]) / (self.span[1] - self.span[0]) * groups, 0, groups - 1).astype(np.intp)
        place = np.clip((error + self.limit) / (2 * self.limit) * bins, 0, bins - 1).astype(np.intp)
        self.counts += np.bincount(group * bins + place, minlength=groups * bins).reshape(groups, bins)
        for power in (1, 2):
            self._sums[:, power - 1] += np.bincount(group, weights=error**power, minlength=groups)

    def median(self) -> float:
        """Median of all errors, linear within its bin; NaN without samples."""
        return self._quantile(self.counts.sum(axis=0), 0.5)

    def spread(self, offset: float = 0.0, groups: slice = slice(None)) -> Spread:
        """Distribution of the errors less an offset, of all samples or of those in some bins of the second quantity."""
        counts, sums = self.counts[groups].sum(axis=0), self._sums[groups].sum(axis=0)
        n = int(counts.sum())
        if n == 0:
            return Spread(0, math.nan, math.nan, math.nan)
        mean, square = sums / n
        variance = max(0.0, square - 2 * offset * mean + offset**2)
        return Spread(n, mean - offset, math.sqrt(variance), self._p95(counts, offset))

    def shares(self, parts: int) -> list[slice]:
        """Bins of the second quantity cut into parts of about equal numbers of samples; empty parts are left out."""
        total = self.counts.sum(axis=1).cumsum()
        if not len(total) or total[-1] == 0:
            return []
        cuts = np.searchsorted(total, np.arange(1, parts) * total[-1] / parts, side="left") + 1
        edges = [0, *(int(c) for c in cuts), len(total)]
        return [
            slice(a, b) for a, b in itertools.pairwise(edges) if b > a and total[b - 1] > (total[a - 1] if a else 0)
        ]

    def histogram(self, offset: float, reach: float, bins: int) -> tuple[F64, F64]:
        """Middles and shares of the errors less an offset, from about -reach to reach, in about that many bins.

        Bins are whole numbers of those that were counted in: others would hold now one more and now one less of them.
        """
        width = 2 * self.limit / self.counts.shape[1]
        together = max(1, round(2 * reach / bins / width))
        half = max(1, round(reach / (together * width)))
        middle = round((offset + self.limit) / width - 0.5 * together)
        first = middle - half * together
        n = 2 * half + 1
        counts = self.counts.sum(axis=0)
        padded = np.zeros(n * together, np.int64)
        low, high = max(first, 0), min(first + n * together, len(counts))
        padded[low - first : high - first] = counts[low:high]
        shares = padded.reshape(n, together).sum(axis=1) / max(1, self.n)
        middles = (first + together * (np.arange(n) + 0.5)) * width - self.limit - offset
        return np.asarray(middles), np.asarray(shares)

    def _p95(self, counts: NDArray[np.int64], offset: float) -> float:
        distance = np.abs(self.centres - offset)
        order = np.argsort(distance, kind="stable")
        total = counts[order].cumsum()
        return float(distance[order][np.searchsorted(total, 0.95 * total[-1])])

    def _quantile(self, counts: NDArray[np.int64], q: float) -> float:
        total = counts.cumsum()
        if total[-1] == 0:
            return math.nan
        place = int(np.searchsorted(total, q * total[-1]))
        before = total[place - 1] if place else 0
        width = 2 * self.limit / len(counts)
        return -self.limit + (place + (q * total[-1] - before) / max(1, counts[place])) * width


class Separation:
    """How well a score from 0 to 1 tells two classes apart.

    Parameters
    ----------
    bins : scores closer than one of these count as equal
    """

    def __init__(self, bins: int = 4096) -> None:
        self.counts = np.zeros((2, bins), np.int64)

    def add(self, scores: ArrayLike, positive: ArrayLike) -> None:
        """Count samples.

        Parameters
        ----------
        scores : 0 to 1; NaN is not counted
        positive : bool, of the same shape
        """
        score, truth = np.asarray(scores, np.float64).ravel(), np.asarray(positive, np.bool_).ravel()
        known = np.isfinite(score)
        bins = self.counts.shape[1]
        place = np.clip(score[known] * bins, 0, bins - 1).astype(np.intp)
        for k in (0, 1):
            self.counts[k] += np.bincount(place[truth[known] == bool(k)], minlength=bins)

    @property
    def auc(self) -> float:
        """Chance that a positive has the larger score than a negative, equal ones by half; NaN without both.

        Area under the receiver operating characteristic: Hanley and McNeil, Radiology 143, 29 (1982).
        """
        negative, positive = self.counts.astype(np.float64)
        if negative.sum() == 0 or positive.sum() == 0:
            return math.nan
        below = negative.cumsum() - 0.5 * negative
        return float((positive * below).sum() / (negative.sum() * positive.sum()))


class ScaledDifference:
    """Difference of a picture from what it shows once one factor is removed.

    Sums of products, so that the factor need not be known before the last pixel.
    """

    def __init__(self) -> None:
        self.n = 0
        self._sums = np.zeros(3)

    def add(self, picture: ArrayLike, shown: ArrayLike) -> None:
        """Count pixels; both of one shape, finite."""
        a, b = (np.asarray(v, np.float64).ravel() for v in (picture, shown))
        self.n += a.size
        self._sums += (a @ a, a @ b, b @ b)

    @property
    def factor(self) -> float:
        """Of the shown, least squares; NaN without pixels."""
        return float(self._sums[1] / self._sums[2]) if self._sums[2] > 0 else math.nan

    def psnr(self, peak: float) -> float:
        """10 log10(peak^2 / mean squared difference), dB; infinite where nothing differs, NaN without pixels."""
        if self.n == 0 or self._sums[2] <= 0:
            return math.nan
        square = (self._sums[0] - self._sums[1] ** 2 / self._sums[2]) / self.n
        # sums of products of pictures that are alike differ by rounding
        if square <= 1e-12 * self._sums[0] / self.n:
            return math.inf
        return 10 * math.log10(peak**2 / square)
