"""The k-nearest evaluator: FAISS and the tree find the same, all neighbours are exact, few drop what reaches."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest
import torch

from gigascope.compression.mixture import Mixture
from gigascope.compression.quality.nearest import NearestGaussians, compare_with_exact
from gigascope.compression.quality.seed_numbers import nearest_values, random_voxels, seed_numbers
from gigascope.errors import ShapeError
from gigascope.kernels import gaussians

SHAPE = (20, 60, 80)


def random_mixture(rng: np.random.Generator, n: int = 150) -> Mixture:
    return Mixture(
        torch.from_numpy(rng.uniform(0, 1, (n, 3)) * (np.array(SHAPE) - 1)).float(),
        torch.from_numpy(np.log(rng.uniform(0.8, 4, (n, 3)))).float(),
        torch.from_numpy(rng.normal(size=(n, 4))).float(),
        torch.from_numpy(rng.uniform(-0.3, 1, n)).float(),
    )


def random_points(rng: np.random.Generator, n: int = 500) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(0, 1, (n, 3)) * (np.array(SHAPE) - 1)).float()


def by_hand(mixture: Mixture, point: np.ndarray, rows: np.ndarray, cut: float) -> float:
    total = 0.0
    covariances = mixture.covariances().double().numpy()
    for i in rows:
        d = point - mixture.means[i].double().numpy()
        m = d @ np.linalg.solve(covariances[i], d)
        if m < cut * cut:
            total += float(mixture.amplitudes[i]) * math.exp(-m / 2)
    return total


@pytest.fixture
def without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize("k", [1, 5, 32])
def test_faiss_sums_the_nearest_centres_in_normalised_coordinates(rng: np.random.Generator, k: int) -> None:
    pytest.importorskip("faiss", reason="needs faiss-cpu or faiss-gpu")
    mixture, points = random_mixture(rng), random_points(rng, 40)
    nearest = NearestGaussians(mixture, SHAPE)
    assert nearest.backend == "faiss"
    found = nearest.query(points, k, 3.0)
    for point, value in zip(points.double().numpy(), found):
        apart = (mixture.means.double().numpy() - point) / np.array(SHAPE)
        rows = np.argsort((apart**2).sum(1))[:k]
        assert float(value) == pytest.approx(by_hand(mixture, point, rows, 3.0), abs=2e-5)


def test_the_tree_without_faiss_finds_the_same(rng: np.random.Generator, without_faiss: None) -> None:
    mixture, points = random_mixture(rng), random_points(rng)
    tree = NearestGaussians(mixture, SHAPE)
    assert tree.backend == "scipy"
    for k in (1, 7):
        apart = (points[:, None] - mixture.means) / torch.tensor(SHAPE)
        rows = apart.square().sum(2).argsort(1)[:, :k]
        expected = [by_hand(mixture, p.double().numpy(), r.numpy(), 5.0) for p, r in zip(points, rows)]
        np.testing.assert_allclose(tree.query(points, k).numpy(), expected, atol=2e-5)


def test_faiss_and_the_tree_agree(rng: np.random.Generator, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("faiss", reason="needs faiss-cpu or faiss-gpu")
    mixture, points = random_mixture(rng), random_points(rng)
    by_faiss = NearestGaussians(mixture, SHAPE).query(points, 9)
    request.getfixturevalue("without_faiss")
    by_tree = NearestGaussians(mixture, SHAPE).query(points, 9)
    # one swapped pair of equally far neighbours in float32 is allowed
    assert (by_faiss - by_tree).abs().gt(1e-5).sum() <= 2


def test_all_neighbours_give_the_exact_field(rng: np.random.Generator) -> None:
    mixture, points = random_mixture(rng, 60), random_points(rng)
    found = compare_with_exact(mixture, points, SHAPE, k=60, cut=3.5)
    assert found.largest < 1e-4
    few = compare_with_exact(mixture, points, SHAPE, k=2, cut=3.5)
    assert few.rms > 100 * found.rms
    assert few.nearest_s > 0
    assert few.exact_s > 0


def test_a_large_gaussian_with_a_far_centre_is_dropped() -> None:
    means = torch.tensor([[10.0, 10.0, 10.0], [10.0, 30.0, 40.0], [10.0, 31.0, 40.0]])
    scales = torch.log(torch.tensor([[1.0, 10.0, 30.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))
    mixture = Mixture(means, scales, torch.tensor([[1.0, 0, 0, 0]] * 3), torch.ones(3))
    point = torch.tensor([[10.0, 25.0, 40.0]])
    nearest = NearestGaussians(mixture, SHAPE)
    exact = gaussians.evaluate_points(*mixture.tensors, torch.full((3,), 5.0), point)
    assert float(exact[0]) > 0.19
    assert float(nearest.query(point, 2)[0]) < 1e-4
    assert float(nearest.query(point, 3)[0]) == pytest.approx(float(exact[0]), abs=1e-6)


def test_no_gaussians_and_no_points_give_nothing(rng: np.random.Generator) -> None:
    assert NearestGaussians(Mixture.empty()).query(random_points(rng, 3)).tolist() == [0, 0, 0]
    assert NearestGaussians(random_mixture(rng)).query(torch.zeros(0, 3)).shape == (0,)
    with pytest.raises(ShapeError):
        NearestGaussians(random_mixture(rng)).query(torch.zeros(5, 2))


def test_seed_numbers_are_its_formulas(rng: np.random.Generator) -> None:
    original = rng.integers(0, 4000, (100, 647, 81)).astype(np.uint16)
    decoded = (original + 7).astype(np.uint16)
    found = seed_numbers(original, decoded, original > 1000, 20693, 4000.0)
    assert found["seed_ratio"]["value"] == pytest.approx(2 * original.size / 455246)
    assert found["seed_bytes"]["value"] == 455246
    assert found["seed_bpp"]["value"] == pytest.approx(8 * 455246 / original.size)
    assert found["seed_psnr"]["value"] == pytest.approx(20 * math.log10(4000 / 7))
    assert "100,000 random voxels" in found["seed_psnr"]["label"]
    empty = seed_numbers(original, decoded, np.zeros(original.shape, bool), 0, 4000.0)
    assert empty["seed_ratio"]["value"] is None
    assert empty["seed_psnr"]["value"] is None


def test_the_published_ratio_and_rate_follow_from_its_counts() -> None:
    class Volume:
        shape = (100, 647, 813)

        def __getitem__(self, key: Any) -> np.ndarray:
            return np.zeros([cut.stop - cut.start for cut in key], np.uint8)

    found = seed_numbers(Volume(), Volume(), Volume(), 20693, 1.0)
    assert found["seed_ratio"]["value"] == pytest.approx(231.09, abs=0.01)
    assert found["seed_bpp"]["value"] == pytest.approx(0.0692, abs=1e-4)


def test_random_voxels_are_inside_and_carry_their_values(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gigascope.compression.quality import seed_numbers as module

    whole = module.boxes
    monkeypatch.setattr(module, "boxes", lambda shape: whole(shape, 700))
    gate, volume = rng.random((9, 20, 30)) < 0.1, rng.normal(size=(9, 20, 30))
    places, (values,) = random_voxels(gate, (volume,), rng, 20000)
    assert gate[tuple(places.T)].all()
    assert np.array_equal(volume[tuple(places.T)], values)
    # drawn evenly: 20,000 draws from some 540 voxels, each 37 +- 6
    counts = np.bincount(np.ravel_multi_index(tuple(places.T), gate.shape), minlength=gate.size)[gate.ravel()]
    assert abs(counts.mean() - 20000 / gate.sum()) < 1e-9
    assert counts.std() < 1.3 * math.sqrt(counts.mean())


def test_values_by_the_nearest_centres_are_in_the_unit_of_the_file(rng: np.random.Generator) -> None:
    mixture = random_mixture(rng, 20)
    values = nearest_values(mixture, torch.full((1, 2, 3), 0.25), (32, 32, 32), SHAPE, (100.0, 3500.0))
    points = random_points(rng, 50)
    exact = gaussians.evaluate_points(*mixture.tensors, torch.full((20,), 5.0), points)
    np.testing.assert_allclose(values(points).numpy(), 100 + 3500 * (exact + 0.25).numpy(), rtol=1e-5, atol=0.2)
