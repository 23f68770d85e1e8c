"""Edges by depth: closed forms, tile by tile against the whole, and what growing blur does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from gigascope.errors import ShapeError
from gigascope.metrics.edges import (
    curve_distance,
    from_peak,
    from_surface,
    gradient_magnitude,
    mean_curve,
    tile_curves,
    tile_windows,
)


@pytest.mark.parametrize("along", [0, 1])
def test_ramp_has_root_two_times_its_slope(rng, along):
    """E1."""
    slope = rng.uniform(-3, 3)
    ramp = slope * np.arange(40.0)
    image = np.broadcast_to(np.expand_dims(ramp, 1 - along), (40, 40))
    for sigma in (0.0, 2.0):
        found = gradient_magnitude(image, (sigma, sigma))
        inside = found[12:-12, 12:-12]
        np.testing.assert_allclose(inside, np.sqrt(2) * abs(slope), rtol=1e-9, atol=1e-12)


def test_edges_fade_with_growing_blur(rng):
    """E2."""
    depth = 40
    base = (ndimage.gaussian_filter(rng.normal(size=(160, 160)), 3) > 0).astype(float)
    stack = np.stack([ndimage.gaussian_filter(base, 0.5 + 0.15 * z) for z in range(depth)])
    curves = tile_curves(stack, (50, 50), (1.0, 1.0)).values
    mean = mean_curve(from_peak(curves, 20, 0.0)).mean
    smooth = ndimage.gaussian_filter1d(mean, 2.0, mode="nearest")
    assert np.all(np.diff(smooth) < 0)
    assert stats.spearmanr(np.arange(mean.size), mean).statistic <= -0.95


def test_tiles_read_one_by_one_are_those_of_the_whole(rng):
    volume = rng.normal(size=(3, 47, 58))
    sigma, tile = (1.7, 2.3), (13, 11)
    found = tile_curves(volume, tile, sigma, 0.9)
    rows, cols = 47 // 13 * 13, 58 // 11 * 11
    top, left = (47 - rows) // 2, (58 - cols) // 2
    whole = gradient_magnitude(volume[:, top : top + rows, left : left + cols], sigma)
    assert len(found.windows) == (rows // 13) * (cols // 11)
    for n, (y, x) in enumerate(found.windows):
        part = whole[:, y.start - top : y.stop - top, x.start - left : x.stop - left]
        expected = np.quantile(part.reshape(3, -1), 0.9, axis=1)
        np.testing.assert_allclose(found.values[n], expected, rtol=1e-12)


def test_tiles_cover_the_middle_and_a_size_that_divides_is_kept_whole():
    assert tile_windows((100, 205), (100, 100)) == [
        (slice(0, 100), slice(2, 102)),
        (slice(0, 100), slice(102, 202)),
    ]
    assert tile_windows((30, 40), (100, 100)) == [(slice(0, 30), slice(0, 40))]
    assert len(tile_curves(np.zeros((1, 60, 60)), (10, 10), (1, 1), most=7).windows) == 7
    with pytest.raises(ShapeError):
        tile_curves(np.zeros((4, 4)), (2, 2), (1, 1))


def test_curves_start_at_their_peak_or_at_the_surface():
    curves = np.array([[0.0, 5, 4, 3], [1, 1, 1, 9], [0.1, 0.2, 0.1, 0]])
    assert [c.tolist() for c in from_peak(curves, 3, 1.0)] == [[5, 4, 3]]
    assert [c.tolist() for c in from_surface(curves, [1, None, 0], [3, 4, 1], 2)] == [[5, 4]]
    found = mean_curve([np.array([4.0, 2]), np.array([2.0, 2, 7])])
    assert found.mean.tolist() == [3, 2, 7]
    assert found.std.tolist() == [1, 0, 0]
    assert found.n.tolist() == [2, 2, 1]
    assert mean_curve([]).mean.size == 0


def test_distance_of_curves_is_over_what_both_have():
    a, b = np.array([3.0, 2, 1]), np.array([1.0, 1, 1, 1, 1, 1])
    assert curve_distance(a, b) == [1.0]
    upper, middle, lower = curve_distance(a, b, thirds=True)
    assert (upper, middle) == (1.5, 0.0)
    assert np.isnan(lower)
