"""Patches of nuclei on the CPU: each nucleus alone and among its neighbours, by the rasteriser's own code."""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from gigascope.kernels.cells.bodies import Bodies, Grid
from gigascope.kernels.cells.cpu_ownership import EVALUATION, own_voxels, scratch, vote
from gigascope.kernels.cells.owned import Owned
from gigascope.kernels.gaussians.bins import members_of_tiles
from gigascope.kernels.parallel import exact_inline_kernel, exact_parallel_kernel
from gigascope.kernels.simd import take_number


def measure(bodies: Bodies, own: Tensor, grid: Grid, gap: float, subsample: int, wanted: Tensor) -> Owned:
    """See :func:`gigascope.kernels.cells.owned`; rows `wanted` of the bodies, boxes from sample 0 on.

    `own` (k, 6) are the boxes of the wanted nuclei themselves: those of the bodies reach further by the gap.
    """
    boxes = bodies.boxes.numpy()
    corner = boxes[:, ::2].min(axis=0)
    local = boxes - np.repeat(corner, 2)
    # bins about as large as a nucleus: each then looks at few that it does not touch
    size = np.maximum(1, np.ceil(np.mean(local[:, 1::2] - local[:, ::2], axis=0))).astype(np.int64)
    number = local[:, 1::2].max(axis=0) // size + 1
    starts, members = members_of_tiles(local, tuple(size), tuple(number))
    k = len(wanted)
    counts, sums, found = np.zeros((k, 3), np.int64), np.zeros((k, 3), np.int64), np.zeros((k, 6), np.int64)
    arrays = (boxes, *(tensor.numpy() for tensor in (bodies.centres, bodies.rows, bodies.forms)))
    shared = (np.array(grid.step), *arrays, bodies.degree, bodies.limit, gap)
    bins = local, size, number, starts, members
    picked, patches = wanted.numpy(), own.numpy()
    work = 4 * EVALUATION * float(np.prod(patches[:, 1::2] - patches[:, ::2], axis=1).sum())
    counter = np.zeros(numba.get_num_threads(), np.int64)
    _measure(*shared, *bins, picked, patches, corner, subsample, counter, counts, sums, found, work=work)
    voxels = torch.from_numpy(counts[:, 0].copy())
    step = torch.tensor(grid.step, dtype=torch.float64) * subsample
    centroid = (torch.from_numpy(sums) / voxels[:, None].double() + 0.5) * step
    alone, fragments = (torch.from_numpy(counts[:, column].copy()) for column in (1, 2))
    return Owned(voxels, alone, fragments, centroid, torch.from_numpy(found))


@exact_inline_kernel
def _neighbours(box, local, size, number, starts, members, seen):
    """Bodies whose boxes meet this one, ascending; `seen` marks them and is cleared."""
    n = 0
    for z in range(box[0] // size[0], (box[1] - 1) // size[0] + 1):
        for y in range(box[2] // size[1], (box[3] - 1) // size[1] + 1):
            for x in range(box[4] // size[2], (box[5] - 1) // size[2] + 1):
                tile = (z * number[1] + y) * number[2] + x
                for at in range(starts[tile], starts[tile + 1]):
                    j = members[at]
                    other = local[j]
                    apart = (other[0] >= box[1]) | (other[1] <= box[0]) | (other[2] >= box[3]) | (other[3] <= box[2])
                    if not (apart or other[4] >= box[5] or other[5] <= box[4]):
                        place = 0
                        while place < n and seen[place] < j:
                            place += 1
                        if place == n or seen[place] != j:
                            for later in range(n, place, -1):
                                seen[later] = seen[later - 1]
                            seen[place] = j
                            n += 1
                            if n == seen.size:
                                grown = np.empty(2 * n, np.int64)
                                grown[:n] = seen
                                seen = grown
    return seen[:n].copy(), seen


@exact_parallel_kernel
def _measure(
    step, boxes, centres, rows, forms, degree, limit, gap, local, size, number, starts, members, wanted,
    patches, corner, subsample, counter, counts, sums, found,
):  # fmt: skip
    origin = np.zeros(3, np.int64)
    for _worker in prange(counter.size):
        lists, box = np.empty(64, np.int64), np.empty(6, np.int64)
        seen, votes = np.empty(subsample**3, np.float32), np.empty(subsample**3, np.int64)
        while True:
            k = take_number(counter)
            if k >= wanted.size:
                break
            i = wanted[k]
            for side in range(6):
                box[side] = patches[k, side] - corner[side // 2]
            near, lists = _neighbours(box, local, size, number, starts, members, lists)
            patch = np.empty(6, np.int64)
            for axis in range(3):  # whole voxels
                patch[axis] = patches[k, 2 * axis] // subsample
                patch[3 + axis] = -(-patches[k, 2 * axis + 1] // subsample) - patch[axis]
            first = patch[0] * subsample, patch[1] * subsample, patch[2] * subsample
            n = patch[3] * subsample, patch[4] * subsample, patch[5] * subsample
            best, second, distance, owner, dx = scratch(n, gap)
            middle = np.empty(patch[3] * patch[4] * patch[5], np.float32)
            label = np.zeros((patch[3] + 2, patch[4] + 2, patch[5] + 2), np.bool_)
            for turn in range(2):
                alone = turn == 0
                mine = np.full(1, i) if alone else near
                if not alone and near.size == 1:
                    counts[k, 0] = counts[k, 1]
                else:
                    own_voxels(
                        first, n, step, subsample, mine, boxes, origin, centres, rows, forms, degree, limit, gap,
                        best, second, distance, owner, dx, middle,
                    )  # fmt: skip
                    name = np.searchsorted(mine, i)
                    counts[k, 1 - turn] = _mark(owner, middle, n, subsample, name, patch, seen, votes, label)
            _place(label, patch, sums[k], found[k])
            counts[k, 2] = _fragments(label)


@exact_inline_kernel
def _mark(owner, middle, n, subsample, name, patch, seen, votes, label):
    """Mark the voxels that go to one nucleus, in a frame of one voxel, and count them."""
    count = 0
    for z in range(patch[3]):
        for y in range(patch[4]):
            for x in range(patch[5]):
                mine = vote(owner, middle, n, subsample, z, y, x, seen, votes) == name
                label[z + 1, y + 1, x + 1] = mine
                count += mine
    return count


@exact_inline_kernel
def _place(label, patch, total, box):
    """Sums of the indices of the marked voxels, and their box."""
    box[:] = 0
    some = False
    for z in range(patch[3]):
        for y in range(patch[4]):
            for x in range(patch[5]):
                if label[z + 1, y + 1, x + 1]:
                    at = patch[0] + z, patch[1] + y, patch[2] + x
                    for axis in range(3):
                        total[axis] += at[axis]
                        if not some or at[axis] < box[2 * axis]:
                            box[2 * axis] = at[axis]
                        if not some or at[axis] >= box[2 * axis + 1]:
                            box[2 * axis + 1] = at[axis] + 1
                    some = True


@exact_inline_kernel
def _fragments(label):
    """Number of 26-connected pieces; unmarks them."""
    n = 0
    stack = np.empty(label.size, np.int64)
    flat = label.reshape(-1)
    width, plane = label.shape[2], label.shape[1] * label.shape[2]
    for start in range(flat.size):
        if not flat[start]:
            continue
        n += 1
        flat[start] = False
        stack[0] = start
        height = 1
        while height > 0:
            height -= 1
            at = stack[height]
            for z in range(-1, 2):
                for y in range(-1, 2):
                    for x in range(-1, 2):
                        other = at + z * plane + y * width + x
                        if flat[other]:
                            flat[other] = False
                            stack[height] = other
                            height += 1
    return n
