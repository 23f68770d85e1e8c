"""The stage: every output is there, and each key acts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gigascope.runtime.run import run_stage
from gigascope.store.table import read_tsv
from gigascope.topography.evaluation.labels import LABELS, TABLES


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
