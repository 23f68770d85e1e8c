"""Two tiny spheroids, placed and simulated once for the tests of the stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from ...stage_runs import write_dataset
from .tiny import RUNS, TINY


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the store of two phantoms."""
    folder = tmp_path_factory.mktemp("phantoms")
    RUNS.run(write_dataset(folder, TINY), folder, "phantoms")
    return folder


@pytest.fixture(scope="session")
def simulated(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the store of their images, made in one job."""
    folder = tmp_path_factory.mktemp("cultures")
    RUNS.run(write_dataset(folder, TINY), folder, "simulate", phantoms)
    return folder
