"""Gates: the result of a volume cut into regions is that of the whole, and what it selects is what is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.compression.background import CELL, cell_columns, filled_cells, windows, without_objects
from gigascope.compression.gate import Evidence, measured
from gigascope.compression.gate_rounds import ROUNDS, GateRegions, Thresholds
from gigascope.compression.noise import PhotonTransfer
from gigascope.store.plan import ShardPlan

THRESHOLDS = Thresholds(seed=6.0, grow=3.0, min_voxels=20, dilate=(1, 2, 2))
SIGMAS = (0.5, 1.0, 1.0)


def frame_evidence(volume: NDArray) -> Evidence:
    """Evidence of a volume as `ingest` and `gate` make it."""
    cells = np.stack([cell_columns(volume[w]) for w in windows(len(volume), CELL[0])], axis=1)
    transfer = PhotonTransfer(volume.shape, integer=True)
    transfer.add(volume)
    noise = transfer.fit()
    levels = without_objects(cells[4], filled_cells(cells[4], cells[5], noise.sd(cells[4])))
    return measured(Evidence(levels, noise, SIGMAS, volume.shape, integer=True), volume.__getitem__)


class Work:
    """`ctx.work` of all items, in memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.arrays = {name: np.zeros(shape, np.uint8) for name in ("candidates", "objects", "gate")}
        self.metrics: dict[str, Any] = {}
        self.saved: dict[tuple[int, int], dict[str, NDArray]] = {}
        self.round = self.item = 0

    def array(self, name: str) -> NDArray:
        return self.arrays[name]

    def save(self, **arrays: NDArray) -> None:
        self.saved[self.item, self.round] = arrays

    def read(self, item: int, round: int) -> dict[str, NDArray]:
        assert round < self.round
        return dict(self.saved.get((item, round), {}))


def gate_by_regions(volume: NDArray, shard: tuple[int, int, int], found: Evidence, thresholds: Thresholds) -> NDArray:
    """All rounds, one region after the other."""
    plan = ShardPlan(volume.shape, 1, shard, shard)
    regions, work = GateRegions(volume, plan, thresholds, [found]), Work(volume.shape)
    for work.round, name in enumerate(ROUNDS["threshold"]):
        for work.item in range(plan.n_shards) if name != "settle" else [0]:
            getattr(regions, name)(work, work.item)
    return work.arrays["gate"]


def gate_of_whole(volume: NDArray, found: Evidence, thresholds: Thresholds) -> NDArray:
    """The definition, on the whole volume at once, by other functions."""
    seen = found.of(volume.__getitem__, tuple(slice(0, n) for n in volume.shape))
    labels, n = ndimage.label(seen > thresholds.grow)
    numbers = np.arange(1, n + 1)
    highest, size = ndimage.maximum(seen, labels, numbers), ndimage.sum_labels(labels > 0, labels, numbers)
    kept = np.isin(labels, numbers[(highest > thresholds.seed) & (size >= thresholds.min_voxels)])
    return ndimage.binary_dilation(kept, np.ones([2 * m + 1 for m in thresholds.dilate])).astype(np.uint8)


@pytest.fixture
def fibres(rng: np.random.Generator) -> NDArray[np.uint16]:
    """(40, 70, 90) of random walks that cross many regions, over a haze, with shot noise."""
    light = np.zeros((40, 70, 90))
    for _ in range(14):
        place, direction = rng.uniform((0, 0, 0), light.shape), rng.normal(size=3)
        for _ in range(int(rng.integers(5, 90))):
            direction += 0.4 * rng.normal(size=3)
            place += direction / np.linalg.norm(direction)
            if np.all(place >= 0) and np.all(place < light.shape):
                light[tuple(place.astype(int))] = rng.uniform(100, 900)
    light = ndimage.gaussian_filter(light, (0.7, 1.2, 1.2)) + 10 + 8 * np.sin(np.arange(90) / 30)
    return (100 + 2 * rng.poisson(light) + rng.normal(0, 2, light.shape)).round().astype(np.uint16)


@pytest.mark.parametrize("shard", [(40, 70, 90), (20, 35, 45), (16, 16, 16), (7, 70, 11), (40, 70, 1)])
def test_regions_give_the_gate_of_the_whole_volume(fibres: NDArray, shard: tuple[int, int, int]) -> None:
    found = frame_evidence(fibres)
    whole = gate_of_whole(fibres, found, THRESHOLDS)
    assert 0.02 < whole.mean() < 0.8
    np.testing.assert_array_equal(gate_by_regions(fibres, shard, found, THRESHOLDS), whole)
