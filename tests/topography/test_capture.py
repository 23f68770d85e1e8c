"""Views, slices and colours are where the conventions say; what does not belong together is refused by name."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gigascope.errors import ShapeError, UserError
from gigascope.topography.capture.arranged import kept_sensor
from gigascope.topography.capture.bayer import (
    PATTERNS,
    demosaic,
    green_offset,
    pack_green,
    site_differences,
    unpack_green,
)
from gigascope.topography.capture.capture import FileCapture
from gigascope.topography.capture.grid import ViewGrid, steps_of
from gigascope.topography.capture.images import open_images
from gigascope.topography.capture.netcdf import open_captures
from gigascope.topography.capture.stacks import open_stacks
from gigascope.topography.capture.z_order import ascending

from .captures import COLOURS, acquisition


def mosaic_of(rgb: NDArray, pattern: str) -> NDArray:
    """What a sensor with this mosaic sees of (rows, cols, 3)."""
    seen = np.empty(rgb.shape[:2], rgb.dtype)
    for site, letter in enumerate(pattern):
        at = (slice(site // 2, None, 2), slice(site % 2, None, 2))
        seen[at] = rgb[(*at, "RGB".index(letter))]
    return seen


def test_view_grid_numbers_scan_positions_inside_cameras_and_mirrors_x() -> None:
    grid = ViewGrid((0, 1, 2), (0, 3), (4, 5))
    assert grid.shape == (12, 10)
    assert grid.signs == {"y": 1, "x": -1}
    for row, col in np.ndindex(12, 10):
        camera_row, camera_col, scan_y, scan_x = grid.place(row, col)
        assert (row, col) == ((0, 1, 2).index(camera_row) * 4 + scan_y, (0, 3).index(camera_col) * 5 + scan_x)
        assert grid.view(camera_row, camera_col, scan_y, scan_x) == (row, col)
        assert grid.stage_index(scan_y, scan_x) == (scan_y, 4 - scan_x)
    with pytest.raises(ValueError):
        grid.view(0, 1, 0, 0)  # a camera that is not kept is not the one at its place


def test_steps_are_told_from_positions_that_jitter(rng: np.random.Generator) -> None:
    step = rng.permutation(np.repeat(np.arange(6), 3))
    means, found = steps_of(2.2 * step + rng.uniform(-0.05, 0.05, step.size))
    np.testing.assert_array_equal(found, step)
    np.testing.assert_allclose(means, 2.2 * np.arange(6), atol=0.05)
    assert steps_of([3.0, 3.0])[1].tolist() == [0, 0]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_packed_green_holds_the_green_sites_and_unpacks(pattern: str, rng: np.random.Generator) -> None:
    mosaic = rng.integers(0, 255, (3, 12, 10)).astype(np.uint8)
    packed = pack_green(mosaic, pattern)
    for r, j in np.ndindex(12, 5):
        site = 2 * j + (r + green_offset(pattern)) % 2
        assert pattern[2 * (r % 2) + site % 2] == "G"
        np.testing.assert_array_equal(packed[:, r, j], mosaic[:, r, site])
    bare, full = unpack_green(packed, pattern, fill=False), unpack_green(packed, pattern)
    np.testing.assert_array_equal(pack_green(full, pattern), packed)
    np.testing.assert_array_equal(bare[bare > 0], full[bare > 0])
    r, c = next((r, c) for r in (4, 5) for c in (4, 5) if pattern[2 * (r % 2) + c % 2] != "G")
    around = mosaic[0, [r - 1, r + 1, r, r], [c, c, c - 1, c + 1]].astype(float)
    assert full[0, r, c] == np.floor(around.mean() + 0.5)
    assert unpack_green(np.full_like(packed, 77), pattern).tolist() == np.full_like(mosaic, 77).tolist()


def test_packing_is_the_layout_of_the_specification_for_gbrg(rng: np.random.Generator) -> None:
    mosaic = rng.integers(0, 2**16, (8, 6)).astype(np.uint16)
    packed = pack_green(mosaic, "GBRG")
    for r, j in np.ndindex(8, 3):
        assert packed[r, j] == mosaic[r, 2 * j + r % 2]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_demosaic_gives_linear_light_exactly_inside(pattern: str, rng: np.random.Generator) -> None:
    rows, cols = np.indices((14, 16), np.float64)
    slopes = rng.uniform(-2, 2, (3, 3))
    rgb = np.stack([100 + a + b * rows + c * cols for a, b, c in slopes], axis=-1)
    found = demosaic(mosaic_of(rgb, pattern), pattern)
    np.testing.assert_allclose(found[1:-1, 1:-1], rgb[1:-1, 1:-1], atol=1e-3)
    flat = demosaic(mosaic_of(np.full((6, 6, 3), [10.0, 20, 30]), pattern), pattern)
    np.testing.assert_allclose(flat, np.full((6, 6, 3), [10.0, 20, 30]), atol=1e-4)


def test_odd_mosaics_and_unknown_patterns_are_refused() -> None:
    with pytest.raises(ShapeError, match="even"):
        pack_green(np.zeros((5, 4)), "GBRG")
    with pytest.raises(ValueError, match="GBGR"):
        green_offset("GBGR")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_wrong_pattern_shows_in_the_green_sites(pattern: str, rng: np.random.Generator) -> None:
    scene = np.kron(rng.uniform(0.2, 1.0, (16, 16)), np.ones((9, 9)))[..., None] * [90.0, 150, 40]
    mosaic = rng.poisson(mosaic_of(scene, pattern))
    for other in PATTERNS:
        assert site_differences(mosaic).contradict(other) == (green_offset(other) != green_offset(pattern))
    assert pattern in site_differences(mosaic).patterns
    assert len(site_differences(mosaic).patterns) == 2
    grey = rng.poisson(mosaic_of(scene[..., :1] * np.ones(3), pattern))
    assert not any(site_differences(grey).contradict(other) for other in PATTERNS)
    assert site_differences(grey).patterns == ()
    assert not site_differences(np.zeros((64, 64))).contradict(pattern)
    alike = rng.poisson(mosaic_of(scene[..., :1] * [0.5, 1.0, 0.5], pattern))
    assert site_differences(alike).patterns == PATTERNS


def pictures(folder: Path, rng: np.random.Generator, names: list[str], shape: tuple[int, ...] = (12, 20, 3)) -> NDArray:
    folder.mkdir()
    stack = rng.integers(0, 255, (len(names), *shape)).astype(np.uint8)
    for name, image in zip(names, stack):
        Image.fromarray(image).save(folder / name)
    return stack


def test_pictures_are_ordered_by_the_numbers_in_their_names(tmp_path: Path, rng: np.random.Generator) -> None:
    names = [f"run2_{n}.png" for n in (8, 9, 10, 11, 100)]
    stack = pictures(tmp_path / "a", rng, names)
    with pytest.raises(UserError, match=r"88 slices are missing, the first between run2_11\.png and run2_100\.png"):
        open_images(str(tmp_path / "a"))
    capture = open_images(str(tmp_path / "a"), missing="mask", dz_mm=0.5)
    np.testing.assert_array_equal(capture.read(0, 0), stack)
    assert capture.colours == 3
    np.testing.assert_allclose(capture.z_stage_mm[0, 0], 0.5 * np.array([0, 1, 2, 3, 92]))
    part = open_images(str(tmp_path / "a" / "run2_1?.png"))
    np.testing.assert_array_equal(part.read(0, 0), stack[2:4])
    assert not part.dz_known


def test_names_of_few_slices_stand_in_full(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures(tmp_path / "few", rng, [f"s{n}.png" for n in range(3)])
    pictures(tmp_path / "many", rng, [f"s{n}.png" for n in range(6)])
    assert "in the order s0.png, s1.png, s2.png" in open_images(str(tmp_path / "few")).notes[0]
    assert "in the order s0.png, s1.png, ..., s5.png" in open_images(str(tmp_path / "many")).notes[0]


def test_every_second_number_is_no_gap(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures(tmp_path / "a", rng, [f"frame_{n}.png" for n in range(15, 40, 2)])
    assert open_images(str(tmp_path / "a")).z_stage_mm[0, 0].tolist() == list(range(13))


def test_clock_in_the_names_counts_no_slices(tmp_path: Path, rng: np.random.Generator) -> None:
    names = [f"IMG_{t}.png" for t in (101502, 101507, 101513, 101519, 101524)]
    stack = pictures(tmp_path / "a", rng, names)
    np.testing.assert_array_equal(open_images(str(tmp_path / "a")).read(0, 0), stack)


def test_pictures_stand_upright_whatever_their_exif_says(tmp_path: Path) -> None:
    upright = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"s{orientation}.png", exif=exif)
        with Image.open(tmp_path / f"s{orientation}.png") as image:
            np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(image)), upright)
    capture = open_images(str(tmp_path))
    np.testing.assert_array_equal(capture.read(0, 0), np.broadcast_to(upright, (8, 6, 8)))
    assert any("7 of 8 pictures were turned upright" in note for note in capture.notes)
    with pytest.raises(UserError, match="turned"):
        open_images(str(tmp_path), pattern="GBRG")


def test_sixteen_bit_colour_is_kept(tmp_path: Path, rng: np.random.Generator) -> None:
    stack = rng.integers(0, 2**16, (3, 10, 12, 3)).astype(np.uint16)
    for n, image in enumerate(stack):
        (tmp_path / f"p{n}.png").write_bytes(imagecodecs.png_encode(image))
        tifffile.imwrite(tmp_path / f"t{n}.tif", image, photometric="rgb")
    for kind in ("p*.png", "t*.tif"):
        capture = open_images(str(tmp_path / kind))
        assert capture.dtype == np.uint16
        np.testing.assert_array_equal(capture.read(0, 0), stack)


def test_mixed_pictures_are_refused_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures(tmp_path / "a", rng, [f"s{n}.png" for n in range(5)])
    Image.fromarray(np.zeros((12, 22, 3), np.uint8)).save(tmp_path / "a" / "s3.png")
    words = r"4 pictures are 20 x 12 colour, 8 bits, not s3\.png \(22 x 12 colour, 8 bits\)"
    with pytest.raises(UserError, match=words):
        open_images(str(tmp_path / "a"))
    (tmp_path / "a" / "s3.png").write_bytes(imagecodecs.png_encode(np.zeros((12, 20, 3), np.uint16)))
    with pytest.raises(UserError, match=r"s3\.png \(20 x 12 colour, 16 bits\)"):
        open_images(str(tmp_path / "a"))
    Image.fromarray(np.zeros((12, 20), np.uint8)).save(tmp_path / "a" / "s3.png")
    with pytest.raises(UserError, match=r"s3\.png \(20 x 12 grey, 8 bits\)"):
        open_images(str(tmp_path / "a"))
    (tmp_path / "a" / "s3.png").write_bytes((tmp_path / "a" / "s2.png").read_bytes()[:-150])
    with pytest.raises(UserError, match=r"s3\.png: is cut short"):
        open_images(str(tmp_path / "a"))
    data = bytearray((tmp_path / "a" / "s2.png").read_bytes())
    data[-150] ^= 255
    (tmp_path / "a" / "s3.png").write_bytes(data)
    capture = open_images(str(tmp_path / "a"))
    with pytest.raises(UserError, match=r"s3\.png: cannot be decoded"):
        capture.read(0, 0)


def test_result_beside_the_stack_is_not_taken_for_a_slice(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures(tmp_path / "a", rng, [*(f"pcb_{n:03}.jpg" for n in range(1, 8)), "expected.jpg"])
    with pytest.raises(
        UserError, match=r"7 pictures are named like pcb_001\.jpg, not expected\.jpg.*such as pcb_\*\.jpg"
    ):
        open_images(str(tmp_path / "a"))
    assert open_images(str(tmp_path / "a" / "pcb_*.jpg")).shape[2] == 7


@pytest.mark.parametrize(
    "storage",
    [{}, {"chunks": (1, 1, 2, 20, 28)}, {"chunks": (2, 1, 1, 40, 56), "compression": "gzip", "shuffle": True}],
)
@pytest.mark.parametrize("variable", ["mcam_data", "images"])
def test_captures_of_the_released_layout(
    tmp_path: Path, rng: np.random.Generator, storage: dict, variable: str
) -> None:
    made = acquisition(rng, pattern="GRBG")
    made.storage = storage
    capture = open_captures([made.write_captures(tmp_path / "a", variable)])
    assert capture.shape == (*made.views, 5, 40, 56)
    assert capture.pattern == "GRBG"
    for row, col in np.ndindex(*made.views):
        np.testing.assert_array_equal(capture.read(row, col), made.view(row, col))
        np.testing.assert_allclose(capture.z_stage_mm[row, col], made.z_mm)
    assert capture.best_slice is not None
    assert (capture.best_slice == 1).all()
    assert capture.xy_mm is not None
    np.testing.assert_allclose(capture.xy_mm[0, 0], (made.x_mm[-1], made.y_mm[0]))
    np.testing.assert_allclose(capture.xy_mm[1, 2], (made.x_mm[0], made.y_mm[1]))


def test_captures_without_stacks_are_the_slices_of_the_autofocus(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng)
    made.write_captures(tmp_path / "a")
    for path in (tmp_path / "a").rglob("z_stack*"):
        path.unlink()
    capture = open_captures([tmp_path / "a"])
    assert capture.shape == (*made.views, 1, 40, 56)
    np.testing.assert_array_equal(capture.read(2, 4), made.view(2, 4)[1:2])
    np.testing.assert_allclose(capture.z_stage_mm, made.z_mm[1])


def test_cameras_are_kept_by_their_ids(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng, cameras=(3, 2))
    capture = open_captures([made.write_captures(tmp_path / "a")], camera_rows=(2, 0), camera_cols=(1,))
    assert capture.grid.place(0, 0)[:2] == (2, 1)
    assert capture.grid.place(3, 2)[:2] == (0, 1)
    np.testing.assert_array_equal(capture.read(0, 0), made.view(4, 3))
    np.testing.assert_array_equal(capture.read(3, 2), made.view(1, 5))
    with pytest.raises(UserError, match=r"camera rows 0 to 2, not 7.*ingest\.camera_rows"):
        open_captures([tmp_path / "a"], camera_rows=(7,))


@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (True, True)])
def test_signs_of_the_raster_are_the_users(
    tmp_path: Path, rng: np.random.Generator, mirrored: tuple[bool, bool]
) -> None:
    made = acquisition(rng, size=(16, 16))
    capture = open_captures([made.write_captures(tmp_path / "a")], mirrored=mirrored)
    stacks = open_stacks(made.write_stacks(tmp_path / "b"), bayer="GBRG", mirrored=mirrored)
    for row, col in np.ndindex(*made.views):
        np.testing.assert_array_equal(capture.read(row, col), made.view(row, col, mirrored=mirrored))
        np.testing.assert_array_equal(stacks.read(row, col), made.view(row, col, mirrored=mirrored))


def test_stacks_of_one_file_for_each_slice(tmp_path: Path, rng: np.random.Generator) -> None:
    stack = rng.integers(0, 2**12, (2, 4, 12, 14)).astype(np.uint16)
    for camera, z in np.ndindex(2, 4):
        tifffile.imwrite(tmp_path / f"c{camera}_z{7 + z}.tif", stack[camera, z])
    capture = open_stacks(f"{tmp_path}/c{{camera_col}}_z{{z}}.tif", dz_mm=0.1, scan_step_mm=None)
    assert capture.shape == (1, 2, 4, 12, 14)
    for camera in range(2):
        np.testing.assert_array_equal(capture.read(0, camera), stack[camera])
    np.testing.assert_allclose(capture.z_stage_mm[0, 1], 0.1 * np.arange(4))


def test_z_step_of_an_imagej_stack_is_taken(tmp_path: Path, rng: np.random.Generator) -> None:
    stack = rng.integers(0, 255, (4, 12, 14)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"spacing": 25.0, "unit": "um", "axes": "ZYX"})
    capture = open_stacks(str(tmp_path / "a.tif"))
    np.testing.assert_allclose(np.diff(capture.z_stage_mm[0, 0]), 0.025)
    np.testing.assert_array_equal(capture.read(0, 0), stack)


def in_memory(z_mm: NDArray, stack: NDArray) -> FileCapture:
    """One view for each row of positions, all with the same slices."""
    n = len(z_mm)
    return FileCapture(
        path=Path("memory"),
        format="array",
        grid=ViewGrid((0,), tuple(range(n)), (1, 1)),
        shape=(1, n, *stack.shape),
        dtype=stack.dtype,
        pattern=None,
        colours=1,
        z_stage_mm=np.asarray(z_mm, float)[None],
        read_view=lambda row, col: stack,
        present=np.ones((1, n), bool),
    )


def test_stage_that_runs_downwards_is_turned_round_and_said(rng: np.random.Generator) -> None:
    stack = rng.integers(0, 255, (4, 6, 8)).astype(np.uint8)
    z = np.array([[1, 2, 3, 4], [4, 3, 2, 1], [2, 1, 4, 3]], float)
    found = ascending(in_memory(z, stack), "refuse")
    np.testing.assert_array_equal(found.z_stage_mm[0], np.tile([1, 2, 3, 4], (3, 1)))
    np.testing.assert_array_equal(found.read(0, 0), stack)
    np.testing.assert_array_equal(found.read(0, 1), stack[::-1])
    np.testing.assert_array_equal(found.read(0, 2), stack[[1, 0, 3, 2]])
    assert any("the stage ran downwards in 1 of 3 views" in note for note in found.notes)
    assert any("camera (0, 2)" in w and "not taken in the order" in w for w in found.warnings)


def test_missing_and_repeated_slices_are_named(rng: np.random.Generator) -> None:
    stack = rng.integers(0, 255, (5, 6, 8)).astype(np.uint8)
    gap = in_memory(np.array([[0, 0.04, 0.08, 0.16, 0.2]]), stack)
    with pytest.raises(UserError, match=r"camera \(0, 0\).*slices are missing between 0.08 and 0.16 mm"):
        ascending(gap, "refuse")
    np.testing.assert_array_equal(ascending(gap, "mask").z_stage_mm, gap.z_stage_mm)
    with pytest.raises(UserError, match="slices 2 and 3 were taken at one stage position"):
        ascending(in_memory(np.array([[0, 0.04, 0.08, 0.08, 0.12]]), stack), "mask")
    with pytest.raises(UserError, match="slice 1 has no stage position"):
        ascending(in_memory(np.array([[0, np.nan, 0.08, 0.12, 0.16]]), stack), "mask")


def test_crop_keeps_the_mosaic_in_step(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng, size=(41, 57))
    opened = open_captures([made.write_captures(tmp_path / "a")])
    whole, sensor = kept_sensor(opened, None)
    assert whole.shape[3:] == (40, 56)
    assert sensor == ((0, 40), (0, 56))
    part, _ = kept_sensor(opened, ((4, 24), (2, 30)))
    np.testing.assert_array_equal(part.read(1, 1), made.view(1, 1)[:, 4:24, 2:30])
    with pytest.raises(UserError, match="shift the colours"):
        kept_sensor(opened, ((3, 24), (2, 30)))
    with pytest.raises(UserError, match="has 57 columns"):
        kept_sensor(opened, ((4, 24), (2, 60)))


def test_labelled_colours_are_what_the_pattern_says(rng: np.random.Generator) -> None:
    made = acquisition(rng, pattern="BGGR")
    found = demosaic(made.view(0, 0).mean(axis=0), "BGGR").mean(axis=(0, 1))
    np.testing.assert_allclose(found, [COLOURS[c] for c in "RGB"], atol=3)
