"""SSIM, MS-SSIM and GMSD: against scikit-image, against windows summed one by one, and at their ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from gigascope.errors import ShapeError
from gigascope.metrics import ssim


def pair(rng: np.random.Generator, shape: tuple[int, ...], noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    a = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    a = (a - a.min()) / np.ptp(a)
    return a.astype(np.float32), (a + noise * rng.normal(size=shape)).astype(np.float32)


def reference_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return structural_similarity(
        a.astype(np.float64),
        b.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )[1]


@pytest.mark.parametrize("limit", [2**22, 900])
def test_ssim_of_volumes_is_that_of_scikit_image(
    rng: np.random.Generator, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = ssim.boxes
    monkeypatch.setattr(ssim, "boxes", lambda shape, _: boxes(shape, limit))
    a, b = pair(rng, (14, 23, 31))
    mask = rng.random(a.shape) < 0.2
    expected = reference_ssim(a, b)
    low, scale = 90.0, 3500.0
    found = ssim.ssim(low + scale * a, low + scale * b, low, scale, {"whole": None, "fg": mask})
    # float32 moments of values below 1: 1e-7 against C2 = 9e-4
    assert found["whole"] == pytest.approx(expected.mean(), abs=2e-4)
    assert found["fg"] == pytest.approx(expected[mask].mean(), abs=2e-4)


def test_ssim_of_images_is_that_of_scikit_image(rng: np.random.Generator) -> None:
    a, b = pair(rng, (40, 50))
    assert ssim.ssim_image(a, b, 0.0, 1.0) == pytest.approx(reference_ssim(a, b).mean(), abs=2e-4)


def test_thin_volumes_have_a_similarity(rng: np.random.Generator) -> None:
    a, _ = pair(rng, (1, 20, 20))
    assert ssim.ssim(a, a, 0.0, 1.0)["whole"] == pytest.approx(1.0, abs=1e-5)


def test_ms_ssim_is_the_product_over_scales_by_hand(rng: np.random.Generator) -> None:
    # 50 pixels: three scales (50, 25, 12), windows summed one by one in float64
    a, b = pair(rng, (50, 60), 0.2)
    window = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    window = np.outer(window, window) / window.sum() ** 2
    weights = np.array([0.0448, 0.2856, 0.3001]) / (0.0448 + 0.2856 + 0.3001)
    expected, u, v = 1.0, a.astype(float), b.astype(float)
    for i, weight in enumerate(weights):
        p, q = (np.pad(w, 5, mode="symmetric") for w in (u, v))
        terms = []
        for j in range(u.shape[0]):
            for k in range(u.shape[1]):
                x, y = p[j : j + 11, k : k + 11], q[j : j + 11, k : k + 11]
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                term = (2 * (window * (x - mx) * (y - my)).sum() + 9e-4) / (vx + vy + 9e-4)
                terms.append(term * (2 * mx * my + 1e-4) / (mx * mx + my * my + 1e-4) if i == 2 else term)
        expected *= np.mean(terms) ** weight
        n_y, n_x = (n // 2 * 2 for n in u.shape)
        u, v = (
            0.25 * (w[:n_y:2, :n_x:2] + w[1:n_y:2, :n_x:2] + w[:n_y:2, 1:n_x:2] + w[1:n_y:2, 1:n_x:2]) for w in (u, v)
        )
    assert ssim.ms_ssim(a, b, 0.0, 1.0) == pytest.approx(expected, abs=5e-4)


def test_gmsd_is_its_formula_by_hand(rng: np.random.Generator) -> None:
    a, b = pair(rng, (20, 24))
    half = [0.25 * (w[::2, ::2] + w[1::2, ::2] + w[::2, 1::2] + w[1::2, 1::2]).astype(float) for w in (a, b)]
    magnitudes = []
    for w in half:
        p = np.pad(w, 1, mode="symmetric")
        right, down = np.zeros_like(w), np.zeros_like(w)
        for j in range(w.shape[0]):
            for k in range(w.shape[1]):
                cut = p[j : j + 3, k : k + 3]
                right[j, k] = (cut[:, 2] - cut[:, 0]).sum() / 3
                down[j, k] = (cut[2] - cut[0]).sum() / 3
        magnitudes.append(np.hypot(right, down))
    c = 170 / 255**2
    gms = (2 * magnitudes[0] * magnitudes[1] + c) / (magnitudes[0] ** 2 + magnitudes[1] ** 2 + c)
    assert ssim.gmsd(a, b, 0.0, 1.0) == pytest.approx(gms.std(), abs=1e-5)


def test_equal_images_are_perfect_and_more_noise_is_worse(rng: np.random.Generator) -> None:
    a, _ = pair(rng, (180, 190))
    noise = rng.normal(size=a.shape).astype(np.float32)
    assert ssim.ms_ssim(a, a, 0.0, 1.0) == pytest.approx(1.0, abs=1e-5)
    assert ssim.gmsd(a, a, 0.0, 1.0) == 0.0
    levels = [0.02, 0.05, 0.1, 0.2]
    multi = [ssim.ms_ssim(a, a + s * noise, 0.0, 1.0) for s in levels]
    deviation = [ssim.gmsd(a, a + s * noise, 0.0, 1.0) for s in levels]
    assert multi == sorted(multi, reverse=True)
    assert deviation == sorted(deviation)


def test_images_too_small_for_the_window_have_no_number() -> None:
    assert math.isnan(ssim.ms_ssim(np.zeros((10, 40)), np.zeros((10, 40)), 0.0, 1.0))
    assert math.isnan(ssim.gmsd(np.zeros((3, 40)), np.zeros((3, 40)), 0.0, 1.0))


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ShapeError):
        ssim.ssim(np.zeros((2, 3, 4)), np.zeros((2, 3, 5)), 0.0, 1.0)
