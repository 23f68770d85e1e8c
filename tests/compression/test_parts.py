"""The number of jobs that share a stage changes nothing in its result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tifffile

from gigascope.compression.bench_volume import BenchVolume, bench_crop
from gigascope.compression.gating import gate_layout
from gigascope.config.dataset import load_dataset
from gigascope.registry import get_stage
from gigascope.runtime.run import Job
from gigascope.store import plan as shards
from gigascope.store.open import open_store

from ..stage_runs import chance, write_dataset
from .chain import RUNS


@pytest.fixture(scope="module")
def many(bench: BenchVolume, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A dataset of 8 bricks, 8 regions of the gate and 8 shards of the decoded volume, and its results in one part."""
    folder = tmp_path_factory.mktemp("many")
    tifffile.imwrite(folder / "many.tif", bench_crop(bench, (24, 128, 256)).volume, photometric="minisblack")
    small = {"fit": {"brick": [24, 64, 64], "iterations": 8}, "inputs": {"volume": str(folder / "many.tif")}}
    config = write_dataset(folder, tiny, small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate_layout, "SHARD", (64, 64, 64))
        for limit in ("SHARD_TARGET", "SHARD_LIMIT"):
            patch.setattr(shards, limit, 24 * 64 * 64 * 2)
        for stage in ("ingest", "gate", "fit", "decode"):
            RUNS.run(config, folder, stage)
        yield json.loads(config.read_text()), folder


def run_in_parts(config: Path, folder: Path, stage: str, inputs_from: Path, parts: int) -> int:
    """A stage job by job, as the workflow runs it, parts in any order; the number of its rounds."""
    declared = get_stage(f"compression.{stage}")
    rounds = declared.rounds(getattr(load_dataset(config), stage))
    records = folder / "records"
    RUNS.run(config, folder, stage, inputs_from, Job("open", records))
    order = chance()
    for round_ in range(rounds):
        for part in order.sample(range(parts), parts):
            RUNS.run(config, folder, stage, inputs_from, Job("part", records, round_, part))
    RUNS.run(config, folder, stage, inputs_from, Job("gather", records))
    return rounds


TARGETS: dict[str, Mapping[str, Any]] = {
    "lambda": {},
    # what the bricks of all parts came to in the first round decides how many Gaussians go or come; one more round
    "bytes and max_error": {"bytes": 2500, "max_error": 60},
}


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "target"), [("gate", ""), ("decode", ""), *(("fit", name) for name in TARGETS)])
def test_number_of_parts_does_not_change_a_bit(many: Any, tmp_path: Path, stage: str, target: str) -> None:
    values, one = many
    change: dict[str, Any] = {"fit": TARGETS[target]} if target else {}
    whole = one
    if TARGETS.get(target):
        whole = tmp_path / "whole"
        RUNS.run(write_dataset(whole, values, change), whole, stage, one)
    for parts in (3, 8):
        folder = tmp_path / str(parts)
        config = write_dataset(folder, values, change, {stage: {"parts": parts}})
        rounds = run_in_parts(config, folder, stage, one, parts)
        RUNS.assert_same(folder, whole, stage)
        name = {"gate": "gate", "decode": "decoded", "fit": "gaussians"}[stage]
        shared = open_store(folder / f"{name}.zarr").provenance["scatter"]
        assert shared["parts"] == parts
        assert len(shared["items"]) == rounds
        assert max(shared["items"]) == 8, "as many items as parts: each part does something"
        assert not [path for path in (folder / "scratch").rglob("*") if path.is_file()]
