"""How far the small patches of two sets of images are apart: sliced Wasserstein distance.

Rabin et al., Wasserstein barycenter and its application to texture mixing, SSVM 2011; on patches: Karras et al., ICLR
2018, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
PATCH = (5, 7, 7)
DIRECTIONS = 256
# Patches for each direction that is whitened.
PER_DIRECTION = 20
# Of the counts that intervals are made from; range in standard deviations of the reference.
BINS, RANGE = 256, 8.0


def take_patches(tile: NDArray, n: int, random: np.random.Generator, patch: tuple[int, int, int] = PATCH) -> F32:
    """(n, voxels of a patch) patches at random places of a tile (z, y, x).

    Raises
    ------
    ShapeError : a tile smaller than a patch
    """
    if any(a < b for a, b in zip(tile.shape, patch)):
        raise ShapeError(f"patches of {patch} do not fit into a tile of {tile.shape}")
    places = np.stack([random.integers(0, a - b + 1, n) for a, b in zip(tile.shape, patch)])
    offsets = np.stack(np.meshgrid(*(np.arange(b) for b in patch), indexing="ij")).reshape(3, -1)
    at = places[:, :, None] + offsets[:, None, :]
    return np.asarray(tile[at[0], at[1], at[2]], np.float32)


@dataclass(frozen=True)
class Whitening:
    """Mean and directions of equal spread of a set of patches, times fixed random directions.

    Attributes
    ----------
    mean : (voxels,) float64
    matrix : (voxels, directions) float64; projections of the set have variance 1
    """

    mean: F64
    matrix: F64

    def __call__(self, patches: NDArray) -> F32:
        """(n, directions) projections."""
        return ((np.asarray(patches, np.float64) - self.mean) @ self.matrix).astype(np.float32)


def whitening(patches: NDArray, random: np.random.Generator, directions: int = DIRECTIONS) -> Whitening:
    """Whitening of reference patches.

    Parameters
    ----------
    patches : (n, voxels), n of at least 2
    random : draws the directions, uniformly on the sphere of the whitened space

    Notes
    -----
    Directions with less than 1e-6 of the largest variance say nothing and are left out; so are all beyond the n / 20
    strongest: estimated from fewer patches, weak ones look white in the reference and not in any other set.
    """
    values = np.asarray(patches, np.float64)
    mean = values.mean(axis=0)
    variance, basis = np.linalg.eigh(np.cov(values - mean, rowvar=False))
    kept = variance > 1e-6 * variance.max()
    kept[: max(0, len(variance) - max(1, len(values) // PER_DIRECTION))] = False
    unit = random.standard_normal((int(kept.sum()), directions))
    unit /= np.linalg.norm(unit, axis=0)
    return Whitening(mean, (basis[:, kept] / np.sqrt(variance[kept])) @ unit)


def sliced_wasserstein(a: F32, b: F32) -> float:
    """Mean over directions of the first Wasserstein distance of projections (n, directions), of equal n.

    Raises
    ------
    ShapeError : sets of different shape
    """
    if a.shape != b.shape:
        raise ShapeError(f"projections of as many patches are compared, got {a.shape} and {b.shape}")
    return float(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean(dtype=np.float64))


def projection_counts(projections: F32) -> NDArray[np.int32]:
    """(directions, BINS) counts of a tile's projections, for :func:`counted_distance`; ends hold what lies beyond."""
    n = projections.shape[1]
    place = np.clip((projections + RANGE) * (BINS / (2 * RANGE)), 0, BINS - 1).astype(np.intp)
    flat = (place + np.arange(n) * BINS).ravel()
    return np.bincount(flat, minlength=n * BINS).reshape(n, BINS).astype(np.int32)


def counted_distance(a: F64, b: F64) -> F64:
    """Sliced distance of counts (..., directions, BINS), for many draws of tiles at once: coarser by a bin's width."""
    below = [np.cumsum(v, axis=-1) / v.sum(axis=-1, keepdims=True) for v in (a, b)]
    return np.asarray(np.abs(below[0] - below[1]).sum(axis=-1).mean(axis=-1) * (2 * RANGE / BINS))
