"""Fixtures that every test may use: a generator with a printed seed and the folder of real data."""

from __future__ import annotations

import secrets
import zlib
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fresh", action="store_true", help="another random seed for every test, in every run")


# Identities with derived tolerances, which hold for any input. Fits and statistics of a sample hold for nearly any.
FRESH = ("tests/kernels", "tests/metrics")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator; its seed is printed: a new one for kernels, metrics and with `--fresh`, else by the name."""
    name = request.node.nodeid
    fresh = name.startswith(FRESH) or request.config.getoption("--fresh")
    seed = secrets.randbits(32) if fresh else zlib.crc32(name.encode())
    print(f"{name}: numpy seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real microscopy data beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}: put the folder there to run this test")
    return SHARED_DATA
