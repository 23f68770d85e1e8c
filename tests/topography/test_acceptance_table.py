"""The table of acceptance tests in the documentation: complete, and every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"G": 7, "N": 3, "D": 5, "C": 3, "H": 7, "A": 4, "R": 3, "P": 4, "E": 2}


def test_every_test_of_the_table_is_there() -> None:
    text = (ROOT / "docs" / "topography.md").read_text(encoding="utf-8")
    table = text.split("### All acceptance tests")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([A-Z]\d) \|", table, flags=re.MULTILINE)
    assert rows == [f"{letter}{n}" for letter, count in COUNTS.items() for n in range(1, count + 1)]
    named = re.findall(r"`((?:tests/\w+/)?test_\w+\.py)::(\w+)`(\*?)", table)
    assert len(named) > 40
    for file, name, slow in named:
        path = ROOT / (file if "/" in file else f"tests/topography/{file}")
        source = path.read_text(encoding="utf-8")
        found = re.search(rf"((?:^@.*\n(?:^[ )].*\n)*)*)^def {name}\(", source, flags=re.MULTILINE)
        assert found, f"{file}::{name}"
        marked = "mark.slow" in found[1] or re.search(r"^pytestmark = .*slow", source, flags=re.MULTILINE) is not None
        assert marked == bool(slow), f"{file}::{name}: slow is {marked}"
    for script in set(re.findall(r"python (benchmarks/\w+\.py)", table)):
        assert (ROOT / script).is_file(), script
