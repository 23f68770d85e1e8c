"""Light on the coarse grid: agreement with the definition, closed forms, independence of how a volume is cut."""

from __future__ import annotations

import math

import numba
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.kernels.cells import light, reference_light

RAYS = [[0.0, 0.0], [0.24, 0.0], [-0.17, 0.17], [0.0, -0.31], [-0.9, -1.3]]


@pytest.fixture
def volume(rng):
    return torch.from_numpy(rng.uniform(0, 0.2, (9, 11, 14))).float()


def test_cone_depth_agrees_with_the_reference(volume, distance):
    for rays in (RAYS, *([ray] for ray in RAYS)):
        found = light.cone_depth(volume, torch.tensor(rays, dtype=torch.float64))
        assert distance(found, reference_light.cone_depth(volume, rays)) < 2e-6


def test_axis_ray_is_the_prefix_sum(volume, distance):
    found = light.cone_depth(volume, torch.zeros(1, 2, dtype=torch.float64))
    assert distance(found, volume.double().cumsum(0) - volume.double() / 2) < 2e-6


def test_slanted_ray_in_a_uniform_slab(distance):
    """Far from the sides the path is the depth over the cosine."""
    mu, slope = torch.full((20, 40, 40), 0.05), 0.4
    found = light.cone_depth(mu, torch.tensor([[0.0, slope]], dtype=torch.float64))
    depth = 0.05 * math.hypot(1, slope) * (torch.arange(20) + 0.5)
    assert distance(found[:, 20, 10:30], depth[:, None].expand(20, 20)) < 1e-5


def test_slanted_ray_leaves_through_the_side():
    """A ray to larger x from a cell near that side leaves the grid before it reaches the top."""
    mu = torch.full((30, 8, 20), 0.05)
    found = light.cone_depth(mu, torch.tensor([[0.0, 0.5]], dtype=torch.float64))
    # from x = 17 it leaves after 2.5 / 0.5 = 5 layers
    assert float(found[25, 4, 17]) == pytest.approx(0.05 * math.hypot(1, 0.5) * 5, rel=0.15)
    assert float(found[25, 4, 2]) == pytest.approx(0.05 * math.hypot(1, 0.5) * 25.5, rel=0.01)


@pytest.mark.parametrize("cells", [(4, 5, 6), (1, 1, 1), (2, 1, 7)])
def test_read_out_and_attenuation_agree_with_the_reference(rng, distance, cells):
    grid = torch.from_numpy(rng.uniform(0, 5, cells)).float()
    shape, origin = (7, 9, 37), (3, 2, 1)
    step, first = (0.31, 0.27, 0.123), (-0.7, 0.1, -1.0)
    places = light.positions(shape, origin, step, first, cells)
    expected = reference_light.read_out(grid, places)
    assert distance(light.read_out(grid, shape, origin, step, first), expected) < 1e-6
    density = torch.from_numpy(rng.uniform(0, 5, shape)).float()
    wanted, found = density.clone(), density.clone()
    reference_light.attenuate_(wanted, grid, places)
    light.attenuate_(found, grid, origin, step, first)
    assert distance(found, wanted) < 2e-6


def test_read_out_is_exact_for_a_linear_field(distance):
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (6, 7, 8)), indexing="ij")
    field = 0.3 * z - 0.2 * y + 0.7 * x + 4
    found = light.read_out(field.float(), (4, 5, 6), (1, 0, 2), (0.7, 0.9, 0.8), (0.5, 0.25, 0.1))
    places = [f + (o + torch.arange(n)) * s for n, o, s, f in ((4, 1, 0.7, 0.5), (5, 0, 0.9, 0.25), (6, 2, 0.8, 0.1))]
    z, y, x = torch.meshgrid(*places, indexing="ij")
    assert distance(found, 0.3 * z - 0.2 * y + 0.7 * x + 4) < 1e-6


def test_light_does_not_depend_on_blocks_or_threads(rng, volume, thread_counts):
    slopes = torch.tensor(RAYS, dtype=torch.float64)
    step, first, shape = (0.31, 0.27, 0.123), (-0.3, 0.2, 0.1), (12, 17, 41)
    density = torch.from_numpy(rng.uniform(0, 5, shape)).float()
    results = []
    for threads in thread_counts:
        numba.set_num_threads(threads)
        tau = light.cone_depth(volume, slopes)
        whole, pieces = density.clone(), density.clone()
        light.attenuate_(whole, tau, (5, 6, 7), step, first)
        cut = [int(rng.integers(1, n)) for n in shape]
        for z in ((0, cut[0]), (cut[0], shape[0])):
            for x in ((0, cut[2]), (cut[2], shape[2])):
                region = (slice(*z), slice(None), slice(*x))
                block = pieces[region].contiguous()
                light.attenuate_(block, tau, (5 + z[0], 6, 7 + x[0]), step, first)
                pieces[region] = block
        assert torch.equal(whole, pieces)
        results.append((tau, whole))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_a_box_of_cells_is_as_good_as_all(volume):
    step, first, shape, origin = (0.31, 0.27, 0.123), (0.1, 0.2, -0.4), (3, 5, 20), (9, 12, 40)
    whole = light.read_out(volume, shape, origin, step, first)
    box = volume[2:6, 3:7, 4:9].contiguous()
    assert torch.equal(light.read_out(box, shape, origin, step, first, (2, 3, 4)), whole)


def test_wrong_arguments_are_refused(volume):
    slopes = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(ShapeError, match="mu"):
        light.cone_depth(volume.double(), slopes)
    with pytest.raises(ShapeError, match="slopes"):
        light.cone_depth(volume, slopes.float())
    with pytest.raises(ShapeError, match="step along y"):
        light.read_out(volume, (1, 1, 1), (0, 0, 0), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(ShapeError, match="contiguous"):
        light.attenuate_(volume.transpose(0, 1), volume, (0, 0, 0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
