"""Noise of known cameras and shifts of known size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from gigascope.errors import ShapeError
from gigascope.metrics.photon_transfer import PhotonTransfer, noise_residual
from gigascope.metrics.shift import GlobalShift, block_shift


def test_residual_of_white_noise_has_its_variance_and_smooth_structure_none(rng):
    noise = rng.normal(0, 3, (4, 200, 200))
    assert noise_residual(noise)[:, 2:-2, 2:-2].var() == pytest.approx(9, rel=0.05)
    z, y, x = np.meshgrid(np.arange(3.0), np.arange(20.0), np.arange(20.0), indexing="ij")
    assert np.abs(noise_residual(z + 2 * y - x + y * 0.5)[:, 1:-1, 1:-1]).max() < 1e-12


def test_photon_transfer_of_a_known_camera(rng):
    gain, offset, read = 2.2, 100.0, 1.5
    light = np.broadcast_to(np.linspace(20, 300, 160), (16, 160, 160))
    image = np.round(offset + gain * (rng.poisson(light) + rng.normal(0, read, light.shape)))
    curve = PhotonTransfer(offset, offset + gain * 320)
    for part in np.array_split(image, 4):
        curve.add(part, np.ones(part.shape, bool))
    line = curve.line()
    assert line.slope == pytest.approx(gain, rel=0.05)
    # read noise and rounding look like light below the offset
    expected = offset - (gain**2 * read**2 + 1 / 12) / gain
    assert line.offset == pytest.approx(expected, abs=12)
    assert all(abs(c) < 0.02 for c in curve.correlation)


def test_noise_that_neighbours_share_is_seen(rng):
    noise = rng.normal(0, 5, (12, 120, 120))
    shared = (noise + np.roll(noise, 1, axis=0)) / 2
    curve = PhotonTransfer(-1000, 1000, 1)
    curve.add(shared, np.ones(shared.shape, bool))
    assert curve.correlation[0] == pytest.approx(0.5, abs=0.05)


def test_voxels_that_do_not_count_change_nothing(rng):
    image = rng.poisson(50, (4, 60, 60)).astype(float)
    inside = np.zeros(image.shape, bool)
    inside[:, :, :30] = True
    other = image.copy()
    other[:, :, 34:] += 20
    found = []
    for v in (image, other):
        curve = PhotonTransfer(0, 100, 4)
        curve.add(v, inside)
        found.append(curve.curve)
    np.testing.assert_array_equal(found[0], found[1])
    assert math.isnan(PhotonTransfer(0, 1).line().slope)
    assert math.isnan(PhotonTransfer(0, 1).line().offset)


def scene(rng: np.random.Generator, shape=(24, 60, 60)) -> np.ndarray:
    return ndimage.gaussian_filter(rng.normal(size=shape), (1.5, 2.5, 2.5), mode="wrap") * 50


def moved(volume: np.ndarray, shift) -> np.ndarray:
    return np.fft.ifftn(ndimage.fourier_shift(np.fft.fftn(volume), shift)).real


def test_shift_is_found_to_a_fraction_of_a_voxel(rng):
    volume = scene(rng)
    for _ in range(4):
        shift = rng.uniform(-2, 2, 3)
        other = moved(volume, shift) + rng.normal(0, 0.05 * volume.std(), volume.shape)
        np.testing.assert_allclose(block_shift(volume, other)[0], shift, atol=0.12)


def test_volume_against_itself_is_not_shifted(rng):
    volume = scene(rng)
    np.testing.assert_allclose(block_shift(volume, 3 * volume + 7)[0], 0, atol=0.02)


def test_blocks_together_tell_the_shift_of_the_whole(rng):
    volume, shift = scene(rng, (16, 96, 96)), np.array([0.3, -0.7, 1.1])
    other = moved(volume, shift) + rng.normal(0, 0.1 * volume.std(), volume.shape)
    together = GlobalShift()
    for y in (0, 32, 64):
        for x in (0, 32, 64):
            part = np.s_[:, y : y + 32, x : x + 32]
            together.add(block_shift(volume[part], other[part])[1])
    np.testing.assert_allclose(together.value, shift, atol=0.2)
    assert np.isnan(GlobalShift().value).all()
    with pytest.raises(ShapeError):
        block_shift(volume, volume[:, 1:])
