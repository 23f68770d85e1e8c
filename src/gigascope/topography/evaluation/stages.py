"""The stage that measures how good the result is: reads, calls, writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.config import topography as config
from gigascope.stage import Kind, stage
from gigascope.topography.evaluation import plan
from gigascope.topography.evaluation.labels import TABLES

if TYPE_CHECKING:
    from gigascope.runtime.context import Context


@stage(
    "topography.evaluate",
    config.Evaluate,
    inputs={"raw": Kind.STORE, "calibration": Kind.STORE, "views": Kind.STORE, "mosaic": Kind.STORE},
    optional_inputs={"registered": Kind.STORE, "truth": Kind.STORE},
    outputs={"metrics": Kind.FILE, "evaluation": Kind.STORE, **dict.fromkeys(TABLES, Kind.TABLE)},
    estimate=plan.estimate_evaluate,
    parallel=True,
)
def evaluate(ctx: Context, cfg: config.Evaluate) -> None:
    """Measure heights and picture against the truth where there is one, and by what the views say of each other."""
    import json

    from gigascope.store.create import create_store
    from gigascope.topography.evaluation.evaluation import Evaluation

    found = Evaluation(
        ctx.open("registered" if ctx.has("registered") else "raw"),
        ctx.open("calibration"),
        ctx.open("views"),
        ctx.open("mosaic"),
        ctx.open("truth") if ctx.has("truth") else None,
        estimators=cfg.estimators,
        max_pixels=cfg.max_pixels,
        max_view_pixels=cfg.max_view_pixels,
    )
    found.measure(ctx.progress)
    for name, table in found.tables().items():
        ctx.write_table(name, *table)
    store = create_store(ctx.scratch_path("evaluation"))
    ctx.adopt("evaluation", store)
    errors, pixels = found.error_picture()
    store.create_array("height_error", errors.shape, errors.dtype)[...] = errors
    store.attrs |= {"pixels": pixels, "truth": found.has_truth}
    metrics = found.metrics()
    for message in metrics["warnings"]:
        ctx.warn(message)
    ctx.path("metrics").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
