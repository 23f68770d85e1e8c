"""Gaussian mixtures at points on the CPU: points sorted into cells, each cell with the Gaussians that reach it.

In float64 throughout: whether a point is inside a cut is decided as on a grid.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels.gaussians.bins import members_of_tiles
from gigascope.kernels.gaussians.frames import LOG2E_2, half_sizes
from gigascope.kernels.parallel import inline_kernel, parallel_kernel, serial_kernel
from gigascope.kernels.simd import (
    add,
    exp2,
    fma,
    lanes_of,
    load_part,
    multiply,
    splat,
    store_part,
    subtract,
    take_number,
    zero_from,
)

# least edge of a cell, voxels: Gaussians of sigma 2 reach 21 cells, and a point looks at 4 times the pairs it needs
CELL = 8
# cells and entries of the lists that are worth their memory, per Gaussian and point
ENTRIES = 32
# cells that a thread takes at a time
BATCH = 16
# operations of a pair that is looked at
PAIR = 8


def evaluate_at(
    frames: NDArray[np.float64], boxes: NDArray[np.int64], amplitudes: NDArray[np.floating], points: Tensor
) -> Tensor:
    """Values at points (P, 3) of Gaussians whose frames are in voxels from the origin; those of unknown place are NaN.

    Parameters
    ----------
    frames, boxes : of :func:`gigascope.kernels.gaussians.frames.prepare`, spacing 1
    amplitudes : (N,)
    points : (P, 3)

    Returns
    -------
    (P,) like `points`
    """
    if boxes.min(initial=0) < 0:
        return torch.full_like(points[:, 0], torch.nan)
    known = points.isfinite().all(dim=1)
    if not len(points) or not len(frames):
        return torch.where(known, points.new_zeros(()), torch.nan)
    positions = torch.where(known[:, None], points, 0.0).double().T.contiguous().numpy()
    low = positions.min(axis=1)
    cells, edge, n_cells = _cells(frames, low, positions.max(axis=1), positions.shape[1])
    starts, members = members_of_tiles(cells, (1, 1, 1), n_cells)
    place = np.empty(positions.shape[1], np.int64)
    begins, columns = np.zeros(len(starts), np.int64), np.empty_like(positions)
    _sort(positions, low, edge, np.array(n_cells), begins, place, columns)
    values, counter = np.zeros(len(place)), np.zeros(numba.get_num_threads(), np.int64)
    pairs = float((np.diff(starts) * np.diff(begins)).sum())
    _evaluate(frames, amplitudes, starts, members, begins, columns, values, counter, work=PAIR * pairs)
    return torch.where(known, torch.from_numpy(values[place]).to(points.dtype), torch.nan)


def _cells(
    frames: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], n_points: int
) -> tuple[NDArray[np.int64], float, tuple[int, int, int]]:
    """Cells (first and one past the last per axis) of every Gaussian, their edge, and how many there are."""
    edge, cells = float(CELL), np.empty((len(frames), 6), np.int64)
    while True:
        n = tuple(int(count) for count in (high - low) / edge + 1)
        _ranges(frames, low, edge, np.array(n), cells, work=16 * len(frames))
        entries = float(np.prod(cells[:, 1::2] - cells[:, ::2], axis=1).sum()) + float(np.prod(np.array(n, float)))
        if entries <= ENTRIES * (len(frames) + n_points) + 4096:
            return cells, edge, (n[0], n[1], n[2])
        edge *= 2


@parallel_kernel
def _ranges(frames, low, edge, n_cells, cells):
    for i in prange(frames.shape[0]):
        halves = half_sizes(frames[i])
        for j in range(3):
            # the margin is rounding
            half = halves[j] * (1 + 1e-9) + 1e-9
            first, last = (frames[i, j] - half - low[j]) / edge, (frames[i, j] + half - low[j]) / edge
            outside = last < 0 or first >= n_cells[j] or frames[i, 9] <= 0
            cells[i, 2 * j] = 0 if outside else np.int64(max(first, 0.0))
            cells[i, 2 * j + 1] = 0 if outside else np.int64(min(last, n_cells[j] - 1.0)) + 1


@serial_kernel
def _sort(positions, low, edge, n_cells, begins, place, columns):
    """Counting sort: where each cell begins, where each point goes, and the points there."""
    for p in range(place.size):
        cell = np.int64(0)
        for j in range(3):
            cell = cell * n_cells[j] + min(np.int64((positions[j, p] - low[j]) / edge), n_cells[j] - 1)
        place[p] = cell
        begins[cell + 1] += 1
    for cell in range(1, begins.size):
        begins[cell] += begins[cell - 1]
    ends = begins.copy()
    for p in range(place.size):
        at = ends[place[p]]
        ends[place[p]] += 1
        place[p] = at
        for j in range(3):
            columns[j, at] = positions[j, p]


@parallel_kernel
def _evaluate(frames, amplitudes, starts, members, begins, columns, values, counter):
    n_batches = (starts.size - 1 + BATCH - 1) // BATCH
    for _worker in prange(counter.size):
        while True:
            batch = take_number(counter)
            if batch >= n_batches:
                break
            for cell in range(batch * BATCH, min((batch + 1) * BATCH, starts.size - 1)):
                if begins[cell] == begins[cell + 1]:
                    continue
                for j in range(starts[cell], starts[cell + 1]):
                    i = members[j]
                    _add_gaussian(values, columns, frames[i], np.float64(amplitudes[i]), begins[cell], begins[cell + 1])


@inline_kernel
def _add_gaussian(values, columns, frame, amplitude, begin, end):
    """Add one Gaussian to the points of a cell."""
    lanes = lanes_of(values)
    z, y, x = columns[0], columns[1], columns[2]
    for at in range(begin, end, lanes):
        n = min(lanes, end - at)
        d_z = subtract(load_part(z, at, n), splat(frame[0]))
        d_y = subtract(load_part(y, at, n), splat(frame[1]))
        d_x = subtract(load_part(x, at, n), splat(frame[2]))
        c_z = multiply(splat(frame[3]), d_z)
        c_y = multiply(splat(frame[4]), fma(splat(frame[6]), d_z, d_y))
        c_x = multiply(splat(frame[5]), fma(splat(frame[7]), d_y, fma(splat(frame[8]), d_z, d_x)))
        m = fma(c_x, c_x, fma(c_y, c_y, multiply(c_z, c_z)))
        phi = zero_from(m, splat(frame[9]), exp2(multiply(splat(-LOG2E_2), m)))
        store_part(values, at, add(multiply(splat(amplitude), phi), load_part(values, at, n)), n)
