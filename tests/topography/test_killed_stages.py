"""Stages without checkpoints and parts: killed they leave nothing, and started again they give the same."""

from __future__ import annotations

import signal
import subprocess
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
    subprocess.run(RUNS.command(mosaicked.config, undisturbed, stage, mosaicked.folder), check=True)
    took = time.monotonic() - begun
    words = RUNS.command(mosaicked.config, tmp_path, stage, mosaicked.folder)
    for _ in range(2):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, took))
        process.send_signal(signal.SIGKILL)
        print("ended with", process.wait())
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    RUNS.assert_same(tmp_path, undisturbed, stage)
