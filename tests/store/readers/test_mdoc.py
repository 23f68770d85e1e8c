"""SerialEM's .mdoc."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.errors import UserError
from gigascope.store.readers.mdoc import read_mdoc


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "cell.mdoc"
        path.write_bytes(text.encode("latin-1"))
        return path

    return write


def test_all_of_a_plain_series(write, mdoc_text, angles):
    found = read_mdoc(write(mdoc_text(angles, ExposureDose=2.5, ImageSize="924 958")))
    np.testing.assert_array_equal(found.tilt_deg, angles)
    np.testing.assert_array_equal(found.dose, np.full(9, 2.5))
    np.testing.assert_array_equal(found.acquisition_order, np.arange(9))
    assert (found.pixel_size_nm, found.tilt_axis_deg, found.axis_origin) == (pytest.approx(0.54), 85.3, "title line")
    assert (found.n_sections, found.image_shape, found.notes) == (9, (958, 924), [])


def test_sections_belong_to_images_by_their_number(write, mdoc_text, angles, rng):
    head, *sections = mdoc_text(angles).split("[ZValue")
    text = head + "".join("[ZValue" + sections[i] for i in rng.permutation(9))
    np.testing.assert_array_equal(read_mdoc(write(text)).tilt_deg, angles)


def test_order_of_acquisition_comes_from_the_clock(write):
    stamps = ["31-Dec-22  23:59:59", "01-Jan-23  00:00:01", "1-Jan-2023  00:00:00", "01-Nov-22  12:00:00"]
    text = "".join(f"[ZValue = {i}]\nTiltAngle = {i}\nDateTime = {stamp}\n" for i, stamp in enumerate(stamps))
    assert read_mdoc(write(text)).acquisition_order.tolist() == [1, 3, 2, 0]
    unreadable = read_mdoc(write(text.replace("Nov", "Nvv")))
    assert unreadable.acquisition_order is None
    assert any("DateTime" in note for note in unreadable.notes)


@pytest.mark.parametrize(("rotation", "axis"), [(175.3, 85.3), (172.9, 82.9), (178.4, 88.4), (0, -90), (-4.7, 85.3)])
def test_axis_from_rotation_angle_where_no_title_says_it(write, mdoc_text, angles, rotation, axis):
    text = mdoc_text(angles, title="").replace("RotationAngle = 175.3", f"RotationAngle = {rotation}")
    found = read_mdoc(write(text))
    assert found.tilt_axis_deg == pytest.approx(axis)
    assert "RotationAngle" in found.notes[0]


def test_titles_without_brackets_are_titles(write):
    text = "T = SerialEM: x\nT = Tilt axis angle = -12.5, binning = 1\n\n[FrameSet = 0]\nTiltAngle = 3\n"
    found = read_mdoc(write(text))
    assert (found.tilt_axis_deg, found.n_sections) == (-12.5, 1)


def test_frame_set_speaks_for_its_views(write):
    text = "[FrameSet = 0]\nTiltAngle = 9\nPixelSpacing = 1.3\nExposureDose = 200\n"
    text += "".join(f"[ZValue = {i}]\nTiltAngle = {i}\nExposureDose = 5\n" for i in range(8))
    found = read_mdoc(write(text))
    assert found.tilt_deg.tolist() == list(range(8))
    assert (found.pixel_size_nm, found.dose.tolist()) == (pytest.approx(0.13), [5.0] * 8)


def test_keys_nobody_needs_may_hold_anything(write, mdoc_text, angles):
    text = mdoc_text(angles, StagePosition="nan", PieceCount="what = ever", MinMaxMean="", Note="\xb5m \xb0")
    np.testing.assert_array_equal(read_mdoc(write("junk\n" + text)).tilt_deg, angles)


def test_dose_of_zero_was_not_measured(write, mdoc_text, angles):
    assert read_mdoc(write(mdoc_text(angles, ExposureDose=0))).dose is None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("TiltAngle = 6.0", "TiltAngle = six"), r"line \d+: TiltAngle = 'six'"),
        (("[ZValue = 4]", "[ZValue = 3]"), "ZValue 3 appears twice"),
        (("[ZValue = 4]", "[ZValue = 14]"), "ZValue 4 is missing"),
        (("ImageFile = cell.mrc", "Montage = 1"), "montage"),
        (("RotationAngle = 175.3", "PieceCoordinates = 0 0 0"), "montage"),
        (("[ZValue = 0]", "[MontSection = 0]"), "montage"),
    ],
)
def test_what_cannot_be_used_is_refused(write, mdoc_text, angles, edit, message):
    with pytest.raises(UserError, match=message):
        read_mdoc(write(mdoc_text(angles).replace(*edit)))


def test_line_of_a_wrong_value_is_right(write, mdoc_text, angles):
    text = mdoc_text(angles).replace("TiltAngle = 6.0", "TiltAngle = six")
    line = text.splitlines().index("TiltAngle = six") + 1
    with pytest.raises(UserError, match=f"line {line}:"):
        read_mdoc(write(text))


@pytest.mark.parametrize("text", ["", "PixelSpacing = 1\n", "-60\n-57\n"])
def test_file_without_sections_is_refused(write, text):
    with pytest.raises(UserError, match="section"):
        read_mdoc(write(text))


REAL = {
    "mdoc/cryocat_TS_017.mdoc": (60, 0.1971, 82.9),
    "mdoc/frame_set_multiple.mdoc": (20, 0.12827, 88.414),
    "mdoc/frame_set_single.mdoc": (1, 0.12827, 88.414),
    "mdoc/tilt_series.mdoc": (41, 0.54, 85.3),
    "mdoc/tiltstack_TS_01.mrc.mdoc": (41, 0.54, 85.3),
    "nist_mdoc/serialem_multiframe_000.mrc.mdoc": (2, 0.788, -90.0),
    "nist_mdoc/serialem_multiframe_001.mrc.mdoc": (2, 0.788, -90.0),
    "nist_mdoc/serialem_multiframe_002.mrc.mdoc": (2, 0.788, -90.0),
    "nist_mdoc/serialem_multitilt.mdoc": (2, 0.788, -90.0),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data, name):
    found = read_mdoc(shared_data / "tomo" / name)
    assert (found.n_sections, found.pixel_size_nm, found.tilt_axis_deg) == pytest.approx(REAL[name])
    assert len(found.tilt_deg) == found.n_sections
    assert sorted(found.acquisition_order if found.acquisition_order is not None else []) in (
        list(range(found.n_sections)),
        [],
    )


def test_real_dose_symmetric_series_was_acquired_from_the_middle(shared_data):
    found = read_mdoc(shared_data / "tomo" / "mdoc" / "cryocat_TS_017.mdoc")
    first = np.argsort(found.acquisition_order)[:5]
    assert np.abs(found.tilt_deg[first] - found.tilt_deg[first[0]]).max() < 10
    np.testing.assert_allclose(found.dose, 2.238, atol=0.1)


def test_real_montage_is_refused(shared_data):
    with pytest.raises(UserError, match="montage"):
        read_mdoc(shared_data / "tomo" / "mdoc" / "montage_section.mdoc")
