"""Gaussian mixtures on the CPU: rows of samples inside each ellipsoid, whole vectors along x.

The ends of a row are exact (float64), the exponentials are vectors of the data's precision. Evaluation runs over tiles
of the result that take their Gaussians in the order of their index, the sums run over Gaussians: nothing depends on the
number of threads, nor on where a grid starts as long as it starts at a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels.gaussians.bins import members_of_tiles
from gigascope.kernels.gaussians.cpu_adam import adam_, parameter_gradients
from gigascope.kernels.gaussians.cpu_points import evaluate_at
from gigascope.kernels.gaussians.frames import LOG2E_2, N_COLUMNS, WORK, prepare
from gigascope.kernels.gaussians.rows import ACROSS, BEGIN, COUNT, EXPONENT, MIDDLE, N_FIELDS, START, plan, scratch
from gigascope.kernels.parallel import inline_kernel, parallel_kernel
from gigascope.kernels.simd import (
    add,
    exp2,
    first_lanes,
    fma,
    lane_numbers,
    lanes_of,
    load_part,
    multiply,
    splat_like,
    store_part,
    subtract_product,
    take_number,
    total,
)

__all__ = ["adam_", "count_pairs", "evaluate", "evaluate_points", "moments", "parameter_gradients", "squared_sums"]

# planes of a tile of the result at most, rows at least: a Gaussian is looked up again in every tile that it reaches
TILE_Z, TILE_Y = 8, 16
# tiles per thread, so that all have work to the end
TILES_PER_THREAD = 4
# Gaussians that a thread takes at a time
BATCH = 16
# operations that a pair is worth, in the unit of `parallel.WORK_PER_THREAD`
PAIR = 4


def evaluate(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    cuts: Tensor,
    shape: Sequence[int],
    origin: Sequence[float],
    spacing: Sequence[float],
) -> Tensor:
    """See :func:`gigascope.kernels.gaussians.evaluate`; all contiguous."""
    frames, boxes = frames_of(means, log_scales, quaternions, cuts, shape, origin, spacing)
    if boxes.min(initial=0) < 0:
        return means.new_full(tuple(shape), torch.nan)
    out = means.new_empty(tuple(shape))
    tile = _tile(shape)
    n_tiles = math.ceil(shape[0] / tile[0]), math.ceil(shape[1] / tile[1]), 1
    starts, members = members_of_tiles(boxes, (*tile, shape[2]), n_tiles)
    lists = frames, boxes, _numpy(amplitudes), starts, members
    _evaluate(*lists, *tile, _counter(), out.numpy(), work=_work(boxes, out))
    return out


def moments(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    upstream: Tensor,
    origin: Sequence[float],
    spacing: Sequence[float],
) -> Tensor:
    """See :func:`gigascope.kernels.gaussians.moments`; all contiguous."""
    frames, boxes = frames_of(means, log_scales, quaternions, cuts, upstream.shape, origin, spacing)
    sums = means.new_empty(means.shape[0], 10)
    _moments(frames, boxes, _numpy(upstream), _counter(), sums.numpy(), work=2 * _work(boxes))
    return sums


def squared_sums(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    weight: Tensor,
    origin: Sequence[float],
    spacing: Sequence[float],
) -> Tensor:
    """See :func:`gigascope.kernels.gaussians.squared_sums`; all contiguous."""
    frames, boxes = frames_of(means, log_scales, quaternions, cuts, weight.shape, origin, spacing)
    sums = means.new_empty(means.shape[0])
    _squared_sums(frames, boxes, _numpy(weight), _counter(), sums.numpy(), work=_work(boxes))
    return sums


def evaluate_points(
    means: Tensor, log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, cuts: Tensor, points: Tensor
) -> Tensor:
    """See :func:`gigascope.kernels.gaussians.evaluate_points`; all contiguous."""
    frames, boxes = frames_of(means, log_scales, quaternions, cuts, (1, 1, 1), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return evaluate_at(frames, boxes, _numpy(amplitudes), points.detach())


def count_pairs(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    shape: Sequence[int],
    origin: Sequence[float],
    spacing: Sequence[float],
) -> int:
    """See :func:`gigascope.kernels.gaussians.count_pairs`; all contiguous."""
    frames, boxes = frames_of(means, log_scales, quaternions, cuts, shape, origin, spacing)
    counts = np.zeros(means.shape[0], np.int64)
    _count(frames, boxes, shape[1], shape[2], _counter(), counts, work=_work(boxes) / 8)
    return int(counts.sum())


def frames_of(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    cuts: Tensor,
    shape: Sequence[int],
    origin: Sequence[float],
    spacing: Sequence[float],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Frames and boxes of all Gaussians, see :func:`gigascope.kernels.gaussians.frames.prepare`."""
    n = means.shape[0]
    frames, boxes = np.empty((n, N_COLUMNS)), np.empty((n, 6), np.int64)
    grid = np.array(origin, np.float64), np.array(spacing, np.float64), np.array(shape, np.int64)
    arrays = (_numpy(array) for array in (means, log_scales, quaternions, cuts))
    prepare(*arrays, *grid, frames, boxes, work=WORK * n)
    return frames, boxes


def _numpy(tensor: Tensor) -> NDArray[np.floating]:
    return tensor.detach().numpy()


def _tile(shape: Sequence[int]) -> tuple[int, int]:
    """Planes and rows of a tile; the result does not depend on them."""
    n_tiles = TILES_PER_THREAD * numba.get_num_threads()
    n_z = min(TILE_Z, math.ceil(shape[0] / n_tiles))
    n_bands = math.ceil(n_tiles / math.ceil(shape[0] / n_z))
    return n_z, max(TILE_Y, math.ceil(shape[1] / n_bands))


def _counter() -> NDArray[np.int64]:
    """What threads take their next piece of work from, in its first number; one number per thread."""
    return np.zeros(numba.get_num_threads(), np.int64)


def _work(boxes: NDArray[np.int64], out: Tensor | None = None) -> float:
    """Operations of a pass over the boxes (half of a box is in its ellipsoid), and over the result."""
    pairs = 0.5 * float(np.prod(boxes[:, 1::2] - boxes[:, ::2], axis=1).sum())
    return PAIR * pairs + (0 if out is None else out.numel())


@parallel_kernel
def _evaluate(frames, boxes, amplitudes, starts, members, tile_z, tile_y, counter, out):
    n_z, n_y, n_x = out.shape
    tiles_y = (n_y + tile_y - 1) // tile_y
    target = out.reshape(-1)
    for _worker in prange(counter.size):
        rows, planes = scratch(n_y)
        while True:
            tile = take_number(counter)
            if tile >= starts.size - 1:
                break
            z0, y0 = tile // tiles_y * tile_z, tile % tiles_y * tile_y
            z1, y1 = min(z0 + tile_z, n_z), min(y0 + tile_y, n_y)
            out[z0:z1, y0:y1] = 0
            for k in range(starts[tile], starts[tile + 1]):
                i = members[k]
                box = boxes[i]
                window = max(z0, box[0]), min(z1, box[1]), max(y0, box[2]), min(y1, box[3])
                z = window[0]
                while z < window[1]:
                    n_rows, _, z = plan(frames[i], z, window, n_y, n_x, rows, planes)
                    _add_rows(target, frames[i], np.float64(amplitudes[i]), rows, n_rows)


@inline_kernel
def _add_rows(target, frame, amplitude, rows, n_rows):
    """Add one Gaussian to its planned rows."""
    lanes, numbers, capacity = lanes_of(target), lane_numbers(target), rows.size // N_FIELDS
    scales, amplitudes = splat_like(target, frame[5] * math.sqrt(LOG2E_2)), splat_like(target, amplitude)
    step = splat_like(target, float(lanes))
    for row in range(n_rows):
        n, at = np.int64(rows[COUNT * capacity + row]), np.int64(rows[START * capacity + row])
        exponent = splat_like(target, rows[EXPONENT * capacity + row])
        middle = splat_like(target, rows[MIDDLE * capacity + row])
        x = add(numbers, splat_like(target, rows[BEGIN * capacity + row]))
        while n > 0:
            part = min(lanes, n)
            c = fma(x, scales, middle)
            phi = first_lanes(exp2(subtract_product(c, c, exponent)), part)
            store_part(target, at, fma(amplitudes, phi, load_part(target, at, part)), part)
            x, at, n = add(x, step), at + lanes, n - lanes


@parallel_kernel
def _moments(frames, boxes, upstream, counter, sums):
    _, n_y, n_x = upstream.shape
    source = upstream.reshape(-1)
    n_batches = (boxes.shape[0] + BATCH - 1) // BATCH
    for _worker in prange(counter.size):
        rows, planes = scratch(n_y)
        while True:
            batch = take_number(counter)
            if batch >= n_batches:
                break
            for i in range(batch * BATCH, min((batch + 1) * BATCH, boxes.shape[0])):
                if boxes[i, 0] < 0:
                    sums[i] = np.nan
                    continue
                sums[i] = 0
                window = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
                z = window[0]
                while z < window[1]:
                    _, n_planes, z = plan(frames[i], z, window, n_y, n_x, rows, planes)
                    _own_axes(_gather(source, frames[i], rows, planes, n_planes), frames[i], sums[i])


@inline_kernel
def _gather(source, frame, rows, planes, n_planes):
    """Sums of g phi times 1, c_z, c_y, c_x, c_z^2, c_y^2, c_x^2, c_y c_x, c_z c_x, c_z c_y, each times a power of k."""
    lanes, numbers, zero = lanes_of(source), lane_numbers(source), splat_like(source, 0.0)
    scales, step = splat_like(source, frame[5] * math.sqrt(LOG2E_2)), splat_like(source, float(lanes))
    capacity, last = rows.size // N_FIELDS, 0
    s, s_z, s_zz, s_y, s_yy, s_yz, s_x, s_xz, s_xy, s_xx = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for plane in range(n_planes):
        p, p_y, p_yy, p_x, p_xy, p_xx = zero, zero, zero, zero, zero, zero
        first, last = last, last + np.int64(planes[2 * plane])
        for row in range(first, last):
            n, at = np.int64(rows[COUNT * capacity + row]), np.int64(rows[START * capacity + row])
            exponent = splat_like(source, rows[EXPONENT * capacity + row])
            middle = splat_like(source, rows[MIDDLE * capacity + row])
            across = splat_like(source, rows[ACROSS * capacity + row])
            x = add(numbers, splat_like(source, rows[BEGIN * capacity + row]))
            while n > 0:
                part = min(lanes, n)
                c = fma(x, scales, middle)
                phi = first_lanes(exp2(subtract_product(c, c, exponent)), part)
                g = multiply(phi, load_part(source, at, part))
                g_x, g_y = multiply(g, c), multiply(g, across)
                p, p_x, p_y = add(p, g), add(p_x, g_x), add(p_y, g_y)
                p_xx, p_xy, p_yy = fma(g_x, c, p_xx), fma(g_x, across, p_xy), fma(g_y, across, p_yy)
                x, at, n = add(x, step), at + lanes, n - lanes
        c_z = splat_like(source, planes[2 * plane + 1])
        g_z = multiply(p, c_z)
        s, s_z, s_zz = add(s, p), add(s_z, g_z), fma(g_z, c_z, s_zz)
        s_y, s_yz, s_yy = add(s_y, p_y), fma(p_y, c_z, s_yz), add(s_yy, p_yy)
        s_x, s_xz, s_xy, s_xx = add(s_x, p_x), fma(p_x, c_z, s_xz), add(s_xy, p_xy), add(s_xx, p_xx)
    return (
        (np.float64(total(s)), np.float64(total(s_z)), np.float64(total(s_y)), np.float64(total(s_x))),
        (np.float64(total(s_zz)), np.float64(total(s_yy)), np.float64(total(s_xx))),
        (np.float64(total(s_xy)), np.float64(total(s_xz)), np.float64(total(s_yz))),
    )


@inline_kernel
def _own_axes(gathered, frame, sums):
    """Add sums in nested coordinates to sums along the own axes: s1 = Q s, M = Q S Q^T."""
    first, squares, mixed = gathered
    q = frame[10:19].reshape(3, 3)
    per_k = 1 / LOG2E_2
    per_root = math.sqrt(per_k)
    sums[0] += first[0]
    for i in range(3):
        sums[1 + i] += per_root * (q[i, 0] * first[1] + q[i, 1] * first[2] + q[i, 2] * first[3])
    for pair in range(6):
        i = pair if pair < 3 else (1 if pair == 3 else 0)
        j = pair if pair < 3 else (2 if pair < 5 else 1)
        value = q[i, 0] * q[j, 0] * squares[0] + q[i, 1] * q[j, 1] * squares[1] + q[i, 2] * q[j, 2] * squares[2]
        value += (q[i, 1] * q[j, 2] + q[i, 2] * q[j, 1]) * mixed[0]
        value += (q[i, 0] * q[j, 2] + q[i, 2] * q[j, 0]) * mixed[1]
        value += (q[i, 0] * q[j, 1] + q[i, 1] * q[j, 0]) * mixed[2]
        sums[4 + pair] += per_k * value


@parallel_kernel
def _squared_sums(frames, boxes, weight, counter, sums):
    _, n_y, n_x = weight.shape
    source = weight.reshape(-1)
    n_batches = (boxes.shape[0] + BATCH - 1) // BATCH
    for _worker in prange(counter.size):
        rows, planes = scratch(n_y)
        while True:
            batch = take_number(counter)
            if batch >= n_batches:
                break
            for i in range(batch * BATCH, min((batch + 1) * BATCH, boxes.shape[0])):
                if boxes[i, 0] < 0:
                    sums[i] = np.nan
                    continue
                sums[i] = 0
                window = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
                z = window[0]
                while z < window[1]:
                    _, n_planes, z = plan(frames[i], z, window, n_y, n_x, rows, planes)
                    sums[i] += _gather_squared(source, frames[i], rows, planes, n_planes)


@inline_kernel
def _gather_squared(source, frame, rows, planes, n_planes):
    """Sum of w phi^2 over planned rows."""
    lanes, numbers, zero = lanes_of(source), lane_numbers(source), splat_like(source, 0.0)
    scales, step = splat_like(source, frame[5] * math.sqrt(LOG2E_2)), splat_like(source, float(lanes))
    capacity, last, s = rows.size // N_FIELDS, 0, zero
    for plane in range(n_planes):
        p = zero  # a sum per plane: long sums lose digits
        first, last = last, last + np.int64(planes[2 * plane])
        for row in range(first, last):
            n, at = np.int64(rows[COUNT * capacity + row]), np.int64(rows[START * capacity + row])
            exponent = splat_like(source, rows[EXPONENT * capacity + row])
            middle = splat_like(source, rows[MIDDLE * capacity + row])
            x = add(numbers, splat_like(source, rows[BEGIN * capacity + row]))
            while n > 0:
                part = min(lanes, n)
                c = fma(x, scales, middle)
                phi = first_lanes(exp2(subtract_product(c, c, exponent)), part)
                p = fma(multiply(phi, load_part(source, at, part)), phi, p)
                x, at, n = add(x, step), at + lanes, n - lanes
        s = add(s, p)
    return total(s)


@parallel_kernel
def _count(frames, boxes, n_y, n_x, counter, counts):
    for _worker in prange(counter.size):
        rows, planes = scratch(n_y)
        capacity = rows.size // N_FIELDS
        while True:
            i = take_number(counter)
            if i >= boxes.shape[0]:
                break
            window, n = (boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]), 0.0
            z = max(window[0], 0)
            while z < window[1]:
                n_rows, _, z = plan(frames[i], z, window, n_y, n_x, rows, planes)
                for row in range(n_rows):
                    n += max(rows[COUNT * capacity + row], 0.0)
            counts[i] = np.int64(n)
