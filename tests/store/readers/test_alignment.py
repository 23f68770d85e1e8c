"""An alignment made elsewhere, taken over into a series: signs, angles, axis, exclusions, and what does not belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gigascope.errors import UserError
from gigascope.store.readers.alignment import read_alignment
from gigascope.store.readers.source import describe_lines
from gigascope.store.readers.tilt_series import open_tilt_series
from gigascope.store.writers.alignment import raw_shifts
from gigascope.store.writers.aln import write_aln
from gigascope.store.writers.portal import write_portal_json
from gigascope.store.writers.xf import write_tlt, write_xf

N = 9
TILT = np.linspace(-40, 40, N)
SHAPE = (24, 32)


@pytest.fixture
def series(make_mrc, rng) -> Path:
    """A raw stack of 9 views, 32 x 24 px, with its angles beside it."""
    path = make_mrc(data=rng.integers(0, 99, (N, *SHAPE)))
    write_tlt(path.with_suffix(".rawtlt"), TILT)
    return path


@pytest.fixture
def shifts(rng) -> np.ndarray:
    return rng.uniform(-6, 6, (N, 2))


def write(path: Path, shifts: np.ndarray, axis: float | np.ndarray, tilt: np.ndarray, out: list[int]) -> Path:
    excluded = np.isin(np.arange(N), out)
    if path.suffix == ".aln":
        write_aln(path, shifts, tilt, axis, raw_shape=SHAPE, excluded=excluded)
    elif path.suffix == ".json":
        write_portal_json(path, shifts, tilt, axis, volume_angstrom=(1, 1, 1), excluded=excluded)
    else:
        write_xf(path, shifts, axis, excluded=excluded)
        write_tlt(path.with_suffix(".tlt"), tilt)
    return path


@pytest.mark.parametrize("name", ["a.xf", "a.aln", "a.json"])
def test_every_format_brings_shifts_axis_and_exclusions(series, tmp_path, shifts, name):
    path = write(tmp_path / name, shifts, 85.3, TILT, [4])
    found = open_tilt_series(series, alignment=path)
    assert found.tilt_axis_deg == pytest.approx(85.3, abs=1e-4)
    kept = np.arange(N) != 4
    np.testing.assert_allclose(found.alignment.shifts[kept], shifts[kept], atol=1e-3)
    assert np.flatnonzero(found.alignment.excluded).tolist() == [4]
    np.testing.assert_allclose(found.tilt_deg, TILT, atol=1e-3)
    assert path in found.files
    assert "shifts of 8 views" in "\n".join(describe_lines(found))


@pytest.mark.parametrize("name", ["a.xf", "a.aln", "a.json"])
def test_an_offset_of_all_angles_is_taken_over_and_said(series, tmp_path, shifts, name):
    path = write(tmp_path / name, shifts, 0.0, TILT + 2.5, [])
    if name == "a.aln":
        path.write_text(path.read_text().replace("AlphaOffset =     0.00", "AlphaOffset =     2.50"))
    found = open_tilt_series(series, alignment=path)
    np.testing.assert_allclose(found.tilt_deg, TILT + 2.5, atol=1e-3)
    assert any("tilt offset of 2.50 deg" in note for note in found.notes)
    by_hand = open_tilt_series(series, alignment=path, angles=TILT)
    np.testing.assert_allclose(by_hand.tilt_deg, TILT)


def test_sections_counted_one_off_are_seen_by_their_angles(series, tmp_path, shifts):
    path = write(tmp_path / "a.aln", shifts, 0.0, TILT + 10, [])  # as if section n were n + 1: evenly spaced by 10
    with pytest.raises(UserError, match=r"plus 10\.00 deg, but its AlphaOffset is 0\.00"):
        open_tilt_series(series, alignment=path)


@pytest.mark.parametrize(
    ("tilt", "words"), [(-TILT, "opposite sign"), (TILT[np.argsort(np.abs(TILT))], "same angles in another order")]
)
def test_other_angles_are_refused_with_what_they_have_in_common(series, tmp_path, shifts, tilt, words):
    path = write(tmp_path / "a.aln", shifts, 0.0, tilt, [])
    with pytest.raises(UserError, match=words):
        open_tilt_series(series, alignment=path)


def test_axis_by_hand_turns_the_shifts_into_its_frame(series, tmp_path, shifts):
    """The raw translation R(phi) f of a view's centre stays what it is."""
    path = write(tmp_path / "a.xf", shifts, 90.0, TILT, [])
    found = open_tilt_series(series, alignment=path, tilt_axis_deg=0.0)
    np.testing.assert_allclose(found.alignment.shifts, np.stack([-shifts[:, 1], shifts[:, 0]], 1), atol=1e-3)
    assert any("turned into that frame" in note for note in found.notes)


def test_rotation_of_single_views_is_said_and_their_centres_stay(series, tmp_path, shifts):
    axis = 30.0 + np.linspace(-1, 1, N)
    found = open_tilt_series(series, alignment=write(tmp_path / "a.aln", shifts, axis, TILT, []))
    turn = np.radians(axis - 30.0)
    expected = np.stack(
        [np.cos(turn) * shifts[:, 0] - np.sin(turn) * shifts[:, 1],
         np.sin(turn) * shifts[:, 0] + np.cos(turn) * shifts[:, 1]], axis=1,
    )  # fmt: skip
    np.testing.assert_allclose(found.alignment.shifts, expected, atol=1e-3)
    assert any("over 2.00 deg" in note and "0.3 px" in note for note in found.notes)


def test_alignment_of_a_binned_stack_is_scaled(series, tmp_path, shifts):
    path = write(tmp_path / "a.aln", shifts / 2, 10.0, TILT, [])
    path.write_text(path.read_text().replace("RawSize = 32 24", "RawSize = 16 12"))
    found = open_tilt_series(series, alignment=path)
    np.testing.assert_allclose(found.alignment.shifts, shifts, atol=2e-3)
    path.write_text(path.read_text().replace("RawSize = 16 12", "RawSize = 16 16"))
    with pytest.raises(UserError, match="16 x 16 px"):
        open_tilt_series(series, alignment=path)


def test_rotations_about_x_beside_a_xf_are_read_and_said(series, tmp_path, shifts):
    path = write(tmp_path / "a.xf", shifts, 5.0, TILT, [])
    write_tlt(tmp_path / "a.xtilt", np.full(N, 0.75))
    assert read_alignment(path).x_tilt_deg.tolist() == [0.75] * N
    assert any("0.75 deg, which are not applied" in note for note in open_tilt_series(series, alignment=path).notes)
    write_tlt(tmp_path / "a.xtilt", np.zeros(N - 1))
    with pytest.raises(UserError, match=r"a\.xtilt beside it 8"):
        open_tilt_series(series, alignment=path)


def test_magnification_is_said_and_the_centre_of_a_view_stays_right(series, tmp_path):
    """r = M^-1 (a - d): the raw point that lands in the middle, a = 0, is R(phi) f."""
    angle, size, d = np.radians(-30), 1.02, np.array([4.0, -2.0])
    m = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    (tmp_path / "a.xf").write_text(f"{m[0, 0]} {m[0, 1]} {m[1, 0]} {m[1, 1]} {d[0]} {d[1]}\n" * N)
    found = open_tilt_series(series, alignment=tmp_path / "a.xf")
    assert found.tilt_axis_deg == pytest.approx(30)
    np.testing.assert_allclose(raw_shifts(found.alignment)[0], -np.linalg.solve(m, d))
    assert any("by up to 2.00 %, which is not applied" in note for note in found.notes)


def test_what_does_not_belong_is_refused(series, tmp_path, shifts):
    for name, text, message in (
        ("a.txt", "", "no alignment that is read"),
        ("missing.xf", None, "no such file"),
        ("short.xf", "1 0 0 1 0 0\n" * 8, "aligns 8 views"),
        ("none.json", '{"per_section_alignment_parameters": []}', "names no sections"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            open_tilt_series(series, alignment=tmp_path / name)


def test_real_alignment_of_imod_with_its_angles(shared_data):
    found = read_alignment(shared_data / "tomo" / "alignment_formats" / "imod_tilt_1.xf")
    assert len(found.files) == 3
    assert found.alignment.tilt_deg[0] == -52.24
    assert not found.x_tilt_deg.any()


@pytest.mark.parametrize("number", range(5))
def test_real_alignments_that_count_from_zero_fit_their_series(shared_data, make_mrc, rng, number):
    """SHREC'21: 61 views of 512 px, of which a smaller copy stands in here."""
    series = make_mrc(data=rng.integers(0, 99, (61, 32, 32)))
    write_tlt(series.with_suffix(".tlt"), np.linspace(60, -60, 61))
    path = shared_data / "tomo" / "shrec21_alignments" / f"model_{number}.aln"
    found = open_tilt_series(series, alignment=path)
    read = read_alignment(path).alignment
    np.testing.assert_allclose(found.alignment.shifts * 16, read.shifts, atol=0.05 * np.abs(read.shifts).max())
    assert found.tilt_deg[0] == pytest.approx(60, abs=0.02)
