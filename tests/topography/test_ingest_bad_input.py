"""Bad acquisitions: each is handled, or refused with one clear message, exit code 2 and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from gigascope.cli import main

from .captures import Acquisition, acquisition, dataset


class Lab:
    """A folder with an acquisition, and the command line in it."""

    def __init__(self, folder: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.rng, self._capsys = folder, rng, capsys
        self.made: Acquisition = acquisition(rng)

    @property
    def root(self) -> Path:
        return self.folder / "a"

    def write(self) -> None:
        self.made.write_captures(self.root)

    def fail(self, inputs: str | None = None, **sections: str) -> str:
        """Run the stage: it must fail as the user's mistake with one message, which is returned, and write nothing."""
        yaml = dataset(self.folder, inputs or f"captures: {self.root}", **sections)
        before = set(self.folder.rglob("*"))
        command = ["run", "topography.ingest", "--config", str(yaml), "--output", f"raw={self.folder / 'out/raw.zarr'}"]
        with pytest.raises(SystemExit) as exit_:
            main(command)
        message = self._capsys.readouterr().err
        assert exit_.value.code == 2, message
        assert "Traceback" not in message
        written = [p for p in self.folder.rglob("*") if p not in before and p.name != "out"]
        assert not [p for p in written if "scratch" not in str(p)], written
        assert not (self.folder / "out" / "raw.zarr").exists()
        return message.replace("\n", " ")


@pytest.fixture
def lab(tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> Lab:
    return Lab(tmp_path, rng, capsys)


def test_stage_position_without_its_folder(lab: Lab) -> None:
    lab.write()
    folder = lab.made.folder(lab.root, 1, 1)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    message = lab.fail()
    assert "the raster of 2 x 3 stage positions lacks 1: y_3.2_x_-0.8" in message
    assert "ingest.missing: mask" in message


def test_stage_position_without_its_file(lab: Lab) -> None:
    lab.write()
    next(lab.made.folder(lab.root, 1, 1).glob("z_stack*")).unlink()
    assert "no z_stack file in y_3.200_x_-0.800" in lab.fail()


def test_two_files_of_one_stage_position(lab: Lab) -> None:
    lab.write()
    path = next(lab.made.folder(lab.root, 1, 1).glob("z_stack*"))
    path.with_name("z_stack_0002.nc").write_bytes(path.read_bytes())
    assert "y_3.200_x_-0.800: holds 2 z_stack files: z_stack_0001.nc, z_stack_0002.nc" in lab.fail()


def test_truncated_file(lab: Lab) -> None:
    lab.write()
    path = next(lab.made.folder(lab.root, 0, 2).glob("z_stack*"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = lab.fail()
    assert "y_1.000_x_1.400/z_stack_0001.nc: is no netCDF-4 file, or is damaged" in message


def test_folder_of_something_else(lab: Lab) -> None:
    lab.folder.joinpath("a").mkdir()
    assert "holds no folder named y_<number>_x_<number>" in lab.fail()
    assert "no such folder" in lab.fail(f"captures: {lab.folder}/nothing")


def test_one_position_with_fewer_slices(lab: Lab) -> None:
    lab.write()
    odd = acquisition(lab.rng, n_z=4)
    path = next(lab.made.folder(lab.root, 1, 2).glob("z_stack*"))
    with h5py.File(path, "w") as file:
        file["mcam_data"] = np.moveaxis(odd.images[0, 0], 2, 0)
        file["z_stage"] = odd.z_mm / 1000
    assert "slices differ: 5 stage positions have 5, not y_3.200_x_1.400 (4)" in lab.fail()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": (40, 58)}, "pixels differ: 5 stage positions have 40x56, not y_3.200_x_1.400 (40x58)"),
        ({"dtype": np.uint16}, "values differ: 5 stage positions have uint8, not y_3.200_x_1.400 (uint16)"),
        ({"cameras": (2, 1)}, "cameras differ: 5 stage positions have 2x2, not y_3.200_x_1.400 (2x1)"),
    ],
)
def test_mixed_stage_positions(lab: Lab, change: dict[str, Any], words: str) -> None:
    lab.write()
    odd = acquisition(lab.rng, **change)
    path = next(lab.made.folder(lab.root, 1, 2).glob("z_stack*"))
    with h5py.File(path, "w") as file:
        file["mcam_data"] = np.moveaxis(odd.images[0, 0], 2, 0)
        file["z_stage"] = odd.z_mm / 1000
    assert words in lab.fail()


def test_lost_slice_shows_in_the_stage_positions(lab: Lab) -> None:
    def skip(file: h5py.File, folder: str) -> None:
        if folder == "y_1.000_x_-0.800":
            file["z_stage"][3:] += 0.04e-3

    lab.made.edit = skip
    lab.write()
    message = lab.fail()
    assert (
        "position (0, 1) (y_1.000_x_-0.800/z_stack_0001.nc): slices are missing between 10.08 and 10.16 mm" in message
    )
    assert "and 3 more views have such gaps" in message


def test_positions_that_do_not_fit_the_slices(lab: Lab) -> None:
    def drop(file: h5py.File, folder: str) -> None:
        del file["z_stage"]
        file["z_stage"] = np.arange(4) * 1e-5

    lab.made.edit = drop
    lab.write()
    assert "has 5 slices and 4 stage positions (z_stage)" in lab.fail()


@pytest.mark.parametrize("wrong", ["RGGB", "BGGR"])
def test_wrong_bayer_pattern_is_found_in_the_pixels(lab: Lab, wrong: str) -> None:
    lab.write()
    message = lab.fail(ingest=f"bayer: {wrong}")
    assert f"the Bayer pattern {wrong} is wrong: the sites that it calls green differ by" in message
    assert "Set ingest.bayer to GBRG or GRBG" in message


def test_one_camera_with_another_pattern_is_named(lab: Lab) -> None:
    # a sensor that is read from its second column
    lab.made.images[:, :, 1, 0] = np.roll(lab.made.images[:, :, 1, 0], 1, axis=-1)
    lab.write()
    message = lab.fail()
    assert "the Bayer pattern GBRG is wrong for 1 of 4 cameras, camera (1, 0): the sites that it calls green" in message


def test_recorded_pattern_that_is_none(lab: Lab) -> None:
    lab.made.pattern = "GGRB"
    lab.write()
    assert "the Bayer pattern 'GGRB' is none of GBRG, GRBG, RGGB, BGGR" in lab.fail()


def test_one_camera_of_another_size(lab: Lab) -> None:
    pattern = lab.made.write_stacks(lab.folder / "b")
    for path in (lab.folder / "b").glob("cam1_0_*"):
        tifffile.imwrite(path, lab.rng.integers(0, 255, (5, 40, 60)).astype(np.uint8), photometric="minisblack")
    message = lab.fail(f"stacks: '{pattern}'", ingest="bayer: GBRG")
    assert "18 views are 56 x 40 x 5 grey uint8, 6 are not: cam1_0_y0_x0.tif (60 x 40 x 5 grey uint8)" in message
    assert "All of them are of camera (1, 0)." in message


def test_one_stack_of_another_bit_depth(lab: Lab) -> None:
    pattern = lab.made.write_stacks(lab.folder / "b")
    odd = lab.folder / "b" / "cam0_1_y1_x2.tif"
    tifffile.imwrite(odd, np.zeros((5, 40, 56), np.uint16), photometric="minisblack")
    assert "1 are not: cam0_1_y1_x2.tif (56 x 40 x 5 grey uint16)" in lab.fail(f"stacks: '{pattern}'")


def test_stack_that_is_missing(lab: Lab) -> None:
    pattern = lab.made.write_stacks(lab.folder / "b")
    (lab.folder / "b" / "cam0_1_y1_x2.tif").unlink()
    message = lab.fail(f"stacks: '{pattern}'")
    assert "1 of 24 views are missing: view (1, 3): camera (0, 1) at position (1, 0)" in message


def test_truncated_stack(lab: Lab) -> None:
    pattern = lab.made.write_stacks(lab.folder / "b")
    odd = lab.folder / "b" / "cam0_1_y1_x2.tif"
    odd.write_bytes(odd.read_bytes()[:-2000])
    message = lab.fail(f"stacks: '{pattern}'")
    assert "cam0_1_y1_x2.tif" in message


def test_pattern_with_an_unknown_field(lab: Lab) -> None:
    message = lab.fail(f"stacks: '{lab.folder}/cam{{camera}}.tif'")
    assert "{camera} is no field of it" in message
    assert "{camera_row}, {camera_col}, {scan_y}, {scan_x}, {z}" in message
    assert "no file fits this pattern" in lab.fail(f"stacks: '{lab.folder}/cam{{camera_row}}.tif'")


def test_mixed_pictures(lab: Lab) -> None:
    folder = lab.folder / "c"
    folder.mkdir()
    for n in range(4):
        Image.fromarray(lab.rng.integers(0, 255, (10, 12)).astype(np.uint8)).save(folder / f"s{n}.png")
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(folder / "s2.png")
    assert "3 pictures are 12 x 10 grey, 8 bits, not s2.png (12 x 12 grey, 8 bits)" in lab.fail(f"images: {folder}")
    (folder / "s2.png").unlink()
    message = lab.fail(f"images: {folder}")
    assert "1 slices are missing, the first between s1.png and s3.png" in message
    assert "holds no pictures" in lab.fail(f"images: {lab.folder}/c/*.gif")


def test_nothing_but_black(lab: Lab) -> None:
    lab.made.images[...] = 0
    lab.write()
    assert "every pixel of all views is 0" in lab.fail()


def test_flat_target_of_another_instrument(lab: Lab) -> None:
    lab.write()
    inputs = f"captures: {lab.root}, flat: {{captures: {lab.folder}/flat}}"
    acquisition(lab.rng, scan=(2, 2)).write_captures(lab.folder / "flat")
    assert "the flat target has other stage positions (2 x 2) than the sample (2 x 3)" in lab.fail(inputs)


@pytest.mark.parametrize(
    ("inputs", "section", "words"),
    [
        ("captures: a, images: b", "", "give exactly one of captures, stacks, images (files) and instrument"),
        ("", "", "found none"),
        ("instrument: {}, flat: {images: b}", "", "flat cannot be given beside instrument"),
        ("images: a", "scan_step_mm: 1.0", "ingest.scan_step_mm has no effect on inputs.images"),
        ("instrument: {}", "stage_up: false", "ingest.stage_up has no effect on inputs.instrument"),
        ("images: a", "chunk_px: 33", "ingest.chunk_px"),
        ("images: a", "crop: [[4, 4], [0, 8]]", "crop 4 to 4 is empty"),
        ("images: a", "camera_rows: [1, 1]", "none twice"),
        ("images: a, flat: {dz_mm: 0.1}", "", "there is none"),
    ],
)
def test_config_that_contradicts_itself(lab: Lab, inputs: str, section: str, words: str) -> None:
    sections = {"ingest": section} if section else {}
    assert words in lab.fail(inputs or " ", **sections)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("crop: [[0, 20], [0, 57]]", "has 56 columns, ingest.crop asks for 0 to 57"),
        ("crop: [[1, 21], [0, 56]]", "would shift the colours"),
        ("camera_cols: [0, 5]", "camera columns 0 to 1, not 5"),
        ("ref_view: 24", "there are 24 views, counted from 0, and no view 24"),
    ],
)
def test_keys_that_do_not_fit_the_files(lab: Lab, section: str, words: str) -> None:
    lab.write()
    assert words in lab.fail(ingest=section)


def test_failure_before_the_first_view_leaves_no_store(lab: Lab) -> None:
    lab.write()
    lab.fail(ingest="bayer: RGGB")
    assert not list(lab.folder.rglob("*.zarr"))
