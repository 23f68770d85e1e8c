"""An image on another grid: averaged where voxels become larger, linear between centres where they become smaller.

Both grids begin at the same corner: voxel i of size v covers [i v, (i + 1) v).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

# Voxel sizes that differ by less are one: a thousandth of a voxel over a thousand voxels.
SAME = 1e-6


def resampled_length(n: int, size: float, target: float) -> int:
    """Whole voxels of the target size that lie inside n voxels, at least one."""
    return max(1, math.floor(n * size / target * (1 + SAME)))


def axis_weights(n: int, size: float, target: float) -> sparse.csr_array:
    """(m, n) weights from n samples to m; each row sums to 1.

    Parameters
    ----------
    size, target : voxel size along the axis, before and after
    """
    m = resampled_length(n, size, target)
    if target >= size:
        edges = np.arange(m + 1) * (target / size)
        first = np.floor(edges[:-1] * (1 + 1e-12)).astype(np.int64)
        width = math.ceil(target / size) + 1
        index = first[:, None] + np.arange(width)
        low = np.maximum(index, edges[:-1, None])
        high = np.minimum(index + 1, edges[1:, None])
        weights = np.clip(high - low, 0, None)
    else:
        place = np.clip((np.arange(m) + 0.5) * (target / size) - 0.5, 0, n - 1)
        first = np.minimum(np.floor(place).astype(np.int64), max(n - 2, 0))
        index = first[:, None] + np.arange(2)
        weights = np.stack([1 - (place - first), place - first], axis=1)
    weights = np.where(index < n, weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(m), index.shape[1])
    found = sparse.coo_array((weights.ravel(), (rows, np.minimum(index, n - 1).ravel())), shape=(m, n))
    return found.tocsr()


def resample_image(image: NDArray, size: Sequence[float], target: Sequence[float]) -> NDArray:
    """An image (z, y, x) on a grid of other voxels, in its own dtype; integers are rounded half to even."""
    out = image
    for axis, (before, after) in enumerate(zip(size, target, strict=True)):
        if abs(after / before - 1) <= SAME:
            continue
        weights = axis_weights(out.shape[axis], before, after)
        moved = np.moveaxis(out, axis, 0)
        flat = weights @ moved.reshape(moved.shape[0], -1).astype(np.float64)
        out = np.moveaxis(flat.reshape(-1, *moved.shape[1:]), 0, axis)
    if image.dtype.kind in "iu":
        # an average of values stays between them
        out = np.rint(out)
    return np.ascontiguousarray(out.astype(image.dtype, copy=False))


def resample_labels(labels: NDArray, size: Sequence[float], target: Sequence[float]) -> NDArray:
    """Labels (z, y, x) on a grid of other voxels: each takes the id at its centre."""
    for axis, (before, after) in enumerate(zip(size, target, strict=True)):
        n = labels.shape[axis]
        m = resampled_length(n, before, after)
        place = np.minimum((np.arange(m) + 0.5) * (after / before), n - 1e-9).astype(np.int64)
        labels = labels.take(place, axis=axis)
    return np.ascontiguousarray(labels)
