"""Wasserstein distances and their score: closed forms, SciPy, and the reference system's regions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from gigascope.errors import ShapeError
from gigascope.metrics.wasserstein import (
    FOREGROUND,
    INNER,
    OUTER,
    counted_wasserstein,
    region_map,
    slice_scores,
    wasserstein,
    wasserstein_score,
)


def test_distance_is_scipys_for_any_numbers_of_samples(rng):
    for n, m in ((1, 1), (5, 5), (7, 30), (100, 3)):
        a, b = rng.normal(0, 1, n), rng.normal(1, 2, m)
        assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-12)


def test_counts_give_the_distance_of_their_samples(rng):
    a, b = rng.integers(0, 40, 500), rng.integers(10, 40, 300)
    counts = [np.bincount(v, minlength=40) for v in (a, b)]
    assert counted_wasserstein(*counts, step=0.5) == pytest.approx(0.5 * wasserstein(a, b), rel=1e-12)
    many = counted_wasserstein(np.stack(counts), counts[1])
    assert many[1] == 0
    assert many[0] == pytest.approx(wasserstein(a, b), rel=1e-12)
    assert math.isnan(counted_wasserstein(np.zeros(40), counts[0]))
    with pytest.raises(ShapeError):
        counted_wasserstein(counts[0], counts[1][:-1])


def test_score_of_constants_and_of_identical_images(rng):
    """E3."""
    a, b = rng.uniform(0.1, 1, 2)
    ours, theirs = np.full(200, a), np.full(70, b)
    assert wasserstein_score(ours, theirs) == pytest.approx(1 - abs(a - b) / a, abs=1e-9)
    image = rng.uniform(0, 1, (3, 20, 20))
    regions = rng.integers(0, 4, image.shape).astype(np.uint8)
    np.testing.assert_allclose(slice_scores(image, regions, image, regions), 1.0, atol=1e-9)


def test_score_where_a_region_is_missing_is_no_value(rng):
    image = rng.uniform(0, 1, (2, 8, 8))
    regions = np.full(image.shape, FOREGROUND, np.uint8)
    regions[1] = OUTER
    other = np.full((3, 9, 9), FOREGROUND, np.uint8)
    found = slice_scores(image, regions, rng.uniform(0, 1, other.shape), other)
    assert found.shape == (3, 2)
    assert np.isfinite(found).tolist() == [[False, False], [False, False], [True, False]]
    assert math.isnan(wasserstein_score([], [1.0]))
    assert math.isnan(wasserstein_score(np.zeros(4), np.ones(4)))


def test_regions_are_those_of_the_reference_system(rng):
    """Closing by dilations and erosions one after the other, as it is published."""
    for steps, erosion in ((3, 2), (2, 0), (0, 1)):
        f = ndimage.gaussian_filter(rng.normal(size=(12, 24, 26)), 1.5) > 0.08
        wide = np.pad(f, ((steps + 1,) * 2, (0, 0), (0, 0)))
        cross = ndimage.generate_binary_structure(3, 1)
        for operation in (ndimage.binary_dilation, ndimage.binary_erosion):
            for _ in range(steps):
                wide = operation(wide, cross)
        closed = wide[steps + 1 : len(wide) - steps - 1]
        inner, outer = closed & ~f, ~closed
        for _ in range(erosion):
            inner, outer = (ndimage.binary_erosion(v, cross) for v in (inner, outer))
        found = region_map(f, steps, erosion)
        np.testing.assert_array_equal(found == INNER, inner)
        np.testing.assert_array_equal(found == OUTER, outer & ~f)
        np.testing.assert_array_equal(found == FOREGROUND, f)


def test_regions_of_a_slab_with_its_halo_are_those_of_the_whole(rng):
    steps, erosion = 3, 2
    halo = 2 * steps + erosion
    f = ndimage.gaussian_filter(rng.normal(size=(40, 30, 30)), 2) > 0.06
    whole = region_map(f, steps, erosion)
    start, stop = 12, 20
    slab = region_map(f[start - halo : stop + halo], steps, erosion)
    np.testing.assert_array_equal(slab[halo:-halo], whole[start:stop])
