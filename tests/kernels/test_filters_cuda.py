"""The filters in Triton against the definition: on a GPU where there is one, else in Triton's interpreter.

test_interpreter.py starts the interpreter in a process of its own, as it replaces Triton's language when imported.
"""

from __future__ import annotations

import importlib
import os

import pytest
import torch

from gigascope.kernels.filters import reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles these kernels")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU: test_interpreter.py runs these tests in Triton's interpreter", allow_module_level=True)

cuda = importlib.import_module("gigascope.kernels.filters.cuda")

DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.mark.parametrize("border", ["replicate", "zero"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 7), (1, 6, 300)])
def test_filters_agree_with_the_reference(rng, distance, shape, dtype, border):
    image = torch.from_numpy(rng.uniform(0, 250, shape)).to(dtype)
    for sigma, truncate in ((8.0, 2.0), (0.7, 3.0)):
        expected = reference.gaussian(image, sigma, truncate, border)
        assert distance(cuda.gaussian(image.to(DEVICE), sigma, truncate, border), expected) < 1e-6
        expected = reference.sharpness(image, sigma, truncate, border, 1.0)
        found = cuda.sharpness(image.to(DEVICE), sigma, truncate, border, 1.0).cpu()
        assert (found - expected).abs().max() < 1e-5 * max(1.0, float(expected.max()))


def test_slices_are_filtered_in_parts(rng, monkeypatch):
    image = torch.from_numpy(rng.uniform(0, 250, (3, 9, 11))).float().to(DEVICE)
    whole = cuda.sharpness(image, 2.0, 2.0, "replicate", 1.0)
    monkeypatch.setattr(cuda, "AT_ONCE", 200)
    assert torch.equal(cuda.sharpness(image, 2.0, 2.0, "replicate", 1.0), whole)
