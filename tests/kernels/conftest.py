"""Random inputs and the measure of agreement that the kernel tests share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from gigascope.kernels import parallel


class Geometry(NamedTuple):
    """One random acquisition: everything that fixes the projector's matrix."""

    angles: Tensor
    n_s: int
    shape_zx: tuple[int, int]
    hz: float


@pytest.fixture
def draw(rng: np.random.Generator) -> Callable[..., Tensor]:
    """Normal numbers as a tensor: draw(shape) or draw(shape, dtype)."""

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).to(dtype)

    return normal


@pytest.fixture
def thread_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """One and two threads; also for small arrays, which would run on one."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only: needs a machine with two cores")
    monkeypatch.setattr(parallel, "WORK_PER_THREAD", 1.0)
    before = numba.get_num_threads()
    yield 1, 2
    numba.set_num_threads(before)


@pytest.fixture
def geometries(rng: np.random.Generator) -> list[Geometry]:
    """Random tilts that reach both branches of Joseph's method, every hz, odd and even sizes."""
    result = []
    for hz in (0.5, 1.0, 2.0, 4.0):
        for parity in (0, 1):
            angles = torch.from_numpy(rng.uniform(-1.5, 1.5, 6))
            angles[0], angles[1] = 0.0, math.pi / 4
            n_s, n_z, n_x = (2 * int(n) + parity for n in rng.integers(3, 10, 3))
            result.append(Geometry(angles, n_s + 1 - 2 * parity, (n_z, n_x), hz))
    return result


@pytest.fixture
def distance() -> Callable[[Tensor, Tensor], float]:
    """Largest difference relative to the largest value of the second argument; NaN counts as infinitely far."""

    def relative(found: Tensor, expected: Tensor) -> float:
        found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
        assert found.shape == expected.shape
        error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        return math.inf if math.isnan(error) else error

    return relative
