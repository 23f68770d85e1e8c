"""Gates: the result of a volume cut into regions is that of the whole, and what it selects is what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.compression.background import CELL, cell_columns, filled_cells, windows, without_objects
from gigascope.compression.bench_volume import BenchVolume
from gigascope.compression.gating import gate_layout
from gigascope.compression.gating.gate import Evidence, evidence_of_frames, measured
from gigascope.compression.gating.gate_rounds import ROUNDS, GateRegions, Thresholds
from gigascope.compression.noise import NoiseModel, PhotonTransfer
from gigascope.compression.plan import gate_rounds
from gigascope.config.compression import Gate
from gigascope.runtime.run import run_stage
from gigascope.store.open import StoreReader, open_store
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


@pytest.mark.parametrize("shard", [(40, 70, 90), (20, 35, 45), (16, 16, 16), (7, 70, 30), (40, 70, 8)])
def test_regions_give_the_gate_of_the_whole_volume(fibres: NDArray, shard: tuple[int, int, int]) -> None:
    found = frame_evidence(fibres)
    whole = gate_of_whole(fibres, found, THRESHOLDS)
    assert 0.02 < whole.mean() < 0.8
    np.testing.assert_array_equal(gate_by_regions(fibres, shard, found, THRESHOLDS), whole)


def test_a_component_that_winds_through_many_regions_is_one(rng: np.random.Generator) -> None:
    """A spiral of 500 voxels with one seed at its end, and a short one of 12 voxels that crosses a border."""
    turns = np.linspace(0, 12 * np.pi, 4000)
    low = np.zeros((8, 64, 64), bool)
    low[4, np.rint(32 + 2 + 2.2 * turns / np.pi * np.sin(turns) / 2).astype(int).clip(0, 63),
        np.rint(32 + 2.2 * turns / np.pi * np.cos(turns)).astype(int).clip(0, 63)] = True  # fmt: skip
    low = ndimage.binary_dilation(low, ndimage.generate_binary_structure(3, 1))
    low[1, 2, 10:22] = True
    labels, n = ndimage.label(low)
    seeded = np.zeros_like(low)
    seeded[tuple(np.argwhere(labels == np.bincount(labels.ravel())[1:].argmax() + 1)[-1])] = True
    seeded[1, 2, 10] = True
    kept = [k for k in range(1, n + 1) if seeded[labels == k].any() and (labels == k).sum() >= 20]
    assert len(kept) == 1
    found = _objects(low, seeded, (8, 16, 16), 20)
    np.testing.assert_array_equal(found, np.isin(labels, kept))


def _objects(low: NDArray[np.bool_], high: NDArray[np.bool_], shard: tuple[int, int, int], least: int) -> NDArray:
    """Objects by regions, from masks in place of evidence."""
    evidence = 10.0 * high + 4.0 * low

    class Given:
        margin = (0, 0, 0)
        shape = low.shape

        def of(self, read: Any, box: Any) -> NDArray:
            return read(box)

    thresholds = Thresholds(6.0, 3.0, least, (0, 0, 0))
    frame: Any = Given()
    return gate_by_regions(evidence, shard, frame, thresholds).astype(bool)


def test_random_masks_by_regions_are_those_of_the_whole(rng: np.random.Generator) -> None:
    for fraction in (0.1, 0.3, 0.35, 0.6):
        low = rng.random((9, 21, 26)) < fraction
        high = low & (rng.random(low.shape) < 0.05)
        labels, n = ndimage.label(low)
        kept = [k for k in range(1, n + 1) if high[labels == k].any() and (labels == k).sum() >= 5]
        for shard in ((4, 7, 9), (9, 5, 26), (3, 3, 3)):
            np.testing.assert_array_equal(_objects(low, high, shard, 5), np.isin(labels, kept))


@pytest.mark.parametrize("light", [0.1, 1.0, 20.0, 1000.0])
def test_noise_alone_is_hardly_ever_above_the_thresholds(rng: np.random.Generator, light: float) -> None:
    """Whatever the light: with less than a photon in a voxel noise is skewed, and must not look like signal."""
    volume = (100 + 30 * rng.poisson(light, (32, 128, 128)) + rng.normal(0, 4, (32, 128, 128))).round()
    found = frame_evidence(volume.astype(np.uint16))
    seen = found.of(volume.__getitem__, tuple(slice(0, n) for n in volume.shape))
    # a normal distribution has 0.13 % above 3; of a Poisson one with 1.6 in the kernel 0.8 % are above its like
    assert (seen > 3).mean() < 0.01
    assert (seen > 6).mean() < 1e-4
    # single voxels at that: a component of 20 is rare
    assert gate_by_regions(volume.astype(np.uint16), volume.shape, found, THRESHOLDS).mean() < 1e-3
    assert np.percentile(seen, 16) == pytest.approx(-1, abs=0.3)
    assert abs(float(np.median(seen))) < 0.3


def test_evidence_of_a_box_has_the_bits_of_the_whole(fibres: NDArray, rng: np.random.Generator) -> None:
    found = frame_evidence(fibres)
    whole = found.of(fibres.__getitem__, tuple(slice(0, n) for n in fibres.shape))
    for _ in range(20):
        corner = [int(rng.integers(0, n)) for n in fibres.shape]
        box = tuple(slice(c, int(rng.integers(c + 1, n + 1))) for c, n in zip(corner, fibres.shape))
        np.testing.assert_array_equal(found.of(fibres.__getitem__, box), whole[box])


def test_gate_of_the_bench_volume_holds_its_cells(bench: BenchVolume) -> None:
    crop = bench.crop((16, 144, 112), (64, 128, 128))
    found = frame_evidence(crop.volume)
    gate = gate_by_regions(crop.volume, (64, 64, 128), found, THRESHOLDS).astype(bool)
    light = crop.clean - np.median(crop.clean)
    span = float(light.max())
    assert gate[light > 0.05 * span].mean() > 0.999
    # beyond the margin of the objects there is no signal of one noise deviation
    assert light[~gate].max() < 5 * float(NoiseModel(crop.gain, crop.offset, crop.read).sd(130.0))
    assert gate.mean() < 0.6


def run_gate(folder: Path, volume: NDArray, gate: str, name: str = "gate", size: str = "[1, 1, 1]") -> StoreReader:
    """Ingest once, then the stage with these keys of `gate`."""
    if not (folder / "volume.zarr").exists():
        tifffile.imwrite(folder / "a.tif", volume, photometric="minisblack")
    text = f"pipeline: compression\nname: data\ndevice: cpu\ninputs: {{volume: {folder / 'a.tif'}}}\n"
    (folder / "data.yaml").write_text(f"{text}ingest: {{voxel_size_um: {size}}}\ngate: {{{gate}}}\n")
    if not (folder / "volume.zarr").exists():
        run_stage("compression.ingest", folder / "data.yaml", {}, {"volume": folder / "volume.zarr"})
    inputs = {"volume": folder / "volume.zarr"}
    # one worker, in this process: others would not know of a shard that a test replaced
    run_stage("compression.gate", folder / "data.yaml", inputs, {"gate": folder / f"{name}.zarr"}, workers=1)
    return open_store(folder / f"{name}.zarr")


def test_intensity_is_a_fraction_of_the_range(tmp_path: Path, fibres: NDArray) -> None:
    store = run_gate(tmp_path, fibres, "mode: intensity, intensity: 0.25")
    low, high = int(fibres.min()), int(fibres.max())
    expected = fibres > low + 0.25 * (high - low)
    np.testing.assert_array_equal(store.array()[:], expected)
    assert store.attrs["fraction"] == [pytest.approx(expected.mean())]
    assert store.axes == ("z", "y", "x")
    assert store.dtype == np.uint8


@pytest.mark.parametrize("mode", ["threshold", "intensity", "network"])
def test_parts_do_not_change_the_gate(
    tmp_path: Path, fibres: NDArray, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_layout, "SHARD", (64, 64, 64))
    keys = f"mode: {mode}, network: {{steps: 15, batch: 512, width: 16}}"
    stores = [run_gate(tmp_path, fibres, f"{keys}, parts: {parts}", f"gate{parts}") for parts in (1, 3, 8)]
    assert stores[0].array().shards == (40, 64, 64)
    assert len({store.digest for store in stores}) == 1
    if mode == "threshold":
        np.testing.assert_array_equal(stores[0].array()[:], run_gate(tmp_path, fibres, "", "one").array()[:])


def test_blur_is_as_long_in_z_as_in_x(tmp_path: Path, fibres: NDArray) -> None:
    store = run_gate(tmp_path, fibres, "", size="[2.0, 0.5, 0.25]")
    (frame,) = evidence_of_frames(open_store(tmp_path / "volume.zarr"), 1.0)
    assert frame.sigmas == (0.125, 0.5, 1.0)
    assert frame.margin == (1, 2, 4)
    assert store.spacing == {"z": 2.0, "y": 0.5, "x": 0.25}


@pytest.mark.parametrize(
    "shape", [(1, 10, 10), (100, 320, 400), (30, 2000, 2000), (3, 2, 200, 600, 700), (64, 512, 512), (65, 513, 1)]
)
def test_shards_of_a_gate_are_whole_chunks_and_small(shape: tuple[int, ...]) -> None:
    plan = gate_layout.gate_plan(shape)
    assert plan.shape == shape
    assert plan.shard_nbytes <= 16 * 2**20
    assert all(s == 1 for s in plan.shards[:-3])


def test_rounds_are_those_of_the_plan() -> None:
    for mode, rounds in ROUNDS.items():
        assert gate_rounds(Gate(mode=mode)) == len(rounds)


REAL = {
    # fraction of the gate: seen by eye to hold the objects and little else
    "pyramidal_neuron_u8.tif": (0.10, 0.25),
    "cortex_somata_u16.tif": (0.03, 0.09),
    "mouse_brain_100um_u16.tiff": (0.5, 0.75),
    "xyz_8bit__chromosomes.tif": (0.2, 0.4),
    "xyz_calibrated_16bit__golgi_bfa.tif": (0.1, 0.35),
    "xyzc_16bit__spots.tif": (0.05, 0.25),
}


@pytest.mark.parametrize("name", REAL)
def test_real_volumes(tmp_path: Path, shared_data: Path, name: str) -> None:
    (tmp_path / "a.tif").symlink_to(shared_data / "volumes" / name)
    text = f"pipeline: compression\nname: data\ninputs: {{volume: {tmp_path / 'a.tif'}}}\n"
    (tmp_path / "data.yaml").write_text(text)
    run_stage("compression.ingest", tmp_path / "data.yaml", {}, {"volume": tmp_path / "volume.zarr"})
    inputs = {"volume": tmp_path / "volume.zarr"}
    run_stage("compression.gate", tmp_path / "data.yaml", inputs, {"gate": tmp_path / "gate.zarr"})
    store = open_store(tmp_path / "gate.zarr")
    low, high = REAL[name]
    for fraction in store.attrs["fraction"]:
        assert low < fraction < high
    volume, gate = open_store(tmp_path / "volume.zarr").array()[:], store.array()[:].astype(bool)
    # the brightest 0.1 % are in it, but for single hot voxels
    bright = volume > np.quantile(volume, 0.999)
    assert gate[bright].mean() > 0.9
