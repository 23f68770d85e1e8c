"""Acquisitions that several tests of the chain use, made once for all of them and not to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..stage_runs import write_dataset
from .chain import RUNS, SHORT, TINY, write_true_calibration


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of the smallest simulated instrument: `data.yaml`, sample, target, truth and raw."""
    folder = tmp_path_factory.mktemp("tiny")
    config = write_dataset(folder, TINY)
    for stage in ("synth", "ingest"):
        RUNS.run(config, folder, stage)
    return folder


@pytest.fixture(scope="session")
def posed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of the tiny instrument with `raw` and the `calibration` that is true of it."""
    folder = tmp_path_factory.mktemp("posed")
    (folder / "raw.zarr").symlink_to(tiny / "raw.zarr")
    (folder / "truth.zarr").symlink_to(tiny / "truth.zarr")
    write_true_calibration(folder / "calibration.zarr", tiny)
    return folder


@pytest.fixture(scope="session")
def trained(posed: Path) -> Path:
    """The same folder with a network of a few steps, which turned out better than focus alone or did not."""
    RUNS.run(write_dataset(posed, TINY, SHORT), posed, "train")
    return posed
