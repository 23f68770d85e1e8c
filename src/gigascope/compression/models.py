"""Probabilities of the integers of Gaussians: one small set of numbers per file, from which all tables are made.

The numbers are integers and the tables follow from them by exact arithmetic, so every reader has the same tables.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.compression import adaptive_law, entropy, exact, frames
from gigascope.compression.quantise import Symbols, cell_bits, cell_codes
from gigascope.compression.quantiser import Quantiser

I64 = NDArray[np.int64]

# Half octaves of the integers of the amplitudes; see adaptive_law.amplitude_class.
N_CLASSES = 44
# Most Gaussians of a node of the cell tree whose division has a table of its own.
MOST_SPLIT = 64
# Binary digits of an integer that are coded with equal probabilities in one step.
CHUNK = 12

# Logarithm to base 2 of a density, in quarters, at knots; 0 is "never seen".
KNOTS = 32
QUARTERS = 4
FLOOR = 10
_FINE = 32

# Levels of the cell tree share the spread of their divisions in fours.
LEVELS_TOGETHER = 4
_SPREADS = 2.0 ** (np.arange(16) / 2 - 4)


@dataclass(frozen=True)
class Models:
    """What a file says about the distribution of its integers.

    Attributes
    ----------
    splits : (ceil(levels / 4),) index of the spread of the divisions of the cell tree, from the root
    classes : (N_CLASSES,) quarters of log2 of the frequency of each class of the amplitude, 0 for none
    negative : share of negative amplitudes, in 1/256
    scales : (3, KNOTS) quarters of log2 of the density of the largest log scale, and of the steps to the next ones
    """

    splits: I64
    classes: I64
    negative: int
    scales: I64

    @property
    def columns(self) -> list[I64]:
        """As they stand in a file."""
        return [self.splits, self.classes, np.array([self.negative]), *(np.diff(row, prepend=0) for row in self.scales)]

    @staticmethod
    def lengths(shape: tuple[int, int, int]) -> list[int]:
        """Of :attr:`columns`, for bricks of `shape`."""
        return [-(-sum(cell_bits(shape)) // LEVELS_TOGETHER), N_CLASSES, 1, KNOTS, KNOTS, KNOTS]

    @staticmethod
    def of_columns(columns: list[I64]) -> Models:
        """From :attr:`columns`."""
        splits, classes, negative, *scales = columns
        return Models(splits, classes, int(negative[0]), np.cumsum(scales, axis=1))

    @staticmethod
    def fitted(bricks: Iterable[Symbols], shape: tuple[int, int, int], quantiser: Quantiser) -> Models:
        """The numbers that describe these integers best."""
        bricks = [symbols for symbols in bricks if len(symbols)]
        steps = Steps.of(quantiser)
        classes = [steps.classes(symbols.amplitude) for symbols in bricks]
        counts = np.bincount(np.concatenate(classes or [np.zeros(0, np.int64)]), minlength=N_CLASSES)
        signs = np.concatenate([symbols.amplitude < 0 for symbols in bricks] or [np.zeros(0, bool)])
        rows = [steps.scales(symbols.scales, c) for symbols, c in zip(bricks, classes)]
        together = np.concatenate(rows or [np.zeros((0, 3, 2))])
        return Models(
            _fit_splits(bricks, shape),
            _quarters(counts.astype(np.float64)),
            int(np.clip(round(256 * signs.mean()) if len(signs) else 128, 1, 255)),
            np.stack([_fit_density(together[:, k], steps.domain(k)) for k in range(3)]),
        )


@dataclass(frozen=True)
class Steps:
    """The steps of a law as far as tables need them: they depend on the class of the amplitude alone.

    Attributes
    ----------
    step : (N_CLASSES,) float64, of the log scales
    base : log scale of the integer 0
    low, high : (N_CLASSES,) int64, smallest and largest integer of a log scale
    shift : what is added to the size of an amplitude before its class is taken, 1 where 0 is an amplitude
    quantiser : the law
    """

    step: NDArray[np.float64]
    base: float
    low: I64
    high: I64
    shift: int
    quantiser: Quantiser

    @staticmethod
    @functools.cache
    def of(quantiser: Quantiser) -> Steps:
        """Of a law."""
        low, high = quantiser.log_range
        if quantiser.adaptive:
            step = math.sqrt(2.0) * quantiser.deltas().numpy()[:N_CLASSES]
            reach = np.rint((high - low) / 2 / step).astype(np.int64)
            return Steps(step, (low + high) / 2, -reach, reach, 0, quantiser)
        last = (1 << quantiser.scale_bits) - 1
        step = np.full(N_CLASSES, (high - low) / last)
        return Steps(step, low, np.zeros(N_CLASSES, np.int64), np.full(N_CLASSES, last), 1, quantiser)

    def classes(self, amplitude: NDArray) -> I64:
        """Class of amplitudes."""
        size = torch.from_numpy(np.abs(np.asarray(amplitude, np.int64)) + self.shift)
        return adaptive_law.amplitude_class(size).numpy()

    def domain(self, which: int) -> tuple[float, float]:
        """Range of the largest log scale (0), of a difference to the next one (1, 2)."""
        low, high = self.quantiser.log_range
        return (low, high) if which == 0 else (0.0, high - low)

    def scales(self, scales: NDArray, classes: I64) -> NDArray[np.float64]:
        """(N, 3, 2) ends of the intervals of the largest log scale and the two differences."""
        step = self.step[classes][:, None]
        values = np.column_stack((scales[:, 0], scales[:, 0] - scales[:, 1], scales[:, 1] - scales[:, 2]))
        centre = values * step + np.array([self.base, 0.0, 0.0])
        return np.stack((centre - step / 2, centre + step / 2), axis=2)


class ModelTables:
    """The tables that follow from :class:`Models`, for one law and size of brick.

    Attributes
    ----------
    cells : tables of divisions; that of level v and n Gaussians is number ``v (MOST_SPLIT - 1) + n - 2``
    amplitude : tables of the class and of the sign
    scales : tables of the three integers of the scales; that of class c and number k is ``3 c + k``
    """

    def __init__(self, models: Models, shape: tuple[int, int, int], quantiser: Quantiser) -> None:
        self.steps = Steps.of(quantiser)
        self.bits = cell_bits(shape)
        self.cells = _split_tables(models.splits, sum(self.bits))
        sign = np.array([0, 256 - models.negative, 256], np.int64) * (entropy.TOTAL // 256)
        self.amplitude = entropy.Tables([entropy.cumulative(_weights(models.classes)), sign])
        self.scales = entropy.Tables([self._scale_table(models, c, k) for c in range(N_CLASSES) for k in range(3)])

    def _scale_table(self, models: Models, c: int, k: int) -> I64:
        steps, domain = self.steps, self.steps.domain(k)
        first, last = (int(steps.low[c]), int(steps.high[c])) if k == 0 else (0, int(steps.high[c] - steps.low[c]))
        step = float(steps.step[c])
        ends = (np.arange(first, last + 2) - 0.5) * step + (steps.base if k == 0 else 0.0)
        mass = _density_sums(models.scales[k])
        place = np.clip((ends - domain[0]) / (domain[1] - domain[0]), 0.0, 1.0) * (len(mass) - 1)
        cell = np.minimum(np.floor(place).astype(np.int64), len(mass) - 2)
        part = np.rint((place - cell) * 1024).astype(np.int64)
        return entropy.cumulative(np.diff(mass[cell] + ((mass[cell + 1] - mass[cell]) * part >> 10)))


def ring_table(n_rings: int) -> I64:
    """Table of the rings of a grid of directions: in proportion to their cells."""
    rings = torch.arange(max(1, n_rings))
    cells = frames.ring_cells(torch.full_like(rings, n_rings), rings)
    return entropy.cumulative(cells.numpy())


def _weights(quarters: I64) -> I64:
    """2^(q / 4) as integers, 0 where q is 0."""
    powers = torch.from_numpy(quarters.astype(np.float64)) * (math.log(2.0) / QUARTERS)
    sizes = torch.round(exact.exp(powers) * 4).to(torch.int64).numpy()
    return np.where(quarters == 0, 0, sizes)


def _quarters(weights: NDArray[np.float64]) -> I64:
    """Quarters of log2 of weights relative to the largest, which becomes 4 FLOOR; 0 below."""
    if weights.max(initial=0.0) <= 0:
        return np.zeros(len(weights), np.int64)
    with np.errstate(divide="ignore"):
        found = np.rint(QUARTERS * (np.log2(weights / weights.max()) + FLOOR))
    return np.maximum(found, 0).astype(np.int64)


def _density_sums(quarters: I64) -> I64:
    """Sums of a density at fine places, linear between the knots in the logarithm; 0 first."""
    place = torch.arange(_FINE * (KNOTS - 1), dtype=torch.float64) / _FINE
    knot = place.to(torch.int64)
    values = torch.from_numpy(quarters.astype(np.float64))
    level = values[knot] + (values[knot + 1] - values[knot]) * (place - knot)
    weights = torch.round(exact.exp(level * (math.log(2.0) / QUARTERS)) * 16).to(torch.int64).numpy()
    return np.concatenate(([0], np.cumsum(weights)))


def _fit_density(ends: NDArray[np.float64], domain: tuple[float, float]) -> I64:
    """Knots of a density from intervals (N, 2)."""
    width = (domain[1] - domain[0]) / (KNOTS - 1)
    knots = domain[0] + width * np.arange(KNOTS)
    centre = np.clip(ends.mean(1), *domain)
    # Each interval is spread over the knots by a tent as wide as it is itself, or as the knots are apart.
    spread = np.maximum(np.diff(ends, axis=1)[:, 0], width)
    tents = np.maximum(0, 1 - np.abs(knots - centre[:, None]) / spread[:, None])
    sums = (tents / np.maximum(tents.sum(1, keepdims=True), 1e-9)).sum(0)
    # the outermost knots see one side only
    sums[[0, -1]] *= 2
    return _quarters(sums + 0.1)


def _split_tables(splits: I64, n_levels: int) -> entropy.Tables:
    tables = []
    for level in range(n_levels):
        spread = float(_SPREADS[splits[level // LEVELS_TOGETHER]])
        tables += _spread_tables(spread)
    return entropy.Tables(tables)


@functools.cache
def _spread_tables(spread: float) -> list[I64]:
    """Tables of how many of n = 2 .. MOST_SPLIT Gaussians lie in the first half of a node: beta-binomial."""
    tables = []
    for n in range(2, MOST_SPLIT + 1):
        weight, weights = 1.0, [1.0]
        for k in range(n):
            weight *= (n - k) * (k + spread) / ((k + 1) * (n - k - 1 + spread))
            weights.append(weight)
        largest = max(weights)
        tables.append(entropy.cumulative([round(w / largest * (1 << 30)) for w in weights]))
    return tables


def _fit_splits(bricks: list[Symbols], shape: tuple[int, int, int]) -> I64:
    bits = sum(cell_bits(shape))
    costs = np.zeros((-(-bits // LEVELS_TOGETHER), len(_SPREADS)))
    tables = [_spread_tables(float(spread)) for spread in _SPREADS]
    for symbols in bricks:
        codes = cell_codes(symbols.cell, shape)
        for level in range(bits):
            nodes, counts = np.unique(codes >> np.uint64(bits - level), return_counts=True)
            halves = codes >> np.uint64(bits - level - 1)
            left = np.bincount(np.searchsorted(nodes, halves >> np.uint64(1)), weights=(halves & np.uint64(1)) == 0)
            pairs, times = np.unique(
                np.column_stack((counts, left.astype(np.int64)))[(counts > 1) & (counts <= MOST_SPLIT)],
                axis=0,
                return_counts=True,
            )
            for (n, k), weight in zip(pairs, times):
                share = [np.log2(table[n - 2][k + 1] - table[n - 2][k]) for table in tables]
                costs[level // LEVELS_TOGETHER] -= weight * np.array(share)
    return costs.argmin(axis=1).astype(np.int64)
