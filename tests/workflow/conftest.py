"""A finished run of two tiny datasets, and fresh copies of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .checkout import TINY, Checkout


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Two tiny datasets, run to the end; not to be changed."""
    datasets = {"one": TINY.format(name="one", halves="true"), "two": TINY.format(name="two", halves="false")}
    checkout = Checkout.make(tmp_path_factory.mktemp("finished") / "repository", datasets)
    checkout.snakemake()
    return checkout


@pytest.fixture
def finished(finished_once: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished run, to be changed."""
    return finished_once.clone(tmp_path / "repository")


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A copy of the repository with one tiny dataset, nothing run yet."""
    return Checkout.make(tmp_path / "repository", {"one": TINY.format(name="one", halves="true")})
