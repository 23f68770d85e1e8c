"""A small store with everything in it: image in several shards, label image, side array, table, attributes."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gigascope.store.commit import finish
from gigascope.store.create import ImageWriter, create_image
from gigascope.store.plan import ShardPlan

SHAPE = (3, 70, 90)


def views(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)


def write(path: Path, seed: int = 0) -> ImageWriter:
    """An unfinished store of views (3, 70, 90) float32 in 12 shards of one view by 64 x 64."""
    data = views(seed)
    writer = create_image(
        path,
        shape=SHAPE,
        dtype=np.float32,
        spacing={"y": 1.5, "x": 1.5},
        plan=ShardPlan(SHAPE, 4, (1, 32, 32), (1, 64, 64)),
    )
    for region in writer.shard_regions():
        writer[region] = data[region]
    writer.create_label("mask")[:] = (data > 0).astype(np.uint8)
    writer.create_array("history", (7, 2), np.float64)[:] = seed
    columns = {"view": np.arange(3), "f_s": data[:, 0, 0].astype(np.float64), "name": ["a", "b", "c"]}
    writer.write_table("shifts", columns, {"f_s": "pixel"})
    writer.attrs["tilt_deg"] = np.array([-1.5, 0.0, 1.5])
    return writer


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Finished stores by seed, made once."""

    @functools.cache
    def finished(seed: int) -> Path:
        path = tmp_path_factory.mktemp("finished") / "a.zarr"
        finish(write(path, seed), {"seed": seed})
        return path

    return finished


@pytest.fixture
def finished_store(_finished: Callable[[int], Path]) -> Callable[..., Path]:
    """`finished_store(path, seed=0)` puts a finished store at `path`, which a test may damage."""
    return lambda path, seed=0: Path(shutil.copytree(_finished(seed), path))


@pytest.fixture
def write_store() -> Callable[..., ImageWriter]:
    """`write_store(path, seed=0)` gives an unfinished store; equal seeds give equal content."""
    return write


@pytest.fixture
def store_views() -> Callable[[int], np.ndarray]:
    """`store_views(seed)` gives the image that :func:`write_store` writes."""
    return views
