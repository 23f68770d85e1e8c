"""Stages that are killed or asked to stop, and stores that were damaged after they were finished."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numba
import pytest
import torch

from gigascope.errors import UserError

from ..damage import DAMAGES, Damage, damaged_copy
from ..preloaded import Program
from ..stage_runs import chance, lines_in
from .chain import RUNS, assert_same, run_chain

pytestmark = pytest.mark.slow
# What a stage writes while it works, and how many lines of it show that some of the work is done and not all.
# Losses are there after the first step, and then every five seconds.
BEGUN = {"train": ("losses.tsv", 2), "simulate": ("items.jsonl", 1), "infer": ("items.jsonl", 1)}
STOPPED = 75


@dataclass(frozen=True)
class Chain:
    """Results of a chain that nothing disturbed.

    Attributes
    ----------
    folder : of the results
    seconds : that each stage took, without the start of a process
    """

    folder: Path
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    # sums of several threads differ in their last bits, and on so small images threads only wait for each other
    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    # both share the threads of OpenMP: what numba is told last, torch takes too
    numba.set_num_threads(1)
    folder = tmp_path_factory.mktemp("chain")
    yield Chain(folder, run_chain(folder))
    torch.set_num_threads(before[0])
    numba.set_num_threads(before[1])


# killed


class Rerun:
    """A stage that is started again and again in processes of its own.

    Parameters
    ----------
    chain : whose inputs it reads
    folder : of its own results
    """

    def __init__(self, chain: Chain, folder: Path, stage: str) -> None:
        self.chain, self.folder, self.stage = chain, folder, stage
        self._words = (chain.folder / "data.yaml", folder, stage, chain.folder)

    def start(self) -> Program:
        return RUNS.start(*self._words)

    def wait(self, process: Program, name: str, n_lines: int) -> bool:
        """Until files of that name in the scratch folder hold so many lines; whether the process still runs."""
        return process.wait_until(lambda: lines_in(self.folder / "scratch", name) >= n_lines)

    def kill(self, at: random.Random) -> None:
        """SIGKILL at a random moment of the work, or after it."""
        name = BEGUN[self.stage][0] if self.stage in BEGUN else "*.jsonl"
        done, process = lines_in(self.folder / "scratch", name), self.start()
        self.wait(process, name, done + 1)
        time.sleep(at.uniform(0, self.chain.seconds[self.stage]))
        print("ended with", process.kill())

    def stop(self) -> int:
        """SIGTERM when some of the work is done; its exit code. Where all was done before that, it begins anew."""
        code = 0
        for _ in range(5):
            process = self.start()
            self.wait(process, *BEGUN[self.stage])
            process.send_signal(signal.SIGTERM)
            if (code := process.wait()) != 0:
                break
            shutil.rmtree(self.folder)
        return code

    def finish(self) -> str:
        """To the end; what it logged."""
        return RUNS.finish(*self._words)


@pytest.mark.parametrize("stage", ["phantoms", "evaluate"])
def test_killed_and_started_again_is_the_same(stage: str, chain: Chain, tmp_path: Path) -> None:
    """Z2."""
    rerun = Rerun(chain, tmp_path, stage)
    rerun.kill(chance())
    rerun.finish()
    # a kernel that the process of the tests has compiled and the same from the cache differ in their last bits
    undisturbed = Rerun(chain, tmp_path / "undisturbed", stage)
    undisturbed.folder.mkdir()
    undisturbed.finish()
    assert_same(tmp_path, undisturbed.folder, stage)


@pytest.mark.parametrize("stage", BEGUN)
def test_stopped_killed_and_started_again_is_the_same(stage: str, chain: Chain, tmp_path: Path) -> None:
    """Z2, G6: SIGTERM keeps what is done, SIGKILL loses at most what came after it."""
    rerun = Rerun(chain, tmp_path, stage)
    assert rerun.stop() == STOPPED
    assert not list(tmp_path.glob("*.zarr"))
    rerun.kill(chance())
    log = rerun.finish()
    # unless the kill came too late, and all was done before
    assert "going on" in log or not list((tmp_path / "scratch").rglob("*.jsonl"))
    assert_same(tmp_path, chain.folder, stage)


# damaged

# Stage, the store that it reads, and one of its arrays.
READ = [
    ("prototypes", "real", "a0001/labels/nuclei/0"),
    ("phantoms", "prototypes", "arrays/sh"),
    ("simulate", "phantoms", "s0001/columns/harmonics"),
    ("simulate", "phantoms", "s0000/nuclei/centroid_z"),
    ("train", "cultures", "s0001/labels/nuclei/0"),
    ("train", "real", "a0000/0"),
    ("infer", "cultures", "s0001/0"),
    ("evaluate", "cultures", "s0001/0"),
    ("evaluate", "real", "a0001/labels/nuclei/0"),
    ("evaluate", "adapted", "s0000/0"),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(("stage", "store", "array"), READ, ids=["-".join(read[:2]) for read in READ])
def test_damaged_shard_is_refused_by_name(
    stage: str, store: str, array: str, damage: Damage, chain: Chain, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shard = damaged_copy(chain.folder, folder, store, array, damage, chance())
    # of an image of an ensemble the message says the folder, and the file in it
    name = shard.relative_to(array.split("/")[0])
    with pytest.raises(UserError, match=rf"{store}\.zarr.*{name}"):
        RUNS.run(chain.folder / "data.yaml", tmp_path, stage, folder)
    assert not [path for path in tmp_path.iterdir() if path.name not in ("damaged", "scratch")]
