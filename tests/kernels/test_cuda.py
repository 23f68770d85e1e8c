"""The Triton kernels against the definition: on a GPU where there is one, else in Triton's interpreter.

The interpreter replaces Triton's language when Triton is first imported, so these tests ask for a process of their own:
test_interpreter.py starts it.
"""

from __future__ import annotations

import importlib
import os

import pytest
import torch

from gigascope.kernels.projector import reference as projector_reference
from gigascope.kernels.tv import reference as tv_reference
from gigascope.kernels.warp import reference as warp_reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles these kernels")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU: test_interpreter.py runs these tests in Triton's interpreter", allow_module_level=True)

# imported only now: without one or the other they cannot be
projector = importlib.import_module("gigascope.kernels.projector.cuda")
tv = importlib.import_module("gigascope.kernels.tv.cuda")
warp = importlib.import_module("gigascope.kernels.warp.cuda")

DEVICE = "cpu" if INTERPRETED else "cuda"
# rounding of float32 sums of a few hundred products
TOLERANCE = 1e-5
SHAPES = [(1, 1, 1), (2, 5, 7), (1, 6, 300)]


@pytest.fixture
def on_device(draw):
    """Normal numbers on the device under test."""
    return lambda *shape, dtype=torch.float32: draw(*shape, dtype=dtype).to(DEVICE)


# Every step of the interpreter takes long: some of the views are enough there.
N_VIEWS = 4 if INTERPRETED else None


@pytest.mark.parametrize(("n_y", "parity"), [(3, 0), (150, 1)])
def test_projector_agrees_with_the_reference(geometries, on_device, distance, n_y, parity):
    for angles, n_s, shape_zx, hz in geometries[parity::2]:
        angles = angles[:N_VIEWS].to(DEVICE)
        volume, sinogram = on_device(*shape_zx, n_y), on_device(len(angles), n_s, n_y)
        expected = projector_reference.project(volume, angles, n_s, hz)
        assert distance(projector.project(volume, angles, n_s, hz), expected) < TOLERANCE
        expected = projector_reference.backproject(sinogram, angles, shape_zx, hz)
        assert distance(projector.backproject(sinogram, angles, shape_zx, hz), expected) < TOLERANCE


def test_backproject_is_adjoint_of_project(geometries, on_device):
    for angles, n_s, shape_zx, hz in geometries[::2]:
        angles = angles[:N_VIEWS].to(DEVICE)
        u, q = on_device(*shape_zx, 9), on_device(len(angles), n_s, 9)
        au, atq = (
            projector.project(u, angles, n_s, hz).double(),
            projector.backproject(q, angles, shape_zx, hz).double(),
        )
        gap = (au * q.double()).sum() - (u.double() * atq).sum()
        assert abs(gap) <= TOLERANCE * au.norm() * q.double().norm()


def test_projector_writes_every_element_of_out(geometries, on_device):
    for angles, n_s, shape_zx, hz in geometries[1:3]:
        angles = angles.to(DEVICE)
        volume, sinogram = on_device(*shape_zx, 9), on_device(len(angles), n_s, 9)
        out = torch.full_like(sinogram, torch.nan)
        assert projector.project(volume, angles, n_s, hz, out).isfinite().all()
        out = torch.full_like(volume, torch.nan)
        assert projector.backproject(sinogram, angles, shape_zx, hz, out).isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("hz", [0.5, 1.0, 4.0])
def test_gradient_and_adjoint_agree_with_the_reference(on_device, distance, shape, hz):
    u, p = on_device(*shape), on_device(3, *shape)
    assert distance(tv.gradient(u, hz), tv_reference.gradient(u, hz)) <= TOLERANCE
    assert distance(tv.gradient_adjoint(p, hz), tv_reference.gradient_adjoint(p, hz)) <= TOLERANCE
    assert distance(tv.tv_norm(u, hz), tv_reference.tv_norm(u, hz)) <= 1e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("hz", "lam"), [(0.5, 0.7), (1.0, 0.0), (4.0, 50.0)])
def test_dual_and_primal_steps_equal_their_definitions_in_place(on_device, distance, shape, hz, lam):
    ubar, p, atq, tau = on_device(*shape), on_device(3, *shape), on_device(*shape), on_device(*shape[:2]).abs()
    expected = p.clone()
    tv_reference.dual_step_(expected, ubar, lam, 0.3, hz)
    tv.dual_step_(p, ubar, lam, 0.3, hz)
    assert distance(p, expected) <= TOLERANCE
    for positivity in (False, True):
        u = on_device(*shape)
        u_expected, ubar_expected = u.clone(), ubar.clone()
        tv_reference.primal_step_(u_expected, ubar_expected, p, atq, tau, hz, positivity)
        tv.primal_step_(u, ubar, p, atq, tau, hz, positivity)
        assert distance(ubar, ubar_expected) <= TOLERANCE
        assert float((u - u_expected).abs().max()) <= TOLERANCE * max(1.0, float(u_expected.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_data_terms_equal_their_definitions(on_device, distance, shape):
    q, projection, views = (on_device(*shape) for _ in range(3))
    weights, sigma_q, offset = on_device(*shape).clamp(min=0), on_device(*shape[:2]).abs() + 0.01, on_device(shape[0])
    views[weights == 0] = torch.nan
    misfit = tv.data_misfit(projection, views, weights, offset)
    assert distance(misfit, tv_reference.data_misfit(projection, views, weights, offset)) <= 1e-12
    expected = q.clone()
    sums_expected = tv_reference.data_step_(expected, projection, views, weights, sigma_q, offset)
    sums = tv.data_step_(q, projection, views, weights, sigma_q, offset)
    assert distance(q, expected) <= TOLERANCE
    limit = TOLERANCE * expected.abs().double().sum((1, 2)) + 1e-30
    assert ((sums - sums_expected).abs() <= limit).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_filters_agree_with_the_reference(on_device, distance, shape):
    views = on_device(*shape)
    assert distance(warp.spline_coefficients(views), warp_reference.spline_coefficients(views)) < TOLERANCE
    for sigma in (0.0, 0.5, 1.7):
        assert distance(warp.gaussian_blur(views, sigma), warp_reference.gaussian_blur(views, sigma)) < TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_translate_and_resample_agree_with_the_reference(on_device, distance, shape, order, masked):
    views = on_device(*shape)
    mask = (on_device(*shape) > -1).to(torch.uint8) if masked else None
    shifts = 3 * on_device(shape[0], 2, dtype=torch.float64)
    shifts[0] = torch.tensor([2.0, 0.0], dtype=torch.float64)
    out, valid = warp.translate(views, shifts, order, mask)
    out_expected, valid_expected = warp_reference.translate(views, shifts, order, mask)
    assert distance(out, out_expected) < TOLERANCE
    assert torch.equal(valid, valid_expected)

    matrices = on_device(shape[0], 2, 3, dtype=torch.float64)
    matrices[0] = torch.eye(2, 3)
    for n_bin in (1, 2):
        out, valid = warp.resample(views, matrices, (3, 9), order, n_bin, mask)
        out_expected, valid_expected = warp_reference.resample(views, matrices, (3, 9), order, n_bin, mask)
        assert distance(out, out_expected) < TOLERANCE
        assert torch.equal(valid, valid_expected)


@pytest.mark.parametrize("order", [1, 3])
def test_translate_adjoint_agrees_with_the_reference(on_device, distance, order):
    cotangent, shifts = on_device(2, 9, 14), 3 * on_device(2, 2, dtype=torch.float64)
    expected = warp_reference.translate_adjoint(cotangent, shifts, order)
    assert distance(warp.translate_adjoint(cotangent, shifts, order), expected) < TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
def test_shift_sums_are_float64_sums_of_their_definition(on_device, shape):
    model, data, weights = on_device(*shape), on_device(*shape), on_device(*shape).clamp(min=0)
    data[weights == 0] = torch.nan
    sums, expected = warp.shift_sums(model, data, weights), warp_reference.shift_sums(model, data, weights)
    assert sums.dtype == torch.float64
    assert (sums - expected).abs().max() <= 1e-12 * max(1.0, float(expected.abs().max()))
