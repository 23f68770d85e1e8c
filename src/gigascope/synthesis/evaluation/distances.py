"""How far two sets of images are apart, with intervals, and how far a set is from itself: the floor of each measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.metrics.bootstrap import draws, interval
from gigascope.metrics.kernel_distance import KernelDistance, Standard, two_sample_auc
from gigascope.metrics.patches import (
    Whitening,
    counted_distance,
    projection_counts,
    sliced_wasserstein,
    whitening,
)
from gigascope.metrics.spectrum import spectrum_distance
from gigascope.metrics.wasserstein import REGIONS, counted_wasserstein
from gigascope.synthesis.evaluation.tiles import BINS, DEPTH_UM, LOWEST, N_DEPTHS, PER_UNIT, SetMeasures

F64 = NDArray[np.float64]
# Voxels of a region and a depth from which on their distribution says something.
LEAST_VOXELS = 500
# Draws that are worked on together.
TOGETHER = 50


@dataclass(frozen=True)
class Distance:
    """One measure between two sets.

    Attributes
    ----------
    measure : its name
    value : the distance
    low, high : 95 % interval over draws of tiles; NaN where none was made
    """

    measure: str
    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, eq=False)
class Reference:
    """What projections and features are measured in: that of the real images, or of the simulated ones without any."""

    whitening: Whitening
    standard: Standard

    @staticmethod
    def of(measures: SetMeasures, random: np.random.Generator) -> Reference:
        """From the measures of a set."""
        patches = measures.patches.reshape(-1, measures.patches.shape[-1])
        return Reference(whitening(patches, random), Standard(measures.features))


@dataclass(frozen=True, eq=False)
class Part:
    """Some tiles of a set, as they are compared: all of them, or one half."""

    counts: NDArray[np.int32]
    power: F64
    features: F64
    projections: NDArray[np.float32]

    @staticmethod
    def of(measures: SetMeasures, reference: Reference, half: int | None = None) -> Part:
        """All tiles, or those of a half."""
        use = np.ones(len(measures.tiles), bool) if half is None else measures.halves == half
        patches = measures.patches[use]
        flat = reference.whitening(patches.reshape(-1, patches.shape[-1]))
        return Part(
            measures.counts[use],
            measures.power[use],
            reference.standard(measures.features[use]),
            flat.reshape(*patches.shape[:2], flat.shape[-1]),
        )

    @property
    def n(self) -> int:
        """Tiles."""
        return len(self.counts)


def distances(
    a: Part, b: Part, shape: tuple[int, int, int], n_draws: int, random: np.random.Generator
) -> list[Distance]:
    """All measures between two sets, or halves of one.

    Parameters
    ----------
    shape : of the tiles
    n_draws : of the bootstrap
    random : for the draws
    """
    if not a.n or not b.n:
        return []
    drawn = [draws(p.n, n_draws, random) for p in (a, b)]
    found = [_intensities(a, b, drawn, None)]
    found += [_intensities(a, b, drawn, region) for region in REGIONS]
    means = [p.power.mean(axis=0) for p in (a, b)]
    many = [np.tensordot(w / p.n, p.power, axes=1) for w, p in zip(drawn, (a, b))]
    value = float(spectrum_distance(means[0], means[1], shape))
    found.append(_with_interval("spectrum", value, spectrum_distance(many[0], many[1], shape)))
    found.append(_patches(a, b, drawn))
    kernel = KernelDistance(a.features, b.features)
    found.append(Distance("kernel", kernel.value, *interval(kernel.drawn(*drawn), centre=kernel.value)))
    found.append(Distance("classifier", two_sample_auc(a.features, b.features, random)))
    return found


def _intensities(a: Part, b: Part, drawn: Sequence[F64], region: int | None) -> Distance:
    counts = [p.counts.sum(axis=1) if region is None else p.counts[:, region - 1] for p in (a, b)]
    sums = [c.sum(axis=0, dtype=np.float64) for c in counts]
    many = [w @ c.astype(np.float64) for w, c in zip(drawn, counts)]
    name = "w1" if region is None else f"w1_{NAMES[region]}"
    if min(float(s.sum()) for s in sums) < LEAST_VOXELS:
        return Distance(name, math.nan)
    value = float(counted_wasserstein(sums[0], sums[1], 1 / PER_UNIT))
    return _with_interval(name, value, counted_wasserstein(many[0], many[1], 1 / PER_UNIT))


def _with_interval(name: str, value: float, drawn: F64) -> Distance:
    """A distance that cannot be negative, and nor can its interval."""
    low, high = interval(drawn, centre=value)
    return Distance(name, value, low if math.isnan(low) else max(0.0, low), high)


NAMES = {1: "outer", 2: "inner", 3: "nuclei"}


def _patches(a: Part, b: Part, drawn: Sequence[F64]) -> Distance:
    flat = [p.projections.reshape(-1, p.projections.shape[-1]) for p in (a, b)]
    n = min(len(f) for f in flat)
    # evenly, so that every tile has its share
    value = sliced_wasserstein(*(f[np.linspace(0, len(f) - 1, n).round().astype(np.intp)] for f in flat))
    counts = [np.stack([projection_counts(t) for t in p.projections]).astype(np.float32) for p in (a, b)]
    values = [np.zeros(0)]
    for k in range(0, len(drawn[0]), TOGETHER):
        many = [np.tensordot(w[k : k + TOGETHER].astype(np.float32), c, axes=1) for w, c in zip(drawn, counts)]
        values.append(counted_distance(many[0].astype(np.float64), many[1].astype(np.float64)))
    return _with_interval("patches", value, np.concatenate(values))


@dataclass(frozen=True)
class DepthDistance:
    """Intensities of a region at a depth.

    Attributes
    ----------
    region : OUTER, INNER or FOREGROUND
    depth_um : middle of the depths, spheroid above
    w1 : distance
    score : 1 - w1 / distance of the first set from black; 1 is identical
    """

    region: int
    depth_um: float
    w1: float
    score: float


def by_depth(a: NDArray[np.int64], b: NDArray[np.int64]) -> list[DepthDistance]:
    """Distances by depth below the surface, from counts (depths, regions, BINS); where both sets have voxels.

    Notes
    -----
    Black is the darker percentile of the first set. Beyond the surface is one depth only.
    """
    values = LOWEST + (np.arange(BINS) + 0.5) / PER_UNIT
    found = []
    for region in REGIONS:
        for k in range(N_DEPTHS):
            x, y = (c[k, region - 1].astype(np.float64) for c in (a, b))
            if min(x.sum(), y.sum()) < LEAST_VOXELS:
                continue
            w1 = float(counted_wasserstein(x, y, 1 / PER_UNIT))
            black = float(np.abs(values + 1.0) @ x / x.sum())
            score = 1.0 - w1 / black if black > 0 else math.nan
            found.append(DepthDistance(region, (k + 0.5) * DEPTH_UM, w1, score))
    return found
