"""Snakemake's own report, made without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from .checkout import Checkout

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def offline() -> list[str]:
    """Words that run a command without a network, where that is possible."""
    words = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") is None:
        return []
    works = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    return words if works else []


def test_report_holds_pages_tables_and_captions_and_needs_no_network(finished: Checkout) -> None:
    command = [*offline(), "snakemake", "--profile", "local", "--report", "report.zip"]
    code, output = finished.run(*command)
    assert code == 0, output
    with zipfile.ZipFile(finished.root / "report.zip") as archive:
        names = archive.namelist()
        text = "".join(archive.read(name).decode(errors="replace") for name in names if name.endswith((".js", ".html")))
    found = Counter(Path(name).name for name in names)
    for table in ("shifts.tsv", "metrics.json", "fsc.tsv", "frc_views.tsv", "history.tsv"):
        assert found[table] == 2, f"{table}: one of each dataset"
    assert found["report.html"] == 3, "the pages of two datasets, and the report's own"
    assert "What was done to" in text
    assert "Tomography" in text


def test_report_of_one_dataset_can_be_made_alone(finished: Checkout) -> None:
    finished.snakemake("--report", "one.zip", "--config", "datasets=config/datasets/one.yaml")
    assert os.path.getsize(finished.root / "one.zip") > 10_000
