"""Windows of a volume on one lattice, and how they add up: one set of weights along each axis.

Where windows lie follows from the volume alone, never from the piece of it that a job works on. Weights of a voxel
are products of those along the axes, and sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Blend = Literal["cosine", "half_cut"]


@dataclass(frozen=True, eq=False)
class Axis:
    """Windows along one axis.

    Attributes
    ----------
    n : voxels of the volume
    size : of a window
    starts : (k,) first voxels
    weights : (k, size) float32: of all windows at a voxel they sum to 1
    """

    n: int
    size: int
    starts: NDArray[np.int64]
    weights: NDArray[np.float32]

    def touching(self, start: int, stop: int) -> list[int]:
        """Numbers of the windows that give anything to voxels `start` to `stop` - 1."""
        found = []
        for k, first in enumerate(self.starts.tolist()):
            low, high = max(start, first), min(stop, first + self.size)
            if low < high and self.weights[k, low - first : high - first].any():
                found.append(k)
        return found


def axis_windows(n: int, window: int, overlap: float, blend: Blend) -> Axis:
    """Windows along an axis of n voxels: at multiples of window - floor(overlap window), and one that ends with it.

    Parameters
    ----------
    n : voxels
    window : of a window; no more than there are
    overlap : share of a window that the next one covers too, below 1
    blend : cosine, weights rise and fall as half a wave; half_cut, each window counts up to the middle of an overlap,
        which is cut by the smaller half on its lower side and the larger on its upper one, as published
    """
    size = min(n, window)
    step = max(1, size - int(np.floor(overlap * size)))
    starts = list(range(0, n - size + 1, step))
    if starts[-1] + size < n:
        starts.append(n - size)
    first = np.array(starts, np.int64)
    weights = np.zeros((len(first), size))
    if blend == "cosine":
        weights[:] = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    else:
        # between two windows: the middle of what both cover
        cuts = first[1:] + (first[:-1] + size - first[1:]) // 2
        for k, (low, high) in enumerate(zip([0, *cuts], [*cuts, n])):
            weights[k, low - first[k] : high - first[k]] = 1
    total = np.zeros(n)
    for k, start in enumerate(starts):
        total[start : start + size] += weights[k]
    for k, start in enumerate(starts):
        weights[k] /= total[start : start + size]
    return Axis(n, size, first, weights.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Lattice:
    """Windows of a volume: one of each axis.

    Attributes
    ----------
    axes : z, y, x
    halo : (z, y, x) voxels around a window that the network sees, as far as there are such
    grid : what the network sees begins at multiples of this: it samples each (z, y, x) so coarsely that an image moved
        by less gives something else
    """

    axes: tuple[Axis, Axis, Axis]
    halo: tuple[int, int, int] = (0, 0, 0)
    grid: tuple[int, int, int] = (1, 1, 1)

    def seen(self, window: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Voxels of the volume that the network sees for a window, and where the window lies in them."""
        region, inner = [], []
        for axis, k, halo, grid in zip(self.axes, window, self.halo, self.grid):
            start = int(axis.starts[k])
            low, high = max(0, start - halo) // grid * grid, min(axis.n, start + axis.size + halo)
            region.append(slice(low, high))
            inner.append(slice(start - low, start - low + axis.size))
        return tuple(region), tuple(inner)

    def touching(self, region: tuple[slice, ...]) -> list[tuple[int, int, int]]:
        """Windows that give anything to a region, in order."""
        z, y, x = (axis.touching(r.start, r.stop) for axis, r in zip(self.axes, region))
        return [(i, j, k) for i in z for j in y for k in x]


def lattice(
    shape: tuple[int, int, int],
    window: tuple[int, int, int],
    overlap: tuple[float, float, float],
    blend: Blend,
    halo: tuple[int, int, int] = (0, 0, 0),
    grid: tuple[int, int, int] = (1, 1, 1),
) -> Lattice:
    """Windows of a volume (z, y, x); see :class:`Lattice`."""
    z, y, x = (axis_windows(n, w, o, blend) for n, w, o in zip(shape, window, overlap))
    return Lattice((z, y, x), halo, grid)
