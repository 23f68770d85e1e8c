"""Projector on the CPU: coefficients once per row of y, then vectors along y."""

from __future__ import annotations

import math

from numba import prange
from torch import Tensor

from gigascope.kernels.parallel import parallel_kernel
from gigascope.kernels.projector.coefficients import ray_table

# 64 floats of y: the two volume rows and the accumulator of an inner loop stay in L1
BLOCK = 64


def project(volume: Tensor, angles: Tensor, n_s: int, hz: float = 1.0, out: Tensor | None = None) -> Tensor:
    """See :func:`gigascope.kernels.projector.project`; `volume` contiguous."""
    table = ray_table(angles.detach().cpu(), n_s, (volume.shape[0], volume.shape[1]), hz)
    if out is None:
        out = volume.new_empty(angles.shape[0], n_s, volume.shape[2])
    _project(volume.detach().numpy(), table.numpy(), out.detach().numpy())
    return out


def backproject(
    sinogram: Tensor, angles: Tensor, shape_zx: tuple[int, int], hz: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """See :func:`gigascope.kernels.projector.backproject`; `sinogram` contiguous."""
    table = ray_table(angles.detach().cpu(), sinogram.shape[1], shape_zx, hz)
    if out is None:
        out = sinogram.new_empty(*shape_zx, sinogram.shape[2])
    _backproject(sinogram.detach().numpy(), table.numpy(), out.detach().numpy())
    return out


@parallel_kernel
def _project(volume, table, out):
    n_z, n_x, n_y = volume.shape
    n_t, n_s, _ = out.shape
    n_blocks = (n_y + BLOCK - 1) // BLOCK
    for task in prange(n_t * n_blocks):
        t, block = task // n_blocks, task % n_blocks
        y0 = block * BLOCK
        y1 = min(y0 + BLOCK, n_y)
        by_columns = table[t, 0] != 0.0
        alpha, beta, gamma, weight = table[t, 1], table[t, 2], table[t, 3], table[t, 4]
        n_outer = n_x if by_columns else n_z
        n_inner = n_z if by_columns else n_x
        out[t, :, y0:y1] = 0
        for m in range(n_outer):
            for i in range(n_s):
                position = alpha * i + beta * m + gamma
                low = math.floor(position)
                if low < -1.0 or low >= n_inner:
                    continue
                n = int(low)
                w1 = volume.dtype.type(weight * (position - low)) if n + 1 < n_inner else volume.dtype.type(0.0)
                w0 = volume.dtype.type(weight * (1.0 - (position - low))) if n >= 0 else volume.dtype.type(0.0)
                n0, n1 = max(n, 0), min(n + 1, n_inner - 1)
                if by_columns:
                    for y in range(y0, y1):
                        out[t, i, y] += w0 * volume[n0, m, y] + w1 * volume[n1, m, y]
                else:
                    for y in range(y0, y1):
                        out[t, i, y] += w0 * volume[m, n0, y] + w1 * volume[m, n1, y]


@parallel_kernel
def _backproject(sinogram, table, out):
    n_z, n_x, n_y = out.shape
    n_t, n_s, _ = sinogram.shape
    n_blocks = (n_y + BLOCK - 1) // BLOCK
    for task in prange(n_z * n_blocks):
        z, block = task // n_blocks, task % n_blocks
        y0 = block * BLOCK
        y1 = min(y0 + BLOCK, n_y)
        out[z, :, y0:y1] = 0
        for t in range(n_t):
            by_columns = table[t, 0] != 0.0
            alpha, beta, gamma, weight = table[t, 1], table[t, 2], table[t, 3], table[t, 4]
            reach = 1.0 / abs(alpha)
            for x in range(n_x):
                outer, inner = (x, z) if by_columns else (z, x)
                centre = (inner - beta * outer - gamma) / alpha
                first = max(0, math.ceil(centre - reach))
                last = min(n_s - 1, math.floor(centre + reach))
                for i in range(first, last + 1):
                    distance = abs(alpha * i + beta * outer + gamma - inner)
                    w = sinogram.dtype.type(weight * max(0.0, 1.0 - distance))
                    for y in range(y0, y1):
                        out[z, x, y] += w * sinogram[t, i, y]
