"""Of the real images only those that are for training are trained on."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.errors import UserError
from gigascope.store.commit import finish
from gigascope.store.ensemble import create_ensemble
from gigascope.synthesis.adaptation.domain import Domain


def write(path, images):
    ensemble = create_ensemble(path)
    for n, (name, domain, use) in enumerate(images):
        image = ensemble.create_image(name, shape=(4 + n, 8, 8), dtype=np.uint16, spacing=dict.fromkeys("zyx", 1.0))
        image[:] = np.arange(256 + 64 * n, dtype=np.uint16).reshape(4 + n, 8, 8)
        image.attrs |= {"domain": domain, "use": use} if domain else {}
    finish(ensemble, {})


def test_images_kept_out_and_naive_ones_are_not_trained_on(tmp_path):
    write(tmp_path / "real.zarr", [("a0000", "A", "inference"), ("a0001", "A", "train"), ("b0000", "B", "train")])
    assert [volume.name for volume in Domain.open(tmp_path / "real.zarr").volumes] == ["a0001"]


def test_all_cultures_are(tmp_path):
    write(tmp_path / "cultures.zarr", [("s0000", None, None), ("s0001", None, None)])
    assert [volume.name for volume in Domain.open(tmp_path / "cultures.zarr").volumes] == ["s0000", "s0001"]


def test_real_images_of_which_none_is_for_training_are_refused(tmp_path):
    write(tmp_path / "real.zarr", [("a0000", "A", "inference")])
    with pytest.raises(UserError, match="holds 1 images, none of which is for training"):
        Domain.open(tmp_path / "real.zarr")
