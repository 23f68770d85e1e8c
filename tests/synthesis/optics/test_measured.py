"""PSFs of the user: a round trip through files, and stacks that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from gigascope.errors import UserError
from gigascope.synthesis.optics.measured import load, resample, symmetrised, without_background
from gigascope.synthesis.optics.tabulate import depth_psf

VOXEL = (0.75, 0.25, 0.25)


@pytest.fixture
def bead(optics):
    """(z, y, x) counts of a simulated bead, and the PSF that it shows."""
    psf = depth_psf(optics(psf_energy=0.98), VOXEL, 0.0).at(0.0)
    stack = np.pad(np.rint(50_000 * psf / psf.max()), 2)
    return (stack + 300).astype(np.uint16), psf


def tiff(path: Path, stack: np.ndarray, voxel: tuple[float, ...] = VOXEL) -> str:
    """As ImageJ writes it."""
    metadata = {"spacing": voxel[0], "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(path, stack, imagej=True, resolution=(1 / voxel[2], 1 / voxel[1]), metadata=metadata)
    return str(path)


def ome_zarr(path: Path, stack: np.ndarray) -> str:
    """An OME-Zarr 0.5 image."""
    group = zarr.create_group(path)
    group.create_array("0", data=stack)
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(VOXEL)}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    return str(path)


@pytest.mark.parametrize("write", [tiff, ome_zarr])
def test_psf_comes_back_from_a_file(optics, bead, tmp_path, write):
    stack, expected = bead
    # background, edges that are cut and counts that are whole leave a few per mille
    found = depth_psf(optics(model="measured", paths=(write(tmp_path / "bead.tif", stack),)), VOXEL, 100.0).at(0.0)
    half = [min(a // 2, b // 2) for a, b in zip(found.shape, expected.shape)]
    one, two = (a[tuple(slice(n // 2 - h, n // 2 + h + 1) for n, h in zip(a.shape, half))] for a in (found, expected))
    assert found.sum(dtype=float) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(one - two) < 0.02 * np.linalg.norm(expected)


def test_brightest_voxel_or_the_middle_of_the_stack_is_the_centre(optics, bead, tmp_path):
    stack, _ = bead
    path = tiff(tmp_path / "bead.tif", np.pad(stack, ((2, 0), (0, 0), (0, 1)), constant_values=300))
    found = depth_psf(optics(model="measured", paths=(path,)), VOXEL, 0.0).at(0.0)
    assert np.unravel_index(found.argmax(), found.shape) == tuple(n // 2 for n in found.shape)
    # one more plane above moves the middle by half a plane each
    found = depth_psf(optics(model="measured", paths=(path,), recentre=False), VOXEL, 0.0).at(0.0)
    assert np.unravel_index(found.argmax(), found.shape)[0] == found.shape[0] // 2 + 1


def test_a_lobe_keeps_its_side(optics, tmp_path):
    """O4"""
    stack = np.zeros((9, 9, 9), np.uint16)
    stack[4, 4, 4], stack[6, 4, 4] = 3000, 1000
    found = depth_psf(optics(model="measured", paths=(tiff(tmp_path / "a.tif", stack),)), VOXEL, 0.0).at(0.0)
    middle = tuple(n // 2 for n in found.shape)
    assert found[middle] == pytest.approx(0.75)
    assert found[middle[0] + 2, middle[1], middle[2]] == pytest.approx(0.25)


def test_stacks_by_depth_are_interpolated(optics, tmp_path):
    paths = []
    for n, width in enumerate((1.0, 2.0)):
        x = np.arange(-7, 8)
        g = np.exp(-0.5 * (x / width) ** 2)
        paths.append(tiff(tmp_path / f"{n}.tif", np.rint(60_000 * g[:, None, None] * g[:, None] * g).astype(np.uint16)))
    keys = {"model": "measured", "paths": tuple(paths), "cap_um": (6, 6, 6), "eig_tol": 1e-5}
    psf = depth_psf(optics(**keys, path_depths_um=(10.0, 50.0)), VOXEL, 100.0)
    one, two = psf.at(10.0), psf.at(50.0)
    np.testing.assert_allclose(psf.at(20.0), 0.75 * one + 0.25 * two, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(psf.at(0.0), one, rtol=1e-5, atol=1e-9)
    other = depth_psf(optics(**keys, path_depths_um=(10.0, 80.0)), VOXEL, 100.0)
    assert np.abs(other.at(50.0) - two).max() > 1e-4


def test_other_voxels_take_means_or_lines(rng):
    signal = rng.random((9, 12, 15))
    middle = (4, 6, 7)
    assert np.array_equal(resample(signal, VOXEL, middle, VOXEL, (4, 5, 7)), signal[:, 1:12, :])
    coarse = resample(signal, (1.0, 1.0, 1.0), middle, (3.0, 3.0, 3.0), (1, 1, 2))
    expected = signal[:, 2:11].reshape(3, 3, 3, 3, 5, 3).mean((1, 3, 5))
    np.testing.assert_allclose(coarse, expected)
    fine = resample(signal, (1.0, 1.0, 1.0), middle, (0.5, 1.0, 1.0), (2, 0, 0))[:, 0, 0]
    column = signal[:, 6, 7]
    np.testing.assert_allclose(fine, [column[3], (column[3] + column[4]) / 2, column[4], column[4:6].mean(), column[5]])


def test_voxel_size_set_by_hand_comes_first(optics, bead, tmp_path):
    path = tiff(tmp_path / "bead.tif", bead[0], voxel=(9.0, 9.0, 9.0))
    found = [
        depth_psf(optics(model="measured", paths=(path,), path_voxel_um=v), VOXEL, 0.0).at(0.0)
        for v in (VOXEL, (0.375, 0.25, 0.25))
    ]
    assert found[1].shape[0] < found[0].shape[0]


def test_symmetrised_psf_equals_its_mirror_images(optics, rng, bead, tmp_path):
    psf = symmetrised(rng.random((3, 5, 5)), square=True)
    for mirrored in (psf[:, ::-1], psf[:, :, ::-1], psf.swapaxes(1, 2)):
        np.testing.assert_allclose(psf, mirrored)
    assert symmetrised(np.ones((3, 5, 7)), square=False).shape == (3, 5, 7)
    stack = bead[0].copy()
    stack[:, : stack.shape[1] // 2] //= 2
    path = tiff(tmp_path / "bead.tif", stack)
    one, two = (load(optics(model="measured", paths=(path,), symmetrise=s), VOXEL, (9, 9, 9))[0] for s in (False, True))
    assert np.abs(one - one[:, ::-1]).max() > 0.01 * one.max()
    np.testing.assert_allclose(two, two[:, ::-1], atol=1e-7)


def test_background_is_the_median_of_the_outer_shell(rng):
    stack = rng.uniform(90, 110, (9, 9, 9))
    stack[4, 4, 4] = 1000
    signal = without_background(stack, "a")
    assert signal.min() == 0
    assert signal[4, 4, 4] == pytest.approx(900, abs=3)


def test_stacks_that_are_no_psf_are_refused(optics, rng, tmp_path):
    def refuse(stack: np.ndarray, message: str, **keys: object) -> None:
        path = tmp_path / "psf.tif"
        tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "TZYX"[-stack.ndim :]})
        settings = optics(**{"model": "measured", "paths": (str(path),), "path_voxel_um": VOXEL, **keys})
        with pytest.raises(UserError, match=message) as caught:
            depth_psf(settings, VOXEL, 0.0)
        assert caught.value.where == str(path)
        assert "optics." in str(caught.value) or "Save" in str(caught.value) or "Give" in str(caught.value)

    noise = rng.random((7, 9, 9)).astype(np.float32)
    refuse(np.full((7, 9, 9), 5, np.uint8), "nowhere brighter than at its border")
    refuse(noise[0], "is a stack of 1 x 9 x 9 voxels")
    refuse(np.stack([noise, noise]), "2 times and 1 channels")
    refuse(np.where(noise > 0.99, np.nan, noise), "not numbers")
    bright = noise.copy()
    bright[0, 3, 4] = 9
    refuse(bright, r"brightest at its border, at voxel \(0, 3, 4\) of 7 x 9 x 9")
    refuse(noise, "does not say the size of its voxels", path_voxel_um=None)
    with pytest.raises(UserError, match=r"no such file or folder. Check optics.paths"):
        depth_psf(optics(model="measured", paths=(str(tmp_path / "none.tif"),)), VOXEL, 0.0)
    (tmp_path / "psf.tif").write_bytes(b"II*\0nonsense")
    with pytest.raises(UserError, match="is truncated"):
        depth_psf(optics(model="measured", paths=(str(tmp_path / "psf.tif"),)), VOXEL, 0.0)
