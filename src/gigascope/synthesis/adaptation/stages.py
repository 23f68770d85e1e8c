"""The stages that train an adaptation and apply it: read, call, write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gigascope.config import synthesis_adapt as config
from gigascope.stage import Kind, Scatter, stage
from gigascope.synthesis.adaptation import plan

if TYPE_CHECKING:
    from pathlib import Path

    from gigascope.runtime.context import Context
    from gigascope.runtime.parts import WorkPlan
    from gigascope.synthesis.adaptation.domain import Place


def _naive(ctx: Context, use: Literal["train", "inference"]) -> Place:
    """Where the images stand that are to get another look."""
    from gigascope.synthesis.adaptation.domain import naive_place

    cultures, real = (ctx.input_path(name) if ctx.has(name) else None for name in ("cultures", "real"))
    return naive_place(cultures, real, use)


def _start_files(cfg: config.Train) -> list[Path]:
    from pathlib import Path

    return [] if cfg.start is None else [Path(cfg.start)]


@stage(
    "synthesis.train",
    config.Train,
    inputs={"real": Kind.STORE},
    optional_inputs={"cultures": Kind.STORE},
    outputs={"network": Kind.FILE, "losses": Kind.TABLE, "training": Kind.STORE, "events": Kind.FILE},
    estimate=plan.estimate_train,
    gpu=True,
    files=_start_files,
)
def train(ctx: Context, cfg: config.Train) -> None:
    """Train the networks between simulated and real images."""
    import shutil

    from gigascope.learning.live import loss_columns
    from gigascope.runtime.device import n_devices
    from gigascope.store.create import create_store
    from gigascope.synthesis.adaptation import stored
    from gigascope.synthesis.adaptation.discriminator import least_shape
    from gigascope.synthesis.adaptation.domain import Domain, check_domains
    from gigascope.synthesis.adaptation.events import write_events
    from gigascope.synthesis.adaptation.learning import Learning
    from gigascope.synthesis.adaptation.record import write_record

    labelled = cfg.arch != "identity" and plan.objective_of(cfg).label > 0
    cultures = _naive(ctx, "train").open(labelled=labelled)
    store = create_store(ctx.scratch_path("training"))
    ctx.adopt("training", store)
    if cfg.arch == "identity":
        stored.write_identity(ctx.path("network"), cultures.voxel_um)
        ctx.write_table("losses", loss_columns([]))
        write_events(ctx.path("events"), [], [])
        store.attrs |= {"method": "identity", "steps": 0}
        return
    real = Domain.open(ctx.input_path("real"))
    course = plan.course_of(cfg, real, cultures, ctx.seed, cuda=ctx.device.type == "cuda")
    check_domains(real, cultures, course.crop, least_shape(course.architecture))
    live = ctx.scratch / "live"
    processes = plan.processes_of(cfg, n_devices(ctx.device))
    ctx.log.info("%s on %d processes; losses as they come: tensorboard --logdir %s", course.words(), processes, live)
    learning = Learning(real, cultures, course, ctx.device, processes=processes, live=live)
    ctx.solve("training", learning, what="training", total=course.schedule.steps)
    training, mappings = learning.result()
    stored.write_adaptation(
        ctx.path("network"), training.state_dict(), mappings, cultures.voxel_um, course.means.bfloat16
    )
    write_record(store, learning, mappings)
    ctx.write_table("losses", loss_columns(learning.curves))
    write_events(ctx.path("events"), learning.curves, learning.pictures)
    shutil.rmtree(live, ignore_errors=True)
    ctx.log.info("waited %.1f %% of the time for crops", 100 * learning.stats.wait_share)
    if training.collapsed:
        ctx.warn(
            f"Training ended after {training.step} of {course.schedule.steps} steps: a discriminator's loss stayed "
            "below 0.001, so that nothing was learned from it any more. Set a lower train.lr or larger train.d_every."
        )


def open_infer(ctx: Context, cfg: config.Infer) -> WorkPlan:
    """Lay out the adapted images; one of their files is one item, after the statistics of each image if asked for."""
    from gigascope.runtime.parts import WorkPlan
    from gigascope.synthesis.adaptation.adapted import lay_out
    from gigascope.synthesis.adaptation.domain import check_voxels
    from gigascope.synthesis.adaptation.stored import read_adaptation

    cultures = _naive(ctx, "inference").open()
    adaptation = read_adaptation(ctx.input_path("network"), cfg.weights)
    check_voxels(cultures, adaptation.voxel_um, ctx.input_path("network"))
    measured = cfg.statistics == "volume"
    if measured and adaptation.architecture.norm != "instance":
        ctx.warn("infer.statistics: volume has no effect, the network's normalisation knows no statistics.")
    layout = lay_out(ctx.create_ensemble("adapted"), cultures, cfg.chunk, cfg.shard)
    items = range(len(layout))
    weights = [float(entry["voxels"]) for entry in layout]
    rounds: list[range] = [range(len(cultures.volumes)), items] if measured else [items]
    return WorkPlan(rounds, weights=weights, facts={"layout": layout})


def infer_item(ctx: Context, cfg: config.Infer, item: int) -> None:
    """Measure the statistics of an image, or adapt one file of one."""
    from gigascope.synthesis.adaptation.alignment import block_shifts

    adapting: Any = ctx.kept("adapting", lambda: _adapting(ctx, cfg))
    if cfg.statistics == "volume" and ctx.work.round == 0:
        ctx.work.save(sums=adapting.measure(item))
        return
    entry = ctx.work.facts["layout"][item]
    number = entry["volume"]
    volume = adapting.cultures.volumes[number]
    array = ctx.work.array("adapted", f"{volume.name}/0")
    region = array.region(entry["shard"])
    sums = ctx.work.read(number, 0)["sums"] if cfg.statistics == "volume" else None
    block = adapting.region(number, region[-3:], sums)
    array[region] = block.reshape([r.stop - r.start for r in region])
    ctx.work.save(shifts=block_shifts(volume.read(region[-3:]), block))


def _adapting(ctx: Context, cfg: config.Infer) -> Any:
    """The network on the device, and the images that it is applied to."""
    from gigascope.synthesis.adaptation.adapted import Adapting
    from gigascope.synthesis.adaptation.inference import Adapter
    from gigascope.synthesis.adaptation.stored import read_adaptation

    found = read_adaptation(ctx.input_path("network"), cfg.weights)
    generator = None if found.to_a is None else found.to_a.to(ctx.device)
    bfloat16 = plan.bfloat16_of(cfg, found.bfloat16, cuda=ctx.device.type == "cuda")
    adapter = Adapter(generator, found.cultures, found.real, cfg.scale, ctx.device, bfloat16)
    cultures = _naive(ctx, "inference").open()
    return Adapting(adapter, cultures, cfg.window, cfg.overlaps, cfg.blend, cfg.halo)


def _rounds(cfg: config.Infer) -> int:
    return 2 if cfg.statistics == "volume" else 1


@stage(
    "synthesis.infer",
    config.Infer,
    inputs={"network": Kind.FILE},
    optional_inputs={"cultures": Kind.STORE, "real": Kind.STORE},
    outputs={"adapted": Kind.STORE},
    estimate=plan.estimate_infer,
    gpu=True,
    scatter=Scatter(
        open_infer, infer_item, rounds=_rounds, estimate=plan.estimate_infer_job, gpu=("part",), unit="file"
    ),
)
def infer(ctx: Context, cfg: config.Infer) -> None:
    """Make the simulated images look real."""
    from gigascope.synthesis.adaptation.adapted import Limits, write_verdicts

    last = _rounds(cfg) - 1
    shifts: dict[int, list[Any]] = {}
    for item, entry in enumerate(ctx.work.facts["layout"]):
        shifts.setdefault(entry["volume"], []).append(ctx.work.read(item, last)["shifts"])
    limits = Limits(cfg.guard.median_voxels, cfg.guard.q95_voxels)
    rejected = write_verdicts(ctx.written("adapted"), [shifts[n] for n in sorted(shifts)], limits)
    for name, why in rejected.items():
        ctx.warn(f"{name} is rejected and left out of exports: {why}.")
