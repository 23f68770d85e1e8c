"""Coarser levels of an image, made shard by shard: one coarse shard and a few blocks of the finer level are held."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigascope.store.plan import Region, ShardPlan, shard_regions

if TYPE_CHECKING:
    import zarr

SPATIAL_AXES = ("z", "y", "x")
# An axis this short is not halved again: one chunk of a volume, a thumbnail of a view.
SMALL = 64

Reduce = Callable[[NDArray, Sequence[int]], NDArray]
ReadBlock = Callable[[Region], NDArray]

_THREADS = min(4, os.cpu_count() or 1)


def level_factors(shape: Sequence[int], axes: Sequence[str]) -> list[tuple[int, ...]]:
    """Step from each level to the next: 2 along spatial axes of more than 64 samples, 1 along all others.

    Empty where no axis is that long. A halved axis of n samples has ceil(n / 2).
    """
    factors: list[tuple[int, ...]] = []
    shape = tuple(shape)
    while True:
        step = tuple(2 if axis in SPATIAL_AXES and n > SMALL else 1 for axis, n in zip(axes, shape))
        if max(step) == 1:
            return factors
        factors.append(step)
        shape = coarser_shape(shape, step)


def coarser_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    """Shape of the next level."""
    return tuple(-(-n // factor) for n, factor in zip(shape, factors))


def level_plans(plan: ShardPlan, axes: Sequence[str]) -> list[ShardPlan]:
    """Plans of all levels, level 0 first: what `gigascope check` counts files and bytes from."""
    plans = [plan]
    for factors in level_factors(plan.shape, axes):
        plans.append(plans[-1].coarser(coarser_shape(plans[-1].shape, factors)))
    return plans


def mean(block: NDArray, factors: Sequence[int]) -> NDArray:
    """Mean of blocks of `factors` samples, in the dtype of `block`, integers rounded half to even.

    At an odd end the last sample stands for two. NaN is what is not known: the mean is that of the others, NaN where
    there are none. Sums are float32 where that is exact enough (float32 and up to 16 bits), else float64.
    """
    # the least of values is NaN where one of them is
    if block.dtype.kind == "f" and block.size and np.isnan(block.min()):
        return _mean_of_known(block, factors)
    dtype = block.dtype
    total = np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64
    scale = 1.0
    for axis, factor in enumerate(factors):
        if factor == 2:
            block = _even(block, axis)
            block = np.add(_every_second(block, axis, 0), _every_second(block, axis, 1), dtype=total)
            scale /= 2
    if scale == 1.0:
        return block
    block *= total(scale)
    if dtype.kind in "iu":
        np.rint(block, out=block)
    return block.astype(dtype, copy=False)


def _mean_of_known(block: NDArray, factors: Sequence[int]) -> NDArray:
    """As :func:`mean`, of the values that are not NaN."""
    known = ~np.isnan(block)
    total = np.where(known, block, 0)
    count = known.astype(np.float32)
    for axis, factor in enumerate(factors):
        if factor == 2:
            total, count = (
                np.add(
                    _every_second(even, axis, 0), _every_second(even, axis, 1), dtype=np.result_type(even, np.float32)
                )
                for even in (_even(total, axis), _even(count, axis))
            )
    with np.errstate(invalid="ignore"):
        return np.divide(total, count).astype(block.dtype, copy=False)


def mode(block: NDArray, factors: Sequence[int]) -> NDArray:
    """Most frequent label of blocks of `factors` samples, the smallest of several.

    At an odd end the last sample counts twice.
    """
    members = [block]
    for axis, factor in enumerate(factors):
        if factor == 2:
            members = [_every_second(_even(m, axis), axis, start) for m in members for start in (0, 1)]
    ordered = np.sort(np.stack(members), axis=0)
    label = ordered[0].copy()
    run = np.ones(label.shape, np.uint8)
    longest = run.copy()
    for before, here in itertools.pairwise(ordered):
        run = np.where(here == before, run + 1, 1).astype(np.uint8)
        longer = run > longest
        label[longer] = here[longer]
        longest[longer] = run[longer]
    return label


def build_level(source: ShardPlan, target: zarr.Array, factors: Sequence[int], reduce: Reduce, read: ReadBlock) -> None:
    """Fill `target` with the level that is cut as `source`, reduced by `factors`; `read` is given every block once.

    `read` is called from several threads.

    Raises
    ------
    ValueError : a target shard is not made of whole source shards
    """
    for region in shard_regions(target.shape, target.shards or target.chunks):
        below = tuple(slice(r.start * f, min(r.stop * f, n)) for r, f, n in zip(region, factors, source.shape))
        if any(b.start % s or (b.stop % s and b.stop != n) for b, s, n in zip(below, source.shards, source.shape)):
            raise ValueError(f"{target.path}: shard at {region} is not made of whole shards {source.shards} below")
        coarse = np.empty([r.stop - r.start for r in region], target.dtype)
        fill = functools.partial(_fill, coarse, [b.start for b in below], factors, reduce, read)
        for_each(fill, source.blocks(below))
        target[region] = coarse


def for_each(work: Callable[[Region], object], regions: Iterable[Region]) -> None:
    """Call `work` with every region, from a few threads; the first error ends it."""
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="blocks")
    try:
        for done in [pool.submit(work, region) for region in regions]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(
    coarse: NDArray, corner: Sequence[int], factors: Sequence[int], reduce: Reduce, read: ReadBlock, part: Region
) -> None:
    reduced = reduce(read(part), factors)
    starts = [(p.start - c) // f for p, c, f in zip(part, corner, factors)]
    coarse[tuple(slice(start, start + n) for start, n in zip(starts, reduced.shape))] = reduced


def _every_second(block: NDArray, axis: int, start: int) -> NDArray:
    return block[(slice(None),) * axis + (slice(start, None, 2),)]


def _even(block: NDArray, axis: int) -> NDArray:
    if block.shape[axis] % 2 == 0:
        return block
    return np.concatenate([block, block[(slice(None),) * axis + (slice(-1, None),)]], axis=axis)
