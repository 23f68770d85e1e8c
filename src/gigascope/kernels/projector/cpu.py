"""Projector on the CPU: coefficients of a small tile of rays once, then sums of rows of y held in vector registers.

Both directions are the same sum: a row of the result (of a ray, or of a voxel) is a list of pairs of neighbouring rows
of the source times two weights. `_ray_tile` and `_voxel_tile` make the lists for a tile, `_add_pairs` applies them.
Every row of the result belongs to one iteration of the parallel loop and receives its terms in a fixed order.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import prange
from torch import Tensor

from gigascope.kernels.parallel import inline_kernel, parallel_kernel
from gigascope.kernels.projector.coefficients import ray_table, remembered, sample_table
from gigascope.kernels.simd import fma, lanes_of, load, load_part, splat, store, store_part

# tile of the lists: 16 results x 16 pairs take 6 KB, and the 3 source rows that a result shares with the next one
# stay in the first cache for 16 pairs (measured: 8 x 8 to 16 x 16 equal within the spread, 32 slower)
TILE = 16
# vectors of y per pass, held in registers: two rows each of 64 floats
VECTORS = 4
# passes over y that share one tile's coefficients
PASSES = 2


def project(volume: Tensor, angles: Tensor, n_s: int, hz: float = 1.0, out: Tensor | None = None) -> Tensor:
    """See :func:`gigascope.kernels.projector.project`; `volume` contiguous."""
    table = remembered(ray_table, angles, volume.device, n_s, (volume.shape[0], volume.shape[1]), hz)
    if out is None:
        out = volume.new_empty(angles.shape[0], n_s, volume.shape[2])
    work = 4 * volume.shape[0] * out.numel()
    # neighbouring views share the volume's rows in the second cache; enough tasks for all threads come first
    n_tasks = 4 * numba.get_num_threads()
    n_views = min(16, max(1, out.shape[0] * _n_columns(volume) // n_tasks))
    _project(volume.detach().numpy(), table.numpy(), n_views, out.detach().numpy(), work=work)
    return out


def backproject(
    sinogram: Tensor, angles: Tensor, shape_zx: tuple[int, int], hz: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """See :func:`gigascope.kernels.projector.backproject`; `sinogram` contiguous."""
    table = remembered(sample_table, angles, sinogram.device, sinogram.shape[1], shape_zx, hz)
    if out is None:
        out = sinogram.new_empty(*shape_zx, sinogram.shape[2])
    work = 4 * shape_zx[0] * sinogram.numel()
    n_tasks = 4 * numba.get_num_threads()
    n_planes = min(8, max(1, out.shape[0] * _n_columns(sinogram) // n_tasks))
    _backproject(sinogram.detach().numpy(), table.numpy(), n_planes, out.detach().numpy(), work=work)
    return out


def _n_columns(array: Tensor) -> int:
    """Pieces of y that the parallel loops cut an array into."""
    return math.ceil(array.shape[2] * array.element_size() / (64 * VECTORS * PASSES))


@inline_kernel
def _add_pairs(target, first_row, n_rows, source, step, offsets, weights, lower, upper, n_y, y, width):
    """Add to each row of the target its pairs of source rows, over `width` samples from y on."""
    lanes = lanes_of(source)
    for r in range(n_rows):
        begin, end = lower[r], upper[r]
        if begin >= end:
            continue
        row = (first_row + r) * n_y + y
        if width == VECTORS * lanes:
            a, b = load(target, row), load(target, row + lanes)
            c, d = load(target, row + 2 * lanes), load(target, row + 3 * lanes)
            for k in range(begin, end):
                p = offsets[k, r] + y
                q = p + step
                v, w = splat(weights[0, k, r]), splat(weights[1, k, r])
                a = fma(w, load(source, q), fma(v, load(source, p), a))
                b = fma(w, load(source, q + lanes), fma(v, load(source, p + lanes), b))
                c = fma(w, load(source, q + 2 * lanes), fma(v, load(source, p + 2 * lanes), c))
                d = fma(w, load(source, q + 3 * lanes), fma(v, load(source, p + 3 * lanes), d))
            store(target, row, a)
            store(target, row + lanes, b)
            store(target, row + 2 * lanes, c)
            store(target, row + 3 * lanes, d)
        else:
            for start in range(0, width, lanes):
                n = min(lanes, width - start)
                a = load_part(target, row + start, n)
                for k in range(begin, end):
                    p = offsets[k, r] + y + start
                    v, w = splat(weights[0, k, r]), splat(weights[1, k, r])
                    a = fma(w, load_part(source, p + step, n), fma(v, load_part(source, p, n), a))
                store_part(target, row + start, a, n)


@inline_kernel
def _add_tile(target, first_row, n_rows, source, step, offsets, weights, lower, upper, n_y, y0, y1):
    """`_add_pairs` over the pieces of y of one task."""
    piece = VECTORS * lanes_of(source)
    for y in range(y0, y1, piece):
        width = min(piece, y1 - y)
        _add_pairs(target, first_row, n_rows, source, step, offsets, weights, lower, upper, n_y, y, width)


@inline_kernel
def _ray_tile(line, first_i, n_rows, first_m, n_outer, n_inner, strides, offsets, weights, lower, upper):
    """Lists of the rays i of one view over the planes or columns m of a tile."""
    alpha, beta, gamma, g = line[1], line[2], line[3], line[4]
    last = max(n_inner - 2.0, 0.0)
    both = 1.0 if n_inner > 1 else 0.0
    for k in range(n_outer):
        start = (first_m + k) * strides[0]
        base = beta * (first_m + k) + gamma
        for r in range(n_rows):
            position = alpha * (first_i + r) + base
            # the pair is moved inside at a border; weights follow from the distance and vanish where it left the ray
            low = min(max(math.floor(position), 0.0), last)
            distance = position - low
            weights[0, k, r] = g * max(0.0, 1.0 - abs(distance))
            weights[1, k, r] = both * g * max(0.0, 1.0 - abs(distance - 1.0))
            offsets[k, r] = start + np.int64(low) * strides[1]
    for r in range(n_rows):
        base = alpha * (first_i + r) + gamma
        if beta == 0.0:
            lower[r], upper[r] = 0, n_outer
        else:
            # where the ray is within one voxel of the grid; one more on each side costs nothing but zeros
            one, two = (-1.0 - base) / beta - first_m, (n_inner - base) / beta - first_m
            lower[r] = np.int64(min(max(math.floor(min(one, two)), 0.0), float(n_outer)))
            upper[r] = np.int64(max(min(math.ceil(max(one, two)) + 1.0, float(n_outer)), 0.0))


@parallel_kernel
def _project(volume, table, n_views, out):
    n_z, n_x, n_y = volume.shape
    n_t, n_s, _ = out.shape
    source, target = volume.reshape(-1), out.reshape(-1)
    span = PASSES * VECTORS * lanes_of(source)
    n_groups = (n_t + n_views - 1) // n_views
    for task in prange((n_y + span - 1) // span * n_groups):
        y0 = task // n_groups * span
        y1 = min(y0 + span, n_y)
        first_t = task % n_groups * n_views
        last_t = min(first_t + n_views, n_t)
        offsets = np.empty((TILE, TILE), np.int64)
        weights = np.empty((2, TILE, TILE), source.dtype)
        lower, upper = np.empty(TILE, np.int64), np.empty(TILE, np.int64)
        out[first_t:last_t, :, y0:y1] = 0
        for m in range(0, max(n_z, n_x), TILE):
            for i in range(0, n_s, TILE):
                n_rows = min(TILE, n_s - i)
                for t in range(first_t, last_t):
                    by_columns = table[t, 0] != 0.0
                    n_inner = n_z if by_columns else n_x
                    n_outer = min(TILE, (n_x if by_columns else n_z) - m)
                    strides = (n_y, n_x * n_y) if by_columns else (n_x * n_y, n_y)
                    along, across = table[t, 1] * (n_rows - 1), table[t, 2] * (n_outer - 1)
                    corner = table[t, 1] * i + table[t, 2] * m + table[t, 3]
                    least = corner + min(along, 0.0) + min(across, 0.0)
                    most = corner + max(along, 0.0) + max(across, 0.0)
                    if n_outer <= 0 or most <= -1.0 or least >= n_inner:
                        continue
                    _ray_tile(table[t], i, n_rows, m, n_outer, n_inner, strides, offsets, weights, lower, upper)
                    step = strides[1] if n_inner > 1 else 0
                    row = t * n_s + i
                    _add_tile(target, row, n_rows, source, step, offsets, weights, lower, upper, n_y, y0, y1)


@inline_kernel
def _voxel_tile(table, first_line, last_line, z, first_x, n_rows, n_s, n_y, offsets, weights):
    """Lists of the voxels x of one plane z over some lines of the table; returns how many lines touch the tile."""
    last = max(n_s - 2.0, 0.0)
    n_pairs = 0
    for line in range(first_line, last_line):
        factor, reach, g, shift = table[line, 1], table[line, 4], table[line, 5], table[line, 6]
        base = factor * first_x + table[line, 2] * z + table[line, 3]
        far = base + factor * (n_rows - 1)
        if max(base, far) + reach <= 0.0 or min(base, far) - reach >= n_s - 1.0:
            continue
        start = np.int64(table[line, 0]) * n_s
        per_reach = 1.0 / reach
        for r in range(n_rows):
            position = base + factor * r
            first = math.floor(position - reach) + 1.0 + shift
            # moved inside at a border, but a line never takes the samples of the next one
            low = min(max(first, 0.0), last)
            moved = low - first
            distance = low - position
            w0 = g * max(0.0, 1.0 - abs(distance) * per_reach)
            w1 = g * max(0.0, 1.0 - abs(distance + 1.0) * per_reach)
            weights[0, n_pairs, r] = w0 if (moved >= 0.0) & (moved <= 1.0) else 0.0
            weights[1, n_pairs, r] = w1 if (moved >= -1.0) & (moved <= 0.0) & (n_s > 1) else 0.0
            offsets[n_pairs, r] = (start + np.int64(low)) * n_y
        n_pairs += 1
    return n_pairs


@parallel_kernel
def _backproject(sinogram, table, n_planes, out):
    n_z, n_x, n_y = out.shape
    _, n_s, _ = sinogram.shape
    source, target = sinogram.reshape(-1), out.reshape(-1)
    span = PASSES * VECTORS * lanes_of(source)
    n_slabs = (n_z + n_planes - 1) // n_planes
    step = n_y if n_s > 1 else 0
    for task in prange((n_y + span - 1) // span * n_slabs):
        y0 = task // n_slabs * span
        y1 = min(y0 + span, n_y)
        first_z = task % n_slabs * n_planes
        last_z = min(first_z + n_planes, n_z)
        offsets = np.empty((TILE, TILE), np.int64)
        weights = np.empty((2, TILE, TILE), source.dtype)
        lower, upper = np.zeros(TILE, np.int64), np.empty(TILE, np.int64)
        out[first_z:last_z, :, y0:y1] = 0
        for x in range(0, n_x, TILE):
            n_rows = min(TILE, n_x - x)
            for first in range(0, table.shape[0], TILE):
                last = min(first + TILE, table.shape[0])
                for z in range(first_z, last_z):
                    upper[:] = _voxel_tile(table, first, last, z, x, n_rows, n_s, n_y, offsets, weights)
                    row = z * n_x + x
                    _add_tile(target, row, n_rows, source, step, offsets, weights, lower, upper, n_y, y0, y1)
