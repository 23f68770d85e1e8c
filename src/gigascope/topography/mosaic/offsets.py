"""Heights of neighbouring views brought together: one offset, or an offset and a tilt, for every view.

What two views say of the same point of the mosaic differs by noise and by the error of their surfaces of focus. The
second is the same over a view, or changes slowly over it; least squares on the differences in all overlaps finds it,
and the calibrated surface is the prior that ties the whole down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from gigascope.topography.calibration.field import normalised
from gigascope.topography.geometry.poses import to_view
from gigascope.topography.mosaic.layout import BLOCK
from gigascope.topography.mosaic.tile import read_ahead
from gigascope.topography.mosaic.views import N_OFFSETS, Crops, Views

F64 = NDArray[np.float64]
Refine = Literal["none", "offset", "tilt"]
# Pixels of the mosaic from sample to sample, and from the border of a view to the first.
STEP, EDGE = 8, 8.0
# Fewer samples that two views share in a block say nothing of their median.
LEAST_SAMPLES = 16
# Differences beyond this many steps between slices from the median of their block count little: steps and occlusions.
SCALE_DZ = 0.25
# Standard deviation of a difference in steps between slices, and samples that share the window of a focus measure.
NOISE_DZ, PER_WINDOW = 0.15, 4.0
# How far a calibrated surface of focus may be off, in steps between slices: its own acceptance bound.
PRIOR_DZ = 0.1
# Columns of a pair: 1, x, y of the first view, and of the second with the other sign.
N_COLUMNS = 2 * N_OFFSETS


@dataclass
class Pair:
    """Sums over the samples that two views share; the difference of their heights is modelled as -A u.

    Attributes
    ----------
    normal : (6, 6) sum of w A A^T
    right : (6,) sum of w A d
    squares, weight : sums of w d^2 and of w
    """

    normal: F64
    right: F64
    squares: float
    weight: float

    def add(self, other: Pair) -> None:
        """Take in more samples."""
        self.normal += other.normal
        self.right += other.right
        self.squares += other.squares
        self.weight += other.weight


Pairs = dict[tuple[int, int], Pair]


@dataclass(frozen=True)
class Offsets:
    """What was found.

    Attributes
    ----------
    terms : (V, 3) float64, to be added to the heights of a view, in their unit: o0 + o1 x + o2 y
    before, after : weighted rms difference of heights in overlaps
    n_pairs : overlaps that told
    """

    terms: F64
    before: float
    after: float
    n_pairs: int


def tile_pairs(views: Views, start: tuple[int, int], shape: tuple[int, int]) -> Pairs:
    """Sums of all pairs of views over a tile of the mosaic, at every eighth pixel."""
    blocks = [
        ((start[0] + row, start[1] + col), (min(BLOCK, shape[0] - row), min(BLOCK, shape[1] - col)))
        for row in range(0, shape[0], BLOCK)
        for col in range(0, shape[1], BLOCK)
    ]
    found: Pairs = {}
    for (first, size), crops in zip(blocks, read_ahead(views, blocks)):
        for key, pair in _block_pairs(views, crops, first, size).items():
            if key in found:
                found[key].add(pair)
            else:
                found[key] = pair
    return found


def to_arrays(pairs: Pairs) -> dict[str, NDArray]:
    """Pairs as arrays that an item of a stage can save."""
    keys = sorted(pairs)
    return {
        "pair": np.array(keys, np.int64).reshape(-1, 2),
        "normal": np.array([pairs[k].normal for k in keys]).reshape(-1, N_COLUMNS, N_COLUMNS),
        "right": np.array([pairs[k].right for k in keys]).reshape(-1, N_COLUMNS),
        "sums": np.array([(pairs[k].squares, pairs[k].weight) for k in keys]).reshape(-1, 2),
    }


def from_arrays(arrays: Iterable[Mapping[str, NDArray]]) -> Pairs:
    """Pairs of several tiles, added up in the order given."""
    found: Pairs = {}
    for tile in arrays:
        columns = zip(tile["pair"].tolist(), tile["normal"], tile["right"], tile["sums"].tolist())
        for (a, b), normal, right, (squares, weight) in columns:
            pair = Pair(np.array(normal), np.array(right), squares, weight)
            if (a, b) in found:
                found[a, b].add(pair)
            else:
                found[a, b] = pair
    return found


def solve(pairs: Pairs, n_views: int, dz: float, refine: Refine) -> Offsets:
    """The offsets that make overlapping views agree best.

    Parameters
    ----------
    pairs : of all tiles
    n_views : V
    dz : step between slices, in the unit of the heights
    refine : offset, or tilt, which is both

    Notes
    -----
    Least squares with the prior that every term is 0 up to a tenth of a step. An overlap counts as many samples as
    there are windows of the focus measure in it. Views without overlaps keep 0.
    """
    m = N_OFFSETS if refine == "tilt" else 1
    used = np.r_[0:m, N_OFFSETS : N_OFFSETS + m]
    precision = 1.0 / (PER_WINDOW * (NOISE_DZ * dz) ** 2)
    rows, cols, values = [], [], []
    right = np.zeros(n_views * m)
    for (a, b), pair in sorted(pairs.items()):
        index = np.concatenate((a * m + np.arange(m), b * m + np.arange(m)))
        rows.append(np.repeat(index, 2 * m))
        cols.append(np.tile(index, 2 * m))
        values.append((precision * pair.normal[np.ix_(used, used)]).ravel())
        np.add.at(right, index, precision * pair.right[used])
    n = n_views * m
    rows.append(np.arange(n))
    cols.append(np.arange(n))
    values.append(np.full(n, (PRIOR_DZ * dz) ** -2.0))
    place = (np.concatenate(rows), np.concatenate(cols))
    matrix = scipy.sparse.coo_matrix((np.concatenate(values), place), shape=(n, n)).tocsc()
    terms = np.zeros((n_views, N_OFFSETS))
    terms[:, :m] = -np.asarray(scipy.sparse.linalg.spsolve(matrix, right)).reshape(n_views, m)
    before, after, weight = 0.0, 0.0, 0.0
    for (a, b), pair in pairs.items():
        u = np.concatenate((terms[a], terms[b]))
        before += pair.squares
        after += pair.squares + 2 * pair.right @ u + u @ pair.normal @ u
        weight += pair.weight
    scale = max(weight, np.finfo(np.float64).tiny)
    return Offsets(terms, float(np.sqrt(before / scale)), float(np.sqrt(max(after, 0.0) / scale)), len(pairs))


def _block_pairs(views: Views, crops: Crops, start: tuple[int, int], shape: tuple[int, int]) -> Pairs:
    rows, cols = (np.arange(-(-first // STEP) * STEP, first + n, STEP) for first, n in zip(start, shape))
    points = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float64)
    if not len(points) or len(crops.view) < 2:
        return {}
    size = views.calibration.instrument.size
    heights, trust, columns = [], [], []
    for k, view in enumerate(crops.view):
        rc = to_view(views.calibration.poses, int(view), points)
        inner = ((rc >= EDGE) & (rc <= np.array(size) - 1 - EDGE)).all(axis=1)
        local = rc - crops.corners[k].numpy()
        heights.append(np.where(inner, _bilinear(crops.heights[k].numpy(), local), np.nan))
        trust.append(_bilinear(crops.confidence[k].numpy(), local))
        x, y = normalised(rc, size)
        columns.append(np.stack((np.ones_like(x), x, y), axis=1))
    found: Pairs = {}
    for a in range(len(heights)):
        for b in range(a + 1, len(heights)):
            pair = _pair(heights[a] - heights[b], np.minimum(trust[a], trust[b]), columns[a], columns[b], views.dz)
            if pair is not None:
                found[int(crops.view[a]), int(crops.view[b])] = pair
    return found


def _pair(difference: F64, trust: F64, first: F64, second: F64, dz: float) -> Pair | None:
    both = np.asarray(np.isfinite(difference) & (trust > 0))
    if np.count_nonzero(both) < LEAST_SAMPLES:
        return None
    d = difference[both]
    away = (d - np.median(d)) / (SCALE_DZ * dz)
    w = trust[both] / (1.0 + away * away)
    a = np.concatenate((first[both], -second[both]), axis=1)
    weighted = a * w[:, None]
    return Pair(weighted.T @ a, weighted.T @ d, float(w @ (d * d)), float(w.sum()))


def _bilinear(values: NDArray, at: F64) -> F64:
    """(n,) samples of (h, w) at points (n, 2); NaN outside."""
    h, w = values.shape
    on = np.asarray(((at >= 0) & (at <= np.array([h - 1, w - 1]))).all(axis=1))
    place = np.where(on[:, None], at, 0.0)
    i, j = np.minimum(place.astype(np.int64), [h - 2, w - 2]).T
    f, g = place[:, 0] - i, place[:, 1] - j
    upper = values[i, j] * (1 - g) + values[i, j + 1] * g
    lower = values[i + 1, j] * (1 - g) + values[i + 1, j + 1] * g
    return np.where(on, upper * (1 - f) + lower * f, np.nan)
