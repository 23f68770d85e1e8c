"""Properties of the warp of stacks, the blur and the alignment sums on a CPU."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
import scipy.ndimage
import torch

from gigascope.errors import ShapeError
from gigascope.kernels import warp
from gigascope.kernels.warp import reference

# taps and weights of a few dozen terms in float32 and float64
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
DTYPES = list(TOLERANCE)
SHAPES = [(2, 1, 7), (1, 2, 3), (3, 17, 26), (2, 30, 101)]


@pytest.fixture
def shifts(rng):
    """Shifts of zero, of whole pixels, beyond the frame, and random ones."""

    def random(n_tilts, size=3.0):
        result = torch.from_numpy(rng.normal(0, size, (n_tilts, 2)))
        for i, fixed in enumerate(((0.0, 0.0), (2.0, -1.0), (500.0, 0.3))[: n_tilts - 1]):
            result[i] = torch.tensor(fixed, dtype=torch.float64)
        return result

    return random


@pytest.fixture
def matrices(rng):
    """Random maps, the first one the identity."""

    def random(n_tilts):
        result = torch.from_numpy(rng.normal(0, 0.5, (n_tilts, 2, 3)))
        result[:, :, 2] *= 20
        result[0] = torch.eye(2, 3)
        return result

    return random


@pytest.fixture
def mask(rng):
    return lambda *shape: torch.from_numpy((rng.random(shape) > 0.1).astype(np.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_filters_agree_with_the_reference(draw, distance, dtype, shape):
    views = draw(*shape, dtype=dtype)
    assert distance(warp.spline_coefficients(views), reference.spline_coefficients(views)) < TOLERANCE[dtype]
    for sigma in (0.0, 0.1, 0.5, 2.3):
        assert distance(warp.gaussian_blur(views, sigma), reference.gaussian_blur(views, sigma)) < TOLERANCE[dtype]


def test_filters_agree_with_scipy(draw):
    view = draw(20, 33, dtype=torch.float64)
    spline = scipy.ndimage.spline_filter(view.numpy(), order=3, mode="mirror")
    np.testing.assert_allclose(warp.spline_coefficients(view[None])[0].numpy(), spline, rtol=0, atol=1e-12)
    blurred = scipy.ndimage.gaussian_filter(view.numpy(), 1.3, mode="nearest", truncate=4)
    np.testing.assert_allclose(warp.gaussian_blur(view[None], 1.3)[0].numpy(), blurred, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [1, 3])
def test_translate_agrees_with_the_reference(draw, distance, shifts, mask, dtype, shape, order):
    views, f = draw(*shape, dtype=dtype), shifts(shape[0])
    for trusted in (None, mask(*shape)):
        out, valid = warp.translate(views, f, order, trusted)
        out_expected, valid_expected = reference.translate(views, f, order, trusted)
        assert distance(out, out_expected) < TOLERANCE[dtype]
        assert torch.equal(valid, valid_expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [1, 3])
def test_resample_agrees_with_the_reference(draw, distance, matrices, mask, dtype, shape, order):
    views, m = draw(*shape, dtype=dtype), matrices(shape[0])
    for trusted in (None, mask(*shape)):
        for n_bin in (1, 2, 3):
            out, valid = warp.resample(views, m, (9, 8), order, n_bin, trusted)
            out_expected, valid_expected = reference.resample(views, m, (9, 8), order, n_bin, trusted)
            assert distance(out, out_expected) < TOLERANCE[dtype]
            assert torch.equal(valid, valid_expected)


def test_spline_of_order_3_passes_through_its_samples(draw, distance):
    views = draw(2, 9, 14, dtype=torch.float64)
    identity = torch.eye(2, 3, dtype=torch.float64).repeat(2, 1, 1)
    out, valid = warp.resample(warp.spline_coefficients(views), identity, (9, 14), order=3)
    assert distance(out, views) < 1e-12
    assert valid.min() == 1


def test_resample_of_order_3_agrees_with_scipy_inside(draw, distance):
    view = draw(24, 31, dtype=torch.float64)
    angle = 0.3
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    start = np.array([8.0, 1.0])
    expected = scipy.ndimage.affine_transform(
        view.numpy(), rotation, start, output_shape=(12, 12), order=3, mode="mirror"
    )
    matrix = torch.from_numpy(np.concatenate((rotation, start[:, None]), axis=1))[None]
    out, valid = warp.resample(warp.spline_coefficients(view[None]), matrix, (12, 12), order=3)
    inside = valid[0] > 0
    assert inside.sum() > 50
    assert distance(out[0][inside], torch.from_numpy(expected)[inside]) < 1e-12


def test_binning_by_identity_is_the_block_mean(draw, distance):
    views = draw(2, 12, 18, dtype=torch.float64)
    identity = torch.eye(2, 3, dtype=torch.float64).repeat(2, 1, 1)
    out, valid = warp.resample(views, identity, (4, 6), order=1, bin=3)
    assert distance(out, views.reshape(2, 4, 3, 6, 3).mean((2, 4))) < 1e-13
    assert valid.min() == 1


def test_translate_by_whole_pixels_moves_the_samples(draw):
    views = draw(1, 10, 12)
    out, valid = warp.translate(views, torch.tensor([[2.0, -3.0]], dtype=torch.float64), order=1)
    assert torch.equal(out[0, :8, 3:], views[0, 2:, :9])
    expected = torch.zeros(10, 12)
    expected[:8, 3:] = 1
    assert torch.equal(valid[0], expected)


def test_translate_equals_resample_by_the_same_shift(draw, distance, shifts, mask):
    views, f, trusted = draw(3, 15, 21), shifts(3), mask(3, 15, 21)
    m = torch.eye(2, 3, dtype=torch.float64).repeat(3, 1, 1)
    m[:, :, 2] = f
    for order in (1, 3):
        moved, resampled = (
            warp.translate(views, f, order, trusted),
            warp.resample(views, m, (15, 21), order, 1, trusted),
        )
        assert distance(moved[0], resampled[0]) < 1e-5
        assert torch.equal(moved[1], resampled[1])


def test_validity_comes_from_geometry_and_never_from_values(draw, shifts, mask):
    f, trusted = shifts(3), mask(3, 15, 21)
    one, two = torch.zeros(3, 15, 21), draw(3, 15, 21)
    assert torch.equal(warp.translate(one, f, 1, trusted)[1], warp.translate(two, f, 3, trusted)[1])


@pytest.mark.parametrize("order", [1, 3])
def test_gradients_of_translate_are_those_of_finite_differences(draw, shifts, order):
    views, f = draw(2, 4, 5, dtype=torch.float64).requires_grad_(), shifts(2, 1.5)
    assert torch.autograd.gradcheck(lambda v: warp.translate(v, f, order)[0], views)


def test_ops_keep_the_rules_of_torch_library(draw, shifts, matrices, mask):
    views, f, trusted = draw(2, 6, 7), shifts(2), mask(2, 6, 7)
    ops = torch.ops.gigascope
    torch.library.opcheck(ops.warp_spline_coefficients, (views,))
    torch.library.opcheck(ops.warp_gaussian_blur, (views, 0.7))
    torch.library.opcheck(ops.warp_resample, (views, matrices(2), [3, 4], 3, 2, trusted))
    torch.library.opcheck(ops.warp_translate, (views.clone().requires_grad_(), f, 1, trusted))
    torch.library.opcheck(ops.warp_translate_adjoint, (views, f, 1))
    torch.library.opcheck(ops.warp_shift_sums, (views, views.flip(1), views.abs()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 5, 1)])
def test_shift_sums_are_float64_sums_of_their_definition(draw, dtype, shape):
    model, data = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype)
    weights = draw(*shape, dtype=dtype).clamp(min=0)
    data[weights == 0] = torch.nan
    sums, expected = warp.shift_sums(model, data, weights), reference.shift_sums(model, data, weights)
    assert sums.dtype == torch.float64
    assert sums.shape == (shape[0], 10)
    # terms of both signs: measured against the largest sum
    assert (sums - expected).abs().max() <= 1e-12 * max(1.0, float(expected.abs().max()))


def test_shift_sums_find_a_planted_shift(distance):
    s, y = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (40, 50)), indexing="ij")
    blob = torch.exp(-0.5 * (((s - 19.3) / 6) ** 2 + ((y - 26.1) / 7) ** 2))[None]
    planted = torch.tensor([[0.05, -0.08]], dtype=torch.float64)
    # p displaced by f: data(s, y) = model(s - f_s, y - f_y)
    data, valid = warp.translate(warp.spline_coefficients(blob), -planted, order=3)
    total = warp.shift_sums(blob, data, valid)[0]
    hessian = torch.stack((torch.stack((total[4], total[5])), torch.stack((total[5], total[6]))))
    assert distance(torch.linalg.solve(hessian, total[7:9])[None], planted) < 0.05


def test_results_do_not_depend_on_the_number_of_threads(draw, shifts, matrices, thread_counts):
    views, other, f, m = draw(4, 15, 90), draw(4, 15, 90), shifts(4), matrices(4)
    results = []
    for n_threads in thread_counts:
        numba.set_num_threads(n_threads)
        results.append(
            (
                *warp.translate(views, f, 3),
                *warp.resample(views, m, (8, 9), 3, 2),
                torch.ops.gigascope.warp_translate_adjoint(views, f, 1),
                warp.gaussian_blur(views, 0.5),
                warp.spline_coefficients(views),
                warp.shift_sums(views, other, views.abs()),
            )
        )
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_wrong_arguments_name_what_was_expected_and_found():
    views, f = torch.ones(2, 4, 5), torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"shifts: expected \(2, 2\) torch.float64, got \(3, 2\)"):
        warp.translate(views, torch.zeros(3, 2, dtype=torch.float64))
    with pytest.raises(ShapeError, match=r"order: expected 1 .* or 3 .*, got 2"):
        warp.translate(views, f, 2)
    with pytest.raises(ShapeError, match=r"mask: expected \(2, 4, 5\) torch.uint8, got \(2, 4, 5\) torch.bool"):
        warp.translate(views, f, 1, torch.ones(2, 4, 5, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"matrices: expected \(2, 2, 3\) torch.float64, got \(2, 3, 3\)"):
        warp.resample(views, torch.zeros(2, 3, 3, dtype=torch.float64), (4, 4))
    with pytest.raises(ShapeError, match="sigma: expected 0 or more pixels, got -1"):
        warp.gaussian_blur(views, -1.0)
    with pytest.raises(ShapeError, match=r"shift_sums: data: expected \(2, 4, 5\), got \(2, 4, 6\)"):
        warp.shift_sums(views, torch.ones(2, 4, 6), views)
