"""Plain shards written without Zarr's pipeline are what Zarr writes; what is cut or altered in them is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.checksum import file_digest
from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.open import open_store
from gigascope.store.plain_shard import check_shard, is_plain, shard_places, write_shard
from gigascope.store.plan import ShardPlan

PLAN = ShardPlan((3, 5, 20, 33), 2, (1, 5, 8, 16), (1, 5, 24, 48))


def arrays(folder: Path, names: tuple[str, ...], **options: object) -> tuple[Path, list[zarr.Array]]:
    store = create_store(folder / "a.zarr")
    axes = ("view", "z", "row", "col")
    return store.path, [store.create_member(n, PLAN, np.uint16, axes=axes, compress=False, **options) for n in names]


def images(rng: np.random.Generator) -> NDArray[np.uint16]:
    return rng.integers(0, 2**16, PLAN.shape).astype(np.uint16)


def test_zarr_reads_what_was_written_and_writes_the_same_chunks(tmp_path: Path, rng: np.random.Generator) -> None:
    root, (ours, theirs) = arrays(tmp_path, ("ours", "theirs"))
    data = images(rng)
    theirs[:] = data
    for n in range(3):
        digest = write_shard(root, ours, (n, 0, 0, 0), data[n : n + 1])
        assert digest == file_digest(root, digest.file)
        check_shard(root, ours, (n, 0, 0, 0))
        check_shard(root, theirs, (n, 0, 0, 0))
        files = [(root / digest.file.replace("ours", name)).read_bytes() for name in ("ours", "theirs")]
        assert len(files[0]) == len(files[1])
        places = [
            shard_places(root / digest.file.replace("ours", n_), a) for n_, a in (("ours", ours), ("theirs", theirs))
        ]
        for at in np.ndindex(*places[0].shape[:-1]):
            pieces = [f[int(p[at][0]) : int(p[at].sum())] for f, p in zip(files, places)]
            assert pieces[0] == pieces[1]
    np.testing.assert_array_equal(ours[:], data)
    assert ours.metadata.dimension_names == ("view", "z", "row", "col")


def test_only_plain_arrays_are_taken_for_plain(tmp_path: Path) -> None:
    store = create_store(tmp_path / "a.zarr")
    assert is_plain(store.create_member("a", PLAN, np.uint8, compress=False))
    assert not is_plain(store.create_member("b", PLAN, np.uint8))
    assert not is_plain(zarr.create_array(tmp_path / "c.zarr", shape=(4, 4), dtype="u1"))
    big = zarr.create_array(
        tmp_path / "d.zarr", shape=(4, 4), chunks=(2, 2), shards=(4, 4), dtype=">u2", compressors=None
    )
    assert not is_plain(big)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-5], "index"),
        (lambda data: data[: len(data) // 2], "index"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "chunk .* is altered"),
        (lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:], "index"),
        (lambda data: b"", "index|read back"),
    ],
)
def test_damage_is_named(tmp_path: Path, rng: np.random.Generator, damage: object, words: str) -> None:
    root, (array,) = arrays(tmp_path, ("a",))
    path = root / write_shard(root, array, (1, 0, 0, 0), images(rng)[1:2]).file
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UserError, match=words) as caught:
        check_shard(root, array, (1, 0, 0, 0))
    assert str(path) in str(caught.value)


def test_chunk_that_was_never_written_is_named(tmp_path: Path) -> None:
    root, (array,) = arrays(tmp_path, ("a",))
    array[0, :, :8, :16] = 1
    with pytest.raises(UserError, match="never written"):
        check_shard(root, array, (0, 0, 0, 0))
    with pytest.raises(UserError, match="is missing"):
        check_shard(root, array, (2, 0, 0, 0))


def test_members_of_a_finished_store_are_read_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    store = create_store(tmp_path / "a.zarr")
    array = store.create_member("green", PLAN, np.uint16, compress=False)
    data = images(rng)
    with pytest.raises(UserError, match="3 shards were not written"):
        finish(store, {})
    for n in range(3):
        write_shard(store.path, array, (n, 0, 0, 0), data[n : n + 1])
    finish(store, {})
    reader = open_store(store.path)
    np.testing.assert_array_equal(reader.member("green")[:], data)
    with pytest.raises(UserError, match="has no red; its members: green"):
        reader.member("red")
    path = next(p for p in (store.path / "green").rglob("*") if p.is_file() and p.name != "zarr.json")
    path.unlink()
    with pytest.raises(UserError, match="1 shards of a finished store are missing"):
        open_store(store.path).member("green")
