"""A dataset of two spheroids of some nuclei, whose images have several shards each."""

from __future__ import annotations

from typing import Any

from ...stage_runs import StageRuns

TINY: dict[str, Any] = {
    "pipeline": "synthesis",
    "name": "tiny",
    "seed": 3,
    "device": "cpu",
    "phantoms": {"n_spheroids": 2, "region": {"semi_axes_um": [11.0, 10.0, 12.0], "margin_um": 3.0}},
    "simulate": {
        "grid": {"block": [16, 32, 64]},
        "labels": {"boundary": True},
        "optics": {"model": "gaussian", "sigma_depth_um": 20.0, "cap_um": [4.0, 1.5, 1.5]},
        "store": {"chunk": [8, 16, 32], "shard": [16, 32, 64]},
    },
}
RUNS = StageRuns("synthesis", {})
