"""A finished run of two tiny datasets, and fresh copies of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from .checkout import TINY, Checkout


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Two tiny datasets, run to the end; not to be changed. Processes that share the tests share it too."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "done").exists():
            datasets = {"one": TINY.format(name="one", halves="true"), "two": TINY.format(name="two", halves="false")}
            Checkout.make(folder / "repository", datasets).snakemake()
            (folder / "done").touch()
    return Checkout(folder / "repository")


@pytest.fixture
def finished(finished_once: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished run, to be changed."""
    return finished_once.clone(tmp_path / "repository")


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A copy of the repository with one tiny dataset, nothing run yet."""
    return Checkout.make(tmp_path / "repository", {"one": TINY.format(name="one", halves="true")})
