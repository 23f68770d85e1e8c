"""Area sampling on the CPU: rows are summed along z and y in a buffer that stays in cache, then reduced along x."""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels.filters.overlaps import overlaps
from gigascope.kernels.parallel import inline_kernel, parallel_kernel, serial_kernel


def sample(
    volume: Tensor, ratio: tuple[float, float, float], start: tuple[float, float, float], shape: tuple[int, int, int]
) -> Tensor:
    """See :func:`gigascope.kernels.filters.area_sample`; contiguous."""
    arrays = []
    for r, s, n in zip(ratio, start, shape):
        first, shares = overlaps(r, s, n)
        arrays += [first.numpy(), shares.numpy()]
    out = torch.empty(shape)
    covered = shape[0] * ratio[0] * shape[1] * ratio[1] * shape[2] * ratio[2]
    _sample(volume.detach().numpy(), *arrays, out.numpy(), work=2 * covered)
    return out


def sample_z(planes: NDArray[np.float32], first: NDArray[np.int64], shares: NDArray[np.float64]) -> Tensor:
    """Means along z of planes that are sampled along y and x already."""
    out = torch.empty(len(first), *planes.shape[1:])
    _along_z(planes, first, shares, out.numpy(), work=2.0 * planes.size)
    return out


@inline_kernel
def _add_row(row, weight, line):
    for x in range(line.size):
        line[x] += weight * row[x]


@inline_kernel
def _reduce(line, first, shares, out):
    """Means of a line over the samples of `out`."""
    for x in range(out.size):
        total = 0.0
        for t in range(shares.shape[1]):
            # weights behind the last sample are 0, and may lie behind the end
            total += shares[x, t] * line[min(first[x] + t, line.size - 1)]
        out[x] = total


@serial_kernel
def lateral(plane, y_first, y_shares, x_first, x_shares, out):
    """Means of one plane over the pixels of `out`."""
    line = np.empty(plane.shape[1], dtype=np.float32)
    for y in range(out.shape[0]):
        line[:] = 0
        for t in range(y_shares.shape[1]):
            weight = np.float32(y_shares[y, t])
            if weight > 0:
                _add_row(plane[y_first[y] + t], weight, line)
        _reduce(line, x_first, x_shares, out[y])


@parallel_kernel
def _sample(volume, z_first, z_shares, y_first, y_shares, x_first, x_shares, out):
    n_z, n_y, _ = out.shape
    for task in prange(n_z * n_y):
        z, y = task // n_y, task % n_y
        line = np.zeros(volume.shape[2], dtype=np.float32)
        for s in range(z_shares.shape[1]):
            for t in range(y_shares.shape[1]):
                weight = np.float32(z_shares[z, s] * y_shares[y, t])
                if weight > 0:
                    _add_row(volume[z_first[z] + s, y_first[y] + t], weight, line)
        _reduce(line, x_first, x_shares, out[z, y])


@parallel_kernel
def _along_z(planes, first, shares, out):
    n_z, n_y, _ = out.shape
    for task in prange(n_z * n_y):
        z, y = task // n_y, task % n_y
        line = out[z, y]
        line[:] = 0
        for t in range(shares.shape[1]):
            weight = np.float32(shares[z, t])
            if weight > 0:
                _add_row(planes[first[z] + t, y], weight, line)
