from __future__ import annotations

import math

import numpy as np
import pytest

from gigascope.tomography import phantom
from gigascope.tomography.phantom import Phantom


def ball(radius: float, centre=(0.0, 0.0, 0.0), half: float = 32.0) -> Phantom:
    return Phantom(np.array([centre]), np.eye(3)[None] / radius, np.ones(1), half_thickness=half)


def test_chords_of_a_ball():
    view = phantom.line_integrals(ball(10.0), np.array([0.4]), (41, 41), samples=1)[0]
    s, y = np.meshgrid(np.arange(-20, 21), np.arange(-20, 21), indexing="ij")
    expected = 2 * np.sqrt(np.maximum(100.0 - s**2 - y**2, 0))
    np.testing.assert_allclose(view, expected, atol=1e-4)


def test_chords_are_clipped_by_the_faces():
    t = math.radians(50)
    view = phantom.line_integrals(ball(1000.0, half=20.0), np.array([t]), (9, 9))[0]
    np.testing.assert_allclose(view, 40.0 / math.cos(t), rtol=1e-6)


def test_centre_follows_the_projection_geometry_and_the_shift():
    x, y, z, t = 5.0, -3.0, 4.0, 0.7
    shift = np.array([[1.5, -2.5]])
    view = phantom.line_integrals(ball(6.0, (x, y, z)), np.array([t]), (64, 48), shift)[0].astype(np.float64)
    s_grid, y_grid = np.meshgrid(np.arange(64) - 31.5, np.arange(48) - 23.5, indexing="ij")
    centre = (view * s_grid).sum() / view.sum(), (view * y_grid).sum() / view.sum()
    expected = x * math.cos(t) + z * math.sin(t) + 1.5, y - 2.5
    np.testing.assert_allclose(centre, expected, atol=0.01)


def test_tilt_axis_turns_the_image_counter_clockwise():
    view = phantom.line_integrals(ball(4.0, (0.0, 10.0, 0.0)), np.zeros(1), (65, 65), tilt_axis=math.radians(30))[0]
    x, y = np.unravel_index(np.argmax(view), view.shape)
    assert (x - 32, y - 32) == (-5, 9)  # R(30 deg) (0, 10)


@pytest.mark.parametrize("make", [phantom.object_phantom, phantom.section_phantom])
def test_mass_of_the_volume_is_that_of_the_untilted_view(make):
    body = make(4)
    volume = phantom.density_volume(body, (64, 160, 128))
    view = phantom.line_integrals(body, np.zeros(1), (160, 128))[0]
    assert abs(volume.sum(dtype=np.float64) / view.sum(dtype=np.float64) - 1) < 2e-3
    assert np.corrcoef(volume.sum(axis=0).ravel(), view.ravel())[0, 1] > 0.995


@pytest.mark.parametrize("make", [phantom.object_phantom, phantom.section_phantom])
def test_noise_follows_the_asked_snr(make):
    sim = phantom.simulate(make(1), seed=1, snr=20.0)
    noise = (sim.absorbance() - sim.clean)[30]
    assert abs(sim.clean[30].var() / noise.var() / 20.0 - 1) < 0.15
    assert abs(sim.clean[30].max() - phantom.PEAK_ABSORBANCE) < 0.1
    assert np.all(sim.shifts_true[30] == 0)


def test_same_seed_same_series_other_seed_other_series():
    body = phantom.object_phantom(2)
    tilt = np.deg2rad([-30.0, 0.0, 30.0])
    first, again, other = (phantom.simulate(body, seed=s, tilt=tilt, shape=(64, 64)) for s in (3, 3, 4))
    assert np.array_equal(first.views, again.views)
    assert not np.array_equal(first.views, other.views)


def test_section_is_wider_than_the_shifted_field():
    shifts = np.array([[14.0, 0.0], [14.0, 0.0], [-14.0, 0.0]])
    view = phantom.line_integrals(phantom.section_phantom(0), np.deg2rad([-60.0, 0, 60.0]), (128, 128), shifts)
    frame = np.concatenate([view[:, :8].reshape(3, -1), view[:, -8:].reshape(3, -1)], axis=1)
    assert np.all(frame.std(axis=1) > 0.2 * view.std(axis=(1, 2)))
