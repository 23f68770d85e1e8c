"""The last passes of decoding on a CPU: background and intensity over the sums of the Gaussians, then rounding.

In separate steps they take three times as long as the Gaussians of a neuron volume, in memory traffic alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import prange
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.decoding.resolution import cell_weights
from gigascope.kernels.parallel import parallel_kernel

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


def to_grey_values_(
    sums: Tensor, grid: Tensor, cell: Sequence[int], origin: Sequence[int], offset: float, scale: float
) -> None:
    """In place, ``sums <- offset + scale (sums + background)``.

    Parameters
    ----------
    sums : (z, y, x) float32 on the CPU, contiguous, units of the scale
    grid : (nz, ny, nx) float32 background of the whole volume, trilinear between the centres of its cells
    cell : (z, y, x) voxels
    origin : first voxel of `sums`

    Notes
    -----
    A voxel gets the same bits whatever box it is in: its value depends on its own place alone.
    """
    arrays = []
    for n, c, o, length in zip(grid.shape, cell, origin, sums.shape):
        low, weights = cell_weights(n, c, o, length, 1)
        arrays += [low, np.ascontiguousarray(weights[:, 1])]
    _apply(sums.numpy(), grid.numpy(), *arrays, np.float32(offset), np.float32(scale), work=4.0 * sums.numel())


def rounded(values: Tensor, dtype: np.dtype) -> NDArray:
    """Float32 on the CPU as integers of at most 16 bits: half to even, clipped."""
    values = values.contiguous()
    limits = np.iinfo(dtype)
    out = np.empty(tuple(values.shape), dtype)
    ends = np.float32(limits.min), np.float32(limits.max)
    _round(values.numpy().reshape(-1), *ends, out.reshape(-1), work=2.0 * values.numel())
    return out


@parallel_kernel
def _round(values: F32, low: np.float32, high: np.float32, out: NDArray) -> None:
    for i in prange(values.size):
        out[i] = min(max(np.rint(values[i]), low), high)


@parallel_kernel
def _apply(
    sums: F32,
    grid: F32,
    low_z: I64,
    share_z: F32,
    low_y: I64,
    share_y: F32,
    low_x: I64,
    share_x: F32,
    offset: np.float32,
    scale: np.float32,
) -> None:
    n_z, n_y, n_x = sums.shape
    last_z, last_y, last_x = grid.shape[0] - 1, grid.shape[1] - 1, grid.shape[2] - 1
    for z in prange(n_z):
        line = np.empty(grid.shape[2] + 1, np.float32)
        z0, z1 = low_z[z], min(low_z[z] + 1, last_z)
        for y in range(n_y):
            y0, y1 = low_y[y], min(low_y[y] + 1, last_y)
            for k in range(low_x[0], min(low_x[n_x - 1] + 1, last_x) + 1):
                near = grid[z0, y0, k] + share_z[z] * (grid[z1, y0, k] - grid[z0, y0, k])
                far = grid[z0, y1, k] + share_z[z] * (grid[z1, y1, k] - grid[z0, y1, k])
                line[k] = near + share_y[y] * (far - near)
            line[last_x + 1] = line[last_x]
            first = 0
            while first < n_x:
                k, end = low_x[first], first + 1
                while end < n_x and low_x[end] == k:
                    end += 1
                step = line[k + 1] - line[k]
                for x in range(first, end):
                    sums[z, y, x] = (sums[z, y, x] + (line[k] + share_x[x] * step)) * scale + offset
                first = end
