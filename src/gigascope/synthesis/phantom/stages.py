"""The stage that makes phantoms: read, call, write. The science is in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.config import synthesis_phantoms as config
from gigascope.stage import Kind, Scatter, stage
from gigascope.synthesis.phantom import plan, source

if TYPE_CHECKING:
    from gigascope.runtime.context import Context
    from gigascope.runtime.parts import WorkPlan
    from gigascope.synthesis.prototypes.library import Library


def open_phantoms(ctx: Context, cfg: config.Phantoms) -> WorkPlan:
    """Every spheroid is one item; a mask is read once."""
    from gigascope.runtime.parts import WorkPlan
    from gigascope.store.create import create_store

    _libraries(ctx, cfg)  # refused now rather than in every part
    ctx.adopt("phantoms", create_store(ctx.scratch_path("phantoms")))
    if cfg.region.mask.path is not None:
        grid = source.read_mask(cfg.region.mask)
        ctx.work.save(mask=grid.values, mask_low=grid.low, mask_spacing=grid.spacing)
    return WorkPlan([range(cfg.n_spheroids)])


def place_spheroid(ctx: Context, cfg: config.Phantoms, item: int) -> None:
    """Place the nuclei of one spheroid."""
    from gigascope.synthesis.phantom.recipe import recipe_of
    from gigascope.synthesis.phantom.region import DistanceGrid
    from gigascope.synthesis.phantom.spheroid import build_spheroid, spheroid_seed

    seed = spheroid_seed(ctx.seed, item)
    settings = source.settings_of(cfg, seed)
    opened = ctx.work.opened
    mask = DistanceGrid(opened["mask"], opened["mask_low"], opened["mask_spacing"]) if "mask" in opened else None
    libraries = ctx.kept("libraries", lambda: _libraries(ctx, cfg))
    arrays, warnings = build_spheroid(recipe_of(settings), seed, settings, mask, libraries)
    for warning in warnings:
        ctx.warn(f"spheroid {item}: {warning}")
    ctx.work.save(**arrays)
    ctx.work.metrics["nuclei"] = len(arrays["nuclei.label_id"])


def _libraries(ctx: Context, cfg: config.Phantoms) -> dict[str, Library]:
    return source.open_libraries(cfg, ctx.open("prototypes") if ctx.has("prototypes") else None)


@stage(
    "synthesis.phantoms",
    config.Phantoms,
    inputs={},
    optional_inputs={"prototypes": Kind.STORE},
    outputs={"phantoms": Kind.STORE, "placed_nuclei": Kind.TABLE, "placed": Kind.PARQUET},
    estimate=plan.estimate_phantoms,
    scatter=Scatter(open_phantoms, place_spheroid, estimate=plan.estimate_phantoms_job, unit="spheroid"),
    files=source.named_files,
)
def phantoms(ctx: Context, cfg: config.Phantoms) -> None:
    """Place nuclei in spheroids, settle their contacts, and keep them as tables."""
    from gigascope.synthesis.phantom.records import all_crops
    from gigascope.synthesis.phantom.stored import all_nuclei, rounded, write_crops, write_phantom

    store = ctx.written("phantoms")
    found = []
    for item in ctx.work.items:
        arrays = ctx.work.read(item)
        facts = write_phantom(store, item, arrays)
        found.append((item, arrays))
        reached, clip = facts["volume_fraction"], 100 * facts["mean_clip"]
        ctx.log.info("spheroid %d: %d nuclei, %.3f of the volume, %.2f %% lost to others, %d iterations",
                     item, facts["n_nuclei"], reached, clip, facts["iterations"])  # fmt: skip
    write_crops(store, all_crops(_libraries(ctx, cfg)))
    store.attrs |= {"n_spheroids": len(found), "voxel_um": list(cfg.placement.voxel_um)}
    columns, units = all_nuclei(found)
    ctx.write_table("placed_nuclei", rounded(columns), units)
    ctx.write_parquet("placed", columns, units)
