"""Eigen-PSFs."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.synthesis.optics.eigen import compose, needed
from gigascope.synthesis.optics.radial import multiplicity, unfold


@pytest.fixture
def psfs(rng):
    """(12, 500) float32 of sum 1: Gaussians that widen and drift, with a little noise."""
    x = np.linspace(-5, 5, 500)
    d = np.linspace(0, 1, 12)[:, None]
    values = np.exp(-0.5 * ((x - d) / (0.5 + d)) ** 2) * rng.uniform(0.99, 1.01, (12, 500))
    return (values / values.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("tolerance", [0.05, 0.01, 0.002])
def test_error_and_number_are_those_of_the_definition(psfs, tolerance):
    found = compose(psfs, np.ones(500), tolerance, 12)
    made = found.shares @ found.kernels.astype(float)
    errors = np.linalg.norm(made - psfs, axis=1) / np.linalg.norm(psfs, axis=1)
    assert errors.max() <= tolerance
    assert found.error == pytest.approx(errors.max(), rel=0.01, abs=1e-6)
    n = len(found.kernels)
    assert compose(psfs, np.ones(500), tolerance, n - 1) is None
    assert needed(psfs, np.ones(500), tolerance) == n


def test_light_is_conserved_at_every_depth(psfs):
    found = compose(psfs, np.ones(500), 0.05, 12)
    np.testing.assert_allclose((found.shares @ found.kernels.astype(float)).sum(1), 1, rtol=1e-6)


def test_equal_psfs_are_one(psfs):
    found = compose(np.repeat(psfs[:1], 3, axis=0), np.ones(500), 1e-6, 3)
    assert len(found.kernels) == 1
    np.testing.assert_allclose(found.shares[:, :1] * found.kernels, np.repeat(psfs[:1], 3, 0), rtol=1e-6, atol=1e-12)


def test_a_quadrant_counts_as_the_whole(rng):
    quadrant = rng.random((6, 2, 3, 4)) * np.exp(-np.arange(6.0))[:, None, None, None] + rng.random((2, 3, 4))
    counts = multiplicity((2, 3))
    quadrant = (quadrant / (quadrant * counts).sum((1, 2, 3), keepdims=True)).astype(np.float32)
    every = np.broadcast_to(counts, (2, 3, 4)).ravel()
    part = compose(quadrant.reshape(6, -1), every, 0.03, 6)
    whole = compose(unfold(quadrant).reshape(6, -1), np.ones(2 * 5 * 7), 0.03, 6)
    assert len(part.kernels) == len(whole.kernels)
    assert part.error == pytest.approx(whole.error, rel=1e-4)
