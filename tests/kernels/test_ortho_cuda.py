"""The ortho ops in Triton against the definition: on a GPU where there is one, else in Triton's interpreter.

test_interpreter.py starts the interpreter in a process of its own, as it replaces Triton's language when imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path

import pytest
import torch

from gigascope.kernels.ortho import reference, reference_blend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles these kernels")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU: test_interpreter.py runs these tests in Triton's interpreter", allow_module_level=True)

cuda = importlib.import_module("gigascope.kernels.ortho.cuda")
cuda_blend = importlib.import_module("gigascope.kernels.ortho.cuda_blend")

DEVICE = "cpu" if INTERPRETED else "cuda"
BORDERS = ("drop", "wrap", "clamp")


@pytest.fixture(scope="module")
def scenes():
    """The random inputs of the CPU's tests; the folder of tests is no package."""
    path = Path(__file__).with_name("scenes.py")
    spec = importlib.util.spec_from_file_location("ortho_scenes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def to_device(*tensors):
    return [tensor.to(DEVICE) if isinstance(tensor, torch.Tensor) else tensor for tensor in tensors]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_maps_agree_with_the_reference(rng, scenes, order):
    views = scenes.views(rng, 4, (210, 180), order)
    corners = torch.from_numpy(rng.uniform(0, 100, (4, 2)))
    heights = torch.from_numpy(rng.normal(0, 1, (4, 9, 31))).float()
    for lifted in (None, heights):
        inputs = (*views[:2], views[2], corners, (9, 31), 1.5, lifted)
        expected = reference.coordinates(*inputs, torch.float64)
        found = cuda.coordinates(*to_device(*inputs), torch.float64).cpu()
        assert (found - expected).abs().max() < 1e-9
    inputs = (*views, (40, 60), (7, 33))
    found = cuda.pixels(*to_device(*inputs), torch.float64).cpu()
    assert (found - reference.pixels(*inputs, torch.float64)).abs().max() < 1e-9


@pytest.mark.parametrize("border", BORDERS)
def test_splat_and_its_gradients_agree_with_the_reference(rng, scenes, distance, border):
    values, coords, group, shape = scenes.pixels(rng, torch.float32)
    for through in (False, True):
        expected = reference.splat_predict(values, coords, group, 2, shape, border, through)
        found = cuda.splat_predict(*to_device(values, coords, group), 2, shape, border, through)
        for one, two in zip(found, expected, strict=True):
            assert torch.equal(one.isnan().cpu(), two.isnan())
            assert distance(torch.nan_to_num(one), torch.nan_to_num(two)) < 1e-6
        cotangent = torch.from_numpy(rng.standard_normal(values.shape)).float()
        inputs = (cotangent, values, coords, group, *expected[1:])
        gradients = cuda.splat_predict_backward(*to_device(*inputs), border, through)
        for one, two in zip(gradients, reference.splat_predict_backward(*inputs, border, through), strict=True):
            # weights of four neighbours, their differences in float32
            assert (one.cpu() - two).abs().max() < 2e-5 * max(1.0, float(two.abs().max()))


def test_splat_gives_the_same_bits_in_any_order(rng, scenes):
    values, coords, group, shape = scenes.pixels(rng, torch.float32)
    one = cuda.splat(*to_device(values, coords, group), 2, shape, "drop")
    turned = [tensor.flip(0).contiguous() for tensor in (values, coords, group)]
    two = cuda.splat(*to_device(*turned), 2, shape, "drop")
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("mode", "dtype", "plain", "sampling"),
    [
        ("mean", torch.uint8, False, "linear"),
        ("best", torch.uint16, False, "cubic"),
        ("mean", torch.float32, True, "cubic"),
    ],
)
def test_blend_agrees_with_the_reference(rng, scenes, distance, mode, dtype, plain, sampling):
    scene = scenes.maps(rng, dtype)
    clear = torch.from_numpy(rng.uniform(0.01, 1, scene.heights.shape)).float()
    light = (None, None, scene.plain) if plain else (scene.confidence, clear, scene.photometric)
    inputs = (*scene.views, scene.heights, scene.colours, *light, scene.corners)
    # the interpreter takes a second for a few rows: two blocks side by side, of two rows
    options = ((150, 95), (2, 101), 0.3, 3.0, 40.0, 0.01, mode, sampling)
    expected = reference_blend.blend(*inputs, *options)
    found = cuda_blend.blend(*to_device(*inputs), *options)
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one.isnan().cpu(), two.isnan())
        assert distance(torch.nan_to_num(one), torch.nan_to_num(two)) < 1e-5
