"""The stage that finds focus and picture of every view: reads, calls, writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gigascope.config import topography_network as config
from gigascope.stage import Kind, Scatter, stage
from gigascope.topography.inference import plan

if TYPE_CHECKING:
    from gigascope.runtime.context import Context
    from gigascope.runtime.parts import WorkPlan


def _stacks(ctx: Context) -> str:
    """The input that holds the z-stacks: registered where they had to be."""
    return "registered" if ctx.has("registered") else "raw"


def open_infer(ctx: Context, cfg: config.Infer) -> WorkPlan:
    """Decide between network and focus alone, and lay out the arrays of the views."""
    from gigascope.runtime.parts import WorkPlan
    from gigascope.store.create import create_store
    from gigascope.topography.inference.stored import lay_out_views
    from gigascope.topography.training.course import Acquisition
    from gigascope.topography.training.stored import choose

    stacks = ctx.open(_stacks(ctx))
    acquisition = Acquisition.open(stacks.path, ctx.input_path("calibration"))
    verdict = choose(ctx.input_path("network"), cfg.method, acquisition.n_z)
    ctx.log.info("%s", verdict.why)
    store = create_store(ctx.scratch_path("views"))
    ctx.adopt("views", store)
    lay_out_views(store, stacks)
    facts = {"use": verdict.use, "why": verdict.why, "present": acquisition.scene.present.tolist()}
    return WorkPlan(
        [range(acquisition.scene.poses.n_views)],
        weights=[float(there) for there in acquisition.scene.present],
        facts=facts,
    )


def infer_view(ctx: Context, cfg: config.Infer, item: int) -> None:
    """Focus, confidence and picture of one view."""
    inference = ctx.kept("inference", lambda: _inference(ctx, cfg))
    row, col = divmod(item, inference.present.shape[1])
    arrays, numbers = inference.arrays((row, col))
    for name, block in arrays.items():
        ctx.work.array("views", name)[row, col] = block[None, None]
    ctx.work.metrics |= numbers


def _inference(ctx: Context, cfg: config.Infer) -> Any:
    """The network, or focus alone, on the device."""
    import numpy as np

    from gigascope.topography.focus.covered import read_coverage
    from gigascope.topography.inference.stored import Inference
    from gigascope.topography.training.stored import read_network

    stacks, use = ctx.open(_stacks(ctx)), ctx.work.facts["use"]
    shape = stacks.member("green").shape
    network = read_network(ctx.input_path("network"), shape[2])[0] if use == "network" else None
    if network is not None:
        network = network.to(ctx.device)
    present = np.array(ctx.work.facts["present"]).reshape(shape[:2])
    coverage = read_coverage(stacks)
    return Inference(stacks, present, network, cfg.tile_px, cfg.fill, cfg.colour, ctx.device, coverage)


@stage(
    "topography.infer",
    config.Infer,
    inputs={"raw": Kind.STORE, "calibration": Kind.STORE, "network": Kind.FILE},
    optional_inputs={"registered": Kind.STORE},
    outputs={"views": Kind.STORE},
    estimate=plan.estimate_infer,
    gpu=True,
    scatter=Scatter(open_infer, infer_view, estimate=plan.estimate_infer_job, gpu=("part",), unit="view"),
)
def infer(ctx: Context, cfg: config.Infer) -> None:
    """Find the slice in focus of every pixel of every view, how sure that is, and the picture in focus."""
    facts = ctx.work.facts
    trusted = [m["trusted"] for item in ctx.work.items if (m := ctx.work.metrics_of(item))]
    mean = sum(trusted) / max(1, len(trusted))
    ctx.written("views").attrs |= {"method": facts["use"], "why": facts["why"], "trusted": mean, "colour": cfg.colour}
    ctx.log.info("%s: %.0f %% of the pixels of %d views are known", facts["use"], 100 * mean, len(trusted))
