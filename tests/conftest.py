"""Fixtures that every test may use: a printed random seed and the folder of real data."""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A fresh generator; its seed is printed, so that a failure can be repeated."""
    seed = secrets.randbits(32)
    print(f"{request.node.nodeid}: numpy seed {seed}")
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
