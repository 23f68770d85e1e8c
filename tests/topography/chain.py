"""The chain stage by stage, in this process or in one of its own, on datasets that are written here."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.config.dataset import TopographyDataset, load_dataset, merge
from gigascope.registry import get_stage
from gigascope.runtime.run import Job, run_stage
from gigascope.stage import Kind
from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.open import open_store
from gigascope.store.table import read_tsv
from gigascope.topography.calibration.field import terms
from gigascope.topography.calibration.result import InstrumentId, from_known_poses
from gigascope.topography.calibration.stored import write_calibration
from gigascope.topography.geometry.candidates import find_candidates
from gigascope.topography.synth import build_instrument

# Eight views of 192 pixels and nine slices, of which the truth is known.
TINY: dict[str, Any] = {
    "pipeline": "topography",
    "name": "tiny",
    "seed": 3,
    "device": "cpu",
    "inputs": {"instrument": {"preset": "XS"}},
    "ingest": {"chunk_px": 32},
}
# A training of a second.
SHORT: dict[str, Any] = {"train": {"steps": 8, "patch_px": 48}}
FILES = {"network": "network.pt", "metrics": "metrics.json", "page": "report.html"}


def chance() -> random.Random:
    """Random moments and orders; the seed is printed, so that a failure can be repeated."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def write_dataset(folder: Path, values: Mapping[str, Any], *changes: Mapping[str, Any]) -> Path:
    """The file of a dataset, with changes laid over its keys; JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    merged = dict(values)
    for change in changes:
        merged = merge(merged, dict(change))
    path = folder / "data.yaml"
    path.write_text(json.dumps(merged))
    return path


def write_true_calibration(path: Path, tiny: Path) -> None:
    """A calibration whose poses and surfaces of focus are those of a simulated instrument."""
    dataset = load_dataset(tiny / "data.yaml")
    assert isinstance(dataset, TopographyDataset)
    assert dataset.inputs.instrument is not None
    instrument = build_instrument(dataset.inputs.instrument, dataset.seed)
    poses, facts = instrument.truth.poses, open_store(tiny / "raw.zarr").attrs
    grid = np.moveaxis(np.mgrid[: poses.size[0] : 8, : poses.size[1] : 8], 0, -1).reshape(-1, 2)
    shape = terms(grid, poses.size)
    planes = [
        np.linalg.lstsq(shape, instrument.capture.z_flat_mm(row, col)[tuple(grid.T)], rcond=None)[0]
        for row, col in np.ndindex(*instrument.size.views)
    ]
    identity = InstrumentId(
        camera_rows=tuple(facts["camera_rows"]),
        camera_cols=tuple(facts["camera_cols"]),
        scan=tuple(facts["scan"]),
        size=poses.size,
        sensor_pitch_um=facts["sensor_pitch_um"],
        f_eff_mm=facts["f_eff_mm"],
        magnification=facts["m_ref"],
        ref_view=facts["ref_view"],
        stage_sign=instrument.capture.stage_sign,
    )
    calibration = from_known_poses(poses, identity, focus_plane=np.stack(planes))
    store = create_store(path)
    write_calibration(store, calibration, find_candidates(calibration.poses, calibration.mosaic_shape))
    finish(store, {})


def paths(folder: Path, stage: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Inputs and outputs of a stage in a results folder; optional inputs only where they are there."""
    declared = get_stage(f"topography.{stage}")

    def path(name: str, kind: Kind) -> Path:
        return folder / (f"{name}.zarr" if kind is Kind.STORE else FILES.get(name, f"{name}.tsv"))

    inputs = {n: path(n, k) for n, k in declared.inputs.items()}
    inputs |= {n: p for n, k in declared.optional_inputs.items() if (p := path(n, k)).exists()}
    return inputs, {n: path(n, k) for n, k in declared.outputs.items()}


def run(config: Path, folder: Path, stage: str, inputs_from: Path | None = None, job: Job | None = None) -> None:
    """A stage, or one of its jobs, in this process: what a test replaced in a module holds for all items."""
    inputs, _ = paths(inputs_from or folder, stage)
    _, outputs = paths(folder, stage)
    if job is not None and job.kind != "gather":
        outputs = {}
    run_stage(f"topography.{stage}", config, inputs, outputs, scratch=folder / "scratch", job=job, workers=1)


def run_in_parts(config: Path, folder: Path, stage: str, inputs_from: Path, parts: int) -> None:
    """A stage job by job, as the workflow runs it, parts in any order."""
    declared = get_stage(f"topography.{stage}")
    records = folder / "records"
    order = chance()
    run(config, folder, stage, inputs_from, Job("open", records))
    for round_ in range(declared.rounds(getattr(load_dataset(config), stage))):
        for part in order.sample(range(parts), parts):
            run(config, folder, stage, inputs_from, Job("part", records, round_, part))
    run(config, folder, stage, inputs_from, Job("gather", records))


def arguments(config: Path, folder: Path, stage: str, inputs_from: Path | None = None) -> list[str]:
    """The same as words of `gigascope`."""
    inputs, _ = paths(inputs_from or folder, stage)
    _, outputs = paths(folder, stage)
    words = ["run", f"topography.{stage}", "--config", str(config), "--scratch", str(folder / "scratch")]
    for option, named in (("--input", inputs), ("--output", outputs)):
        for name, path in named.items():
            words += [option, f"{name}={path}"]
    return words


def command(config: Path, folder: Path, stage: str, inputs_from: Path | None = None) -> list[str]:
    """The same as a process."""
    return [sys.executable, "-m", "gigascope.cli", *arguments(config, folder, stage, inputs_from)]


def contents(folder: Path, stage: str) -> dict[str, Any]:
    """What a stage left: digests of stores and files, columns of tables without the seconds that something took."""
    found: dict[str, Any] = {}
    for path in paths(folder, stage)[1].values():
        if path.suffix == ".zarr":
            found[path.name] = open_store(path).digest
        elif path.suffix == ".tsv":
            columns, _ = read_tsv(path)
            found[path.name] = {n: np.asarray(c).tolist() for n, c in columns.items() if not n.endswith("_s")}
        else:
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def assert_same(folder: Path, undisturbed: Path, stage: str) -> None:
    """All that a stage left is what it left elsewhere, bit for bit."""
    mine, theirs = contents(folder, stage), contents(undisturbed, stage)
    for name in theirs:
        np.testing.assert_equal(mine[name], theirs[name], err_msg=name)
