"""Bad volumes: each is handled, or refused with one clear message, exit code 2 and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from gigascope.cli import main
from gigascope.store.open import StoreReader, open_store

SHAPE = (6, 40, 48)


class Lab:
    """A folder with a volume and a dataset YAML, and the command line in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.rng = np.random.default_rng(5)
        self.volume = folder / "volume.tif"
        self.yaml = folder / "data.yaml"
        self.results = folder / "results"

    def noise(self, dtype: Any = np.uint16, mean: float = 100.0) -> NDArray:
        """Voxels that hold no signal."""
        return self.rng.normal(mean, 5, SHAPE).astype(dtype)

    def spots(self, dtype: Any = np.uint16) -> NDArray:
        """Noise with two bright boxes in it."""
        found = self.noise(np.float32)
        found[1:5, 8:16, 9:20] += 300
        found[:3, 25:36, 30:40] += 500
        return found.astype(dtype)

    def write(self, data: NDArray, **options: Any) -> None:
        tifffile.imwrite(self.volume, data, **{"photometric": "minisblack", **options})
        self.configure()

    def configure(self, volume: Path | None = None, **sections: str) -> None:
        lines = ["pipeline: compression", "name: data", "inputs:", f"  volume: {volume or self.volume}"]
        for section, text in sections.items():
            lines += [f"{section}: {{{text}}}"]
        self.yaml.write_text("\n".join(lines) + "\n")

    def _arguments(self, stage: str) -> list[str]:
        arguments = ["run", f"compression.{stage}", "--config", str(self.yaml)]
        if stage == "gate":
            arguments += ["--input", f"volume={self.results / 'volume.zarr'}"]
        name = {"ingest": "volume", "gate": "gate"}[stage]
        return [*arguments, "--output", f"{name}={self.results / name}.zarr"]

    def run(self, stage: str) -> StoreReader:
        """A stage that must succeed; its store."""
        self.succeed(*self._arguments(stage))
        return open_store(self.results / {"ingest": "volume.zarr", "gate": "gate.zarr"}[stage])

    def succeed(self, *arguments: str) -> str:
        """A command that must succeed; what it prints."""
        with pytest.raises(SystemExit) as exit_:
            main(list(arguments))
        printed = self._capsys.readouterr()
        assert exit_.value.code == 0, printed.err
        return printed.out

    def fail(self, *arguments: str) -> str:
        """A command that must fail as the user's mistake; its message."""
        before = set(self.folder.rglob("*"))
        with pytest.raises(SystemExit) as exit_:
            main(list(arguments) or self._arguments("ingest"))
        message = self._capsys.readouterr().err
        assert exit_.value.code == 2, message
        assert "Traceback" not in message
        # the folder of the results may be there, and nothing in it
        written = [path for path in self.folder.rglob("*") if path not in before and path != self.results]
        assert not written
        return message


@pytest.fixture
def lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lab:
    return Lab(tmp_path, capsys)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_refused_with_its_place(lab: Lab, value: float) -> None:
    data = lab.spots(np.float32)
    data[3, 7, 21] = value
    lab.write(data)
    message = lab.fail()
    assert "z 3, y 7, x 21" in message
    assert "ingest.not_finite" in message


def test_place_of_a_value_that_is_not_finite_names_time_and_channel(lab: Lab) -> None:
    data = np.stack([lab.spots(np.float32)] * 6).reshape(2, 3, *SHAPE)
    data[1, 2, 3, 7, 21] = np.nan
    lab.write(data, ome=True, metadata={"axes": "TCZYX"})
    assert "time 1, channel 2: holds" in lab.fail()


def test_values_that_are_not_finite_are_filled_on_request(lab: Lab) -> None:
    data = lab.spots(np.float32)
    data[3, 7, 21] = np.nan
    lab.write(data)
    lab.configure(ingest="not_finite: background")
    assert lab.run("ingest").array()[3, 7, 21] == pytest.approx(100, abs=5)


def test_planes_without_a_finite_value_are_refused(lab: Lab) -> None:
    lab.write(np.full(SHAPE, np.nan, np.float32))
    lab.configure(ingest="not_finite: background")
    assert "no finite value in planes 0 to 5" in lab.fail()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_constant_volume_is_refused_with_its_value(lab: Lab, dtype: type[np.generic]) -> None:
    lab.write(np.full(SHAPE, 7, dtype))
    assert "is constant: every voxel is 7." in lab.fail()


def test_constant_channel_among_others_is_a_warning(lab: Lab) -> None:
    lab.write(np.stack([lab.spots(), np.full(SHAPE, 7, np.uint16)]), ome=True, metadata={"axes": "CZYX"})
    warnings = lab.run("ingest").provenance["warnings"]
    assert any("1 of 2 frames are constant: channel 1." in w for w in warnings)
    gate = lab.run("gate")
    assert gate.attrs["fraction"][0] > 0
    assert gate.attrs["fraction"][1] == 0
    assert any("gate of frame 1 is empty" in w for w in gate.provenance["warnings"])


@pytest.mark.parametrize("mode", ["threshold", "intensity", "network"])
def test_one_slice_goes_right_through(lab: Lab, mode: str) -> None:
    lab.write(lab.spots()[2])
    lab.configure(gate=f"mode: {mode}, network: {{steps: 20, batch: 256, width: 16}}")
    volume = lab.run("ingest")
    assert volume.shape == (1, *SHAPE[1:])
    assert not any("distance of the planes" in w for w in volume.provenance["warnings"])
    gate = lab.run("gate")
    assert gate.shape == volume.shape
    if mode != "network":
        assert gate.array()[0, 12, 14] == 1
        assert gate.array()[0, 2, 2] == 0


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_signed_integers_are_kept(lab: Lab, dtype: type[np.generic]) -> None:
    data = (lab.spots(np.float32) / 5 - 60).round().astype(dtype)
    assert data.min() < 0 < data.max()
    lab.write(data)
    volume = lab.run("ingest")
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.array()[:], data)
    assert lab.run("gate").array()[2, 12, 14] == 1


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.uint64, np.int64])
def test_integers_that_float32_cannot_hold_are_refused(lab: Lab, dtype: type[np.generic]) -> None:
    lab.write(lab.spots(dtype))
    message = lab.fail()
    assert f"integers of {8 * np.dtype(dtype).itemsize} bits" in message
    assert "8 or 16 bits, or as 32-bit floating point" in message


def test_complex_and_colour_are_refused(lab: Lab) -> None:
    lab.write(lab.spots(np.complex64))
    assert "complex64, which are no grey values" in lab.fail()
    lab.write(lab.spots(np.uint8)[0, :, :, None].repeat(3, axis=2), photometric="rgb")
    assert "colour image" in lab.fail()


def test_big_endian_is_read_as_what_it_means(lab: Lab) -> None:
    data = lab.spots()
    lab.write(data, byteorder=">")
    volume = lab.run("ingest")
    assert volume.dtype.isnative
    np.testing.assert_array_equal(volume.array()[:], data)


def test_axes_in_another_order(lab: Lab) -> None:
    data = lab.spots()
    lab.write(np.ascontiguousarray(data.transpose(2, 0, 1)))
    lab.configure(ingest="axes: xzy")
    np.testing.assert_array_equal(lab.run("ingest").array()[:], data)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("axes: zzyx", "no axis twice"),
        ("axes: zcx", "must name y and x"),
        ("axes: zab", "should match pattern"),
        ("axes: tczyx", "names 5 axes, the file has 3: 6 x 40 x 48"),
        ("channels: [1]", "has channels only 0, not 1"),
        ("times: [0, 4]", "has times only 0, not 4"),
        ("voxel_size_um: [1, 0, 1]", "greater than 0"),
        ("voxel_size: [1, 1, 1]", "Did you mean voxel_size_um?"),
    ],
)
def test_settings_that_do_not_fit_are_refused(lab: Lab, setting: str, words: str) -> None:
    lab.write(lab.spots())
    lab.configure(ingest=setting)
    assert words in lab.fail()
    assert words in lab.fail("check", str(lab.yaml))


def test_axes_that_are_not_clear_must_be_named(lab: Lab) -> None:
    folder = lab.folder / "plain.zarr"
    data = np.stack([lab.spots()] * 2)
    zarr.create_array(folder, shape=data.shape, dtype=data.dtype, chunks=data.shape)[...] = data
    lab.configure(folder)
    assert "Set ingest.axes to their order, such as tzyx or czyx." in lab.fail()
    lab.configure(folder, ingest="axes: czyx")
    assert lab.run("ingest").axes == ("c", "z", "y", "x")


def test_missing_voxel_size_is_one_micrometre_with_a_warning(lab: Lab) -> None:
    lab.write(lab.spots())
    volume = lab.run("ingest")
    assert volume.spacing == {"z": 1.0, "y": 1.0, "x": 1.0}
    assert any("1 um was assumed; set ingest.voxel_size_um" in w for w in volume.provenance["warnings"])
    lab.configure(ingest="voxel_size_um: [2, 0.5, 0.5]")
    volume = lab.run("ingest")
    assert volume.spacing == {"z": 2.0, "y": 0.5, "x": 0.5}
    assert not volume.provenance["warnings"]


def test_missing_distance_of_planes_is_that_of_pixels_with_a_warning(lab: Lab) -> None:
    lab.write(lab.spots(), resolution=(4e4, 4e4), resolutionunit="CENTIMETER")
    volume = lab.run("ingest")
    assert volume.spacing == pytest.approx({"z": 0.25, "y": 0.25, "x": 0.25})
    assert any("distance of the planes" in w for w in volume.provenance["warnings"])


def test_truncated_tiff_is_refused_with_both_sizes(lab: Lab) -> None:
    lab.write(lab.spots())
    whole = lab.volume.read_bytes()
    lab.volume.write_bytes(whole[:-1000])
    for message in (lab.fail(), lab.fail("check", str(lab.yaml))):
        assert "volume.tif: is truncated" in message
        assert str(len(whole) - 1000) in message


def test_page_that_is_damaged_is_refused_in_the_middle_of_the_stage(lab: Lab) -> None:
    lab.write(lab.spots(), compression="zlib")
    with tifffile.TiffFile(lab.volume) as tiff:
        at = tiff.pages[4].dataoffsets[0]
    raw = bytearray(lab.volume.read_bytes())
    raw[at : at + 40] = bytes(40)
    lab.volume.write_bytes(bytes(raw))
    assert "cannot be decoded" in lab.fail()


def test_mixed_shapes_in_a_stack_of_files_are_named(lab: Lab) -> None:
    folder = lab.folder / "planes"
    folder.mkdir()
    for i, plane in enumerate(lab.spots()):
        tifffile.imwrite(folder / f"plane_{i}.tif", plane[:, :-1] if i == 3 else plane)
    lab.configure(folder)
    message = lab.fail()
    assert "5 files are 48 x 40 uint16" in message
    assert "plane_3.tif (47 x 40 uint16)" in message


@pytest.mark.parametrize(("name", "words"), [("absent.tif", "no such file"), ("volume.czi", ".czi files are not read")])
def test_files_that_are_not_there_or_not_read(lab: Lab, name: str, words: str) -> None:
    (lab.folder / "volume.czi").write_bytes(b"ZISRAWFILE")
    lab.configure(lab.folder / name)
    assert words in lab.fail()


def test_store_of_ours_that_was_not_finished_is_refused(lab: Lab) -> None:
    broken = lab.folder / "broken.zarr"
    group = zarr.create_group(broken)
    group.attrs["gigascope"] = {"version": 1, "complete": False}
    lab.configure(broken)
    assert "was not finished" in lab.fail()


@pytest.mark.parametrize("name", ["image-02.zarr", "image-03.zarr"])
def test_broken_ome_zarr_is_refused_with_the_reason(lab: Lab, shared_data: Path, name: str) -> None:
    lab.configure(shared_data / "omezarr" / "v0.4_examples" / "invalid" / name)
    message = lab.fail()
    assert "is broken:" in message
    assert name in message


def test_ome_zarr_without_any_chunk_is_constant(lab: Lab, shared_data: Path) -> None:
    lab.configure(shared_data / "omezarr" / "v0.5_ngio" / "tczyx.zarr")
    assert "is constant: every voxel is 0." in lab.fail()


def test_saturated_voxels_are_a_warning(lab: Lab) -> None:
    data = lab.spots()
    data[2:4, 9:15, 10:18] = 65535
    lab.write(data)
    assert any("0.83 % of the voxels are saturated" in w for w in lab.run("ingest").provenance["warnings"])


def test_empty_gate_is_a_warning(lab: Lab) -> None:
    lab.write(lab.noise())
    lab.run("ingest")
    gate = lab.run("gate")
    assert gate.attrs["fraction"] == [0.0]
    assert any("The gate is empty" in w for w in gate.provenance["warnings"])
    assert not gate.array()[:].any()


def test_thresholds_in_the_wrong_order_are_refused(lab: Lab) -> None:
    lab.write(lab.spots())
    lab.configure(gate="grow_sd: 7, seed_sd: 6")
    assert "grow_sd 7.0 must not be above seed_sd 6.0" in lab.fail()


def init(lab: Lab, *settings: str) -> list[str]:
    arguments = ["init", "compression", "--name", "new", "--folder", str(lab.folder / "datasets")]
    return [*arguments, *(word for setting in settings for word in ("--set", setting))]


def test_init_looks_at_the_volume_and_writes_a_yaml_that_loads(lab: Lab) -> None:
    lab.write(lab.spots(), imagej=True, metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"}, resolution=(2.0, 2.0))
    lab.succeed(*init(lab), "--input", str(lab.volume))
    text = (lab.folder / "datasets" / "new.yaml").read_text()
    assert "voxel_size_um: [2.0, 0.5, 0.5]  # from ImageJ's calibration" in text
    assert "6 x 40 x 48 voxels (z, y, x) of uint16" in text
    assert "2 x 0.5 x 0.5 um" in lab.succeed("check", str(lab.folder / "datasets" / "new.yaml"))


def test_init_says_what_is_missing(lab: Lab) -> None:
    lab.write(lab.spots())
    lab.succeed(*init(lab), "--input", str(lab.volume))
    assert "# voxel_size_um: null  # check this" in (lab.folder / "datasets" / "new.yaml").read_text()
    assert "Add --input FILE" in lab.fail(*init(lab)[:3], "other")
    message = lab.fail("init", "compression", "--name", "b", "--input", str(lab.volume), "--set", "fit.ratoi=3")
    assert "Did you mean ratio?" in message
    folder = lab.folder / "plain.zarr"
    zarr.create_array(folder, shape=(2, 3, 4, 5), dtype="u2", chunks=(2, 3, 4, 5))[...] = 1
    assert "--set ingest.axes=czyx" in lab.fail("init", "compression", "--name", "b", "--input", str(folder))
