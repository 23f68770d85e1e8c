"""Fixtures that every test may use: a generator with a printed seed and the folder of real data."""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
# Tests compute what they look at: nothing of another run is taken, and nothing is left in the home.
os.environ["GIGASCOPE_PSF_CACHE"] = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fresh", action="store_true", help="another random seed for every test, in every run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long go first: processes that share the files then end together."""
    marks = ("slurm", "workflow", "slow")
    rank: dict[Path, int] = {}
    for item in items:
        own = min((n for n, mark in enumerate(marks) if item.get_closest_marker(mark)), default=len(marks))
        rank[item.path] = min(own, rank.get(item.path, own))
    items.sort(key=lambda item: rank[item.path])


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


@pytest.fixture(scope="session")
def build_topography() -> Callable[..., Any]:
    """`tests/build_topography.py`'s builder of result folders of a simulated instrument."""
    return _topography().build_topography  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def mosaicked(build_topography: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A simulated XS acquisition with bare patches up to its mosaic; a warning that needs escaping."""
    folder = tmp_path_factory.mktemp("results") / "chip <7> & co"
    return build_topography(folder, seed=10, warnings=('look at <b>view 3</b> & "others"',))


@pytest.fixture(scope="session")
def evaluate_topography() -> Callable[..., Any]:
    """Completes such a folder with a training that is made up and an evaluation that is real."""
    return _topography().evaluated  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def focus_stack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Pictures of one camera up to the mosaic: no truth, no step known."""
    return _topography().build_focus_stack(tmp_path_factory.mktemp("results") / "slanted")


def _topography() -> Any:
    name = "gigascope_tests_build_topography"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "build_topography.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
