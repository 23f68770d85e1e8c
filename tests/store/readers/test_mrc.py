"""MRC stacks: what is stored is what is read; what cannot be read is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import mrcfile
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mrcfile.dtypes import get_ext_header_dtype

from gigascope.errors import UserError
from gigascope.store.readers.mrc import open_mrc

from .conftest import TYPES, mrc_bytes


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from([0, 1, 2, 6, 12]),
    order=st.sampled_from("<>"),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 7)),
    extended=st.integers(0, 700),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_mode_and_byte_order_reads_back(tmp_path_factory, mode, order, shape, extended, seed):
    low, high = (-120, 120) if mode in (0, 1, 2, 12) else (0, 60000)
    data = np.random.default_rng(seed).integers(low, high, shape).astype(TYPES[mode])
    path = tmp_path_factory.mktemp("mrc") / "a.st"
    path.write_bytes(mrc_bytes(data, mode, order=order, extended=b"\1" * extended))
    source = open_mrc(path)
    assert source.shape == shape
    assert source.dtype == np.dtype(TYPES[mode])
    assert source.dtype.isnative
    for i in range(shape[0]):
        np.testing.assert_array_equal(source.read(i), data[i])


def test_bytes_are_signed_unless_the_imod_flag_says_unsigned(make_mrc):
    data = np.full((9, 6, 8), -1)
    for flags, dtype, value in ((None, np.int8, -1), (1, np.int8, -1), (0, np.uint8, 255)):
        source = open_mrc(make_mrc(data=data, mode=0, imod_flags=flags))
        assert source.dtype == dtype
        assert (source.read(3) == value).all()


def test_first_row_is_the_bottom_unless_said_otherwise(make_mrc):
    data = np.zeros((9, 6, 8), dtype=int)
    data[:, 0, 0] = 7
    path = make_mrc(data=data)
    assert open_mrc(path).read(0)[0, 0] == 7
    assert open_mrc(path, y_up=True).read(0)[0, 0] == 7
    assert open_mrc(path, y_up=False).read(0)[-1, 0] == 7


@pytest.mark.parametrize("fields", [{"exttyp": b"FEI1", "nversion": 20140}, {"mapr": -2}])
def test_files_that_say_top_row_first_are_flipped(make_mrc, fields):
    data = np.zeros((9, 6, 8), dtype=int)
    data[:, 0, 0] = 7
    source = open_mrc(make_mrc(data=data, **fields))
    assert source.read(0)[-1, 0] == 7
    assert any("flipped" in note for note in source.notes)


def test_a_view_is_a_copy(make_mrc):
    path = make_mrc()
    source = open_mrc(path)
    before = path.read_bytes()
    source.read(0)[:] = 0
    assert source.read(0).any()
    assert path.read_bytes() == before
    with pytest.raises(IndexError, match="0 to 8"):
        source.read(9)


def test_a_large_file_is_not_read_whole(tmp_path):
    n, side = 400, 1024
    head = mrc_bytes(np.zeros((1, side, side), dtype="i2"), 1, nz=n)[:1024]
    path = tmp_path / "large.mrc"
    path.write_bytes(head)
    os.truncate(path, 1024 + 2 * n * side * side)  # sparse: 800 MiB of size, none on the disk
    before = psutil.Process().memory_info().rss
    source = open_mrc(path)
    assert source.read(n - 1).shape == (side, side)
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_truncated_file_names_bytes_expected_and_found(make_mrc):
    path = make_mrc()
    whole = path.stat().st_size
    os.truncate(path, whole - 100)
    with pytest.raises(UserError, match=rf"need {whole} bytes, found {whole - 100} \(7 images are whole\)") as caught:
        open_mrc(path)
    assert str(path) in str(caught.value)


def test_truncated_extended_header_is_truncated_too(make_mrc):
    path = make_mrc(extended=b"\0" * 4000)
    os.truncate(path, 2000)
    with pytest.raises(UserError, match="truncated"):
        open_mrc(path)


def test_longer_file_is_read_with_a_note(make_mrc):
    path = make_mrc()
    with path.open("ab") as file:
        file.write(b"\0" * 37)
    assert any("37 bytes longer" in note for note in open_mrc(path).notes)


@pytest.mark.parametrize(("mode", "name"), [(3, "complex"), (4, "complex"), (16, "RGB"), (101, "4-bit")])
def test_unread_modes_are_refused_by_name(make_mrc, mode, name):
    with pytest.raises(UserError, match=rf"mode {mode} \(.*{name}"):
        open_mrc(make_mrc(mode=mode))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nx": 0}, "damaged header"),
        ({"ny": -6}, "damaged header"),
        ({"mode": 77}, "damaged header"),
        ({"nsymbt": -5}, "header is damaged"),
        ({"ispg": 401}, "stack of volumes"),
        ({"mapc": 2, "mapr": 1}, "axes in the order 2, 1, 3"),
        ({"nx": 2_000_000_000, "ny": 2_000_000_000}, "truncated"),
    ],
)
def test_impossible_headers_are_refused(make_mrc, fields, message):
    with pytest.raises(UserError, match=message):
        open_mrc(make_mrc(**fields))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"text\n" * 20, "100 bytes"),
        (b"text\n" * 1000, "is not an MRC file"),
        (b"\x1f\x8b" + bytes(5000), "compressed"),
        (b"BZh9" + bytes(5000), "compressed"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "a.mrc"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_mrc(path)


def test_damaged_headers_never_raise_anything_but_user_errors(make_mrc, rng):
    whole = bytearray(make_mrc().read_bytes())
    path = make_mrc("damaged.mrc")
    for _ in range(300):
        raw = whole.copy()
        for _ in range(rng.integers(1, 6)):
            raw[rng.integers(0, 256)] = rng.integers(0, 256)
        path.write_bytes(raw)
        try:
            source = open_mrc(path)
            source.read(source.n_views - 1)
        except UserError:
            pass


def test_old_file_without_the_stamp_is_read_with_a_note(make_mrc):
    source = open_mrc(make_mrc(map=b"", machst=(0, 0, 0, 0)))
    assert source.shape == (9, 6, 8)
    assert any("stamp" in note for note in source.notes)


@pytest.mark.parametrize(
    ("pixel", "found", "reason"),
    [
        (5.4, 0.54, None),
        (0.0, None, "says 0"),
        (1.0, None, "exactly 1 A"),
        (-3.0, None, "negative"),
        ((2.0, 3.0), None, "square"),
        (float("nan"), None, "says 0"),
    ],
)
def test_pixel_size_of_the_header(make_mrc, pixel, found, reason):
    source = open_mrc(make_mrc(pixel_angstrom=pixel))
    assert source.pixel_size_nm == (None if found is None else pytest.approx(found))
    if reason:
        assert reason in source.missing["pixel_size_nm"]


def test_tilt_axis_of_a_title(make_mrc):
    source = open_mrc(make_mrc(titles=("SerialEM: a microscope", "    Tilt axis angle = -85.3, binning = 4  spot = 8")))
    assert source.tilt_axis_deg == -85.3
    assert "title" in source.origin["tilt_axis_deg"]


def serialem_float(value: float) -> tuple[int, int]:
    """Two shorts of SerialEM for a positive number: 23 bits of mantissa, power of two."""
    power = int(np.floor(np.log2(value))) - 22
    mantissa = round(value / 2.0**power)
    return mantissa // 256, int(np.sign(power)) * (abs(power) * 256 + mantissa % 256)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("exttyp", [b"SERI", b""])
def test_serialem_extended_header_gives_angles_and_dose(make_mrc, angles, order, exttyp):
    doses = np.linspace(0.7, 123.4, 9)
    records = [
        [round(a * 100), 11, -22, 640, 25000, *serialem_float(dose)] for a, dose in zip(angles, doses, strict=True)
    ]
    raw = np.array(records, dtype=np.dtype("i2").newbyteorder(order)).tobytes() + bytes(500)
    path = make_mrc(order=order, extended=raw, exttyp=exttyp, layout=(14, 1 | 4 | 8 | 16 | 32))
    source = open_mrc(path)
    np.testing.assert_allclose(source.tilt_deg, angles, atol=0.005)
    np.testing.assert_allclose(source.dose, doses, rtol=1e-6)
    assert "SERI" in source.origin["tilt_deg"]


def test_serialem_montage_is_refused(make_mrc):
    raw = np.array([[0, 512 * (i % 3), 0, 0] for i in range(9)], dtype="<i2").tobytes()
    with pytest.raises(UserError, match="montage"):
        open_mrc(make_mrc(extended=raw, exttyp=b"SERI", layout=(8, 1 | 2)))


@pytest.mark.parametrize("exttyp", [b"FEI1", b"FEI2"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_fei_extended_header_gives_angles_pixel_size_and_dose(make_mrc, angles, exttyp, order):
    table = np.zeros(9, dtype=get_ext_header_dtype(exttyp, order))
    table["Metadata size"] = table.dtype.itemsize
    table["Bitmask 1"] = 1 << 6 | 1 << 7 | 1 << 12 | 1 << 14
    table["Alpha tilt"], table["Dose"], table["Pixel size X"] = angles, 2.5e20, 0.27e-9
    table["Tilt axis angle"] = 84.0
    path = make_mrc(order=order, extended=table.tobytes(), exttyp=exttyp, pixel_angstrom=0.0)
    source = open_mrc(path)
    np.testing.assert_array_equal(source.tilt_deg, angles)
    np.testing.assert_allclose(source.dose, 2.5)
    assert source.pixel_size_nm == pytest.approx(0.27)
    assert source.tilt_axis_deg is None
    assert any("84.00 deg" in note for note in source.notes)


def test_fei_fields_that_are_not_filled_in_are_not_used(make_mrc):
    table = np.zeros(9, dtype=get_ext_header_dtype(b"FEI1", "<"))
    table["Metadata size"], table["Bitmask 1"] = table.dtype.itemsize, 1 << 14
    table["Alpha tilt"], table["Pixel size X"] = np.arange(9), 0.3e-9
    source = open_mrc(make_mrc(extended=table.tobytes(), exttyp=b"FEI1", pixel_angstrom=0.0))
    assert source.tilt_deg is None
    assert source.pixel_size_nm == pytest.approx(0.3)


def test_older_fei_layout_gives_angles_and_pixel_size(make_mrc, angles):
    reals = np.zeros((1024, 32), dtype="<f4")
    reals[:9, 0], reals[:9, 11] = angles, 1.5e-9
    source = open_mrc(make_mrc(extended=reals.tobytes(), layout=(0, 32), pixel_angstrom=1.0))
    np.testing.assert_allclose(source.tilt_deg, angles)
    assert source.pixel_size_nm == pytest.approx(1.5)


def test_equal_angles_of_an_extended_header_are_not_used(make_mrc):
    source = open_mrc(make_mrc(extended=bytes(18), exttyp=b"SERI", layout=(2, 1)))
    assert source.tilt_deg is None
    assert any("all equal" in note for note in source.notes)


def test_files_of_mrcfile_are_read_alike(tmp_path: Path, rng):
    data = rng.normal(size=(8, 5, 7)).astype(np.float32)
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(data)
        mrc.set_image_stack()
        mrc.voxel_size = 3.1
    source = open_mrc(tmp_path / "a.mrc")
    np.testing.assert_array_equal(np.stack([source.read(i) for i in range(8)]), data)
    assert source.pixel_size_nm == pytest.approx(0.31)
