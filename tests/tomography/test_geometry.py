from __future__ import annotations

import math

import numpy as np
import pytest

from gigascope.errors import ShapeError
from gigascope.tomography import geometry, phantom

TILT = np.deg2rad(np.linspace(-60, 60, 61))


def test_translation_of_the_specimen_is_pure_gauge():
    found = np.random.default_rng(1).normal(size=(61, 2))
    moved = found + geometry.gauge_shifts((1.3, -2.1, 0.7), TILT)
    assert geometry.rms_error(moved, found, TILT) < 1e-12


def test_gauge_of_recovers_the_translation():
    shift = geometry.gauge_shifts((1.3, -2.1, 0.7), TILT)
    np.testing.assert_allclose(geometry.gauge_of(shift, TILT), [1.3, -2.1, 0.7], atol=1e-12)


def test_removed_gauge_ignores_views_out_of_use():
    increment = np.random.default_rng(2).normal(size=(61, 2))
    use = np.ones(61, dtype=bool)
    use[7] = False
    spoiled = increment.copy()
    spoiled[7] += 50
    difference = geometry.remove_gauge(spoiled, TILT, use) - geometry.remove_gauge(increment, TILT, use)
    assert np.abs(difference[use]).max() < 1e-12


@pytest.mark.parametrize("phi_deg", [0, 12.5, -90, 85.3, 175])
def test_raw_from_aligned_applies_rotation_and_shift_about_the_centre(phi_deg):
    phi, f = math.radians(phi_deg), np.array([[1.5, -2.25]])
    raw, frame = (101, 140), (128, 96)
    matrix = geometry.raw_from_aligned(f, phi, raw, frame)[0]
    a = np.array([10.0, -7.0])
    row, column = matrix[:, :2] @ (a + (np.array(frame) - 1) / 2) + matrix[:, 2]
    expected = geometry.rotation(phi) @ (a + f[0])
    np.testing.assert_allclose([column - (140 - 1) / 2, row - (101 - 1) / 2], expected, atol=1e-12)
    np.testing.assert_allclose(geometry.aligned_shifts(geometry.raw_translation(f, phi), phi), f, atol=1e-12)


def test_every_ray_of_a_section_stays_inside_its_volume():
    width = geometry.volume_width(128, 64, TILT, "section")
    s = 63.5
    for t in TILT:
        x = [(s - z * math.sin(t)) / math.cos(t) for z in (-31.5, 31.5)]
        assert max(map(abs, x)) <= (width - 1) / 2 + 1


def test_frame_is_swapped_for_a_horizontal_axis():
    assert geometry.frame_shape((64, 102), math.radians(-90), 4) == (64, 100)
    assert geometry.frame_shape((64, 102), 0.0, 4) == (100, 64)


def test_level_shape_refuses_what_would_move_the_centre():
    assert geometry.level_shape((64, 160, 128), 4) == (16, 40, 32)
    with pytest.raises(ShapeError, match="multiple of the bin 4"):
        geometry.level_shape((66, 160), 4)


def test_translated_phantom_moves_its_projections_by_the_gauge():
    body = phantom.object_phantom(0)
    moved = phantom.line_integrals(body.translated(1.3, -2.1, 0.7), TILT[::15], (128, 128))
    shifts = geometry.gauge_shifts((1.3, -2.1, 0.7), TILT[::15])
    shifted = phantom.line_integrals(body, TILT[::15], (128, 128), shifts)
    assert np.abs(moved - shifted).max() < 1e-6
