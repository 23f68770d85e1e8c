"""MRC and TIFF export: other libraries read back what was written; files appear whole or not at all."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from gigascope.errors import ShapeError, UserError
from gigascope.store.readers.tilt_series import open_tilt_series
from gigascope.store.writers import mrc as mrc_module
from gigascope.store.writers.mrc import write_mrc_stack, write_mrc_volume
from gigascope.store.writers.tiff import write_tiff_stack, write_tiff_volume
from gigascope.store.writers.xf import write_tlt


@pytest.fixture
def volume(rng):
    return rng.normal(3.0, 2.0, (7, 12, 17)).astype(np.float32)


@contextmanager
def largest_file(n_bytes):
    """Files of this process may not grow beyond this, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("axes", ["zyx", "xzy"])
def test_mrc_volume_has_voxel_size_order_and_statistics(tmp_path, volume, axes, monkeypatch):
    monkeypatch.setattr(mrc_module, "_BLOCK_BYTES", 3000)  # several blocks
    path = tmp_path / "a.mrc"
    write_mrc_volume(path, volume, (4.0, 1.5, 1.25), axes=axes, label="tomogram of a test")
    assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, volume if axes == "zyx" else volume.transpose(1, 0, 2))
        size = mrc.voxel_size
        fast_to_slow = (12.5, 15, 40) if axes == "zyx" else (12.5, 40, 15)
        np.testing.assert_allclose((size.x, size.y, size.z), fast_to_slow, rtol=1e-6)
        assert mrc.is_volume()
        np.testing.assert_allclose(
            [mrc.header.dmin, mrc.header.dmax, mrc.header.dmean, mrc.header.rms],
            [volume.min(), volume.max(), volume.mean(dtype=float), volume.std(dtype=float)],
            rtol=1e-5,
        )
        assert bytes(mrc.header.label[0]).startswith(b"tomogram of a test")


def test_same_volume_makes_the_same_bytes(tmp_path, volume):
    write_mrc_volume(tmp_path / "a.mrc", volume, (1, 1, 1))
    write_mrc_volume(tmp_path / "b.mrc", volume, (1, 1, 1))
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()


@pytest.mark.parametrize("axes", ["zyx", "xzy"])
def test_zarr_arrays_of_any_type_are_written_as_float32(tmp_path, rng, axes):
    data = rng.integers(-3000, 3000, (9, 10, 11)).astype(np.int16)
    array = zarr.create_array(str(tmp_path / "v.zarr"), shape=data.shape, dtype=data.dtype, chunks=(4, 4, 4))
    array[:] = data
    write_mrc_volume(tmp_path / "a.mrc", array, (1, 1, 1), axes=axes)
    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        np.testing.assert_array_equal(mrc.data, data if axes == "zyx" else data.transpose(1, 0, 2))
        assert mrc.data.dtype == np.float32


def test_mrc_stack_is_a_stack_of_images_that_our_reader_takes(tmp_path, volume):
    write_mrc_stack(tmp_path / "a.st", volume, 0.27)
    assert mrcfile.validate(tmp_path / "a.st")
    with mrcfile.open(tmp_path / "a.st") as mrc:
        assert mrc.is_image_stack()
    write_tlt(tmp_path / "a.tlt", np.linspace(-30, 30, 7))
    source = open_tilt_series(tmp_path / "a.st")
    np.testing.assert_array_equal(np.stack([source.read(i) for i in range(7)]), volume)
    assert source.pixel_size_nm == pytest.approx(0.27)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8])
def test_tiff_volume_has_the_top_row_first_and_its_voxel_size(tmp_path, volume, dtype):
    volume = volume.astype(dtype)
    path = tmp_path / "a.ome.tif"
    write_tiff_volume(path, volume, (4.0, 1.5, 1.25))
    with tifffile.TiffFile(path) as tiff:
        np.testing.assert_array_equal(tiff.series[0].asarray(), volume[:, ::-1])
        assert tiff.series[0].axes == "ZYX"
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        assert [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"] == [4.0, 1.5, 1.25]
        assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "ZYX"} == {"nm"}


def test_tiff_stack_is_read_back_y_up(tmp_path, volume):
    write_tiff_stack(tmp_path / "a.tif", volume, 1.4)
    write_tlt(tmp_path / "a.tlt", np.linspace(-30, 30, 7))
    source = open_tilt_series(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.stack([source.read(i) for i in range(7)]), volume)
    assert source.pixel_size_nm == pytest.approx(1.4)


WRITERS = {
    "mrc volume": lambda path, data: write_mrc_volume(path, data, (1, 1, 1)),
    "mrc stack": lambda path, data: write_mrc_stack(path, data, 1),
    "tiff volume": lambda path, data: write_tiff_volume(path, data, (1, 1, 1)),
    "tiff stack": lambda path, data: write_tiff_stack(path, data, 1),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_other_shapes_are_refused(tmp_path, writer):
    for shape in ((3, 4), (2, 3, 4, 5), (0, 3, 4)):
        with pytest.raises(ShapeError):
            WRITERS[writer](tmp_path / "a", np.zeros(shape, dtype=np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_is_one_message_and_leaves_the_old_file(tmp_path, writer):
    path = tmp_path / "a.mrc"
    path.write_bytes(b"old")
    with largest_file(20_000), pytest.raises(UserError, match="free"):
        WRITERS[writer](path, np.ones((30, 40, 50), dtype=np.float32))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrc"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("writer", WRITERS)
def test_an_error_while_reading_leaves_nothing(tmp_path, writer):
    class Broken:
        shape = (5, 4, 3)

        def __getitem__(self, key):
            if key == (slice(None, 1),) * 3:
                return np.zeros((1, 1, 1), dtype=np.float32)
            raise RuntimeError("chunk is damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        WRITERS[writer](tmp_path / "a", Broken())
    assert list(tmp_path.iterdir()) == []
