"""Quick digests of raw files: they see what changes and do not read what does not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from gigascope.runtime import raw_digest
from gigascope.runtime.raw_digest import quick_digest, raw_digests


def write(path: Path, rng: np.random.Generator, n_bytes: int) -> Path:
    path.write_bytes(rng.bytes(n_bytes))
    return path


def test_digest_depends_on_content_and_not_on_time(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write(tmp_path / "a.mrc", rng, 5_000_000)
    before = quick_digest(path)
    os.utime(path, (0, 0))
    assert quick_digest(path) == before


@pytest.mark.parametrize("n_bytes", [0, 1, 1000, raw_digest.BLOCK * raw_digest.N_BLOCKS, 50_000_000])
def test_digest_sees_another_size(tmp_path: Path, rng: np.random.Generator, n_bytes: int) -> None:
    path = write(tmp_path / "a.mrc", rng, n_bytes)
    before = quick_digest(path)
    with path.open("ab") as file:
        file.write(b"\0")
    assert quick_digest(path) != before


def test_small_file_is_read_whole_and_large_one_at_both_ends(tmp_path: Path, rng: np.random.Generator) -> None:
    small, large = write(tmp_path / "s", rng, 1_500_000), write(tmp_path / "l", rng, 40_000_000)
    for path, positions in ((small, rng.integers(0, 1_500_000, 5)), (large, [0, 39_999_999])):
        for position in positions:
            before = quick_digest(path)
            with path.open("r+b") as file:
                file.seek(position)
                byte = file.read(1)[0]
                file.seek(position)
                file.write(bytes([byte ^ 1]))
            assert quick_digest(path) != before


def test_known_files_are_not_read_again(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = write(tmp_path / "a.mrc", rng, 1000), tmp_path / "results" / "raw.json"
    first = raw_digests([path], cache)
    monkeypatch.setattr(raw_digest, "quick_digest", lambda path: pytest.fail(f"{path} was read again"))
    assert raw_digests([path], cache) == first
    monkeypatch.undo()
    os.utime(path, (0, 0))
    assert raw_digests([path], cache) == first
    assert json.loads(cache.read_text())[str(path)][1] == 0


def test_folder_of_many_files_is_one_entry(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "views"
    folder.mkdir()
    files = [write(folder / f"{i}.tif", rng, 100) for i in range(100)]
    angles = write(tmp_path / "views.tlt", rng, 10)
    cache = tmp_path / "raw.json"
    before = raw_digests([*files, angles], cache)
    assert set(before) == {str(folder), str(angles)}
    files[50].write_bytes(b"other")
    after = raw_digests([*files, angles], cache)
    assert after[str(folder)] != before[str(folder)]
    assert after[str(angles)] == before[str(angles)]
    assert raw_digests(files[:-1] + [angles], cache)[str(folder)] != after[str(folder)]


def test_store_counts_with_every_file_in_it(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "a.zarr" / "c").mkdir(parents=True)
    write(tmp_path / "a.zarr" / "zarr.json", rng, 100)
    chunk = write(tmp_path / "a.zarr" / "c" / "0", rng, 100)
    before = raw_digests([tmp_path / "a.zarr"], tmp_path / "raw.json")
    chunk.write_bytes(b"other")
    assert raw_digests([tmp_path / "a.zarr"], tmp_path / "raw.json") != before


def test_cache_that_cannot_be_written_or_read_is_no_matter(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write(tmp_path / "a.mrc", rng, 1000)
    (tmp_path / "file").write_text("")
    assert raw_digests([path], tmp_path / "file" / "raw.json") == {str(path): quick_digest(path)}
    broken = tmp_path / "raw.json"
    broken.write_text("{")
    assert raw_digests([path], broken) == {str(path): quick_digest(path)}
