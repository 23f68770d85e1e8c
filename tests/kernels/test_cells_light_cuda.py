"""Light in Triton against the definition: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib
import os

import pytest
import torch

from gigascope.kernels.cells import light, reference_light

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles these kernels")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU: test_interpreter.py runs these tests in Triton's interpreter", allow_module_level=True)

cuda_light = importlib.import_module("gigascope.kernels.cells.cuda_light")

DEVICE = "cpu" if INTERPRETED else "cuda"


def test_cone_depth_agrees_with_the_reference(rng, distance):
    mu = torch.from_numpy(rng.uniform(0, 0.2, (5, 6, 9))).float()
    rays = [[0.0, 0.0], [0.24, 0.1], [-0.17, 0.17], [0.0, -0.31], [-0.9, -1.3]]
    found = cuda_light.cone_depth(mu.to(DEVICE), rays)
    assert distance(found, reference_light.cone_depth(mu, rays)) < 2e-6


@pytest.mark.parametrize("cells", [(4, 5, 6), (1, 1, 1)])
def test_read_out_and_attenuation_agree_with_the_reference(rng, distance, cells):
    grid = torch.from_numpy(rng.uniform(0, 5, cells)).float()
    shape = (3, 5, 37)
    places = light.positions(shape, (3, 2, 1), (0.31, 0.27, 0.123), (-0.7, 0.1, -1.0), cells)
    found = cuda_light.read_out(grid.to(DEVICE), places)
    assert distance(found, reference_light.read_out(grid, places)) < 1e-6
    density = torch.from_numpy(rng.uniform(0, 5, shape)).float()
    wanted, found = density.clone(), density.clone().to(DEVICE)
    reference_light.attenuate_(wanted, grid, places)
    cuda_light.attenuate_(found, grid.to(DEVICE), places)
    assert distance(found, wanted) < 2e-6
