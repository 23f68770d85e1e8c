"""Damage to a finished store that its checksums must find, and the tests' way to plant it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, random.Random], None]


def cut(shard: Path, at: random.Random) -> None:
    """The end of the file is not there."""
    shard.write_bytes(shard.read_bytes()[: at.randrange(shard.stat().st_size)])


def alter(shard: Path, at: random.Random) -> None:
    """One bit is another."""
    values = bytearray(shard.read_bytes())
    values[at.randrange(len(values))] ^= 1 << at.randrange(8)
    shard.write_bytes(values)


def lose(shard: Path, at: random.Random) -> None:
    """The file is not there."""
    shard.unlink()


DAMAGES: tuple[Damage, ...] = (cut, alter, lose)


def damaged_copy(results: Path, to: Path, store: str, array: str, damage: Damage, at: random.Random) -> Path:
    """Results as they are, by links, but for one store that is copied and loses or changes a shard.

    Parameters
    ----------
    results : folder of the results
    to : new folder
    store : name of the store without `.zarr`
    array : path of one of its arrays in it

    Returns
    -------
    the shard, within the store
    """
    to.mkdir()
    for path in results.iterdir():
        if path.name != f"{store}.zarr":
            (to / path.name).symlink_to(path)
    found = Path(shutil.copytree(results / f"{store}.zarr", to / f"{store}.zarr"))
    shard = at.choice(sorted(p for p in (found / array).rglob("*") if p.is_file() and p.name != "zarr.json"))
    damage(shard, at)
    return shard.relative_to(found)
