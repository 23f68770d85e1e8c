"""The camera in Triton against the definition: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib
import os

import numpy as np
import pytest
import torch

from gigascope.kernels.cells import noise, reference_noise

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles these kernels")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU: test_interpreter.py runs these tests in Triton's interpreter", allow_module_level=True)

cuda_noise = importlib.import_module("gigascope.kernels.cells.cuda_noise")

DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.mark.parametrize(
    "sensor",
    [
        noise.Sensor(),
        noise.Sensor(excess_noise=1.25, n_average=2, gain_spread=0.05, offset_spread_e=1.0),
        noise.Sensor(excess_noise=3.0, bits=12, read_noise_e=0),
    ],
)
def test_camera_agrees_with_the_reference(rng, sensor):
    expected = torch.from_numpy(np.exp(rng.uniform(-3, 9, (2, 11, 37)))).float()
    key = noise.signed(int(rng.integers(1 << 63)) * 2 + 1)
    shape, origin = (1 << 16, 1 << 15, 1 << 15), (30000, 17, 29000)
    numbers = torch.tensor([*sensor[:5], 2.0**sensor.bits - 1, *sensor[6:]], dtype=torch.float64)
    wanted = reference_noise.camera(expected, numbers, key, origin, shape).int()
    found = cuda_noise.camera(expected.to(DEVICE), numbers, key, origin, shape).cpu().int()
    assert (found != wanted).float().mean() <= 2e-3  # where the last bit of a logarithm decides
