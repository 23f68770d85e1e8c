"""A real SLURM of three nodes, where its packages are installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cluster import Cluster, missing_packages, running_cluster


@pytest.fixture(scope="session")
def installed() -> None:
    """The packages of SLURM, or no test."""
    missing = missing_packages()
    if missing:
        pytest.skip(f"SLURM is not installed: apt-get install --no-install-recommends {' '.join(missing)}")


@pytest.fixture(scope="session")
def cluster(installed: None) -> Iterator[Cluster]:
    """Three nodes of two CPUs and 4 GB each."""
    with running_cluster() as running:
        yield running
