"""The stages of the compression chain: read, call, write. The science is in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gigascope.compression import plan
from gigascope.config import compression as config
from gigascope.stage import Kind, stage

if TYPE_CHECKING:
    from gigascope.runtime.context import Context


@stage(
    "compression.ingest",
    config.Ingest,
    inputs={},
    outputs={"volume": Kind.STORE},
    estimate=plan.estimate_ingest,
    reads_inputs=True,
)
def ingest(ctx: Context, cfg: config.Ingest) -> None:
    """Read a volume (or simulate one) plane by plane, with background, noise model and statistics of its cells."""
    import numpy as np

    from gigascope.compression import ingest as raw
    from gigascope.compression.source import open_source

    source, clean = open_source(ctx.inputs_section, cfg, ctx.seed)
    for note in source.notes:
        ctx.log.info("%s", note)
    axes = raw.kept_axes(source.shape)
    image: dict[str, Any] = {"axes": tuple(axes), "shape": tuple(axes.values()), "dtype": source.dtype}
    volume = ctx.create("volume", **image, spacing=dict(zip("zyx", source.voxel_size_um)), unit="micrometer")
    truth = None if clean is None else volume.create_array("clean", volume.shape, np.float32)
    facts, depth = raw.VolumeFacts(source), volume.plan.shards[-3]
    slabs = raw.slabs(source, depth, cfg.not_finite)
    for slab in ctx.progress(slabs, what="reading", unit="slab", total=raw.n_slabs(source.shape, depth)):
        here: tuple[Any, ...] = (*raw.place(source.shape, slab.t, slab.c), slice(slab.z0, slab.z1))
        volume[here] = slab.voxels
        if truth is not None and clean is not None:
            truth[here] = clean[slab.z0 : slab.z1]
        facts.add(slab)
    for message in raw.warnings(facts.frames, source):
        ctx.warn(message)
    background = raw.background_array(facts.frames, source.shape)
    volume.create_array("background", background.shape, np.float32)[:] = background
    volume.write_table("cells", *raw.cell_table(facts.frames))
    volume.attrs |= raw.attributes(facts, source)


@stage(
    "compression.gate",
    config.Gate,
    inputs={"volume": Kind.STORE},
    outputs={"gate": Kind.STORE},
    estimate=plan.estimate_gate,
    gpu=True,
)
def gate(ctx: Context, cfg: config.Gate) -> None:
    """Find the voxels that hold signal."""
    raise RuntimeError("not yet")
