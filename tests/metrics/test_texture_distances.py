"""Spectra, patches, features of a random network and bootstrap intervals: closed forms and what the distances tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from gigascope.errors import ShapeError
from gigascope.metrics.bootstrap import draws, interval
from gigascope.metrics.kernel_distance import N_FEATURES, KernelDistance, RandomFeatures, Standard, two_sample_auc
from gigascope.metrics.patches import (
    BINS,
    RANGE,
    counted_distance,
    projection_counts,
    sliced_wasserstein,
    take_patches,
    whitening,
)
from gigascope.metrics.spectrum import frequencies, ring_power, spectrum_distance

SHAPE = (8, 24, 24)


def textures(rng: np.random.Generator, n: int, width: float = 1.0, scale: float = 1.0, shift: float = 0.0):
    crops = ndimage.gaussian_filter(rng.normal(size=(n, *SHAPE)), (0, 0.6, width, width), mode="wrap")
    return (scale * crops / crops.std() + shift).astype(np.float32)


def test_power_of_white_noise_is_its_variance_everywhere(rng):
    power = np.mean([ring_power(3.0 * rng.normal(size=SHAPE)) for _ in range(60)], axis=0)
    along, rings = frequencies(SHAPE)
    assert power.shape == (along.size, rings.size) == (5, 13)
    # the mean was removed at 0, and of the window's neighbours with it
    assert power[2:, 2:].mean() == pytest.approx(9.0, rel=0.05)


def test_power_of_a_wave_stands_at_its_frequency():
    z, _, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    power = ring_power(np.cos(2 * np.pi * (2 * z / SHAPE[0] + 6 * x / SHAPE[2])))
    assert np.unravel_index(power.argmax(), power.shape) == (2, 6)


def test_spectra_of_scaled_images_differ_by_the_logarithm(rng):
    crop = rng.normal(size=SHAPE)
    a, b = ring_power(crop), ring_power(10 * crop)
    assert spectrum_distance(a, b, SHAPE) == pytest.approx(2.0, rel=1e-6)
    assert spectrum_distance(np.stack([a, b]), a, SHAPE).tolist() == pytest.approx([0.0, 2.0], abs=1e-6)
    with pytest.raises(ShapeError):
        ring_power(np.zeros((3, 8, 8)))


def test_patches_are_pieces_of_the_tile(rng):
    tile = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    for patch in take_patches(tile, 20, rng):
        corner = np.argwhere(tile == patch[0])[0]
        box = tuple(slice(c, c + n) for c, n in zip(corner, (5, 7, 7)))
        np.testing.assert_array_equal(tile[box].ravel(), patch)
    with pytest.raises(ShapeError):
        take_patches(np.zeros((4, 9, 9)), 1, rng)


def test_projections_of_the_reference_are_white(rng):
    patches = rng.normal(size=(4000, 12)) @ rng.normal(size=(12, 12)) + 5
    projected = whitening(patches, rng, 64)(patches)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(projected.std(axis=0), 1, rtol=1e-3)


def test_sliced_distance_of_a_shift_is_the_mean_of_its_projections(rng):
    a = rng.normal(size=(500, 6))
    step = rng.normal(size=6)
    white = whitening(a, rng, 32)
    expected = np.abs(step @ white.matrix).mean()
    assert sliced_wasserstein(white(a), white(a + step)) == pytest.approx(expected, rel=1e-4)
    assert sliced_wasserstein(white(a), white(a[::-1])) == 0.0
    with pytest.raises(ShapeError):
        sliced_wasserstein(white(a), white(a[1:]))


def test_counted_projections_agree_with_sorted_ones(rng):
    a, b = (rng.normal(m, 1, (3000, 16)).astype(np.float32) for m in (0.0, 0.4))
    counted = counted_distance(*(projection_counts(v).astype(float) for v in (a, b)))
    assert counted == pytest.approx(sliced_wasserstein(a, b), abs=2 * RANGE / BINS)


def test_features_are_fixed_and_see_brightness_and_texture(rng):
    crops = torch.from_numpy(textures(rng, 4))[:, None]
    found = RandomFeatures(3)(crops)
    assert found.shape == (4, N_FEATURES)
    torch.testing.assert_close(RandomFeatures(3)(crops), found, rtol=0, atol=0)
    assert not torch.allclose(RandomFeatures(4)(crops), found)
    assert not torch.allclose(RandomFeatures(3)(crops + 0.5), found)
    with pytest.raises(ShapeError):
        RandomFeatures()(crops[:, 0])


def features(rng: np.random.Generator, n: int, **how: float) -> np.ndarray:
    with torch.no_grad():
        return RandomFeatures()(torch.from_numpy(textures(rng, n, **how))[:, None]).numpy()


def test_kernel_distance_is_nought_within_a_set_and_sees_a_shift(rng):
    """E4."""
    real, again, shifted = features(rng, 80), features(rng, 80), features(rng, 80, shift=0.6)
    standard = Standard(real)
    floor = KernelDistance(standard(real), standard(again))
    drawn = floor.drawn(draws(80, 200, rng), draws(80, 200, rng))
    low, high = interval(drawn, 0.99)
    assert low <= 0 <= high
    moved = KernelDistance(standard(real), standard(shifted)).value
    assert moved > floor.value + 10 * drawn.std()


def test_kernel_distance_is_unbiased_and_what_its_definition_says(rng):
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(9, 5))

    def k(x, y):
        return (x @ y / 5 + 1) ** 3

    within = [np.mean([k(p, q) for i, p in enumerate(v) for j, q in enumerate(v) if i != j]) for v in (a, b)]
    across = np.mean([k(p, q) for p in a for q in b])
    assert KernelDistance(a, b).value == pytest.approx(sum(within) - 2 * across, rel=1e-10)
    values = [KernelDistance(rng.normal(size=(10, 4)), rng.normal(size=(12, 4))).value for _ in range(600)]
    assert abs(np.mean(values)) < 5 * np.std(values) / math.sqrt(600)
    # a set of tiles of which each was drawn twice is the set itself
    found = KernelDistance(a, b).drawn(np.full((1, 7), 2.0), np.full((1, 9), 2.0))
    assert found[0] == pytest.approx(KernelDistance(a, b).value, rel=1e-10)
    assert math.isnan(KernelDistance(a[:1], b).value)


def test_classifier_is_at_a_loss_within_a_set_and_sure_of_a_shift(rng):
    real, again, other = (rng.normal(size=(100, 30)) for _ in range(3))
    areas = [two_sample_auc(rng.normal(size=(100, 30)), rng.normal(size=(100, 30)), rng) for _ in range(20)]
    assert abs(np.mean(areas) - 0.5) < 0.05
    other[:, 3] += 3.0
    assert two_sample_auc(real, other, rng) > 0.9
    assert math.isnan(two_sample_auc(real[:9], again, rng))


def test_interval_of_the_mean_has_the_width_that_theory_says(rng):
    values = rng.normal(size=400)
    drawn = draws(400, 2000, rng) @ values / 400
    assert (draws(400, 3, rng).sum(axis=1) == 400).all()
    low, high = interval(drawn)
    assert (high - low) == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert np.isnan(interval([np.nan])).all()
    assert sum(interval(drawn, centre=5.0)) / 2 == pytest.approx(5.0, abs=0.1 * (high - low))
