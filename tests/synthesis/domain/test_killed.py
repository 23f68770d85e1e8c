"""Reading and describing real images, killed at random moments and started again, gives the same."""

from __future__ import annotations

import time

import h5py
import numpy as np
import pytest
from scipy import ndimage

from ...stage_runs import StageRuns, chance, write_dataset

RUNS = StageRuns("synthesis", {})
pytestmark = pytest.mark.slow


def write_nuclei(path, rng):
    """Twelve balls, an image and labels, as HDF5."""
    z, y, x = (np.indices((40, 90, 90)) + 0.5) * np.reshape((0.6, 0.3, 0.3), (3, 1, 1, 1))
    labels = np.zeros(z.shape, np.uint16)
    for number in range(12):
        cz, cy, cx = 7 + 10 * (number // 9), 5 + 8 * (number % 3), 5 + 8 * (number // 3 % 3)
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 3.2**2] = number + 1
    grey = ndimage.gaussian_filter((labels > 0) * 100.0, 1) + rng.normal(20, 3, labels.shape)
    with h5py.File(path, "w") as file:
        for name, values in {"raw": grey.clip(0).astype(np.uint8), "label": labels}.items():
            file[name] = values
            file[name].attrs["element_size_um"] = [0.6, 0.3, 0.3]


@pytest.mark.parametrize("stage", ["ingest", "prototypes"])
def test_killed_and_started_again_is_the_same(tmp_path, rng, stage):
    """Z2: at two random moments, then to the end."""
    write_nuclei(tmp_path / "a.h5", rng)
    entry = {"image": str(tmp_path / "a.h5/raw"), "labels": str(tmp_path / "a.h5/label")}
    values = {"pipeline": "synthesis", "name": "a", "inputs": {"real": [entry]}, "prototypes": {"enabled": True}}
    config = write_dataset(tmp_path, values)
    undisturbed, again, random = tmp_path / "undisturbed", tmp_path / "again", chance()
    RUNS.run(config, tmp_path / "real", "ingest")
    begun = time.monotonic()
    RUNS.finish(config, undisturbed, stage, tmp_path / "real")
    took = time.monotonic() - begun
    words = (config, again, stage, tmp_path / "real")
    for _ in range(2):
        process = RUNS.start(*words)
        time.sleep(random.uniform(0.3, 1) * took)
        print("ended with", process.kill())
    RUNS.finish(*words)
    RUNS.assert_same(again, undisturbed, stage)
