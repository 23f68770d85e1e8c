"""What `gigascope check` says that training and inference need is what they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gigascope.check import needs, read_header
from gigascope.config.dataset import load_dataset

from ..peak import peak_of
from ..stage_runs import write_dataset
from .chain import RUNS, TINY

pytestmark = pytest.mark.slow

CASES: list[tuple[str, dict[str, Any]]] = [
    ("train", {"train": {"steps": 6}}),
    ("train", {"train": {"steps": 4, "patch_px": 160, "evidence_mb": 0.0}}),
    ("train", {"train": {"steps": 2, "mode": "parity"}}),
    ("infer", {"infer": {"method": "network"}}),
    ("infer", {"infer": {"method": "focus"}}),
]


@pytest.mark.parametrize(("stage", "changes"), CASES, ids=[f"{stage} {changes[stage]}" for stage, changes in CASES])
def test_peak_is_what_check_says(stage: str, changes: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    config = write_dataset(tmp_path, TINY, changes)
    dataset = load_dataset(config)
    said = {need.stage: need.each.memory for need in needs(dataset, read_header(dataset))}[f"topography.{stage}"]
    peak = peak_of(RUNS.arguments(config, tmp_path, stage, trained))
    print(f"{stage}: {peak / 2**20:.0f} MiB, said {said / 2**20:.0f}")
    assert 0.8 * said < peak < 1.2 * said
