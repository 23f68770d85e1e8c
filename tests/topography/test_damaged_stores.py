"""Stores that were damaged after they were finished: every stage refuses its inputs by the name of the shard."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gigascope.errors import UserError

from ..stage_runs import chance
from .chain import RUNS

# Stage, the store that it reads, and one of its arrays.
READ = [("calibrate", "raw", "flat_green"), ("mosaic", "views", "index"), ("mesh", "mosaic", "0")]
READ += [("evaluate", "views", "aif")]


def cut(shard: Path, at: random.Random) -> None:
    shard.write_bytes(shard.read_bytes()[: at.randrange(shard.stat().st_size)])


def alter(shard: Path, at: random.Random) -> None:
    values = bytearray(shard.read_bytes())
    values[at.randrange(len(values))] ^= 1 << at.randrange(8)
    shard.write_bytes(values)


def lose(shard: Path, at: random.Random) -> None:
    shard.unlink()


@pytest.mark.parametrize("damage", [cut, alter, lose], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(("stage", "store", "array"), READ, ids=[stage for stage, _, _ in READ])
def test_damaged_shard_is_refused_by_name(
    stage: str, store: str, array: str, damage: Callable[..., None], mosaicked: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in mosaicked.folder.iterdir():
        if path.name != f"{store}.zarr":
            (folder / path.name).symlink_to(path)
    found = Path(shutil.copytree(mosaicked.folder / f"{store}.zarr", folder / f"{store}.zarr"))
    shards = sorted(p for p in (found / array).rglob("*") if p.is_file() and p.name != "zarr.json")
    shard = shards[0]
    damage(shard, chance())
    with pytest.raises(UserError, match=str(shard.relative_to(found))):
        RUNS.run(mosaicked.config, tmp_path, stage, folder)
    assert not [path for path in tmp_path.iterdir() if path.name not in ("damaged", "scratch")]
