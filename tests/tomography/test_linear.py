"""Rotation and magnification of single views: planted ones are found, written and undone."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gigascope.config.tomography import Align
from gigascope.kernels import warp
from gigascope.tomography.alignment import Alignment, AlignParameters
from gigascope.tomography.geometry import linear_maps, raw_from_aligned, rms_error
from gigascope.tomography.joint import JointSolver
from gigascope.tomography.linear_update import linear_equations
from gigascope.tomography.phantom import line_integrals, object_phantom
from gigascope.tomography.products import write_xf_file

TILT = np.deg2rad(np.linspace(-60, 60, 41))
DOF = ("shift", "rotation", "magnification")


@functools.cache
def planted() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Views of an object, each turned, magnified and shifted; masks; the shifts, and rotation and magnification."""
    rng = np.random.default_rng(17)
    clean = torch.from_numpy(line_integrals(object_phantom(1), TILT, (144, 144)))
    shifts = rng.normal(0.0, 1.0, (41, 2))
    linear = np.stack([np.deg2rad(rng.normal(0.0, 1.0, 41)), rng.normal(0.0, 0.01, 41)], axis=1)
    linear[:, 0] -= linear[:, 0].mean()
    # slow changes of the magnification are not solved for
    linear[:, 1] -= np.polynomial.Polynomial.fit(TILT, linear[:, 1], 4)(TILT)
    # content of an aligned view at x lies at M x + f: what is seen at r comes from M^-1 (r - f)
    back = np.linalg.inv(linear_maps(linear))
    centre = np.full(2, 71.5)
    moved = centre - np.einsum("nij,nj->ni", back, centre + shifts)
    matrices = torch.from_numpy(np.concatenate([back, moved[:, :, None]], axis=2))
    views = warp.resample(warp.spline_coefficients(clean), matrices, (144, 144))[0]
    views = views / views[20].std()
    noise = torch.from_numpy(rng.normal(0.0, 0.5, views.shape).astype(np.float32))
    return views + noise, torch.ones_like(views, dtype=torch.uint8), shifts, linear


@functools.cache
def solved(dof: tuple[str, ...]) -> Alignment:
    views, valid, _, _ = planted()
    parameters = AlignParameters(dof=dof)
    return JointSolver(views, valid, TILT, np.zeros((41, 2)), n_z=64, extent="object", parameters=parameters).run()


def test_planted_rotation_and_magnification_are_found():
    _, _, shifts, linear = planted()
    found = solved(DOF)
    error = found.linear - linear
    degrees, part = np.rad2deg(np.std(error[:, 0])), np.std(error[:, 1])
    print(f"rotation 1 degree planted, {degrees:.3f} left; magnification 1 %, {100 * part:.3f} left")
    assert degrees < 0.25
    assert part < 0.25 * 0.01
    assert rms_error(found.shifts, shifts, TILT) < rms_error(solved(("shift",)).shifts, shifts, TILT)
    assert np.allclose(found.linear.mean(axis=0), 0.0, atol=1e-12)


def test_only_what_is_asked_for_is_solved():
    assert not solved(("shift",)).linear.any()
    views, valid, _, _ = planted()
    parameters = AlignParameters(dof=("shift", "rotation"), bins=(4,), outer=2)
    found = JointSolver(views, valid, TILT, np.zeros((41, 2)), n_z=64, extent="object", parameters=parameters).run()
    assert found.linear[:, 0].any()
    assert not found.linear[:, 1].any()


def test_columns_are_the_derivatives_of_a_turned_and_magnified_image(rng):
    image = warp.gaussian_blur(torch.from_numpy(rng.normal(size=(1, 64, 48))), 3.0)
    step = 1e-3
    changed = []
    for linear in ((step, 0.0), (0.0, step)):
        centre = np.array([31.5, 23.5])
        maps = linear_maps(linear)
        matrix = np.concatenate([maps, (centre - maps @ centre)[:, :, None]], axis=2)
        changed.append(warp.resample(warp.spline_coefficients(image), torch.from_numpy(matrix), (64, 48))[0])
    weights = torch.zeros_like(image)
    weights[:, 8:-8, 8:-8] = 1
    for k, moved in enumerate(changed):
        # r = model - data, and the data change by column times step
        found = linear_equations(image, 2 * image - moved, weights, centre=False, smooth=0.0)
        assert found.gradient[0, k] == pytest.approx(step * found.hessian[0, k, k], rel=0.05)


def test_xf_undoes_rotation_magnification_and_shift(tmp_path: Path, rng):
    axis = np.deg2rad(12.5)
    linear = np.stack([np.deg2rad(rng.normal(0, 1, 5)), rng.normal(0, 0.01, 5)], axis=1)
    shifts = rng.normal(0, 3, (5, 2))
    alignment = Alignment(shifts, np.ones((5, 2)), np.ones(5), np.ones(5), [""] * 5, np.zeros(5), linear)
    series = SimpleNamespace(tilt_axis=axis, tilt=np.linspace(-1, 1, 5), shape=(5, 90, 100), in_file_order=np.asarray)
    write_xf_file(series, alignment, tmp_path / "a.xf")
    rows = np.loadtxt(tmp_path / "a.xf")
    raw_from = raw_from_aligned(shifts, axis, (90, 100), (100, 90), linear)
    for row, matrix in zip(rows, raw_from, strict=True):
        place = rng.uniform(0, 80, 2)  # (s, y) index of the aligned frame
        raw = matrix[:, :2] @ place + matrix[:, 2]
        x = np.array([raw[1] - 49.5, raw[0] - 44.5])  # (x, y) about the centre
        back = row[:4].reshape(2, 2) @ x + row[4:]
        np.testing.assert_allclose(back, place - (49.5, 44.5), atol=1e-4)


def test_shifts_cannot_be_left_out_of_the_degrees_of_freedom():
    with pytest.raises(ValueError, match="must hold shift"):
        Align(dof=("rotation",))
    with pytest.raises(ValueError, match="published"):
        Align(mode="published", dof=("shift", "rotation"))
