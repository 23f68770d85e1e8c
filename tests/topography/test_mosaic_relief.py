"""Shaded relief: what faces the light is bright, what is unseen is marked and leaves no rim."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.topography.mosaic.relief import HEIGHT_COLOURS, UNSEEN, height_limits, shaded_relief


def test_slope_towards_the_light_is_brighter(rng: np.random.Generator) -> None:
    across = np.arange(40.0)
    white = np.ones((40, 40, 3))
    slope = rng.uniform(0.2, 0.8)
    # the light comes from the upper left: what rises to the right, or down, faces it
    for axis in (0, 1):
        rising = np.broadcast_to(np.expand_dims(across * slope, 1 - axis), (40, 40))
        to_light, away, level = (
            shaded_relief(h, 1.0, colour=white)[20, 20, 0] for h in (rising, -rising, np.zeros((40, 40)))
        )
        assert away < to_light
        assert level == 255
        assert away < level


def test_only_the_steepness_matters(rng: np.random.Generator) -> None:
    height = rng.normal(size=(30, 30))
    plain = shaded_relief(height, 2.0, colour=np.full((30, 30, 3), 0.6))
    np.testing.assert_array_equal(plain, shaded_relief(3 * height, 6.0, colour=np.full((30, 30, 3), 0.6)))
    np.testing.assert_array_equal(
        plain, shaded_relief(height / 4, 2.0, exaggeration=4.0, colour=np.full((30, 30, 3), 0.6))
    )


def test_unseen_is_marked_and_its_neighbours_are_level(rng: np.random.Generator) -> None:
    height = np.zeros((20, 20), np.float32)
    height[5:9, 5:9] = np.nan
    shown = shaded_relief(height, 1.0, colour=np.full((20, 20, 3), 0.5))
    assert (shown[5:9, 5:9] == UNSEEN).all()
    assert len(np.unique(shown[np.isfinite(height)])) == 1


def test_heights_run_through_the_colours() -> None:
    height = np.linspace(0, 100, 1001, dtype=np.float32)[None].repeat(3, 0)
    shown = shaded_relief(height, 1e6, height_range=(0.0, 100.0))
    np.testing.assert_array_equal(shown[1, [0, 500, 1000]], HEIGHT_COLOURS[[0, 4, 8]].astype(np.uint8))
    assert height_limits(height) == pytest.approx((0.5, 99.5), abs=0.2)
    assert height_limits(np.full((3, 3), np.nan)) == (0.0, 1.0)
    assert (shaded_relief(np.full((3, 3), np.nan), 1.0) == UNSEEN).all()
