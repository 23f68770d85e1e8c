"""What is said of the mosaic before it is made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigascope.config.dataset import TopographyDataset, load_dataset, parse_dataset
from gigascope.topography.mosaic import plan
from gigascope.topography.plan import TopographyHeader, read_header

from .captures import acquisition, dataset
from .mosaics import made_views


def parsed(**sections: Any) -> TopographyDataset:
    values = {"pipeline": "topography", "name": "x", "inputs": {"instrument": {"preset": "XS"}}, **sections}
    found = parse_dataset(values)
    assert isinstance(found, TopographyDataset)
    return found


def header(grid: tuple[int, int], size: int, share: float = 0.42) -> TopographyHeader:
    """Views of a size on a grid with this step, as a share of a view."""
    shape = tuple(round(size * (1 + share * (n - 1))) for n in grid)
    return TopographyHeader((*grid, 33, size, size), "uint8", "GBRG", 1, 0.04, (size, size), 5, (shape[0], shape[1]))


def test_memory_does_not_grow_with_the_mosaic() -> None:
    """P4: the published instrument needs less than 16 GB, and no more than a small part of it."""
    published, part = header((72, 48), 3072), header((9, 9), 3072)
    whole = plan.estimate_mosaic(parsed(), published)
    # but for its borders, where pixels have fewer views
    assert whole.memory == pytest.approx(plan.estimate_mosaic(parsed(), part).memory, rel=0.03)
    assert whole.memory < 4 * 2**30
    assert whole.gpu_memory < 4 * 2**30
    assert whole.disk == pytest.approx(7 * 4 * np.prod(published.mosaic_shape) * 4 / 3, rel=0.01)
    gather = plan.estimate_mosaic_job(parsed(), published, "gather")
    assert gather.memory < 2 * 2**30
    assert gather.gpu_memory == 0
    job = plan.estimate_mosaic_job(parsed(mosaic={"parts": 8}), published, "part")
    assert (job.memory, job.seconds) == (whole.memory, whole.seconds / 8)
    smaller = plan.estimate_mosaic(parsed(mosaic={"tile": 1024}), published)
    assert smaller.memory < 0.6 * whole.memory


def test_files_and_meshes_grow_with_what_is_written() -> None:
    found = header((9, 9), 1024)
    few, many = (plan.estimate_mesh(parsed(mesh={"vertices": n}), found) for n in (10_000, 1_000_000))
    assert few.memory < many.memory
    assert few.disk < many.disk
    assert plan.estimate_tiff(parsed(), found).disk == pytest.approx(np.prod(found.mosaic_shape) * 7 * 4 / 3, rel=0.01)


@pytest.mark.slow
def test_peak_memory_is_as_stated(tmp_path: Path) -> None:
    made = made_views(np.random.default_rng(1))
    stores = made.write(tmp_path)
    yaml = tmp_path / "data.yaml"
    values = {"pipeline": "topography", "name": "data", "inputs": {"instrument": {"preset": "XS"}}, "device": "cpu"}
    yaml.write_text(json.dumps({**values, "mosaic": {"tile": 256}}))
    command = [sys.executable, "-m", "gigascope.cli", "run", "topography.mosaic", "--config", str(yaml)]
    command += [word for name, path in stores.items() for word in ("--input", f"{name}={path}")]
    command += ["--output", f"mosaic={tmp_path / 'mosaic.zarr'}", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"peak memory ([\d.]+) (MiB|GiB)", done.stderr)
    assert found is not None
    peak = float(found[1]) * {"MiB": 2**20, "GiB": 2**30}[found[2]]
    stated = plan.estimate_mosaic(*_of(yaml)).memory
    print(f"{peak / 2**20:.0f} MiB, stated {stated / 2**20:.0f}")
    assert stated == pytest.approx(peak, rel=0.2)


def _of(yaml: Path) -> tuple[TopographyDataset, TopographyHeader]:
    of = load_dataset(yaml)
    assert isinstance(of, TopographyDataset)
    return of, read_header(of)


def test_mosaic_of_files_is_expected_where_stage_and_cameras_say(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng)
    made.write_captures(tmp_path / "a")
    of, found = _of(dataset(tmp_path, f"captures: {tmp_path}/a"))
    rows, cols = found.mosaic_shape
    assert rows > found.shape[3]
    assert cols > found.shape[4]
    assert plan.expect(found, of.mosaic).plan.shape == (7, rows, cols)
