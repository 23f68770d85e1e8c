"""Vector functions that the Gaussians brought to the CPU kernels: accuracy of the exponential, fixed order of sums."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.kernels.parallel import serial_kernel
from gigascope.kernels.simd import (
    exp2,
    lane_numbers,
    lanes_of,
    load,
    splat_like,
    store,
    take_number,
    total,
    zero_from,
)


@serial_kernel
def _powers(source, target):
    for i in range(0, source.size, lanes_of(source)):
        store(target, i, exp2(load(source, i)))


@serial_kernel
def _sums(source, target):
    lanes = lanes_of(source)
    for i in range(target.size):
        target[i] = total(load(source, i * lanes))


@serial_kernel
def _selected(source, limit, target):
    for i in range(0, source.size, lanes_of(source)):
        store(target, i, zero_from(load(source, i), splat_like(source, limit), lane_numbers(source)))


@serial_kernel
def _numbers(counter, target):
    for i in range(target.size):
        target[i] = take_number(counter)


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 2.2e-7), (np.float64, 3e-16)])
def test_exp2_is_accurate_to_a_few_roundings(rng, dtype, limit):
    exponents = np.concatenate((rng.uniform(-126, 0, 64000), np.arange(-126, 2))).astype(dtype)
    found = np.empty_like(exponents)
    _powers(exponents, found)
    assert np.abs(found / np.exp2(exponents.astype(np.longdouble)) - 1).max() < limit


@pytest.mark.parametrize(("dtype", "lanes"), [(np.float32, 16), (np.float64, 8)])
def test_total_adds_halves_upon_halves(rng, dtype, lanes):
    values = rng.standard_normal((50, lanes)).astype(dtype)
    found, expected = np.empty(50, dtype), values
    _sums(values.reshape(-1), found)
    while expected.shape[1] > 1:
        half = expected.shape[1] // 2
        expected = expected[:, :half] + expected[:, half:]
    assert (found == expected[:, 0]).all()


def test_zero_from_keeps_what_is_not_a_number():
    source = np.zeros(16, np.float32)
    source[3], source[4], source[5] = 2.0, np.nan, 1.99
    found = np.empty_like(source)
    _selected(source, 2.0, found)
    expected = np.arange(16)
    expected[3] = 0
    assert (found == expected).all()


def test_numbers_are_given_out_once():
    counter, found = np.zeros(2, np.int64), np.empty(5, np.int64)
    _numbers(counter, found)
    assert found.tolist() == [0, 1, 2, 3, 4]
    assert counter.tolist() == [5, 0]
