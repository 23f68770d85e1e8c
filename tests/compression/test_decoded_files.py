"""Decoded volumes as files, through the command line, read back by independent readers."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pandas
import plyfile
import pytest
import tifffile
import zarr

from gigascope.cli import main
from gigascope.compression.decoding.decoded_files import Excerpt, create_decoded, write_shards
from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.store.checksum import verify
from gigascope.store.commit import finish
from gigascope.store.open import open_store
from gigascope.store.plan import ShardPlan

from .compressed import write_file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("compressed") / "cells.gmix", np.random.default_rng(11))


@pytest.fixture(scope="module")
def decoded(file: Path) -> np.ndarray:
    return np.asarray(GaussianVolume(file))


def run(*arguments: object) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_ome_zarr_holds_what_was_decoded(file: Path, decoded: np.ndarray, tmp_path: Path) -> None:
    from ome_zarr_models.v05.image import Image

    out = tmp_path / "cells.zarr"
    assert run("decode", file, out) == 0
    assert np.array_equal(zarr.open_group(out, mode="r")["0"][:], decoded)
    assert not verify(out)
    store = open_store(out)
    assert store.axes == ("t", "c", "z", "y", "x")
    assert (store.spacing, store.unit) == ({"z": 0.5, "y": 0.2, "x": 0.2}, "micrometer")
    assert store.n_levels == 2
    Image.from_zarr(zarr.open_group(out, mode="r"))
    assert store.provenance["inputs"]["compressed"]["path"] == str(file)
    assert run("info", out) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["cells.zarr"]


def test_parts_of_shards_make_the_same_store(file: Path, decoded: np.ndarray, tmp_path: Path) -> None:
    """What jobs of a scattered stage do: each its own shards, each with a decoder of its own."""
    excerpt = Excerpt(GaussianVolume(file).at_level((1, 2, 1)))
    whole = create_decoded(tmp_path / "whole.zarr", excerpt, "decoded")
    write_shards(whole, excerpt, whole.shard_regions())
    parts = create_decoded(tmp_path / "parts.zarr", excerpt, "decoded")
    regions = list(parts.shard_regions())
    assert len(regions) == 6
    for k in (2, 0, 1):
        write_shards(parts, Excerpt(GaussianVolume(file).at_level((1, 2, 1))), regions[k::3])
    assert finish(whole, {}) == finish(parts, {})
    assert open_store(tmp_path / "parts.zarr").spacing == {"z": 0.5, "y": 0.4, "x": 0.2}


def test_shards_are_read_without_the_rest(file: Path, decoded: np.ndarray) -> None:
    excerpt = Excerpt(GaussianVolume(file), (0, slice(None), slice(3, 30), slice(None), slice(5, 6)))
    assert excerpt.shape == (3, 27, 50, 1)
    assert excerpt.axes == ("c", "z", "y", "x")
    plan = ShardPlan(excerpt.shape, 2, (1, 8, 8, 1), (1, 8, 16, 1))
    expected = decoded[0, :, 3:30, :, 5:6]
    for region in plan.regions():
        assert np.array_equal(excerpt.read(region), expected[region])


def test_tiff_has_pages_axes_and_voxel_size(file: Path, decoded: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "cells.tif"
    assert run("decode", file, out) == 0
    with tifffile.TiffFile(out) as tiff:
        assert tiff.series[0].axes == "TCZYX"
        assert not tiff.is_bigtiff
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        assert [pixels[f"PhysicalSize{a}"] for a in "ZYX"] == [0.5, 0.2, 0.2]
        assert pixels["PhysicalSizeZUnit"] == "µm"
        assert np.array_equal(tiff.asarray(), decoded)


def test_a_region_of_one_channel_at_a_coarser_level(file: Path, decoded: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "part.tif"
    options = ("--roi", "4:20,:,10:", "--channel", 1, "--time", 0)
    assert run("decode", file, out, *options) == 0
    assert np.array_equal(tifffile.imread(out), decoded[0, 1, 4:20, :, 10:])
    assert run("decode", file, out, *options, "--factor", "2,2,2", "--force") == 0
    coarse = np.asarray(GaussianVolume(file).at_level(2)[0, 1])
    assert np.array_equal(tifffile.imread(out), coarse[2:10, :, 5:])
    store = tmp_path / "part.zarr"
    assert run("decode", file, store, *options, "--factor", "2") == 0
    assert open_store(store).attrs["origin_um"] == pytest.approx({"z": 0.5 * 4.5, "y": 0.2 * 0.5, "x": 0.2 * 10.5})


def test_projections_are_pictures(file: Path, decoded: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "mip.png"
    options = ("--channel", 2, "--time", 1)
    assert run("decode", file, out, *options, "--project", "max", "--axis", "y", "--roi", ":,5:45,:") == 0
    expected = decoded[1, 2, :, 5:45].max(1).astype(float)
    stretched = np.rint((expected - expected.min()) * (65535 / (expected.max() - expected.min())))
    assert np.array_equal(imagecodecs.png_decode(out.read_bytes()), stretched)
    out = tmp_path / "mip.tif"
    assert run("decode", file, out, "--project", "max") == 0
    assert np.array_equal(tifffile.imread(out), decoded.max(2))
    assert run("decode", file, out, *options, "--project", "mean", "--force") == 0
    # not of the clipped values: some of these random Gaussians dig below 0
    mean = GaussianVolume(file).decoder.region(5, (slice(0, 40), slice(0, 50), slice(0, 70))).double().numpy().mean(0)
    assert np.sqrt(np.mean((tifffile.imread(out) - mean) ** 2)) < 1e-3 * (mean.max() - mean.min())


def test_exports_of_one_frame(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = GaussianVolume(file)
    everything = volume.gaussians(time=1, channel=0)
    assert run("export", file, tmp_path / "a.parquet", "--time", 1) == 0
    table = pandas.read_parquet(tmp_path / "a.parquet")
    assert len(table) == len(everything)
    # amplitudes in grey values
    assert np.allclose(table["amplitude"], everything.amplitudes * volume.header.intensity[3].scale, rtol=1e-6)
    assert run("export", file, tmp_path / "b.csv", "--time", 1, "--roi", ":,10:20,30:") == 0
    inside = (everything.means[:, 1] >= 9.5) & (everything.means[:, 1] < 19.5) & (everything.means[:, 2] >= 29.5)
    assert len(pandas.read_csv(tmp_path / "b.csv")) == int(inside.sum()) > 0
    capsys.readouterr()
    assert run("export", file, tmp_path / "c.ply", "--time", 1) == 0
    negative = int((everything.amplitudes <= 0).sum())
    assert f"{negative} with negative amplitude left out" in capsys.readouterr().out
    assert run("export", file, tmp_path / "d.ply", "--time", 1, "--bake", "--gamma", 1.0, "--opacity", 0.5) == 0
    assert "none negative" in capsys.readouterr().out
    counts = [plyfile.PlyData.read(tmp_path / name)["vertex"].count for name in ("c.ply", "d.ply")]
    assert counts[0] == len(everything) - negative
    assert 0 < counts[1] <= len(everything)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("decode", "FILE", "a.mrc"), "a volume can be written as .zarr, .tif, .tiff, not '.mrc'"),
        (("decode", "FILE", "a.png"), "a volume can be written as .zarr"),
        (("decode", "FILE", "a.zarr", "--project", "max"), "a projection can be written as .png"),
        (("decode", "FILE", "nowhere/a.tif"), "there is no such folder"),
        (("decode", "FILE", "there.tif"), "is there already. Remove it, write elsewhere, or give --force"),
        (("decode", "missing.gmix", "a.tif"), "missing.gmix"),
        (("decode", "FILE", "a.tif", "--roi", "0:10,0:10"), "--roi: '0:10,0:10' is no region of three ranges"),
        (("decode", "FILE", "a.tif", "--roi", "0:41,:,:"), "--roi: 0:41 along z does not lie within"),
        (("decode", "FILE", "a.tif", "--roi", "9:3,:,:"), "--roi: 9:3 along z"),
        (("decode", "FILE", "a.tif", "--factor", "0"), "--factor: '0' is no factor"),
        (("decode", "FILE", "a.tif", "--factor", "2,2"), "--factor: '2,2' is no factor"),
        (("decode", "FILE", "a.tif", "--channel", "3"), "--channel: there is no 3: the file has 3, from 0"),
        (("decode", "FILE", "a.tif", "--time", "-1"), "--time: there is no -1: the file has 2, from 0"),
        (
            ("decode", "FILE", "a.png", "--project", "max"),
            "holds one picture, this projection has 2 along t, 3 along c",
        ),
        (("decode", "FILE", "a.tif", "--project", "median"), "--project: 'median' is none of max, mean"),
        (("decode", "FILE", "a.tif", "--project", "max", "--axis", "t"), "--axis: 't' is none of z, y, x"),
        (("decode", "FILE", "a.tif", "--project", "mean", "--factor", "2"), "at full resolution"),
        (("decode", "FILE", "a.tif", "--device", "cuda:9"), "device cuda:9 was asked for"),
        (("export", "FILE", "a.obj"), "Gaussians can be written as .ply, .splat, .parquet, .csv, not '.obj'"),
        (("export", "FILE", "a.ply", "--channel", "5"), "--channel: there is no 5"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.tif").write_text("mine")
    assert run(*(file if a == "FILE" else a for a in arguments)) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["there.tif"]
    assert Path("there.tif").read_text() == "mine"


def test_a_damaged_file_is_refused_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x40
    damaged = tmp_path / "damaged.gmix"
    damaged.write_bytes(bytes(data))
    assert run("decode", damaged, tmp_path / "a.zarr") == 2
    damaged.write_bytes(file.read_bytes()[:-100])
    assert run("decode", damaged, tmp_path / "a.tif") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["damaged.gmix"]


def test_voxel_size_that_nobody_knows_is_one(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.gmix", np.random.default_rng(3), 20, (30, 40, 50), "zyx", voxel_size_um=None)
    assert GaussianVolume(path).voxel_size_um == (1.0, 1.0, 1.0)
    assert run("decode", path, tmp_path / "a.tif", "--factor", "3") == 0
    assert tifffile.imread(tmp_path / "a.tif").shape == (10, 14, 17)
