"""The stage that reads the real images: read, call, write. The science is in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.config import synthesis_domain as config
from gigascope.stage import Kind, stage
from gigascope.synthesis.domain import plan

if TYPE_CHECKING:
    from gigascope.runtime.context import Context


@stage(
    "synthesis.ingest",
    config.Ingest,
    inputs={},
    outputs={"real": Kind.STORE},
    estimate=plan.estimate_ingest,
    reads_inputs=True,
)
def ingest(ctx: Context, cfg: config.Ingest) -> None:
    """Read real images with their labels, check and mend them, and keep them in one store."""
    from gigascope.synthesis.domain.image import read_image
    from gigascope.synthesis.domain.source import open_sources
    from gigascope.synthesis.domain.stored import remark_differences, write_image

    sources = open_sources(ctx.inputs_section, cfg)
    store = ctx.create_ensemble("real")
    for source in ctx.progress(sources, what="reading", unit="image"):
        image = read_image(source, cfg.output_voxel_um, cfg.min_label_voxels)
        name = write_image(store, source, image)
        ctx.log.info("%s: %s, voxel size from %s", name, source.image.path, source.voxel_from)
        for note in source.image.notes:
            ctx.log.info("%s: %s", name, note)
        for remark in image.remarks:
            ctx.warn(f"{source.image.path.name} ({name}): {remark}")
    for remark in remark_differences(store):
        ctx.warn(remark)
