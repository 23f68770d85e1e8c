"""One volume in many formats becomes one store, with the facts that every later stage needs; planes are not held."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from gigascope.compression import ingest as raw
from gigascope.compression.background import CELL, background_level, grid_shape, pooled
from gigascope.compression.bench_volume import BenchVolume
from gigascope.compression.noise import NoiseModel, PhotonTransfer
from gigascope.compression.slabs import cuts, n_slabs, slabs
from gigascope.runtime.run import run_stage
from gigascope.store.open import StoreReader, open_store
from gigascope.store.plan import ShardPlan, shard_plan
from gigascope.store.readers.volume import VolumeSource


def ingest(folder: Path, source: Path | str, extra: str = "") -> StoreReader:
    """Run the stage on a file, or on `phantom: {...}`."""
    folder.mkdir(exist_ok=True)
    text = f"volume: {source}" if isinstance(source, Path) else source
    (folder / "data.yaml").write_text(f"pipeline: compression\nname: data\ninputs:\n  {text}\n{extra}")
    output = folder / "out" / "volume.zarr"
    run_stage("compression.ingest", folder / "data.yaml", {}, {"volume": output})
    return open_store(output)


def source_of(volume: NDArray) -> VolumeSource:
    """A (t, c, z, y, x) array as a source."""
    return VolumeSource(Path("memory"), "array", volume.shape, volume.dtype, lambda t, c, a, b: volume[t, c, a:b])


@pytest.fixture(scope="module")
def bench_store(tmp_path_factory: pytest.TempPathFactory) -> StoreReader:
    """The bench volume as the stage leaves it."""
    return ingest(tmp_path_factory.mktemp("bench"), "phantom: {}")


@pytest.fixture
def volume(rng: np.random.Generator) -> NDArray[np.uint16]:
    """(z, y, x) with structure."""
    found = rng.poisson(200, (7, 40, 56)).astype(np.uint16)
    found[2:4, 10:18, 20:44] += 1500
    return found


def test_one_volume_in_every_format_gives_one_store(tmp_path: Path, volume: NDArray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    tifffile.imwrite(tmp_path / "big.tif", volume, bigtiff=True, byteorder=">", compression="zlib", tile=(16, 16))
    folder = tmp_path / "planes"
    folder.mkdir()
    for i, plane in enumerate(volume):
        tifffile.imwrite(folder / f"z{i}.tif", plane)
    zarr.create_array(tmp_path / "a.zarr", shape=volume.shape, dtype=volume.dtype, chunks=(2, 8, 8))[...] = volume
    first = ingest(tmp_path / "0", tmp_path / "a.tif")
    np.testing.assert_array_equal(first.array()[:], volume)
    assert first.axes == ("z", "y", "x")
    assert first.attrs["range"] == [[int(volume.min()), int(volume.max())]]
    sources = [tmp_path / "big.tif", folder, tmp_path / "a.zarr", tmp_path / "0" / "out" / "volume.zarr"]
    for i, source in enumerate(sources, start=1):
        other = ingest(tmp_path / str(i), source)
        np.testing.assert_array_equal(other.array()[:], volume)
        assert other.dtype == first.dtype
        for name in ("noise", "range", "source_hash"):
            assert other.attrs[name] == first.attrs[name]


def test_channels_and_times_have_facts_of_their_own(tmp_path: Path, rng: np.random.Generator) -> None:
    factor = np.arange(1, 7, dtype=np.uint16).reshape(2, 3, 1, 1, 1)
    data = rng.poisson(50, (2, 3, 8, 64, 64)).astype(np.uint16) * factor
    path = tmp_path / "a.ome.tif"
    facts = {"axes": "TCZYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata={**facts, "PhysicalSizeZ": 1.5})
    store = ingest(tmp_path / "all", path)
    assert store.axes == ("t", "c", "z", "y", "x")
    np.testing.assert_array_equal(store.array()[:], data)
    assert store.spacing == {"z": 1.5, "y": 0.25, "x": 0.25}
    assert store.attrs["range"] == [[int(f.min()), int(f.max())] for f in data.reshape(6, -1)]
    variance = [float(NoiseModel(**m).variance(50.0 * k)) for k, m in enumerate(store.attrs["noise"], start=1)]
    # 162 blocks, each with an error of 27 %
    np.testing.assert_allclose(variance, 50 * np.arange(1, 7) ** 2, rtol=0.25)
    assert store.side("background").shape == (2, 3, 1, 2, 2)
    some = ingest(tmp_path / "some", path, "ingest:\n  channels: [2, 0]\n  times: [1]\n")
    assert some.axes == ("c", "z", "y", "x")
    np.testing.assert_array_equal(some.array()[:], data[1, [2, 0]])
    assert some.attrs["range"] == [store.attrs["range"][5], store.attrs["range"][3]]


def test_bench_volume_is_reproduced_voxel_for_voxel(
    tmp_path: Path, bench: BenchVolume, bench_store: StoreReader
) -> None:
    np.testing.assert_array_equal(bench_store.array()[:], bench.volume)
    np.testing.assert_array_equal(bench_store.side("clean")[:], bench.clean)
    crop = ingest(tmp_path / "crop", "phantom: {crop: [[18, 82], [96, 224], [136, 264]]}")
    np.testing.assert_array_equal(crop.array()[:], bench.volume[18:82, 96:224, 136:264])
    other = ingest(tmp_path / "other", "phantom: {shape: [24, 48, 48]}", "seed: 7\n")
    again = ingest(tmp_path / "again", "phantom: {shape: [24, 48, 48]}")
    assert other.attrs["source_hash"] != again.attrs["source_hash"]


def test_background_and_cells_are_those_of_the_voxels(bench: BenchVolume, bench_store: StoreReader) -> None:
    store = bench_store
    cells, grid = store.table("cells"), grid_shape(bench.volume.shape)
    assert store.side("background").shape == grid
    np.testing.assert_array_equal(store.side("background")[:].ravel(), cells["background"])
    for number in (0, 100, 333):
        at = np.unravel_index(number, grid)
        assert (cells["frame"][number], cells["z"][number], cells["y"][number], cells["x"][number]) == (0, *at)
        # the last cell of an axis is spoken for by the last 32 voxels
        starts = [min(int(i) * c, n - c) for i, c, n in zip(at, CELL, bench.volume.shape)]
        block = bench.volume[tuple(slice(s, s + c) for s, c in zip(starts, CELL))]
        found = {name: cells[name][number] for name in ("minimum", "maximum", "mean", "sd", "background")}
        level = background_level(np.sort(pooled(block)[0], axis=None)).centre
        expected = {"minimum": block.min(), "maximum": block.max(), "mean": block.mean(), "sd": block.std()}
        assert found == pytest.approx({**expected, "background": level}, rel=1e-6)


def test_source_hash_is_that_of_the_voxels(tmp_path: Path, volume: NDArray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    store = ingest(tmp_path / "0", tmp_path / "a.tif")
    head = f"[1, 1, {volume.shape[0]}, {volume.shape[1]}, {volume.shape[2]}] uint16\n".encode()
    assert store.attrs["source_hash"] == hashlib.sha256(head + volume.astype("<u2").tobytes()).hexdigest()


def test_slabs_cover_every_voxel_once_in_whole_shards(tmp_path: Path, rng: np.random.Generator) -> None:
    volume = rng.integers(0, 1000, (2, 2, 150, 200, 70)).astype(np.uint16)
    plan = ShardPlan(volume.shape, 2, (1, 1, 32, 32, 64), (1, 1, 64, 64, 128))
    found, digest = np.zeros_like(volume), []
    numbers = []
    for slab in slabs(source_of(volume), plan, tmp_path, lambda planes: digest.append(planes.copy())):
        found[slab.t, slab.c, slab.z, slab.y] = slab.voxels
        numbers.append((slab.t, slab.c, slab.z.start, slab.y.start))
        assert slab.z.start % 64 == slab.y.start % 64 == 0
        assert min(slab.voxels.shape[:2]) >= 32
    np.testing.assert_array_equal(found, volume)
    np.testing.assert_array_equal(np.concatenate(digest).reshape(volume.shape), volume)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == n_slabs(volume.shape, plan) == 4 * 2 * 3
    assert not list(tmp_path.iterdir())


def test_bands_give_the_facts_of_whole_planes(tmp_path: Path, bench: BenchVolume) -> None:
    source = source_of(bench.volume[None, None])

    def facts(shards: tuple[int, ...]) -> raw.VolumeFacts:
        found = raw.VolumeFacts(source)
        plan = ShardPlan(source.shape, 2, (1, 1, 64, 64, 64), shards)
        for slab in slabs(source, plan, tmp_path, found.seen):
            found.add(slab)
        return found

    whole, bands = facts((1, 1, 128, 320, 448)), facts((1, 1, 64, 64, 448))
    assert whole.digest == bands.digest
    np.testing.assert_array_equal(whole.frames[0].cells, bands.frames[0].cells)
    levels = np.array([130.0, 1000.0])
    np.testing.assert_allclose(
        bands.frames[0].noise.variance(levels), whole.frames[0].noise.variance(levels), rtol=0.05
    )


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (64, [64]), (90, [90]), (100, [64, 36]), (150, [64, 86])])
def test_a_thin_remainder_goes_with_the_last_piece(n: int, expected: list[int]) -> None:
    found = cuts(n, 64, 32)
    assert [piece.stop - piece.start for piece in found] == expected
    assert found[-1].stop == n


def test_wide_planes_are_cut_into_bands() -> None:
    assert n_slabs((1, 1, 64, 8192, 8192), shard_plan((64, 8192, 8192), np.uint16)) > 8
    assert n_slabs((1, 1, 64, 1024, 1024), shard_plan((64, 1024, 1024), np.uint16)) == 1


def test_float_volume_is_filled_with_background_where_it_is_not_finite(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    data = rng.normal(100, 5, (4, 70, 70)).astype(np.float32)
    data[1, 40:60, 40:60] += 1000
    bad = rng.random(data.shape) < 0.01
    bad[:, :32, 32:64] = True
    data[bad] = rng.choice([np.nan, np.inf, -np.inf], bad.sum())
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    store = ingest(tmp_path / "0", tmp_path / "a.tif", "ingest:\n  not_finite: background\n")
    found = store.array()[:]
    np.testing.assert_array_equal(found[~bad], data[~bad])
    # means of blocks of 32 voxels scatter by 0.9
    np.testing.assert_allclose(found[bad], 100, atol=2)


MEASURE = """
import sys
from pathlib import Path
import scipy.ndimage, tifffile, zarr
import gigascope.compression.ingest, gigascope.compression.source, gigascope.store.readers.volume_tiff
from gigascope.runtime.memory import peak_bytes
from gigascope.runtime.run import run_stage
folder, before = Path(sys.argv[1]), peak_bytes()
run_stage("compression.ingest", folder / "data.yaml", {}, {"volume": folder / "volume.zarr"})
print(before, peak_bytes())
"""


def test_a_volume_is_never_held(tmp_path: Path, rng: np.random.Generator) -> None:
    """A sparse file of 1 GiB, of which a layer of 64 planes is an eighth."""
    path = tmp_path / "sparse.tif"
    shape = (512, 1024, 1024)
    planes = tifffile.memmap(path, shape=shape, dtype=np.uint16, bigtiff=True, photometric="minisblack")
    planes[100, :64, :64] = rng.poisson(300, (64, 64))
    planes[500, 7, 9] = 4000
    del planes
    assert path.stat().st_size > 2**30
    (tmp_path / "data.yaml").write_text(f"pipeline: compression\nname: data\ninputs:\n  volume: {path}\n")
    run = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True)
    before, peak = map(int, run.stdout.split())
    assert peak - before < 2**29
    store = open_store(tmp_path / "volume.zarr")
    assert store.attrs["range"] == [[0, 4000]]
    assert store.array()[500, 7, 9] == 4000


REAL: dict[str, Any] = {
    "cortex_somata_u16.tif": ("z", "y", "x"),
    "mouse_brain_100um_u16.tiff": ("z", "y", "x"),
    "pyramidal_neuron_u8.tif": ("z", "y", "x"),
    "xyz_8bit__chromosomes.tif": ("z", "y", "x"),
    "xyz_calibrated_16bit__golgi_bfa.tif": ("z", "y", "x"),
    "xyzc_16bit__spots.tif": ("c", "z", "y", "x"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_volumes_are_kept_as_they_are(tmp_path: Path, shared_data: Path, name: str) -> None:
    store = ingest(tmp_path, shared_data / "volumes" / name)
    expected = tifffile.imread(shared_data / "volumes" / name)
    np.testing.assert_array_equal(store.array()[:], expected.swapaxes(0, 1) if expected.ndim == 4 else expected)
    assert store.axes == REAL[name]
    background = store.side("background")[:]
    for (low, high), grid in zip(store.attrs["range"], background.reshape(len(store.attrs["range"]), -1)):
        assert low <= grid.min() <= grid.max() <= high
        # most of every one of these volumes is dark
        assert np.median(grid) < low + 0.2 * (high - low) or "chromosomes" in name
    warned = store.provenance["warnings"]
    assert any("voxel size is not known" in w for w in warned) == (name.startswith(("mouse", "pyramidal")))


def test_noise_model_is_that_of_the_voxels(bench: BenchVolume, bench_store: StoreReader) -> None:
    transfer = PhotonTransfer(bench.volume.shape, integer=True, limit=65535.0)
    transfer.add(bench.volume)
    model = transfer.fit()
    assert bench_store.attrs["noise"] == [{"gain": model.gain, "offset": model.offset, "read": model.read}]
