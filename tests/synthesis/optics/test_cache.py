"""PSFs on disk."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import tifffile

from gigascope.synthesis.optics import cache
from gigascope.synthesis.optics.cache import cached_psf, digest
from gigascope.synthesis.optics.depth_psf import DepthPsf
from gigascope.synthesis.optics.tabulate import depth_psf

VOXEL = (0.75, 0.25, 0.25)


@pytest.fixture
def computed(monkeypatch):
    """How often a PSF was computed."""
    calls = []
    monkeypatch.setattr(cache, "depth_psf", lambda *a: calls.append(a) or depth_psf(*a))
    return calls


def test_second_time_comes_from_the_file(optics, computed, tmp_path):
    settings = optics(na=0.8, n_sample=1.33)
    first = cached_psf(tmp_path / "new", settings, VOXEL, 40.0)
    second = cached_psf(tmp_path / "new", settings, VOXEL, 40.0)
    assert len(computed) == 1
    for field in fields(DepthPsf):
        one, two = getattr(first, field.name), getattr(second, field.name)
        assert type(one) is type(two)
        assert np.array_equal(one, two)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [f"psf-{digest(settings, VOXEL, 40.0)}.npz"]
    cached_psf(None, settings, VOXEL, 40.0)
    assert len(computed) == 2


def test_every_parameter_is_part_of_the_name(optics):
    settings = optics()
    names = {digest(settings, VOXEL, 40.0), digest(settings, (0.75, 0.25, 0.26), 40.0), digest(settings, VOXEL, 41.0)}
    plain = [f.name for f in fields(settings) if f.name != "paths"]
    names |= {digest(replace(settings, **{name: "other"}), VOXEL, 40.0) for name in plain}
    assert len(names) == 3 + len(plain)


def test_contents_of_measured_stacks_count_and_not_their_names(optics, rng, tmp_path):
    stack, found = rng.random((5, 6, 7)).astype(np.float32), []
    for name, values in (("a", stack), ("b", stack), ("c", stack + 1)):
        tifffile.imwrite(tmp_path / f"{name}.tif", values)
        settings = optics(model="measured", paths=(str(tmp_path / f"{name}.tif"),))
        found.append(digest(settings, VOXEL, 1.0))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_damaged_file_is_replaced(optics, computed, tmp_path, damage):
    settings = optics(model="gaussian")
    cached_psf(tmp_path, settings, VOXEL, 10.0)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    again = cached_psf(tmp_path, settings, VOXEL, 10.0)
    assert len(computed) == 2
    assert np.array_equal(again.kernels, depth_psf(settings, VOXEL, 10.0).kernels)
    cached_psf(tmp_path, settings, VOXEL, 10.0)
    assert len(computed) == 2
