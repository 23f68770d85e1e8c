"""newst.com and tilt.com: the lines that IMOD's own setup writes, with the numbers of the series."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gigascope.store.writers.imod_com import number_list, write_newst_com, write_tilt_com


def options(path: Path) -> dict[str, str]:
    """Option and value of every line that the program reads from standard input."""
    lines = [line.strip() for line in path.read_text().splitlines() if not line.startswith("#")]
    program = next(i for i, line in enumerate(lines) if line.endswith("-StandardInput"))
    ends = next(i for i, line in enumerate(lines) if i > program and line.startswith("$"))
    pairs = (re.split(r"\s+", line, maxsplit=1) for line in lines[program + 1 : ends])
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path]:
    """The commands of the real alignment of a camera of 3832 x 3708 px, axis near 90 deg, bin 4."""
    newst, tilt = tmp_path / "newst.com", tmp_path / "tilt.com"
    stem = "mka2018-10-01-1"
    write_newst_com(
        newst, stack=f"{stem}.mrc", aligned=f"{stem}_ali.mrc", xf=f"{stem}.xf", shape=(928, 958), bin=4, remark="x"
    )
    write_tilt_com(
        tilt, aligned=f"{stem}_ali.mrc", tomogram=f"{stem}_full_rec.mrc", tlt=f"{stem}.tlt", full=(3708, 3832),
        shape=(928, 958), thickness_px=2000, bin=4,
    )  # fmt: skip
    return newst, tilt


def test_newst_says_what_a_real_one_says(shared_data: Path, written: tuple[Path, Path]) -> None:
    real = options(shared_data / "tomo" / "alignment_formats" / "imod_newst.com")
    assert options(written[0]) == real


def test_tilt_says_what_a_real_one_says(shared_data: Path, written: tuple[Path, Path]) -> None:
    real = options(shared_data / "tomo" / "alignment_formats" / "imod_tilt.com")
    ours = options(written[1])
    assert ours.keys() == real.keys() - {"XTILTFILE"}
    # floating point instead of scaled integers
    differs = {name for name in ours if ours[name] != real[name]}
    assert differs == {"MODE", "SCALE"}


def test_linear_data_and_excluded_views(tmp_path: Path) -> None:
    path = tmp_path / "tilt.com"
    excluded = [True, False, True, True, True, False, False, True]
    write_tilt_com(
        path, aligned="a", tomogram="b", tlt="c", full=(65, 64), shape=(60, 64), thickness_px=9, excluded=excluded,
        log=False,
    )  # fmt: skip
    found = options(path)
    assert "LOG" not in found
    assert found["EXCLUDELIST2"] == "1,3-5,8"
    assert found["SUBSETSTART"] == "2 0"


def test_number_lists() -> None:
    assert [number_list(n) for n in ([], [4], [1, 2], [1, 3, 4, 9])] == ["", "4", "1-2", "1,3-4,9"]
