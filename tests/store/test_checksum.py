"""Every change of a finished store is found and named; equal content has an equal digest."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
import zarr

from gigascope.errors import UserError
from gigascope.store.checksum import read_checksums, verify
from gigascope.store.commit import finish
from gigascope.store.create import create_image
from gigascope.store.open import open_store
from gigascope.store.plan import ShardPlan

EVERY_KIND = ["0/c/1/0/1", "1/c/2/0/0", "labels/mask/0/c/0/0/0", "arrays/history/c/0/0", "tables/shifts/f_s/c/0"]


@pytest.fixture
def finished(tmp_path, finished_store):
    path = finished_store(tmp_path / "a.zarr")
    assert verify(path) == []
    return path


@pytest.mark.parametrize("name", [*EVERY_KIND, "0/zarr.json", "zarr.json", "checksums/sha256/c/0"])
def test_a_flipped_bit_is_found_and_named(finished, rng, name):
    path = finished / name
    content = bytearray(path.read_bytes())
    if name == "zarr.json":
        content = content.replace(b"nanometer", b"kilometer", 1)
    else:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    problems = verify(finished)
    assert len(problems) == 1
    assert problems[0].startswith("checksums:" if name.startswith("checksums") else f"{name}: altered")


@pytest.mark.parametrize("name", EVERY_KIND)
def test_missing_and_truncated_files_are_named(finished, name):
    size = (finished / name).stat().st_size
    os.truncate(finished / name, size - 1)
    assert verify(finished) == [f"{name}: truncated ({size - 1} bytes, {size} were committed)"]
    (finished / name).unlink()
    assert verify(finished) == [f"{name}: missing"]


def test_readers_refuse_missing_shards_and_catch_flipped_bytes(finished, rng):
    path = finished / "0" / "c" / "1" / "0" / "1"
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 0x40
    path.write_bytes(content)
    with pytest.raises((ValueError, RuntimeError)):
        open_store(finished).array()[1]
    path.unlink()
    with pytest.raises(UserError, match=r"1 shards .* missing, the first is 0/c/1/0/1"):
        open_store(finished).array()


def test_record_lists_each_file_with_its_sha256(finished):
    files = {f.file: f for f in read_checksums(zarr.open_group(finished, mode="r"))}
    expected = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert set(files) == {name for name in expected if name != "zarr.json" and not name.startswith("checksums/")}
    content = (finished / "0" / "c" / "0" / "0" / "0").read_bytes()
    assert files["0/c/0/0/0"].sha256 == hashlib.sha256(content).hexdigest()
    assert files["0/c/0/0/0"].bytes == len(content)


def test_files_of_others_in_a_store_are_no_problem(finished):
    (finished / ".snakemake_timestamp").touch()
    (finished / ".DS_Store").write_bytes(b"x")
    assert verify(finished) == []


def test_digest_depends_on_content_and_not_on_provenance(tmp_path, write_store):
    def digest(name, seed=0, provenance=None, change=lambda writer: None):
        writer = write_store(tmp_path / name, seed)
        change(writer)
        return finish(writer, provenance or {})

    first = digest("a.zarr", provenance={"finished": "monday", "wall_s": 1.5})
    assert digest("b/a.zarr", provenance={"finished": "tuesday"}) == first
    assert digest("c/a.zarr", seed=1) != first
    assert digest("d/a.zarr", change=lambda writer: writer.attrs.update(axis_deg=1)) != first
    assert digest("e/a.zarr", change=lambda writer: writer.write_table("more", {"a": [1]})) != first
    assert open_store(tmp_path / "a.zarr").digest == first


def unfinished(path, data):
    writer = create_image(
        path, shape=data.shape, dtype=data.dtype, plan=ShardPlan(data.shape, 4, (1, 8, 8), (1, 16, 16))
    )
    writer[:] = data
    return writer


def test_finish_names_missing_damaged_and_half_written_shards(tmp_path, rng):
    data = rng.standard_normal((2, 32, 32), dtype=np.float32)
    writer = unfinished(tmp_path / "a.zarr", data)
    shard = tmp_path / "a.zarr" / "0" / "c" / "1" / "0" / "1"
    whole = shard.read_bytes()

    def refusal() -> str:
        with pytest.raises(UserError) as caught:
            finish(writer, {})
        record = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["attributes"]["gigascope"]
        assert record["complete"] is False
        return str(caught.value)

    shard.unlink()
    assert "1 shards were not written, the first is 0/c/1/0/1" in refusal()
    for damaged in (whole[:-7], whole[:10], b"", whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        shard.write_bytes(damaged)
        assert f"{shard}: the shard cannot be read back" in refusal()
    shard.unlink()
    writer.array[1, 0:16, 16:24] = data[1, 0:16, 16:24]
    assert f"{shard}: 2 chunks of this shard were never written" in refusal()
    shard.write_bytes(whole)
    finish(writer, {})
    np.testing.assert_array_equal(open_store(tmp_path / "a.zarr").array()[:], data)
