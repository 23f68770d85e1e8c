"""The datasets of real nuclei are valid, and their images come in as they should."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.config.dataset import load_dataset

DATASETS = {"ovule": 54, "embryo": 16, "dense_nuclei": 0}


@pytest.mark.parametrize("name", DATASETS)
def test_real_images_come_in_with_their_labels(repository, shared_data, ingest, monkeypatch, name):
    monkeypatch.chdir(repository)
    dataset = load_dataset(repository / "config" / "datasets" / "synthesis" / f"{name}.yaml")
    assert dataset.optional
    inputs = dataset.inputs.model_dump(mode="json", exclude_defaults=True)
    image = ingest(inputs).image("a0000")
    assert image.attrs["n_labels"] == DATASETS[name]
    # what is simulated lies on the same voxels
    size = [image.spacing[axis] for axis in "zyx"]
    np.testing.assert_allclose(dataset.simulate.grid.output_voxel_um, size, rtol=1e-4)
    np.testing.assert_allclose(dataset.phantoms.placement.voxel_um, size, rtol=1e-4)
    crop = dataset.train.crop
    assert crop is not None
    assert all(n >= c for n, c in zip(image.shape, crop))
