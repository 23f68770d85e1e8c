"""Shapes of nuclei: harmonics, radius, volume, bounds, rotations."""

from __future__ import annotations

import math

import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.kernels import cells


def _directions(rng, n):
    u = torch.from_numpy(rng.standard_normal((n, 3)))
    return u / u.norm(dim=1, keepdim=True)


def _shapes(rng, n, rms=0.06):
    axes = torch.from_numpy(rng.uniform(2.5, 6.0, (n, 3)))
    exponent = torch.from_numpy(rng.choice([1.8, 2.0, 2.6, 3.0], n))
    harmonics = torch.from_numpy(rng.standard_normal((n, 81))) * cells.harmonic_scales(rms, 1.8, 8)
    return axes, exponent, harmonics.float()


def test_harmonics_are_orthonormal_and_have_the_documented_signs(rng):
    directions, weights = cells.sphere_rule()
    waves = cells.real_harmonics(directions)
    assert torch.allclose((waves.T * weights) @ waves, torch.eye(81, dtype=torch.float64), atol=1e-12)
    u = _directions(rng, 50)
    low = cells.real_harmonics(u)
    size = math.sqrt(3 / (4 * math.pi))
    # l = 1: orders -1, 0, 1 are y, z, x
    assert torch.allclose(low[:, 1:4], size * u[:, [1, 0, 2]], atol=1e-12)
    # l = 2, m = 2 and -2 (x² - y², xy) without the Condon-Shortley phase
    z, y, x = u.unbind(1)
    third = math.sqrt(15 / (16 * math.pi))
    assert torch.allclose(low[:, 8], third * (x * x - y * y), atol=1e-12)
    assert torch.allclose(low[:, 4], 2 * third * x * y, atol=1e-12)
    assert torch.allclose(low[:, 7], math.sqrt(15 / (4 * math.pi)) * x * z, atol=1e-12)


def test_random_harmonics_have_the_wanted_rms(rng):
    scales = cells.harmonic_scales(0.06, 1.8)
    assert float(scales.square().sum() / (4 * math.pi)) == pytest.approx(0.06**2)
    assert scales[:4].tolist() == [0] * 4
    assert scales[49:].eq(0).all()
    assert float(scales[9] / scales[4]) == pytest.approx(1.5**-1.8)


def test_volume_of_ellipsoids_is_exact_and_is_restored(rng):
    axes, exponent, harmonics = _shapes(rng, 20)
    ellipsoid = torch.full_like(exponent, 2)
    flat = axes[:, :1] * torch.tensor([1.0, 0.9, 0.28], dtype=torch.float64)
    expected = 4 / 3 * math.pi * flat.prod(1)
    assert torch.allclose(cells.volume(flat, ellipsoid, 0 * harmonics), expected, rtol=2e-5)
    assert torch.allclose(cells.volume(axes, ellipsoid, 0 * harmonics), 4 / 3 * math.pi * axes.prod(1), rtol=1e-5)
    wanted = torch.from_numpy(rng.uniform(100, 900, 20))
    restored = cells.volume_factor(axes, exponent, harmonics, wanted)
    assert restored[:, 1:].equal(harmonics[:, 1:])
    # against another rule, much finer
    directions, weights = cells.sphere_rule(80)
    fine = cells.radius(axes, exponent, restored, directions).pow(3) @ weights / 3
    assert torch.allclose(fine, wanted, rtol=5e-4)
    half = cells.volume(axes, exponent, cells.scaled(restored, 0.5))
    assert torch.allclose(half * 8, wanted, rtol=1e-5)


def test_reach_bounds_the_radius_closely(rng):
    axes, exponent, harmonics = _shapes(rng, 30)
    table = cells.nuclei_table(torch.zeros(30, 3), None, axes, exponent, harmonics)
    radii = cells.radius(axes, exponent, table.harmonics, _directions(rng, 5000))
    assert (radii <= table.reach[:, None]).all()
    below, above = cells.log_bounds(table.harmonics).T
    logs = table.harmonics.double() @ cells.real_harmonics(_directions(rng, 5000)).T
    assert (below[:, None] <= logs).all()
    assert (logs <= above[:, None]).all()
    # 5000 directions come close to the extremes; the bounds are no further from them than half the range
    assert (above - logs.max(dim=1).values <= 0.5 * (above - below)).all()
    balls = cells.nuclei_table(torch.zeros(3, 3), None, torch.tensor([[3.0, 4.0, 5.0]]).expand(3, 3))
    assert torch.allclose(balls.reach, torch.tensor(5.0, dtype=torch.float64))


def test_rotations_are_proper_and_follow_the_quaternion(rng):
    q = torch.from_numpy(rng.standard_normal((9, 4)))
    q = q / q.norm(dim=1, keepdim=True)
    r = cells.rotation_matrices(q)
    assert torch.allclose(r @ r.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(9, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(r), torch.ones(9, dtype=torch.float64))
    quarter = torch.tensor([[math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0]], dtype=torch.float64)
    turned = cells.rotation_matrices(quarter)[0] @ torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert torch.allclose(turned, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), atol=1e-12)


def test_table_is_checked_and_can_be_taken_apart(rng):
    table = cells.nuclei_table(torch.from_numpy(rng.uniform(0, 50, (6, 3))), seed=torch.arange(6) - 3)
    assert (table.centre * 1024).eq((table.centre * 1024).round()).all()
    part = table.rows(torch.tensor([4, 1]))
    assert part.n == 2
    assert part.seed.tolist() == [1, -2]
    with pytest.raises(ShapeError, match=r"semi_axes: expected numbers above 0"):
        cells.nuclei_table(torch.zeros(2, 3), semi_axes=0.0)
    with pytest.raises(ShapeError, match=r"harmonics: expected \(2, 81\)"):
        cells.nuclei_table(torch.zeros(2, 3), harmonics=torch.zeros(2, 49))
    with pytest.raises(ShapeError, match=r"texture: expected rows of the 0 crops"):
        cells.nuclei_table(torch.zeros(2, 3), texture=torch.tensor([-1, 0]))
