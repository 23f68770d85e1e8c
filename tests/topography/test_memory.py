"""What `gigascope check` says that the stages need is what they take, and within what a machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gigascope.check import needs, read_header
from gigascope.config.dataset import load_dataset, parse_dataset

from ..peak import peak_of
from ..stage_runs import write_dataset
from .chain import RUNS, TINY

NETWORK: list[tuple[str, dict[str, Any]]] = [
    ("train", {"train": {"steps": 6}}),
    ("train", {"train": {"steps": 4, "patch_px": 160, "evidence_mb": 0.0}}),
    ("train", {"train": {"steps": 2, "mode": "parity"}}),
    ("infer", {"infer": {"method": "network"}}),
    ("infer", {"infer": {"method": "focus"}}),
]
# Of the rest mosaic and evaluate are measured beside their other tests.
OTHERS = ("synth", "ingest", "calibrate", "mesh", "tiff")


def assert_peak(config: Path, folder: Path, stage: str, inputs_from: Path | None) -> None:
    dataset = load_dataset(config)
    said = {need.stage: need.each.memory for need in needs(dataset, read_header(dataset))}[f"topography.{stage}"]
    peak = peak_of(RUNS.arguments(config, folder, stage, inputs_from))
    print(f"{stage}: {peak / 2**20:.0f} MiB, said {said / 2**20:.0f}")
    assert 0.8 * said < peak < 1.2 * said


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "changes"), NETWORK, ids=[f"{stage} {changes[stage]}" for stage, changes in NETWORK])
def test_peak_of_the_network_is_what_check_says(
    stage: str, changes: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    assert_peak(write_dataset(tmp_path, TINY, changes), tmp_path, stage, trained)


@pytest.mark.slow
@pytest.mark.parametrize("stage", OTHERS)
def test_peak_is_what_check_says(stage: str, mosaicked: Any, tmp_path: Path) -> None:
    config = write_dataset(tmp_path, TINY, {"seed": 10, "tiff": {"enabled": True}})
    assert_peak(config, tmp_path, stage, mosaicked.folder)


@pytest.mark.slow
def test_peak_of_registration_is_what_check_says(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "p").mkdir()
    picture = rng.integers(0, 255, (600, 800, 3), dtype=np.uint8)
    for n in range(5):
        Image.fromarray(np.roll(picture, n, axis=1)).save(tmp_path / "p" / f"s{n}.png")
    values = {"pipeline": "topography", "name": "data", "inputs": {"images": str(tmp_path / "p")}}
    config = write_dataset(tmp_path, values)
    RUNS.run(config, tmp_path, "ingest")
    assert_peak(config, tmp_path, "register", None)


@pytest.mark.parametrize("preset", ["L", "XL"])
def test_largest_instruments_fit_into_16_gb(preset: str) -> None:
    """P4, as check says it: memory of every job, and of a GPU."""
    values = {"pipeline": "topography", "name": "large", "inputs": {"instrument": {"preset": preset}}}
    dataset = parse_dataset({**values, "tiff": {"enabled": True}})
    found = [need.each for need in needs(dataset, read_header(dataset))]
    assert len(found) >= 9
    assert max(each.memory for each in found) <= 16e9
    assert max(each.gpu_memory for each in found) <= 24e9
