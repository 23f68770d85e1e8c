"""Primal-dual iteration: convergence to the optimum, groups, constants per view, positivity, state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gigascope.kernels import projector, tv
from gigascope.tomography import masks
from gigascope.tomography.geometry import volume_width
from gigascope.tomography.primal_dual import PrimalDual
from gigascope.tomography.residual import group_order, interleaved

# relative gap of the objective to a long run after (50, 100) iterations from zero, shifts fixed
GAP = {"object": (1e-2, 1e-3), "section": (2.5e-2, 5e-3)}
LONG_RUN = 400
BIN = 2


def small_problem(rng: np.random.Generator, *, constants: bool, groups: tuple[int, ...] = (9,), lam: float = 0.2):
    n = sum(groups)
    angles = torch.from_numpy(np.sort(rng.uniform(-1.0, 1.0, n)))
    problem = PrimalDual(angles, groups, (8, 20, 6), 14, lam=lam, constants=constants)
    views = torch.from_numpy(rng.normal(size=(n, 14, 6)).astype(np.float32))
    weights = torch.from_numpy((rng.uniform(size=(n, 14, 6)) > 0.2).astype(np.float32))
    problem.set_data(views, weights)
    return problem


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["object", "section"])
def test_objective_comes_close_to_a_long_run(kind, prepared):
    """Acceptance test 6, at bin 2 with the weight of that level."""
    series = prepared(kind, 0)
    tilt = torch.from_numpy(series.sim.tilt)
    views, valid = series.at(series.sim.shifts_true, BIN)
    shape = (64 // BIN, volume_width(128, 64, series.sim.tilt, kind, largest_bin=4) // BIN, 128 // BIN)
    full = masks.full_rays(tilt, views.shape[1], shape[:2], 1.0, kind)
    precision = torch.from_numpy(1 / series.model.relative_noise).float()
    problem = PrimalDual(tilt, [61], shape, views.shape[1], lam=0.1 * BIN, constants=kind == "section")
    problem.set_data(views, masks.weights(valid.float(), full, precision))
    objective, done = {}, 0
    for iteration in (50, 100, LONG_RUN):
        problem.iterate(iteration - done)
        objective[iteration], done = float(problem.objective()), iteration
    gaps = [objective[n] / objective[LONG_RUN] - 1 for n in (50, 100)]
    print(f"{kind}: gaps {gaps[0]:.4f} and {gaps[1]:.4f}")
    assert gaps[0] <= GAP[kind][0]
    assert gaps[1] <= GAP[kind][1]


@pytest.mark.parametrize("constants", [False, True])
def test_fixed_point_satisfies_the_optimality_conditions(constants, rng):
    problem = small_problem(rng, constants=constants)
    problem.iterate(4000)
    u, p, q, o = problem.u[0], problem.p[0], problem.q, problem.o
    residual = problem.weights * (problem.project(u, slice(0, 9)) + o.float()[:, None, None] - problem.views)
    stationary = tv.gradient_adjoint(p) + projector.backproject(q, problem.angles, (8, 20))
    assert (q - residual).abs().max() < 2e-3
    assert stationary.abs().max() < 2e-3
    if constants:
        assert q.sum(dim=(1, 2)).abs().max() < 2e-2
    gradient, norm = tv.gradient(u), tv.gradient(u).norm(dim=0)
    steep = norm > 0.05
    direction = gradient / norm.clamp_min(1e-12)
    if steep.any():
        assert (p / problem.lam - direction).norm(dim=0)[steep].max() < 0.05


def test_groups_are_solved_as_if_alone(rng):
    together = small_problem(rng, constants=True, groups=(5, 4))
    together.iterate(7)
    for k, group in enumerate(together.slices):
        alone = PrimalDual(together.angles[group], [4 + (k == 0)], (8, 20, 6), 14, lam=0.2, constants=True)
        alone.set_data(together.views[group], together.weights[group])
        alone.iterate(7)
        assert torch.equal(alone.u[0], together.u[k])
        assert torch.equal(alone.o, together.o[group])


def test_left_out_model_does_not_contain_the_view_itself(rng):
    problem = small_problem(rng, constants=False, groups=(5, 4))
    problem.iterate(5)
    model = problem.left_out_projections()
    expected = problem.project(problem.u[1], problem.slices[0])
    assert torch.allclose(model[problem.slices[0]], expected, atol=1e-6)


def test_least_squares_start_eliminates_the_constants(rng):
    problem = small_problem(rng, constants=True)
    volume = torch.from_numpy(rng.normal(size=(8, 20, 6)).astype(np.float32))
    offsets = torch.from_numpy(rng.normal(size=9).astype(np.float32)) * 10
    views = problem.project(volume, slice(0, 9)) + offsets[:, None, None]
    problem.set_data(views, torch.ones_like(views))
    problem.start_least_squares(60)
    fit = problem.project(problem.u[0], slice(0, 9)) + problem.o.float()[:, None, None]
    assert (fit - views).norm() < 0.02 * views.std() * views.numel() ** 0.5


def test_positivity_holds_everywhere(rng):
    angles = torch.from_numpy(np.sort(rng.uniform(-1.0, 1.0, 7)))
    problem = PrimalDual(angles, [7], (8, 20, 6), 14, lam=0.1, constants=False, positivity=True)
    views = torch.from_numpy(rng.normal(size=(7, 14, 6)).astype(np.float32))
    problem.set_data(views, torch.ones_like(views))
    problem.start_least_squares(3)
    problem.iterate(10)
    assert problem.u.min() >= 0
    assert problem.u.max() > 0


def test_state_goes_on_exactly(rng):
    problem = small_problem(rng, constants=True)
    problem.iterate(3)
    other = PrimalDual(problem.angles, [9], (8, 20, 6), 14, lam=0.2, constants=True)
    other.set_data(problem.views, problem.weights)
    other.load_state_dict(problem.state_dict())
    problem.iterate(4)
    other.iterate(4)
    assert torch.equal(problem.u, other.u)
    assert torch.equal(problem.q, other.q)


def test_group_order_puts_interleaved_views_together():
    groups = interleaved(10, 4)
    assert [list(group) for group in groups] == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]
    assert sorted(group_order(groups)) == list(range(10))
