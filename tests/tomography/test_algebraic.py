"""SIRT and CGLS: the least-squares solution of a dense matrix, misfits that fall, an end at the noise, stop and go."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from gigascope.kernels import projector
from gigascope.tomography.algebraic import AlgebraicParameters, AlgebraicSolver, CglsSolver, SirtSolver
from gigascope.tomography.phantom import density_volume, line_integrals, object_phantom

METHODS = {"sirt": SirtSolver, "cgls": CglsSolver}
SHAPE = (5, 6, 2)
TILT = np.deg2rad(np.linspace(-65.0, 60.0, 12))
N_S = 7


def small_system(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of noise and uneven weights, some 0, float64: no volume explains them."""
    weights = torch.from_numpy(rng.uniform(0.3, 3.0, (12, N_S, SHAPE[2])))
    weights[3] = 0
    weights[:, 2, 1] = 0
    return torch.from_numpy(rng.normal(size=(12, N_S, SHAPE[2]))), weights


def dense_misfit(views: torch.Tensor, weights: torch.Tensor, solve: bool) -> tuple[np.ndarray, float]:
    """Least-squares solution (minimum norm) and half its weighted squared misfit, by a dense matrix."""
    n = int(np.prod(SHAPE))
    angles = torch.from_numpy(TILT)
    units = torch.eye(n, dtype=torch.float64).reshape(n, *SHAPE)
    columns = [projector.project(unit, angles, N_S, 1.5).reshape(-1).numpy() for unit in units]
    if solve:
        for i in range(len(TILT)):
            one = np.zeros(views.shape)
            one[i] = 1.0
            columns.append(one.ravel())
    root = np.sqrt(weights.numpy().ravel())
    matrix, data = np.stack(columns, axis=1) * root[:, None], views.numpy().ravel() * root
    found = np.linalg.lstsq(matrix, data, rcond=1e-10)[0]
    return found[:n].reshape(SHAPE), 0.5 * float(((matrix @ found - data) ** 2).sum())


def solver_of(method: str, views: torch.Tensor, weights: torch.Tensor, solve: bool, n: int) -> AlgebraicSolver:
    parameters = AlgebraicParameters(n)
    return METHODS[method](views, weights, TILT, shape=SHAPE, solve=solve, hz=1.5, parameters=parameters)


@pytest.mark.parametrize("solve", [False, True])
def test_cgls_reaches_the_solution_of_a_dense_solve(solve, rng):
    views, weights = small_system(rng)
    truth, misfit = dense_misfit(views, weights, solve)
    solver = solver_of("cgls", views, weights, solve, 200)
    volume = solver.run().numpy()
    assert solver.history[-1].objective == pytest.approx(misfit, rel=1e-8)
    if not solve:  # from zero: the solution of minimum norm
        np.testing.assert_allclose(volume, truth, atol=1e-5 * np.abs(truth).max())


@pytest.mark.parametrize("solve", [False, True])
def test_sirt_falls_to_a_weighted_least_squares_solution(solve, rng):
    """Its metric is w / R instead of w: consistent views have one solution in both, and are explained to the end."""
    _, weights = small_system(rng)
    volume = torch.from_numpy(rng.normal(size=SHAPE))
    views = projector.project(volume, torch.from_numpy(TILT), N_S, 1.5)
    if solve:
        views = views + torch.linspace(-3, 3, 12, dtype=torch.float64)[:, None, None]
    solver = solver_of("sirt", views, weights, solve, 4000)
    solver.run()
    start = 0.5 * float((weights * views**2).sum())
    assert solver.history[-1].objective < 1e-5 * start


@pytest.mark.parametrize("method", ["sirt", "cgls"])
@pytest.mark.parametrize("solve", [False, True])
def test_misfit_falls_in_every_iteration(method, solve, rng):
    volume = torch.from_numpy(rng.normal(size=SHAPE))
    views = projector.project(volume, torch.from_numpy(TILT), N_S, 1.5) + 1.0
    solver = solver_of(method, views, torch.ones_like(views), solve, 25)
    solver.run()
    objective = [row.objective for row in solver.history]
    assert [row.iteration for row in solver.history] == list(range(1, 26))
    assert (np.diff(objective) < 0).all()


@pytest.mark.parametrize("method", ["sirt", "cgls"])
def test_iteration_ends_at_the_noise_and_beats_one_that_does_not(method, rng):
    body, tilt = object_phantom(0), np.deg2rad(np.linspace(-60, 60, 31))
    clean = line_integrals(body, tilt, (96, 64))
    sigma = float(clean.std())
    views = torch.from_numpy(clean + rng.normal(0, sigma, clean.shape).astype(np.float32))
    truth = density_volume(body, (64, 96, 64)).ravel()
    scores = {}
    for noise in (sigma, None):
        parameters = AlgebraicParameters(40, noise)
        solver = METHODS[method](
            views, torch.ones_like(views), tilt, shape=(64, 96, 64), solve=False, parameters=parameters
        )
        scores[noise] = float(np.corrcoef(solver.run().numpy().ravel(), truth)[0, 1]), solver.iteration
    print(f"{method}: correlation and iterations {scores}")
    assert scores[sigma][1] < 40
    assert scores[None][1] == 40
    assert scores[sigma][0] > scores[None][0]


@pytest.mark.parametrize("method", ["sirt", "cgls"])
def test_solver_can_stop_and_go_on_elsewhere(method, rng):
    views, weights = small_system(rng)
    whole, first, second = (solver_of(method, views, weights, True, 9) for _ in range(3))
    whole.run()
    for _, _row in zip(range(int(rng.integers(1, 9))), first.updates()):
        pass
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert torch.equal(second.run(), whole.volume)
    assert second.history == whole.history


@pytest.mark.parametrize("method", ["sirt", "cgls"])
def test_known_constants_are_taken_from_the_views(method, rng):
    views, weights = small_system(rng)
    constants = np.linspace(-2, 3, 12)
    place = {"shape": SHAPE, "solve": True, "parameters": AlgebraicParameters(5)}
    shifted = views + torch.from_numpy(constants)[:, None, None]
    known = METHODS[method](shifted, weights, TILT, constants=constants, **place).run()
    plain = METHODS[method](views, weights, TILT, constants=np.zeros(12), **place).run()
    np.testing.assert_allclose(known.numpy(), plain.numpy(), atol=1e-9)


def test_sirt_keeps_the_tomogram_positive_when_asked(rng):
    views, weights = small_system(rng)
    parameters = AlgebraicParameters(5, positivity=True)
    volume = SirtSolver(views, weights, TILT, shape=SHAPE, solve=False, parameters=parameters).run()
    assert float(volume.min()) == 0.0
