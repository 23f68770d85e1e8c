"""Stages without checkpoints and parts: killed they leave nothing, and started again they give the same."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ..stage_runs import chance
from .chain import RUNS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stage", ["synth", "tiff", "mesh", "evaluate"])
def test_killed_and_started_again_is_the_same(stage: str, mosaicked: Any, tmp_path: Path) -> None:
    """E2: at two random moments, then to the end."""
    undisturbed, random = tmp_path / "undisturbed", chance()
    begun = time.monotonic()
    RUNS.finish(mosaicked.config, undisturbed, stage, mosaicked.folder)
    took = time.monotonic() - begun
    words = (mosaicked.config, tmp_path, stage, mosaicked.folder)
    for _ in range(2):
        process = RUNS.start(*words)
        time.sleep(random.uniform(0, took))
        print("ended with", process.kill())
    RUNS.finish(*words)
    RUNS.assert_same(tmp_path, undisturbed, stage)
