"""Skeleton agreement, connected parts, light and place of objects: on figures with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gigascope.errors import ShapeError
from gigascope.metrics import structure


def test_components_touch_at_corners_and_small_ones_are_left_out() -> None:
    mask = np.zeros((4, 8, 8), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    mask[3, 5, 5:8] = True
    labels, n = structure.components(mask)
    assert n == 2
    assert labels[0, 0, 0] == labels[1, 1, 1] != labels[3, 5, 5] != 0
    labels, n = structure.components(mask, smallest=3)
    assert n == 1
    assert np.array_equal(np.argwhere(labels == 1), [[3, 5, 5], [3, 5, 6], [3, 5, 7]])
    assert structure.components(np.zeros((2, 2, 2), bool))[1] == 0


def test_centreline_dice_of_a_shortened_tube() -> None:
    tube, line = np.zeros((2, 9, 9, 100), bool)
    tube[3:6, 3:6], line[4, 4] = True, True
    half, half_line = tube.copy(), line.copy()
    half[..., 60:], half_line[..., 60:] = False, False
    found = structure.centreline_dice(tube, line, half, half_line)
    assert found.precision == 1.0
    assert found.recall == pytest.approx(0.6)
    assert found.value == pytest.approx(2 * 0.6 / 1.6)
    other = structure.centreline_dice(half, half_line, tube, line)
    assert (other.precision, other.recall) == (pytest.approx(0.6), 1.0)
    nothing = np.zeros_like(tube)
    assert math.isnan(structure.centreline_dice(tube, line, nothing, nothing).value)
    with pytest.raises(ShapeError):
        structure.centreline_dice(tube, line, half[1:], half_line[1:])


def test_light_and_centroids_of_blobs_are_those_they_were_made_with(rng: np.random.Generator) -> None:
    centres = np.array([[8.3, 9.6, 10.1], [9.2, 30.4, 12.7], [11.0, 20.0, 36.5]])
    light = rng.uniform(500, 3000, 3)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (20, 42, 50)), indexing="ij"), -1)
    volume, labels = np.full(grid.shape[:3], 100.0), np.zeros(grid.shape[:3], np.int32)
    for i, (c, total) in enumerate(zip(centres, light)):
        square = ((grid - c) ** 2).sum(-1)
        volume += total * np.exp(-square / (2 * 1.5**2)) / (2 * math.pi * 1.5**2) ** 1.5
        labels[square < 7.5**2] = i + 1
    found = structure.measure(labels, 3, volume, 100.0)
    # 5 sigma of the blob are inside: 1.5e-5 of its light is not
    np.testing.assert_allclose(found.light, light, rtol=1e-4)
    np.testing.assert_allclose(found.centres, centres, atol=1e-3)


def test_object_errors_are_relative_and_in_units_of_length() -> None:
    reference = structure.Objects(np.array([100.0, 200.0, -5.0]), np.array([[0, 0, 0], [5, 5, 5], [np.nan] * 3]))
    test = structure.Objects(np.array([90.0, 200.0, 3.0]), np.array([[1, 0, 0], [5, 5, 5], [np.nan] * 3]))
    found = structure.object_errors(reference, test, (2.0, 1.0, 1.0))
    assert found.light_median == pytest.approx(0.05)
    assert found.light_total == pytest.approx(293 / 295 - 1)
    assert found.place_median == pytest.approx(1.0)
    assert found.place_p95 == pytest.approx(1.9)


def test_no_objects_have_no_errors() -> None:
    none = structure.measure(np.zeros((3, 3, 3), np.int32), 0, np.ones((3, 3, 3)), 0.0)
    assert math.isnan(structure.object_errors(none, none).light_median)
