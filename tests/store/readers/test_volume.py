"""General volumes: whatever a file's format and order of axes, planes come out as (z, y, x) of a time and a channel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.volume import VolumeSource, open_volume_file

SIZES = {"t": 2, "c": 3, "z": 5, "y": 12, "x": 17}


@pytest.fixture
def volume(rng: np.random.Generator) -> NDArray[np.uint16]:
    """(t, c, z, y, x)."""
    return rng.integers(0, 4000, tuple(SIZES.values())).astype(np.uint16)


def in_order(volume: NDArray, axes: str) -> NDArray:
    """The part of a (t, c, z, y, x) array that has these axes, in their order; index 0 along the others."""
    part = volume[tuple(slice(None) if axis in axes else 0 for axis in "tczyx")]
    own = [axis for axis in "tczyx" if axis in axes]
    return np.ascontiguousarray(part.transpose([own.index(axis) for axis in axes]))


def expected(volume: NDArray, axes: str) -> NDArray:
    """The same part as (t, c, z, y, x) with axes of one."""
    return volume[tuple(slice(None) if axis in axes else slice(0, 1) for axis in "tczyx")]


def read_all(source: VolumeSource) -> NDArray:
    """In pieces of two planes."""
    n_t, n_c, n_z = source.shape[:3]
    cuts = [(z, min(n_z, z + 2)) for z in range(0, n_z, 2)]
    frames = [np.concatenate([source.read(t, c, a, b) for a, b in cuts]) for t in range(n_t) for c in range(n_c)]
    return np.stack(frames).reshape(source.shape)


def write_tiff(path: Path, data: NDArray, **options: object) -> Path:
    tifffile.imwrite(path, data, photometric="minisblack", **options)
    return path


def write_ome(path: Path, data: NDArray, axes: str, *, version: str = "0.5", scale: float = 0.5) -> Path:
    """An OME-Zarr image with a level of its own and the scale 2, 1, 1 times `scale` micrometres."""
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.create_group(path, zarr_format=zarr_format)
    array = group.create_array("s0", shape=data.shape, dtype=data.dtype, chunks=tuple(min(4, n) for n in data.shape))
    array[...] = data
    kinds = {"t": {"type": "time"}, "c": {"type": "channel"}}
    named = [{"name": a, **kinds.get(a, {"type": "space", "unit": "micrometer"})} for a in axes]
    steps = [{"z": 2 * scale, "y": scale, "x": scale}.get(a, 1.0) for a in axes]
    image = {
        "axes": named,
        "datasets": [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": steps}]}],
    }
    attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
    group.attrs.update(attributes if version == "0.5" else {"multiscales": [{**image, "version": version}]})
    return path


@pytest.mark.parametrize("axes", ["zyx", "czyx", "tzyx", "tczyx", "zcyx", "tzcyx", "yx"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib", "bigtiff": True}], ids=str)
def test_ome_tiff_of_any_axes(tmp_path: Path, volume: NDArray, axes: str, options: dict[str, object]) -> None:
    path = write_tiff(tmp_path / "a.tif", in_order(volume, axes), ome=True, metadata={"axes": axes.upper()}, **options)
    source = open_volume_file(path)
    assert source.dtype == np.uint16
    np.testing.assert_array_equal(read_all(source), expected(volume, axes))
    assert source.files == [path]
    assert source.format == "OME-TIFF"


@pytest.mark.parametrize("axes", ["zyx", "yx"])
def test_tiff_that_says_nothing(tmp_path: Path, volume: NDArray, axes: str) -> None:
    path = write_tiff(tmp_path / "a.tif", in_order(volume, axes), metadata=None)
    source = open_volume_file(path)
    np.testing.assert_array_equal(read_all(source), expected(volume, axes))
    assert source.voxel_size_um == (None, None, None)


def test_pages_of_several_axes_without_metadata_cannot_be_told_apart(tmp_path: Path, volume: NDArray) -> None:
    path = write_tiff(tmp_path / "a.tif", in_order(volume, "zcyx"), metadata=None)
    with pytest.raises(UserError, match="zcyx names 4 axes, the file has 3: 15 x 12 x 17"):
        open_volume_file(path, "zcyx")


@pytest.mark.parametrize("axes", ["zyx", "tzcyx"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_imagej_hyperstack_with_its_calibration(
    tmp_path: Path, volume: NDArray, axes: str, dtype: type[np.generic]
) -> None:
    data = in_order(volume.astype(dtype), axes)
    path = tmp_path / "a.tif"
    facts = {"axes": axes.upper(), "spacing": 0.75, "unit": "micron"}
    tifffile.imwrite(path, data, imagej=True, metadata=facts, resolution=(4.0, 4.0))
    source = open_volume_file(path)
    np.testing.assert_array_equal(read_all(source), expected(volume.astype(dtype), axes))
    assert source.voxel_size_um == pytest.approx((0.75, 0.25, 0.25))
    assert source.origin == "ImageJ's calibration"


def test_imagej_stack_in_one_directory(tmp_path: Path, rng: np.random.Generator) -> None:
    """As ImageJ writes stacks above 4 GB: pixels in one run, described by the first page alone."""
    data = rng.integers(0, 255, (6, 16, 16)).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data[:1], imagej=True, metadata={"axes": "ZYX"}, contiguous=True)
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].dataoffsets[0]
        tag = tiff.pages[0].tags["ImageDescription"]
        offset, length = tag.valueoffset, tag.count
    raw = bytearray(path.read_bytes())
    raw[offset : offset + length] = b"ImageJ=1.54\nimages=6\nslices=6\n".ljust(length, b"\0")[:length]
    raw[at:] = data.tobytes()
    path.write_bytes(bytes(raw))
    source = open_volume_file(path)
    assert source.shape == (1, 1, 6, 16, 16)
    np.testing.assert_array_equal(read_all(source)[0, 0], data)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "f4"])
def test_types_and_byte_orders_are_kept_as_native_values(
    tmp_path: Path, rng: np.random.Generator, byteorder: str, dtype: str
) -> None:
    data = rng.integers(-100 if dtype[0] != "u" else 0, 100, (3, 8, 9)).astype(dtype)
    source = open_volume_file(write_tiff(tmp_path / "a.tif", data, byteorder=byteorder))
    assert source.dtype == np.dtype(dtype)
    assert source.read(0, 0, 0, 3).dtype.isnative
    np.testing.assert_array_equal(source.read(0, 0, 0, 3), data)


def test_double_precision_is_narrowed_with_a_note(tmp_path: Path, rng: np.random.Generator) -> None:
    data = rng.normal(size=(3, 8, 9))
    source = open_volume_file(write_tiff(tmp_path / "a.tif", data))
    assert source.dtype == np.float32
    np.testing.assert_array_equal(source.read(0, 0, 0, 3), data.astype(np.float32))
    assert any("float64" in note for note in source.notes)


@pytest.mark.parametrize("dtype", ["u4", "i4", "u8", "i8", "c8", "?"])
def test_other_types_are_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, shape=(3, 8, 9), dtype=np.dtype(dtype), chunks=(3, 8, 9))[...] = 1
    with pytest.raises(UserError, match=r"integers of|no grey values"):
        open_volume_file(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "czyx", "tczyx", "yx", "zcyx", "xyz"])
def test_ome_zarr_of_any_axes(tmp_path: Path, volume: NDArray, axes: str, version: str) -> None:
    path = write_ome(tmp_path / "a.zarr", in_order(volume, axes), axes, version=version)
    for name in (path, path / ("zarr.json" if version == "0.5" else ".zattrs")):
        source = open_volume_file(name)
        np.testing.assert_array_equal(read_all(source), expected(volume, axes))
        assert source.voxel_size_um == (1.0 if "z" in axes else None, 0.5, 0.5)
        assert source.format == f"OME-Zarr {version}"
    assert source.files[1] == path / "s0"


def test_units_of_ome_zarr_count(tmp_path: Path, volume: NDArray) -> None:
    path = write_ome(tmp_path / "a.zarr", in_order(volume, "zyx"), "zyx", scale=500.0)
    root = path / "zarr.json"
    root.write_text(root.read_text().replace("micrometer", "nanometer"))
    assert open_volume_file(path).voxel_size_um == (1.0, 0.5, 0.5)
    root.write_text(root.read_text().replace('"nanometer"', "null"))
    assert open_volume_file(path).voxel_size_um == (None, None, None)


@pytest.mark.parametrize("axes", ["zyx", "yx"])
def test_plain_zarr(tmp_path: Path, volume: NDArray, axes: str) -> None:
    data = in_order(volume, axes)
    zarr.create_array(tmp_path / "a.zarr", shape=data.shape, dtype=data.dtype, chunks=data.shape)[...] = data
    np.testing.assert_array_equal(read_all(open_volume_file(tmp_path / "a.zarr")), expected(volume, axes))


def test_plain_zarr_of_four_axes_needs_their_order(tmp_path: Path, volume: NDArray) -> None:
    data = in_order(volume, "zcyx")
    path = tmp_path / "a.zarr"
    zarr.create_array(path, shape=data.shape, dtype=data.dtype, chunks=data.shape)[...] = data
    with pytest.raises(UserError, match=r"question mark.*ingest.axes"):
        open_volume_file(path)
    np.testing.assert_array_equal(read_all(open_volume_file(path, "zcyx")), expected(volume, "czyx"))
    with pytest.raises(UserError, match="names 3 axes, the file has 4: 5 x 3 x 12 x 17"):
        open_volume_file(path, "zyx")


def test_names_of_axes_in_zarr_3_are_taken(tmp_path: Path, volume: NDArray) -> None:
    data = in_order(volume, "xzy")
    path = tmp_path / "a.zarr"
    names = ("x", "z", "y")
    zarr.create_array(path, shape=data.shape, dtype=data.dtype, chunks=data.shape, dimension_names=names)[...] = data
    np.testing.assert_array_equal(read_all(open_volume_file(path)), expected(volume, "zyx"))


def test_order_by_hand_overrules_the_file(tmp_path: Path, volume: NDArray) -> None:
    data = in_order(volume, "xyz")
    path = write_tiff(tmp_path / "a.tif", data, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_all(open_volume_file(path, "xyz")), expected(volume, "zyx"))


def planes(folder: Path, data: NDArray, name: str = "plane_{}.tif") -> Path:
    folder.mkdir()
    for i, plane in enumerate(data):
        write_tiff(folder / name.format(i), plane)
    return folder


def test_folder_and_glob_of_planes_in_natural_order(tmp_path: Path, rng: np.random.Generator) -> None:
    data = rng.integers(0, 4000, (12, 9, 11)).astype(np.uint16)
    folder = planes(tmp_path / "planes", data)
    for name in (folder, folder / "*.tif"):
        source = open_volume_file(name)
        assert source.shape == (1, 1, 12, 9, 11)
        np.testing.assert_array_equal(read_all(source)[0, 0], data)
        assert len(source.files) == 12
    source = open_volume_file(folder, "tyx")
    assert source.shape == (12, 1, 1, 9, 11)


def test_folder_of_stacks_is_a_time_series_unless_said_otherwise(tmp_path: Path, volume: NDArray) -> None:
    folder = planes(tmp_path / "stacks", in_order(volume, "czyx"))
    source = open_volume_file(folder)
    assert source.shape == (3, 1, 5, 12, 17)
    np.testing.assert_array_equal(read_all(source)[:, 0], in_order(volume, "czyx"))
    source = open_volume_file(folder, "czyx")
    np.testing.assert_array_equal(read_all(source), expected(volume, "czyx"))
    with pytest.raises(UserError, match="z twice"):
        open_volume_file(folder, "zzyx")


def test_names_of_files_say_time_channel_and_plane(tmp_path: Path, volume: NDArray) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for t, c, z in np.ndindex(volume.shape[:3]):
        write_tiff(folder / f"cell2_C{c}_t{t + 3:03d}_z{2 * z}.tif", volume[t, c, z])
    source = open_volume_file(folder)
    np.testing.assert_array_equal(read_all(source), volume)
    (folder / "cell2_C0_t003_z4.tif").unlink()
    assert open_volume_file(folder).shape == (1, 1, 29, 12, 17)


@pytest.mark.parametrize("odd", ["shape", "type"])
def test_files_that_are_not_alike_are_named(tmp_path: Path, rng: np.random.Generator, odd: str) -> None:
    data = rng.integers(0, 4000, (6, 9, 11)).astype(np.uint16)
    folder = planes(tmp_path / "planes", data)
    write_tiff(folder / "plane_4.tif", data[4, :-1] if odd == "shape" else data[4].astype(np.uint8))
    with pytest.raises(UserError, match=r"5 files are 11 x 9 uint16.*plane_4.tif \(11 x (8 uint16|9 uint8)\)"):
        open_volume_file(folder)


def test_ome_tiff_of_several_files_is_one_volume(tmp_path: Path, rng: np.random.Generator) -> None:
    """As Micro-Manager writes it: one file for each channel, and in each the description of all."""
    data = rng.integers(0, 4000, (2, 4, 9, 11)).astype(np.uint16)
    folder = tmp_path / "set"
    folder.mkdir()
    parts = "".join(
        f'<TiffData FirstC="{c}" FirstT="0" FirstZ="{z}" IFD="{z}" PlaneCount="1">'
        f'<UUID FileName="c{c}.ome.tif">urn:uuid:0000000{c}-0000-0000-0000-000000000000</UUID></TiffData>'
        for c in range(2)
        for z in range(4)
    )
    for c in range(2):
        text = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:0000000{c}-0000-0000-0000-000000000000"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYZCT" Type="uint16" SizeX="11" SizeY="9" SizeZ="4" SizeC="2" SizeT="1" '
            'PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeZ="2.0"><Channel ID="Channel:0:0" '
            'SamplesPerPixel="1"/><Channel ID="Channel:0:1" SamplesPerPixel="1"/>'
            f"{parts}</Pixels></Image></OME>"
        )
        with tifffile.TiffWriter(folder / f"c{c}.ome.tif", ome=False) as tiff:
            for z, plane in enumerate(data[c]):
                description = text if z == 0 else None
                tiff.write(plane, description=description, metadata=None, contiguous=False)
    for name in (folder / "c0.ome.tif", folder, folder / "*.tif"):
        source = open_volume_file(name)
        assert source.shape == (1, 2, 4, 9, 11)
        np.testing.assert_array_equal(read_all(source)[0], data)
        assert source.voxel_size_um == (2.0, 0.5, 0.5)
        assert {file.name for file in source.files} == {"c0.ome.tif", "c1.ome.tif"}
    whole = (folder / "c1.ome.tif").read_bytes()
    (folder / "c1.ome.tif").write_bytes(whole + bytes(5000))
    np.testing.assert_array_equal(read_all(open_volume_file(folder))[0], data)
    (folder / "c1.ome.tif").unlink()
    with pytest.raises(UserError, match="describes 8 planes, 4 of them are not there"):
        open_volume_file(folder / "c0.ome.tif")


def test_colour_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rng.integers(0, 255, (16, 16, 3)).astype(np.uint8), photometric="rgb")
    with pytest.raises(UserError, match="colour"):
        open_volume_file(path)


def cut_pixels(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def cut_directories(path: Path) -> None:
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages[-1].offset
    path.write_bytes(path.read_bytes()[: last + 4])


@pytest.mark.parametrize("cut", [cut_pixels, cut_directories])
@pytest.mark.parametrize("in_folder", [False, True])
def test_truncated_tiff_is_refused(
    tmp_path: Path, volume: NDArray, cut: Callable[[Path], None], in_folder: bool
) -> None:
    folder = planes(tmp_path / "stacks", in_order(volume, "czyx"))
    path = folder / "plane_1.tif"
    if cut is cut_directories:
        with tifffile.TiffWriter(path) as tiff:
            for page in in_order(volume, "zyx"):
                tiff.write(page, contiguous=False, metadata=None)
    cut(path)
    with pytest.raises(UserError, match="truncated") as caught:
        open_volume_file(folder if in_folder else path)
    assert "plane_1.tif" in str(caught.value)


def test_damaged_page_is_named_when_it_is_read(tmp_path: Path, volume: NDArray) -> None:
    path = write_tiff(tmp_path / "a.tif", in_order(volume, "zyx"), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[3].dataoffsets[0]
    raw = bytearray(path.read_bytes())
    raw[at : at + 20] = bytes(20)
    path.write_bytes(bytes(raw))
    source = open_volume_file(path)
    source.read(0, 0, 0, 3)
    with pytest.raises(UserError, match="cannot be decoded"):
        source.read(0, 0, 3, 4)


def test_nothing_beyond_the_volume_is_read(tmp_path: Path, volume: NDArray) -> None:
    source = open_volume_file(write_tiff(tmp_path / "a.tif", in_order(volume, "zyx")))
    for index in ((1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 4, 6), (0, 0, 2, 2), (0, 0, -1, 1)):
        with pytest.raises(IndexError):
            source.read(*index)


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    (tmp_path / "a.tif").write_bytes(b"no TIFF at all")
    for name, message in {
        "absent.tif": "no such file",
        "empty": "no TIFF files",
        "empty/*.tif": "no TIFF files",
        "a.czi": ".czi files are not read",
        "a.tif": "not a TIFF file",
    }.items():
        with pytest.raises(UserError, match=message):
            open_volume_file(tmp_path / name)


REAL_VOLUMES = {
    "cortex_somata_u16.tif": ((1, 1, 26, 384, 384), "uint16", (5, 2, 2)),
    "mouse_brain_100um_u16.tiff": ((1, 1, 135, 77, 108), "uint16", (None, None, None)),
    "pyramidal_neuron_u8.tif": ((1, 1, 128, 256, 256), "uint8", (None, None, None)),
    "xyz_8bit__chromosomes.tif": ((1, 1, 40, 152, 126), "uint16", (0.15, 0.0339, 0.0339)),
    "xyz_calibrated_16bit__golgi_bfa.tif": ((1, 1, 25, 137, 147), "uint16", (0.3876, 0.3514, 0.3514)),
    "xyzc_16bit__spots.tif": ((1, 2, 17, 88, 89), "uint16", (0.4, 0.0941, 0.0941)),
}


@pytest.mark.parametrize("name", REAL_VOLUMES)
def test_real_volumes(shared_data: Path, name: str) -> None:
    shape, dtype, size = REAL_VOLUMES[name]
    source = open_volume_file(shared_data / "volumes" / name)
    assert (source.shape, str(source.dtype)) == (shape, dtype)
    found = [None if step is None else round(step, 4) for step in source.voxel_size_um]
    assert found == list(size)
    whole = tifffile.imread(shared_data / "volumes" / name)
    whole = whole.swapaxes(0, 1) if whole.ndim == 4 else whole[None]
    np.testing.assert_array_equal(read_all(source)[0], whole)


REAL_ZARR = {
    "v0.4_ngio/tczyx.zarr": (4, 2, 10, 64, 64),
    "v0.5_ngio/tczyx.zarr": (4, 2, 10, 64, 64),
    "v0.4_ngio/czyx.zarr": (1, 2, 10, 64, 64),
    "v0.5_ngio/yx.zarr": (1, 1, 1, 64, 64),
    "v0.4_neuroglancer/simple.zarr": (1, 1, 1, 10, 10),
    "v0.4_examples/valid/image-02.zarr": (1, 1, 1, 200, 200),
}
REFUSED_ZARR = {
    "v0.1_ome-zarr-py/v1.zarr": "versions 0.4 and 0.5 are read",
    "v0.6dev_neuroglancer/scale.zarr": "versions 0.4 and 0.5 are read",
    "v0.4_hcs/hcs_example.ome.zarr": "plate",
    "v0.4_examples/valid/plate-01.zarr": "plate",
    "v0.4_examples/invalid/image-02.zarr": "`multiscales` is empty",
    "v0.4_examples/invalid/image-03.zarr": "which is not there",
}


@pytest.mark.parametrize("name", REAL_ZARR)
def test_real_ome_zarr(shared_data: Path, name: str) -> None:
    source = open_volume_file(shared_data / "omezarr" / name)
    assert source.shape == REAL_ZARR[name]
    t, c, z = (n - 1 for n in source.shape[:3])
    assert source.read(t, c, z, z + 1).shape == (1, *source.shape[3:])


@pytest.mark.parametrize("name", REFUSED_ZARR)
def test_broken_and_foreign_ome_zarr_is_refused_with_the_reason(shared_data: Path, name: str) -> None:
    with pytest.raises(UserError, match=REFUSED_ZARR[name]):
        open_volume_file(shared_data / "omezarr" / name)
