"""Find the numbers of :class:`Models` that describe given integers best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.gmix import law_rows, row_code
from gigascope.compression.gmix.cell_code import MOST_SPLIT
from gigascope.compression.gmix.direction_bins import N_ALIGNED, N_KINDS
from gigascope.compression.gmix.law_rows import LawRows
from gigascope.compression.gmix.models import (
    FLOOR,
    KNOTS,
    LEVELS_TOGETHER,
    N_CLASSES,
    N_OCTAVES,
    QUARTERS,
    SPREADS,
    TURN_OCTAVES,
    USUAL_BITS,
    WIDTH_BITS,
    Models,
    row_model,
    spread_tables,
)
from gigascope.compression.gmix.quantise import Symbols, cell_bits, cell_codes
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.gmix.row_code import N_INPUTS, POINT, WEIGHT_BITS

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

# Of the sum of squares of an input, what is added to keep weights small that little speaks for.
RIDGE = 1e-3
# Range of the log scales around their predictions, standard deviations.
REACH = 4.0
# Weight, in observations, of what keeps the densities of directions smooth, and even.
TURN_STIFFNESS = 2.0
TURN_RIDGE = 0.05
ROUNDS = 40


def fit(bricks: Sequence[Symbols], shape: tuple[int, int, int], quantiser: Quantiser, law: LawRows) -> Models:
    """The numbers for bricks of `shape`, whose rows are in the order of the file."""
    bricks = [symbols for symbols in bricks if len(symbols)]
    amplitude = np.concatenate([symbols.amplitude for symbols in bricks] or [np.zeros(0, np.int32)]).astype(np.int64)
    classes = np.array([law_rows.amplitude_class(size) for size in np.abs(amplitude) + law.shift], np.int64)
    scales = np.concatenate([symbols.scales for symbols in bricks] or [np.zeros((0, 3), np.int32)])
    logs = law.base + scales * law.step[classes][:, None]
    values = np.column_stack((logs, classes / 4))
    usual = values.mean(0) if len(values) else np.zeros(4)
    start = Models(
        splits=_splits(bricks, shape),
        classes=_quarters(np.bincount(classes, minlength=N_CLASSES).astype(np.float64)),
        negative=_negative(amplitude < 0, classes // 2),
        usual=np.rint(usual * (1 << USUAL_BITS)).astype(np.int64),
        weights=np.zeros((3, N_INPUTS), np.int64),
        width=np.ones(3, np.int64),
        density=np.full((3, KNOTS), QUARTERS * FLOOR),
        turns=np.zeros((N_KINDS, N_ALIGNED), np.int64),
    )
    around, kinds, mass, seen = _described(bricks, quantiser, law, start)
    weights, width, density = _predictions(logs, classes, around)
    return Models(
        start.splits, start.classes, start.negative, start.usual, weights, width, density, _turns(kinds, mass, seen)
    )


def _described(
    bricks: Sequence[Symbols], quantiser: Quantiser, law: LawRows, models: Models
) -> tuple[I64, I64, I64, I64]:
    model = row_model(models, quantiser, law)
    shapes = ((4,), (), (N_ALIGNED,), ())
    found = [tuple(np.zeros((0, *shape), np.int64) for shape in shapes)]
    for symbols in bricks:
        filled = tuple(np.zeros((len(symbols), *shape), np.int64) for shape in shapes)
        cell, _, scales, rotation, amplitude = (np.asarray(column, np.int64) for column in symbols.columns)
        row_code.describe(model, law, cell, scales, rotation, amplitude, *filled)
        found.append(filled)
    around, kinds, mass, seen = (np.concatenate(columns) for columns in zip(*found))
    return around, kinds, mass, seen


def _predictions(logs: F64, classes: I64, around: I64) -> tuple[I64, I64, I64]:
    """Weights, widths and densities of the three log scales."""
    unit = 1 << POINT
    fixed = np.rint(logs * unit).astype(np.int64)
    inputs = np.zeros((len(logs), N_INPUTS), np.int64)
    inputs[:, 0], inputs[:, 1], inputs[:, 4:] = unit, classes << POINT - 2, around
    weights = np.zeros((3, N_INPUTS), np.int64)
    width, density = np.ones(3, np.int64), np.full((3, KNOTS), QUARTERS * FLOOR)
    for k in range(3):
        inputs[:, 2] = fixed[:, 0] if k > 0 else 0
        inputs[:, 3] = fixed[:, 1] if k > 1 else 0
        used = np.array([0, 1, *((2,) if k > 0 else ()), *((3,) if k > 1 else ()), 4, 5, 6, 7])
        if len(logs) > N_INPUTS:
            x = inputs[:, used] / unit
            square = x.T @ x
            solution = np.linalg.solve(square + RIDGE * np.diag(square.diagonal() + 1), x.T @ logs[:, k])
            weights[k, used] = np.rint(np.clip(solution, -60, 60) * (1 << WEIGHT_BITS)).astype(np.int64)
        left = (fixed[:, k] - (inputs @ weights[k] >> WEIGHT_BITS)) / unit
        spread = float(np.sqrt(np.mean(left**2))) if len(left) else 1.0
        width[k] = np.clip(np.ceil(REACH * spread * (1 << WIDTH_BITS)), 2, 1 << 8)
        density[k] = _density(left, width[k] / (1 << WIDTH_BITS))
    return weights, width, density


def _density(left: F64, width: float) -> I64:
    """Knots of the density of differences within `width` of 0."""
    spacing = 2 * width / (KNOTS - 1)
    place = np.clip((left + width) / spacing, 0, KNOTS - 1)
    tents = np.maximum(0, 1 - np.abs(np.arange(KNOTS) - place[:, None]))
    sums = tents.sum(0)
    sums[[0, -1]] *= 2
    return _quarters(sums + 0.2)


def _turns(kinds: I64, mass: I64, seen: I64) -> I64:
    """Densities of directions by kind and alignment: the most likely ones whose logarithms are smooth."""
    turns = np.zeros((N_KINDS, N_ALIGNED), np.int64)
    bends = np.diff(np.eye(N_ALIGNED), n=2, axis=0)
    stiff = TURN_STIFFNESS * bends.T @ bends + TURN_RIDGE * np.eye(N_ALIGNED)
    for kind in range(N_KINDS):
        rows = kinds == kind
        if not rows.any():
            continue
        share = mass[rows] / mass[rows].sum(1, keepdims=True)
        observed = np.bincount(seen[rows], minlength=N_ALIGNED)
        found = np.zeros(N_ALIGNED)
        for _ in range(ROUNDS):
            expected = share * np.exp(found - found.max())
            expected /= expected.sum(1, keepdims=True)
            curvature = np.diag(expected.sum(0)) - expected.T @ expected + stiff
            step = np.linalg.solve(curvature, observed - expected.sum(0) - stiff @ found)
            found += np.clip(step, -1, 1)
        values = np.rint((found - found.max()) * (QUARTERS / np.log(2)))
        turns[kind] = np.maximum(values, -QUARTERS * TURN_OCTAVES).astype(np.int64)
    return turns


def _negative(negative: NDArray[np.bool_], octaves: I64) -> I64:
    """Shares in 1/64; octaves without Gaussians repeat the one before, which costs least."""
    counts = np.bincount(octaves, minlength=N_OCTAVES)
    signs = np.bincount(octaves, weights=negative, minlength=N_OCTAVES)
    overall = negative.mean() if len(negative) else 0.5
    shares = np.rint(64 * (signs + 2 * overall) / (counts + 2)).astype(np.int64)
    for octave in range(N_OCTAVES):
        if counts[octave] == 0:
            shares[octave] = shares[octave - 1] if octave > 0 else round(64 * overall)
    return shares


def _quarters(weights: F64) -> I64:
    """Quarters of log2 of weights relative to the largest, which becomes QUARTERS FLOOR; 0 for what is below 1."""
    if weights.max(initial=0.0) <= 0:
        return np.zeros(len(weights), np.int64)
    with np.errstate(divide="ignore"):
        found = np.rint(QUARTERS * (np.log2(weights / weights.max()) + FLOOR))
    return np.maximum(found, 0).astype(np.int64)


def _splits(bricks: Sequence[Symbols], shape: tuple[int, int, int]) -> I64:
    bits = sum(cell_bits(shape))
    costs = np.zeros((-(-bits // LEVELS_TOGETHER), len(SPREADS)))
    tables = [spread_tables(float(spread)) for spread in SPREADS]
    for symbols in bricks:
        codes = cell_codes(symbols.cell, shape)
        for level in range(bits):
            nodes, counts = np.unique(codes >> np.uint64(bits - level), return_counts=True)
            halves = codes >> np.uint64(bits - level - 1)
            first = (halves & np.uint64(1)) == 0
            left = np.bincount(np.searchsorted(nodes, halves >> np.uint64(1)), weights=first).astype(np.int64)
            used = (counts > 1) & (counts <= MOST_SPLIT)
            pairs, times = np.unique(np.column_stack((counts, left))[used], axis=0, return_counts=True)
            for (n, k), weight in zip(pairs, times):
                share = [np.log2(table[n - 2][k + 1] - table[n - 2][k]) for table in tables]
                costs[level // LEVELS_TOGETHER] -= weight * np.array(share)
    return costs.argmin(axis=1).astype(np.int64)
