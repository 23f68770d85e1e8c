"""Which points of the mosaic a step of training works on: a function of seed, step and slot, with no state.

A point is uniform over all that at least two views see, over all cameras alike. In the order `disk` an epoch walks over
the mosaic along a Hilbert curve, so that what a step reads was partly read a few steps before and is still in the
system's cache; each slot of the batch walks along a stretch of its own, in random order of stretches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.topography.geometry.candidates import CELL, views_of_points
from gigascope.topography.geometry.poses import F64
from gigascope.topography.streaming.scene import Scene

Order = Literal["uniform", "disk"]
I64 = NDArray[np.int64]

# Draws that are tried at once, and before it is said that there is nothing to draw from.
_TRIED, _MOST = 16, 4096
# Steps along one stretch of the curve.
STRETCH = 32
# What random numbers are for: second word of the key.
_POINT, _EPOCH, _SUBSET = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Position:
    """A point of the mosaic and all views that see it.

    Attributes
    ----------
    point : (2,) float64 (row, col)
    view : (k,) int64, ascending
    rc : (k, 2) float64, pixel of each view that sees the point
    """

    point: F64
    view: I64
    rc: F64


class Sampler:
    """Points of every step.

    Parameters
    ----------
    scene : views and mosaic
    seed : of the dataset
    positions : points of a step, over all processes together
    order : uniform, independent draws; disk, see the head of this module
    patch : side of a crop, pixels; draws of an epoch in the order `disk` lie about half of it apart
    min_views : that must see a point
    edge_margin : pixels from the border of a view that do not count
    roi : first and last + 1 row, and column, of the mosaic that points are drawn from; none: all of it

    Raises
    ------
    UserError : no two views overlap there
    """

    def __init__(
        self,
        scene: Scene,
        seed: int,
        positions: int = 2,
        *,
        order: Order = "uniform",
        patch: int = 576,
        min_views: int = 2,
        edge_margin: float = 16.0,
        roi: tuple[tuple[int, int], tuple[int, int]] | None = None,
    ) -> None:
        if positions < 1 or min_views < 1 or order not in ("uniform", "disk"):
            raise ShapeError(f"sampler: expected positions and views above 0, got {positions}, {min_views}, {order!r}")
        self.scene, self.seed, self.positions, self.order = scene, seed % 2**64, positions, order
        self.min_views, self.edge_margin = min_views, edge_margin
        shape = scene.candidates.shape
        self._roi = np.array(roi if roi is not None else ((0, shape[0]), (0, shape[1])), dtype=np.int64)
        self._roi = np.stack((self._roi[:, 0].clip(0), np.minimum(self._roi[:, 1], shape)), axis=1)
        self._cells = self._eligible()
        if not len(self._cells):
            raise self._nothing()
        if order == "disk":
            self._cells = self._cells[np.argsort(hilbert(self._cells), kind="stable")]
        # an epoch that visits every cell would be longer than a training of a large mosaic
        spaced = len(self._cells) / max(1.0, (patch / (2 * CELL)) ** 2)
        self.stretch = max(1, min(STRETCH, round(spaced / positions)))
        self.steps_per_epoch = self.stretch * max(1, round(spaced / (positions * self.stretch)))
        self._epoch = lru_cache(maxsize=2)(self._plan_epoch)

    def at(self, step: int, slot: int) -> Position:
        """The position of one slot, 0 to `positions` - 1, of a step.

        Raises
        ------
        UserError : no point found that enough views see
        """
        first = self._cell_on_curve(step, slot) if self.order == "disk" else None
        for block in range(_MOST // _TRIED):
            u = self._random(_POINT, step, slot, block).random((_TRIED, 3))
            cells = self._cells[(u[:, 0] * len(self._cells)).astype(np.int64)]
            if first is not None and block == 0:
                # where it is not seen the draw is repeated anywhere, so that each draw stays uniform over what is seen
                cells[0] = self._cells[first]
            points = (cells + u[:, 1:]) * CELL
            if (found := self._first_seen(points)) is not None:
                return found
        raise self._nothing()

    def subset(self, step: int, slot: int) -> np.random.Generator:
        """Random numbers that choose among the views of a position."""
        return self._random(_SUBSET, step, slot)

    def of_rank(self, rank: int, ranks: int) -> range:
        """Slots of one of several processes; all of them share out the batch of one.

        Raises
        ------
        ShapeError : positions that cannot be shared equally
        """
        if ranks < 1 or not 0 <= rank < ranks or self.positions % ranks:
            raise ShapeError(f"sampler: {self.positions} positions are not shared equally by process {rank} of {ranks}")
        share = self.positions // ranks
        return range(rank * share, (rank + 1) * share)

    def _first_seen(self, points: F64) -> Position | None:
        """The first of some points that is in the region and seen by enough views."""
        # the mosaic ends at its last pixel centre
        inside = (points >= self._roi[:, 0]) & (points <= self._roi[:, 1] - 1)
        indptr, view, rc = views_of_points(self.scene.candidates, self.scene.poses, points, self.edge_margin)
        owner = np.repeat(np.arange(len(points)), np.diff(indptr))
        here = self.scene.present[view]
        count = np.bincount(owner[here], minlength=len(points))
        good = np.flatnonzero(inside.all(axis=1) & (count >= self.min_views))
        if not len(good):
            return None
        mine = here & (owner == good[0])
        return Position(points[good[0]], view[mine].astype(np.int64), rc[mine])

    def _eligible(self) -> I64:
        """(n, 2) cells that enough views see a part of."""
        found = self.scene.candidates
        seen = np.concatenate(([0], np.cumsum(self.scene.present[found.view])))
        counts = seen[found.indptr[1:]] - seen[found.indptr[:-1]]
        cells = np.argwhere(counts.reshape(found.coverage.shape) >= self.min_views)
        overlaps = (cells * CELL < self._roi[:, 1]) & ((cells + 1) * CELL > self._roi[:, 0])
        return np.asarray(cells[overlaps.all(axis=1)], dtype=np.int64)

    def _cell_on_curve(self, step: int, slot: int) -> int:
        """Place on the curve: an epoch is `positions * steps_per_epoch` cells, evenly spaced from a random start."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start, order = self._epoch(epoch)
        lap, along = divmod(within, self.stretch)
        draw = int(order[lap * self.positions + slot]) * self.stretch + along
        n, total = len(self._cells), self.positions * self.steps_per_epoch
        return (start + draw * n // total) % n

    def _plan_epoch(self, epoch: int) -> tuple[int, I64]:
        """Start on the curve, and the order in which its stretches are walked."""
        numbers = self._random(_EPOCH, epoch, 0)
        n_stretches = self.positions * self.steps_per_epoch // self.stretch
        return int(numbers.integers(len(self._cells))), numbers.permutation(n_stretches)

    def _random(self, purpose: int, step: int, slot: int, block: int = 0) -> np.random.Generator:
        """Philox at a counter of its own: the lowest word is left to the generator."""
        bits = np.random.Philox(
            key=np.array([self.seed, purpose], dtype=np.uint64),
            counter=np.array([0, block, slot, step], dtype=np.uint64),
        )
        return np.random.Generator(bits)

    def _nothing(self) -> UserError:
        (top, bottom), (left, right) = self._roi.tolist()
        what = (
            f"rows {top} to {bottom - 1} and columns {left} to {right - 1} of the mosaic have no point that "
            f"{self.min_views} views see, {self.edge_margin:g} pixels from their borders."
        )
        return UserError(what, do="Check the overlap of the views, or choose a larger region.")


def hilbert(cells: I64) -> I64:
    """(n,) places of cells (n, 2) along a Hilbert curve through the smallest square of 2^k cells that holds them.

    Notes
    -----
    Hilbert, Ueber die stetige Abbildung einer Linie auf ein Flaechenstueck (Math. Ann. 38, 1891): quarter by quarter,
    the first one transposed, the last one transposed along the other diagonal.
    """
    row, col = cells[:, 0].copy(), cells[:, 1].copy()
    place = np.zeros(len(cells), dtype=np.int64)
    side = 1 << max(1, int(cells.max(initial=0)).bit_length())
    while side > 1:
        side //= 2
        low, left = row >= side, col >= side
        # quarters in their order: top left, top right, bottom right, bottom left
        place += side * side * np.where(low, np.where(left, 2, 3), np.where(left, 1, 0))
        row, col = row - side * low, col - side * left
        last, first = low & ~left, ~low & ~left
        row, col = (
            np.where(first, col, np.where(last, side - 1 - col, row)),
            np.where(first, row, np.where(last, side - 1 - row, col)),
        )
    return place
