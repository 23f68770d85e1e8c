"""Candidates: every view that sees a point of the mosaic is found and no other, against asking all views."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.topography.geometry import candidates as finding
from gigascope.topography.geometry.poses import Poses, to_mosaic, to_view

N_POINTS = 10_000


@pytest.fixture
def raster(rng):
    """6 x 5 overlapping views, tilted and turned, in a mosaic whose last cells are partial."""
    n_rows, n_cols, size = 6, 5, (301, 260)
    n = n_rows * n_cols
    grid = np.stack(np.meshgrid(np.arange(n_rows), np.arange(n_cols), indexing="ij"), axis=-1).reshape(-1, 2)
    poses = Poses(
        size=size,
        focal=1.0,
        height=rng.uniform(0.97, 1.03, n),
        normal=np.concatenate((rng.normal(0, 0.02, (n, 2)), np.full((n, 1), -1.0)), axis=1),
        angle=rng.normal(0, 0.1, n),
        translation=grid * np.array(size) * 0.45 + rng.normal(0, 5, (n, 2)),
        distortion=[0.008],
        offset=[0.0, 0.0],
    )
    return finding.fit_mosaic(poses, margin=3)


def points(rng, poses, shape):
    """Points anywhere, and some at the very edge of a view."""
    anywhere = rng.uniform(-5, 5, (N_POINTS - 500, 2)) + rng.uniform(0, 1, (N_POINTS - 500, 2)) * shape
    view, rc = rng.integers(0, poses.n_views, 500), rng.uniform(0, 1, (500, 2)) * (np.array(poses.size) - 1)
    rc[:, 0] = np.where(rng.random(500) < 0.5, 1e-6, rc[:, 0])
    rc[:, 1] = np.where(rng.random(500) < 0.5, poses.size[1] - 1 - 1e-6, rc[:, 1])
    return np.concatenate((anywhere, to_mosaic(poses, view, rc)))


@pytest.mark.parametrize("edge_margin", [0.0, 16.0])
def test_all_views_of_a_point_are_found_and_no_other(rng, raster, edge_margin):
    poses, shape = raster
    at = points(rng, poses, shape)
    indptr, view, rc = finding.views_of_points(finding.find_candidates(poses, shape), poses, at, edge_margin)
    everywhere = to_view(poses, np.arange(poses.n_views)[None], at[:, None])
    seen = finding.inside(everywhere, poses.size, edge_margin)
    # beyond the mosaic there is nothing to find
    seen &= ((at >= 0) & (at < np.ceil(np.array(shape) / finding.CELL) * finding.CELL)).all(axis=1)[:, None]
    owner, expected = np.nonzero(seen)
    assert len(expected) > N_POINTS
    np.testing.assert_array_equal(view, expected)
    np.testing.assert_array_equal(np.repeat(np.arange(len(at)), np.diff(indptr)), owner)
    np.testing.assert_allclose(rc, everywhere[seen], atol=1e-9)


def test_lists_are_sorted_and_coverage_counts_the_centres(raster):
    poses, shape = raster
    found = finding.find_candidates(poses, shape)
    n_cells = found.coverage.shape
    for cell in range(found.coverage.size):
        entries = slice(found.indptr[cell], found.indptr[cell + 1])
        assert (np.diff(found.view[entries]) > 0).all()
        centre = (np.array(np.unravel_index(cell, n_cells)) + 0.5) * finding.CELL - 0.5
        rc = to_view(poses, np.arange(poses.n_views), centre)
        assert found.coverage.flat[cell] == finding.inside(rc, poses.size).sum()
        np.testing.assert_allclose(found.rc[entries], rc[found.view[entries]], atol=1e-3)


def test_fitted_mosaic_holds_every_view(rng, raster):
    poses, shape = raster
    rc = rng.uniform(0, 1, (2000, 2)) * (np.array(poses.size) - 1)
    at = to_mosaic(poses, rng.integers(0, poses.n_views, 2000), rc)
    assert (at >= 2).all()
    assert (at <= np.array(shape) - 3).all()


def test_views_and_crops_of_a_tile_hold_all_that_it_reads(rng, raster):
    poses, shape = raster
    found = finding.find_candidates(poses, shape)
    for start, size in (((100, 40), (130, 77)), ((0, 0), shape), ((shape[0] - 40, 3), (64, 64))):
        views = finding.views_of_tile(found, start, size)
        at = np.array(start) + rng.uniform(0, 1, (3000, 2)) * (np.array(size) - 1)
        rc = to_view(poses, np.arange(poses.n_views)[None], at[:, None])
        seen = finding.inside(rc, poses.size)
        assert set(np.flatnonzero(seen.any(axis=0))) <= set(views.tolist())
        for v in np.flatnonzero(seen.any(axis=0)):
            rows, columns = finding.crop_of_tile(poses, int(v), start, size)
            first, last = rc[seen[:, v], v].min(axis=0), rc[seen[:, v], v].max(axis=0)
            assert rows.start <= first[0]
            assert rows.stop > last[0]
            assert columns.start <= first[1]
            assert columns.stop > last[1]


def test_views_beside_the_mosaic_have_no_cells(raster):
    poses = raster[0]
    found = finding.find_candidates(poses, (64, 64))
    assert found.coverage.shape == (1, 1)
    assert found.indptr[-1] < poses.n_views
    assert finding.views_of_tile(found, (100, 100), (10, 10)).size == 0
    assert finding.views_of_points(found, poses, [[5000.0, 0.0]])[1].size == 0
