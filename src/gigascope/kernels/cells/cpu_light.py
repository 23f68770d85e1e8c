"""Light on the CPU: rays as columns of a sheared frame, rows over threads; exponentials are vectors."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import prange
from torch import Tensor

from gigascope.kernels.cells.reference_light import Places
from gigascope.kernels.parallel import inline_kernel, parallel_kernel
from gigascope.kernels.simd import exp2, lanes_of, larger, load_part, multiply, splat_like, store_part

LOG2E = 1.4426950408889634
# operations per voxel, in the unit of `parallel.WORK_PER_THREAD`
VOXEL = 20.0


def cone_depth(mu: Tensor, slopes: list[list[float]]) -> Tensor:
    """See :func:`gigascope.kernels.cells.light.cone_depth`; `mu` contiguous."""
    n_z, n_y, n_x = mu.shape
    transmitted = np.zeros((n_z, n_y, n_x), np.float32)
    for along_y, along_x in slopes:
        low = [min(0, math.floor((n_z - 1) * s)) - 1 for s in (along_y, along_x)]
        high = [n + max(0, math.ceil((n_z - 1) * s)) + 1 for n, s in zip((n_y, n_x), (along_y, along_x))]
        sums = np.zeros((high[0] - low[0], n_z, high[1] - low[1]), np.float32)
        work = VOXEL * sums.size
        _sum_rays(mu.numpy(), along_y, along_x, low[0], low[1], sums, work=work)
        scale = np.float32(-LOG2E * math.hypot(1.0, along_y, along_x))
        _transmit(sums, along_y, along_x, low[0], low[1], scale, transmitted, work=work)
    return -torch.log(torch.from_numpy(transmitted) / len(slopes))


def attenuate_(density: Tensor, tau: Tensor, places: Places) -> None:
    """See :func:`gigascope.kernels.cells.light.attenuate_`; contiguous."""
    _read(tau.numpy(), *_arrays(places), True, density.numpy(), work=VOXEL * density.numel())


def read_out(grid: Tensor, places: Places) -> Tensor:
    """See :func:`gigascope.kernels.cells.light.read_out`; contiguous."""
    out = torch.empty([len(below) for below, _ in places], dtype=torch.float32)
    _read(grid.numpy(), *_arrays(places), False, out.numpy(), work=VOXEL * out.numel())
    return out


def _arrays(places: Places) -> list[np.ndarray]:
    return [array.numpy() for pair in places for array in pair]


@inline_kernel
def _add_shifted(source, at, weight, line):
    """Add `weight` times the source, moved by `at` samples to the right and interpolated, to a line."""
    n, n_line = source.size, line.size
    whole = math.floor(at)
    part = np.float32(at - whole)
    near, far = weight * (np.float32(1.0) - part), weight * part
    # line[X] takes source[X - at]: source[X - whole] and, by `part`, its neighbour to the left
    low, high = max(0, int(whole)), min(n_line, n + int(whole))
    for x in range(low, high):
        line[x] += near * source[x - int(whole)]
    low, high = max(0, int(whole) + 1), min(n_line, n + int(whole) + 1)
    for x in range(low, high):
        line[x] += far * source[x - int(whole) - 1]


@parallel_kernel
def _sum_rays(mu, along_y, along_x, low_y, low_x, sums):
    """Prefix sums along the rays: (Y, z, X) with half of the own layer."""
    n_z, n_y, _ = mu.shape
    half, one = np.float32(0.5), np.float32(1.0)
    for row in prange(sums.shape[0]):
        total = np.zeros(sums.shape[2], np.float32)
        here = np.empty(sums.shape[2], np.float32)
        for z in range(n_z):
            at = row + low_y - z * along_y
            y = math.floor(at)
            part = np.float32(at - y)
            here[:] = 0
            shift = z * along_x - low_x
            if 0 <= y < n_y:
                _add_shifted(mu[z, y], shift, one - part, here)
            if 0 <= y + 1 < n_y:
                _add_shifted(mu[z, y + 1], shift, part, here)
            out = sums[row, z]
            for x in range(total.size):
                out[x] = total[x] + half * here[x]
                total[x] += here[x]


@inline_kernel
def _multiply_exp2(exponents, n, target):
    """Multiply the first n samples of a contiguous target by 2^exponent."""
    lanes, least = lanes_of(target), splat_like(target, -126.0)
    x = 0
    while x < n:
        part = min(lanes, n - x)
        power = exp2(larger(load_part(exponents, x, part), least))
        store_part(target, x, multiply(power, load_part(target, x, part)), part)
        x += lanes


@parallel_kernel
def _transmit(sums, along_y, along_x, low_y, low_x, scale, transmitted):
    """Add 2^(scale * sum along the ray) of every cell."""
    n_z, n_y, n_x = transmitted.shape
    one = np.float32(1.0)
    for row in prange(n_z * n_y):
        z, y = row // n_y, row % n_y
        at_y = y + z * along_y - low_y
        at_x = z * along_x - low_x
        top, left = math.floor(at_y), math.floor(at_x)
        part_y, part_x = np.float32(at_y - top), np.float32(at_x - left)
        above, below = sums[top, z], sums[min(top + 1, sums.shape[0] - 1), z]
        exponents, powers = np.empty(n_x, np.float32), np.ones(n_x, np.float32)
        for x in range(n_x):
            first = (one - part_y) * above[left + x] + part_y * below[left + x]
            second = (one - part_y) * above[left + x + 1] + part_y * below[left + x + 1]
            exponents[x] = scale * (first + part_x * (second - first))
        _multiply_exp2(exponents, n_x, powers)
        out = transmitted[z, y]
        for x in range(n_x):
            out[x] += powers[x]


@parallel_kernel
def _read(grid, cell_z, part_z, cell_y, part_y, cell_x, part_x, attenuates, out):
    """Interpolate into `out`, or multiply it by exp(-value)."""
    n_z, n_y, n_x = out.shape
    last_z, last_y, n_cells = grid.shape[0] - 1, grid.shape[1] - 1, grid.shape[2]
    one, minus = np.float32(1.0), np.float32(-LOG2E)
    for row in prange(n_z * n_y):
        z, y = row // n_y, row % n_y
        a, b = cell_z[z], min(cell_z[z] + 1, last_z)
        c, d = cell_y[y], min(cell_y[y] + 1, last_y)
        w_z, w_y = part_z[z], part_y[y]
        cells, values = np.empty(n_cells + 1, np.float32), np.empty(n_x, np.float32)
        for x in range(n_cells):
            near = (one - w_y) * grid[a, c, x] + w_y * grid[a, d, x]
            far = (one - w_y) * grid[b, c, x] + w_y * grid[b, d, x]
            cells[x] = near + w_z * (far - near)
        cells[n_cells] = cells[n_cells - 1]
        for x in range(n_x):
            first = cells[cell_x[x]]
            values[x] = first + part_x[x] * (cells[cell_x[x] + 1] - first)
        target = out[z, y]
        if attenuates:
            for x in range(n_x):
                values[x] *= minus
            _multiply_exp2(values, n_x, target)
        else:
            for x in range(n_x):
                target[x] = values[x]
