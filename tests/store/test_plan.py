"""Chunks and shards cover an array exactly, hold whole chunks, and stay within the sizes of the architecture."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gigascope.store.plan import MIB, SHARD_LIMIT, ShardPlan, shard_plan
from gigascope.store.pyramid import level_plans

CASES = [
    ((61, 4096, 4096), np.int16, "views"),
    ((120, 3838, 3710), np.float32, "views"),
    ((41, 11520, 8184), np.float32, "views"),
    ((300, 1024, 1024), np.float32, "slabs"),
    ((400, 4096, 4096), np.float32, "slabs"),
    ((2048, 2048, 2048), np.float32, "volume"),
    ((2000, 8000, 8000), np.uint16, "volume"),
    ((4, 3, 900, 1000, 1100), np.uint16, "volume"),
]


@pytest.mark.parametrize(("shape", "dtype", "access"), CASES)
def test_large_arrays_have_shards_of_64_to_512_mib(shape, dtype, access):
    plan = shard_plan(shape, dtype, access)
    assert 64 * MIB <= plan.shard_nbytes <= SHARD_LIMIT
    assert 64 * 1024 <= math.prod(plan.chunks) * plan.itemsize <= 2 * MIB
    assert plan.n_shards <= math.ceil(math.prod(shape) * plan.itemsize / (32 * MIB))


def test_plans_of_random_shapes_tile_the_array(rng):
    for _ in range(200):
        ndim = int(rng.integers(1, 6))
        shape = tuple(int(n) for n in np.exp(rng.uniform(0, 14 / ndim, ndim)).astype(int))
        dtype = np.dtype(rng.choice(["u1", "i2", "f4", "f8"]))
        plan = shard_plan(shape, dtype, str(rng.choice(["volume", "views", "slabs"])))
        seen = np.zeros(plan.grid, np.uint8)
        for region in plan.regions():
            seen[tuple(r.start // s for r, s in zip(region, plan.shards))] += 1
        assert (seen == 1).all(), (shape, plan)
        assert sum(math.prod(r.stop - r.start for r in region) for region in plan.regions()) == math.prod(shape)
        assert all(shard < n + chunk for shard, n, chunk in zip(plan.shards, shape, plan.chunks)), plan
        assert plan.n_shards == math.prod(plan.grid)


def test_blocks_tile_each_shard_in_whole_chunks(rng):
    for _ in range(50):
        shape = tuple(int(n) for n in rng.integers(1, 300, 3))
        plan = ShardPlan(shape, 4, (16, 32, 32), (32, 64, 128))
        count = np.zeros(shape, np.uint8)
        for block in plan.blocks():
            count[block] += 1
            assert all(b.start % chunk == 0 for b, chunk in zip(block, plan.chunks))
            assert all(b.start // shard == (b.stop - 1) // shard for b, shard in zip(block, plan.shards))
        assert (count == 1).all()


def test_small_array_is_one_shard():
    for access in ("volume", "views", "slabs"):
        assert shard_plan((61, 300, 200), np.float32, access).n_shards == 1


def test_views_are_cut_between_views_and_slabs_along_y():
    views = shard_plan((61, 2000, 3000), np.float32, "views")
    assert views.shards[0] < 61
    assert views.grid[1:] == (1, 1)
    slabs = shard_plan((500, 1000, 1000), np.float32, "slabs")
    assert slabs.grid[0] == slabs.grid[2] == 1
    assert slabs.grid[1] > 1


def test_each_channel_has_shards_of_its_own():
    assert shard_plan((2, 30, 40, 50), np.float32).grid == (2, 1, 1, 1)
    assert shard_plan((9, 6, 30, 40, 50), np.uint8, "views").grid == (9, 6, 1, 1, 1)


def test_pyramid_has_at_most_twice_the_files_of_a_volume():
    plans = level_plans(shard_plan((2048, 2048, 2048), np.float32), ("z", "y", "x"))
    assert plans[-1].shape == (64, 64, 64)
    assert sum(plan.n_shards for plan in plans) <= 2 * plans[0].n_shards


def test_empty_axis_and_unknown_access_are_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        shard_plan((3, 0, 4), np.float32)
    with pytest.raises(ValueError, match="none of volume, views, slabs"):
        shard_plan((3, 4), np.float32, "rows")
    with pytest.raises(ValueError, match="whole number of chunks"):
        ShardPlan((10,), 4, (4,), (6,))
