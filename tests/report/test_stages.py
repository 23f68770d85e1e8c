"""The stage that writes the page, of every chain: killed it leaves nothing, and it takes what `check` says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gigascope.check import needs, read_header
from gigascope.config.dataset import load_dataset

from ..compression.chain import RUNS as COMPRESSION
from ..peak import peak_of
from ..stage_runs import StageRuns, chance, write_dataset
from ..topography.chain import RUNS as TOPOGRAPHY

pytestmark = pytest.mark.slow

PAGE = {"metrics": "metrics.json", "page": "report.html"}
# A chain's made-up results, what they were made from, and its stages in a folder.
CHAINS: dict[str, tuple[str, dict[str, Any], StageRuns]] = {
    "tomography": ("made", {"phantom": {"n_tilts": 15, "size_px": 72}}, StageRuns("tomography", PAGE)),
    "compression": ("compressed", {"phantom": {"shape": [24, 64, 64]}}, COMPRESSION),
    "topography": ("evaluated_topography", {"instrument": {"preset": "XS"}}, TOPOGRAPHY),
    "synthesis": ("evaluated_cultures", {}, StageRuns("synthesis", PAGE)),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_page_after_a_kill_is_the_same_and_its_peak_is_what_check_says(
    chain: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixture, inputs, runs = CHAINS[chain]
    config = write_dataset(tmp_path, {"pipeline": chain, "name": "data", "inputs": inputs})
    made = request.getfixturevalue(fixture)
    results = made if isinstance(made, Path) else made.folder
    undisturbed, page = tmp_path / "undisturbed", tmp_path / "report.html"

    begun = time.monotonic()
    peak = peak_of(runs.arguments(config, undisturbed, "report", results))
    took = time.monotonic() - begun
    process = runs.start(config, tmp_path, "report", results)
    # The stage begins with this line; before it Python is loaded and nothing is at stake.
    assert process.wait_until(lambda: "config:" in (tmp_path / "log").read_text())
    time.sleep(chance().uniform(0.0, took))
    process.kill()
    assert not page.exists() or page.read_bytes() == (undisturbed / "report.html").read_bytes()
    runs.run(config, tmp_path, "report", results)
    runs.assert_same(tmp_path, undisturbed, "report")
    assert not (tmp_path / "scratch").exists()

    dataset = load_dataset(config)
    said = {need.stage: need.each.memory for need in needs(dataset, read_header(dataset))}[f"{chain}.report"]
    print(f"{peak / 2**20:.0f} MiB, said {said / 2**20:.0f}, {took:.1f} s")
    assert 0.8 * said < peak < 1.2 * said
