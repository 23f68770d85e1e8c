"""PSNR, noise ceilings, residual over intensity and projections: against their formulas, however they are read."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gigascope.errors import ShapeError
from gigascope.metrics import image


def test_boxes_tile_the_volume_within_the_limit() -> None:
    for shape, limit in (((70, 9, 11), 500), ((3, 5, 7), 4), ((200, 4, 4), 2400), ((1, 1, 1), 1)):
        seen = np.zeros(shape, int)
        for box in image.boxes(shape, limit):
            seen[box] += 1
            assert seen[box].size <= max(limit, shape[2])
        assert np.all(seen == 1)


def test_psnr_is_its_formula_over_each_region(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    a = rng.integers(0, 4000, (13, 17, 19)).astype(np.uint16)
    b = (a + rng.integers(0, 50, a.shape)).astype(np.uint16)
    mask = rng.random(a.shape) < 0.1
    expected = {
        name: 10 * math.log10(3000.0**2 / np.mean((a.astype(float) - b)[m] ** 2))
        for name, m in (("whole", np.ones_like(mask)), ("fg", mask))
    }
    regions = {"whole": None, "fg": mask, "none": np.zeros_like(mask)}
    for limit in (image.BOX_VOXELS, 400, 25):
        monkeypatch.setattr(image.boxes, "__defaults__", (limit,))
        found = image.psnr(a, b, 3000.0, regions)
        assert found["whole"] == pytest.approx(expected["whole"], abs=1e-9)
        assert found["fg"] == pytest.approx(expected["fg"], abs=1e-9)
        assert math.isnan(found["none"])
    assert image.psnr(a, a, 3000.0)["whole"] == math.inf


def test_a_threshold_is_a_region_that_is_never_held_whole(rng: np.random.Generator) -> None:
    a = rng.normal(size=(6, 7, 8))
    above = image.Above(a, 0.3)
    assert image.fraction(above) == pytest.approx(np.mean(a > 0.3))
    b = a + rng.normal(size=a.shape)
    assert image.psnr(a, b, 1.0, {"x": above}) == image.psnr(a, b, 1.0, {"x": a > 0.3})


def test_noise_ceiling_is_the_psnr_of_the_noise_free_volume(rng: np.random.Generator) -> None:
    clean = rng.uniform(50, 2000, (40, 60, 60))
    noisy = 100 + 2.2 * rng.poisson((clean - 100).clip(0) / 2.2) + rng.normal(0, 3.5, clean.shape)
    bright = clean > 1000
    expected = image.psnr(np.maximum(clean, 100), noisy, 1900.0, {"whole": None, "fg": bright})
    found = image.noise_ceiling(
        noisy, lambda v: 2.2 * np.maximum(v - 100, 0) + 3.5**2, 1900.0, {"whole": None, "fg": bright}
    )
    # the mean square of n samples of a normal distribution is known to sqrt(2 / n): 0.03 dB at 4 sd for 60,000
    assert found["whole"] == pytest.approx(expected["whole"], abs=0.08)
    assert found["fg"] == pytest.approx(expected["fg"], abs=0.08)


def test_residual_of_pure_noise_is_one_noise_sd_at_every_intensity(rng: np.random.Generator) -> None:
    clean = rng.uniform(100, 4000, (50, 100, 100))
    noisy = clean + rng.normal(size=clean.shape) * np.sqrt(2.2 * (clean - 100) + 12)
    curve = image.residual_curve(noisy, clean, lambda v: 2.2 * (v - 100) + 12, (float(noisy.min()), float(noisy.max())))
    assert curve.n_voxels.sum() == clean.size
    used = curve.n_voxels >= 1000
    # sd of n samples is known to 1 / sqrt(2 n)
    assert np.all(np.abs(curve.sd[used] - 1) < 5 / np.sqrt(2 * curve.n_voxels[used]))
    assert np.all(np.abs(curve.mean[used]) < 5 / np.sqrt(curve.n_voxels[used]))
    assert curve.extremes() == (curve.sd[used].min(), curve.sd[used].max())
    # 4 sd two-sided of a normal distribution: 6.3e-5
    assert np.sum(curve.beyond[used] * curve.n_voxels[used]) / clean.size < 1.5e-4


def test_residual_curve_shows_where_signal_was_lost(rng: np.random.Generator) -> None:
    clean = np.repeat(np.linspace(0, 100, 10)[:, None, None], 60, 1).repeat(60, 2)
    noisy = clean + rng.normal(size=clean.shape)
    decoded = clean.copy()
    decoded[7] += 2.0
    curve = image.residual_curve(noisy, decoded, np.ones_like, (0.0, 100.0))
    assert np.argmax(curve.sd) == 7
    assert curve.mean[7] == pytest.approx(-2.0, abs=0.1)
    assert curve.sd[7] == pytest.approx(math.sqrt(5), abs=0.1)
    inside = image.residual_curve(noisy, decoded, np.ones_like, (0.0, 100.0), region=clean < 50)
    assert inside.n_voxels[7] == 0
    assert math.isnan(inside.sd[7])


def test_maximum_projections_are_those_of_the_array(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = rng.integers(-300, 4000, (9, 10, 11)).astype(np.int16)
    for limit in (image.BOX_VOXELS, 70, 15):
        monkeypatch.setattr(image.boxes, "__defaults__", (limit,))
        for axis, found in enumerate(image.maximum_projections(volume)):
            assert np.array_equal(found, volume.max(axis))


def test_signed_integers_do_not_wrap() -> None:
    a, b = np.full((2, 2, 2), -32000, np.int16), np.full((2, 2, 2), 32000, np.int16)
    assert image.psnr(a, b, 64000.0)["whole"] == pytest.approx(0.0)
    assert image.value_range(np.array([[[-3, 7]]], np.int16)) == (-3.0, 7.0)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        image.psnr(np.zeros((2, 3, 4)), np.zeros((2, 3, 5)), 1.0)
    with pytest.raises(ShapeError, match="three axes"):
        image.psnr(np.zeros((3, 4)), np.zeros((3, 4)), 1.0)
