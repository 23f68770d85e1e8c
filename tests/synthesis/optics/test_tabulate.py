"""PSFs by depth on voxels."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from pydantic import ValidationError

from gigascope.config.section import dump
from gigascope.config.synthesis_optics import Optics
from gigascope.synthesis.optics.settings import Settings
from gigascope.synthesis.optics.tabulate import depth_psf

from .keys import EFFECTS, MEASURED

VOXEL = (0.75, 0.25, 0.25)
# Microscopes of the specification, and K for 5, 2 and 1 % of its prototype, which moved PSFs by whole planes. PSFs that
# are computed at the plane that is brightest need fewer.
MATCHED = {"na": 0.5, "n_immersion": 1.0, "n_sample": 1.0}
DRY = {"na": 0.5, "n_immersion": 1.0, "n_sample": 1.45}
WATER = {"na": 1.0, "n_immersion": 1.33, "n_sample": 1.37}
ILL_CHOSEN = {"na": 0.8, "n_immersion": 1.0, "n_sample": 1.33}
NUMBERS = [(MATCHED, (1, 1, 1)), (DRY, (3, 6, 7)), (WATER, (6, 8, 10))]


def moments(psf: np.ndarray, voxel: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Centre and standard deviations, micrometres from the middle."""
    centre, spread = [], []
    for axis, v in enumerate(voxel):
        along = psf.sum(tuple(a for a in range(3) if a != axis))
        x = v * (np.arange(len(along)) - len(along) // 2)
        centre.append((along * x).sum())
        spread.append(math.sqrt((along * (x - centre[-1]) ** 2).sum()))
    return np.array(centre), np.array(spread)


@pytest.mark.parametrize(("microscope", "most"), NUMBERS, ids=["matched", "dry", "water"])
def test_number_of_eigen_psfs(optics, microscope, most):
    counts = []
    for tolerance in (0.05, 0.02, 0.01):
        psf = depth_psf(optics(**microscope, eig_tol=tolerance, depth_step_um=10), VOXEL, 200.0)
        counts.append(len(psf.kernels))
        assert psf.method == "eigen"
        assert psf.error <= tolerance
        assert psf.warnings == ()
    assert all(found <= limit for found, limit in zip(counts, most))
    assert counts == sorted(counts)


def test_ill_chosen_objective_is_told(optics):
    psf = depth_psf(optics(**ILL_CHOSEN, depth_step_um=10), VOXEL, 200.0)
    assert (
        "an objective of NA 0.8 in an immersion of index 1 is ill-chosen for a sample of index 1.33" in psf.warnings[0]
    )
    psf = depth_psf(optics(**ILL_CHOSEN, depth_step_um=20, eig_max=3), VOXEL, 200.0)
    assert psf.method == "blended"
    assert "more than 3 eigen-PSFs" in psf.warnings[0]
    assert len(psf.kernels) == len(psf.depths_um) == 11


@pytest.mark.parametrize("keys", [{}, {"modality": "widefield"}, {"modality": "lightsheet"}, {"model": "gaussian"}])
def test_every_psf_has_sum_one_and_its_brightest_plane_in_the_middle(optics, keys):
    psf = depth_psf(optics(**keys), VOXEL, 42.0)
    np.testing.assert_array_equal(psf.depths_um, np.arange(0, 46, 5))
    assert psf.kernels.dtype == np.float32
    assert all(n % 2 == 1 and n // 2 == h for n, h in zip(psf.kernels.shape[1:], psf.half))
    for depth in (0.0, 7.5, 42.0):
        h = psf.at(depth)
        assert h.sum(dtype=float) == pytest.approx(1, abs=1e-5)
        assert np.unravel_index(h.argmax(), h.shape) == psf.half
    # sizes stay below the caps
    assert all(h * v <= c for h, v, c in zip(psf.half, VOXEL, (6.0, 3.0, 3.0)))


def test_light_is_lost_with_depth_in_a_confocal_only(optics):
    lost = depth_psf(optics(**DRY), VOXEL, 200.0).efficiency
    assert lost[0] == 1
    assert (np.diff(lost) < 0.005).all()
    assert 0.4 < lost[-1] < 0.9
    for modality in ("widefield", "lightsheet"):
        assert (depth_psf(optics(modality=modality), VOXEL, 20.0).efficiency == 1).all()


def test_without_recentring_depth_is_compressed(optics):
    psf = depth_psf(optics(**DRY, recentre=False), VOXEL, 100.0)
    # between the foci of marginal and of paraxial rays
    assert math.sqrt(1 - 0.25) / math.sqrt(1.45**2 - 0.25) < psf.axial_stretch < 1 / 1.45
    np.testing.assert_allclose(psf.focus_um, psf.axial_stretch * psf.depths_um, atol=0.2)
    np.testing.assert_allclose(psf.depth_of(np.array([66.0])), 66 / psf.axial_stretch)
    assert depth_psf(optics(**DRY), VOXEL, 100.0).axial_stretch == 1
    assert depth_psf(optics(**MATCHED, recentre=False), VOXEL, 100.0).axial_stretch == pytest.approx(1, abs=1e-4)


def test_weights_of_planes_follow_the_apparent_depth(optics):
    psf = depth_psf(optics(**DRY, recentre=False, eig_max=1, eig_tol=1e-6), VOXEL, 50.0)
    assert psf.method == "blended"
    position = psf.axial_stretch * np.array([10.0, 12.0, 49.0])
    used, weights = psf.weights(position)
    np.testing.assert_array_equal(used, [2, 3, 9, 10])
    light = np.interp([10, 12, 49], psf.depths_um, psf.efficiency)
    expected = np.array([[1, 0.6, 0], [0, 0.4, 0], [0, 0, 0.2], [0, 0, 0.8]]) * light
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_gaussian_has_the_widths_that_were_asked_for(optics):
    settings = optics(model="gaussian", sigma_um=(1.0, 0.4, 0.3), sigma_depth_um=50.0, psf_energy=0.999999)
    psf = depth_psf(replace(settings, eig_tol=1e-4, cap_um=(20, 15, 15)), (0.25, 0.125, 0.125), 50.0)
    for depth, growth in ((0.0, 1.0), (50.0, math.sqrt(2))):
        centre, spread = moments(psf.at(depth).astype(float), (0.25, 0.125, 0.125))
        np.testing.assert_allclose(centre, 0, atol=1e-5)
        # a voxel adds the variance of its own width
        expected = [math.sqrt((growth * s) ** 2 + v * v / 12) for s, v in zip((1.0, 0.4, 0.3), (0.25, 0.125, 0.125))]
        np.testing.assert_allclose(spread, expected, rtol=2e-3)


@pytest.mark.parametrize("model", ["gaussian", "gibson_lanni"])
def test_widening_stretches_all_lengths(optics, model):
    narrow = depth_psf(optics(model=model, cap_um=(6, 3, 3)), VOXEL, 0.0)
    wide = depth_psf(optics(model=model, cap_um=(12, 6, 6), widen=2.0), tuple(2 * v for v in VOXEL), 0.0)
    np.testing.assert_allclose(wide.at(0), narrow.at(0), rtol=1e-5, atol=1e-9)


def test_psf_of_finer_voxels_adds_up_to_that_of_coarser_ones(optics):
    settings = optics(psf_energy=0.9999)
    fine, coarse = (depth_psf(settings, v, 0.0).at(0) for v in ((0.25, 0.25, 0.25), VOXEL))
    n = coarse.shape[0] // 2 - 1
    m = fine.shape[0] // 2
    sums = fine.sum((1, 2))[m - 3 * n - 1 : m + 3 * n + 2].reshape(-1, 3).sum(1)
    expected = coarse.sum((1, 2))[1:-1]
    np.testing.assert_allclose(sums, expected, atol=0.01 * expected.max())


@pytest.mark.parametrize("key", EFFECTS)
def test_every_key_has_an_effect(optics, key):
    value, beside = EFFECTS[key]
    one, two = (depth_psf(optics(**{**beside, **k}), VOXEL, 30.0).arrays() for k in ({}, {key: value}))
    assert any(one[name].shape != two[name].shape or (one[name] != two[name]).any() for name in one)


def test_settings_are_the_keys_of_the_section():
    assert [f.name for f in fields(Settings)] == list(Optics.model_fields)
    assert set(EFFECTS) | MEASURED == set(Optics.model_fields)
    assert Settings.of(dump(Optics())).cap_um == (20.0, 15.0, 15.0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"na": 1.2}, "na 1.2 must be below n_immersion 1"),
        ({"model": "measured"}, "model measured needs paths"),
        ({"paths": ("a.tif",)}, "paths are of model measured, not of gibson_lanni"),
        ({"model": "measured", "paths": ("a", "b")}, "several paths need path_depths_um"),
        ({"model": "measured", "paths": ("a", "b"), "path_depths_um": (1,)}, "1 depths for 2 paths"),
        ({"model": "measured", "paths": ("a", "b"), "path_depths_um": (5, 5)}, "must grow"),
        ({"lambda_em_nm": 0.5}, "at least 200"),
    ],
)
def test_optics_that_cannot_be_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Optics(**keys)
