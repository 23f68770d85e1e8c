"""The stage that trains a network: reads, calls, writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.config import topography_network as config
from gigascope.stage import Kind, stage
from gigascope.topography.training import plan

if TYPE_CHECKING:
    from gigascope.runtime.context import Context


@stage(
    "topography.train",
    config.Train,
    inputs={"raw": Kind.STORE, "calibration": Kind.STORE},
    optional_inputs={"registered": Kind.STORE},
    outputs={"network": Kind.FILE, "losses": Kind.TABLE, "training": Kind.STORE},
    estimate=plan.estimate_train,
    gpu=True,
)
def train(ctx: Context, cfg: config.Train) -> None:
    """Train a network on the stacks themselves, and find out whether it is better than focus alone."""
    import shutil

    from gigascope.runtime.device import n_devices
    from gigascope.store.create import create_store
    from gigascope.topography.training import learning as science
    from gigascope.topography.training import stored
    from gigascope.topography.training.course import Acquisition

    calibration = ctx.input_path("calibration")
    acquisition = Acquisition.open(ctx.input_path("registered" if ctx.has("registered") else "raw"), calibration)
    course = plan.course_of(cfg, acquisition.shapes, ctx.seed)
    store = create_store(ctx.scratch_path("training"))
    ctx.adopt("training", store)
    asked = cfg.method == "focus"
    why = "train.method is focus" if asked else acquisition.why_no_network(course.objective, course.architecture)
    if why is not None:
        # of one camera nothing else is expected
        say = ctx.log.info if asked or acquisition.scene.poses.n_views == 1 else ctx.warn
        say(stored.write_focus(ctx.path("network"), store, why))
        ctx.write_table("losses", stored.loss_columns([]))
        return
    processes = plan.processes_of(cfg, n_devices(ctx.device))
    live = ctx.scratch / "losses.tsv"
    events = live.with_name(science.EVENTS)
    ctx.log.info("%s on %d processes", course.words(), processes)
    ctx.log.info("as they come: losses in %s, curves and patches by tensorboard --logdir %s", live, events)
    learning = science.Learning(acquisition, calibration, course, ctx.device, processes=processes, live=live)
    ctx.solve("training", learning, what="training", total=course.schedule.steps)
    verdict = stored.write_training(ctx.path("network"), store, learning)
    ctx.write_table("losses", stored.loss_columns(learning.curves))
    live.unlink(missing_ok=True)
    shutil.rmtree(events, ignore_errors=True)
    ctx.log.info("%s", learning.stats.summary())
    say = ctx.log.info if verdict.use == "network" else ctx.warn
    say(verdict.why)
