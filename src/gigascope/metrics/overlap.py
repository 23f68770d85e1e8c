"""How much the objects of two label images share: sparse counts, from any number of blocks, in any order.

One row for each pair of labels that meet in a voxel; sizes, centroids and everything that compares two segmentations
follow from it. Counts are integers, so that blocks, their order and threads leave no trace in the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Sizes:
    """Objects of one label image.

    Attributes
    ----------
    ids : (n,) int64, ascending
    voxels : (n,) int64
    centroids : (n, 3) float64, voxels (z, y, x)
    """

    ids: I64
    voxels: I64
    centroids: F64

    def rows(self, ids: I64) -> I64:
        """Row of each of these ids, all of which there are."""
        return np.searchsorted(self.ids, ids).astype(np.int64)


@dataclass(frozen=True)
class Overlaps:
    """Voxels that a reference's and a test's objects share; label 0 is background, and of it alone there is no row.

    Attributes
    ----------
    reference, test : (n,) int64, labels of each pair, ascending by reference, then test
    voxels : (n,) int64, voxels with both labels
    moments : (n, 3) int64, sums of their indices (z, y, x)
    """

    reference: I64
    test: I64
    voxels: I64
    moments: I64

    @property
    def references(self) -> Sizes:
        """Objects of the reference."""
        return _sizes(self.reference, self.voxels, self.moments)

    @property
    def tests(self) -> Sizes:
        """Objects of the test."""
        return _sizes(self.test, self.voxels, self.moments)

    @property
    def pairs(self) -> Overlaps:
        """Pairs of objects only, without what lies on background."""
        both = (self.reference > 0) & (self.test > 0)
        return Overlaps(self.reference[both], self.test[both], self.voxels[both], self.moments[both])

    def swapped(self) -> Overlaps:
        """Reference and test exchanged."""
        order = np.lexsort((self.reference, self.test))
        return Overlaps(self.test[order], self.reference[order], self.voxels[order], self.moments[order])


def count_overlaps(reference: NDArray, test: NDArray, origin: Sequence[int] = (0, 0, 0)) -> Overlaps:
    """Overlaps within one block.

    Parameters
    ----------
    reference, test : (z, y, x) integers, 0 to 2^32 - 1
    origin : index of the block's first voxel in the volume

    Raises
    ------
    ShapeError : shapes that differ, labels that are no integers or out of range
    """
    if reference.shape != test.shape or reference.ndim != 3:
        raise ShapeError(f"label blocks are (z, y, x) and of one shape, got {reference.shape} and {test.shape}")
    key = (_labels(reference) << _HALF) | _labels(test)
    flat, n_x = key.reshape(-1), key.shape[2]
    if flat.size == 0:
        return merge_overlaps([])
    # runs of equal labels along x: ten times fewer numbers to sort
    first = np.empty(flat.size, bool)
    first[0] = True
    np.not_equal(flat[1:], flat[:-1], out=first[1:])
    first[::n_x] = True
    starts = np.flatnonzero(first)
    lengths = np.diff(np.append(starts, flat.size))
    keep = flat[starts] != 0
    starts, lengths = starts[keep], lengths[keep]
    rows, x = np.divmod(starts, n_x)
    z, y = np.divmod(rows, key.shape[1])
    sums = [
        lengths * (z + origin[0]),
        lengths * (y + origin[1]),
        lengths * (x + origin[2]) + lengths * (lengths - 1) // 2,
    ]
    return _grouped(flat[starts], lengths.astype(np.int64), np.stack(sums, axis=1).astype(np.int64))


def merge_overlaps(parts: Iterable[Overlaps]) -> Overlaps:
    """Overlaps of several blocks together, by their labels."""
    found = list(parts)
    if not found:
        empty = np.zeros(0, np.int64)
        return Overlaps(empty, empty, empty, np.zeros((0, 3), np.int64))
    key = np.concatenate([(o.reference.astype(np.uint64) << _HALF) | o.test.astype(np.uint64) for o in found])
    return _grouped(key, np.concatenate([o.voxels for o in found]), np.concatenate([o.moments for o in found]))


class OverlapCounter:
    """Overlaps of volumes that are read block by block.

    Blocks must not share voxels; what is kept grows with the number of objects, not of blocks.
    """

    def __init__(self) -> None:
        self._parts: list[Overlaps] = []
        self._rows = 0
        self._limit = 1 << 20

    def add(self, reference: NDArray, test: NDArray, origin: Sequence[int] = (0, 0, 0)) -> None:
        """Count a block; see :func:`count_overlaps`."""
        part = count_overlaps(reference, test, origin)
        self._parts.append(part)
        self._rows += len(part.voxels)
        if self._rows > self._limit:
            self._parts = [merge_overlaps(self._parts)]
            self._rows = len(self._parts[0].voxels)
            self._limit = max(self._limit, 2 * self._rows)

    def result(self) -> Overlaps:
        """Of all blocks so far."""
        self._parts = [merge_overlaps(self._parts)]
        return self._parts[0]


def _labels(block: NDArray) -> NDArray[np.uint64]:
    if block.dtype.kind not in "iub":
        raise ShapeError(f"labels are integers, got {block.dtype}")
    if block.dtype.itemsize > 4 or block.dtype.kind == "i":
        low, high = (int(block.min()), int(block.max())) if block.size else (0, 0)
        if low < 0 or high > int(_LOW):
            raise ShapeError(f"labels lie between 0 and 2^32 - 1, got {low} to {high}")
    return np.ascontiguousarray(block).astype(np.uint64)


def _grouped(key: NDArray[np.uint64], voxels: I64, moments: I64) -> Overlaps:
    """Sums over equal keys; integers, so exact in any order."""
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1])) if key.size else np.zeros(0, np.int64)
    if not starts.size:
        empty = np.zeros(0, np.int64)
        return Overlaps(empty, empty, empty, np.zeros((0, 3), np.int64))
    found = key[starts]
    return Overlaps(
        (found >> _HALF).astype(np.int64),
        (found & _LOW).astype(np.int64),
        np.add.reduceat(voxels[order], starts),
        np.add.reduceat(moments[order], starts, axis=0),
    )


def _sizes(label: I64, voxels: I64, moments: I64) -> Sizes:
    inside = label > 0
    ids, which = np.unique(label[inside], return_inverse=True)
    count, sums = np.zeros(ids.size, np.int64), np.zeros((ids.size, 3), np.int64)
    np.add.at(count, which, voxels[inside])
    np.add.at(sums, which, moments[inside])
    return Sizes(ids.astype(np.int64), count, sums / np.maximum(count, 1)[:, None])
