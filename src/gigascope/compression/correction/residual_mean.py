"""What the neighbours' residuals say about that of a voxel: weights of their mean, by least squares in a brick.

Noise is white, so that whatever correlates with the neighbours is the error of the prediction. The encoder writes the
weights into the brick; how it finds them is its own affair.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from gigascope.compression.correction.residual_coder import NEIGHBOURS, WEIGHT_BITS

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# one row in so many is looked at; 14 sums of products per voxel cost as much as coding it
EVERY = 4
# of the variance, below which 26 bytes of weights and the time for the mean do not pay
LEAST_GAIN = 0.003


def weights(residual: NDArray[np.int32], classes: NDArray[np.uint8]) -> I64 | None:
    """Least-squares weights of the 13 neighbours.

    Parameters
    ----------
    residual : (z, y, x) volume minus prediction
    classes : (z, y, x) expected spread, see :mod:`.residual_tables`; errors are counted in units of it

    Returns
    -------
    (13,) of 2^12, int16 values; none where the mean would explain too little
    """
    if min(residual.shape) < 2 or residual.shape[2] < 3:
        return None
    products = _products(residual, classes, np.array(NEIGHBOURS), EVERY)
    own, normal, right = products[-1, -1], products[:-1, :-1], products[-1, :-1]
    if own <= 0:
        return None
    ridge = 1e-6 * np.trace(normal) / len(right) + 1e-12
    found = np.linalg.solve(normal + ridge * np.eye(len(right)), right)
    rounded = np.clip(np.rint(found * (1 << WEIGHT_BITS)), -32768, 32767)
    used = rounded / (1 << WEIGHT_BITS)
    explained = (2 * used @ right - used @ normal @ used) / own
    return rounded.astype(np.int64) if explained > LEAST_GAIN else None


@numba.njit(nogil=True, cache=True)
def _products(residual: NDArray[np.int32], classes: NDArray[np.uint8], offsets: I64, every: int) -> F64:
    """Weighted sums of products of the neighbours and the voxel itself, (14, 14)."""
    n_z, n_y, n_x = residual.shape
    n = len(offsets)
    sums, values = np.zeros((n + 1, n + 1)), np.empty(n + 1)
    inverse = 2.0 ** (-0.5 * np.arange(256))
    for z in range(1, n_z):
        for y in range(1 + z % every, n_y - 1, every):
            for x in range(1, n_x - 1):
                for k in range(n):
                    values[k] = residual[z + offsets[k, 0], y + offsets[k, 1], x + offsets[k, 2]]
                values[n] = residual[z, y, x]
                weight = inverse[classes[z, y, x]]
                for i in range(n + 1):
                    scaled = weight * values[i]
                    for j in range(i + 1):
                        sums[i, j] += scaled * values[j]
    for i in range(n + 1):
        for j in range(i):
            sums[j, i] = sums[i, j]
    return sums
