"""Acquisitions that several tests of the chain use, made once for all of them and not to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from .chain import TINY, run, write_dataset


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of the smallest simulated instrument: `data.yaml`, sample, target, truth and raw."""
    folder = tmp_path_factory.mktemp("tiny")
    config = write_dataset(folder, TINY)
    for stage in ("synth", "ingest"):
        run(config, folder, stage)
    return folder
