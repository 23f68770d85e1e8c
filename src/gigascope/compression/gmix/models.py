"""Probabilities of the integers of Gaussians: one small set of numbers per file, from which all tables are made.

The numbers are integers and the tables follow from them by exact arithmetic, so every reader has the same tables.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.compression.gmix import direction_bins, entropy, exact
from gigascope.compression.gmix.cell_code import MOST_SPLIT
from gigascope.compression.gmix.direction_bins import N_ALIGNED, N_KINDS
from gigascope.compression.gmix.law_rows import LawRows
from gigascope.compression.gmix.quantise import cell_bits
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.gmix.row_code import N_FINE, N_INPUTS, POINT, SUM_BITS, RowModel

I64 = NDArray[np.int64]

# Half octaves of the integers of the amplitudes; see adaptive_law.amplitude_class.
N_CLASSES = 44
N_OCTAVES = N_CLASSES // 2
# Levels of the cell tree share the spread of their divisions in fours.
LEVELS_TOGETHER = 4
SPREADS = 2.0 ** (np.arange(16) / 2 - 4)

# Weights are powers of two in quarters; 0 is "never seen", QUARTERS FLOOR the largest.
QUARTERS = 4
FLOOR = 10
# Knots of the distribution of a log scale around its prediction, over twice the width.
KNOTS = 17
# Range of the densities of directions, octaves.
TURN_OCTAVES = 20
# Binary digits behind the point of what is kept of the means, and of the widths.
USUAL_BITS = 6
WIDTH_BITS = 4


@dataclass(frozen=True)
class Models:
    """What a file says about the distribution of its integers.

    Attributes
    ----------
    splits : (ceil(levels / 4),) index of the spread of the divisions of the cell tree, from the root
    classes : (N_CLASSES,) quarters of log2 of the frequency of each class of the amplitude
    negative : (N_OCTAVES,) share of negative amplitudes in each octave, in 1/64
    usual : (4,) means of the log scales and of a quarter of the class, in 1/64
    weights : (3, N_INPUTS) of the predictions of the log scales, in 1/64
    width : (3,) half the range of the log scales around the predictions, in 1/16
    density : (3, KNOTS) quarters of log2 of their densities
    turns : (N_KINDS, N_ALIGNED) quarters of log2 of the densities of directions, relative to the largest, 0 or less
    """

    splits: I64
    classes: I64
    negative: I64
    usual: I64
    weights: I64
    width: I64
    density: I64
    turns: I64

    @property
    def columns(self) -> list[I64]:
        """As they stand in a file."""
        density = np.diff(self.density, axis=1, prepend=0).ravel()
        plain = (self.splits, self.classes, np.diff(self.negative, prepend=0), self.usual, self.weights.ravel())
        return [*plain, self.width, density, np.diff(self.turns, axis=1, prepend=0).ravel()]

    @staticmethod
    def lengths(shape: tuple[int, int, int]) -> list[int]:
        """Of :attr:`columns`, for bricks of `shape`."""
        n_splits = -(-sum(cell_bits(shape)) // LEVELS_TOGETHER)
        return [n_splits, N_CLASSES, N_OCTAVES, 4, 3 * N_INPUTS, 3, 3 * KNOTS, N_KINDS * N_ALIGNED]

    @staticmethod
    def of_columns(columns: Sequence[I64]) -> Models:
        """From :attr:`columns`."""
        splits, classes, negative, usual, weights, width, density, turns = columns
        return Models(
            splits,
            classes,
            np.cumsum(negative),
            usual,
            weights.reshape(3, N_INPUTS),
            width,
            np.cumsum(density.reshape(3, KNOTS), axis=1),
            np.cumsum(turns.reshape(N_KINDS, N_ALIGNED), axis=1),
        )

    def check(self) -> None:
        """Refuse numbers that no fit gives, from a file that is not what it seems.

        Raises
        ------
        entropy.Damaged : such numbers
        """
        limits = (
            (self.splits, 0, len(SPREADS) - 1),
            *((values, 0, QUARTERS * FLOOR) for values in (self.classes, self.density)),
            (self.negative, 0, 64),
            *((values, -(1 << 12), 1 << 12) for values in (self.usual, self.weights)),
            (self.turns, -QUARTERS * TURN_OCTAVES, 0),
            (self.width, 1, 1 << 8),
        )
        if any(values.min() < low or values.max() > high for values, low, high in limits):
            raise entropy.Damaged("a probability is out of range")


def row_model(models: Models, quantiser: Quantiser, law: LawRows) -> RowModel:
    """The tables for the rows of a brick."""
    low, high = scale_bounds(quantiser, law)
    negative = np.clip(models.negative * (entropy.TOTAL // 64), 512, entropy.TOTAL - 512)
    return RowModel(
        classes=entropy.cumulative(powers(models.classes)),
        negative=negative,
        low=low,
        high=high,
        step=np.rint(law.step[:N_CLASSES] * (1 << POINT)).astype(np.int64),
        base=round(law.base * (1 << POINT)),
        usual=models.usual << POINT - USUAL_BITS,
        weights=models.weights,
        width=models.width << POINT - WIDTH_BITS,
        density=np.stack([_density_sums(row) for row in models.density]),
        turns=np.maximum(1, powers(models.turns + QUARTERS * TURN_OCTAVES)),
        centres=direction_bins.centres(),
        counted=direction_bins.counted(),
    )


def scale_bounds(quantiser: Quantiser, law: LawRows) -> tuple[I64, I64]:
    """Smallest and largest integer of a log scale, by class."""
    if not quantiser.adaptive:
        return np.zeros(N_CLASSES, np.int64), np.full(N_CLASSES, (1 << quantiser.scale_bits) - 1)
    low, high = quantiser.log_range
    reach = np.rint((high - low) / 2 / law.step[:N_CLASSES]).astype(np.int64)
    return -reach, reach


def split_tables(models: Models, n_levels: int) -> entropy.Tables:
    """Tables of divisions; that of level v and n Gaussians is number ``v (MOST_SPLIT - 1) + n - 2``."""
    tables: list[I64] = []
    for level in range(n_levels):
        tables += spread_tables(float(SPREADS[models.splits[level // LEVELS_TOGETHER]]))
    return entropy.Tables(tables)


@functools.cache
def spread_tables(spread: float) -> list[I64]:
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


def powers(quarters: I64) -> I64:
    """2^(q / 4) as integers times 4, 0 where q is 0."""
    exponents = torch.from_numpy(quarters.astype(np.float64)) * (math.log(2.0) / QUARTERS)
    return np.where(quarters == 0, 0, torch.round(exact.exp(exponents) * 4).to(torch.int64).numpy())


def _density_sums(quarters: I64) -> I64:
    """(N_FINE + 1,) sums of a density that is linear between the knots in the logarithm; 0 first, 2^SUM_BITS last."""
    fine = N_FINE // (KNOTS - 1)
    place = torch.arange(N_FINE, dtype=torch.float64) / fine + 0.5 / fine
    knot = place.to(torch.int64)
    values = torch.from_numpy(quarters.astype(np.float64))
    level = values[knot] + (values[knot + 1] - values[knot]) * (place - knot)
    weights = torch.round(exact.exp(level * (math.log(2.0) / QUARTERS)) * 64).to(torch.int64).numpy()
    sums = np.concatenate(([0], np.cumsum(weights)))
    return (sums << SUM_BITS) // sums[-1]
