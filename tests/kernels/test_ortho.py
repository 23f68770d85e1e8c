"""Properties of the maps, the splat and the blended gather on a CPU."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.kernels import ortho
from gigascope.kernels.ortho import reference, reference_blend
from gigascope.kernels.ortho.splatting import SIGMA

BORDERS = ("drop", "wrap", "clamp")
DTYPES = [torch.float32, torch.float64]
# weights, sums and quotients of a few terms
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
# golden values of the specification, 4.7: pixel, exact position, position of a point 0.1 mm high
GOLDEN = [
    ((0, 0), (8192.5646, 5373.8670), (8195.4309, 5376.6541)),
    ((1536, 1536), (9736.0000, 6936.0000), (9736.0454, 6935.9320)),
    ((0, 3071), (8154.7282, 8497.4566), (8157.6637, 8494.5346)),
    ((3071, 3071), (11284.8094, 8503.5721), (11282.0240, 8500.6389)),
    ((700, 2500), (8879.7699, 7911.4680), (8881.3802, 7909.6171)),
]
# the printed digits
GOLDEN_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def scenes():
    """Random inputs that the tests in Triton share; the folder of tests is no package."""
    spec = importlib.util.spec_from_file_location("ortho_scenes", Path(__file__).with_name("scenes.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def golden():
    """The view of the golden values: table, distortion, size."""
    normal = torch.tensor([[0.012, -0.008, -1.0]], dtype=torch.float64)
    number = [torch.tensor([value], dtype=torch.float64) for value in (1.01, 0.006, 54.712601)]
    place = torch.tensor([[8200.0, 5400.0]], dtype=torch.float64)
    table = ortho.view_table((3072, 3072), 1.0, number[0], normal / normal.norm(), number[1], place, number[2])
    return table, torch.tensor([0.003], dtype=torch.float64), (3072, 3072)


def single(coordinate, dtype=torch.float64):
    """One pixel of one view at a canvas coordinate."""
    return torch.tensor(coordinate, dtype=dtype).reshape(1, 2, 1, 1), torch.zeros(1, dtype=torch.int64)


def test_coordinates_give_the_golden_values(golden):
    for pixel, exact, lifted in GOLDEN:
        corner = torch.tensor([pixel], dtype=torch.float64)
        found = ortho.coordinates(*golden, corner, (1, 1), dtype=torch.float64)
        np.testing.assert_allclose(found.flatten(), exact, atol=GOLDEN_TOLERANCE)
        heights = torch.full((1, 1, 1), 0.1)
        found = ortho.coordinates(*golden, corner, (1, 1), heights, dtype=torch.float64)
        np.testing.assert_allclose(found.flatten(), lifted, atol=GOLDEN_TOLERANCE)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_maps_agree_with_the_reference(rng, scenes, dtype, order):
    views = scenes.views(rng, 4, (210, 180), order)
    corners = torch.from_numpy(rng.uniform(0, 100, (4, 2)))
    heights = torch.from_numpy(rng.normal(0, 1, (4, 9, 31)))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    for lifted in (None, heights.float(), heights):
        found = ortho.coordinates(*views, corners, (9, 31), lifted, 1.5, dtype)
        expected = reference.coordinates(*views, corners, (9, 31), 1.5, lifted, torch.float64)
        assert found.dtype == dtype
        assert (found - expected).abs().max() < tolerance
    found = ortho.pixels(*views, (40, 60), (7, 33), dtype)
    expected = reference.pixels(*views, (40, 60), (7, 33), torch.float64)
    # far outside a view its distortion folds, where the inverse magnifies rounding without bound; near it 2000 seeds
    # measured up to 1.5e-5 and 7e-10
    near = expected.abs() < 1.5 * 210
    assert near.double().mean() > 0.5
    assert (found - expected)[near].abs().max() < (1e-4 if dtype == torch.float32 else 1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-2), (torch.float64, 1e-4)])
def test_pixels_are_the_inverse_of_coordinates(rng, scenes, dtype, tolerance):
    # random tilts to 3 degrees, distortions to 0.01, a view of full size; float32 relative to an origin nearby
    table, distortion, size = scenes.views(rng, 6, (3072, 3072), 1, spread=40_000.0)
    start = table[:, 18:20].round()
    origin = torch.cat((torch.eye(2, dtype=torch.float64).expand(6, 2, 2), -start[:, :, None]), dim=2)
    near = ortho.moved(table, origin)
    corners = torch.zeros(6, 2, dtype=torch.float64)
    at = ortho.coordinates(near, distortion, size, corners, (64, 64), spacing=48.0, dtype=dtype)
    back = reference.backward(near, distortion, size, at.double())
    grid = torch.stack(torch.meshgrid(*2 * (torch.arange(64) * 48.0,), indexing="ij"))
    assert (back - grid).abs().max() < tolerance


def test_moved_tables_move_the_mosaic(rng, scenes):
    table, distortion, size = scenes.views(rng, 3, (100, 120))
    angle = rng.uniform(0, 2 * np.pi)
    matrix = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 30.0], [math.sin(angle), math.cos(angle), -7.5]], dtype=torch.float64
    )
    corners = torch.zeros(3, 2, dtype=torch.float64)
    heights = torch.from_numpy(rng.normal(0, 1, (3, 10, 12)))
    options = (distortion, size, corners, (10, 12), heights, 9.0, torch.float64)
    moved = torch.einsum("ab,nbij->naij", matrix[:, :2], ortho.coordinates(table, *options))
    moved += matrix[:, 2, None, None]
    after = ortho.moved(table, matrix)
    torch.testing.assert_close(ortho.coordinates(after, *options), moved, rtol=0, atol=1e-9)
    back = reference.backward(after, distortion, size, ortho.coordinates(after, *options[:4], None, *options[5:]))
    grid = torch.stack(torch.meshgrid(torch.arange(10) * 9.0, torch.arange(12) * 9.0, indexing="ij"))
    assert (back - grid).abs().max() < 1e-9


def test_gradient_of_coordinates_is_that_of_finite_differences(rng, scenes):
    views = scenes.views(rng, 2, (30, 40))
    corners = torch.zeros(2, 2, dtype=torch.float64)
    heights = torch.from_numpy(rng.normal(0, 3, (2, 4, 5))).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: ortho.coordinates(*views, corners, (4, 5), z, 7.0, torch.float64), heights, eps=1e-4
    )


def test_reference_coordinates_have_gradients_of_the_poses(rng):
    normal = torch.tensor([[0.01, -0.02, -1.0]], dtype=torch.float64)
    inputs = [torch.tensor(v, dtype=torch.float64) for v in ([1.01], [0.1], [[3.0, 4.0]], [0.01])]
    inputs = [tensor.requires_grad_() for tensor in (*inputs, normal)]

    def position(height, angle, place, distortion, n):
        table = ortho.view_table((20, 30), 1.0, height, n / n.norm(dim=1, keepdim=True), angle, place)
        pixel = torch.tensor([[2.0, 25.0]], dtype=torch.float64)
        return reference.coordinates(table, distortion, (20, 30), pixel, (2, 2), 3.0, None, torch.float64)

    assert torch.autograd.gradcheck(position, inputs)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.75])
def test_splat_weights_are_those_of_the_definition(fraction):
    g = {0.0: 1.0, 0.25: 0.840889, 0.5: 0.499982, 0.75: 0.210207, 1.0: 0.062491}
    coords, group = single((3.0 + fraction, 2.25))
    values = torch.full((1, 1, 1), 2.0, dtype=torch.float64)
    sums, weights = ortho.splat(values, coords, group, (8, 8))
    expected = torch.zeros(8, 8, dtype=torch.float64)
    for a in (0, 1):
        for b in (0, 1):
            expected[3 + a, 2 + b] = g[abs(a - fraction)] * g[abs(b - 0.25)]
    torch.testing.assert_close(weights[0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(sums[0], 2 * expected, rtol=0, atol=2e-6)
    assert pytest.approx(1 / math.sqrt(8 * math.log(2)), abs=2e-5) == SIGMA


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("border", BORDERS)
def test_a_constant_image_stays_constant(rng, scenes, dtype, border):
    values, coords, group, shape = scenes.pixels(rng, dtype)
    values = torch.full_like(values, 7.25)
    predicted, mosaic, weights = ortho.splat_predict(values, coords, group, shape, 2, border)
    assert (predicted[~predicted.isnan()] - 7.25).abs().max() < 7.25e-6
    assert (mosaic[weights > 0] - 7.25).abs().max() < 7.25e-6
    assert (mosaic[weights == 0] == 0).all()


def test_sums_of_a_splat_hold_all_that_was_put_in(rng, scenes):
    values, coords, group, shape = scenes.pixels(rng, torch.float64)
    coords = coords.nan_to_num(5.0, 5.0, 5.0)
    sums, weights = ortho.splat(values, coords, group, shape, 2, "wrap")
    d = coords - coords.floor()
    total = torch.stack([torch.exp(-x * x / (2 * SIGMA**2)) for x in (d, 1 - d)]).sum(0).prod(1)
    torch.testing.assert_close(weights.sum(), total.sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(sums.sum(), (total * values).sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("border", BORDERS)
def test_splat_and_gradients_agree_with_the_reference(rng, scenes, distance, dtype, through, border):
    values, coords, group, shape = scenes.pixels(rng, dtype)
    v, q = values.clone().requires_grad_(), coords.clone().requires_grad_()
    found = ortho.splat_predict(v, q, group, shape, 2, border, through)
    expected = reference.splat_predict(values, coords, group, 2, shape, border, through)
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one.isnan(), two.isnan())
        assert distance(torch.nan_to_num(one), torch.nan_to_num(two)) < TOLERANCE[dtype]
    seen = ~found[0].isnan()
    cotangent = torch.from_numpy(rng.standard_normal(values.shape)).to(dtype)
    torch.where(seen, found[0] * cotangent, 0.0).sum().backward()
    gradients = reference.splat_predict_backward(cotangent, values, coords, group, *expected[1:], border, through)
    for one, two in zip((v.grad, q.grad), gradients, strict=True):
        assert (one - two).abs().max() <= 10 * TOLERANCE[dtype] * max(1.0, float(two.abs().max()))


def test_the_mosaic_is_held_constant(rng, scenes):
    """Loss of the height agreement: its gradient goes through the pixel itself and not through what it is held to."""
    values, coords, group, shape = scenes.pixels(rng, torch.float64)
    v = values.clone().requires_grad_()
    predicted, mosaic, _ = ortho.splat_predict(v, coords, group, shape, 2, "wrap")
    seen = ~predicted.isnan()
    assert not mosaic.requires_grad
    torch.where(seen, predicted - v, 0.0).square().mean().backward()
    expected = torch.where(seen, -2 * (predicted.detach() - values), 0.0) / values.numel()
    torch.testing.assert_close(v.grad, expected, rtol=1e-12, atol=1e-15)
    # against finite differences of v alone, the prediction as it was
    direction, step = torch.from_numpy(rng.standard_normal(values.shape)), 1e-5
    loss = [torch.where(seen, predicted - (values + s * direction), 0.0).square().mean() for s in (step, -step)]
    slope = float((loss[0] - loss[1]).detach()) / (2 * step)
    assert float((v.grad * direction).sum()) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("border", BORDERS)
def test_exact_gradients_are_those_of_finite_differences(rng, scenes, border):
    values, coords, group, shape = scenes.pixels(rng, torch.float64)
    # away from whole numbers, where another pixel takes over, and from borders, where a clamp begins
    inner = coords[:, :, :2, 10:16].nan_to_num(5.0, 5.0, 5.0)
    q = (inner.floor() + 0.1 + 0.8 * torch.rand_like(inner)).requires_grad_()
    v = values[:, :2, 10:16].clone().requires_grad_()

    def predicted(one, two):
        return torch.nan_to_num(ortho.splat_predict(one, two, group, shape, 2, border, True)[0])

    assert torch.autograd.gradcheck(predicted, (v, q))


def test_prediction_is_linear_and_its_backward_the_adjoint(rng, scenes):
    values, coords, group, shape = scenes.pixels(rng, torch.float64)
    v = values.clone().requires_grad_()
    predicted = torch.nan_to_num(ortho.splat_predict(v, coords, group, shape, 2, "drop", True)[0])
    c = torch.from_numpy(rng.standard_normal(values.shape))
    predicted.backward(c)
    # <A v, c> = <v, A^T c>
    assert float((predicted * c).sum()) == pytest.approx(float((values * v.grad).sum()), rel=1e-11)


def test_coordinates_gradient_with_a_constant_mosaic_is_that_of_reading(rng, scenes):
    values, coords, group, shape = scenes.pixels(rng, torch.float64)
    q = coords.clone().requires_grad_()
    predicted = ortho.splat_predict(values, q, group, shape, 2, "wrap")[0]
    torch.nan_to_num(predicted).sum().backward()
    assert float(q.grad[0, :, 1, :3].abs().max()) == 0  # coordinates that are no numbers
    canvases = ortho.splat_predict(values, coords, group, shape, 2, "wrap")[1:]
    inputs = (torch.ones_like(values), values, coords, group, *canvases)
    expected = reference.splat_predict_backward(*inputs, "wrap", False)[1]
    torch.testing.assert_close(q.grad, expected, rtol=1e-9, atol=1e-9)


def test_pixels_beyond_the_canvas(rng):
    values = torch.full((1, 1, 1), 3.0, dtype=torch.float64)
    for coordinate, border, place in (((-2.0, 3.0), "drop", None), ((-2.0, 3.0), "wrap", (6, 3)),
                                      ((-2.0, 3.0), "clamp", (0, 3)), ((math.nan, 3.0), "wrap", None),
                                      ((9.0, 11.0), "clamp", (7, 8))):  # fmt: skip
        coords, group = single(coordinate)
        predicted, mosaic, weights = ortho.splat_predict(values, coords, group, (8, 9), 1, border)
        if place is None:
            assert predicted.isnan().all()
            assert weights.sum() == 0
        else:
            assert float(predicted) == pytest.approx(3)
            assert float(mosaic[0][place]) == pytest.approx(3)
            assert float(weights[0][place]) == pytest.approx(1)


def test_groups_do_not_know_each_other(rng, scenes):
    values, coords, group, shape = scenes.pixels(rng, torch.float64)
    _, mosaic, weights = ortho.splat_predict(values, coords, group, shape, 2)
    own = group == 1
    _, alone, weights_alone = ortho.splat_predict(values[own], coords[own], group[own] - 1, shape, 1)
    assert torch.equal(mosaic[1], alone[0])
    assert torch.equal(weights[1], weights_alone[0])


def test_large_canvases_are_the_same_for_any_number_of_threads(rng, scenes, thread_counts):
    coords = torch.from_numpy(rng.uniform(-10, 420, (3, 2, 90, 200))).float()
    values, group = torch.from_numpy(rng.standard_normal((3, 90, 200))).float(), torch.tensor([0, 1, 0])
    scene, results = scenes.maps(rng, torch.uint8), []
    for n_threads in thread_counts:
        numba.set_num_threads(n_threads)
        v, q = values.clone().requires_grad_(), coords.clone().requires_grad_()
        out = ortho.splat_predict(v, q, group, (400, 390), 2, "wrap", True)
        out[0].square().sum().backward()
        blended = ortho.blend(*scene.views, scene.heights, scene.colours, scene.corners, *scene.tile, 0.3)
        results.append([*(t.detach() for t in out), v.grad, q.grad, *(torch.nan_to_num(t) for t in blended)])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    expected = reference.splat_predict(values, coords, group, 2, (400, 390), "wrap", True)
    torch.testing.assert_close(results[0][0], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", [{"mode": "mean", "sampling": "linear"}, {"mode": "best", "sampling": "cubic"}])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_blend_agrees_with_the_reference(rng, scenes, distance, dtype, how):
    scene = scenes.maps(rng, dtype)
    clear = torch.from_numpy(rng.uniform(0.01, 1, scene.heights.shape)).float()
    for confidence, clarity, photometric in ((scene.confidence, clear, scene.photometric), (None, None, None)):
        inputs = (*scene.views, scene.heights, scene.colours)
        found = ortho.blend(
            *inputs, scene.corners, *scene.tile, 0.3, confidence, photometric, feather=40.0, clarity=clarity, **how
        )
        plain = scene.plain if photometric is None else photometric
        expected = reference_blend.blend(
            *inputs, confidence, clarity, plain, scene.corners, *scene.tile, 0.3, 3.0, 40.0, 0.01, *how.values()
        )
        assert found.n_views.max() >= 4
        for one, two in zip(found, expected, strict=True):
            assert torch.equal(one.isnan(), two.isnan())
            assert distance(torch.nan_to_num(one), torch.nan_to_num(two)) < 1e-6


def test_blend_of_agreeing_views_gives_back_what_they_see(rng, scenes):
    """A height and colour that are linear on the mosaic come back, whatever the poses and weights."""
    table, distortion, size = scenes.views(rng, 8, (140, 150))
    corners = torch.zeros(8, 2, dtype=torch.int64)
    at = ortho.coordinates(table, distortion, size, corners.double(), size, dtype=torch.float64)
    plane = 0.01 * at[:, 0] - 0.02 * at[:, 1] + 3
    confidence = torch.from_numpy(rng.uniform(0.1, 2, plane.shape)).float()
    maps, tile = (plane.float(), 10 * plane.float()[..., None], corners), ((60, 70), (130, 101))
    found = ortho.blend(table, distortion, size, *maps, *tile, 0.1, confidence)
    row, col = torch.meshgrid(torch.arange(60.0, 190.0), torch.arange(70.0, 171.0), indexing="ij")
    expected = 0.01 * row - 0.02 * col + 3
    seen = found.weight > 0
    assert seen.float().mean() > 0.5
    # the map is curved by tilt and distortion, which bilinear interpolation follows to second order
    assert (found.height - expected)[seen].abs().max() < 1e-4
    assert (found.colour[0] - 10 * expected)[seen].abs().max() < 1e-3
    assert torch.nan_to_num(found.height_std).max() < 1e-4


def test_cubic_sampling_is_sharper_and_follows_parabolas(rng):
    """Colours that are a parabola over a view come back from between its pixels, up to its border."""
    shift = torch.from_numpy(rng.uniform(0.2, 0.8, (1, 2)))
    one = torch.ones(1, dtype=torch.float64)
    size = (20, 24)
    table = ortho.view_table(size, 1.0, one, torch.tensor([[0.0, 0, -1]]).double(), 0 * one, shift)
    views = table, torch.zeros(0, dtype=torch.float64), size
    row, col = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    parabola = 3 + 0.5 * row**2 - 0.2 * row * col + 0.1 * col**2
    maps = torch.zeros(1, *size), parabola[None, ..., None], torch.zeros(1, 2, dtype=torch.int64)
    linear, cubic = (
        ortho.blend(*views, *maps, (3, 3), (12, 15), 0.1, sampling=s).colour[0] for s in ("linear", "cubic")
    )
    row, col = row[3:15, 3:18] - shift[0, 0], col[3:15, 3:18] - shift[0, 1]
    expected = (3 + 0.5 * row**2 - 0.2 * row * col + 0.1 * col**2).float()
    torch.testing.assert_close(cubic, expected, rtol=1e-5, atol=1e-4)
    assert (linear - expected).abs().min() > 0.05


@pytest.mark.parametrize("mode", ["mean", "best"])
def test_clarity_weighs_colours_and_leaves_heights(mode):
    one = torch.ones(2, dtype=torch.float64)
    table = ortho.view_table(
        (9, 9), 1.0, one, torch.tensor([[0.0, 0, -1]] * 2).double(), 0 * one, torch.zeros(2, 2).double()
    )
    heights = torch.tensor([1.0, 2.0]).reshape(2, 1, 1).expand(2, 9, 9).contiguous()
    colours = torch.tensor([10.0, 50.0]).reshape(2, 1, 1, 1).expand(2, 9, 9, 1).contiguous()
    views = table, torch.zeros(0, dtype=torch.float64), (9, 9), heights, colours, torch.zeros(2, 2, dtype=torch.int64)
    clear = torch.tensor([0.25, 0.75]).reshape(2, 1, 1).expand(2, 9, 9).contiguous()
    plain, weighed = (ortho.blend(*views, (2, 2), (4, 4), 9.0, mode=mode, clarity=c) for c in (None, clear))
    for name in ("height", "weight", "n_views", "height_std"):
        torch.testing.assert_close(getattr(plain, name), getattr(weighed, name))
    expected = {"mean": (30.0, 40.0), "best": (10.0, 50.0)}[mode]
    for found, colour in zip((plain, weighed), expected):
        torch.testing.assert_close(found.colour, torch.full((1, 4, 4), colour))


def test_rounding_does_not_lose_the_border_of_a_view(rng):
    """A view without any turn or shift is the mosaic: every pixel of it is seen, whatever its size."""
    for size in rng.integers(60, 900, (12, 2)).tolist():
        one = torch.ones(1, dtype=torch.float64)
        table = ortho.view_table(
            size, 1.0, one, torch.tensor([[0.0, 0, -1]]).double(), 0 * one, torch.zeros(1, 2).double()
        )
        maps = torch.ones(1, *size), torch.ones(1, *size, 0), torch.zeros(1, 2, dtype=torch.int64)
        seen = ortho.blend(table, torch.zeros(0, dtype=torch.float64), size, *maps, (0, 0), size, 0.1).n_views
        assert (seen == 1).all(), size
        assert (
            ortho.blend(table, torch.zeros(0, dtype=torch.float64), size, *maps, (-1, -1), (2, 2), 0.1).n_views.sum()
            == 1
        )


def test_blend_sees_what_the_poses_see(rng, scenes):
    views = scenes.views(rng, 8, (140, 150))
    maps = torch.zeros(8, 140, 150), torch.zeros(8, 140, 150, 0, dtype=torch.uint8)
    found = ortho.blend(*views, *maps, torch.zeros(8, 2, dtype=torch.int64), (20, 10), (200, 230), 0.1)
    rc = reference.pixels(*views, (20, 10), (200, 230), torch.float64)
    seen = (rc[:, 0] >= 0) & (rc[:, 0] <= 139) & (rc[:, 1] >= 0) & (rc[:, 1] <= 149)
    assert torch.equal(found.n_views, seen.sum(0).float())
    assert torch.equal(found.height.isnan(), ~seen.any(0))
    assert torch.equal(found.height_std.isnan(), seen.sum(0) < 2)
    assert found.colour.shape == (0, 200, 230)


def test_an_outlier_counts_neither_for_height_nor_for_colour():
    table = ortho.view_table(
        (20, 20), 1.0, torch.ones(5).double(), torch.tensor([[0.0, 0, -1]] * 5).double(), torch.zeros(5).double(),
        torch.zeros(5, 2).double(),
    )  # fmt: skip
    heights = torch.tensor([1.0, 1.1, 0.9, 9.0, 1.0]).reshape(5, 1, 1).expand(5, 20, 20).contiguous()
    colours = torch.tensor([10.0, 10, 10, 200, 10]).reshape(5, 1, 1, 1).expand(5, 20, 20, 1).contiguous()
    views = table, torch.zeros(0, dtype=torch.float64), (20, 20)
    corners = torch.zeros(5, 2, dtype=torch.int64)
    found = ortho.blend(*views, heights, colours, corners, (5, 5), (4, 4), 0.01)
    assert (found.n_views == 4).all()
    torch.testing.assert_close(found.height, torch.full((4, 4), 1.0))
    torch.testing.assert_close(found.colour, torch.full((1, 4, 4), 10.0))
    torch.testing.assert_close(found.height_std, torch.full((4, 4), math.sqrt(0.005)))
    # a floor of the gate beyond the outlier lets it in
    assert (ortho.blend(*views, heights, colours, corners, (5, 5), (4, 4), 3.0).n_views == 5).all()


def test_a_tile_that_nobody_sees_is_empty(scenes, rng):
    views = scenes.views(rng, 2, (30, 40))
    maps = torch.zeros(2, 30, 40), torch.zeros(2, 30, 40, 3, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.int64)
    none = [tensor[:0] for tensor in maps]
    for given, table in ((maps, views[0]), (none, views[0][:0])):
        found = ortho.blend(table, *views[1:], *given, (5000, 0), (7, 9), 0.1)
        assert found.height.isnan().all()
        assert found.colour.isnan().all()
        assert found.weight.sum() == found.n_views.sum() == 0
        assert found.colour.shape == (3, 7, 9)


def test_ops_keep_the_rules_of_torch_library(rng, scenes):
    ops = torch.ops.gigascope
    table, distortion, size = scenes.views(rng, 5, (30, 40))
    corners, heights = torch.zeros(5, 2, dtype=torch.float64), torch.zeros(5, 3, 4, requires_grad=True)
    torch.library.opcheck(
        ops.ortho_coordinates, (table, distortion, list(size), corners, [3, 4], 1.0, heights, torch.float32)
    )
    torch.library.opcheck(ops.ortho_pixels, (table, distortion, list(size), [0, 0], [3, 4], torch.float32))
    values, coords, group, shape = scenes.pixels(rng, torch.float64)
    coords = coords.nan_to_num(5.0, 5.0, 5.0)
    torch.library.opcheck(ops.ortho_splat, (values, coords, group, 2, list(shape), "drop"))
    inputs = (values.requires_grad_(), coords.requires_grad_(), group, 2, list(shape), "wrap", True)
    torch.library.opcheck(ops.ortho_splat_predict, inputs)


def test_wrong_arguments_name_what_was_expected_and_found(rng, scenes):
    values, coords, group, shape = scenes.pixels(rng, torch.float32)
    with pytest.raises(ShapeError, match=r"coords: expected \(5, 2, 7, 70\), got \(5, 7, 70\)"):
        ortho.splat_predict(values, values, group, shape)
    with pytest.raises(ShapeError, match="group: expected numbers of 0 to 0, got 0 to 1"):
        ortho.splat_predict(values, coords, group, shape)
    with pytest.raises(ShapeError, match="border: expected drop, wrap, clamp, got mirror"):
        ortho.splat(values, coords, group, shape, 2, "mirror")
    table, distortion, size = scenes.views(rng, 2, (30, 40))
    with pytest.raises(ShapeError, match=r"corners: expected \(2, 2\) torch.float64, got \(2, 2\) torch.float32"):
        ortho.coordinates(table, distortion, size, torch.zeros(2, 2), (3, 4))
    maps = torch.zeros(2, 30, 40), torch.zeros(2, 30, 40, 3)
    with pytest.raises(ShapeError, match=r"colours: expected \(2, 30, 40, channels\)"):
        ortho.blend(table, distortion, size, maps[0], maps[1][0], torch.zeros(2, 2).long(), (0, 0), (3, 4), 0.1)
    with pytest.raises(ShapeError, match="sampling: expected linear or cubic, got sinc"):
        ortho.blend(
            table, distortion, size, *maps, torch.zeros(2, 2).long(), (0, 0), (3, 4), 0.1, sampling="sinc"
        )  # fmt: skip
    with pytest.raises(ShapeError, match="mode: expected mean or best, got sum"):
        ortho.blend(
            table, distortion, size, *maps, torch.zeros(2, 2).long(), (0, 0), (3, 4), 0.1, mode="sum"
        )  # fmt: skip
