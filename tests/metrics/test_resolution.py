"""Fourier correlation: identities, known spectra, wedge and thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.metrics.resolution import (
    CorrelationCurve,
    crossing,
    frc,
    fsc,
    inside_wedge,
    resolution_length,
    taper_window,
)


def test_frc_of_an_image_with_itself_is_one(rng: np.random.Generator) -> None:
    image = rng.normal(size=(33, 48)).astype(np.float32)
    curve = frc(image, 3.0 * image + 7.0)
    assert np.allclose(curve.correlation[curve.n_samples > 0][1:], 1.0, atol=1e-4)


def test_frc_of_the_negative_is_minus_one(rng: np.random.Generator) -> None:
    image = rng.normal(size=(32, 32))
    assert np.allclose(frc(image, -image).correlation[1:], -1.0)


def test_frc_of_independent_noise_is_zero_within_its_sampling_error(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 128, 128))
    curve = frc(a, b, window=torch.ones(128, 128))
    # the correlation of n / 2 independent complex samples has standard deviation sqrt(2 / n)
    sigma = np.sqrt(2.0 / np.maximum(curve.n_samples, 1))
    assert np.all(np.abs(curve.correlation[3:]) < 5 * sigma[3:])


def test_frc_with_known_signal_to_noise_is_their_ratio(rng: np.random.Generator) -> None:
    signal = rng.normal(size=(16, 96, 96))
    a, b = (signal + 0.5 * rng.normal(size=signal.shape) for _ in range(2))
    curve = frc(a, b)
    expected = 1.0 / (1.0 + 0.25)
    assert abs(np.average(curve.correlation[5:], weights=curve.n_samples[5:]) - expected) < 0.01
    assert abs(np.average(curve.full().correlation[5:], weights=curve.n_samples[5:]) - 2 * 0.8 / 1.8) < 0.01


@pytest.mark.parametrize("shape", [(16, 16), (15, 22), (22, 15)])
def test_ring_counts_equal_those_of_the_whole_spectrum(shape: tuple[int, int]) -> None:
    curve = frc(np.ones(shape), np.ones(shape))
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :])
    shell = np.rint(k * max(shape)).astype(int)[k <= 0.5]
    assert np.array_equal(np.bincount(shell, minlength=max(shape) // 2 + 1), curve.n_samples)


def test_fsc_counts_only_the_wedge(rng: np.random.Generator) -> None:
    # same inside the measured wedge, independent outside: 1 with the wedge given, less without it
    shape = (24, 20, 32)
    common, other_a, other_b = (np.fft.fftn(rng.normal(size=shape)) for _ in range(3))
    k_z, k_x = np.fft.fftfreq(24)[:, None, None], np.fft.fftfreq(32)[None, None, :]
    low, high = math.radians(-50), math.radians(62)
    inside = inside_wedge(torch.tensor(k_z), torch.tensor(k_x), (low, high)).numpy()
    inside = np.broadcast_to(inside & np.roll(inside[::-1, :, ::-1], (1, 1), (0, 2)), shape)
    a, b = (np.fft.ifftn(np.where(inside, common, other)).real for other in (other_a, other_b))
    ones = torch.ones(shape)
    with_wedge = fsc(a, b, wedge=(low, high), window=ones)
    assert with_wedge.correlation[1:].min() > 0.97
    assert fsc(a, b, window=ones).correlation[3:].max() < 0.97
    swapped = fsc(a.swapaxes(1, 2), b.swapaxes(1, 2), wedge=(low, high), wedge_axis=1, window=ones.mT)
    np.testing.assert_allclose(swapped.correlation, with_wedge.correlation, atol=1e-9)


def test_wedge_of_the_full_range_holds_everything() -> None:
    k = torch.fft.fftfreq(9, dtype=torch.float64)
    assert inside_wedge(k[:, None], k[None, :], (-math.pi / 2, math.pi / 2)).all()


def test_asymmetric_wedge_holds_the_slices_that_were_measured() -> None:
    low, high = math.radians(-20), math.radians(60)
    for degrees, measured in [(-60, False), (-25, False), (-15, True), (0, True), (55, True), (65, False)]:
        t = math.radians(degrees)
        for sign in (1, -1):
            k_x, k_z = torch.tensor(sign * math.cos(t)), torch.tensor(sign * math.sin(t))
            assert bool(inside_wedge(k_z, k_x, (low, high))) is measured


def test_coarse_z_spacing_gives_the_same_frequencies(rng: np.random.Generator) -> None:
    shape = (32, 32, 32)
    k = np.sqrt(sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in shape), indexing="ij")))
    low_pass = np.where(k < 0.2, 1.0, 0.0)
    a, b = (np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * low_pass).real for _ in range(2))
    total = a + b
    fine = fsc(total, a, window=torch.ones(shape))
    coarse = fsc(total[::2], a[::2], spacing=(2.0, 1.0, 1.0), window=torch.ones(16, 32, 32))
    use = slice(2, 6)
    np.testing.assert_allclose(coarse.frequency[use], fine.frequency[use], atol=1e-6)
    np.testing.assert_allclose(coarse.correlation[use], fine.correlation[use], atol=1e-5)


def test_crossing_is_interpolated_and_its_ends_are_said() -> None:
    frequency = np.array([0.0, 0.1, 0.2, 0.3])
    counts = np.full(4, 9)
    falling = CorrelationCurve(frequency, np.array([1.0, 0.9, 0.5, 0.1]), counts)
    assert crossing(falling, 0.7) == pytest.approx(0.15)
    assert crossing(falling, 0.05) == pytest.approx(0.3)
    assert crossing(falling, 0.95) == 0.0
    assert resolution_length(0.25, 2.0) == 8.0
    assert math.isinf(resolution_length(0.0, 2.0))


def test_taper_window_is_symmetric_and_one_inside() -> None:
    window = taper_window((10, 21), 0.2)
    assert torch.allclose(window, window.flip(0, 1))
    assert window.max() == 1.0
    assert window[0, 0] < 0.1


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 4\) and \(4, 5\)"):
        frc(np.zeros((4, 4)), np.zeros((4, 5)))
