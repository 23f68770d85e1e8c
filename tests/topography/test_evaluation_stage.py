"""The stage: every output is there, and each key acts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gigascope.check import needs, read_header
from gigascope.config.dataset import load_dataset
from gigascope.config.topography import Evaluate, TopographyReport
from gigascope.runtime.run import run_stage
from gigascope.store.table import read_tsv
from gigascope.topography.evaluation.evaluation import Evaluation
from gigascope.topography.evaluation.labels import LABELS, TABLES
from gigascope.topography.evaluation.tiles import tiles_of

from ..peak import peak_of
from .chain import RUNS


def test_stage_writes_metrics_tables_and_the_picture(mosaicked: Any, tmp_path: Path) -> None:
    out = {"metrics": tmp_path / "metrics.json", "evaluation": tmp_path / "evaluation.zarr"}
    out |= {name: tmp_path / f"{name}.tsv" for name in TABLES}
    inputs = {n: mosaicked.paths()[n] for n in ("raw", "calibration", "views", "mosaic", "truth")}
    run_stage("topography.evaluate", mosaicked.config, inputs, out)
    metrics = json.loads(out["metrics"].read_text())
    assert set(metrics) - {"warnings", "notes"} <= set(LABELS)
    for name, entry in metrics.items():
        if isinstance(entry, dict):
            assert set(entry) == {"value", "unit", "label"}, name
    for name in TABLES:
        assert read_tsv(out[name])[0], name


def test_every_key_has_an_effect(mosaicked: Any) -> None:
    """Of the sections evaluate and report; what they do on pictures is in tests/report."""
    stores = [mosaicked.store(n) for n in ("raw", "calibration", "views", "mosaic", "truth")]

    def outcome(**keys: Any) -> dict[str, Any]:
        cfg = Evaluate(**{"estimators": (), "max_pixels": 2**26, "max_view_pixels": 192 * 192, **keys})
        found = Evaluation(*stores, **cfg.model_dump())
        found.measure()
        columns, _ = found.tables()["estimators"]
        pixels = found.metrics()["height_pixels"]["value"]
        return {"methods": list(columns["method"]), "pixels": pixels, "views": columns["pixels"][0]}

    before = outcome()
    changed = {
        "estimators": (("parabola",), "methods"),
        "max_pixels": (1, "pixels"),
        "max_view_pixels": (2 * 192 * 192, "views"),
    }
    assert set(changed) == set(Evaluate.model_fields)
    for key, (value, effect) in changed.items():
        after = outcome(**{key: value})
        # one tile holds all of XS
        expected = key != "max_pixels"
        assert bool(after[effect] != before[effect]) is expected, key
    assert len(tiles_of((slice(0, 2000), slice(0, 2000)), 512**2)) == 1
    assert set(TopographyReport.model_fields) == {"picture_px"}


@pytest.mark.slow
def test_peak_is_what_check_says(mosaicked: Any, tmp_path: Path) -> None:
    dataset = load_dataset(mosaicked.config)
    said = {n.stage: n.each.memory for n in needs(dataset, read_header(dataset))}["topography.evaluate"]
    peak = peak_of(RUNS.arguments(mosaicked.config, tmp_path, "evaluate", mosaicked.folder))
    print(f"{peak / 2**20:.0f} MiB, said {said / 2**20:.0f}")
    assert 0.8 * said < peak < 1.2 * said
