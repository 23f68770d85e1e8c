"""Contexts and first probabilities of the residual coder. Normative: encoder and decoder must agree on every entry.

What a residual will be is known before it is coded, roughly: its spread follows from the noise model at the predicted
grey value, and from how large its neighbours turned out. Both are measured in quantiser steps on a scale of quarter
octaves, a *class*: class 16 is one step, 20 two steps. Everything here comes from exactly rounded operations
(:mod:`.exact`), so that it is the same on every machine.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.compression.correction.residual_coder import (
    FLAGS,
    N_ACTIVITIES,
    N_CLASSES,
    N_MODELS,
    N_RATIOS,
    N_SLOTS,
    N_UNARY,
    PROBABILITY_BITS,
    UNARY,
    ZERO,
)
from gigascope.compression.gmix import exact

F64 = NDArray[np.float64]

ONE_STEP = 16
# of the neighbours' magnitudes in their sum
ACTIVITY_WEIGHT = 12
# Standard deviation of a normal distribution over its mean magnitude.
SD_PER_MEAN = 1.2533141373155003

# A prediction is off by more than noise now and then: two in a hundred residuals from three times the spread.
OUTLIERS, OUTLIER_SPREAD = 0.02, 3.0
# Spread over that of the noise model for each ratio of the neighbours to it.
RATIO_SPREADS = (0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.6)


def classes_of(sd: F64) -> NDArray[np.uint8]:
    """Class of standard deviations in steps."""
    edges = _quarter_octaves(1 - ONE_STEP, N_CLASSES - 1)
    return np.searchsorted(edges, sd, side="right").astype(np.uint8)


def rice_shift(scale_class: int) -> int:
    """Low bits of a magnitude that are coded apart; a bucket of the others is about half a standard deviation."""
    return max(0, (scale_class - ONE_STEP) // 4 - 1)


def activity_shift(scale_class: int) -> int:
    """Binary digits of the neighbours' sum that do not matter at a class."""
    return max(0, scale_class // 4 - 7)


@functools.cache
def shifts() -> NDArray[np.int64]:
    """:func:`rice_shift` and :func:`activity_shift` of each class, (80, 2)."""
    return np.array([[rice_shift(k), activity_shift(k)] for k in range(N_CLASSES)])


@functools.cache
def contexts() -> NDArray[np.int16]:
    """Context ``8 class' + ratio`` of a class and the neighbours' sum shifted by :func:`activity_shift`, (80, 2048).

    `ratio` says how much more or less than expected the neighbours are; where that is far off, the class follows them.
    """
    table = np.empty((N_CLASSES, N_ACTIVITIES), np.int16)
    activity = np.arange(N_ACTIVITIES)
    # below one step most neighbours are zero, and their sum says more than an estimate of spread from it
    sparse = np.searchsorted([1, 2, 3, 5, 7, 11, 17], activity, side="right")
    for k in range(N_CLASSES):
        sd = activity.astype(np.float64) * float(1 << activity_shift(k)) * (SD_PER_MEAN / ACTIVITY_WEIGHT)
        found = classes_of(sd).astype(np.int64)
        excess = found - k
        # quarter octaves of the neighbours over the noise: up to -4 | -3 -2 | -1 | 0 | 1 | 2 | 3 4 | 5 and more
        ratio = np.searchsorted([-3, -1, 0, 1, 2, 3, 5], excess, side="right")
        followed = np.where(excess >= 5, found - 2, np.where(excess <= -5, found + 2, k))
        if k < ONE_STEP:
            dense = (excess >= 5) & (activity >= ACTIVITY_WEIGHT)
            ratio, followed = np.where(dense, N_RATIOS - 1, sparse), np.where(dense, found - 2, k)
        table[k] = N_RATIOS * np.clip(followed, 0, N_CLASSES - 1) + ratio
    return table


def fresh_model() -> NDArray[np.int32]:
    """Probabilities before anything was seen, (N_MODELS, 3)."""
    model = np.zeros((N_MODELS, 3), np.int32)
    model[:, :2] = _priors()[:, None]
    return model


@functools.cache
def _priors() -> NDArray[np.int32]:
    """Probability that each decision is 1, of a residual that is normal but for outliers; (N_MODELS,) of 2^22."""
    table = np.full((N_CLASSES, N_RATIOS, N_SLOTS), 0.5)
    middle = math.sqrt(math.sqrt(math.sqrt(2.0)))
    spreads = _quarter_octaves(-ONE_STEP, N_CLASSES)[:, None] * (middle * np.array(RATIO_SPREADS))
    for k, spread in enumerate(spreads):
        bucket = 1 << rice_shift(k)
        apart = bucket == 1
        above = np.stack([_above(bucket * t + (0.5 if apart else 0.0), spread) for t in range(N_UNARY + 1)])
        if apart:
            table[k, :, ZERO] = 2 * above[0]
        table[k, :, UNARY : UNARY + N_UNARY] = (above[1:] / above[:-1]).T
    one = 1 << PROBABILITY_BITS
    found = np.full(N_MODELS, one // 2)
    found[:FLAGS] = np.clip(np.rint(table.reshape(-1) * one), one >> 12, one - (one >> 12))
    return found.astype(np.int32)


def _above(edge: float, spread: F64) -> F64:
    """Probability that a residual is larger than `edge`."""
    outlying = _upper_tail(edge / (OUTLIER_SPREAD * spread))
    return (1 - OUTLIERS) * _upper_tail(edge / spread) + OUTLIERS * outlying


def _upper_tail(x: F64) -> F64:
    """Normal probability above x >= 0. Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.2.17."""
    x = np.minimum(x, 9.0)
    t = 1.0 / (1.0 + 0.2316419 * x)
    series = np.full_like(t, 1.330274429)
    for coefficient in (-1.821255978, 1.781477937, -0.356563782, 0.319381530):
        series = series * t + coefficient
    density = exact.exp(torch.from_numpy(-0.5 * x * x)).numpy() * 0.3989422804014327
    return density * (series * t)


def _quarter_octaves(first: int, count: int) -> F64:
    """2^(k / 4) for `count` integers k from `first`; square roots are exactly rounded."""
    roots = [1.0, math.sqrt(math.sqrt(2.0)), math.sqrt(2.0), math.sqrt(math.sqrt(8.0))]
    return np.array([math.ldexp(roots[k % 4], k // 4) for k in range(first, first + count)])
