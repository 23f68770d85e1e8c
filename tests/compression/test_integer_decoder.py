"""The integer decoder: the same integers from other arithmetic and in any order, close to the float decoder."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gigascope.compression import background
from gigascope.compression.correction.integer_decoder import (
    HALF_LOG2_E,
    LIMIT_MARGIN,
    background_field,
    integer_field,
    prepare,
)
from gigascope.compression.gmix import exact
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError, UserError
from gigascope.kernels import gaussians
from gigascope.kernels.integer_field import layout

SHAPE = (20, 40, 50)
ROI = tuple(slice(0, n) for n in SHAPE)
LAW = {"offset": 92.0, "scale": 3471.0, "c_max": 3.5, "eps": 7e-4, "dtype": "uint16"}


def random_mixture(rng: np.random.Generator, n: int, shape: tuple[int, ...] = SHAPE) -> Mixture:
    """Scales of 0.45 to 9 voxels, any rotation, both signs, three decades of amplitude, some means outside."""
    means = rng.uniform(-3, np.array(shape) + 3, (n, 3))
    log_scales = rng.uniform(math.log(0.45), math.log(9), (n, 3))
    amplitudes = rng.choice([-1, 1], n) * 10 ** rng.uniform(-3.5, 0, n)
    columns = means, log_scales, rng.standard_normal((n, 4)), amplitudes
    return Mixture(*(torch.from_numpy(c.astype(np.float32)) for c in columns))


def random_grid(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(0, 0.1, background.grid_shape(shape)).astype(np.float32))


def python_exp(x: float) -> float:
    """:func:`exact.exp` in Python's floats, which are IEEE doubles and never fused."""
    k = round(x * exact.LOG2_E)
    r = (x - k * exact.LN2_HIGH) - k * exact.LN2_LOW
    value = exact.EXP[-1]
    for coefficient in reversed(exact.EXP[:-1]):
        value = value * r + coefficient
    return math.ldexp(value, k)


def python_row(mean: list[float], log_scales: list[float], q: list[float], amplitude: float) -> list[int]:
    """Anchor, coefficients and amplitude of one Gaussian in Python's floats, operation by operation."""
    weights = [HALF_LOG2_E / (s * s) for s in (python_exp(v) for v in log_scales)]
    norm = math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    w, x, y, z = (v / norm for v in q)
    axes = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]

    def form(j: int, k: int) -> float:
        a, b, c = (axes[j][m] * axes[k][m] * weights[m] for m in range(3))
        return a + b + c

    anchor = [round(m) for m in mean]
    d = [m - a for m, a in zip(mean, anchor)]
    pull = [form(j, 0) * d[0] + form(j, 1) * d[1] + form(j, 2) * d[2] for j in range(3)]
    constant = pull[0] * d[0] + pull[1] * d[1] + pull[2] * d[2]
    values = [constant, *(-2 * p for p in pull), *(form(j, j) for j in range(3))]
    values += [2 * form(0, 1), 2 * form(0, 2), 2 * form(1, 2)]
    amplitude = amplitude * LAW["scale"]
    return [*anchor, *(round(v * 2.0**32) for v in values), round(amplitude * 2.0**12)]


def test_coefficients_are_those_of_python_floats(rng):
    """No function of a library, no fused operation, no reordered sum has a part in them."""
    mixture = random_mixture(rng, 300)
    mixture.amplitudes.sign_().mul_(0.5)  # so that all of them are kept, in order
    rows = prepare(mixture, random_grid(rng), **LAW).gaussians
    assert len(rows) == 300
    found = torch.cat((rows[:, : layout.LIMIT], rows[:, layout.AMPLITUDE, None]), dim=1).tolist()
    assert found == [python_row(*arguments) for arguments in zip(*(column.tolist() for column in mixture.tensors))]


def test_limits_are_the_cuts_of_the_mixture(rng):
    mixture = random_mixture(rng, 300)
    mixture.amplitudes[mixture.amplitudes.abs() < 1e-3] = 0.5 * LAW["eps"]  # nowhere above eps: left out
    rows = prepare(mixture, random_grid(rng), **LAW).gaussians
    cuts = mixture.cuts(LAW["c_max"], LAW["eps"]).double()
    expected = HALF_LOG2_E * cuts[cuts > 0].square() - LIMIT_MARGIN
    # float32 cuts of up to 3.5 are squared
    torch.testing.assert_close(rows[:, layout.LIMIT].double() / 2**32, expected, rtol=0, atol=1e-5)


def test_close_to_the_decoder_in_floating_point(rng):
    mixture, grid = random_mixture(rng, 60), random_grid(rng)
    found = integer_field(mixture, grid, ROI, **{**LAW, "offset": 20000.0})
    field = gaussians.evaluate(*mixture.tensors, mixture.cuts(LAW["c_max"], LAW["eps"]), SHAPE)
    expected = (field + background.interpolate(grid, background.CELL, (0, 0, 0), SHAPE)) * LAW["scale"] + 20000.0
    error = (found - expected.double()).abs()
    # rounding alone gives 0.29; a voxel on the very surface of a cut may fall on either side of it
    assert error.square().mean().sqrt() < 0.5
    assert (error > 0.51 + 1e-3 * field.abs().max()).double().mean() < 1e-3


def test_a_region_is_the_crop_of_the_whole(rng):
    mixture, grid = random_mixture(rng, 60), random_grid(rng)
    prepared = prepare(mixture, grid, **LAW)
    whole = prepared.region(ROI)
    for _ in range(5):
        low = [int(rng.integers(0, n)) for n in SHAPE]
        roi = [slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(low, SHAPE)]
        assert torch.equal(prepared.region(roi), whole[tuple(roi)])


def test_order_and_gaussians_elsewhere_do_not_matter(rng):
    mixture, grid = random_mixture(rng, 60), random_grid(rng)
    whole = integer_field(mixture, grid, ROI, **LAW)
    shuffled = mixture[torch.from_numpy(rng.permutation(60))]
    far = random_mixture(rng, 20).moved((0.0, 500.0, 0.0))
    assert torch.equal(integer_field(Mixture.concatenate([far, shuffled]), grid, ROI, **LAW), whole)


def test_background_is_trilinear_between_the_centres_of_cells(rng):
    grid = torch.from_numpy(rng.integers(0, 1 << 30, (2, 3, 2)))
    found = background_field(grid, background.CELL, (0, 0, 0), (40, 70, 50))
    expected = background.interpolate(grid.double().float(), background.CELL, (0, 0, 0), (40, 70, 50))
    assert (found.double() - expected.double()).abs().max() < 1024  # float32 of 2^30, a few operations
    other = background_field(grid, (12, 10, 9), (3, 5, 7), (4, 5, 6))
    expected = background.interpolate(grid.double().float(), (12, 10, 9), (3, 5, 7), (4, 5, 6))
    assert (other.double() - expected.double()).abs().max() < 1024


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_values_stay_within_the_dtype(rng, dtype):
    limits = np.iinfo(dtype)
    law = {**LAW, "offset": float(limits.min), "scale": float(limits.max) - float(limits.min), "dtype": dtype}
    mixture = random_mixture(rng, 200)
    mixture.amplitudes.mul_(20)
    found = integer_field(mixture, random_grid(rng), ROI, **law)
    assert found.dtype == torch.int32
    assert int(found.min()) == limits.min
    assert int(found.max()) == limits.max


def test_no_gaussians_leave_the_background(rng):
    found = integer_field(Mixture.empty(), torch.full((1, 2, 2), 0.25), ROI, **LAW)
    assert (found == round(92 + 0.25 * 3471)).all()


@pytest.mark.parametrize("dtype", ["float32", "uint32", "int64"])
def test_other_dtypes_are_refused(rng, dtype):
    with pytest.raises(UserError, match="8 or 16 bits"):
        prepare(random_mixture(rng, 3), random_grid(rng), **{**LAW, "dtype": dtype})


@pytest.mark.parametrize(
    ("column", "value"), [(0, 2e9), (0, math.nan), (1, -4.0), (1, 5.0), (1, 1e4), (1, math.nan), (2, 0.0), (3, 1e4)]
)
def test_gaussians_beyond_the_integers_are_refused(rng, column, value):
    mixture = random_mixture(rng, 3)
    mixture.tensors[column][1] = value
    with pytest.raises(UserError, match="Gaussian 1 "):
        prepare(mixture, random_grid(rng), **LAW)


def test_a_region_needs_a_box(rng):
    with pytest.raises(ShapeError):
        prepare(random_mixture(rng, 3), random_grid(rng), **LAW).region((slice(0, 4), slice(3, 3), slice(0, 4)))


def test_the_extremes_of_scale_fit(rng):
    """Exponents far from the ellipsoid must not wrap around into it: needles of 0.1 by 128 voxels, turned."""
    n = 8
    scales = torch.tensor([[0.11, 0.11, 127.0]] * n).log()
    columns = rng.uniform(0, 200, (n, 3)), scales, rng.standard_normal((n, 4)), np.ones(n)
    needles = Mixture(*(torch.as_tensor(c, dtype=torch.float32) for c in columns))
    rows = prepare(needles, torch.zeros(7, 7, 7), **LAW).gaussians
    low, high = rows[:, layout.LOW], rows[:, layout.HIGH]
    for corner in range(8):
        t = torch.where(torch.tensor([corner >> k & 1 for k in range(3)]) == 1, high, low) - rows[:, layout.ANCHOR]
        exact_values = [
            r[layout.CONSTANT]
            + sum(b * v for b, v in zip(r[layout.LINEAR], p))
            + sum(s * v * v for s, v in zip(r[layout.SQUARE], p))
            + r[10] * p[0] * p[1] + r[11] * p[0] * p[2] + r[12] * p[1] * p[2]
            for r, p in zip(rows.tolist(), t.tolist())
        ]  # fmt: skip
        assert max(abs(v) for v in exact_values) < 1 << 62
