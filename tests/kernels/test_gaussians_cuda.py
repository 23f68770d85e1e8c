"""The Triton kernels of the mixtures against the definition: on a GPU where there is one, else in the interpreter.

The interpreter replaces Triton's language when Triton is first imported, so these tests ask for a process of their own:
test_interpreter.py starts it.
"""

from __future__ import annotations

import importlib
import os

import pytest
import torch

from gigascope.kernels.gaussians import reference

from .mixtures import mixture

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles these kernels")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU: test_interpreter.py runs these tests in Triton's interpreter", allow_module_level=True)

# imported only now: without one or the other they cannot be
cuda = importlib.import_module("gigascope.kernels.gaussians.cuda")
cuda_bins = importlib.import_module("gigascope.kernels.gaussians.cuda_bins")

DEVICE = "cpu" if INTERPRETED else "cuda"
GRIDS = [
    ((1, 1, 1), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((5, 9, 18), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((3, 7, 20), (-3.5, 2.25, 4.0), (2.0, 3.0, 0.5)),
]


@pytest.mark.parametrize("grid", GRIDS)
def test_evaluate_agrees_with_the_reference(rng, grid):
    mix = mixture(rng, 25, (6, 12, 18))
    found = cuda.evaluate(*mix.to(DEVICE), *grid).cpu()
    assert (found - reference.evaluate(*mix, *grid)).abs().max() <= 1e-5


def test_part_of_a_grid_is_the_same_to_the_bit(rng):
    mix, shape = mixture(rng, 25, (6, 12, 18)).to(DEVICE), (6, 12, 18)
    whole = cuda.evaluate(*mix, shape, (0.0,) * 3, (1.0,) * 3)
    for low, high in (((1, 3, 5), (6, 12, 18)), ((2, 0, 7), (3, 12, 9))):
        part = cuda.evaluate(*mix, [b - a for a, b in zip(low, high)], low, (1.0,) * 3)
        assert torch.equal(part, whole[tuple(slice(a, b) for a, b in zip(low, high))])


@pytest.mark.parametrize("grid", GRIDS)
def test_sums_agree_with_the_reference(rng, draw, grid):
    mix, upstream = mixture(rng, 25, (6, 12, 18)), draw(*grid[0])
    on_device, there = mix.to(DEVICE), upstream.to(DEVICE)
    expected = reference.moments(*mix.geometry, upstream, *grid[1:])
    found = cuda.moments(*on_device.geometry, there, *grid[1:]).cpu()
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    expected = reference.squared_sums(*mix.geometry, upstream, *grid[1:])
    assert (cuda.squared_sums(*on_device.geometry, there, *grid[1:]).cpu() - expected).norm() <= 1e-5 * expected.norm()
    assert cuda.count_pairs(*on_device.geometry, *grid) == reference.count_pairs(*mix.geometry, *grid)


def test_parameter_gradients_and_points_agree_with_the_reference(rng, draw, distance):
    mix = mixture(rng, 70, (10, 12, 20))
    arguments = mix.log_scales, mix.quaternions, mix.amplitudes, draw(70, 10)
    found = cuda.parameter_gradients(*(tensor.to(DEVICE) for tensor in arguments))
    for one, other in zip(found, reference.parameter_gradients(*arguments)):
        assert distance(one, other) <= 1e-6
    points = torch.from_numpy(rng.uniform(-9, 25, (300, 3))).float()
    points[7] = torch.nan
    found, expected = (
        cuda.evaluate_points(*mix.to(DEVICE), points.to(DEVICE)).cpu(),
        reference.evaluate_points(*mix, points),
    )
    assert torch.equal(found.isnan(), expected.isnan())
    assert (found - expected).nan_to_num().abs().max() <= 1e-5


def test_samples_at_a_cut_are_decided_in_float64(rng):
    """A sphere of radius 3 on samples, and cuts a relative 1e-8 to either side of a sample."""
    means, ones = torch.full((3, 3), 5.0), torch.ones(3)
    quaternions = torch.tensor([[1.0, 0, 0, 0]]).repeat(3, 1)
    mix = [means, torch.zeros(3, 3), quaternions, torch.tensor([1.0, 4.0, 16.0]), 3 * ones]
    # sigma as a float32 whose exponential is a little below and above 1
    mix[1][1], mix[1][2] = 1e-8, -1e-8
    found = cuda.evaluate(*(tensor.to(DEVICE) for tensor in mix), (11, 11, 11), (0.0,) * 3, (1.0,) * 3).cpu()
    expected = reference.evaluate(*mix, (11, 11, 11))
    assert (found - expected).abs().max() <= 1e-5
    assert found[5, 5, 8] == pytest.approx(4 * 0.011109, rel=1e-3)


def test_adam_agrees_with_the_reference(rng, draw):
    parameters = list(mixture(rng, 70, (10, 12, 20))[:4])
    state = [torch.zeros(70, 11), torch.zeros(70, 11), torch.from_numpy(rng.integers(0, 400, 70)).int()]
    ours = [tensor.clone().to(DEVICE) for tensor in parameters + state]
    numbers = (0.06, 0.03, 0.03, 0.01), (0.9, 0.99), 1e-12, (-0.5, 1.2), (0.0, 1.0, 2.0, 8.0, 10.0, 15.0)
    for _ in range(4):
        gradients = [draw(*tensor.shape) for tensor in parameters]
        gradients[1][3] = torch.nan
        reference.adam_(*parameters, gradients, *state, *numbers)
        cuda.adam_(*ours[:4], [tensor.to(DEVICE) for tensor in gradients], *ours[4:], *numbers)
    for one, other in zip(ours, parameters + state):
        one = one.cpu()
        assert torch.equal(one.isnan(), other.isnan())
        assert (one - other).nan_to_num().abs().max() <= 3e-6 * other.nan_to_num().abs().max()


def test_numbers_that_are_not_finite_stay_visible(rng, draw):
    mix, upstream, grid = mixture(rng, 4, (5, 6, 7)), draw(5, 6, 7), ((5, 6, 7), (0.0,) * 3, (1.0,) * 3)
    for k in range(3):
        broken = [tensor.clone().to(DEVICE) for tensor in mix]
        broken[k][2, 1] = torch.nan
        assert cuda.evaluate(*broken, *grid).isnan().all()
        assert cuda.evaluate_points(*broken, draw(3, 3).to(DEVICE)).isnan().all()
        sums = cuda.moments(*broken[:3], broken[4], upstream.to(DEVICE), *grid[1:])
        assert sums[2].isnan().all()
        assert sums[[0, 1, 3]].isfinite().all()


def test_no_gaussians_and_no_points_give_nothing(draw):
    nothing = [torch.zeros(0, n, device=DEVICE) for n in (3, 3, 4)] + [torch.zeros(0, device=DEVICE)] * 2
    geometry, grid = (*nothing[:3], nothing[4]), ((0.0,) * 3, (1.0,) * 3)
    upstream = draw(2, 3, 4).to(DEVICE)
    assert cuda.evaluate(*nothing, (2, 3, 4), *grid).abs().max() == 0
    assert cuda.moments(*geometry, upstream, *grid).shape == (0, 10)
    assert cuda.squared_sums(*geometry, upstream, *grid).shape == (0,)
    assert cuda.count_pairs(*geometry, (2, 3, 4), *grid) == 0
    assert cuda.evaluate_points(*nothing, draw(5, 3).to(DEVICE)).abs().max() == 0
    assert cuda.evaluate_points(*nothing, torch.zeros(0, 3, device=DEVICE)).shape == (0,)


def test_bins_are_made_anew_when_a_mean_moved(rng):
    mix, grid = mixture(rng, 10, (5, 6, 7)).to(DEVICE), ((5, 6, 7), (0.0,) * 3, (1.0,) * 3)
    before = cuda_bins.bins_of(mix.geometry, *grid)
    assert cuda_bins.bins_of(mix.geometry, *grid) is before
    assert cuda_bins.bins_of(mix.geometry, grid[0], (1.0, 0.0, 0.0), grid[2]) is not before
    cuda.evaluate(*mix, *grid)
    mix.means.add_(1)
    expected = reference.evaluate(*mix.to("cpu"), *grid)
    assert (cuda.evaluate(*mix, *grid).cpu() - expected).abs().max() <= 1e-5
