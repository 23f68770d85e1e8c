"""Band-passed correlation: planted shifts, limits and filters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gigascope.tomography.correlation import Correlator, band_pass, edge_taper, frame_taper, vertex


def smooth_pair(rng: np.random.Generator, shape: tuple[int, int], shift: np.ndarray) -> list[torch.Tensor]:
    """A smooth random image, and the same with its content moved by `shift`, both exact (Fourier series)."""
    k = np.array([(a, b) for a in range(-6, 7) for b in range(-6, 7) if (a, b) > (0, 0)])
    amplitude, phase = rng.normal(size=len(k)), rng.uniform(0, 2 * np.pi, len(k))
    images = []
    for move in (np.zeros(2), shift):
        s, y = np.mgrid[: shape[0], : shape[1]] - move[:, None, None]
        turns = k[:, 0, None, None] * s / 97.0 + k[:, 1, None, None] * y / 89.0
        waves = np.cos(2 * np.pi * turns + phase[:, None, None])
        images.append(torch.from_numpy(np.tensordot(amplitude, waves, 1)).float())
    return images


@pytest.mark.parametrize("shape", [(96, 80), (81, 128)])
def test_planted_shift_is_found_to_a_tenth_of_a_pixel(shape: tuple[int, int], rng: np.random.Generator) -> None:
    correlator = Correlator(shape, 0.12, 0.015, 20.0, "cpu")
    window = frame_taper(shape, 0.12)
    shift = rng.uniform(-3.0, 3.0, 2)
    a, b = smooth_pair(rng, shape, shift)
    peak = correlator.peak(correlator.spectrum(a, window), correlator.spectrum(b, window))
    # the window is not shifted along, which draws the peak towards zero by a few percent
    np.testing.assert_allclose(peak.shift, shift, atol=0.35)
    assert peak.height > 0.7
    assert not peak.at_limit


def test_correlation_of_an_image_with_itself_is_one_at_zero(rng: np.random.Generator) -> None:
    correlator = Correlator((50, 61), 0.2, 0.0, 9.0, "cpu")
    spectrum = correlator.spectrum(torch.from_numpy(rng.normal(size=(50, 61))).float(), torch.ones(50, 61))
    peak = correlator.peak(spectrum, spectrum)
    assert peak.height == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(peak.shift, 0.0, atol=1e-5)
    # brightness and contrast do not matter
    other = correlator.spectrum(torch.zeros(50, 61), torch.ones(50, 61))
    assert correlator.peak(spectrum, other).height == 0.0


def test_shift_beyond_the_search_is_reported_as_no_peak(rng: np.random.Generator) -> None:
    image = torch.zeros(64, 64)
    image[20:28, 20:28] = 1.0
    moved = torch.roll(image, (9, 0), (0, 1))
    correlator = Correlator((64, 64), 0.12, 0.0, 6.0, "cpu")
    window = torch.ones(64, 64)
    peak = correlator.peak(correlator.spectrum(image, window), correlator.spectrum(moved, window))
    assert peak.at_limit
    assert abs(peak.shift[0]) <= 6.5


def test_band_pass_keeps_the_band_and_removes_the_mean() -> None:
    filter_ = band_pass((64, 48), 0.12, 0.015, half=False)
    assert filter_[0, 0] == 0.0
    k = torch.hypot(torch.fft.fftfreq(64)[:, None], torch.fft.fftfreq(48)[None, :])
    expected = torch.exp(-(k**2) / (2 * 0.12**2)) * (1 - torch.exp(-(k**2) / (2 * 0.015**2)))
    torch.testing.assert_close(filter_, expected)
    torch.testing.assert_close(band_pass((64, 48), 0.12, 0.015), filter_[:, :25])
    assert band_pass((8, 8), 0.1, 0.0)[0, 0] == 0.0


def test_taper_is_symmetric_rises_at_the_ends_and_is_one_inside() -> None:
    taper = edge_taper(20, 4.0)
    assert torch.equal(taper, taper.flip(0))
    assert (taper[4:16] == 1.0).all()
    assert (torch.diff(taper[:5]) > 0).all()


def test_vertex_of_a_parabola_is_exact(rng: np.random.Generator) -> None:
    top = rng.uniform(-0.5, 0.5)
    assert vertex(*(-((x - top) ** 2) for x in (-1, 0, 1))) == pytest.approx(top)
    assert vertex(1.0, 0.0, 1.0) == 0.0
    assert math.isclose(vertex(0.0, 1.0, 1.0), 0.5)
