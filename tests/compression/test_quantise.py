"""Gaussians as integers: what quantisation loses, that it is stable, and that frames are not mixed up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gigascope.compression.gmix import exact, frames, morton
from gigascope.compression.gmix.quantise import (
    LEVEL_0,
    Quantiser,
    Symbols,
    bits_per_gaussian,
    dequantise,
    quantise,
    straight_through,
    with_amplitudes,
)
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError

SHAPE = (64, 128, 128)
LAWS = [Quantiser(), LEVEL_0, Quantiser(3, 6, 6, 8)]
LAWS += [Quantiser(adaptive=True, theta=theta) for theta in (1e-6, 1e-4, 1e-3, 1e-1)]
IDS = [f"adaptive {law.theta}" if law.adaptive else f"fixed {law.rotation_bits}" for law in LAWS]


def random_mixture(n: int, seed: int) -> Mixture:
    """Anywhere in the brick, aspect up to 8, amplitudes over three decades, some negative, some round."""
    print(f"seed {seed}")
    rng = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=rng)

    log_scales = torch.log(0.45 + 3.5 * uniform(n, 3))
    log_scales[: n // 8, 1] = log_scales[: n // 8, 0]
    log_scales[: n // 16] = log_scales[: n // 16, :1]
    sign = torch.where(uniform(n) < 0.15, -1.0, 1.0)
    means = uniform(n, 3) * torch.tensor(SHAPE) - 0.5
    return Mixture(means, log_scales, torch.randn(n, 4, generator=rng), sign * 10 ** (-3 * uniform(n)))


def squared_errors(one: Mixture, other: Mixture) -> torch.Tensor:
    """(N,) float64, integral of the squared difference of each pair of Gaussians."""

    def product(c_1: torch.Tensor, c_2: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        c = c_1 + c_2
        size = torch.sqrt(torch.linalg.det(c_1) * torch.linalg.det(c_2) / torch.linalg.det(c))
        return (2 * math.pi) ** 1.5 * size * torch.exp(-(d * torch.linalg.solve(c, d)).sum(1) / 2)

    c_1, c_2 = one.covariances().double(), other.covariances().double()
    a_1, a_2 = one.amplitudes.double(), other.amplitudes.double()
    d = (one.means - other.means).double()
    return a_1**2 * product(c_1, c_1, 0 * d) + a_2**2 * product(c_2, c_2, 0 * d) - 2 * a_1 * a_2 * product(c_1, c_2, d)


def fresh_seed() -> int:
    return int(np.random.SeedSequence().generate_state(1)[0])


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_what_was_dequantised_quantises_to_the_same_integers(law: Quantiser) -> None:
    mixture = random_mixture(3000, fresh_seed())
    symbols, rows = quantise(mixture, SHAPE, law)
    again, kept = quantise(dequantise(symbols, SHAPE, law), SHAPE, law)
    for column, same in zip(symbols.columns, again.columns):
        np.testing.assert_array_equal(column, same)
    np.testing.assert_array_equal(kept, np.arange(3000))
    assert sorted(rows) == list(range(3000))


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_order_of_rows_does_not_depend_on_the_order_they_come_in(law: Quantiser) -> None:
    mixture = random_mixture(500, fresh_seed())
    shuffled = mixture[torch.randperm(500)]
    for column, same in zip(quantise(mixture, SHAPE, law)[0].columns, quantise(shuffled, SHAPE, law)[0].columns):
        np.testing.assert_array_equal(column, same)


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_equal_ellipsoids_have_equal_integers(law: Quantiser) -> None:
    symbols = quantise(random_mixture(800, fresh_seed()), SHAPE, law)[0]
    if not law.adaptive:  # with the fixed law the frame of an ellipsoid of revolution is whichever was given
        symbols = symbols[(np.diff(symbols.scales) != 0).all(1)]
    mixture = dequantise(symbols, SHAPE, law)
    order = torch.tensor([2, 0, 1])
    turned = frames.multiply(mixture.quaternions, torch.tensor([[0.5, -0.5, -0.5, -0.5]]).expand(len(mixture), 4))
    turned = frames.multiply(turned, torch.tensor([[0.0, 0.0, -3.0, 0.0]]).expand(len(mixture), 4))
    other = Mixture(mixture.means, mixture.log_scales[:, order], turned, mixture.amplitudes)
    assert torch.allclose(other.covariances(), mixture.covariances(), atol=1e-4)
    for column, same in zip(quantise(mixture, SHAPE, law)[0].columns, quantise(other, SHAPE, law)[0].columns):
        np.testing.assert_array_equal(column, same)


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_straight_through_gives_the_decoded_field_in_the_given_frames(law: Quantiser) -> None:
    mixture = random_mixture(2000, fresh_seed())
    symbols, rows = quantise(mixture, SHAPE, law)
    decoded, through = dequantise(symbols, SHAPE, law), straight_through(mixture, SHAPE, law)[torch.from_numpy(rows)]
    # the same numbers in another frame: float32 rounding of quaternions and of what is made from them
    torch.testing.assert_close(through.means, decoded.means, atol=0, rtol=0)
    torch.testing.assert_close(through.amplitudes, decoded.amplitudes, atol=0, rtol=0)
    torch.testing.assert_close(through.covariances(), decoded.covariances(), atol=2e-5, rtol=1e-5)
    if not law.adaptive or law.theta < 1e-5:
        given = mixture[torch.from_numpy(rows)]
        assert (through.log_scales - given.log_scales).abs().median() < 0.05
        unlike = given.log_scales.max(1).values - given.log_scales.min(1).values > 0.5
        assert (through.rotations() - given.rotations())[unlike].abs().median() < 0.02


def test_adaptive_steps_spend_theta_on_every_parameter() -> None:
    theta = 1e-6
    mixture = random_mixture(4000, fresh_seed())[slice(500, None)]
    law = Quantiser(adaptive=True, theta=theta, delta_min=1e-4)
    symbols, rows = quantise(mixture, SHAPE, law)
    errors = squared_errors(mixture[torch.from_numpy(rows)], dequantise(symbols, SHAPE, law))
    # Ten parameters, to second order, so of Gaussians above ten steps. Half octaves of the class make single ones
    # differ by up to 1.5 either way: the mean of a thousand is within a few per cent.
    size = torch.from_numpy(np.abs(symbols.amplitude))
    for low, high in ((12, 48), (48, 192), (192, 1 << 20)):
        assert errors[(size >= low) & (size < high)].mean() == pytest.approx(10 * theta, rel=0.15)


def test_fixed_steps_round_to_the_nearest() -> None:
    law = Quantiser()
    mixture = random_mixture(2000, fresh_seed())
    symbols, rows = quantise(mixture, SHAPE, law)
    given, back = mixture[torch.from_numpy(rows)], dequantise(symbols, SHAPE, law)
    assert (given.means - back.means).abs().max() <= 1 / 32 + 1e-5
    step = math.log(50) / 255
    assert (given.log_scales.sort(1, descending=True).values - back.log_scales).abs().max() <= step / 2 + 1e-6
    assert (given.amplitudes.sign() == back.amplitudes.sign()).all()
    root = back.amplitudes.abs().sqrt() - given.amplitudes.abs().sqrt()
    assert root.abs().max() <= 0.5 / 511 + 1e-6


def test_means_outside_are_clamped_and_extreme_scales_kept_in_range() -> None:
    for law in LAWS:
        means = torch.tensor([[-3.0, 500.0, 127.5], [-0.5, 127.499, 63.0]])
        mixture = Mixture(means, torch.tensor([[9.0, -9.0, 0.0]] * 2), torch.randn(2, 4), torch.tensor([1e-9, -0.3]))
        back = dequantise(quantise(mixture, SHAPE, law)[0], SHAPE, law)
        assert (back.means >= -0.5).all()
        assert (back.means < torch.tensor(SHAPE) - 0.5).all()
        assert torch.isfinite(back.log_scales).all()
        low, high = law.log_range
        slack = 0.5 if law.adaptive else 1e-6
        assert back.log_scales.min() >= low - slack
        assert back.log_scales.max() <= high + slack


def test_no_gaussians_and_zero_quaternions() -> None:
    for law in LAWS:
        symbols, rows = quantise(Mixture.empty(), SHAPE, law)
        assert len(symbols) == len(rows) == len(dequantise(Symbols.empty(), SHAPE, law)) == 0
        assert len(straight_through(Mixture.empty(), SHAPE, law)) == 0
        still = Mixture(torch.ones(1, 3), torch.tensor([[1.0, 0.5, 0.0]]), torch.zeros(1, 4), torch.ones(1))
        assert torch.isfinite(dequantise(quantise(still, SHAPE, law)[0], SHAPE, law).quaternions).all()


def test_what_is_not_finite_is_refused() -> None:
    mixture = random_mixture(3, 0)
    mixture.amplitudes[1] = math.nan
    with pytest.raises(ShapeError, match="not finite"):
        quantise(mixture, SHAPE, Quantiser())


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_other_amplitudes_leave_the_geometry(law: Quantiser) -> None:
    symbols, _ = quantise(random_mixture(1000, fresh_seed()), SHAPE, law)
    before = dequantise(symbols, SHAPE, law)
    wanted = before.amplitudes * (1 + 0.1 * torch.randn(1000))
    after = dequantise(with_amplitudes(symbols, wanted, law), SHAPE, law)
    for column, same in zip(after.tensors[:3], before.tensors[:3]):
        torch.testing.assert_close(column, same, atol=0, rtol=0)
    if law.adaptive:
        assert ((after.amplitudes - wanted).abs() <= (before.amplitudes - wanted).abs() + 1e-6).all()
    else:
        root = after.amplitudes.abs().sqrt() - wanted.abs().sqrt().clamp(max=1)
        assert root.abs().max() <= 0.5 / ((1 << (law.amplitude_bits - 1)) - 1) + 1e-6
    again = dequantise(with_amplitudes(symbols, before.amplitudes, law), SHAPE, law)
    torch.testing.assert_close(again.amplitudes, before.amplitudes, atol=0, rtol=0)


def test_finer_steps_take_more_bits() -> None:
    mixture = random_mixture(500, fresh_seed())
    bits = [float(bits_per_gaussian(mixture, SHAPE, law).mean()) for law in LAWS]
    assert bits[2] < bits[0] < bits[1]
    assert sorted(bits[3:], reverse=True) == bits[3:]
    assert 10 < bits[-1] < bits[0] < 90


def test_elementary_functions_agree_with_the_library() -> None:
    x = torch.linspace(-60, 60, 20001, dtype=torch.float64)
    torch.testing.assert_close(exact.exp(x), x.exp(), rtol=1e-15, atol=0)
    x = torch.linspace(0, 7.99, 20001, dtype=torch.float64)
    for ours, theirs in zip(exact.sincos(x), (x.sin(), x.cos())):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=4e-16)
    assert exact.log(0.4) == pytest.approx(math.log(0.4), rel=1e-15)


def test_z_order_round_trip_and_locality() -> None:
    rng = np.random.default_rng(fresh_seed())
    bits = (5, 6, 6)
    points = rng.integers(0, [32, 64, 64], (1000, 3))
    codes = morton.encode(points, bits)
    np.testing.assert_array_equal(morton.decode(codes, bits), points)
    np.testing.assert_array_equal(morton.encode(morton.decode(np.arange(1 << 10), bits), bits), np.arange(1 << 10))
    corners = morton.decode(np.arange(8), bits)
    assert corners.max() == 1
    assert len({tuple(c) for c in corners}) == 8
