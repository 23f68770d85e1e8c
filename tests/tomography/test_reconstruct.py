"""Tomograms with fixed shifts: sign and centre, quality from found shifts, methods, stop and go."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.metrics.resolution import crossing, fsc
from gigascope.tomography import masks
from gigascope.tomography.algebraic import AlgebraicParameters, CglsSolver, SirtSolver
from gigascope.tomography.geometry import gauge_of, gauge_shifts, volume_width
from gigascope.tomography.levels import bin_volume
from gigascope.tomography.phantom import Phantom, density_volume, line_integrals
from gigascope.tomography.reconstruct import (
    ReconstructParameters,
    TvSolver,
    group_residual,
    tomogram_lambda,
    weighted_backprojection,
)

TILT = np.deg2rad(np.linspace(-60.0, 60.0, 61))


def particle(rng: np.random.Generator) -> Phantom:
    """Blobs without symmetry in a ball of 24 voxels."""
    centres = rng.normal(size=(9, 3))
    centres *= rng.uniform(4, 16, (9, 1)) / np.linalg.norm(centres, axis=1, keepdims=True)
    centres[0], centres[1] = (9.0, -5.0, 12.0), (-4.0, 8.0, 10.0)  # top-heavy, so that mirroring in z shows
    whitening = np.stack([np.diag(1 / rng.uniform(4, 8, 3)) for _ in centres])
    return Phantom(centres, whitening, rng.uniform(0.5, 1.5, 9))


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(np.corrcoef(a.double().numpy().ravel(), b.double().numpy().ravel())[0, 1])


# --- acceptance ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tv", "cgls", "sirt"])
def test_sign_and_centre_of_the_tomogram_are_those_of_the_specimen(method, rng):
    """Acceptance test 20: projections computed without the kernels, volume known voxel by voxel."""
    specimen = particle(rng)
    tilt = np.deg2rad(np.arange(-74.0, 75.0, 2.0))
    truth = torch.from_numpy(density_volume(specimen, (64, 64, 64)))
    views = torch.from_numpy(line_integrals(specimen, tilt, (64, 64)))
    found = {}
    for sign in (1, -1):
        order = np.argsort(sign * tilt)
        place = {"shape": (64, 64, 64)}
        data, weights, angles = views[order], torch.ones_like(views), (sign * tilt)[order]
        if method == "tv":
            solver = TvSolver(data, weights, angles, solve=False, parameters=ReconstructParameters(lam=0.05), **place)
            volume = solver.run()
        elif method == "cgls":
            volume = CglsSolver(data, weights, angles, solve=False, parameters=AlgebraicParameters(25), **place).run()
        else:
            parameters = AlgebraicParameters(80, positivity=True)
            volume = SirtSolver(data, weights, angles, solve=False, parameters=parameters, **place).run()
        found[sign] = correlation(volume, truth)
    print(f"{method}: right sign {found[1]:.3f}, wrong sign {found[-1]:.3f}")
    assert found[-1] <= 0.9
    assert found[1] >= (0.97 if method == "tv" else 0.94)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["object", "section"])
def test_tomogram_from_found_shifts_is_as_good_as_from_true_ones(kind, prepared, aligned):
    """Acceptance test 12, at bin 2 and SNR 1."""
    factor = 2
    series = prepared(kind, 0)
    sim, tilt = series.sim, torch.from_numpy(series.sim.tilt)
    offset = gauge_of(aligned(kind, 0).shifts - sim.shifts_true, sim.tilt)
    found = aligned(kind, 0).shifts - gauge_shifts(offset, sim.tilt)
    width = volume_width(128, 64, sim.tilt, kind, largest_bin=4) // factor
    shape = (64 // factor, width, 128 // factor)
    truth = bin_volume(torch.from_numpy(sim.volume), factor)
    precision = torch.from_numpy(1 / series.model.relative_noise).float()
    full = masks.full_rays(tilt, 128 // factor, shape[:2], 1.0, kind)
    lam = tomogram_lambda(np.sqrt(series.model.noise.mean()) / factor, len(tilt))
    scores, shells = [], []
    for shifts in (sim.shifts_true, found):
        views, valid = series.at(shifts, factor)
        weights = masks.weights(valid.float(), full, precision)
        parameters = ReconstructParameters(lam=lam)
        volume = TvSolver(views, weights, sim.tilt, shape=shape, solve=kind == "section", parameters=parameters).run()
        margin = (width - 128 // factor) // 2
        volume = volume[:, margin : margin + 128 // factor]
        scores.append(correlation(volume, truth))
        curve = fsc(volume, truth, wedge=(-np.pi / 3, np.pi / 3), wedge_axis=1)
        shells.append(crossing(curve, 0.5) * 128 / factor)
    print(
        f"{kind}: correlation {scores[0]:.4f} and {scores[1]:.4f}, FSC 0.5 at shell {shells[0]:.1f} and {shells[1]:.1f}"
    )
    assert scores[1] >= 0.97 * scores[0]
    assert abs(shells[1] - shells[0]) <= 1


# --- behaviour ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    specimen = particle(np.random.default_rng(0))
    return torch.from_numpy(line_integrals(specimen, TILT, (64, 48))), torch.from_numpy(
        density_volume(specimen, (64, 64, 48))
    )


def test_weighted_backprojection_keeps_densities(blobs):
    specimen = Phantom(np.zeros((1, 3)), np.eye(3)[None] / 14.0, np.ones(1))
    tilt = np.deg2rad(np.arange(-90.0, 90.0, 1.5))
    views = torch.from_numpy(line_integrals(specimen, tilt, (64, 48)))
    volume = weighted_backprojection(views, torch.ones_like(views), tilt, shape=(64, 64, 48))
    inside = volume[26:38, 26:38, 20:28].mean()
    outside = volume[:6].mean()
    assert abs(float(inside - outside) - 1) < 0.05


def test_weighted_backprojection_shows_the_specimen(blobs):
    views, truth = blobs
    volume = weighted_backprojection(views, torch.ones_like(views), TILT, shape=(64, 64, 48))
    assert correlation(volume, truth) > 0.7


def test_samples_without_weight_change_no_tomogram(blobs):
    views, _ = blobs
    weights = torch.ones_like(views)
    weights[20:24] = 0
    weights[:, :, 10] = 0
    spoiled = torch.where(weights > 0, views, views + 1000)
    place = {"shape": (64, 64, 48)}
    few, two = ReconstructParameters(iterations=5), AlgebraicParameters(2)
    for method in (
        lambda data: TvSolver(data, weights, TILT, solve=True, parameters=few, **place).run(),
        lambda data: weighted_backprojection(data, weights, TILT, **place),
        lambda data: SirtSolver(data, weights, TILT, solve=True, parameters=two, **place).run(),
        lambda data: CglsSolver(data, weights, TILT, solve=True, parameters=two, **place).run(),
    ):
        assert torch.equal(method(views), method(spoiled))


def test_known_constants_give_the_tomogram_of_views_without_them(blobs):
    views, _ = blobs
    weights = torch.ones_like(views)
    constants = np.linspace(-2, 3, 61).astype(np.float32)
    place = {"shape": (64, 64, 48), "solve": True, "parameters": ReconstructParameters(iterations=10)}
    shifted = views + torch.from_numpy(constants)[:, None, None]
    known = TvSolver(shifted, weights, TILT, constants=constants, **place).run()
    plain = TvSolver(views, weights, TILT, constants=np.zeros(61), **place).run()
    assert (known - plain).abs().max() < 1e-4 * plain.abs().max()


def test_solver_can_stop_and_go_on_elsewhere(blobs, rng):
    views, _ = blobs
    weights = torch.ones_like(views)

    def solver() -> TvSolver:
        parameters = ReconstructParameters(iterations=34, tol=0.0)
        return TvSolver(views, weights, TILT, shape=(64, 64, 48), solve=True, parameters=parameters)

    whole, first, second = solver(), solver(), solver()
    whole.run()
    for _, _row in zip(range(int(rng.integers(1, 4))), first.updates()):
        pass
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert torch.equal(second.run(), whole.volume)
    assert second.history == whole.history
    assert [row.iteration for row in whole.history] == [10, 20, 30, 34]


def test_solver_ends_when_the_objective_stands_still(blobs):
    views, _ = blobs
    parameters = ReconstructParameters(iterations=400, tol=3e-3)
    solver = TvSolver(views, torch.ones_like(views), TILT, shape=(64, 64, 48), solve=False, parameters=parameters)
    solver.run()
    assert solver.iteration < 400
    assert solver.history[-1].change < 3e-3


def test_half_set_residual_sees_misalignment_and_not_noise_fitting(blobs, rng):
    views, _ = blobs
    noisy = views + torch.from_numpy(rng.normal(size=views.shape).astype(np.float32)) * views.std()
    place = {"tilt": TILT, "shape": (64, 64, 48), "solve": False}
    weights = torch.ones_like(views)

    def rho(data: torch.Tensor, iterations: int) -> float:
        parameters = ReconstructParameters(lam=0.5, iterations=iterations)
        return group_residual(data, weights, parameters=parameters, **place).total

    moved = torch.stack([view.roll(int(k), dims=0) for view, k in zip(noisy, rng.integers(-3, 4, 61), strict=True)])
    aligned = rho(noisy, 30)
    assert rho(moved, 30) > 1.01 * aligned
    # half of the power is noise that nothing can predict
    assert 0.65 < aligned < 1.1


def test_suggested_lambda_follows_noise_and_number_of_views():
    assert tomogram_lambda(1.0, 61) == pytest.approx(2 * tomogram_lambda(0.5, 61))
    assert tomogram_lambda(1.0, 120) > tomogram_lambda(1.0, 60)


def test_shapes_that_do_not_go_together_are_refused(blobs):
    views, _ = blobs
    with pytest.raises(ShapeError, match="one angle per view"):
        weighted_backprojection(views, torch.ones_like(views), TILT[1:], shape=(64, 64, 48))
    with pytest.raises(ShapeError, match="as many slices"):
        TvSolver(views, torch.ones_like(views), TILT, shape=(64, 64, 40), solve=False)
