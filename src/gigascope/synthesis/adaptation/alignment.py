"""Whether structures are where they were: shifts between blocks of an image and of what was made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.metrics.shift import block_shift

# Blocks (z, y, x) that are compared, voxels; a phase correlation needs some along each axis.
BLOCK, LEAST_SIDE = (32, 128, 128), 4
# Of a block that has less contrast than this, relative to its mean, nothing can be said.
LEAST_CONTRAST = 0.02


def block_shifts(before: NDArray, after: NDArray) -> NDArray[np.float64]:
    """Shift of each block.

    Parameters
    ----------
    before, after : (z, y, x), the same region of both images

    Returns
    -------
    (n, 3) float64, (z, y, x) voxels by which structures of `after` lie further; blocks without contrast are left out
    """
    size = [min(b, n) for b, n in zip(BLOCK, before.shape)]
    found = []
    if min(size) >= LEAST_SIDE:
        for corner in np.ndindex(*(n // s for n, s in zip(before.shape, size))):
            at = tuple(slice(c * s, (c + 1) * s) for c, s in zip(corner, size))
            one, other = before[at].astype(np.float64), after[at].astype(np.float64)
            if min(_contrast(one), _contrast(other)) >= LEAST_CONTRAST:
                found.append(block_shift(one, other)[0])
    return np.array(found).reshape(-1, 3)


@dataclass(frozen=True)
class Alignment:
    """Of one adapted image.

    Attributes
    ----------
    median, q95 : of the lengths of the shifts of its blocks, voxels; 0 where no block has contrast
    blocks : that were compared
    """

    median: float
    q95: float
    blocks: int

    @staticmethod
    def of(shifts: NDArray[np.float64]) -> Alignment:
        """From the shifts of its blocks, (n, 3)."""
        if not len(shifts):
            return Alignment(0.0, 0.0, 0)
        lengths = np.linalg.norm(shifts, axis=1)
        return Alignment(float(np.median(lengths)), float(np.quantile(lengths, 0.95)), len(lengths))


def _contrast(block: NDArray) -> float:
    return float(block.std() / max(abs(float(block.mean())), 1e-9))
