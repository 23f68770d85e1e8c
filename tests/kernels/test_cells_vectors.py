"""What the rasterisers' vectors of 16 lanes compute: logarithms, choices, and integers that wrap around."""

from __future__ import annotations

import numpy as np

from gigascope.kernels.cells import packing
from gigascope.kernels.cells.cpu_shading import noise
from gigascope.kernels.parallel import exact_inline_kernel
from gigascope.kernels.simd import exp2, load, multiply, splat, store
from gigascope.kernels.simd_integer import (
    add_integers,
    and_integers,
    multiply_integers,
    shift_right,
    splat_integer,
    to_floats,
    to_integers,
    xor_integers,
)
from gigascope.kernels.simd_select import any_equal, any_smaller, first_lanes_or, log2, where_equal, where_smaller

LANES = 16


@exact_inline_kernel
def _powers(values, exponent, logs, powers):
    for i in range(0, values.size, LANES):
        found = log2(load(values, i))
        store(logs, i, found)
        store(powers, i, exp2(multiply(splat(exponent), found)))


def test_logarithms_are_good_to_their_rounding(rng):
    values = np.concatenate((rng.uniform(0.5, 2, 800), 2.0 ** rng.uniform(-120, 120, 800))).astype(np.float32)
    logs, powers = np.empty_like(values), np.empty_like(values)
    _powers(values, np.float32(0.5), logs, powers)
    expected = np.log2(values.astype(np.float64))
    assert np.all(np.abs(logs - expected) <= 3e-7 * np.maximum(1, np.abs(expected)))
    assert np.allclose(powers[:800], np.sqrt(values[:800]), rtol=1e-6)


@exact_inline_kernel
def _choices(a, b, count, out, flags):
    x, y = load(a, 0), load(b, 0)
    store(out, 0, where_smaller(x, y, x, y))
    store(out, LANES, where_equal(x, y, splat(np.float32(1)), splat(np.float32(0))))
    store(out, 2 * LANES, first_lanes_or(x, count, y))
    flags[0], flags[1] = any_smaller(x, y), any_equal(x, y)


def test_choices_are_made_lane_by_lane(rng):
    a, b = (rng.integers(0, 4, LANES).astype(np.float32) for _ in range(2))
    out, flags = np.empty(3 * LANES, np.float32), np.zeros(2, bool)
    for first, second in ((a, b), (a, a), (a, a - 1)):
        for count in (0, 5, LANES):
            _choices(first, second, count, out, flags)
            lanes = np.arange(LANES) < count
            expected = np.minimum(first, second), first == second, np.where(lanes, first, second)
            assert np.array_equal(out, np.concatenate(expected).astype(np.float32))
            assert flags.tolist() == [bool((first < second).any()), bool((first == second).any())]


@exact_inline_kernel
def _integers(values, factor, out):
    word = multiply_integers(
        add_integers(to_integers(load(values, 0)), splat_integer(np.int32(7))), splat_integer(factor)
    )
    word = xor_integers(word, shift_right(word, splat_integer(np.int32(15))))
    store(out, 0, to_floats(and_integers(word, splat_integer(np.int32(0xFFFFF)))))


def test_integers_wrap_around_as_unsigned_ones(rng):
    values, out = rng.integers(-1000, 1000, LANES).astype(np.float32), np.empty(LANES, np.float32)
    factor = np.uint32(rng.integers(0, 1 << 32))
    _integers(values, factor.view(np.int32), out)
    word = (values.astype(np.int64) + 7) * int(factor) & 0xFFFFFFFF
    assert np.array_equal(out, (word ^ word >> 15) & 0xFFFFF)


@exact_inline_kernel
def _noise(look, keys, points, out):
    for i in range(0, out.size, LANES):
        store(out, i, noise(look, keys, load(points[0], i), load(points[1], i), load(points[2], i)))


def test_noise_has_unit_variance_and_no_mean(rng):
    """One octave over many lattice cells, at places that no lattice knows."""
    n = 1 << 16
    points = rng.uniform(-400, 400, (3, n)).astype(np.float32)
    look = np.zeros(packing.OCTAVE + packing.N_OCTAVE, np.float32)
    look[packing.OCTAVE], look[packing.OCTAVE + 4] = 1, 1 / packing.lattice_deviation()
    out = np.empty(n, np.float32)
    _noise(look, rng.integers(-(2**31), 2**31, 1).astype(np.int32), points, out)
    # nearly independent values, of kurtosis about 3: five standard errors
    assert abs(out.mean()) < 5 / np.sqrt(n)
    assert abs(out.var() - 1) < 5 * np.sqrt(3 / n)
