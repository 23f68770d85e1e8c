"""Opening a tilt series with what stands beside it: which source wins, what is refused, what is said."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from gigascope.errors import UserError
from gigascope.store.readers.source import describe, describe_lines
from gigascope.store.readers.tilt_series import find_tilt_series, open_tilt_series

SERI = (2, 1)  # two bytes per section: the tilt angle


def _serialem(angles):
    return {"extended": np.round(angles * 100).astype("<i2").tobytes(), "exttyp": b"SERI", "layout": SERI}


def test_priority_of_angle_sources(make_mrc, write_tlt, mdoc_text, angles):
    """Each source is shifted by 0.1 deg, which is no conflict; taking the best away uncovers the next."""
    path = make_mrc(**_serialem(angles + 0.1))
    files = {}
    for i, name in enumerate(("cell.tlt", "cell.rawtlt"), start=2):
        files[name] = write_tlt(path.parent / name, angles + 0.1 * i)
    files["cell.mdoc"] = path.parent / "cell.mdoc"
    files["cell.mdoc"].write_text(mdoc_text(angles + 0.4))
    by_hand = open_tilt_series(path, angles=(angles + 20).tolist())
    np.testing.assert_allclose(by_hand.tilt_deg, angles + 20)
    for name, offset in (("cell.tlt", 0.2), ("cell.rawtlt", 0.3), ("cell.mdoc", 0.4)):
        source = open_tilt_series(path)
        np.testing.assert_allclose(source.tilt_deg, angles + offset)
        assert source.origin["tilt_deg"] == name
        assert any(note.startswith(f"tilt angles from {name}") for note in source.notes)
        assert files[name] in source.files
        files[name].unlink()
    np.testing.assert_allclose(open_tilt_series(path).tilt_deg, angles + 0.1)


@pytest.mark.parametrize("first", ["tlt", "rawtlt", "mdoc", "header"])
def test_two_sources_in_conflict_are_both_printed(make_mrc, write_tlt, mdoc_text, angles, first):
    other = angles.copy()
    other[4] += 0.6
    path = make_mrc(**(_serialem(other) if first == "header" else {}))
    if first in ("tlt", "rawtlt"):
        write_tlt(path.with_suffix(f".{first}"), other)
    elif first == "mdoc":
        path.with_suffix(".mdoc").write_text(mdoc_text(other))
    second = {"tlt": "rawtlt", "rawtlt": "mdoc", "mdoc": "tlt", "header": "tlt"}[first]
    if second == "mdoc":
        path.with_suffix(".mdoc").write_text(mdoc_text(angles))
    else:
        write_tlt(path.with_suffix(f".{second}"), angles)
    with pytest.raises(UserError, match=r"differ by up to 0\.60 deg") as caught:
        open_tilt_series(path)
    message = str(caught.value)
    assert "6.60" in message
    assert "6.00" in message
    assert "ingest.tilt_deg" in message
    open_tilt_series(path, angles=angles.tolist())  # by hand: no conflict any more


@pytest.mark.parametrize("name", ["cell.mdoc", "cell.mrc.mdoc"])
def test_mdoc_is_found_by_either_name(make_mrc, mdoc_text, angles, name):
    path = make_mrc()
    (path.parent / name).write_text(mdoc_text(angles, ExposureDose=2.0))
    source = open_tilt_series(path)
    assert source.origin["tilt_deg"] == name
    assert (source.pixel_size_nm, source.tilt_axis_deg) == (pytest.approx(0.54), 85.3)
    assert source.dose.sum() == 18
    np.testing.assert_array_equal(source.acquisition_order, np.arange(9))


def test_mdoc_named_in_the_config_replaces_the_one_beside(make_mrc, mdoc_text, angles):
    path = make_mrc()
    path.with_suffix(".mdoc").write_text(mdoc_text(angles + 30))
    other = path.parent / "other.mdoc"
    other.write_text(mdoc_text(angles))
    np.testing.assert_allclose(open_tilt_series(path, mdoc=other).tilt_deg, angles)


def test_count_mismatch_names_both_numbers(make_mrc, write_tlt, mdoc_text, angles):
    path = make_mrc()
    write_tlt(path.with_suffix(".rawtlt"), angles[:-1])
    with pytest.raises(UserError, match=r"has 9 images, cell\.rawtlt has 8 angles"):
        open_tilt_series(path)
    path.with_suffix(".rawtlt").unlink()
    path.with_suffix(".mdoc").write_text(mdoc_text(angles[:-1]))
    with pytest.raises(UserError, match=r"has 9 images, cell\.mdoc has 8 sections"):
        open_tilt_series(path)
    with pytest.raises(UserError, match=r"has 9 images, ingest\.tilt_deg has 8 angles"):
        open_tilt_series(path, angles=angles[:-1].tolist())
    source = open_tilt_series(path, angles=angles.tolist())
    assert source.pixel_size_nm == pytest.approx(0.54)
    assert source.acquisition_order is None
    assert any("8 sections for 9 views" in note for note in source.notes)


def test_angles_by_hand_as_file_or_even_series(make_mrc, write_tlt, angles):
    path = make_mrc()
    named = write_tlt(path.parent / "somewhere.txt", angles)
    np.testing.assert_allclose(open_tilt_series(path, angles=named).tilt_deg, angles)
    even = open_tilt_series(path, angles=SimpleNamespace(first_deg=-80, last_deg=80))
    np.testing.assert_allclose(even.tilt_deg, np.linspace(-80, 80, 9))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.arange(9) * 12.0, r"outside \+-90 deg \(view 8: 96.00\)"),
        (np.array([0.0, 1, 1, 1, 2, 3, 4, 5, 6]), "more than two views have the tilt angle 1.00"),
    ],
)
def test_impossible_angles_are_refused(make_mrc, write_tlt, values, message):
    path = make_mrc()
    write_tlt(path.with_suffix(".tlt"), values)
    with pytest.raises(UserError, match=message) as caught:
        open_tilt_series(path)
    assert "cell.tlt" in str(caught.value)


def test_ninety_degrees_and_pairs_of_equal_angles_are_accepted(make_mrc, write_tlt):
    path = make_mrc()
    values = np.array([-90, -60, -60, -30, 0, 0, 30, 60, 90.0])
    write_tlt(path.with_suffix(".tlt"), values)
    np.testing.assert_array_equal(open_tilt_series(path).tilt_deg, values)


def test_fewer_than_seven_views_are_refused(make_mrc):
    path = make_mrc(data=np.ones((6, 4, 5), dtype=int))
    with pytest.raises(UserError, match="6 views, at least 7"):
        open_tilt_series(path, angles=list(range(6)))


@pytest.mark.parametrize(("pixel", "reason"), [(0.0, "says 0"), (1.0, "exactly 1 A")])
def test_missing_pixel_size_is_refused_with_the_key_to_set(make_mrc, write_tlt, angles, pixel, reason):
    path = make_mrc(pixel_angstrom=pixel)
    write_tlt(path.with_suffix(".tlt"), angles)
    with pytest.raises(UserError, match=rf"{reason}.*Set ingest.pixel_size_nm"):
        open_tilt_series(path)
    source = open_tilt_series(path, pixel_size_nm=0.3)
    assert (source.pixel_size_nm, source.origin["pixel_size_nm"]) == (0.3, "ingest.pixel_size_nm")
    assert source.missing == {"tilt_axis_deg": source.missing["tilt_axis_deg"]}


def test_pixel_size_by_hand_beats_mdoc_beats_header(make_mrc, mdoc_text, angles):
    path = make_mrc(pixel_angstrom=9.0)
    assert find_tilt_series(path).pixel_size_nm == pytest.approx(0.9)
    path.with_suffix(".mdoc").write_text(mdoc_text(angles))
    source = open_tilt_series(path)
    assert source.pixel_size_nm == pytest.approx(0.54)
    assert any("says 0.9 nm" in note for note in source.notes)
    assert open_tilt_series(path, pixel_size_nm=2.0).pixel_size_nm == 2.0


def test_one_angstrom_that_the_mdoc_confirms_is_accepted(make_mrc, mdoc_text, angles):
    path = make_mrc(pixel_angstrom=1.0)
    path.with_suffix(".mdoc").write_text(mdoc_text(angles).replace("= 5.4", "= 1.0"))
    assert open_tilt_series(path).pixel_size_nm == pytest.approx(0.1)


@pytest.mark.parametrize("pixel", [-1.0, 0.0, float("nan"), float("inf")])
def test_pixel_size_by_hand_must_be_positive(make_mrc, angles, pixel):
    with pytest.raises(UserError, match="positive number of nanometres"):
        open_tilt_series(make_mrc(), angles=angles.tolist(), pixel_size_nm=pixel)


def test_stack_binned_after_its_mdoc_is_refused_with_the_likely_size(make_mrc, mdoc_text, angles):
    path = make_mrc()
    path.with_suffix(".mdoc").write_text(mdoc_text(angles, ImageSize="32 24"))
    with pytest.raises(UserError, match=r"8 x 6 px, cell.mdoc describes 32 x 24 px .*probably 2.16"):
        open_tilt_series(path)
    assert open_tilt_series(path, pixel_size_nm=2.16).pixel_size_nm == 2.16
    path.with_suffix(".mdoc").write_text(mdoc_text(angles, ImageSize="8 6"))
    assert open_tilt_series(path).pixel_size_nm == pytest.approx(0.54)


def test_tilt_axis_by_hand_beats_mdoc_beats_title(make_mrc, mdoc_text, angles):
    path = make_mrc(titles=("    Tilt axis angle = 12.0, binning = 1",))
    assert find_tilt_series(path).tilt_axis_deg == 12.0
    path.with_suffix(".mdoc").write_text(mdoc_text(angles))
    source = open_tilt_series(path)
    assert (source.tilt_axis_deg, source.origin["tilt_axis_deg"]) == (85.3, "title line of cell.mdoc")
    assert any("12.00" in note for note in source.notes)
    assert open_tilt_series(path, tilt_axis_deg=-3.0).tilt_axis_deg == -3.0


def test_broken_mdoc_beside_matters_only_where_it_is_needed(make_mrc, angles):
    path = make_mrc()
    path.with_suffix(".mdoc").write_text("Montage = 1\n[ZValue = 0]\n")
    with pytest.raises(UserError, match="montage"):
        open_tilt_series(path, angles=angles.tolist())
    source = open_tilt_series(path, angles=angles.tolist(), pixel_size_nm=1.0, tilt_axis_deg=0.0)
    assert any("montage" in note for note in source.notes)
    with pytest.raises(UserError, match="montage"):
        open_tilt_series(
            path, angles=angles.tolist(), pixel_size_nm=1.0, tilt_axis_deg=0.0, mdoc=path.with_suffix(".mdoc")
        )


def test_all_that_is_wrong_is_said_at_once(make_mrc):
    with pytest.raises(UserError) as caught:
        open_tilt_series(make_mrc(data=np.ones((4, 4, 5), dtype=int), pixel_angstrom=0.0))
    message = str(caught.value)
    for part in ("3 things are wrong", "4 views", "no tilt angles", "pixel size is missing", "ingest.tilt_deg"):
        assert part in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.mrc", "no such file"),
        ("a.mrc.gz", "compressed"),
        ("a.st.bz2", "compressed"),
        ("a.mdoc", "holds no images"),
        ("a.dm3", "is no DM3 or DM4 file"),
        ("a.emd", "is no HDF5 file"),
        ("a.mat", "is no MATLAB file"),
        ("a.png", r"\.png files are not read"),
        ("a.xyz", "this kind of file is not read"),
    ],
)
def test_files_that_are_no_series_are_refused(tmp_path, name, message):
    if name != "none.mrc":
        (tmp_path / name).write_bytes(b"x" * 3000)
    with pytest.raises(UserError, match=message) as caught:
        open_tilt_series(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("suffix", [".mrc", ".st", ".ali", ".rec", ".MRC", ".stack"])
def test_any_suffix_is_read_if_the_content_is_mrc(make_mrc, angles, suffix):
    assert open_tilt_series(make_mrc(f"cell{suffix}"), angles=angles.tolist()).n_views == 9


def test_y_up_reaches_the_reader(make_mrc, angles):
    path = make_mrc()
    up, down = (open_tilt_series(path, angles=angles.tolist(), y_up=up) for up in (True, False))
    np.testing.assert_array_equal(up.read(2), down.read(2)[::-1])


def test_description_says_what_where_and_why(make_mrc, mdoc_text, angles):
    path = make_mrc(pixel_angstrom=0.0)
    found = describe(find_tilt_series(path))
    assert (found["shape"], found["dtype"], found["bytes"]) == ((9, 6, 8), "int16", 9 * 6 * 8 * 2)
    assert found["tilt_range_deg"] is None
    lines = "\n".join(describe_lines(find_tilt_series(path)))
    assert "tilt angles missing: no .tlt" in lines
    assert "pixel size  missing: the header says 0" in lines
    path.with_suffix(".mdoc").write_text(mdoc_text(angles, ExposureDose=2.0))
    source = find_tilt_series(path)
    found = describe(source)
    assert (found["tilt_range_deg"], found["tilt_step_deg"], found["n_angles"]) == ((-12.0, 12.0), 3.0, 9)
    assert (found["total_dose"], found["acquisition"]) == (18.0, "in stack order")
    lines = "\n".join(describe_lines(source))
    for part in ("9 of 8 x 6 px", "-12.00 to 12.00 deg", "0.54 nm, from cell.mdoc", "85.30 deg", "18.0 e/A^2"):
        assert part in lines


def test_needle(shared_data):
    source = open_tilt_series(shared_data / "tomo" / "nist_haadf_needle" / "needle.mrc")
    assert (source.shape, source.dtype) == ((91, 64, 64), np.uint16)
    assert source.pixel_size_nm == pytest.approx(18, rel=1e-3)
    np.testing.assert_array_equal(source.tilt_deg, np.arange(-90, 91, 2))
    assert source.origin["tilt_deg"] == "needle.rawtlt"
    views = np.stack([source.read(i) for i in range(91)])
    assert views.std() > 0
    # the needle enters the field at the left, along the axis: columns on the left are brighter
    assert views[..., :8].mean() > views[..., -8:].mean()


def test_cryo_stack_of_four_views_is_refused(shared_data):
    path = shared_data / "tomo" / "cryocat_stack" / "tilt_stack.mrc"
    with pytest.raises(UserError) as caught:
        open_tilt_series(path)
    for part in ("4 views", "the header says 0", "ingest.pixel_size_nm", "tilt_stack.mrc"):
        assert part in str(caught.value)
    with pytest.raises(UserError, match="at least 7"):
        open_tilt_series(path, angles=[-3, 0, 3, 6], pixel_size_nm=0.2)


def test_x_ray_series_with_angles_by_hand(shared_data):
    path = shared_data / "tomo" / "xray_nanoct_ssrl" / "tomo77_every3rd.mrc"
    with pytest.raises(UserError, match="exactly 1 A"):
        open_tilt_series(path)
    angles = np.linspace(-90, 90, 151, endpoint=False)
    source = open_tilt_series(path, angles=angles.tolist(), pixel_size_nm=30.0)
    assert (source.shape, source.dtype) == ((151, 79, 83), np.float32)
    assert np.isfinite(source.read(150)).all()


def test_real_mdoc_and_tlt_of_one_series_agree(shared_data, make_mrc):
    folder = shared_data / "tomo" / "mdoc"
    data = np.ones((60, 4, 4), dtype=int)
    path = make_mrc("TS_017.mrc", data=data, pixel_angstrom=0.0)
    path.with_suffix(".tlt").write_bytes((folder / "cryocat_TS_017.tlt").read_bytes())
    mdoc = (folder / "cryocat_TS_017.mdoc").read_text().replace("ImageSize = 4096 4096", "ImageSize = 4 4")
    path.with_suffix(".mrc.mdoc").write_text(mdoc)
    source = open_tilt_series(path)
    assert (source.origin["tilt_deg"], source.tilt_axis_deg) == ("TS_017.tlt", 82.9)
    assert source.pixel_size_nm == pytest.approx(0.1971)
    assert any("TS_017.mrc.mdoc say the same" in note for note in source.notes)


def test_real_rawtlt_is_read(shared_data, make_mrc):
    path = make_mrc(data=np.ones((77, 4, 4), dtype=int))
    listed = shared_data / "tomo" / "nist_mdoc" / "HAADF_77tilts.rawtlt"
    np.testing.assert_array_equal(open_tilt_series(path, angles=listed).tilt_deg, np.arange(-76, 77, 2))
