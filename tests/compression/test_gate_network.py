"""Occupancy network: its encoding, unbiased sampling, training that repeats and resumes, and what it learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.compression.gating.gate_network import (
    OccupancyNetwork,
    Points,
    Settings,
    Training,
    best_threshold,
    load_weights,
    new_network,
    octaves,
    quota,
    sample_region,
    weights_of,
)

SHAPE = (12, 40, 48)
VOXEL = (1.0, 0.5, 0.5)
BOX = tuple(slice(0, n) for n in SHAPE)
SMALL = Settings(steps=300, batch=1024, width=64, depth=4, lr=1e-2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These products are small: on a busy machine the threads of one wait longer for each other than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def labels(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Smooth objects over about a twelfth of the frame."""
    field = ndimage.gaussian_filter(rng.normal(size=SHAPE), (2, 4, 4))
    return (field > np.quantile(field, 0.92)).astype(np.uint8)


def points_of(labels: NDArray[np.uint8], n: int = 1 << 20, seed: int = 0) -> Points:
    found = sample_region(labels, BOX, BOX, n, np.random.default_rng(seed))
    return Points([found], torch.device("cpu"))


def test_octaves_end_between_four_and_eight_voxels_on_every_axis(rng: np.random.Generator) -> None:
    for _ in range(50):
        shape, voxel = rng.integers(8, 3000, 3), rng.uniform(0.1, 5.0, 3)
        longest = float((shape * voxel).max())
        for n, step in zip(octaves(shape, voxel), voxel):
            finest = longest / 2 ** (n - 1) / step
            assert finest * (1 + 1e-6) >= 4 or n == 1
            assert finest < 8 * (1 + 1e-6)


def test_encoding_is_coordinates_then_sines_then_cosines() -> None:
    network = OccupancyNetwork((2, 8, 16), (2.0, 1.0, 1.0))
    assert network.octaves == [2, 3, 3]
    x = torch.tensor([(0 + 0.5) * 2 / 16, (3 + 0.5) / 16, (15 + 0.5) / 16])
    encoded = network.encode(torch.tensor([[0.0, 3.0, 15.0]]))[0]
    angles = [2 * math.pi * 2**octave * x[axis] for axis, n in enumerate([2, 3, 3]) for octave in range(n)]
    expected = torch.cat([x, torch.stack(angles).sin(), torch.stack(angles).cos()])
    torch.testing.assert_close(encoded, expected)


def test_architecture_is_that_of_the_seed() -> None:
    """On its volume it had 51 inputs and 210,945 weights; 51 = 3 + 6 times 8 octaves."""
    network = OccupancyNetwork((512, 512, 512), (1.0, 1.0, 1.0))
    assert network.octaves == [8, 8, 8]
    assert sum(p.numel() for p in network.parameters()) == 210_945


def test_weights_make_the_batches_uniform(labels: NDArray[np.uint8]) -> None:
    points, generator = points_of(labels), torch.Generator().manual_seed(3)
    batches = [points.batch(4096, generator) for _ in range(40)]
    label = torch.cat([b[1] for b in batches]).float()
    weight = torch.cat([b[2] for b in batches])
    place = torch.cat([b[0] for b in batches])
    # half the points come from the objects and their shell: occupied ones are more frequent
    assert label.mean() > 1.3 * labels.mean()
    error = 4 / math.sqrt(len(label))
    assert float(weight.mean()) == pytest.approx(1, abs=error)
    assert float((weight * label).mean()) == pytest.approx(labels.mean(), abs=error)
    centre = [(n - 1) / 2 for n in SHAPE]
    means = (weight[:, None] * place).mean(dim=0) / weight.mean()
    np.testing.assert_allclose(means.numpy(), centre, atol=error * max(SHAPE))
    assert float(place.min()) >= -0.5
    # jittered around voxel centres, by which the labels go
    nearest = place.round().long()
    inside = torch.all((nearest >= 0) & (nearest < torch.tensor(SHAPE)), dim=1)
    looked_up = torch.from_numpy(labels.astype(bool))[tuple(nearest[inside].T)]
    assert (looked_up == torch.cat([b[1] for b in batches])[inside]).float().mean() > 0.999


def test_regions_and_quotas_do_not_change_the_expectation(labels: NDArray[np.uint8]) -> None:
    whole, estimates = points_of(labels), []
    for draw in range(40):
        regions = []
        for x in (slice(0, 30), slice(30, 48)):
            around = slice(max(0, x.start - 3), min(48, x.stop + 3))
            wide, box = (*BOX[:2], around), (*BOX[:2], x)
            regions.append(sample_region(labels[wide], wide, box, 900, np.random.default_rng((draw, x.start))))
        parts = Points(regions, torch.device("cpu"))
        assert (parts.n_near, parts.n_all) == (whole.n_near, whole.n_all)
        _, label, weight = parts.all()
        estimates.append((float(weight.sum()), float((weight * label).sum())))
    means, errors = np.mean(estimates, axis=0), np.std(estimates, axis=0, ddof=1) / math.sqrt(len(estimates))
    # five standard errors, which are a few hundredths of what is estimated
    assert np.all(np.abs(means - (labels.size, labels.sum())) <= 5 * errors + 1e-6 * means)
    assert np.all(errors < 0.03 * means)
    _, label, weight = whole.all()
    assert float((weight * label).sum()) == labels.sum()
    assert float(weight.sum()) == labels.size


def test_quota_of_regions_is_bounded() -> None:
    assert quota(1) == 1 << 22
    assert quota(1 << 14) == 1 << 12


def test_an_empty_gate_can_be_trained_on() -> None:
    points = points_of(np.zeros(SHAPE, np.uint8))
    training = Training(new_network(SHAPE, VOXEL, SMALL, 1), points, Settings(steps=30, batch=256, width=16), 1)
    assert len(list(training.updates())) == 30
    assert not training.network.occupied(BOX, 0.5).any()


def test_training_repeats_bit_by_bit_and_resumes_from_any_step(labels: NDArray[np.uint8]) -> None:
    settings, points = Settings(steps=12, batch=256, width=16), points_of(labels)

    def training() -> Training:
        return Training(new_network(SHAPE, VOXEL, settings, 5), points, settings, 5)

    first, second = training(), training()
    assert list(first.updates()) == list(second.updates())
    stopped = training()
    updates = stopped.updates()
    for _ in range(5):
        next(updates)
    state = copy.deepcopy(stopped.state_dict())
    resumed = training()
    resumed.load_state_dict(state)
    assert len(list(resumed.updates())) == 7
    for name, value in weights_of(first.network).items():
        np.testing.assert_array_equal(value, weights_of(second.network)[name])
        np.testing.assert_array_equal(value, weights_of(resumed.network)[name])
    other = new_network(SHAPE, VOXEL, settings, 6)
    assert not np.array_equal(weights_of(other)["layers.0.weight"], weights_of(training().network)["layers.0.weight"])


def test_learning_rate_falls_by_a_cosine_to_a_hundredth(labels: NDArray[np.uint8]) -> None:
    settings = Settings(steps=20, batch=64, width=8)
    training = Training(new_network(SHAPE, VOXEL, settings, 5), points_of(labels), settings, 5)
    rates = [training._optimiser.param_groups[0]["lr"] for _ in training.updates()]
    expected = [1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi * k / 20)) for k in range(20)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_network_learns_the_labels_without_half_a_voxel_of_shift(labels: NDArray[np.uint8]) -> None:
    points = points_of(labels)
    training = Training(new_network(SHAPE, VOXEL, SMALL, 2), points, SMALL, 2)
    losses = list(training.updates())
    assert float(losses[-1].split()[1]) < 0.3 * float(losses[0].split()[1])
    tau = best_threshold(training.network, points)
    found = training.network.occupied(BOX, tau)
    truth = labels.astype(bool)
    score = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert score > 0.85
    for axis in range(3):
        for step in (-1, 1):
            moved = np.roll(found, step, axis)
            assert 2 * (moved & truth).sum() / (moved.sum() + truth.sum()) < score
    # the threshold of the best F1 is better than, or as good as, others
    for other in (0.2, 0.5, 0.8):
        again = training.network.occupied(BOX, other)
        assert 2 * (again & truth).sum() / (again.sum() + truth.sum()) <= score + 0.02


def test_weights_survive_as_arrays_and_boxes_give_the_whole(labels: NDArray[np.uint8]) -> None:
    network = new_network(SHAPE, VOXEL, SMALL, 9)
    again = load_weights(new_network(SHAPE, VOXEL, SMALL, 0), weights_of(network))
    limit = torch.sigmoid(again(torch.tensor([[5.0, 20.0, 20.0]]))).item()
    whole = network.occupied(BOX, limit)
    assert 0 < whole.mean() < 1
    box = (slice(3, 9), slice(0, 17), slice(20, 48))
    part = again.occupied(box, limit)
    # a matrix product of other size may round another way: voxels at the limit itself
    assert (part != whole[box]).mean() < 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: bfloat16 matrix products")
def test_training_on_a_gpu_learns_as_well_as_on_the_cpu(labels: NDArray[np.uint8]) -> None:
    found = sample_region(labels, BOX, BOX, 1 << 20, np.random.default_rng(0))
    scores = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        points = Points([found], device)
        training = Training(new_network(SHAPE, VOXEL, SMALL, 2).to(device), points, SMALL, 2)
        for _ in training.updates():
            pass
        mask, truth = training.network.occupied(BOX, 0.5), labels.astype(bool)
        scores.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert scores[1] > scores[0] - 0.05
