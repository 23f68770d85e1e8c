"""Properties of mixtures of Gaussians on a CPU: values, gradients, cuts, parts of a grid, threads."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.kernels import gaussians
from gigascope.kernels.gaussians import reference

from .mixtures import Gaussians, mixture

DTYPES = [torch.float32, torch.float64]
# sums of tens of values up to 1, each a few roundings off; sums of thousands of terms relative to their largest
VALUES = {torch.float32: 3e-6, torch.float64: 1e-13}
SUMS = {torch.float32: 3e-6, torch.float64: 1e-13}
GRIDS = [
    ((1, 1, 1), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((9, 20, 37), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((7, 9, 50), (-3.5, 2.25, 4.0), (2.0, 3.0, 0.5)),
    ((3, 40, 5), (4.0, -5.0, 10.0), (1.0, 1.0, 1.0)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", GRIDS)
def test_evaluate_agrees_with_the_reference(rng, dtype, grid):
    mix = mixture(rng, 60, (10, 20, 40)).to(dtype)
    error = (gaussians.evaluate(*mix, *grid) - reference.evaluate(*mix, *grid)).abs().max()
    assert error <= VALUES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", GRIDS)
def test_sums_agree_with_the_reference(rng, draw, distance, dtype, grid):
    mix = mixture(rng, 40, (10, 20, 40)).to(dtype)
    upstream = draw(*grid[0], dtype=dtype)
    expected = reference.moments(*mix.geometry, upstream, *grid[1:])
    assert distance(gaussians.moments(*mix.geometry, upstream, *grid[1:]), expected) <= SUMS[dtype]
    expected = reference.squared_sums(*mix.geometry, upstream, *grid[1:])
    assert distance(gaussians.squared_sums(*mix.geometry, upstream, *grid[1:]), expected) <= SUMS[dtype]
    assert gaussians.count_pairs(*mix.geometry, *grid) == reference.count_pairs(*mix.geometry, *grid)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameter_gradients_agree_with_the_reference(rng, draw, distance, dtype):
    mix = mixture(rng, 50, (10, 20, 40)).to(dtype)
    arguments = mix.log_scales, mix.quaternions, mix.amplitudes, draw(50, 10, dtype=dtype)
    for found, expected in zip(gaussians.parameter_gradients(*arguments), reference.parameter_gradients(*arguments)):
        assert distance(found, expected) <= {torch.float32: 1e-6, torch.float64: 1e-13}[dtype]


def overlapping(rng: np.random.Generator, n: int) -> Gaussians:
    """n Gaussians around the middle of 12^3 voxels, float64; the cut lies outside the grid, where nothing steps."""
    mix = mixture(rng, n, (12, 12, 12)).to(torch.float64)
    means, log_scales = torch.from_numpy(rng.uniform(4, 7, (n, 3))), torch.from_numpy(rng.uniform(0.4, 1.4, (n, 3)))
    return mix._replace(means=means, log_scales=log_scales, cuts=torch.full((n,), 13.0, dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("module", [gaussians, reference])
def test_gradients_equal_central_differences(rng, draw, n, module):
    """Acceptance A1, float64: all eleven parameters."""
    mix, upstream, h = overlapping(rng, n), draw(12, 12, 12, dtype=torch.float64), 1e-4
    found = module.parameter_gradients(*mix[1:4], module.moments(*mix.geometry, upstream))
    for k in range(4):
        expected = torch.zeros_like(found[k])
        for at in np.ndindex(*found[k].shape):
            ends = []
            # five points: h^4 leaves 1e-11 relative
            for step in (-2, -1, 1, 2):
                moved = [tensor.clone() for tensor in mix]
                moved[k][at] += step * h
                ends.append((reference.evaluate(*moved, (12, 12, 12)) * upstream).sum())
            expected[at] = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * h)
        assert (found[k] - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("n", [1, 3])
def test_float32_gradients_equal_those_of_the_reference(rng, draw, n):
    """Acceptance A1, float32: L2 distance below 1e-4, of the quaternions below 1e-3."""
    mix, upstream = overlapping(rng, n).to(torch.float32), draw(12, 12, 12)
    found = gaussians.parameter_gradients(*mix[1:4], gaussians.moments(*mix.geometry, upstream))
    double = mix.to(torch.float64)
    sums = reference.moments(*double.geometry, upstream.double())
    for one, other, limit in zip(found, reference.parameter_gradients(*double[1:4], sums), (1e-4, 1e-4, 1e-3, 1e-4)):
        assert (one - other).norm() <= limit * other.norm()


def test_autograd_uses_these_gradients(rng, draw):
    mix = overlapping(rng, 3)
    leaves = [tensor.clone().requires_grad_() for tensor in mix[:4]]
    upstream, grid = draw(7, 5, 9, dtype=torch.float64), ((7, 5, 9), (1.0, 2.0, 0.5), (1.0, 2.0, 1.5))
    gaussians.evaluate(*leaves, mix.cuts, *grid).backward(upstream)
    sums = gaussians.moments(*mix.geometry, upstream, *grid[1:])
    for leaf, expected in zip(leaves, gaussians.parameter_gradients(*mix[1:4], sums)):
        assert torch.equal(leaf.grad, expected)
    assert torch.autograd.gradcheck(lambda *p: gaussians.evaluate(*p, mix.cuts, *grid), leaves, eps=1e-5, atol=1e-8)


def test_ops_keep_the_rules_of_torch_library(rng, draw):
    mix, grid, ops = mixture(rng, 5, (4, 5, 6)), ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]), torch.ops.gigascope
    leaves = [tensor.clone().requires_grad_() for tensor in mix[:4]]
    torch.library.opcheck(ops.gaussians_evaluate, (*leaves, mix.cuts, [4, 5, 6], *grid))
    torch.library.opcheck(ops.gaussians_moments, (*mix.geometry, draw(4, 5, 6), *grid))
    torch.library.opcheck(ops.gaussians_squared_sums, (*mix.geometry, draw(4, 5, 6), *grid))
    torch.library.opcheck(ops.gaussians_parameter_gradients, (*mix[1:4], draw(5, 10)))
    torch.library.opcheck(ops.gaussians_evaluate_points, (*mix, draw(7, 3)))


@pytest.mark.slow
def test_truncated_sum_is_exact_and_close_to_the_whole_one(rng):
    """Acceptance A2: 500 Gaussians in 64^3, ratios of scales to 10, peak 1."""
    shape, mixes = (64, 64, 64), {}
    means = mixture(rng, 500, shape)
    for c_max in (3.5, 5.0):
        ratio = torch.clamp(means.amplitudes.abs() / 1e-4, min=1)
        mixes[c_max] = means._replace(cuts=torch.sqrt(2 * torch.log(ratio)).clamp(max=c_max))
    points = reference._grid(means.means, shape, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    whole, cut = torch.zeros(64**3).double(), {c: torch.zeros(64**3).double() for c in mixes}
    for i in range(500):
        y, phi = reference._kernel(*means.geometry[:3], torch.full((500,), math.inf), points, i)
        whole += means.amplitudes[i].double() * phi
        for c, mix in mixes.items():
            inside = y.square().sum(1) < mix.cuts[i].double() ** 2
            cut[c] += mix.amplitudes[i].double() * torch.where(inside, phi, 0.0)
    for c, decibels in ((3.5, 55), (5.0, 80)):
        found = gaussians.evaluate(*mixes[c], shape).reshape(-1)
        assert (found - cut[c]).abs().max() < 1e-5
        assert -10 * math.log10((found - whole).square().mean()) >= decibels


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_counts_from_the_cut_on(dtype):
    """A sphere whose cut passes exactly through samples: those are outside."""
    means = torch.tensor([[8.0, 9.0, 10.0]], dtype=dtype)
    mix = (
        means,
        torch.zeros_like(means),
        torch.tensor([[2.0, 0, 0, 0]], dtype=dtype),
        means[:, 0],
        means.new_tensor([3.0]),
    )
    found = gaussians.evaluate(*mix, (20, 20, 20))
    axes = torch.meshgrid(*(torch.arange(20) - m for m in (8, 9, 10)), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 9
    assert torch.equal(found != 0, inside)
    assert gaussians.count_pairs(*mix[:3], mix[4], (20, 20, 20)) == int(inside.sum())
    assert gaussians.evaluate(*mix[:4], 0 * mix[4], (20, 20, 20)).abs().max() == 0


def test_part_of_a_grid_is_the_same_to_the_bit(rng):
    mix = mixture(rng, 80, (20, 30, 70))
    whole = gaussians.evaluate(*mix, (20, 30, 70))
    for _ in range(8):
        low = [int(rng.integers(0, n)) for n in whole.shape]
        high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, whole.shape)]
        part = gaussians.evaluate(*mix, [b - a for a, b in zip(low, high)], low)
        assert torch.equal(part, whole[tuple(slice(a, b) for a, b in zip(low, high))])


def test_results_do_not_depend_on_the_number_of_threads(rng, draw, thread_counts):
    mix, upstream, points = mixture(rng, 200, (20, 40, 40)), draw(20, 40, 40), 20 * draw(500, 3)
    results = []
    for n in thread_counts:
        numba.set_num_threads(n)
        sums = gaussians.moments(*mix.geometry, upstream)
        results.append(
            (
                gaussians.evaluate(*mix, (20, 40, 40)),
                sums,
                gaussians.squared_sums(*mix.geometry, upstream),
                gaussians.evaluate_points(*mix, points),
                *gaussians.parameter_gradients(*mix[1:4], sums),
            )
        )
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_moments_hold_the_adjoint_of_evaluate(rng, draw):
    mix, upstream = mixture(rng, 100, (20, 30, 40)), draw(20, 30, 40)
    one = (gaussians.evaluate(*mix, (20, 30, 40)).double() * upstream.double()).sum()
    terms = mix.amplitudes.double() * gaussians.moments(*mix.geometry, upstream)[:, 0].double()
    assert abs(one - terms.sum()) <= 1e-5 * terms.abs().sum()


def test_squared_sums_are_those_of_the_kernels(rng, draw):
    mix, weight = mixture(rng, 5, (10, 12, 14)), draw(10, 12, 14).abs()
    for i, found in enumerate(gaussians.squared_sums(*mix.geometry, weight)):
        one = Gaussians(*(tensor[i : i + 1] for tensor in mix))._replace(amplitudes=torch.ones(1))
        expected = (weight * gaussians.evaluate(*one, (10, 12, 14)).square()).sum()
        assert found == pytest.approx(float(expected), rel=1e-5, abs=1e-12)


def test_length_and_sign_of_a_quaternion_do_not_matter(rng):
    mix = mixture(rng, 30, (10, 20, 30))
    turned = mix._replace(quaternions=-3.7 * mix.quaternions)
    difference = gaussians.evaluate(*mix, (10, 20, 30)) - gaussians.evaluate(*turned, (10, 20, 30))
    # samples at a cut may change sides: there are none this close for almost every draw, and none counts above 2e-3
    assert (difference.abs() > 1e-5).sum() <= 2
    assert difference.abs().max() < 3e-3


def test_numbers_that_are_not_finite_stay_visible(rng, draw):
    mix, upstream = mixture(rng, 4, (5, 6, 7)), draw(5, 6, 7)
    for k in range(3):
        broken = [tensor.clone() for tensor in mix]
        broken[k][2, 1] = torch.nan
        assert gaussians.evaluate(*broken, (5, 6, 7)).isnan().all()
        assert gaussians.evaluate_points(*broken, draw(3, 3)).isnan().all()
        sums = gaussians.moments(*broken[:3], broken[4], upstream)
        assert sums[2].isnan().all()
        assert sums[[0, 1, 3]].isfinite().all()
    upstream[2, 3, 4] = torch.nan
    hit = mix._replace(means=torch.tensor([[2.0, 3.0, 4.0]]).repeat(4, 1))
    assert gaussians.moments(*hit.geometry, upstream).isnan().all()
    assert gaussians.squared_sums(*hit.geometry, upstream).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_points_agree_with_the_reference_and_with_the_grid(rng, draw, dtype):
    mix = mixture(rng, 60, (12, 20, 30)).to(dtype)
    points = torch.from_numpy(rng.uniform(-15, 45, (700, 3))).to(dtype)
    error = (gaussians.evaluate_points(*mix, points) - reference.evaluate_points(*mix, points)).abs().max()
    assert error <= VALUES[dtype]
    samples = reference._grid(mix.means, (12, 20, 30), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).to(dtype)
    on_grid = gaussians.evaluate(*mix, (12, 20, 30)).reshape(-1)
    assert (gaussians.evaluate_points(*mix, samples) - on_grid).abs().max() <= VALUES[dtype]


def test_points_far_apart_cost_no_memory(rng):
    mix = mixture(rng, 20, (10, 10, 10))
    points = torch.tensor([[5.0, 5.0, 5.0], [3e5, -2e5, 1e5], [torch.nan, 0.0, 0.0]])
    found = gaussians.evaluate_points(*mix, points)
    assert found[0] == pytest.approx(float(reference.evaluate_points(*mix, points[:1])), abs=1e-6)
    assert found[1] == 0
    assert found[2].isnan()


def test_max_projection_is_that_of_the_volume(rng, draw):
    shape = (19, 40, 33)
    mix, background = mixture(rng, 40, shape), draw(*shape)
    volume = gaussians.evaluate(*mix, shape)
    for axis in range(3):
        for added, given in ((0, None), (background, background), (background, lambda part: background[part])):
            found = gaussians.max_projection(*mix, given, shape, axis)
            assert (found - (volume + added).amax(dim=axis)).abs().max() <= VALUES[torch.float32]
    grid = ((6, 20, 33), (1.0, 2.0, 0.0), (3.0, 2.0, 1.0))
    volume = gaussians.evaluate(*mix, *grid)
    found = gaussians.max_projection(*mix, None, grid[0], 1, *grid[1:])
    assert (found - volume.amax(dim=1)).abs().max() <= VALUES[torch.float32]


def test_no_gaussians_and_no_points_give_nothing(draw):
    nothing = torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0)
    geometry = (*nothing[:3], nothing[4])
    assert torch.equal(gaussians.evaluate(*nothing, (2, 3, 4)), torch.zeros(2, 3, 4))
    assert gaussians.moments(*geometry, draw(2, 3, 4)).shape == (0, 10)
    assert gaussians.squared_sums(*geometry, draw(2, 3, 4)).shape == (0,)
    assert gaussians.count_pairs(*geometry, (2, 3, 4)) == 0
    assert torch.equal(gaussians.evaluate_points(*nothing, draw(5, 3)), torch.zeros(5))
    assert gaussians.evaluate_points(*nothing, torch.zeros(0, 3)).shape == (0,)
    assert torch.equal(gaussians.max_projection(*nothing, None, (2, 3, 4), 1), torch.zeros(2, 4))


def test_wrong_arguments_are_refused_by_name(rng, draw):
    mix = mixture(rng, 4, (5, 6, 7))
    with pytest.raises(ShapeError, match=r"evaluate: quaternions: expected \(4, 4\), got \(4, 3\)"):
        gaussians.evaluate(*mix[:2], mix.means, *mix[3:], (5, 6, 7))
    with pytest.raises(ShapeError, match="moments: cuts"):
        gaussians.moments(*mix[:3], mix.cuts[:3], draw(5, 6, 7))
    with pytest.raises(ShapeError, match="moments: upstream"):
        gaussians.moments(*mix.geometry, draw(5, 6, 7, dtype=torch.float64))
    with pytest.raises(ShapeError, match="spacing of y"):
        gaussians.evaluate(*mix, (5, 6, 7), spacing=(1.0, 0.0, 1.0))
    with pytest.raises(ShapeError, match="shape"):
        gaussians.evaluate(*mix, (5, 6))
    with pytest.raises(ShapeError, match="x of shape"):
        gaussians.evaluate(*mix, (5, 6, 0))
    with pytest.raises(ShapeError, match="axis"):
        gaussians.max_projection(*mix, None, (5, 6, 7), 3)
