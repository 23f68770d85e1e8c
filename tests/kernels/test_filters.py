"""Properties of the filters of z-stacks on a CPU."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import scipy.ndimage
import torch

from gigascope.errors import ShapeError
from gigascope.kernels import filters
from gigascope.kernels.filters import reference

# sums of a few dozen float32 products
TOLERANCE = 1e-6
# differences of contrasts near 1 lose the digits that they share
SHARPNESS_TOLERANCE = 1e-5
# one row or column, several bands of rows, more and fewer columns than a vector
SHAPES = [(2, 1, 7), (1, 5, 1), (1, 2, 3), (3, 17, 26), (2, 300, 101), (1, 129, 64)]
DTYPES = [torch.uint8, torch.uint16, torch.float32]


@pytest.fixture
def stack(rng):
    """Random counts; floating ones are not whole."""

    def draw(*shape, dtype=torch.uint8):
        values = torch.from_numpy(rng.uniform(0, 250 if dtype == torch.uint8 else 60_000, shape))
        return values.to(dtype)

    return draw


@pytest.mark.parametrize("border", ["replicate", "zero"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_filters_agree_with_the_reference(stack, distance, shape, dtype, border):
    image = stack(*shape, dtype=dtype)
    for sigma, truncate in ((8.0, 2.0), (0.7, 3.0), (0.1, 1.0)):
        found = filters.gaussian(image, sigma, truncate, border)
        assert found.dtype == torch.float32
        assert distance(found, reference.gaussian(image, sigma, truncate, border)) < TOLERANCE
        found = filters.sharpness(image, sigma, truncate, border)
        expected = reference.sharpness(image, sigma, truncate, border, 1.0)
        # of one slice of one pixel in reach nothing but rounding is left
        assert (found - expected).abs().max() < SHARPNESS_TOLERANCE * max(1.0, float(expected.max()))


def test_gaussian_agrees_with_scipy(stack):
    image = stack(1, 40, 55, dtype=torch.float32)
    for mode, border in (("nearest", "replicate"), ("constant", "zero")):
        expected = scipy.ndimage.gaussian_filter(image[0].numpy().astype(float), 2.3, mode=mode, truncate=3)
        np.testing.assert_allclose(filters.gaussian(image, 2.3, 3.0, border)[0].numpy(), expected, rtol=1e-5)


def test_filter_of_the_focus_measure_has_33_taps():
    image = torch.zeros(1, 65, 65)
    image[0, 32, 32] = 1
    seen = filters.gaussian(image, 8.0, 2.0)[0] > 0
    assert int(seen.sum()) == 33 * 33
    assert float(filters.gaussian(image, 8.0, 2.0).sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_sharpness_is_invariant_to_the_brightness(stack, distance, factor):
    image = stack(2, 50, 60, dtype=torch.float32) / 250 + 10
    assert distance(filters.sharpness(factor * image), filters.sharpness(image)) < SHARPNESS_TOLERANCE


def test_sharpness_of_a_flat_image_is_zero():
    for value in (0, 1, 200):
        assert filters.sharpness(torch.full((1, 60, 70), value, dtype=torch.uint8)).max() < 1e-6


def test_white_noise_gives_its_known_sharpness(rng):
    # specification 7.2 and test G6; the error of the mean over 4 x 400 x 400 correlated pixels is below 0.5 %
    eps = 0.02
    image = torch.from_numpy(1000 * (1 + eps * rng.standard_normal((4, 464, 464)))).float()
    inner = filters.sharpness(image)[:, 32:-32, 32:-32]
    assert float(inner.mean()) == pytest.approx(1.742 * eps, rel=0.03)


def test_dark_windows_stay_finite(stack):
    image = stack(1, 80, 80, dtype=torch.float32)
    image[:, 10:70, 10:70] = 0
    found = filters.sharpness(image)
    assert found.isfinite().all()
    assert float(found[0, 40, 40]) == 0


def test_zero_borders_change_only_what_is_near_them(stack):
    image = stack(1, 100, 100)
    one, two = filters.sharpness(image), filters.sharpness(image, border="zero")
    # the contrast reaches 16 px, the mean of its steepness another 16, a difference one
    inner = slice(33, -33)
    torch.testing.assert_close(one[:, inner, inner], two[:, inner, inner], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(one[:, :16, :16], two[:, :16, :16], rtol=0.01)


def test_slices_do_not_know_each_other(stack):
    image = stack(3, 40, 30)
    assert torch.equal(filters.sharpness(image)[1], filters.sharpness(image[1:2])[0])


def test_results_do_not_depend_on_the_number_of_threads(stack, thread_counts):
    image, results = stack(3, 300, 90), []
    for n_threads in thread_counts:
        numba.set_num_threads(n_threads)
        results.append((filters.gaussian(image, 3.0), filters.sharpness(image)))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_ops_keep_the_rules_of_torch_library(stack):
    ops, image = torch.ops.gigascope, stack(2, 6, 7)
    torch.library.opcheck(ops.filters_gaussian, (image, 0.7, 3.0, "zero"))
    torch.library.opcheck(ops.filters_sharpness, (image, 0.7, 3.0, "replicate", 1.0))


def test_wrong_arguments_name_what_was_expected_and_found():
    image = torch.ones(2, 4, 5)
    with pytest.raises(ShapeError, match=r"stack: expected \(z, row, col\) of .*, got \(4, 5\) torch.float32"):
        filters.gaussian(image[0], 1.0)
    with pytest.raises(ShapeError, match=r"stack: expected .*, got \(2, 4, 5\) torch.float64"):
        filters.sharpness(image.double())
    with pytest.raises(ShapeError, match="sigma: expected a number above 0, got 0"):
        filters.gaussian(image, 0.0)
    with pytest.raises(ShapeError, match="border: expected replicate or zero, got wrap"):
        filters.sharpness(image, border="wrap")
    with pytest.raises(ShapeError, match="floor: expected 0 or more, got -1"):
        filters.sharpness(image, floor=-1.0)
