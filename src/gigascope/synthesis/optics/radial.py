"""PSFs that are round: known along the radius, averaged over voxels and over the pinhole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

F64 = NDArray[np.float64]

# Sub-samples of a voxel along each axis.
SUBSAMPLES = 3


def subsamples(half: int, voxel: float) -> F64:
    """(2 half + 1, 3) positions of the sub-samples of voxels whose middle one is at 0."""
    inner = (np.arange(SUBSAMPLES) - (SUBSAMPLES - 1) / 2) / SUBSAMPLES
    return voxel * (np.arange(-half, half + 1)[:, None] + inner)


def quadrant_matrix(half: tuple[int, int], voxel: tuple[float, float], step: float, n_radii: int) -> Any:
    """((half_y + 1) (half_x + 1), n_radii): from a profile sampled every `step` to means over voxels at y, x >= 0.

    Mean of 3 x 3 sub-samples, each by linear interpolation between two radii.
    """
    y, x = (subsamples(h, v)[h:] for h, v in zip(half, voxel))
    radius = np.hypot(y[:, None, :, None], x[None, :, None, :]).reshape((half[0] + 1) * (half[1] + 1), -1) / step
    low = np.minimum(radius.astype(np.int64), n_radii - 2)
    share = radius - low
    rows = np.repeat(np.arange(len(radius)), 2 * radius.shape[1])
    columns = np.stack((low, low + 1), axis=2).ravel()
    values = np.stack((1 - share, share), axis=2).ravel() / radius.shape[1]
    return scipy.sparse.csr_array((values, (rows, columns)), shape=(len(radius), n_radii))


def multiplicity(half: tuple[int, int]) -> F64:
    """(half_y + 1, half_x + 1): how many voxels of the whole each of the quadrant stands for."""
    y, x = (np.where(np.arange(h + 1) == 0, 1.0, 2.0) for h in half)
    return np.outer(y, x)


def unfold(quadrant: NDArray[np.floating]) -> NDArray[np.floating]:
    """(..., half_y + 1, half_x + 1) to (..., 2 half_y + 1, 2 half_x + 1), the first voxel in the middle."""
    rows = np.concatenate((quadrant[..., :0:-1, :], quadrant), axis=-2)
    return np.concatenate((rows[..., :, :0:-1], rows), axis=-1)


def disc_mean(radius: float, step: float, n_out: int, n_in: int) -> Any:
    """(n_out, n_in): from a profile sampled every `step` to its mean over a disc that is centred at each radius.

    A ring of radius t lies in the disc around r over the angle 2 acos((t^2 + r^2 - radius^2) / (2 t r)). Rows have sum
    1. Rings that leave the profile are left out.
    """
    rows, columns, values = [], [], []
    for i in range(n_out):
        r = i * step
        first = max(0, math.floor((r - radius) / step))
        t = step * np.arange(first, min(n_in, math.ceil((r + radius) / step) + 1))
        # a ring is step wide: the mean over its width keeps narrow discs round
        fine = np.maximum(t[:, None] + step * ((np.arange(8) + 0.5) / 8 - 0.5), 1e-9 * step)
        cosine = (fine**2 + r * r - radius * radius) / np.maximum(2 * fine * r, 1e-12 * step * step)
        share = (2 * fine * np.arccos(np.clip(cosine, -1, 1))).mean(1)
        rows.append(np.full(len(t), i))
        columns.append(first + np.arange(len(t)))
        values.append(share / share.sum())
    places = np.concatenate(rows), np.concatenate(columns)
    return scipy.sparse.csr_array((np.concatenate(values), places), shape=(n_out, n_in))
