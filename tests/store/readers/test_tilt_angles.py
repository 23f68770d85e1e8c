"""Text files of tilt angles, and the choice between sources."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from gigascope.errors import UserError
from gigascope.store.readers.tilt_angles import (
    AngleList,
    angle_problems,
    angles_by_hand,
    choose_angles,
    in_common,
    read_tilt_angles,
)


@pytest.mark.parametrize(
    "text",
    ["-60.0\n0\n60.00\n", "\n-60\n\n  0.0 \n60\n\n", "-60 1\n0 2\n60 3", "-60\r\n0\r\n60\r\n", "\ufeff-60\n0\n6e1\n"],
)
def test_one_angle_per_line_blanks_and_second_column_aside(tmp_path, text):
    path = tmp_path / "a.tlt"
    path.write_bytes(text.encode())
    np.testing.assert_array_equal(read_tilt_angles(path), [-60, 0, 60])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\nthree\n", "line 3 is not a number: 'three'"),
        ("1\nnan\n", "line 2 is not a number"),
        ("1 x\n", "line 1 is not a number"),
        ("\n1 2 3\n", "line 2 has 3 columns"),
        ("1 0 0 1 0 0\n", "6 columns"),
        ("\n\n", "no tilt angles"),
        ("1\0", "not a text file"),
    ],
)
def test_other_content_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "a.tlt"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_tilt_angles(path)
    assert "a.tlt" in str(caught.value)


def test_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_tilt_angles(tmp_path / "none.tlt")


def test_angles_by_hand_are_a_list_a_file_or_an_even_series(tmp_path):
    (tmp_path / "a.txt").write_text("1\n2\n")
    assert angles_by_hand([1, 2], 2).values.tolist() == [1, 2]
    assert angles_by_hand(tmp_path / "a.txt", 2).values.tolist() == [1, 2]
    assert angles_by_hand(str(tmp_path / "a.txt"), 2).values.tolist() == [1, 2]
    assert angles_by_hand(SimpleNamespace(first_deg=-90, last_deg=90), 5).values.tolist() == [-90, -45, 0, 45, 90]
    with pytest.raises(UserError, match=r"ingest\.tilt_deg"):
        angles_by_hand([1, float("nan")], 2)


def test_first_source_is_chosen_when_all_agree_to_half_a_degree(tmp_path, rng):
    values = np.sort(rng.uniform(-60, 60, 11))
    near = values + rng.uniform(-0.49, 0.49, 11)
    chosen = choose_angles([AngleList("a", values), AngleList("b", near)], 11, tmp_path)
    assert chosen is not None
    assert chosen.name == "a"
    assert choose_angles([], 11, tmp_path) is None


def test_sources_that_differ_are_both_printed(tmp_path, rng):
    values = np.arange(11.0)
    view = int(rng.integers(11))
    other = values.copy()
    other[view] += 0.6
    with pytest.raises(UserError) as caught:
        choose_angles([AngleList("a.tlt", values), AngleList("a.mdoc", other)], 11, tmp_path)
    message = str(caught.value)
    assert f"view {view} is {view:.2f} in a.tlt and {view + 0.6:.2f} in a.mdoc" in message
    assert "a.tlt: 0.00, 1.00" in message
    assert "ingest.tilt_deg" in message


def test_wrong_count_names_both_numbers(tmp_path):
    with pytest.raises(UserError, match=r"has 61 images, cell42.rawtlt has 60 angles"):
        choose_angles([AngleList("cell42.rawtlt", np.zeros(60))], 61, tmp_path / "cell42.st")


def test_impossible_angles_are_named():
    assert angle_problems(np.array([-90.0, 0, 0, 90.0]), "a") == []
    assert "view 1: 91.00" in angle_problems(np.array([0, 91.0, 3]), "a")[0][0]
    what, _ = angle_problems(np.array([5.0, 0, 5.001, 7, 5.002]), "a")[0]
    assert "more than two views" in what
    assert "[0, 2, 4]" in what


def test_what_two_lists_have_in_common_is_said(rng):
    steps = np.cumsum(rng.uniform(1, 3, 21)) - 20.0
    noisy = steps + rng.uniform(-0.1, 0.1, 21)
    assert "opposite sign" in in_common(steps, -noisy + 3.0)
    assert "another order" in in_common(steps, rng.permutation(noisy))
    assert "other end" in in_common(steps, noisy[::-1])
    assert in_common(steps, rng.uniform(-60, 60, 21)) == ""
