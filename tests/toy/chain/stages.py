"""The toy chain: one plain stage, one that shares an array in two rounds, one that finds things of unknown number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.toy import accidents, config, plan

from gigascope.stage import Kind, Scatter, stage

if TYPE_CHECKING:
    from gigascope.runtime.context import Context
    from gigascope.runtime.parts import WorkPlan


@stage("toy.ingest", config.Ingest, inputs={}, outputs={"volume": Kind.STORE}, reads_inputs=True)
def ingest(ctx: Context, cfg: config.Ingest) -> None:
    """Make a volume of random numbers."""
    import numpy as np

    shape = ctx.inputs_section.shape
    written = ctx.create("volume", shape=shape, dtype=np.float32, axes=("z", "y", "x"))
    written[:] = ctx.random("volume").random(shape, dtype=np.float32)


def open_smooth(ctx: Context, cfg: config.Smooth) -> WorkPlan:
    """Two arrays of whole blocks: the result and, beside it, the sums."""
    import numpy as np
    from gigascope.toy.blocks import BLOCK, grid

    from gigascope.runtime.parts import WorkPlan, space_filling
    from gigascope.store.plan import ShardPlan

    shape = ctx.open("volume").shape
    cut = ShardPlan(shape, 4, (1, 3, 2), BLOCK)
    written = ctx.create("smooth", shape=shape, dtype=np.float32, axes=("z", "y", "x"), plan=cut)
    written.attrs["opened"] = True
    written.create_label("bright", plan=cut)
    written.write_table("blocks", {"number": np.arange(np.prod(grid(shape)))})
    cells = grid(shape)
    ctx.work.create_array("sums", cells, np.float64, plan=ShardPlan(cells, 8, (1, 1, 1), (1, 1, 1)))
    ctx.warn("opened")
    order = space_filling(cells)
    return WorkPlan([order, order], weights=np.arange(len(order)).tolist(), facts={"cells": list(cells)})


def smooth_block(ctx: Context, cfg: config.Smooth, item: int) -> None:
    """Round 0: sum of a block. Round 1: the block, towards the sums of its neighbours."""
    import time

    import numpy as np
    from gigascope.toy import blocks

    if ctx.work.round == 0 and item == cfg.killed_item:
        accidents.die_at_the_next_write(ctx.scratch)
    if ctx.work.round == 0 and item == cfg.hungry_item:
        accidents.take_memory(cfg.hungry_mb, 2 * cfg.pause_s)
    time.sleep(cfg.pause_s)
    volume = ctx.kept("volume", lambda: ctx.open("volume").array()[:])
    where = blocks.region(volume.shape, item)
    sums = ctx.work.array("sums")
    if ctx.work.round == 0:
        sums[sums.region(item)] = np.full((1, 1, 1), volume[where].sum(dtype=np.float64))
        return
    around = [float(sums[sums.region(n)][0, 0, 0]) for n in blocks.neighbours(volume.shape, item)]
    block = volume[where] + np.float32(cfg.factor * float(np.sum(around)))
    written = ctx.work.array("smooth")
    written[where] = block
    ctx.work.array("smooth", "labels/bright/0")[where] = (block > np.median(block)).astype(np.uint8)
    ctx.work.metrics["mean"] = float(block.mean())


@stage(
    "toy.smooth",
    config.Smooth,
    inputs={"volume": Kind.STORE},
    outputs={"smooth": Kind.STORE},
    estimate=plan.estimate,
    scatter=Scatter(
        open_smooth, smooth_block, rounds=lambda cfg: 2, estimate=plan.estimate_job, threads=64, unit="block"
    ),
)
def smooth(ctx: Context, cfg: config.Smooth) -> None:
    """Complete the smoothed volume."""
    ctx.written("smooth").attrs["mean"] = [ctx.work.metrics_of(item, 1)["mean"] for item in ctx.work.items]


def open_pick(ctx: Context, cfg: config.Pick) -> WorkPlan:
    """All blocks, then those of each colour."""
    import numpy as np
    from gigascope.toy.blocks import colour, grid

    from gigascope.runtime.parts import WorkPlan, space_filling

    shape = ctx.open("smooth").shape
    order = space_filling(grid(shape))
    ctx.work.save(colour=np.array([colour(shape, block) for block in range(len(order))]))
    volume = ctx.open("smooth").array()[:]
    level = float(np.quantile(volume, cfg.threshold))
    rounds = [order, *([b for b in order if colour(shape, b) == c] for _ in range(cfg.sweeps) for c in range(8))]
    return WorkPlan(rounds, facts={"level": level})


def pick_block(ctx: Context, cfg: config.Pick, item: int) -> None:
    """Round 0: bright voxels of a block. Later: without those beside a brighter one of a neighbour."""
    import numpy as np
    from gigascope.toy import blocks

    shape = ctx.open("smooth").shape
    steps = ctx.solve("steps", blocks.Steps(float(item), cfg.steps, cfg.pause_s), what=f"block {item}")
    if ctx.work.round == 0:
        volume = ctx.kept("volume", lambda: ctx.open("smooth").array()[:])
        found = blocks.picked(volume, blocks.region(shape, item), ctx.work.facts["level"])
    else:
        assert ctx.work.opened["colour"][item] == (ctx.work.round - 1) % 8
        own = {name: array for name, array in ctx.work.read(item).items() if name != "steps"}
        found = blocks.thinned(own, [ctx.work.read(n) for n in blocks.neighbours(shape, item)])
    ctx.work.save(**found, steps=np.array([steps.value]))
    ctx.work.metrics["picked"] = len(found["values"])
    if item == 0 and ctx.work.round == 0:
        ctx.warn("block 0 was here")


@stage(
    "toy.pick",
    config.Pick,
    inputs={"smooth": Kind.STORE},
    outputs={"picks": Kind.TABLE, "counts": Kind.FILE},
    estimate=plan.estimate,
    scatter=Scatter(
        open_pick,
        pick_block,
        rounds=lambda cfg: 1 + 8 * cfg.sweeps,
        estimate=plan.estimate_job,
        threads=64,
        unit="block",
    ),
)
def pick(ctx: Context, cfg: config.Pick) -> None:
    """Write all picks, block by block."""
    import json

    import numpy as np

    found = [ctx.work.read(item) for item in ctx.work.items]
    places = np.concatenate([f["places"] for f in found])
    columns = {axis: places[:, i] for i, axis in enumerate("zyx")}
    ctx.write_table("picks", {**columns, "value": np.concatenate([f["values"] for f in found])})
    counts = {
        "picked": [ctx.work.metrics_of(item)["picked"] for item in ctx.work.items],
        "steps": [float(f["steps"][0]) for f in found],
        "warnings": ctx.warnings,
    }
    ctx.path("counts").write_text(json.dumps(counts))
