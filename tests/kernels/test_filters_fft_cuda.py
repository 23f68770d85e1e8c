"""The convolution and area sampling in Triton against the definition: on a GPU, else in Triton's interpreter.

test_interpreter.py starts the interpreter in a process of its own, as it replaces Triton's language when imported.
"""

from __future__ import annotations

import importlib
import os

import pytest
import torch

from gigascope.kernels import filters
from gigascope.kernels.filters import reference_fft

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles these kernels")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU: test_interpreter.py runs these tests in Triton's interpreter", allow_module_level=True)

cuda = importlib.import_module("gigascope.kernels.filters.cuda_fft")

DEVICE = "cpu" if INTERPRETED else "cuda"
# float32 transforms of a few thousand samples
TOLERANCE = 2e-6


@pytest.mark.parametrize(
    ("shape", "kernel", "fft_shape"), [((9, 14, 17), (5, 3, 7), (12, 15, 20)), ((1, 5, 1), (1, 3, 1), (1, 5, 1))]
)
@pytest.mark.parametrize("n_k", [1, 3])
def test_convolve_agrees_with_the_reference(draw, distance, shape, kernel, fft_shape, n_k):
    volume, weights = draw(*shape), draw(n_k, shape[0])
    spectra = filters.spectra(draw(n_k, *kernel), fft_shape)
    for start, size in (((0, 0, 0), fft_shape), ((0, 1, 0), (1, 3, 1))):
        expected = reference_fft.convolve(volume, weights, spectra, fft_shape, start, size)
        on_device = volume.to(DEVICE), weights.to(DEVICE), spectra.to(DEVICE)
        assert distance(cuda.convolve(*on_device, fft_shape, start, size), expected) < 5 * TOLERANCE


def test_rows_and_planes_are_transformed_in_parts(draw, distance, monkeypatch):
    volume, weights, fft_shape = draw(7, 9, 11), draw(2, 7), (9, 10, 12)
    spectra = filters.spectra(draw(2, 3, 3, 3), fft_shape)
    arguments = volume.to(DEVICE), weights.to(DEVICE), spectra.to(DEVICE), fft_shape
    box, sampling = ((1, 2, 3), (7, 8, 9)), ((2.0, 1.5, 1.7), (0.5, 0, 0), (4, 6, 7))
    monkeypatch.setattr(cuda, "AT_ONCE", 3000)
    expected = reference_fft.convolve(volume, weights, spectra, fft_shape, *box)
    assert distance(cuda.convolve(*arguments, *box), expected) < TOLERANCE
    expected = reference_fft.convolve_sampled(volume, weights, spectra, fft_shape, *sampling)
    assert distance(cuda.convolve_sampled(*arguments, *sampling), expected) < TOLERANCE


def test_planes_are_transformed_along_z_in_parts(draw, distance, monkeypatch):
    planes = torch.complex(draw(6, 5, 7), draw(6, 5, 7)).to(DEVICE)
    expected = torch.fft.fft(planes.cpu().to(torch.complex128), dim=0)
    monkeypatch.setattr(cuda, "AT_ONCE", 700)
    cuda.transform_z_(planes)
    assert distance(torch.view_as_real(planes), torch.view_as_real(expected)) < TOLERANCE


@pytest.mark.parametrize(
    ("ratio", "start", "shape"),
    [
        ((1.6663, 4.0, 4.0), (0.0, 0.0, 0.0), (6, 3, 4)),
        ((0.4, 1.0, 0.7), (0.5, 0.0, 3.1), (20, 14, 9)),
        ((11.0, 14.0, 17.0), (0.0, 0.0, 0.0), (1, 1, 1)),
    ],
)
def test_area_sample_agrees_with_the_reference(draw, ratio, start, shape):
    volume = draw(11, 14, 17)
    found = cuda.area_sample(volume.to(DEVICE), ratio, start, shape).cpu()
    # of many voxels the mean is small
    error = (found - reference_fft.area_sample(volume, ratio, start, shape)).abs().max()
    assert error < TOLERANCE * volume.abs().max()
