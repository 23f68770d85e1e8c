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
    if ctx.inputs_section.planted is not None:
        _plant(ctx, ctx.inputs_section.planted)
        return
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
            ctx.warn(f"{source.name} ({name}): {remark}")
    for remark in remark_differences(store):
        ctx.warn(remark)


def _plant(ctx: Context, planted: config.Planted) -> None:
    """Simulate the images of domain A instead."""
    import torch

    from gigascope.config.synthesis_phantoms import Phantoms
    from gigascope.config.synthesis_simulate import Simulate
    from gigascope.synthesis.domain.planted import Gap, planted_image
    from gigascope.synthesis.domain.stored import write_planted
    from gigascope.synthesis.phantom import source as phantom
    from gigascope.synthesis.phantom.spheroid import spheroid_seed
    from gigascope.synthesis.seeds import seed_of
    from gigascope.synthesis.simulation.stages import resolved

    store = ctx.create_ensemble("real")
    of_phantoms, of_images = planted.phantoms or Phantoms(), planted.simulate or Simulate()
    gap = Gap(**{name: getattr(planted, name) for name in Gap.__dataclass_fields__})
    # reading files needs no GPU, so that the stage asks for none
    seed, cpu = seed_of(ctx.seed, "planted"), torch.device("cpu")
    mask = None if of_phantoms.region.mask.path is None else phantom.read_mask(of_phantoms.region.mask)
    for number in ctx.progress(range(planted.images), what="simulating domain A", unit="image"):
        placed = phantom.settings_of(of_phantoms, spheroid_seed(seed, number))
        image = planted_image(number, seed, placed, resolved(of_images, seed, number), gap, cpu, mask)
        use = "train" if number < planted.images - planted.kept_out else "inference"
        name = write_planted(store, image, use)
        for warning in image.warnings:
            ctx.warn(f"{name}: {warning}")
    store.attrs["planted"] = True
