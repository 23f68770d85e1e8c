"""The chain through its stages on a tiny volume: products, and what kills, stops and damaged inputs leave."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gigascope.cli import main
from gigascope.errors import Checkpointed
from gigascope.runtime import checkpoint
from gigascope.store.checksum import verify
from gigascope.store.open import open_store

from ..stage_runs import chance, write_dataset
from .chain import ORDER, RUNS

STORES = ("volume", "gate", "gaussians", "decoded", "codec_pictures")
# Long enough for a stop while it is trained.
NETWORK = {"gate": {"mode": "network", "network": {"steps": 200, "batch": 256, "width": 16, "depth": 3}}}
# One brick, so that a stop comes while it is fitted and not between two.
ONE_BRICK = {"fit": {"brick": [24, 64, 96], "iterations": 200, "sweeps": 0}}


@pytest.fixture(autouse=True)
def _own_sigterm() -> Any:
    """A stage takes SIGTERM as the request to save and stop: pytest gets its own answer back."""
    previous = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, previous)


@pytest.fixture(scope="module")
def config(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("config"), tiny)


@pytest.fixture(scope="module")
def results(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset through all stages, undisturbed."""
    folder = tmp_path_factory.mktemp("results")
    for stage in ORDER:
        RUNS.run(config, folder, stage)
    return folder


def test_every_store_is_complete_verified_and_knows_how_it_was_made(results: Path) -> None:
    for name in STORES:
        made = open_store(results / f"{name}.zarr").provenance
        assert verify(results / f"{name}.zarr") == []
        assert (made["dataset"], made["seed"]) == ("tiny", 3)
        assert made["config"]
        assert all(len(item["digest"]) == 64 for item in made["inputs"].values())
        assert made["peak_memory_bytes"] > 2**26
    assert not (results / "scratch").exists()


# kills and stops


@pytest.mark.slow
@pytest.mark.parametrize("stage", ORDER)
def test_killed_at_random_moments_and_started_again_equals_undisturbed(
    config: Path, results: Path, tmp_path: Path, stage: str
) -> None:
    moments = chance()
    for _ in range(2):
        process = RUNS.start(config, tmp_path, stage, results)
        # The stage begins with this line; before it Python is loaded and nothing is at stake.
        assert process.wait_until(lambda: "config:" in (tmp_path / "log").read_text())
        time.sleep(moments.uniform(0.0, 2.5))
        process.kill()
        for store in tmp_path.glob("*.zarr"):
            assert verify(store) == [], "a store in place is a whole one"
    RUNS.run(config, tmp_path, stage, results)
    RUNS.assert_same(tmp_path, results, stage)
    assert not (tmp_path / "scratch").exists()


LONG = {"fit": ONE_BRICK, "gate": NETWORK}


@pytest.fixture(scope="module")
def long(tiny: dict[str, Any], results: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder with the dataset and the undisturbed result of a stage that has a long computation."""
    made: dict[str, Path] = {}

    def of(stage: str) -> Path:
        if stage not in made:
            made[stage] = tmp_path_factory.mktemp("long")
            RUNS.run(write_dataset(made[stage], tiny, LONG[stage]), made[stage], stage, results)
        return made[stage]

    return of


# `gigascope` that says when a computation is well under way: a stop before that has no state to save.
TELLING = """
import sys
from gigascope.cli import main
from gigascope.runtime.checkpoint import Checkpoints

updates = Checkpoints.run

def run(self, name, computation):
    for number, update in enumerate(updates(self, name, computation)):
        if number == 5:
            print("under way", file=sys.stderr, flush=True)
        yield update

Checkpoints.run = run
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", LONG)
def test_sigterm_saves_the_state_and_ends_with_75(
    long: Callable[[str], Path], results: Path, tmp_path: Path, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = long(stage)
    config = undisturbed / "data.yaml"
    line = [sys.executable, "-c", TELLING, *RUNS.arguments(config, tmp_path, stage, results)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("under way" in text for text in process.stderr)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 75, said
    assert "start again to go on" in said
    assert list(tmp_path.rglob("*.checkpoint"))
    assert not any(path.exists() for path in RUNS.paths(tmp_path, stage)[1].values())
    with caplog.at_level("INFO"):
        RUNS.run(config, tmp_path, stage, results)
    assert "going on from a checkpoint" in caplog.text
    RUNS.assert_same(tmp_path, undisturbed, stage)
    assert not (tmp_path / "scratch").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", LONG)
def test_stopped_again_and_again_it_comes_to_the_same_bits(
    long: Callable[[str], Path], results: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, moments, stops = long(stage), chance(), 0
    monkeypatch.setattr(checkpoint.Checkpoints, "out_of_time", property(lambda self: moments.random() < 0.03))
    for _ in range(200):
        try:
            RUNS.run(undisturbed / "data.yaml", tmp_path, stage, results)
            break
        except Checkpointed:
            stops += 1
            assert not any(path.exists() for path in RUNS.paths(tmp_path, stage)[1].values())
    assert stops > 1
    RUNS.assert_same(tmp_path, undisturbed, stage)


# damage


def refusal(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """What `gigascope` says when it refuses."""
    with pytest.raises(SystemExit) as exit_:
        main(words)
    said = capsys.readouterr().err
    assert exit_.value.code == 2, said
    assert "Traceback" not in said
    return said


def damage(path: Path, how: str, moments: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if how == "altered":
        content[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
    path.write_bytes(content[: len(content) // 2] if how == "cut" else content)
    if how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("stage", "mode"),
    # `threshold` reads voxels when it opens, `intensity` leaves that to the items
    [("gate", "threshold"), ("gate", "intensity"), ("fit", "threshold"), ("evaluate", "threshold")],
)
@pytest.mark.parametrize("how", ["altered", "cut", "missing"])
def test_damaged_shard_of_the_volume_is_refused_by_name(
    tiny: dict[str, Any], results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, mode: str,
    how: str,
) -> None:  # fmt: skip
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(results, copy)
    (shard,) = (path for path in (copy / "volume.zarr" / "0").rglob("*") if path.is_file() and path.suffix != ".json")
    damage(shard, how, chance())
    config = write_dataset(out, tiny, {"gate": {"mode": mode}})
    said = refusal(capsys, RUNS.arguments(config, out, stage, copy))
    assert f"{copy / 'volume.zarr'}" in said
    assert shard.relative_to(copy / "volume.zarr").as_posix() in said
    assert not any(path.exists() for path in RUNS.paths(out, stage)[1].values())


@pytest.mark.parametrize("stage", ["decode", "evaluate"])
@pytest.mark.parametrize("how", ["altered", "cut"])
def test_damaged_compressed_file_is_refused(
    config: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, how: str
) -> None:
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(results, copy)
    damage(copy / "gaussians.gmix", how, chance())
    said = refusal(capsys, RUNS.arguments(config, out, stage, copy))
    assert f"{copy / 'gaussians.gmix'}" in said
    assert "is damaged" in said or "is no Gaussian file" in said
    assert not any(path.exists() for path in RUNS.paths(out, stage)[1].values())
