"""What `gigascope check` says of phantoms and their images is what they take, whatever the spheroid's size (T3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gigascope.check import needs, read_header
from gigascope.config.dataset import load_dataset

from ..peak import peak_of
from ..stage_runs import write_dataset
from .chain import RUNS

pytestmark = pytest.mark.slow
GIB = 2**30
# One block of the microscope that is the default, which is most of what the stage holds.
SIMULATED: dict[str, Any] = {
    "pipeline": "synthesis",
    "name": "memory",
    "device": "cpu",
    "phantoms": {"n_spheroids": 1, "region": {"semi_axes_um": [40.0]}},
    "simulate": {"grid": {"field_um": [60.0, 70.0, 70.0], "block": [40, 140, 140]}},
}
# In the larger spheroid one array of a whole volume of the finer grid would take 0.14 GiB, in the smaller 0.02.
BLOCKS: dict[str, Any] = {
    "grid": {"block": [32, 64, 128]},
    "optics": {"model": "gaussian", "sigma_depth_um": 500.0, "cap_um": [4.0, 1.5, 1.5]},
    "attenuation": {"cone_rays": 1},
    "store": {"chunk": [32, 64, 128], "shard": [32, 128, 128]},
}


def said(config: Path, stage: str) -> int:
    """Bytes that check says."""
    dataset = load_dataset(config)
    found = {need.stage: need.each.memory for need in needs(dataset, read_header(dataset))}
    return int(found[f"synthesis.{stage}"])


def peak(config: Path, folder: Path, stage: str, inputs_from: Path | None = None) -> int:
    """Bytes that it takes, within 20 % of what check says."""
    found, expected = peak_of(RUNS.arguments(config, folder, stage, inputs_from)), said(config, stage)
    print(f"{stage}: {found / 2**20:.0f} MiB, said {expected / 2**20:.0f}")
    assert 0.8 * expected < found < 1.2 * expected, stage
    return found


def test_peak_of_the_simulation_is_what_check_says(tmp_path: Path) -> None:
    config = write_dataset(tmp_path, SIMULATED)
    peak(config, tmp_path, "phantoms")
    assert peak(config, tmp_path, "simulate") > 0.65 * GIB


def test_peak_of_the_simulation_does_not_follow_the_spheroid(tmp_path: Path) -> None:
    """T3."""
    peaks = []
    for radius in (20.0, 50.0):
        folder = tmp_path / f"{radius:g}"
        values = {**SIMULATED, "phantoms": {"n_spheroids": 1, "region": {"semi_axes_um": [radius]}}, "simulate": BLOCKS}
        config = write_dataset(folder, values)
        RUNS.run(config, folder, "phantoms")
        peaks.append(peak(config, folder, "simulate"))
    assert peaks[1] - peaks[0] < 0.1 * GIB


def test_peaks_of_the_adaptation_are_what_check_says(tmp_path: Path) -> None:
    spheroid = {"n_spheroids": 2, "region": {"semi_axes_um": [32.0]}}
    values: dict[str, Any] = {
        **SIMULATED,
        "inputs": {"planted": {"images": 2}},
        "phantoms": spheroid,
        "simulate": {"preset": "fast"},
        "train": {"width": 8, "crop": [16, 64, 64], "batch": 2, "steps": 2, "readers": 2, "weights": {"label": 0}},
    }
    config = write_dataset(tmp_path, values)
    for stage in ("ingest", "phantoms", "simulate"):
        RUNS.run(config, tmp_path, stage)
    for stage in ("train", "infer", "evaluate"):
        peak(config, tmp_path, stage)
