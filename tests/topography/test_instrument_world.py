"""The simulated specimen and its random numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage, stats

from gigascope.topography.instrument import heights as bodies
from gigascope.topography.instrument import noise, pyramid, world
from gigascope.topography.instrument.heights import Window
from gigascope.topography.instrument.presets import PRESETS, SCENES, largest_relief_um, preset, scene
from gigascope.topography.instrument.world import Albedo, World

WINDOW = Window(-37, 4031, 180, 210)


def a_world(seed: int, **albedo: object) -> World:
    parts = (
        bodies.Relief(seed, 60.0),
        bodies.Blocks(seed, 40.0),
        bodies.Caps(seed, 30.0, 120.0),
        bodies.Pins(seed, 50.0, 90.0),
        bodies.Staircase((10.0, 20.0), 70.0),
        bodies.Tilt(25.0, (5000, 6000)),
    )
    surface = Albedo(seed, texture_free=world.TextureFree(seed, 150.0), **albedo)  # type: ignore[arg-type]
    return World(parts, surface)


def test_windows_of_one_specimen_agree(rng: np.random.Generator) -> None:
    specimen = a_world(int(rng.integers(2**31)), glints=1e-3)
    top, left = (int(n) for n in rng.integers(0, 60, 2))
    part = Window(WINDOW.row + top, WINDOW.col + left, 71, 93)
    box = (slice(top, top + 71), slice(left, left + 93))
    np.testing.assert_array_equal(specimen.heights(part), specimen.heights(WINDOW)[box])
    np.testing.assert_array_equal(specimen.texture(part), specimen.texture(WINDOW)[box])
    # float32 transforms of different lengths
    np.testing.assert_allclose(specimen.albedo(part), specimen.albedo(WINDOW)[(slice(None), *box)], atol=2e-5)


def test_heights_stay_within_the_range_of_their_components(rng: np.random.Generator) -> None:
    specimen = a_world(int(rng.integers(2**31)))
    low, high = specimen.range_um
    assert low == -high
    heights = specimen.heights(Window(0, 0, 900, 900))
    assert low <= heights.min() < heights.max() <= high
    assert np.ptp(heights) > 0.5 * (high - low)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("size", ["XS", "S", "M"])
def test_scenes_fit_into_the_stack_with_two_slices_to_spare(name: str, size: str) -> None:
    specimen = scene(name, preset(size), (600, 700), seed=5, dz_um=40.0, pixel_um=1.302)
    low, high = specimen.range_um
    assert high - low <= largest_relief_um(PRESETS[size], 40.0)
    assert (high > low) == (name != "flat")


def test_staircase_has_the_known_steps() -> None:
    stairs = bodies.Staircase(width_px=50.0)
    heights = World((stairs,), Albedo(1)).heights(Window(0, 0, 2, 300))[0]
    np.testing.assert_allclose(np.diff(heights[25::50]), [10.0, 20.0, 50.0, 100.0, 200.0], atol=1e-4)
    assert set(np.round(np.diff(heights), 3)) == {0.0, 10.0, 20.0, 50.0, 100.0, 200.0}


def test_edges_rise_over_their_width() -> None:
    for width, between in ((0.0, 0), (6.0, 5)):
        heights = World((bodies.Staircase((80.0,), 60.0, width),), Albedo(1)).heights(Window(0, 0, 2, 110))[0]
        inner = (heights > heights.min() + 1e-3) & (heights < heights.max() - 1e-3)
        assert np.count_nonzero(inner[30:90]) == between


def test_cap_is_a_part_of_a_ball() -> None:
    caps = bodies.Caps(3, 30.0, 200.0, 1.0, radius_px=40.0, pixel_um=1.3)
    heights = World((caps,), Albedo(1)).heights(Window(0, 0, 200, 200))
    heights = heights - heights.min()
    row, col = np.unravel_index(heights.argmax(), heights.shape)
    assert heights.max() == pytest.approx(30.0, abs=0.05)
    base = 40.0 * 1.3
    ball = (base**2 + 30.0**2) / 60.0
    offset = np.arange(-35, 36)
    expected = np.sqrt(ball**2 - (1.3 * offset) ** 2) - (ball - 30.0)
    # the centre lies up to half a pixel beside the lattice
    np.testing.assert_allclose(heights[row, col + offset], expected, atol=1.3 * 0.8)


def test_albedo_is_log_normal_with_its_spectrum_and_correlation(rng: np.random.Generator) -> None:
    albedo = World((), Albedo(int(rng.integers(2**31)), low=1e-6, high=1e6)).albedo(Window(0, 0, 1024, 1024))
    logs = np.log(albedo.astype(np.float64))
    # patches of the filter's support, 256 px, are 16 independent means
    assert logs.std() == pytest.approx(0.35, rel=0.12)
    assert albedo.mean() == pytest.approx(0.4, rel=0.1)
    centred = (logs - logs.mean(axis=(1, 2), keepdims=True)).reshape(3, -1)
    correlation = np.corrcoef(centred)[np.triu_indices(3, 1)]
    np.testing.assert_allclose(correlation, 0.8, atol=0.08)
    power = np.abs(np.fft.fft2(logs[0] - logs[0].mean())) ** 2
    f = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.fftfreq(1024)[None])
    edges = np.geomspace(0.02, 0.4, 9)
    mean = [power[(f >= a) & (f < b)].mean() for a, b in itertools.pairwise(edges)]
    slope = np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(mean) / 2, 1)[0]
    assert slope == pytest.approx(-0.8, abs=0.05)


def test_texture_free_discs_have_no_contrast(rng: np.random.Generator) -> None:
    specimen = a_world(int(rng.integers(2**31)))
    texture = specimen.texture(WINDOW.grown(300))
    albedo = specimen.albedo(WINDOW.grown(300))[1]
    bare = texture == 0.0
    assert 0.01 < bare.mean() < 0.5
    assert albedo[bare].std() < 1e-6
    assert albedo[texture == 1.0].std() > 0.08


def test_glints_are_rare_and_bright() -> None:
    albedo = World((), Albedo(4, glints=1e-3)).albedo(Window(0, 0, 500, 500))
    assert np.count_nonzero((albedo == 6.0).all(axis=0)) == pytest.approx(250, abs=80)  # 5 standard deviations


def test_noise_is_white_and_normal(rng: np.random.Generator) -> None:
    number = int(rng.integers(2**63))
    noise_ = noise.white_noise((-300, 5), (700, 900), number).astype(np.float64)
    n = noise_.size
    assert abs(noise_.mean()) < 5 / np.sqrt(n)
    assert noise_.var() == pytest.approx(1.0, abs=5 * np.sqrt(2 / n))
    assert stats.kurtosis(noise_.ravel()) == pytest.approx(0.0, abs=0.05)  # the tail ends at 4.1
    for shift in ((0, 1), (1, 0), (1, 1), (0, 2)):
        other = np.roll(noise_, shift, (0, 1))
        assert abs(np.mean(noise_ * other)) < 5 / np.sqrt(n)
    other = noise.white_noise((-300, 5), (700, 900), number + 1)
    assert abs(np.mean(noise_ * other)) < 5 / np.sqrt(n)


def test_pyramid_levels_have_the_blur_they_say(rng: np.random.Generator) -> None:
    image = rng.random((1, 220, 220)).astype(np.float32)
    levels = pyramid.blur_pyramid(image, 0.9, 8)
    for index in range(8):
        rows, cols = levels.shape[index]
        start = levels.start[index]
        found = levels.values[start : start + rows * cols].reshape(rows, cols)
        rate = levels.rate[index]
        sigma = 0.9 * 2 ** (index / 2)
        # the blur that reading adds is left out
        expected = ndimage.gaussian_filter(image[0].astype(np.float64), np.sqrt(sigma**2 - 1 / (6 * rate**2)))
        at = np.arange(60, 160, max(1, int(1 / rate)))
        at = at[(at * rate) % 1 == 0]
        got = found[np.ix_((at * rate).astype(int), (at * rate).astype(int))]
        error = np.abs(got - expected[np.ix_(at, at)]).max()
        assert error < 0.02 * np.ptp(expected[60:160, 60:160]), index
