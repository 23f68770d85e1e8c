"""Volumes that several tests of the chain use, made once for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tifffile

from gigascope.compression.bench_volume import BenchVolume, bench_crop, bench_volume

from .chain import SHAPE, TINY


@pytest.fixture(scope="session")
def bench() -> BenchVolume:
    """The bench volume, (100, 320, 400) uint16, with its truth."""
    return bench_volume()


@pytest.fixture(scope="session")
def tiny(bench: BenchVolume, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A dataset of a small piece of the bench volume, with somata and neurites, for the whole chain."""
    path: Path = tmp_path_factory.mktemp("tiny") / "tiny.tif"
    tifffile.imwrite(path, bench_crop(bench, SHAPE).volume, photometric="minisblack")
    return {**TINY, "inputs": {"volume": str(path)}}
