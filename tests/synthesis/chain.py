"""A dataset that goes through every stage of the chain, each in a second or less, and what its stages leave."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.store.open import open_store
from gigascope.store.table import read_tsv

from ..stage_runs import StageRuns, write_dataset

SPHEROID = {"semi_axes_um": [11.0, 10.0, 12.0], "margin_um": 3.0}
CHAIN: dict[str, Any] = {
    "pipeline": "synthesis",
    "name": "chain",
    "seed": 3,
    "device": "cpu",
    # its images have labels, which prototypes are taken from
    "inputs": {"planted": {"images": 2, "widen": 1.2, "phantoms": {"region": SPHEROID}}},
    "prototypes": {"enabled": True, "max_residual": 0.3, "max_hidden": 0.3, "min_voxels": 20},
    "phantoms": {"n_spheroids": 2, "region": SPHEROID, "nuclei": {"library": "prototypes"}},
    "simulate": {
        "grid": {"block": [16, 32, 64]},
        "optics": {"model": "gaussian", "sigma_depth_um": 20.0, "cap_um": [4.0, 1.5, 1.5]},
        # so many that each is an item
        "store": {"chunk": [8, 16, 32], "shard": [8, 32, 32]},
    },
    "train": {
        "width": 4, "blocks": 0, "crop": [8, 16, 16], "discriminator": "pixel", "batch": 1, "steps": 16, "pool": 1,
    },
    "infer": {"window": [8, 32, 32], "chunk": [4, 16, 32], "shard": [8, 32, 32]},
    "evaluate": {"tile": [8, 24, 24], "patches": 500, "bootstrap": 5, "edge": {"tile_um": 8, "min_length_um": 5}},
}
STAGES = ("ingest", "prototypes", "phantoms", "simulate", "train", "infer", "evaluate")
FILES = {"network": "network.pt", "events": "events.out.tfevents.train", "metrics": "metrics.json"}
RUNS = StageRuns("synthesis", FILES)


def run_chain(folder: Path) -> dict[str, float]:
    """All stages in this process; returns the seconds that each took."""
    config, seconds = write_dataset(folder, CHAIN), {}
    for stage in STAGES:
        begun = time.monotonic()
        RUNS.run(config, folder, stage)
        seconds[stage] = time.monotonic() - begun
    return seconds


def assert_same(folder: Path, undisturbed: Path, stage: str) -> None:
    """All that a stage left is what it left elsewhere, but for the times that a training keeps."""
    if stage != "train":
        RUNS.assert_same(folder, undisturbed, stage)
        return
    assert (folder / "network.pt").read_bytes() == (undisturbed / "network.pt").read_bytes()
    mine, theirs = (read_tsv(f / "losses.tsv")[0] for f in (folder, undisturbed))
    assert mine.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(mine[name], values, err_msg=name)
    stores = [open_store(f / "training.zarr") for f in (folder, undisturbed)]
    for name in ("naive", "adapted", "real", "adapted_xz"):
        np.testing.assert_array_equal(*(store.member(name)[:] for store in stores))
