"""Coarser levels equal a direct computation, also at odd ends, and are made in bounded memory."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.stats

from gigascope.store import pyramid
from gigascope.store.commit import finish
from gigascope.store.create import create_image
from gigascope.store.open import open_store
from gigascope.store.plan import ShardPlan


def direct(data: np.ndarray, factors, reduce) -> np.ndarray:
    """Block reduction over an array whose odd ends are repeated."""
    pad = [(0, -n % f) for n, f in zip(data.shape, factors)]
    data = np.pad(data, pad, mode="edge")
    split = [k for n, f in zip(data.shape, factors) for k in (n // f, f)]
    blocks = np.moveaxis(data.reshape(split), range(1, 2 * data.ndim, 2), range(data.ndim, 2 * data.ndim))
    return reduce(blocks.reshape(*blocks.shape[: data.ndim], -1))


def direct_mean(data: np.ndarray, factors) -> np.ndarray:
    mean = direct(data, factors, lambda blocks: blocks.astype(np.float64).mean(axis=-1))
    return np.rint(mean).astype(data.dtype) if data.dtype.kind in "iu" else mean.astype(data.dtype)


def direct_mode(data: np.ndarray, factors) -> np.ndarray:
    return direct(data, factors, lambda blocks: scipy.stats.mode(blocks, axis=-1).mode)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (1, 1, 2)])
def test_mean_equals_direct_computation(rng, dtype, factors):
    shape = tuple(rng.integers(1, 24, 3))
    values = rng.standard_normal(shape) * 1000
    data = (np.abs(values) % 250 if dtype == "u1" else np.abs(values) if dtype == "u2" else values).astype(dtype)
    mean = pyramid.mean(data.copy(), factors)
    assert mean.dtype == data.dtype
    if data.dtype.kind == "f":
        # eight values summed pairwise: three roundings of at most half a unit, and the conversion
        np.testing.assert_allclose(mean, direct_mean(data, factors), rtol=0, atol=4000 * 4 * np.finfo(dtype).eps)
    else:
        np.testing.assert_array_equal(mean, direct_mean(data, factors))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("share", [0.1, 0.7])
def test_what_is_not_known_is_left_out_of_the_mean(rng, dtype, share):
    data = rng.standard_normal(tuple(rng.integers(2, 24, 3))).astype(dtype)
    data[rng.random(data.shape) < share] = np.nan
    data.flat[0] = np.nan
    with np.errstate(all="raise"):
        mean = pyramid.mean(data.copy(), (1, 2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = direct(data, (1, 2, 2), lambda blocks: np.nanmean(blocks.astype(np.float64), axis=-1))
    assert mean.dtype == data.dtype
    np.testing.assert_allclose(mean, expected, rtol=0, atol=4 * 4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (2, 1, 1)])
def test_mode_equals_scipy(rng, factors):
    data = rng.integers(0, 4, tuple(rng.integers(1, 24, 3)), dtype=np.uint16)
    mode = pyramid.mode(data, factors)
    assert mode.dtype == data.dtype
    np.testing.assert_array_equal(mode, direct_mode(data, factors))


def test_axes_are_halved_while_longer_than_64_and_tilt_never():
    assert pyramid.level_factors((61, 300, 65), ("tilt", "y", "x")) == [(1, 2, 2), (1, 2, 1), (1, 2, 1)]
    assert pyramid.level_factors((500, 64, 64), ("tilt", "y", "x")) == []
    assert pyramid.coarser_shape((5, 7, 8), (1, 2, 2)) == (5, 4, 4)


@pytest.mark.parametrize("dtype", ["f4", "i2"])
def test_streamed_levels_equal_direct_computation(tmp_path, rng, dtype):
    shape = (67, 131, 50)
    data = (1000 * rng.standard_normal(shape)).astype(dtype)
    labels = rng.integers(0, 3, shape, dtype=np.uint8)
    plan = ShardPlan(shape, data.itemsize, (16, 16, 16), (32, 64, 16))
    writer = create_image(tmp_path / "a.zarr", shape=shape, dtype=dtype, axes=("z", "y", "x"), plan=plan)
    label = writer.create_label("cells")
    for region in writer.shard_regions():
        writer[region] = data[region]
        label[region] = labels[region]
    finish(writer, {})
    store = open_store(tmp_path / "a.zarr")
    factors = pyramid.level_factors(shape, writer.axes)
    assert store.n_levels == len(factors) + 1 == 3
    for level, step in enumerate(factors, start=1):
        data, labels = direct_mean(data, step), direct_mode(labels, step)
        np.testing.assert_allclose(store.array(level)[:], data, rtol=0, atol=1e-2 if dtype == "f4" else 0)
        np.testing.assert_array_equal(store.label("cells", level)[:], labels)


def test_no_level_is_ever_held_whole(tmp_path):
    shape = (256, 256, 256)
    plan = ShardPlan(shape, 4, (64, 64, 64), (64, 64, 128))
    writer = create_image(tmp_path / "a.zarr", shape=shape, dtype=np.float32, axes=("z", "y", "x"), plan=plan)
    for region in writer.shard_regions():
        writer[region] = np.ones([r.stop - r.start for r in region], np.float32)
    import ome_zarr.writer  # noqa: F401  imported by finish: its memory is not that of the pass

    tracemalloc.start()
    finish(writer, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Level 0 is 64 MiB, level 1 8 MiB. Held at a time: one coarse shard and its encoding, and per thread a block of
    # 2 MiB with its chunks as they are decoded.
    assert peak < 24 << 20, f"{peak / 2**20:.1f} MiB"
