"""Connected components with hysteresis over a volume that is never held whole.

The volume is cut into regions. Components within a region are settled there; one that touches a neighbour's region is
settled when all regions are known: first the labels that meet on the faces between two regions are listed, then all
lists are joined. The outcome is that of the whole volume at once. Voxels are connected through faces, not edges.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

Mask = NDArray[np.bool_]
I64 = NDArray[np.int64]
FACES = tuple((axis, end) for axis in range(3) for end in (0, -1))


@dataclass(frozen=True)
class Candidates:
    """What a region knows of its components before it knows its neighbours'.

    Attributes
    ----------
    mask : (z, y, x) components that stay, and those that reach a neighbour and may stay
    first : (k,) of the components that reach a neighbour, numbered from 0: place of their first voxel in the region
    size : (k,) voxels
    seeded : (k,) a voxel of them is above the higher threshold
    faces : by face, places on it and numbers of the components there, (2, m); only faces to neighbours
    """

    mask: Mask
    first: I64
    size: I64
    seeded: NDArray[np.bool_]
    faces: Mapping[tuple[int, int], I64]

    def columns(self) -> dict[str, NDArray]:
        """As named arrays, without the mask."""
        named = {f"face_{axis}_{end % 2}": found for (axis, end), found in self.faces.items()}
        return {"first": self.first, "size": self.size, "seeded": self.seeded, **named}


def find_candidates(low: Mask, high: Mask, min_voxels: int, open_faces: Sequence[tuple[int, int]] = ()) -> Candidates:
    """Components of `low` that have a voxel of `high` in them, of at least `min_voxels`, as far as a region can tell.

    Parameters
    ----------
    low, high : (z, y, x) of the region, above the lower and the higher threshold
    open_faces : (axis, 0 or -1) of the faces behind which there is a neighbour
    """
    labels, n = ndimage.label(low)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    seeded = np.zeros(n + 1, bool)
    seeded[labels[high]] = True
    stays = seeded & (sizes >= min_voxels)
    reaches = np.zeros(n + 1, bool)
    for axis, end in open_faces:
        reaches[np.take(labels, end, axis)] = True
    stays[0] = reaches[0] = False
    stays |= reaches
    which = np.flatnonzero(reaches)
    number = np.full(n + 1, -1, np.int64)
    number[which] = np.arange(which.size)
    first = _first_places(labels, which)
    faces = {(axis, end): _on_face(number[np.take(labels, end, axis)]) for axis, end in open_faces}
    return Candidates(stays[labels], first, sizes[which].astype(np.int64), seeded[which], faces)


def _first_places(labels: NDArray, which: I64) -> I64:
    """Place of the first voxel of each of these labels."""
    flat = labels.ravel()
    places = np.flatnonzero(flat)[::-1]
    first = np.zeros(int(flat.max()) + 1, np.int64)
    # of values assigned to one element the last one holds: that of the first place
    first[flat[places]] = places
    return first[which]


def _on_face(numbers: I64) -> I64:
    place = np.flatnonzero(numbers >= 0)
    return np.stack([place, numbers.ravel()[place]])


def meeting(near: I64, far: I64) -> I64:
    """Numbers of the components that meet on a face, each pair once, (m, 2).

    Parameters
    ----------
    near, far : places and numbers on either side of it; see :class:`Candidates`
    """
    _, i, j = np.intersect1d(near[0], far[0], assume_unique=True, return_indices=True)
    return np.unique(np.stack([near[1][i], far[1][j]], axis=1), axis=0)


def settle(size: I64, seeded: NDArray[np.bool_], pairs: I64, min_voxels: int) -> NDArray[np.bool_]:
    """Which components stay, joined over all regions.

    Parameters
    ----------
    size, seeded : (k,) of the components of all regions
    pairs : (m, 2) numbers of those that are one
    """
    k = size.size
    joined = sparse.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(k, k))
    n, whole = csgraph.connected_components(joined, directed=False)
    total = np.bincount(whole, weights=size, minlength=n)
    has_seed = np.bincount(whole, weights=seeded, minlength=n) > 0
    stays = has_seed & (total >= min_voxels)
    return stays[whole]


def without(mask: Mask, first: I64, stays: NDArray[np.bool_]) -> Mask:
    """A region's candidates without those that do not stay.

    Parameters
    ----------
    mask : the region's :attr:`Candidates.mask`
    first : places of the first voxels of the components that reach a neighbour
    stays : which of them stay
    """
    if stays.all():
        return mask
    labels, n = ndimage.label(mask)
    kept = np.ones(n + 1, bool)
    kept[labels.ravel()[first[~stays]]] = False
    return mask & kept[labels]


def neighbours(grid: Sequence[int], region: int) -> Iterator[tuple[int, int, int]]:
    """Axis, face (0 or -1) and number of each region beside one, in a grid numbered last axis fastest."""
    place = np.unravel_index(region, grid)
    for axis, end in itertools.product(range(len(grid)), (0, -1)):
        beside = int(place[axis]) + (-1 if end == 0 else 1)
        if 0 <= beside < grid[axis]:
            other = [int(i) for i in place]
            other[axis] = beside
            yield axis, end, int(np.ravel_multi_index(other, grid))
