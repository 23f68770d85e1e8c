"""How an array is cut into chunks and shards: arithmetic only, so that `gigascope check` can ask without a file.

A chunk is what a reader decompresses, a shard is a file and has exactly one writer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

Access = Literal["volume", "views", "slabs"]
Region = tuple[slice, ...]

MIB = 1 << 20
# Between 64 and 128 MiB where the first axis can be cut finely: a terabyte is some ten thousand files, and a pyramid
# step holds two or three shards. A single view or a layer of chunks is kept in one file up to 512 MiB.
SHARD_TARGET = 128 * MIB
SHARD_LIMIT = 512 * MIB

# What a pass over an array reads at once: large beside the cost of a read, small enough that several threads hold some.
BLOCK_TARGET = 16 * MIB

# Edge of a chunk by the number of axes it extends over: about 1 MiB of float32 in a volume, 256 KiB in a view.
_VOLUME_EDGE = {1: 1 << 18, 2: 512, 3: 64}
_VIEW_EDGE = {1: 1 << 18, 2: 256}


@dataclass(frozen=True)
class ShardPlan:
    """Cut of an array: `shape`, `chunks` and `shards` in samples, `itemsize` in bytes.

    Shards hold a whole number of chunks and end at most one chunk beyond the array.
    """

    shape: tuple[int, ...]
    itemsize: int
    chunks: tuple[int, ...]
    shards: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.shape) == len(self.chunks) == len(self.shards):
            raise ValueError(f"shape {self.shape}, chunks {self.chunks} and shards {self.shards} differ in length")
        if any(shard % chunk for shard, chunk in zip(self.shards, self.chunks)):
            raise ValueError(f"shards {self.shards} do not hold a whole number of chunks {self.chunks}")

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of shards along each axis."""
        return tuple(-(-n // shard) for n, shard in zip(self.shape, self.shards))

    @property
    def n_shards(self) -> int:
        """Number of data files of the array."""
        return math.prod(self.grid)

    @property
    def shard_nbytes(self) -> int:
        """Uncompressed bytes of one whole shard: what its writer holds in memory."""
        return math.prod(self.shards) * self.itemsize

    def regions(self) -> Iterator[Region]:
        """Each shard as slices into the array, clipped to its shape, last axis fastest."""
        return shard_regions(self.shape, self.shards)

    def blocks(self, within: Region | None = None) -> Iterator[Region]:
        """Pieces of whole chunks, about 16 MiB, longest along the last axes, none over two shards: to read at once."""
        block = list(self.chunks)
        for axis in reversed(range(len(block))):
            fits = max(1, BLOCK_TARGET // (math.prod(block) * self.itemsize))
            block[axis] = min(self.shards[axis], self.chunks[axis] * fits)
        for shard in shard_regions(self.shape, self.shards, within):
            yield from shard_regions([s.stop for s in shard], block, shard)

    def coarser(self, shape: Sequence[int]) -> ShardPlan:
        """Plan of the next pyramid level of `shape`: shards of the same extent in samples, or the whole axis.

        So a coarse shard is made of whole shards of the finer level, each of which is read once.
        """
        chunks = tuple(min(chunk, n) for chunk, n in zip(self.chunks, shape))
        shards = tuple(min(shard, _round_up(n, chunk)) for shard, n, chunk in zip(self.shards, shape, chunks))
        return ShardPlan(tuple(shape), self.itemsize, chunks, shards)


def shard_plan(shape: Sequence[int], dtype: DTypeLike, access: Access = "volume") -> ShardPlan:
    """Choose chunks and shards from shape, dtype and the way the array is produced and read.

    Axes before the last three (channels, time, camera views) have shards of their own for each index, so that they can
    be written one after the other.

    Parameters
    ----------
    shape : samples along each axis
    dtype : of the samples
    access : "volume" has chunks of 64^3 and cuts shards along the first axis; "views" has chunks of 1 x 256^2 and
        shards of one or more whole views; "slabs" has chunks of 64^3 and cuts along the last axis but one (y, the tilt
        axis, along which a tomogram falls into independent parts)

    Raises
    ------
    ValueError : an empty axis, or an access that is not known
    """
    shape = tuple(int(n) for n in shape)
    itemsize = np.dtype(dtype).itemsize
    if not shape or min(shape) < 1:
        raise ValueError(f"cannot plan shards for shape {shape}: every axis needs at least one sample")
    if access not in ("volume", "views", "slabs"):
        raise ValueError(f"access {access!r} is none of volume, views, slabs")
    edges = _VIEW_EDGE if access == "views" else _VOLUME_EDGE
    n_axes = min(len(shape), max(edges))
    leading = len(shape) - n_axes
    chunks = tuple(1 if axis < leading else min(n, edges[n_axes]) for axis, n in enumerate(shape))
    apart = max(0, len(shape) - 3)
    shards = [1] * apart + [_round_up(n, chunk) for n, chunk in zip(shape[apart:], chunks[apart:])]
    order = list(range(apart, len(shape)))
    if access == "slabs" and len(order) > 1:
        order.insert(0, order.pop(-2))
    for axis in order:
        nbytes = math.prod(shards) * itemsize
        if nbytes <= SHARD_TARGET:
            break
        thinnest = nbytes // (shards[axis] // chunks[axis])
        shards[axis] = chunks[axis] * max(1, SHARD_TARGET // thinnest)
        if thinnest <= SHARD_LIMIT:
            break
    return ShardPlan(shape, itemsize, chunks, tuple(shards))


def shard_regions(shape: Sequence[int], shards: Sequence[int], within: Region | None = None) -> Iterator[Region]:
    """Shards of an array as clipped slices; only those that start in `within`, where it is given."""
    bounds = within or tuple(slice(0, n) for n in shape)
    starts = [range(b.start, min(b.stop, n), step) for b, n, step in zip(bounds, shape, shards)]
    for corner in itertools.product(*starts):
        yield tuple(slice(a, min(a + step, n)) for a, step, n in zip(corner, shards, shape))


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step
