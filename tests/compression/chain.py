"""The chain stage by stage, in this process or in one of its own, on a dataset that takes seconds."""

from __future__ import annotations

from typing import Any

from ..stage_runs import StageRuns

# Eight bricks of the bench volume, and little to do in each: what is tested is how stages go together, not how well a
# brick is fitted.
SHAPE = (24, 64, 96)
TINY: dict[str, Any] = {
    "pipeline": "compression",
    "name": "tiny",
    "seed": 3,
    "device": "cpu",
    "fit": {
        "brick": [16, 32, 48],
        "halo": 8,
        "iterations": 20,
        "sweeps": 1,
        "sweep_iterations": 5,
        "quantise": {"iterations": 5},
    },
    "evaluate": {"codecs": ["jpeg2000"], "rates": 1},
}
ORDER = ("ingest", "gate", "fit", "decode", "evaluate")
RUNS = StageRuns(
    "compression",
    {"gmix": "gaussians.gmix", "metrics": "metrics.json", "bricks": "fit_bricks.tsv", "page": "report.html"},
)
