"""Nuclei in Triton against the CPU, to the bit: on a GPU where there is one, else in Triton's interpreter.

test_interpreter.py starts the interpreter in a process of its own, as it replaces Triton's language when imported.
"""

from __future__ import annotations

import importlib
import os

import pytest
import torch

from gigascope.kernels import cells
from gigascope.kernels.cells import reference_raster as reference
from gigascope.kernels.cells.bodies import Grid

from .nuclei import random_nuclei

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles these kernels")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU: test_interpreter.py runs these tests in Triton's interpreter", allow_module_level=True)

cuda = importlib.import_module("gigascope.kernels.cells.cuda_raster")

DEVICE = "cpu" if INTERPRETED else "cuda"
VOXEL, ORIGIN = (0.9, 0.7, 0.55), (-2, 1, -3)
# The interpreter takes a minute for the larger block. Nuclei lie about it so that it saw two in each of 2500 seeds.
SHAPE, ABOUT = ((5, 7, 12), (5.0, 7.0, 8.0)) if INTERPRETED else ((5, 9, 18), (6.0, 10.0, 12.0))


def _grid(subsample):
    first, size = (tuple(n * subsample for n in numbers) for numbers in (ORIGIN, SHAPE))
    return Grid(first, size, tuple(v / subsample for v in VOXEL))


def _nuclei(rng, **kwargs):
    # about the block, which is smaller than a nucleus is wide
    table = random_nuclei(rng, 6, ABOUT, **kwargs)
    return table._replace(centre=table.centre - torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize(("gap", "subsample"), [(0.0, 2), (0.6, 2), (0.0, 3)])
def test_labels_and_fractions_are_those_of_the_cpu(rng, gap, subsample):
    table, grid = _nuclei(rng, plain=True, degree=6), _grid(subsample)
    expected = cells.labels(table, ORIGIN, SHAPE, VOXEL, gap, subsample)
    assert len(expected.unique()) > 2
    # the interpreter rounds twice where the processor and a GPU round once
    allowed = 2 if INTERPRETED else 0
    found = cuda.labels(table.to(DEVICE), grid, gap, subsample).cpu()
    assert (found != expected).sum() <= allowed
    expected = cells.fraction(table, ORIGIN, SHAPE, VOXEL, gap, subsample)
    found = cuda.fraction(table.to(DEVICE), grid, gap, subsample).cpu()
    assert (found != expected).sum() <= allowed


@pytest.mark.parametrize("gap", [0.0, 0.6])
def test_brightness_agrees_with_the_reference(rng, gap):
    table, grid = _nuclei(rng), _grid(1)
    expected = reference.density(table, grid, gap)
    found = cuda.density(table.to(DEVICE), grid, gap).cpu()
    same = (found > 0) == (expected > 0)
    assert (~same).sum() <= 2
    close = torch.isclose(found, expected, rtol=1e-4, atol=1e-4)
    # where two nuclei are equally near, rounding decides whose brightness it is
    assert (~close).sum() <= 2


def test_no_nuclei_are_no_labels():
    nothing = cells.nuclei_table(torch.zeros(0, 3)).to(DEVICE)
    assert not cuda.labels(nothing, _grid(2), 0.0, 2).any()
    assert not cuda.density(nothing, _grid(1), 0.0).any()
