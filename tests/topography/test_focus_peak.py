"""Peaks of sharpness: known curves, invariances, ends, blank stacks, tiles, and simulated relief."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
import torch
from scipy import ndimage

from gigascope.errors import ShapeError
from gigascope.topography.focus.peak import METHODS, FocusPeak, Method, estimate_peak
from gigascope.topography.focus.stream import combine, focus_peak, pull_push, settle

N_Z, SIZE = 13, 40
METHOD = get_args(Method)


def peaks(rng: np.random.Generator) -> torch.Tensor:
    """True indices away from the ends."""
    return torch.from_numpy(rng.uniform(2.5, N_Z - 3.5, (SIZE, SIZE)).astype(np.float32))


def curves(true: torch.Tensor, shape: str) -> torch.Tensor:
    """Sharpness that is what one of the methods takes it for."""
    away = torch.arange(N_Z)[:, None, None] - true
    if shape == "parabola":
        return (1.0 - 0.02 * away**2).clamp_min(0.01)
    if shape == "log_parabola":
        return torch.exp(-(away**2) / 2.0 / 1.5**2)
    return (1.0 + (away / 1.2) ** 2) ** (-1.0 / 1.5)


@pytest.mark.parametrize("method", ["parabola", "log_parabola"])
def test_an_estimator_is_exact_on_its_own_curve(method: Method, rng: np.random.Generator) -> None:
    true = peaks(rng)
    found = estimate_peak(curves(true, method), method).index
    # float32 differences of values near 1 with a curvature of 0.04: 6e-8 / 0.04 times a few
    assert float((found - true).abs().max()) < 1e-4


def test_lens_is_nearly_exact_on_a_lens_curve_in_noise_of_any_level(rng: np.random.Generator) -> None:
    true = peaks(rng)
    for noise in (0.0, 0.1, 0.4):
        volume = (curves(true, "lens") ** 2 + noise**2).sqrt()
        error = {m: float((estimate_peak(volume, m).index - true).square().mean().sqrt()) for m in METHODS}
        # the noise is taken from the least sample, in which some signal is left
        assert error["lens"] < 0.05
        assert error["lens"] == min(error.values()), error
        assert error["argmax"] == pytest.approx(12**-0.5, rel=0.1)


@pytest.mark.parametrize("method", METHOD)
def test_index_follows_a_turned_and_a_shifted_stack(method: Method, rng: np.random.Generator) -> None:
    true = peaks(rng)
    volume = curves(true, "log_parabola")
    found = estimate_peak(volume, method)
    turned = estimate_peak(volume.flip(0), method)
    torch.testing.assert_close(turned.index, N_Z - 1 - found.index, atol=1e-4, rtol=0)
    torch.testing.assert_close(turned.confidence, found.confidence, atol=1e-4, rtol=0)
    wide = curves(true + 3.0, "log_parabola")
    assert float((estimate_peak(wide[3:], method).index - estimate_peak(volume[:-3], method).index).abs().max()) < 1.0


@pytest.mark.parametrize("method", METHOD)
def test_index_does_not_depend_on_contrast(method: Method, rng: np.random.Generator) -> None:
    volume = curves(peaks(rng), "lens") * 0.1
    once, twice = estimate_peak(volume, method), estimate_peak(2.0 * volume, method)
    torch.testing.assert_close(once.index, twice.index, atol=1e-4, rtol=0)
    torch.testing.assert_close(2.0 * once.sharpness, twice.sharpness)
    torch.testing.assert_close(once.curvature, twice.curvature, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", METHOD)
def test_a_peak_at_an_end_stays_there_with_less_confidence(method: Method) -> None:
    rising = torch.linspace(0.1, 1.0, N_Z)[:, None, None].expand(N_Z, 3, 3)
    inside = curves(torch.full((3, 3), 6.0), "lens")
    for volume, end in ((rising, N_Z - 1), (rising.flip(0), 0)):
        found = estimate_peak(volume, method)
        assert float((found.index - end).abs().max()) <= (1.0 if method == "centroid" else 0.0)
        assert bool((found.confidence <= 0.5).all())
    assert bool((estimate_peak(inside, method).confidence > 0.9).all())


@pytest.mark.parametrize("level", [0.0, 7.0, 255.0], ids=["dark", "flat", "saturated"])
def test_a_blank_stack_has_no_confidence_and_no_nan(level: float) -> None:
    stack = np.full((7, 80, 90), level, np.uint8)
    found = focus_peak(stack)
    for field in fields(FocusPeak):
        assert bool(torch.isfinite(getattr(found, field.name)).all()), field.name
    assert float(found.confidence.max()) == 0.0
    assert bool(torch.isfinite(settle(found)).all())


def test_nan_in_the_sharpness_does_not_spread(rng: np.random.Generator) -> None:
    volume = curves(peaks(rng), "lens")
    volume[:, 5, 5] = torch.nan
    found = estimate_peak(volume)
    assert float(found.confidence[5, 5]) == 0.0
    assert bool(torch.isfinite(found.index).all())


def test_noise_alone_is_not_trusted_and_texture_is(rng: np.random.Generator) -> None:
    noise = np.clip(rng.normal(100, 2, (17, 128, 128)), 0, 255).astype(np.uint8)
    stack, _ = relief(rng, 128)
    for sigma in (8.0, 4.0):
        blank = focus_peak(noise, method="lens", sigmas=(sigma,)).confidence
        textured = focus_peak(stack, method="lens", sigmas=(sigma,)).confidence
        # along the borders the window sees half as much, and S fluctuates more
        assert float((blank[20:-20, 20:-20] > 0.5).float().mean()) < 0.02
        assert float((textured > 0.5).float().mean()) > 0.9


def relief(rng: np.random.Generator, size: int, n_z: int = 17, step_px: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """A stack of a smooth textured surface, defocus blur growing by `step_px` per slice, and its index map."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf

    def field(power: float) -> np.ndarray:
        spectrum = np.fft.rfft2(rng.normal(size=(size, size))) * frequency**-power
        values = np.fft.irfft2(spectrum, s=(size, size))
        return values / values.std()

    albedo = np.clip(0.4 * np.exp(0.35 * field(0.8)), 0.02, 1.0)
    index = (n_z - 1) / 2 + np.clip(1.2 * field(3.0), -(n_z - 7) / 2, (n_z - 7) / 2)
    widths = 0.9 * np.sqrt(2.0) ** np.arange(10)
    blurred = np.stack([ndimage.gaussian_filter(albedo, w, mode="wrap") for w in widths])
    rows, columns = np.indices((size, size))
    stack = np.empty((n_z, size, size), np.uint8)
    for k in range(n_z):
        width = np.sqrt(0.9**2 + (step_px * (k - index)) ** 2)
        level = np.clip(2 * np.log2(width / 0.9), 0, len(widths) - 1.001)
        low = level.astype(int)
        part = level - low
        image = (1 - part) * blurred[low, rows, columns] + part * blurred[low + 1, rows, columns]
        electrons = rng.poisson(image * 55**2 / 0.4)
        stack[k] = np.clip(electrons / (55**2 / 0.4) * 230, 0, 255).round()
    return stack, index.astype(np.float32)


def rmse(found: torch.Tensor, true: np.ndarray, border: int = 20) -> float:
    error = (found.numpy() - true)[border:-border, border:-border]
    return float(np.sqrt(np.mean((error - np.median(error)) ** 2)))


def test_combined_is_at_least_as_good_as_the_best_single_estimator(rng: np.random.Generator) -> None:
    stack, index = relief(rng, 192)
    errors = {method: rmse(focus_peak(stack, method=method).index, index) for method in METHODS}
    print(errors)
    combined = rmse(settle(focus_peak(stack)), index)
    # argmax: 1 / sqrt(12) of a slice, a little more where the window mixes heights
    assert 0.25 < errors["argmax"] < 0.4
    assert combined < 1.05 * min(errors.values())
    assert combined < 0.85 * errors["log_parabola"]


def test_result_does_not_depend_on_the_tiles(rng: np.random.Generator) -> None:
    stack, _ = relief(rng, 160, n_z=9)
    whole = focus_peak(stack)
    # the smallest tile there is: 32 rows
    tiled = focus_peak(stack, working_bytes=1)
    for field in fields(FocusPeak):
        torch.testing.assert_close(getattr(tiled, field.name), getattr(whole, field.name), atol=2e-4, rtol=2e-4)


def test_only_blocks_of_rows_are_read(rng: np.random.Generator) -> None:
    stack, _ = relief(rng, 320, n_z=9)
    read: list[tuple[int, int]] = []

    class Watched:
        shape = stack.shape

        def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
            block = stack[key]
            read.append(block.shape[:2])
            return block

    focus_peak(Watched(), working_bytes=1)
    assert max(rows for _, rows in read) <= 32 + 2 * 33
    assert max(slices for slices, _ in read) <= 8


def test_colour_and_grey_of_the_same_picture_agree(rng: np.random.Generator) -> None:
    stack, _ = relief(rng, 96, n_z=9)
    grey = focus_peak(stack)
    colour = focus_peak(np.repeat(stack[..., None], 3, axis=3))
    torch.testing.assert_close(colour.index, grey.index, atol=1e-3, rtol=0)
    wide = focus_peak(stack.astype(np.uint16))
    torch.testing.assert_close(wide.index, grey.index)


def test_combine_takes_the_fine_window_at_an_edge_and_the_coarse_in_noise() -> None:
    def maps(index: float, confidence: float) -> FocusPeak:
        return FocusPeak(torch.full((1, 1), index), torch.ones(1, 1), torch.ones(1, 1), torch.full((1, 1), confidence))

    edge = combine([maps(5.0, 0.99), maps(8.0, 0.98)])
    assert float(edge.index) == pytest.approx(8.0, abs=0.05)
    noisy = combine([maps(5.0, 0.99), maps(8.0, 0.0)])
    assert float(noisy.index) == pytest.approx(5.0, abs=0.05)


def test_settle_fills_the_doubtful_from_around_and_keeps_the_rest(rng: np.random.Generator) -> None:
    rows, columns = np.indices((67, 90))
    plane = torch.from_numpy((3.0 + 0.02 * rows + 0.03 * columns).astype(np.float32))
    confidence = torch.ones_like(plane)
    confidence[20:40, 30:60] = 0.0
    broken = torch.where(confidence > 0, plane, torch.full_like(plane, 40.0))
    filled = settle(FocusPeak(broken, torch.ones_like(plane), torch.ones_like(plane), confidence))
    torch.testing.assert_close(filled[confidence > 0], plane[confidence > 0])
    # the hole is 20 rows high: the plane changes by 0.6 over it
    assert float((filled - plane).abs().max()) < 0.4
    assert float(pull_push(plane, torch.zeros_like(plane)).std()) < 1e-5


def test_settle_takes_out_what_leaks_into_a_blank_area() -> None:
    shape = (100, 100)
    index, sharpness = torch.full(shape, 4.0), torch.full(shape, 1.0)
    index[45:55, 45:55], sharpness[45:55, 45:55] = 11.0, 0.05
    everywhere = torch.ones(shape)
    leaked = settle(FocusPeak(index, sharpness, everywhere, everywhere))
    assert float((leaked - 4.0).abs().max()) < 0.01
    sharp = settle(FocusPeak(index, everywhere, everywhere, everywhere))
    torch.testing.assert_close(sharp, index)


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ShapeError, match="z >= 3"):
        estimate_peak(torch.zeros(2, 4, 4))
    with pytest.raises(ShapeError):
        estimate_peak(torch.zeros(5, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="expected one of"):
        estimate_peak(torch.zeros(5, 4, 4), "best")  # type: ignore[arg-type]
    with pytest.raises(ShapeError):
        focus_peak(np.zeros((2, 50, 50), np.uint8))
