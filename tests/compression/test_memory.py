"""What `gigascope check` says that a stage needs is what it takes, and a larger volume takes no more."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from gigascope.check import needs, read_header
from gigascope.compression.bench_volume import BenchVolume
from gigascope.config.dataset import load_dataset
from gigascope.store import plan

from ..peak import peak_of
from ..stage_runs import write_dataset
from .chain import RUNS
from .compressed import write_file

pytestmark = pytest.mark.slow

STAGES = ("ingest", "gate", "fit", "decode")
# Bricks of the default's width with a neighbour on one side along y and x, and on both along z in either volume. Two
# iterations: buffers are of their full size from the first one on.
FIT = {
    "brick": [32, 128, 128],
    "halo": 16,
    "iterations": 2,
    "sweeps": 1,
    "sweep_iterations": 1,
    "quantise": {"iterations": 1},
}
SHAPE = (128, 256, 256)
# The larger volume is the smaller one with three times as many dark planes behind it, in which nothing is fitted.
TIMES = 4
# Small, so that either volume has several shards: they end at 128 MiB, which would take half a gigabyte to reach.
SHARD = 8 * 2**20


def measure(config: Path, folder: Path, stage: str) -> int:
    """Bytes that a stage holds at most, from its inputs in a folder."""
    peak = peak_of(RUNS.arguments(config, folder, stage, folder), SHARD)
    print(f"{folder.name} {stage}: {peak / 2**20:.0f} MiB")
    return peak


@dataclass
class Measured:
    """Peaks of the stages of a volume, bytes, each measured when it is first asked for, and what `check` says."""

    config: Path
    estimates: dict[str, int]
    peaks: dict[str, int]

    def peak(self, stage: str) -> int:
        """Of a stage; the stages before it are run too."""
        for name in STAGES[: STAGES.index(stage) + 1]:
            if name not in self.peaks:
                folder = self.config.parent
                self.peaks[name] = measure(self.config, folder, name)
        return self.peaks[stage]


@pytest.fixture(scope="module")
def measured(
    bench: BenchVolume, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Measured]:
    """`small`: two copies of the bench volume side by side; `large`; `simulated`: as large as the small one."""
    rng = np.random.default_rng(0)
    signal = np.concatenate([bench.volume[:, :256, :256]] * 2)[: SHAPE[0]]
    level = np.median(signal)
    sd = np.sqrt(np.square(signal[signal <= level] - level).mean())

    # a kernel that is compiled where it is called costs 90 MiB and half a minute, once after each installation
    subprocess.run([sys.executable, "-m", "gigascope.warm"], check=True)

    @functools.cache
    def of(which: str) -> Measured:
        folder = tmp_path_factory.mktemp(which)
        inputs: dict[str, Any] = {"phantom": {"shape": SHAPE}}
        if which != "simulated":
            dark = np.empty((0 if which == "small" else (TIMES - 1) * SHAPE[0], *SHAPE[1:]), np.uint16)
            for plane in dark:
                plane[:] = rng.normal(level, sd, plane.shape).round()
            tifffile.imwrite(folder / "volume.tif", np.concatenate([signal, dark]), photometric="minisblack")
            inputs = {"volume": str(folder / "volume.tif")}
        config = write_dataset(folder, {**tiny, "inputs": inputs}, {"fit": FIT})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan, "SHARD_TARGET", SHARD)
            dataset = load_dataset(config)
            said = {need.stage: need.each.memory for need in needs(dataset, read_header(dataset))}
        return Measured(config, {stage: said[f"compression.{stage}"] for stage in STAGES}, {})

    return of


@pytest.mark.parametrize(
    ("which", "stage"), [("simulated", "ingest"), *((which, s) for which in ("small", "large") for s in STAGES)]
)
def test_peak_is_within_a_fifth_of_what_check_says(measured: Callable[[str], Measured], which: str, stage: str) -> None:
    volume = measured(which)
    peak, said = volume.peak(stage), volume.estimates[stage]
    assert 0.8 * said < peak < 1.2 * said, f"{peak / 2**20:.0f} MiB, check says {said / 2**20:.0f} MiB"


@pytest.mark.parametrize("stage", ["ingest", "gate", "fit"])
def test_a_larger_volume_takes_hardly_more(measured: Callable[[str], Measured], stage: str) -> None:
    small, large = measured("small"), measured("large")
    more = large.peak(stage) - small.peak(stage)
    said = large.estimates[stage] - small.estimates[stage]
    # The gate takes the scatter of the background from up to 33 million voxels; of other stages little is expected.
    assert said < (40 if stage == "gate" else 15) * 2**20
    held = 2 * (TIMES - 1) * math.prod(SHAPE)
    assert more - said < held, "the voxels are held as they are in the file, or more"


def test_decoding_a_larger_volume_takes_hardly_more(
    tiny: dict[str, Any], rng: np.random.Generator, tmp_path: Path
) -> None:
    """A few shards, and six times as many; a file of random Gaussians is made without a fit."""
    peaks = {}
    for depth in (256, 1536):
        folder = tmp_path / str(depth)
        config = write_dataset(folder, tiny)
        write_file(folder / "gaussians.gmix", rng, 3000, (depth, *SHAPE[1:]), ("z", "y", "x"))
        peaks[depth] = measure(config, folder, "decode")
    # half of what the added voxels take as integers
    assert peaks[1536] - peaks[256] < 1280 * math.prod(SHAPE[1:])
