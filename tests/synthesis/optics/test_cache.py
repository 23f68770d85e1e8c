"""PSFs on disk."""

from __future__ import annotations

import os
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
    plain = [f.name for f in fields(settings)]
    names |= {digest(replace(settings, **{name: "other"}), VOXEL, 40.0) for name in plain}
    assert len(names) == 3 + len(plain)


def test_measured_stacks_are_read_anew(optics, rng, tmp_path):
    psf = np.zeros((5, 7, 7), np.float32)
    psf[1:-1, 1:-1, 1:-1] = 1 + rng.random((3, 5, 5))
    psf[2, 3, 3] = 9
    tifffile.imwrite(tmp_path / "a.tif", psf)
    settings = optics(model="measured", paths=(str(tmp_path / "a.tif"),), path_voxel_um=VOXEL)
    first = cached_psf(tmp_path / "kept", settings, VOXEL, 1.0)
    psf[2, 3, 4] = 7
    tifffile.imwrite(tmp_path / "a.tif", psf)
    assert not np.array_equal(cached_psf(tmp_path / "kept", settings, VOXEL, 1.0).kernels, first.kernels)
    assert not (tmp_path / "kept").exists()


def test_those_that_were_not_used_for_the_longest_time_go(optics, computed, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MOST_FILES", 2)
    for n, depth in enumerate((0.0, 10.0, 0.0, 20.0)):
        cached_psf(tmp_path, optics(model="gaussian"), VOXEL, depth)
        for path in tmp_path.iterdir():
            if path.stat().st_mtime > 1e9:
                os.utime(path, (n + 1, n + 1))
    kept = {f"psf-{digest(optics(model='gaussian'), VOXEL, depth)}" for depth in (0.0, 20.0)}
    assert {path.stem for path in tmp_path.iterdir()} == kept
    assert len(computed) == 3


def test_a_folder_that_cannot_be_written_is_no_error(optics, computed, tmp_path):
    (tmp_path / "file").touch()
    cached_psf(tmp_path / "file" / "psf", optics(model="gaussian"), VOXEL, 10.0)
    assert len(computed) == 1


def test_folder_is_what_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, "")
    assert cache.psf_folder() is None
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    assert cache.psf_folder() == tmp_path
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.psf_folder() == tmp_path / "gigascope" / "psf"


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
