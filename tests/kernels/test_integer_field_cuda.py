"""The integer field in Triton, bit for bit: on a GPU where there is one, else in Triton's interpreter.

test_integer_field.py starts the interpreter in a process of its own, as it replaces Triton's language when imported.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles this kernel")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU: test_integer_field.py runs these tests in Triton's interpreter", allow_module_level=True)

cuda = importlib.import_module("gigascope.kernels.integer_field.cuda")
reference = importlib.import_module("gigascope.kernels.integer_field.reference")

DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(scope="module")
def random_rows():
    """The random ellipsoids of the CPU's tests; the folder of tests is no package."""
    path = Path(__file__).with_name("test_integer_field.py")
    spec = importlib.util.spec_from_file_location("integer_field_rows", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.random_rows


@pytest.mark.parametrize(
    ("shape", "origin"),
    [((9, 17, 23), (0, 0, 0)), ((4, 8, 8), (2, 3, 70)), ((1, 1, 1), (2, 2, 2)), ((5, 3, 9), (0, -3, 1))],
)
def test_triton_gives_the_integers_of_the_definition(random_rows, rng, shape, origin):
    rows = random_rows(rng, 25, (12, 20, 30))
    start = torch.from_numpy(rng.integers(-(1 << 30), 1 << 30, shape))
    expected, found = start.clone(), start.to(DEVICE)
    reference.add_(expected, rows, origin)
    cuda.add_(found, rows.to(DEVICE), origin)
    assert torch.equal(found.cpu(), expected)


def test_nothing_near_leaves_the_field(random_rows, rng):
    field = torch.zeros(4, 4, 4, dtype=torch.int64, device=DEVICE)
    cuda.add_(field, random_rows(rng, 5, (4, 4, 4)).to(DEVICE), (900, 0, 0))
    assert not field.any()
