"""Properties of the fused step of Adam on a CPU."""

from __future__ import annotations

import numba
import pytest
import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels import gaussians
from gigascope.kernels.gaussians import reference

from .mixtures import mixture

RATES = (0.06, 0.03, 0.03, 0.01)
# roundings of running means and parameters, a few per step
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-14}
DTYPES = list(TOLERANCE)


def fresh(rng, n: int, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Four parameters, and the running means with the counts of steps."""
    parameters = [tensor.to(dtype) for tensor in mixture(rng, n, (10, 20, 30))[:4]]
    return parameters, [torch.zeros(n, 11, dtype=dtype) for _ in range(2)] + [torch.zeros(n, dtype=torch.int32)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_agrees_with_the_reference(rng, draw, dtype):
    parameters, state = fresh(rng, 50, dtype)
    state[2] = torch.from_numpy(rng.integers(0, 300, 50)).int()
    theirs = [tensor.clone() for tensor in parameters + state]
    ranges = {"log_scale_range": (-0.5, 1.2), "mean_range": ((0.0, 1.0, 2.0), (8.0, 18.0, 25.0))}
    for _ in range(5):
        gradients = [draw(*tensor.shape, dtype=dtype) for tensor in parameters]
        gaussians.adam_(*parameters, gradients, *state, RATES, **ranges)
        numbers = RATES, (0.9, 0.99), 1e-12, (-0.5, 1.2), (0.0, 1.0, 2.0, 8.0, 18.0, 25.0)
        reference.adam_(*theirs[:4], gradients, *theirs[4:], *numbers)
        for one, other in zip(parameters + state[:2], theirs[:6]):
            assert (one - other).abs().max() <= TOLERANCE[dtype] * other.abs().max()
        assert torch.equal(state[2], theirs[6])


def test_adam_without_bounds_is_that_of_torch(rng, draw):
    parameters, state = fresh(rng, 20, torch.float64)
    # a quaternion's length is free in torch: start at 1 and compare after the first step, divided by the length
    parameters[2] /= parameters[2].norm(dim=1, keepdim=True)
    theirs = [tensor.clone().requires_grad_() for tensor in parameters]
    groups = [{"params": [tensor], "lr": rate} for tensor, rate in zip(theirs, RATES)]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12)
    for _ in range(10):
        gradients = [draw(*tensor.shape, dtype=torch.float64) for tensor in parameters]
        gaussians.adam_(*parameters, gradients, *state, RATES)
        for tensor, gradient in zip(theirs, gradients):
            tensor.grad = gradient
        optimiser.step()
        with torch.no_grad():
            theirs[2] /= theirs[2].norm(dim=1, keepdim=True)
        for one, other in zip(parameters, theirs):
            assert (one - other).abs().max() < 1e-13 * other.abs().max()


def test_every_gaussian_is_corrected_by_its_own_count(rng, draw):
    parameters, state = fresh(rng, 2, torch.float64)
    state[2][1] = 1000
    before = parameters[3].clone()
    gradients = [torch.ones_like(tensor) for tensor in parameters]
    gaussians.adam_(*parameters, gradients, *state, RATES)
    moved = (before - parameters[3]) / RATES[3]
    # a first step has length 1, but for what keeps the division from 0, and is a difference of two rounded numbers;
    # at 1001 steps the running means 0.1 and 0.01 count as they are
    rounding = 4 * torch.finfo(torch.float64).eps * (1 + float(before[0].abs())) / RATES[3]
    assert float(moved[0]) == pytest.approx(1 / (1 + 1e-12), abs=rounding)
    assert moved[1] == pytest.approx(0.1 / 0.1, rel=1e-4)
    assert state[2].tolist() == [1, 1001]


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_keeps_ranges_and_lengths(rng, draw, dtype):
    parameters, state = fresh(rng, 100, dtype)
    for _ in range(3):
        gradients = [100 * draw(*tensor.shape, dtype=dtype) for tensor in parameters]
        ranges = {"log_scale_range": (-0.25, 0.5), "mean_range": ((1.0, 1.0, 1.0), (4.0, 5.0, 6.0))}
        gaussians.adam_(*parameters, gradients, *state, RATES, **ranges)
    means, log_scales, quaternions, _ = parameters
    assert (means >= 1).all()
    assert (means <= torch.tensor([4.0, 5.0, 6.0])).all()
    assert (log_scales >= -0.25).all()
    assert (log_scales <= 0.5).all()
    assert (quaternions.norm(dim=1) - 1).abs().max() <= 1e-6


def test_adam_does_not_depend_on_the_number_of_threads(rng, draw, thread_counts):
    parameters, state = fresh(rng, 300, torch.float32)
    gradients, results = [draw(*tensor.shape) for tensor in parameters], []
    for n in thread_counts:
        numba.set_num_threads(n)
        tensors = [tensor.clone() for tensor in parameters + state]
        gaussians.adam_(*tensors[:4], gradients, *tensors[4:], RATES)
        results.append(tensors)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_gradient_that_is_not_a_number_stays_visible(rng, draw):
    parameters, state = fresh(rng, 3, torch.float32)
    gradients = [draw(*tensor.shape) for tensor in parameters]
    for gradient in gradients:
        gradient[1] = torch.nan
    gaussians.adam_(*parameters, gradients, *state, RATES, log_scale_range=(0.0, 1.0), mean_range=((0,) * 3, (9,) * 3))
    for tensor in parameters:
        assert tensor[1].isnan().all()
        assert tensor[[0, 2]].isfinite().all()


def test_adam_keeps_the_rules_of_torch_library(rng, draw):
    parameters, state = fresh(rng, 5, torch.float32)
    gradients = [draw(*tensor.shape) for tensor in parameters]
    numbers = list(RATES), [0.9, 0.99], 1e-12, [-1.0, 1.0], [0.0] * 3 + [9.0] * 3
    torch.library.opcheck(torch.ops.gigascope.gaussians_adam_, (*parameters, *gradients, *state, *numbers))


def test_wrong_arguments_are_refused_by_name(rng, draw):
    parameters, state = fresh(rng, 4, torch.float32)
    gradients = [draw(*tensor.shape) for tensor in parameters]
    with pytest.raises(ShapeError, match="steps: expected"):
        gaussians.adam_(*parameters, gradients, *state[:2], state[2].long(), RATES)
    with pytest.raises(ShapeError, match="4 gradients"):
        gaussians.adam_(*parameters, gradients[:3], *state, RATES)
    with pytest.raises(ShapeError, match="contiguous"):
        gaussians.adam_(*parameters, gradients, state[0].T.contiguous().T, *state[1:], RATES)
    with pytest.raises(ShapeError, match=r"d_quaternions: expected \(4, 4\)"):
        gaussians.adam_(*parameters, [*gradients[:2], gradients[0], gradients[3]], *state, RATES)
