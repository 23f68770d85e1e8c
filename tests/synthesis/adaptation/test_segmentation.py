"""The built-in quick segmenter: what it is told, what it finds, in windows as in the whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from gigascope.synthesis.adaptation.loader import Crops
from gigascope.synthesis.adaptation.mapping import Mapping
from gigascope.synthesis.adaptation.segmentation import Fit, fit_segmenter, predict, segment, split
from gigascope.synthesis.adaptation.segmenter import Segmenter, Targets, targets_of

from .ensembles import nuclei, simulated

VOXEL = (1.5, 0.5, 0.5)
CPU = torch.device("cpu")
GREY = Mapping(0, 1200)


def crops(seed: int) -> Iterator[Crops]:
    rng = np.random.default_rng(seed)
    while True:
        labels = nuclei(rng, (8, 32, 32), 5)
        known = torch.from_numpy(targets_of(labels, VOXEL))[:, None, None]
        image = torch.from_numpy(GREY.apply(simulated(rng, labels)))[None, None]
        yield Crops(image, torch.zeros(1, 1, 8, 1, 1), Targets(*known))


def iou_matched(found: np.ndarray, truth: np.ndarray) -> float:
    """Share of the true nuclei that some found one covers to more than a half."""
    hits = 0
    ids = np.unique(truth[truth > 0])
    for label in ids:
        there = truth == label
        other, counts = np.unique(found[there], return_counts=True)
        best = other[np.argmax(counts)]
        hits += bool(best) and (there & (found == best)).sum() / (there | (found == best)).sum() > 0.5
    return hits / len(ids)


def test_targets_alone_are_split_into_the_nuclei_they_come_from(rng: np.random.Generator) -> None:
    truth = nuclei(rng, (20, 80, 80), 25)
    inside, distance, _ = targets_of(truth, VOXEL)
    found = split(inside, distance, VOXEL)
    assert np.array_equal(found > 0, truth > 0) or ((found > 0) != (truth > 0)).mean() < 0.01
    assert sorted(np.unique(found)) == list(range(found.max() + 1))
    share = iou_matched(found, truth)
    print("matched", share, "of", len(np.unique(truth)) - 1)
    assert share > 0.85


def test_nothing_is_found_in_nothing() -> None:
    nothing = np.zeros((4, 20, 20), np.float32)
    assert not split(nothing, nothing, VOXEL).any()


def test_windows_give_what_the_whole_gives(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    network = Segmenter(base=2).eval().requires_grad_(False)
    image = GREY.apply(simulated(rng, nuclei(rng, (10, 150, 30), 20)))
    tiled = predict(image.__getitem__, image.shape, network, CPU)
    with torch.no_grad():
        said = network(torch.from_numpy(image)[None, None])[0]
    np.testing.assert_allclose(tiled[0], said[0].sigmoid(), atol=1e-5)
    np.testing.assert_allclose(tiled[1], said[1], atol=1e-4)


@pytest.mark.slow
def test_segmenter_that_was_trained_finds_nuclei(rng: np.random.Generator) -> None:
    segmenter, losses = fit_segmenter(crops(1), Fit(steps=80, seed=0, lr=3e-3, base=8), VOXEL, CPU)
    assert len(losses) == 80
    assert losses[-20:].mean() < 0.6 * losses[:20].mean()
    truth = nuclei(rng, (10, 48, 64), 10)
    found = segment(GREY.apply(simulated(rng, truth)), truth.shape, segmenter, VOXEL, CPU)
    share = iou_matched(found, truth)
    print("matched", share)
    assert share >= 0.6
