"""Volumes that several tests of the chain use, made once for all of them."""

from __future__ import annotations

import pytest

from gigascope.compression.bench_volume import BenchVolume, bench_volume


@pytest.fixture(scope="session")
def bench() -> BenchVolume:
    """The bench volume, (100, 320, 400) uint16, with its truth."""
    return bench_volume()
