"""Which Gaussians reach which tile of the grid: counting sort on the CPU, in the order of their index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gigascope.kernels.parallel import inline_kernel, serial_kernel


def members_of_tiles(
    boxes: NDArray[np.int64], tile: tuple[int, int, int], n_tiles: tuple[int, int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lists of the Gaussians of every tile.

    Parameters
    ----------
    boxes : (N, 6) first and one past the last sample along z, y, x; empty ones belong to no tile
    tile : samples of a tile along z, y, x
    n_tiles : tiles along z, y, x, enough to cover all boxes

    Returns
    -------
    starts : (tiles + 1,) where the list of each tile begins
    members : Gaussians, tile after tile, ascending within each
    """
    starts = np.zeros(n_tiles[0] * n_tiles[1] * n_tiles[2] + 1, np.int64)
    _count(boxes, np.array(tile), np.array(n_tiles), starts)
    starts = np.cumsum(starts)
    members = np.empty(starts[-1], np.int64)
    _fill(boxes, np.array(tile), np.array(n_tiles), starts[:-1].copy(), members)
    return starts, members


@inline_kernel
def _is_empty(box):
    return (box[1] <= box[0]) | (box[3] <= box[2]) | (box[5] <= box[4])


@serial_kernel
def _count(boxes, tile, n_tiles, counts):
    for i in range(boxes.shape[0]):
        box = boxes[i]
        if _is_empty(box):
            continue
        for z in range(box[0] // tile[0], (box[1] - 1) // tile[0] + 1):
            for y in range(box[2] // tile[1], (box[3] - 1) // tile[1] + 1):
                for x in range(box[4] // tile[2], (box[5] - 1) // tile[2] + 1):
                    counts[(z * n_tiles[1] + y) * n_tiles[2] + x + 1] += 1


@serial_kernel
def _fill(boxes, tile, n_tiles, ends, members):
    for i in range(boxes.shape[0]):
        box = boxes[i]
        if _is_empty(box):
            continue
        for z in range(box[0] // tile[0], (box[1] - 1) // tile[0] + 1):
            for y in range(box[2] // tile[1], (box[3] - 1) // tile[1] + 1):
                for x in range(box[4] // tile[2], (box[5] - 1) // tile[2] + 1):
                    at = (z * n_tiles[1] + y) * n_tiles[2] + x
                    members[ends[at]] = i
                    ends[at] += 1
