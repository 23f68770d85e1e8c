"""The stage that takes prototypes out of labelled images: read, call, write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.config import synthesis_domain as config
from gigascope.stage import Kind, stage
from gigascope.synthesis.prototypes import plan

if TYPE_CHECKING:
    from gigascope.runtime.context import Context


@stage(
    "synthesis.prototypes",
    config.Prototypes,
    inputs={"real": Kind.STORE},
    outputs={"prototypes": Kind.STORE},
    estimate=plan.estimate_prototypes,
)
def prototypes(ctx: Context, cfg: config.Prototypes) -> None:
    """Take shapes and textures of nuclei out of the labelled real images."""
    import numpy as np

    from gigascope.store.create import create_store
    from gigascope.synthesis.domain.stored import labelled_images
    from gigascope.synthesis.prototypes.extraction import Rules, extract
    from gigascope.synthesis.prototypes.library import write_library
    from gigascope.synthesis.prototypes.remarks import remarks, require_labels, require_nuclei

    real = ctx.open("real")
    names = labelled_images(real)
    require_labels(names, real)
    rules = Rules(cfg.margin_um, cfg.min_voxels, cfg.max_residual, cfg.max_hidden, cfg.texture)
    found, sources = {}, {}
    for name in ctx.progress(names, what="describing nuclei", unit="image"):
        image = real.image(name)
        size = (image.spacing["z"], image.spacing["y"], image.spacing["x"])
        voxels, labels = np.asarray(image.array()[:]), np.asarray(image.label("nuclei")[:])
        found[name] = extract(voxels, labels, size, rules)
        sources[name] = {"path": image.attrs["source"], "voxel_size_um": list(size)}
        for remark in remarks(found[name]):
            ctx.warn(f"{name}: {remark}")
    require_nuclei(found, real)
    store = create_store(ctx.scratch_path("prototypes"))
    write_library(store, found, sources)
    ctx.adopt("prototypes", store)
