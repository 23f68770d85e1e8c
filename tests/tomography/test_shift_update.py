"""One Gauss-Newton step from the sums: exact for small shifts, damped by the prior, free of the gauge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gigascope.kernels import warp
from gigascope.tomography.geometry import remove_gauge
from gigascope.tomography.shift_update import MAX_STEP, damped_increment, normal_equations

TILT = np.deg2rad(np.linspace(-60, 60, 9))
S, Y = torch.meshgrid(torch.arange(60.0) - 29.5, torch.arange(48.0) - 23.5, indexing="ij")


def smooth_view(shift_s: float, shift_y: float) -> torch.Tensor:
    """A smooth picture displaced by (shift_s, shift_y)."""
    s, y = S - shift_s, Y - shift_y
    return torch.exp(-(s**2 + y**2) / 200) + 0.5 * torch.exp(-((s - 9) ** 2 + (y + 6) ** 2) / 60)


def sums_of(model: torch.Tensor, data: torch.Tensor) -> np.ndarray:
    return warp.shift_sums(model, data, torch.ones_like(model)).numpy()


@pytest.mark.parametrize("centre", [False, True])
def test_step_is_the_displacement_of_the_data(centre, rng):
    true = rng.normal(0, 0.15, (9, 2))
    model = smooth_view(0, 0).expand(9, -1, -1).contiguous()
    data = torch.stack([smooth_view(*shift) for shift in true]) + (3.0 if centre else 0.0)
    equations = normal_equations(sums_of(model, data), centre=centre, smooth=0.0)
    np.testing.assert_allclose(equations.step(np.zeros((9, 2)), 1e6), true, atol=0.02)


def test_predicted_sigma_is_the_scatter_under_noise(rng):
    n = 400
    model = smooth_view(0, 0).expand(n, -1, -1).contiguous()
    noise = torch.from_numpy(rng.normal(0, 0.2, model.shape).astype(np.float32))
    equations = normal_equations(sums_of(model, model + noise), centre=True, smooth=0.0)
    step = equations.step(np.zeros((n, 2)), 1e6)
    assert np.all(np.abs(step.std(axis=0) / equations.sigma().mean(axis=0) - 1) < 0.2)


def test_prior_pulls_an_empty_view_back_to_its_start():
    sums = np.zeros((9, 10))
    sums[:, 0], sums[:, 9] = 100.0, 50.0
    equations = normal_equations(sums, centre=True, smooth=0.5)
    offset = np.full((9, 2), 0.7)
    np.testing.assert_allclose(equations.step(offset, 3.0), -offset)
    np.testing.assert_allclose(equations.sigma(3.0), 3.0)
    assert np.isinf(equations.sigma()).all()


def test_view_without_samples_stays_where_it_is():
    equations = normal_equations(np.zeros((9, 10)), centre=True, smooth=0.5)
    assert np.all(equations.step(np.ones((9, 2)), 3.0) == 0)
    assert np.isinf(equations.sigma(3.0)).all()


def test_increment_is_bounded_and_free_of_the_gauge(rng):
    model = smooth_view(0, 0).expand(9, -1, -1).contiguous()
    data = torch.stack([smooth_view(*shift) for shift in rng.normal(0, 4, (9, 2))])
    equations = normal_equations(sums_of(model, data), centre=True, smooth=0.0)
    use = np.ones(9, dtype=bool)
    arguments = {"prior": 3.0, "beta": 0.5, "step": 1.0}
    increment = damped_increment(equations, np.zeros((9, 2)), rng.normal(0, 5, (9, 2)), TILT, use, **arguments)
    np.testing.assert_allclose(remove_gauge(increment, TILT), increment, atol=1e-12)
    assert np.linalg.norm(increment, axis=1).max() <= 2 * MAX_STEP
