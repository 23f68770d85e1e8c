"""TIFF tilt series: multi-page files of several writers, folders, tables."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile

from gigascope.errors import UserError
from gigascope.store.readers.tiff import open_tiff, open_tiff_files, read_view_table
from gigascope.store.readers.tiff_file import natural_key
from gigascope.store.readers.tilt_series import find_tilt_series


@pytest.fixture
def stack(rng):
    return rng.integers(0, 4000, (9, 12, 17)).astype(np.uint16)


def _read(source):
    return np.stack([source.read(i) for i in range(source.n_views)])


def _one_by_one(path, stack):
    with tifffile.TiffWriter(path) as tiff:
        for page in stack:
            tiff.write(page)


WRITERS = {
    "plain": lambda path, stack: tifffile.imwrite(path, stack, photometric="minisblack"),
    "deflate tiles": lambda path, stack: tifffile.imwrite(
        path, stack, photometric="minisblack", compression="zlib", tile=(16, 16)
    ),
    "BigTIFF, big-endian": lambda path, stack: tifffile.imwrite(
        path, stack, photometric="minisblack", bigtiff=True, byteorder=">"
    ),
    "ImageJ": lambda path, stack: tifffile.imwrite(path, stack, imagej=True),
    "OME": lambda path, stack: tifffile.imwrite(path, stack, ome=True, metadata={"axes": "ZYX"}),
    "page by page": _one_by_one,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pages_read_back_with_the_top_row_last(tmp_path, stack, writer, dtype):
    stack = stack.astype(dtype)
    path = tmp_path / "a.tif"
    WRITERS[writer](path, stack)
    source = open_tiff(path)
    assert source.shape == stack.shape
    assert source.dtype == dtype
    np.testing.assert_array_equal(_read(source), stack[:, ::-1])
    assert any("flipped" in note for note in source.notes)
    np.testing.assert_array_equal(_read(open_tiff(path, y_up=True)), stack)
    np.testing.assert_array_equal(_read(open_tiff(path, y_up=False)), stack[:, ::-1])


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "nm"}}, 0.5),
        ({"imagej": True, "resolution": (4.0, 4.0), "metadata": {"unit": "um"}}, 250.0),
        ({"imagej": True, "resolution": (4.0, 4.0), "metadata": {"unit": "pixel"}}, None),
        ({"resolution": (1e7, 1e7), "resolutionunit": "CENTIMETER"}, 1.0),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (1e7, 2e7), "resolutionunit": "CENTIMETER"}, None),
        ({}, None),
        ({"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 1.3, "PhysicalSizeY": 1.3}}, 1300.0),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "ZYX",
                    "PhysicalSizeX": 13.0,
                    "PhysicalSizeXUnit": "Å",
                    "PhysicalSizeY": 13.0,
                    "PhysicalSizeYUnit": "Å",
                },
            },
            1.3,
        ),
    ],
)
def test_pixel_size_where_it_is_meant(tmp_path, stack, options, size):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, stack, **({} if "imagej" in options or "ome" in options else {"photometric": "minisblack"}) | options
    )
    source = open_tiff(path)
    assert source.pixel_size_nm == (None if size is None else pytest.approx(size, rel=1e-5))
    assert ("pixel_size_nm" in source.missing) == (size is None)


def test_pages_of_different_shapes_are_refused(tmp_path, stack):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for i in range(9):
            tiff.write(stack[i] if i != 4 else stack[i, :5])
    with pytest.raises(UserError, match="image 4 is 17 x 5 uint16, 8 are 17 x 12"):
        open_tiff(path)


def test_colour_and_more_dimensions_are_refused(tmp_path, stack):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((9, 12, 17, 3), dtype=np.uint8), photometric="rgb")
    with pytest.raises(UserError, match="colour"):
        open_tiff(tmp_path / "rgb.tif")
    tifffile.imwrite(tmp_path / "hyper.tif", np.zeros((3, 2, 12, 17), dtype=np.uint8), imagej=True)
    with pytest.raises(UserError, match="three axes"):
        open_tiff(tmp_path / "hyper.tif")
    tifffile.imwrite(tmp_path / "complex.tif", stack.astype(np.complex64), photometric="minisblack")
    with pytest.raises(UserError, match="complex64"):
        open_tiff(tmp_path / "complex.tif")


@pytest.mark.parametrize("writer", ["plain", "deflate tiles", "page by page", "OME"])
def test_truncated_file_is_refused_or_still_whole(tmp_path, stack, writer, rng):
    path = tmp_path / "a.tif"
    WRITERS[writer](path, stack)
    whole = path.read_bytes()
    for length in [len(whole) // 2, len(whole) - 300, *rng.integers(0, len(whole), 20)]:
        path.write_bytes(whole)
        os.truncate(path, int(length))
        try:
            views = _read(open_tiff(path))
        except UserError:
            continue
        assert length > stack.nbytes / 2  # only the metadata behind the pixels may be gone
        np.testing.assert_array_equal(views, stack[:, ::-1])


def test_other_file_is_refused(tmp_path):
    (tmp_path / "a.tif").write_text("text")
    with pytest.raises(UserError, match="not a TIFF file"):
        open_tiff(tmp_path / "a.tif")


def test_natural_order(tmp_path):
    names = ["v1.tif", "v2.tif", "v10.tif", "V11.tif", "w1.tif"]
    assert [p.name for p in sorted((tmp_path / n for n in reversed(names)), key=natural_key)] == names


@pytest.fixture
def folder(tmp_path, stack):
    folder = tmp_path / "views"
    folder.mkdir()
    for i, page in enumerate(stack):
        tifffile.imwrite(folder / f"view_{i + 1}.tif", page)
    for i in range(1, 3):  # 1 .. 9, then 10 and 11
        tifffile.imwrite(folder / f"view_{9 + i}.tif", stack[i])
    (folder / "readme.md").write_text("not an image")
    return folder


def test_folder_and_glob_are_read_in_natural_order(folder, stack):
    expected = np.concatenate([stack, stack[1:3]])[:, ::-1]
    np.testing.assert_array_equal(_read(find_tilt_series(folder)), expected)
    np.testing.assert_array_equal(_read(find_tilt_series(folder / "view_*.tif")), expected)
    np.testing.assert_array_equal(_read(find_tilt_series(folder / "view_1*.tif")), expected[[0, 9, 10]])


def test_table_gives_order_and_angles(folder, stack):
    table = folder.parent / "order.txt"
    table.write_text("# file angle\n" + "".join(f"views/view_{9 - i}.tif\t{3 * i - 12}\n" for i in range(9)))
    source = find_tilt_series(table)
    np.testing.assert_array_equal(_read(source), stack[::-1, ::-1])
    assert source.tilt_deg.tolist() == [3.0 * i - 12 for i in range(9)]
    table.write_text("views/view_1.tif\nviews/view_99.tif\n")
    with pytest.raises(UserError, match="line 2: no file"):
        read_view_table(table)
    table.write_text("views/view_1.tif 3\nviews/view_2.tif\n")
    with pytest.raises(UserError, match="2 files and 1 angles"):
        read_view_table(table)


def test_mixed_shapes_name_the_files(folder, stack):
    tifffile.imwrite(folder / "view_5.tif", stack[0, :7])
    with pytest.raises(UserError, match=r"10 files are 17 x 12 uint16 .*1 are not: view_5.tif \(17 x 7 uint16\)"):
        find_tilt_series(folder)
    tifffile.imwrite(folder / "view_5.tif", stack[0].astype(np.float32))
    with pytest.raises(UserError, match=r"view_5.tif \(17 x 12 float32\)"):
        find_tilt_series(folder)


def test_stack_among_single_views_is_refused(folder, stack):
    tifffile.imwrite(folder / "view_5.tif", stack, photometric="minisblack")
    with pytest.raises(UserError, match="one grey image per file") as caught:
        find_tilt_series(folder)
    assert "view_5.tif" in str(caught.value)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no TIFF files"):
        open_tiff_files([], tmp_path)
    with pytest.raises(UserError, match="no TIFF files"):
        find_tilt_series(tmp_path)
    with pytest.raises(UserError, match="no TIFF files"):
        find_tilt_series(tmp_path / "*.tif")
