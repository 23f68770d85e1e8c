"""A commit that is stopped anywhere leaves whole stores or none, and one that is repeated ends the same."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gigascope.errors import UserError
from gigascope.store.checksum import verify
from gigascope.store.commit import finish, json_value, publish
from gigascope.store.create import create_image
from gigascope.store.open import is_complete, open_store


class Stopped(BaseException):
    """The process ends here, as far as the code under test can tell."""


def test_finish_stopped_at_any_write_leaves_no_complete_store_and_can_be_repeated(tmp_path, write_store, monkeypatch):
    undisturbed = finish(write_store(tmp_path / "b" / "a.zarr"), {})
    path = write_store(tmp_path / "a.zarr").path
    replace, count = Path.replace, 0

    def stop_at(n):
        def stopping(self, target):
            nonlocal count
            count += 1
            if count == n:
                raise Stopped
            return replace(self, target)

        return stopping

    n = 0
    while True:
        n, count = n + 1, 0
        monkeypatch.setattr(Path, "replace", stop_at(n))
        try:
            # provenance and attributes of a stage survive in the stage only
            assert finish(path, {}) != undisturbed
            break
        except Stopped:
            assert not is_complete(path), f"complete after write {n}"
    monkeypatch.undo()
    assert n > 20
    assert list(path.rglob("*.partial")) == []
    assert verify(path) == []
    writer = write_store(tmp_path / "c" / "a.zarr")
    assert finish(writer, {}) == undisturbed


def test_finish_sweeps_partial_files(tmp_path, write_store):
    writer = write_store(tmp_path / "a.zarr")
    stray = writer.path / "0" / "c" / "0" / "0" / "0.1234.partial"
    stray.write_bytes(b"half a shard")
    finish(writer, {})
    assert not stray.exists()
    assert verify(writer.path) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_or_allowed(tmp_path, rng, bad):
    data = rng.standard_normal((3, 40, 50), dtype=np.float32)
    data[1, 7, 30] = bad
    writer = create_image(tmp_path / "a.zarr", shape=data.shape, dtype=data.dtype)
    writer[:] = data
    with pytest.raises(UserError, match=rf"has the value {bad} at tilt 1, y 7, x 30"):
        finish(writer, {})
    assert not is_complete(writer.path)
    finish(writer, {}, allow_nan=True)
    statistics = open_store(writer.path).statistics
    finite = data[np.isfinite(data)]
    assert statistics["not_finite"] == 1
    assert (statistics["min"], statistics["max"]) == (finite.min(), finite.max())
    json.loads((writer.path / "zarr.json").read_text(), parse_constant=pytest.fail)


def test_image_of_nan_alone_can_be_kept(tmp_path):
    writer = create_image(tmp_path / "a.zarr", shape=(3, 4, 5), dtype=np.float32)
    writer[:] = np.full((3, 4, 5), np.nan, np.float32)
    finish(writer, {}, allow_nan=True)
    store = open_store(writer.path)
    assert store.statistics == {"min": None, "max": None, "mean": None, "not_finite": 60}
    assert store.window == (0.0, 1.0)


def test_root_stays_json_and_small(tmp_path, write_store):
    assert json_value({"a": (np.float32(1.5), np.nan, Path("x")), 2: np.arange(2)}) == {
        "a": [1.5, None, "x"],
        "2": [0, 1],
    }
    with pytest.raises(ValueError, match="no JSON value"):
        json_value({"a": object()})
    writer = write_store(tmp_path / "a.zarr")
    writer.attrs["losses"] = list(range(300_000))
    with pytest.raises(ValueError, match="keep long lists as tables"):
        finish(writer, {})
    assert not is_complete(writer.path)


# publishing


@pytest.fixture
def old_and_new(tmp_path, finished_store):
    """Two stores and a file, published once, and their successors in scratch."""
    finals = [tmp_path / "results" / name for name in ("a.zarr", "b.zarr", "shifts.tsv")]

    def make(generation):
        scratch = [tmp_path / "scratch" / final.name for final in finals]
        for path in scratch[:2]:
            finished_store(path, seed=generation)
        scratch[2].write_text(f"{generation}\n")
        return list(zip(scratch, finals))

    publish(make(0))
    return make(1), state(finals)


def state(finals):
    """What each final path holds: a digest, a text, or None where nothing complete is."""
    stores = [open_store(path).digest if is_complete(path) else None for path in finals[:2]]
    return [*stores, finals[2].read_text() if finals[2].exists() else None]


def test_publish_replaces_all_and_leaves_nothing_behind(tmp_path, old_and_new):
    moves, old = old_and_new
    (tmp_path / "results" / ".trash-a.zarr-of-a-killed-job" / "0").mkdir(parents=True)
    publish(moves)
    new = state([final for _, final in moves])
    assert all(a != b and b is not None for a, b in zip(old, new))
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["a.zarr", "b.zarr", "shifts.tsv"]
    assert list((tmp_path / "scratch").iterdir()) == []
    assert verify(tmp_path / "results" / "a.zarr") == []


@pytest.mark.parametrize("n", range(1, 7))
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_publish_puts_the_old_back_when_a_rename_fails(tmp_path, old_and_new, monkeypatch, n, code):
    moves, old = old_and_new
    rename, count = os.rename, 0

    def failing(source, target):
        nonlocal count
        count += 1
        if count == n:
            raise OSError(code, os.strerror(code), str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(UserError if code == errno.EACCES else OSError):
        publish(moves)
    assert state([final for _, final in moves]) == old
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["a.zarr", "b.zarr", "shifts.tsv"]
    monkeypatch.undo()
    publish(moves)
    assert None not in state([final for _, final in moves])


@pytest.mark.parametrize("n", range(1, 7))
def test_publish_killed_at_any_rename_leaves_no_mixture(old_and_new, monkeypatch, n):
    moves, old = old_and_new
    rename, count = os.rename, 0

    def killed(source, target):
        nonlocal count
        count += 1
        if count >= n:  # nothing can be undone either
            raise OSError(errno.EIO, "killed")
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(OSError, match="killed"):
        publish(moves)
    now = state([final for _, final in moves])
    kept = [a for a, b in zip(now, old) if a is not None and a == b]
    made = [a for a, b in zip(now, old) if a is not None and a != b]
    assert not (kept and made)
    assert len(kept) == max(0, 4 - n)
    assert len(made) == max(0, n - 4)


def test_publish_refuses_unfinished_missing_and_foreign(tmp_path, old_and_new, write_store):
    moves, old = old_and_new
    (scratch, final), *_ = moves
    finals = [final for _, final in moves]
    unfinished = write_store(tmp_path / "scratch" / "c.zarr").path
    with pytest.raises(UserError, match="is unfinished"):
        publish([*moves, (unfinished, tmp_path / "results" / "c.zarr")])
    with pytest.raises(UserError, match="was not written"):
        publish([*moves, (tmp_path / "scratch" / "d.zarr", tmp_path / "results" / "d.zarr")])
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="in the way and is no store"):
        publish([(scratch, home)])
    with pytest.raises(UserError, match="is a folder where a file is to be written"):
        publish([(moves[2][0], home)])
    assert state(finals) == old
    # Snakemake makes the folder and removes the root of the store before the job
    (final / "zarr.json").unlink()
    (tmp_path / "results" / "empty").mkdir()
    publish([(scratch, final), (moves[1][0], tmp_path / "results" / "empty")])
    assert is_complete(final)


def test_publish_refuses_another_file_system(old_and_new):
    moves, old = old_and_new
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == moves[0][1].parent.stat().st_dev:
        pytest.skip("needs /dev/shm on a file system of its own")
    with pytest.raises(UserError, match="on different file systems"):
        publish([*moves[1:], (moves[0][0], shared_memory / "gigascope-test" / "a.zarr")])
    (shared_memory / "gigascope-test").rmdir()
    assert state([final for _, final in moves]) == old


WRITER = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
import ome_zarr.writer
from gigascope.store.commit import finish, publish
from gigascope.store.create import create_image
from gigascope.store.plan import ShardPlan

def write(root, n_generations):
    for generation in range(n_generations):
        moves = []
        for name in ("a.zarr", "b.zarr"):
            writer = create_image(root / "scratch" / name, shape=(2, 80, 80), dtype=np.float32,
                                  plan=ShardPlan((2, 80, 80), 4, (1, 40, 40), (1, 80, 40)))
            for region in writer.shard_regions():
                writer[region] = np.full([r.stop - r.start for r in region], generation % 7, np.float32)
            finish(writer, {"generation": generation})
            moves.append((writer.path, root / "results" / name))
        publish(moves)

# One process imports, its children write and are killed: no time goes into starting Python.
def start(n_generations):
    child = os.fork()
    if child == 0:
        write(Path(sys.argv[1]), n_generations)
        os._exit(0)
    return child

chance = random.Random(int(sys.argv[2]))
begun = time.perf_counter()
os.waitpid(start(1), 0)
took = time.perf_counter() - begun
for _ in sys.stdin:
    child = start(1_000_000)
    time.sleep(chance.uniform(0.3, 3) * took)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(flush=True)
"""


@pytest.mark.slow
def test_stores_survive_real_kills(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    finals = [tmp_path / "results" / name for name in ("a.zarr", "b.zarr")]
    seen = set()
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(10):
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "\n", "the writing process ended by itself"
            complete = [path for path in finals if is_complete(path)]
            generations = {open_store(path).provenance["generation"] for path in complete}
            assert len(generations) <= 1, "outputs of two runs stand side by side"
            seen |= generations
            for path in complete:
                assert verify(path) == []
                assert (open_store(path).array()[:] == generations.copy().pop() % 7).all()
    assert seen, "no store was ever complete"
