"""Attenuation: closed forms (A1, A2), every model and key, haze."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gigascope.kernels.cells.light import read_out
from gigascope.synthesis.simulation.attenuation import Attenuating, cone_slopes, haze, optical_depth
from gigascope.synthesis.simulation.cells import cell_grid, region_fraction

SPACING = 2.0


def ball(radius: float, spacing: float = SPACING):
    """Grid, signed distance and share of a ball whose centre lies off the cells' corners."""
    middle = np.array([radius + 5.3, radius + 4.1, radius + 6.7])
    grid = cell_grid((0, 0, 0), 2 * middle, spacing)
    z, y, x = np.meshgrid(*grid.centres(), indexing="ij")
    distance = np.sqrt((z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2) - radius
    return grid, middle, distance.astype(np.float32), torch.from_numpy(region_fraction(distance, spacing))


def test_uniform_absorber_in_a_ball(rng):
    """A1: T = exp(-mu path) within 1 % for every point deeper than two cells; 2 µm cells, ball of 100 µm."""
    radius, mu = 100.0, 0.018
    grid, middle, _, region = ball(radius)
    # excitation alone: along the axis
    how = Attenuating(mu_ex=mu, mu_em=0.0, mu_nuc=0.0, cone_rays=1)
    tau = optical_depth(region, torch.zeros_like(region), how, SPACING)
    voxel = (0.7, 0.6, 0.65)
    shape = [int(2 * m / v) for m, v in zip(middle, voxel, strict=True)]
    corner = [int(n) for n in rng.integers(0, np.array(shape) // 4)]
    read = read_out(tau, [n - c for n, c in zip(shape, corner, strict=True)], corner, *grid.places(voxel)).numpy()
    places = [v * (np.arange(c, n) + 0.5) - m for v, c, n, m in zip(voxel, corner, shape, middle, strict=True)]
    z, y, x = np.meshgrid(*places, indexing="ij")
    lateral = y**2 + x**2
    top = -np.sqrt(np.maximum(radius**2 - lateral, 0))
    path = z - top
    # two cells below the surface, whichever way
    deep = radius - np.sqrt(z**2 + lateral) > 2 * SPACING
    assert deep.sum() > 1e5
    error = np.abs(np.exp(-read) / np.exp(-mu * path) - 1)[deep]
    assert error.max() < 0.01
    assert np.sqrt((error**2).mean()) < 0.002


def test_power_law_of_the_publication():
    """A2: half value at 27.55 µm, 1/e at 40.8 µm of path in tissue."""
    spacing = 0.5
    region = torch.ones(120, 1, 1)
    tau = optical_depth(region, region * 0, Attenuating(model="power"), spacing)[:, 0, 0].numpy()
    path = spacing * (np.arange(120) + 0.5)
    assert np.interp(math.log(2), tau, path) == pytest.approx((2 ** (1 / 6) - 1) * 225, abs=0.2)
    assert np.interp(1.0, tau, path) == pytest.approx((math.e ** (1 / 6) - 1) * 225, abs=0.2)
    later = optical_depth(region, region * 0, Attenuating(model="power", power_start=10.0), spacing)[:, 0, 0].numpy()
    assert np.interp(1.0, later, path) == pytest.approx(10 + (math.e ** (1 / 6) - 1) * 225, abs=0.2)
    # gaps in the tissue do not count
    region[40:80] = 0
    gap = optical_depth(region, region * 0, Attenuating(model="power"), spacing)[:, 0, 0].numpy()
    assert gap[79] == pytest.approx(gap[40], rel=1e-5)


def test_none_is_no_attenuation():
    region = torch.ones(4, 5, 6)
    assert not optical_depth(region, region, Attenuating(model="none"), SPACING).any()


def test_emission_is_the_mean_over_rays():
    """In a wide slab: the axis and eight rays that are longer by 1 / cos of two thirds of the angle."""
    how = Attenuating(mu_ex=0.0, mu_em=0.02, mu_nuc=0.0)
    region = torch.ones(20, 61, 61)
    tau = optical_depth(region, region * 0, how, SPACING)
    path = SPACING * (np.arange(20) + 0.5)
    longer = path / math.cos(how.half_angle * 2 / 3)
    expected = -np.log((np.exp(-0.02 * path) + 8 * np.exp(-0.02 * longer)) / 9)
    assert np.allclose(tau[:, 30, 30], expected, rtol=1e-4)
    assert len(cone_slopes(how.half_angle, 1)) == 1


def test_nuclei_add_to_both_ways():
    region = torch.ones(10, 3, 3)
    how = Attenuating(mu_ex=0.0, mu_em=0.0, mu_nuc=0.01, cone_rays=1)
    tau = optical_depth(region, 0.5 * region, how, SPACING)[:, 1, 1]
    assert np.allclose(tau, 2 * 0.01 * 0.5 * SPACING * (np.arange(10) + 0.5), rtol=1e-5)


def test_light_sheets_come_from_the_sides():
    region = torch.ones(3, 4, 30)
    how = Attenuating(mu_ex=0.02, mu_em=0.0, mu_nuc=0.0, illumination="lightsheet_left")
    left = optical_depth(region, region * 0, how, SPACING)
    right = optical_depth(region, region * 0, replace(how, illumination="lightsheet_right"), SPACING)
    path = SPACING * (torch.arange(30) + 0.5)
    assert torch.allclose(left[1, 2], 0.02 * path, rtol=1e-5)
    assert torch.allclose(right, left.flip(2), rtol=1e-5)
    both = replace(how, illumination="lightsheet_both")
    mean = optical_depth(region, region * 0, both, SPACING)
    assert torch.allclose(torch.exp(-mean), (torch.exp(-left) + torch.exp(-right)) / 2, rtol=1e-5)
    brighter = optical_depth(region, region * 0, replace(both, fusion="max"), SPACING)
    assert torch.allclose(brighter, torch.minimum(left, right), atol=1e-6)


def test_staining_fades_inwards():
    _, _, distance, region = ball(60.0)
    how = Attenuating(model="none", stain_depth=25.0, stain_floor=0.2)
    tau = optical_depth(region, region * 0, how, SPACING, torch.from_numpy(distance))
    assert float(tau[torch.from_numpy(distance) >= 0].abs().max()) < 1e-6
    inside = distance < 0
    assert np.allclose(np.exp(-tau.numpy()[inside]), 0.2 + 0.8 * np.exp(distance[inside] / 25.0), rtol=1e-4)
    with pytest.raises(ValueError, match="distance"):
        optical_depth(region, region * 0, how, SPACING)


def test_haze_is_a_share_of_the_light_that_arrives(rng):
    emission = torch.zeros(80, 80, 80)
    emission[40, 40, 40] = 5.0
    tau = torch.full_like(emission, 0.7)
    how = Attenuating(haze_fraction=0.25, haze=20.0)
    found = haze(emission, tau, how, SPACING).double()
    assert float(found.sum()) == pytest.approx(0.25 * 5 * math.exp(-0.7), rel=1e-4)
    z = SPACING * (torch.arange(80) - 40.0)
    spread = float((found.sum((1, 2)) * z**2).sum() / found.sum())
    assert math.sqrt(spread) == pytest.approx(20.0, rel=0.02)  # cut at three standard deviations
    assert not haze(emission, tau, replace(how, haze_fraction=0.0), SPACING).any()


def test_cells_cover_the_box_and_know_where_voxels_lie(rng):
    low, high = rng.uniform(-20, 0, 3), rng.uniform(5, 30, 3)
    grid = cell_grid(low, high, 2.0)
    for axis, centres in enumerate(grid.centres()):
        assert centres[0] - 1 <= low[axis] < centres[0] + 1
        assert centres[-1] - 1 < high[axis] <= centres[-1] + 1
        assert grid.corner_um[axis] == centres[0] - 1
    voxel = (0.75, 0.25, 0.3)
    step, first, corner = grid.places(voxel)
    for axis, centres in enumerate(grid.centres()):
        index = int(rng.integers(100))
        cell = first[axis] + step[axis] * index - corner[axis]
        assert centres[0] + 2.0 * cell == pytest.approx((index + 0.5) * voxel[axis])


def test_cells_around_a_box_are_enough(rng):
    grid = cell_grid((-7.0, 0.0, 3.0), (90.0, 80.0, 70.0), 2.0)
    values = torch.from_numpy(rng.random(grid.shape)).float()
    voxel = (1.5, 0.5, 0.7)
    for _ in range(10):
        origin = [int(n) for n in rng.integers(-5, 40, 3)]
        shape = [int(n) for n in rng.integers(1, 40, 3)]
        low = [(o + 0.5) * v for o, v in zip(origin, voxel, strict=True)]
        high = [(o + n - 0.5) * v for o, n, v in zip(origin, shape, voxel, strict=True)]
        part, slices = grid.around(low, high)
        whole = read_out(values, shape, origin, *grid.places(voxel))
        assert torch.equal(read_out(values[slices].contiguous(), shape, origin, *part.places(voxel)), whole)
