"""`gigascope alignment`: between all formats and back, what a format cannot hold, and what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gigascope.cli import main
from gigascope.store.readers.alignment import read_alignment
from gigascope.store.writers.aln import write_aln
from gigascope.store.writers.xf import write_tlt


def run(*words: object) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["alignment", *map(str, words)])
    assert exit_.value.code in (0, None)


def fail(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["alignment", *map(str, words)])
    assert exit_.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def first(tmp_path: Path, rng: np.random.Generator) -> Path:
    """An AreTomo alignment with two dark views."""
    path = tmp_path / "a.aln"
    tilt = np.linspace(-60, 60, 21)
    excluded = np.isin(np.arange(21), [0, 7])
    write_aln(
        path, rng.normal(0, 9, (21, 2)), tilt, -83.5, raw_shape=(958, 924), thickness_px=300, excluded=excluded,
        tilt_offset_deg=1.25,
    )  # fmt: skip
    return path


def test_around_all_formats_no_number_changes(first: Path, tmp_path: Path) -> None:
    run(first, tmp_path / "b.json", "--pixel-nm", 0.5)
    run(tmp_path / "b.json", tmp_path / "c.xf", "--angles", write_angles(tmp_path, first))
    run(tmp_path / "c.xf", tmp_path / "d.aln", "--size", "924,958")
    before, after = (read_alignment(path).alignment for path in (first, tmp_path / "d.aln"))
    np.testing.assert_allclose(after.shifts, before.shifts, atol=1e-3)
    np.testing.assert_allclose(after.tilt_deg, before.tilt_deg, atol=1e-3)
    np.testing.assert_allclose(after.tilt_axis_deg, before.tilt_axis_deg, atol=1e-4)
    np.testing.assert_array_equal(after.excluded, before.excluded)


def write_angles(folder: Path, alignment: Path) -> Path:
    """The angles of all sections: the portal's JSON does not know those of excluded ones."""
    write_tlt(folder / "all.tlt", read_alignment(alignment).alignment.tilt_deg)
    return folder / "all.tlt"


def test_rotations_about_x_travel_between_imod_and_the_portal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.xf").write_text("0 -1 1 0 2.5 -1\n" * 3)
    write_tlt(tmp_path / "a.tlt", [-3, 0, 3])
    write_tlt(tmp_path / "a.xtilt", [0.5, 0.25, 0])
    run(tmp_path / "a.xf", tmp_path / "b.json", "--size", "8,8", "--pixel-nm", 1)
    run(tmp_path / "b.json", tmp_path / "c.xf")
    assert (tmp_path / "c.xtilt").read_text() == (tmp_path / "a.xtilt").read_text()
    np.testing.assert_allclose(np.loadtxt(tmp_path / "c.xf"), np.loadtxt(tmp_path / "a.xf"), atol=1e-5)
    capsys.readouterr()
    run(tmp_path / "a.xf", tmp_path / "d.aln", "--size", "8,8")
    assert "rotations about x: a .aln has none" in capsys.readouterr().out


def test_what_is_missing_is_asked_for_and_nothing_is_replaced(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bare.xf").write_text("1 0 0 1 0 0\n" * 3)
    assert "--size" in fail(capsys, tmp_path / "bare.xf", tmp_path / "b.aln")
    assert "--angles" in fail(capsys, tmp_path / "bare.xf", tmp_path / "b.aln", "--size", "4,4")
    assert "WIDTH,HEIGHT" in fail(capsys, tmp_path / "bare.xf", tmp_path / "b.aln", "--size", "4x4")
    assert ".xf, .aln, .json" in fail(capsys, first, tmp_path / "b.txt")
    write_tlt(tmp_path / "short.tlt", [0, 1])
    assert "2 angles" in fail(capsys, first, tmp_path / "b.xf", "--angles", tmp_path / "short.tlt")
    assert not (tmp_path / "b.aln").exists()
    run(first, tmp_path / "b.xf")
    (tmp_path / "b.xf").unlink()
    assert "b.tlt: exists already" in fail(capsys, first, tmp_path / "b.xf")
    run(first, tmp_path / "b.xf", "--force")


def test_real_alignments_of_imod_and_aretomo(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "tomo"
    run(folder / "alignment_formats" / "imod_tilt_1.xf", tmp_path / "a.aln", "--size", "3832,3708")
    run(tmp_path / "a.aln", tmp_path / "b.xf")
    real = np.loadtxt(folder / "alignment_formats" / "imod_tilt_1.xf")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "b.xf"), real, atol=1e-3)
    run(folder / "shrec21_alignments" / "model_0.aln", tmp_path / "c.json")
    run(tmp_path / "c.json", tmp_path / "d.aln", "--size", "512,512")
    before, after = (np.loadtxt(path) for path in (folder / "shrec21_alignments" / "model_0.aln", tmp_path / "d.aln"))
    before[:, 0] += 1  # sections from 1
    np.testing.assert_allclose(after, before, atol=1e-3)
