"""Labels, brightness and volume fraction of nuclei on the CPU: tiles over threads, each with the list of its nuclei."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels.cells.bodies import Bodies, Grid, bodies_near
from gigascope.kernels.cells.cpu_ownership import EVALUATION, own_tile, own_voxels, scratch, vote
from gigascope.kernels.cells.cpu_shading import shade_tile
from gigascope.kernels.cells.packing import Looks, look_rows
from gigascope.kernels.cells.table import NucleiTable
from gigascope.kernels.gaussians.bins import members_of_tiles
from gigascope.kernels.parallel import exact_inline_kernel, exact_parallel_kernel
from gigascope.kernels.simd import take_number

# samples of a tile: 128 KiB for each of its float32 arrays, and long lines
TILE = (8, 32, 128)
# operations of a sample inside, beside its evaluations
SHADING = 150.0


class _Tiles(NamedTuple):
    """Tiles of a block and the bodies of each, ascending."""

    size: NDArray[np.int64]
    number: NDArray[np.int64]
    starts: NDArray[np.int64]
    members: NDArray[np.int64]
    counter: NDArray[np.int64]


def labels(table: NucleiTable, grid: Grid, gap: float, subsample: int) -> Tensor:
    """See :func:`gigascope.kernels.cells.labels`; `grid` is that of the sub-samples."""
    shape = [n // subsample for n in grid.shape]
    out = np.zeros(shape, np.int32)
    bodies = bodies_near(table, grid, gap)
    tiles = _tiles(bodies, grid, subsample)
    names = bodies.number.numpy().astype(np.int32) + np.int32(1)
    _labels(*_numbers(bodies, grid, gap), *tiles, names, subsample, out, work=_work(bodies))
    return torch.from_numpy(out)


def fraction(table: NucleiTable, grid: Grid, gap: float, subsample: int) -> Tensor:
    """See :func:`gigascope.kernels.cells.fraction`; `grid` is that of the sub-samples."""
    out = np.zeros([n // subsample for n in grid.shape], np.float32)
    bodies = bodies_near(table, grid, gap)
    tiles = _tiles(bodies, grid, subsample)
    _fraction(*_numbers(bodies, grid, gap), *tiles, subsample, out, work=_work(bodies))
    out *= np.float32(1.0 / subsample**3)
    return torch.from_numpy(out)


def density(table: NucleiTable, grid: Grid, gap: float) -> Tensor:
    """See :func:`gigascope.kernels.cells.density`."""
    out = np.zeros(grid.shape, np.float32)
    bodies = bodies_near(table, grid, gap)
    looks: Looks = look_rows(table.rows(bodies.number))
    arrays = [tensor.numpy() for tensor in looks]
    library = table.crops.numpy().view(np.uint16).reshape(-1)
    tiles = _tiles(bodies, grid, 1)
    work = (1 + SHADING / EVALUATION) * _work(bodies)
    _density(*_numbers(bodies, grid, gap), *tiles, *arrays, library, half_values(), out.reshape(-1), work=work)
    return torch.from_numpy(out)


def half_values() -> NDArray[np.float32]:
    """float32 of every pattern of 16 bits: numba has no float16 on the CPU."""
    return np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16).astype(np.float32)


def _numbers(bodies: Bodies, grid: Grid, gap: float) -> tuple[NDArray[np.generic] | float | int, ...]:
    arrays = (bodies.boxes, bodies.centres, bodies.rows, bodies.forms)
    sizes = np.array(grid.first), np.array(grid.shape), np.array(grid.step)
    return (*sizes, *(tensor.numpy() for tensor in arrays), bodies.degree, bodies.limit, gap)


def _tiles(bodies: Bodies, grid: Grid, subsample: int) -> _Tiles:
    """Whole voxels to a tile; lines as long as the block where it is narrow."""
    size = [max(subsample, min(t, n) // subsample * subsample) for t, n in zip(TILE, grid.shape)]
    number = [math.ceil(n / t) for n, t in zip(grid.shape, size)]
    starts, members = members_of_tiles(bodies.boxes.numpy(), (size[0], size[1], size[2]), tuple(number))  # type: ignore[arg-type]
    counter = np.zeros(numba.get_num_threads(), np.int64)
    return _Tiles(np.array(size), np.array(number), starts, members, counter)


def _work(bodies: Bodies) -> float:
    boxes = bodies.boxes.numpy()
    return EVALUATION * 0.5 * float(np.prod(boxes[:, 1::2] - boxes[:, ::2], axis=1).sum())


@exact_inline_kernel
def _window(tile, number, size, shape):
    """First sample of a tile in the block, and how many it has."""
    t0, t1, t2 = tile // (number[1] * number[2]), tile // number[2] % number[1], tile % number[2]
    z, y, x = t0 * size[0], t1 * size[1], t2 * size[2]
    return (z, y, x), (min(size[0], shape[0] - z), min(size[1], shape[1] - y), min(size[2], shape[2] - x))


@exact_parallel_kernel
def _labels(
    first, shape, step, boxes, centres, rows, forms, degree, limit, gap, size, number, starts, members, counter,
    names, subsample, out,
):  # fmt: skip
    for _worker in prange(counter.size):
        best, second, distance, owner, dx = scratch(size, gap)
        middle = np.empty(best.size // subsample**3, np.float32)
        seen, votes = np.empty(subsample**3, np.float32), np.empty(subsample**3, np.int64)
        while True:
            tile = take_number(counter)
            if tile >= starts.size - 1:
                break
            mine = members[starts[tile] : starts[tile + 1]]
            if mine.size == 0:
                continue
            at, n = _window(tile, number, size, shape)
            begin = first[0] + at[0], first[1] + at[1], first[2] + at[2]
            own_voxels(
                begin, n, step, subsample, mine, boxes, first, centres, rows, forms, degree, limit, gap,
                best, second, distance, owner, dx, middle,
            )  # fmt: skip
            for z in range(n[0] // subsample):
                for y in range(n[1] // subsample):
                    for x in range(n[2] // subsample):
                        k = vote(owner, middle, n, subsample, z, y, x, seen, votes)
                        if k >= 0:
                            v = at[0] // subsample + z, at[1] // subsample + y, at[2] // subsample + x
                            out[v] = names[mine[k]]


@exact_parallel_kernel
def _fraction(
    first, shape, step, boxes, centres, rows, forms, degree, limit, gap, size, number, starts, members, counter,
    subsample, out,
):  # fmt: skip
    for _worker in prange(counter.size):
        best, second, distance, owner, dx = scratch(size, gap)
        while True:
            tile = take_number(counter)
            if tile >= starts.size - 1:
                break
            mine = members[starts[tile] : starts[tile + 1]]
            if mine.size == 0:
                continue
            at, n = _window(tile, number, size, shape)
            begin = first[0] + at[0], first[1] + at[1], first[2] + at[2]
            own_tile(
                begin, n, step, 1, mine, boxes, first, centres, rows, forms, degree, limit, gap,
                best, second, distance, owner, dx,
            )  # fmt: skip
            for z in range(n[0]):
                for y in range(n[1]):
                    v, w = (at[0] + z) // subsample, (at[1] + y) // subsample
                    line = (z * n[1] + y) * n[2]
                    for x in range(n[2] // subsample):
                        inside = 0
                        for i in range(subsample):
                            inside += owner[line + x * subsample + i] >= 0
                        out[v, w, at[2] // subsample + x] += np.float32(inside)


@exact_parallel_kernel
def _density(
    first, shape, step, boxes, centres, rows, forms, degree, limit, gap, size, number, starts, members, counter,
    looks, keys, crop, library, halves, out,
):  # fmt: skip
    for _worker in prange(counter.size):
        best, second, distance, owner, dx = scratch(size, gap)
        while True:
            tile = take_number(counter)
            if tile >= starts.size - 1:
                break
            mine = members[starts[tile] : starts[tile + 1]]
            if mine.size == 0:
                continue
            at, n = _window(tile, number, size, shape)
            begin = first[0] + at[0], first[1] + at[1], first[2] + at[2]
            own_tile(
                begin, n, step, 1, mine, boxes, first, centres, rows, forms, degree, limit, gap,
                best, second, distance, owner, dx,
            )  # fmt: skip
            shade_tile(
                begin, n, step, mine, boxes, first, shape, centres, rows, forms, best, owner, dx,
                looks, keys, crop, library, halves, out,
            )  # fmt: skip
