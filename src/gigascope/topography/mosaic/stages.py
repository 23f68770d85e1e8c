"""The stages of the topography chain that put views together: read, call, write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gigascope.config import topography as config
from gigascope.stage import Kind, Scatter, stage
from gigascope.topography.mosaic import plan

if TYPE_CHECKING:
    from gigascope.runtime.context import Context
    from gigascope.runtime.parts import WorkPlan


def open_mosaic(ctx: Context, cfg: config.Mosaic) -> WorkPlan:
    """Look at all views, lay out the mosaic."""
    import numpy as np

    from gigascope.runtime.parts import WorkPlan, space_filling
    from gigascope.topography.geometry.candidates import CELL
    from gigascope.topography.mosaic import layout, stored

    views, stacks = _mosaic_views(ctx), _stacks(ctx)
    names, facts = layout.channel_names(views.n_colours), stored.attributes(views, stacks)
    cut, pixel = layout.mosaic_plan(views.shape, views.n_colours, cfg.tile), stored.pixel_um(views)
    spacing = {} if pixel is None else {"y": pixel, "x": pixel}
    image: dict[str, Any] = {"shape": cut.shape, "dtype": np.float32, "axes": ("c", "y", "x"), "spacing": spacing}
    shown = layout.channels(names, facts["white"])
    written = ctx.create("mosaic", **image, unit="micrometer", plan=cut, channels=shown, allow_nan=True)
    written.attrs |= {"channels": names, **facts}
    tiles = space_filling(cut.grid[1:])
    rounds = [[0] if name == "solve" else tiles for name in layout.ROUNDS[cfg.refine]]
    work = layout.tile_work(cut, views.candidates.coverage, CELL)
    return WorkPlan(rounds, weights=work, facts={"white": facts["white"]})


def mosaic_tile(ctx: Context, cfg: config.Mosaic, item: int) -> None:
    """One tile of the mosaic; before that, where it is asked for, how far its views disagree."""
    from gigascope.topography.mosaic import layout, offsets
    from gigascope.topography.mosaic.tile import Blending, blend_tile

    written = ctx.work.array("mosaic")
    name = layout.ROUNDS[cfg.refine][ctx.work.round]
    if name == "solve":
        views = ctx.kept("views as they are", lambda: _mosaic_views(ctx))
        pairs = offsets.from_arrays(ctx.work.read(tile, 0) for tile in range(written.n_shards))
        found = offsets.solve(pairs, len(views.present), views.dz, cfg.refine)
        ctx.work.save(terms=found.terms)
        ctx.work.metrics |= {"before": found.before, "after": found.after, "overlaps": found.n_pairs}
        return
    _, rows, cols = written.region(item)
    start, shape = (rows.start, cols.start), (rows.stop - rows.start, cols.stop - cols.start)
    if name == "pair":
        views = ctx.kept("views as they are", lambda: _mosaic_views(ctx))
        ctx.work.save(**offsets.to_arrays(offsets.tile_pairs(views, start, shape)))
        return
    terms = None if cfg.refine == "none" else ctx.work.read(0, 1)["terms"]
    views = ctx.kept("views", lambda: _mosaic_views(ctx, terms))
    how = Blending(
        mode=cfg.blend,
        sampling=cfg.sampling,
        depth=cfg.clear_dz if cfg.blend != "splat_uniform" else None,
        feather=cfg.feather_px or layout.feather_of(views.calibration.instrument.size),
        epsilon=cfg.epsilon,
        gate=cfg.gate,
        least_gate=cfg.gate_floor_dz,
        band=cfg.band_px,
        margin=cfg.margin_px,
        white=ctx.work.facts["white"],
    )
    block = blend_tile(views, start, shape, how, ctx.device)
    written[:, rows, cols] = block
    ctx.work.metrics |= layout.tile_facts(block, views.n_colours)


def _stacks(ctx: Context) -> Any:
    """The store of the z-stacks, in the order of focus where they had to be put into it."""
    return ctx.open("registered" if ctx.has("registered") else "raw")


def _mosaic_views(ctx: Context, offsets: Any = None) -> Any:
    from gigascope.topography.mosaic.stored import open_views

    return open_views(ctx.open("views"), ctx.open("calibration"), _stacks(ctx), offsets)


@stage(
    "topography.mosaic",
    config.Mosaic,
    inputs={"raw": Kind.STORE, "calibration": Kind.STORE, "views": Kind.STORE},
    optional_inputs={"registered": Kind.STORE},
    outputs={"mosaic": Kind.STORE},
    estimate=plan.estimate_mosaic,
    gpu=True,
    scatter=Scatter(
        open_mosaic,
        mosaic_tile,
        rounds=plan.mosaic_rounds,
        estimate=plan.estimate_mosaic_job,
        gpu=("part",),
        unit="tile",
    ),
)
def mosaic(ctx: Context, cfg: config.Mosaic) -> None:
    """Put all views together: colours, heights and their spread, tile by tile, with a pyramid to look at them."""
    from gigascope.topography.mosaic import layout

    written = ctx.written("mosaic")
    rounds = layout.ROUNDS[cfg.refine]
    tiles = [ctx.work.metrics_of(item, len(rounds) - 1) for item in range(written.plan.n_shards)]
    written.attrs |= {"blend": cfg.blend, "refine": cfg.refine, **layout.mosaic_facts(tiles)}
    if cfg.refine != "none":
        found = ctx.work.metrics_of(0, 1)
        written.attrs["refined"] = found
        written.write_table("offsets", dict(zip(("offset", "along_x", "along_y"), ctx.work.read(0, 1)["terms"].T)))
        text = "heights in %d overlaps differ by %.3g rms (%s), %.3g before they were refined"
        ctx.log.info(text, found["overlaps"], found["after"], written.attrs["height_unit"], found["before"])
    text = "%.2f %% of the mosaic is covered, by %.1f views"
    ctx.log.info(text, 100 * written.attrs["covered"], written.attrs["views_per_pixel"])


@stage(
    "topography.tiff",
    config.Tiff,
    inputs={"mosaic": Kind.STORE},
    outputs={"colour_tiff": Kind.FILE, "height_tiff": Kind.FILE},
    estimate=plan.estimate_tiff,
)
def tiff(ctx: Context, cfg: config.Tiff) -> None:
    """Write colours and heights of the mosaic as TIFF, tile by tile, with their pyramids."""
    from gigascope.topography.mosaic.tiff import write_picture

    for name, picture in (("colour_tiff", "colour"), ("height_tiff", "height")):
        path = ctx.path(name)
        write_picture(path, ctx.open("mosaic"), picture, lambda t, p=picture: ctx.progress(t, what=p, unit="tile"))  # type: ignore[arg-type, misc]
        ctx.log.info("%s: %.1f MB", path.name, path.stat().st_size / 1e6)


@stage(
    "topography.mesh",
    config.Mesh,
    inputs={"mosaic": Kind.STORE},
    outputs={"mesh": Kind.FILE},
    estimate=plan.estimate_mesh,
)
def mesh(ctx: Context, cfg: config.Mesh) -> None:
    """Write the height map as a surface of triangles."""
    from gigascope.topography.mosaic.mesh import comments_of, surface_of, write_ply

    found = surface_of(ctx.open("mosaic"), cfg.vertices)
    write_ply(ctx.path("mesh"), found, comments_of(ctx.open("mosaic")))
    ctx.log.info("%d vertices, %d triangles", len(found.vertices), len(found.faces))
