"""The planes of a volume in pieces that are whole rows of shards of its store, however wide the planes are.

A shard is 64 planes deep and written once. Where a shard does not cover whole planes, the planes of a layer go to a
scratch file first and come back band by band: 64 planes of 10,000 x 10,000 voxels would be 13 GB.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.background import CELL
from gigascope.store.disk import disk_errors
from gigascope.store.plan import ShardPlan
from gigascope.store.readers.volume import VolumeSource

# Planes read at once on their way to a scratch file.
READ_BYTES = 64 << 20

Seen = Callable[[NDArray], None]


@dataclass(frozen=True)
class Slab:
    """A piece of one frame (one time, one channel): whole rows along x.

    Attributes
    ----------
    t, c : of the frame
    z, y : planes and rows
    voxels : (z, y, x)
    """

    t: int
    c: int
    z: slice
    y: slice
    voxels: NDArray


def frames(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(time, channel) of every frame of (t, c, z, y, x), in the order of their numbers."""
    return list(itertools.product(range(shape[0]), range(shape[1])))


def place(shape: tuple[int, ...], t: int, c: int) -> tuple[int, ...]:
    """Index of a frame in an array that keeps only those of the axes t and c that are longer than 1."""
    return tuple(i for i, n in zip((t, c), shape) if n > 1)


def cuts(n: int, step: int, least: int) -> list[slice]:
    """An axis in pieces of `step`; a remainder of fewer than `least` goes with the last."""
    starts = [start for start in range(0, n, step) if start == 0 or n - start >= least]
    return [slice(a, b) for a, b in itertools.pairwise([*starts, n])]


def n_slabs(shape: tuple[int, ...], plan: ShardPlan) -> int:
    """How many :func:`slabs` gives."""
    return len(frames(shape)) * math.prod(len(found) for found in _cuts(shape, plan))


def _cuts(shape: tuple[int, ...], plan: ShardPlan) -> tuple[list[slice], list[slice]]:
    depth, rows = plan.shards[-3:-1]
    return cuts(shape[2], depth, CELL[0]), cuts(shape[3], rows, CELL[1])


def slabs(source: VolumeSource, plan: ShardPlan, scratch: Path, seen: Seen) -> Iterator[Slab]:
    """All voxels of a volume, in slabs of whole shards: frame by frame, then along z, then along y.

    Parameters
    ----------
    plan : of the array that they go into
    scratch : folder for the planes of a layer, where a shard does not cover whole ones
    seen : called with all planes, in the order (t, c, z), some at a time
    """
    layers, bands = _cuts(source.shape, plan)
    for t, c in frames(source.shape):
        for z in layers:
            if len(bands) == 1:
                voxels = source.read(t, c, z.start, z.stop)
                seen(voxels)
                yield Slab(t, c, z, bands[0], voxels)
                continue
            with _spilled(source, (t, c), z, scratch, seen) as file:
                for y in bands:
                    yield Slab(t, c, z, y, _band(file, source, z, y))


@contextmanager
def _spilled(source: VolumeSource, frame: tuple[int, int], z: slice, scratch: Path, seen: Seen) -> Iterator[Path]:
    """The planes of a layer in a scratch file, one after the other."""
    file = scratch / "planes.bin"
    _, _, _, n_y, n_x = source.shape
    step = max(1, READ_BYTES // (n_y * n_x * source.dtype.itemsize))
    try:
        with disk_errors(file), file.open("wb") as out:
            for start in range(z.start, z.stop, step):
                planes = source.read(*frame, start, min(start + step, z.stop))
                seen(planes)
                out.write(planes.data)
        yield file
    finally:
        file.unlink(missing_ok=True)


def _band(file: Path, source: VolumeSource, z: slice, y: slice) -> NDArray:
    """Rows of all planes of a layer."""
    _, _, _, n_y, n_x = source.shape
    band = np.empty((z.stop - z.start, y.stop - y.start, n_x), source.dtype)
    with file.open("rb") as planes:
        for i, plane in enumerate(band):
            planes.seek((i * n_y + y.start) * n_x * source.dtype.itemsize)
            plane[:] = np.frombuffer(planes.read(plane.nbytes), source.dtype).reshape(plane.shape)
    return band
