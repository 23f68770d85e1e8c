"""Properties of the total-variation steps on a CPU."""

from __future__ import annotations

import numba
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.kernels import tv
from gigascope.kernels.tv import reference

# a few roundings per voxel, in sums of up to seven terms
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
DTYPES = list(TOLERANCE)
SHAPES = [(1, 1, 1), (2, 3, 1), (3, 1, 17), (1, 5, 16), (5, 4, 33), (4, 7, 150)]


def data_arrays(draw, dtype, shape):
    """q, projection, views, weights with zeros, sigma_q, offset."""
    n_t, n_s, _n_y = shape
    weights = draw(*shape, dtype=dtype).clamp(min=0)
    sigma_q = draw(n_t, n_s, dtype=dtype).abs() + 0.01
    return *(draw(*shape, dtype=dtype) for _ in range(3)), weights, sigma_q, draw(n_t, dtype=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_and_adjoint_agree_with_the_reference(draw, distance, dtype, shape):
    for hz in (0.5, 1.0, 4.0):
        u, p = draw(*shape, dtype=dtype), draw(3, *shape, dtype=dtype)
        assert distance(tv.gradient(u, hz), reference.gradient(u, hz)) <= TOLERANCE[dtype]
        assert distance(tv.gradient_adjoint(p, hz), reference.gradient_adjoint(p, hz)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hz", [0.5, 1.0, 2.0, 4.0])
def test_gradient_adjoint_is_adjoint_of_gradient(draw, dtype, hz):
    u, p = draw(6, 7, 20, dtype=dtype), draw(3, 6, 7, 20, dtype=dtype)
    one = (tv.gradient(u, hz).double() * p.double()).sum()
    two = (u.double() * tv.gradient_adjoint(p, hz).double()).sum()
    limit = 1e-6 if dtype == torch.float32 else 1e-12
    assert abs(one - two) <= limit * u.double().norm() * p.double().norm()


def test_gradients_are_those_of_finite_differences(draw):
    u, p = draw(2, 3, 4, dtype=torch.float64), draw(3, 2, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: tv.gradient(v, 2.0), u.requires_grad_())
    assert torch.autograd.gradcheck(lambda v: tv.gradient_adjoint(v, 2.0), p.requires_grad_())


def test_ops_keep_the_rules_of_torch_library(draw):
    u, p, atq = draw(3, 4, 5), draw(3, 3, 4, 5), draw(3, 4, 5)
    q, projection, views, weights, sigma_q, offset = data_arrays(draw, torch.float32, (3, 4, 5))
    ops = torch.ops.gigascope
    torch.library.opcheck(ops.tv_gradient, (u.clone().requires_grad_(), 2.0))
    torch.library.opcheck(ops.tv_gradient_adjoint, (p.clone().requires_grad_(), 2.0))
    torch.library.opcheck(ops.tv_dual_step_, (p, u, 0.1, 0.5, 1.0))
    torch.library.opcheck(ops.tv_primal_step_, (u, u.clone(), p, atq, draw(3, 4).abs(), 1.0, True))
    torch.library.opcheck(ops.tv_data_step_, (q, projection, views, weights, sigma_q, offset))
    torch.library.opcheck(ops.tv_norm, (u, 1.0))
    torch.library.opcheck(ops.tv_data_misfit, (projection, views, weights, offset))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dual_step_equals_its_definition_in_place(draw, distance, dtype, shape):
    for hz, lam in ((0.5, 0.7), (1.0, 0.0), (4.0, 50.0)):
        ubar, p = draw(*shape, dtype=dtype), draw(3, *shape, dtype=dtype)
        expected, address = p.clone(), p.data_ptr()
        reference.dual_step_(expected, ubar, lam, 0.3, hz)
        assert tv.dual_step_(p, ubar, lam, 0.3, hz) is None
        assert p.data_ptr() == address
        assert distance(p, expected) <= TOLERANCE[dtype]


def test_dual_step_of_zeros_is_zero_and_keeps_nan_visible():
    p, ubar = torch.zeros(3, 2, 3, 20), torch.zeros(2, 3, 20)
    tv.dual_step_(p, ubar, 0.0, 0.5)
    assert p.abs().max() == 0
    ubar[1, 1, 17] = torch.nan
    tv.dual_step_(p, ubar, 0.1, 0.5)
    assert p[:, 1, 1, 17].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("positivity", [False, True])
def test_primal_step_equals_its_definition_in_place(draw, distance, dtype, shape, positivity):
    for hz in (0.5, 1.0, 4.0):
        u, p, atq = draw(*shape, dtype=dtype), draw(3, *shape, dtype=dtype), draw(*shape, dtype=dtype)
        tau, ubar = draw(*shape[:2], dtype=dtype).abs(), torch.full_like(u, torch.nan)
        u_expected, ubar_expected, address = u.clone(), ubar.clone(), (u.data_ptr(), ubar.data_ptr())
        reference.primal_step_(u_expected, ubar_expected, p, atq, tau, hz, positivity)
        tv.primal_step_(u, ubar, p, atq, tau, hz, positivity)
        assert (u.data_ptr(), ubar.data_ptr()) == address
        assert distance(ubar, ubar_expected) <= TOLERANCE[dtype]
        # a single voxel may end at exactly 0 on the floor
        assert distance(u, u_expected) <= TOLERANCE[dtype] or float((u - u_expected).abs().max()) < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (2, 3, 150)])
def test_data_step_equals_its_definition_in_place(draw, distance, dtype, shape):
    q, *others = data_arrays(draw, dtype, shape)
    expected, address = q.clone(), q.data_ptr()
    sums_expected = reference.data_step_(expected, *others)
    sums = tv.data_step_(q, *others)
    assert q.data_ptr() == address
    assert distance(q, expected) <= TOLERANCE[dtype]
    assert (q[others[2] == 0] == 0).all()
    assert sums.dtype == torch.float64
    # a sum of terms of both signs: measured against the sum of their sizes
    assert ((sums - sums_expected).abs() <= TOLERANCE[dtype] * expected.abs().double().sum((1, 2)) + 1e-30).all()


def test_masked_pixels_may_hold_anything(draw):
    q, projection, views, weights, sigma_q, offset = data_arrays(draw, torch.float32, (2, 3, 40))
    views[weights == 0] = torch.nan
    assert tv.data_misfit(projection, views, weights, offset).isfinite().all()
    assert tv.data_step_(q, projection, views, weights, sigma_q, offset).isfinite().all()
    assert q.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 4, 5), (2, 3, 150)])
def test_objective_terms_are_float64_sums_of_their_definition(draw, distance, dtype, shape):
    _, projection, views, weights, _, offset = data_arrays(draw, dtype, shape)
    norm, misfit = tv.tv_norm(views, 2.0), tv.data_misfit(projection, views, weights, offset)
    assert norm.dtype == misfit.dtype == torch.float64
    # float64 sums of float32 numbers agree to float64 rounding, whatever the precision of the data; differences of the
    # data may round in its own precision
    assert distance(norm, reference.tv_norm(views, 2.0)) <= (1e-6 if dtype == torch.float32 else 1e-12)
    assert distance(misfit, reference.data_misfit(projection, views, weights, offset)) <= 1e-12


def test_results_do_not_depend_on_the_number_of_threads(draw, thread_counts):
    u, p, atq, tau = draw(5, 6, 90), draw(3, 5, 6, 90), draw(5, 6, 90), draw(5, 6).abs()
    q, *others = data_arrays(draw, torch.float32, (5, 6, 90))
    results = []
    for n_threads in thread_counts:
        numba.set_num_threads(n_threads)
        u_new, ubar, p_new, q_new = u.clone(), u.clone(), p.clone(), q.clone()
        tv.dual_step_(p_new, ubar, 0.1, 0.5)
        tv.primal_step_(u_new, ubar, p_new, atq, tau)
        sums = tv.data_step_(q_new, *others)
        misfit = tv.data_misfit(others[0], others[1], others[2], others[4])
        results.append((u_new, ubar, p_new, q_new, sums, misfit, tv.tv_norm(u), tv.gradient(u)))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_wrong_arguments_name_what_was_expected_and_found():
    u, p = torch.ones(2, 3, 4), torch.ones(3, 2, 3, 4)
    with pytest.raises(ShapeError, match=r"dual_step_: ubar: expected \(2, 3, 4\), got \(2, 3, 5\)"):
        tv.dual_step_(p, torch.ones(2, 3, 5), 0.1, 0.5)
    with pytest.raises(ShapeError, match=r"primal_step_: tau: expected \(2, 3\), got \(2, 4\)"):
        tv.primal_step_(u, u.clone(), p, u, torch.ones(2, 4))
    with pytest.raises(ShapeError, match=r"ubar: expected torch.float32 .* got torch.float64"):
        tv.dual_step_(p, u.double(), 0.1, 0.5)
    with pytest.raises(ShapeError, match="p: expected a contiguous array to write into"):
        tv.dual_step_(torch.ones(3, 2, 4, 3).transpose(2, 3), u, 0.1, 0.5)
    with pytest.raises(ShapeError, match=r"offset: expected \(2,\) floating, got \(3,\)"):
        tv.data_misfit(u, u, u, torch.zeros(3))
    with pytest.raises(ShapeError, match=r"gradient_adjoint: p: expected \(3, z, x, y\), got \(2, 3, 4\)"):
        tv.gradient_adjoint(u)
