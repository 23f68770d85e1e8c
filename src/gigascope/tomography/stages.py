"""The stages of the tomography chain: read, call, write. The science is in the modules beside this one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gigascope.config import tomography as config
from gigascope.errors import UserError
from gigascope.stage import Kind, Scatter, stage
from gigascope.tomography import plan
from gigascope.tomography.slabs import halves_rounds, reconstruct_rounds

if TYPE_CHECKING:
    from gigascope.runtime.context import Context
    from gigascope.runtime.parts import WorkPlan


@stage(
    "tomography.ingest",
    config.Ingest,
    inputs={},
    outputs={"tilt_series": Kind.STORE},
    estimate=plan.estimate_ingest,
    reads_inputs=True,
)
def ingest(ctx: Context, cfg: config.Ingest) -> None:
    """Read a tilt series (or simulate one), check it, keep it raw with angles, pixel size and flags."""
    import numpy as np

    from gigascope.store.layers import LayerWriter
    from gigascope.tomography import consistency
    from gigascope.tomography import ingest as raw
    from gigascope.tomography.series import write_facts
    from gigascope.tomography.signal_estimate import estimate_signal
    from gigascope.tomography.source import open_source

    views: Iterable[Any]
    if ctx.inputs_section.phantom is not None:
        views, facts = raw.simulated(ctx.inputs_section.phantom, ctx.seed)
        shape, dtype, exclude = views.shape, views.dtype, cfg.exclude
    else:
        source = open_source(ctx.inputs_section, cfg)
        exclude = raw.excluded_views(source, cfg)
        views, facts = raw.checked_views(source, exclude), raw.facts_of(source, cfg)
        shape, dtype = source.shape, source.dtype
    for note in facts.notes:
        ctx.log.info("%s", note)
    series = ctx.create(
        "tilt_series",
        shape=shape,
        dtype=dtype,
        axes=("tilt", "y", "x"),
        spacing={"y": facts.pixel_size_nm, "x": facts.pixel_size_nm},
        access="views",
    )
    mask = series.create_array("mask", shape, np.uint8, access="views")
    small = []
    with LayerWriter(series.array, series.path) as pixels, LayerWriter(mask, series.path) as valid:
        for view in ctx.progress(views, what="reading", unit="view", total=shape[0]):
            # values that are not finite are left in excluded views only
            finite = np.isfinite(view)
            view = np.where(finite, view, 0)
            pixels.append(view)
            valid.append(finite)
            small.append(consistency.thumbnail(view))
    tilt, axis = np.deg2rad(facts.tilt_deg), float(np.deg2rad(facts.tilt_axis_deg))
    model = estimate_signal(series.array, tilt, raw.signal_settings(cfg, exclude), tilt_axis=axis, valid=mask)
    write_facts(series, facts, model)
    for message in (*raw.warnings(model, facts), *consistency.doubts(small, model, tilt, axis)):
        ctx.warn(message)


@stage(
    "tomography.prealign",
    config.Prealign,
    inputs={"tilt_series": Kind.STORE},
    outputs={"prealigned": Kind.STORE, "shifts": Kind.TABLE, "xf": Kind.FILE},
    estimate=plan.estimate_prealign,
    gpu=True,
)
def prealign(ctx: Context, cfg: config.Prealign) -> None:
    """Find the image shifts to about two pixels by cross-correlation."""
    import numpy as np

    from gigascope.tomography import coarse, products
    from gigascope.tomography.series import Series

    found = coarse.coarse_alignment(Series(ctx.open("tilt_series")), cfg, ctx.device)
    series = found.series
    for message in found.notes:
        ctx.log.info("%s", message)
    if found.alignment.n_flagged:
        ctx.warn(f"{found.alignment.n_flagged} views correlate poorly; their shifts are interpolated from neighbours.")
    columns, units = products.shift_columns(series, found.alignment, peak=found.peak)
    views = found.views
    step = series.pixel_nm * found.bin
    aligned = ctx.create(
        "prealigned",
        shape=(views.shape[0], views.shape[2], views.shape[1]),
        dtype=np.float32,
        axes=("tilt", "y", "x"),
        spacing={"y": step, "x": step},
        access="views",
    )
    products.write_views(aligned, views, series)
    aligned.write_table("shifts", columns, units)
    aligned.write_table("tried", *products.tried_columns(series, found.tried))
    aligned.attrs |= found.describe()
    ctx.write_table("shifts", columns, units)
    products.write_xf_file(series, found.alignment, ctx.path("xf"))


def open_reconstruct(ctx: Context, cfg: config.Reconstruct) -> WorkPlan:
    """Solve for the remaining shifts on binned views, and lay out the tomogram."""
    import numpy as np

    from gigascope.runtime.parts import WorkPlan
    from gigascope.tomography import products
    from gigascope.tomography.series import Refinement, Series
    from gigascope.tomography.tomogram import Tomography

    series = Series(ctx.open("tilt_series"), Refinement.of(ctx.open("prealigned").attrs))
    start = products.read_shifts(ctx.open("prealigned").table("shifts"), series.order)
    solve = Tomography(series, start, cfg, ctx.device)
    for message in solve.remarks():
        ctx.warn(message)
    if cfg.align.enabled:
        solve.accept(ctx.solve("joint", solve.joint_solver(), what="joint alignment", total=solve.n_updates))
    if (constants := solve.constants_solver()) is not None:
        solve.accept_constants(ctx.solve("constants", constants, what="constants of the views"))
    z, x, y = solve.layout.shape(cfg.bin)
    step = series.pixel_nm
    written = ctx.create(
        "tomogram",
        shape=(z, y, x),
        dtype=np.float32,
        axes=("z", "y", "x"),
        spacing={"z": step * cfg.bin * cfg.hz, "y": step * cfg.bin, "x": step * cfg.bin},
        access="slabs",
    )
    written.write_table("shifts", *products.joint_columns(series, solve.alignment))
    written.write_table("offsets", {"offset": series.in_file_order(solve.alignment.offsets)})
    written.attrs |= solve.describe()
    n_s, n_y = solve.layout.frame
    image: dict[str, Any] = {"axes": ("tilt", "y", "x"), "spacing": {"y": step, "x": step}}
    stack = ctx.create("aligned", shape=(len(series.order), n_y, n_s), dtype=np.float32, **image, access="views")
    rounds = solve.rounds()
    views = rounds.create(ctx.work, {"tomogram": solve.start()})
    means = solve.write_views(stack, views, ctx.scratch, lambda k: ctx.progress(k, what="aligning", unit="view"))
    ctx.work.save(**solve.kept(means))
    for message in solve.warnings():
        ctx.warn(message)
    return WorkPlan(rounds.items(reconstruct_rounds(cfg), written.plan))


def reconstruct_slab(ctx: Context, cfg: config.Reconstruct, item: int) -> None:
    """A round of iterations of one slab, or one block of the tomogram."""
    solve = ctx.kept("solve", lambda: _opened_tomography(ctx, cfg))
    rounds = ctx.kept("rounds", solve.rounds)
    if ctx.work.round + 1 == reconstruct_rounds(cfg):
        rounds.write(ctx.work, item, ctx.work.array("tomogram"), solve.series.model.scale / cfg.bin)
    else:
        rounds.iterate(ctx.work, item, _solving(ctx), lambda: ctx.checkpoints.out_of_time)


def _opened_tomography(ctx: Context, cfg: config.Reconstruct) -> Any:
    """The reconstruction as the open job left it."""
    from gigascope.tomography.series import Refinement, Series
    from gigascope.tomography.tomogram import Tomography

    series = Series(ctx.open("tilt_series"), Refinement.of(ctx.open("prealigned").attrs))
    return Tomography.again(series, ctx.work.opened, cfg, ctx.device)


def _solving(ctx: Context) -> Any:
    return lambda name, solver: ctx.solve(name, solver, what=f"reconstruction, {name}")


@stage(
    "tomography.reconstruct",
    config.Reconstruct,
    inputs={"tilt_series": Kind.STORE, "prealigned": Kind.STORE},
    outputs={
        "tomogram": Kind.STORE,
        "aligned": Kind.STORE,
        "shifts": Kind.TABLE,
        "history": Kind.TABLE,
        "xf": Kind.FILE,
        "tlt": Kind.FILE,
        "aln": Kind.FILE,
        "json": Kind.FILE,
        "newst": Kind.FILE,
        "tilt": Kind.FILE,
    },
    estimate=plan.estimate_reconstruct,
    gpu=True,
    scatter=Scatter(
        open_reconstruct,
        reconstruct_slab,
        rounds=reconstruct_rounds,
        estimate=plan.estimate_reconstruct_job,
        threads=plan.SLAB_THREADS,
        unit="slab",
    ),
)
def reconstruct(ctx: Context, cfg: config.Reconstruct) -> None:
    """Solve for the remaining shifts and the tomogram together, then reconstruct at full resolution."""
    from gigascope.tomography import products

    solve = _opened_tomography(ctx, cfg)
    ctx.write_table("shifts", *products.joint_columns(solve.series, solve.alignment))
    ctx.write_table("history", *solve.history(solve.rounds().looks(ctx.work, "tomogram").history))
    formats = {name: ctx.path(name) for name in ("xf", "tlt", "aln", "json", "newst", "tilt")}
    products.write_interchange(solve.series, solve.alignment, solve.layout, cfg.bin, formats)


def open_halves(ctx: Context, cfg: config.Halves) -> WorkPlan:
    """Find the constants of the views, and lay out the half tomograms."""
    import numpy as np

    from gigascope.runtime.parts import WorkPlan
    from gigascope.tomography.half_sets import NAMES

    if not cfg.enabled:
        raise UserError("halves.enabled is false.", where="tomography.halves", do="Set it to true to run this stage.")
    halves = _half_sets(ctx, cfg)
    z, x, y = halves.shape
    step = halves.series.pixel_nm * halves.bin
    written = ctx.create(
        "halves",
        shape=(2, z, y, x),
        dtype=np.float32,
        axes=("c", "z", "y", "x"),
        spacing={"z": step * halves.layout.hz, "y": step, "x": step},
        access="slabs",
    )
    written.attrs |= {"bin": halves.bin, "channels": [f"{name} views" for name in NAMES]}
    found = {}
    for half, name in enumerate(NAMES):
        if (solver := halves.constants_solver(half)) is not None:
            solver = ctx.solve(f"constants_{name}", solver, what=f"constants of the {name} views")
            found[f"{name}_constants"] = solver.offsets.cpu().numpy()
    rounds = halves.rounds(found)
    found |= halves.write_views(
        rounds.create(ctx.work), ctx.scratch, lambda k: ctx.progress(k, what="aligning", unit="view")
    )
    ctx.work.save(**found)
    return WorkPlan(rounds.items(halves_rounds(cfg), written.plan))


def half_slab(ctx: Context, cfg: config.Halves, item: int) -> None:
    """A round of iterations of one slab of one half, or one block of its tomogram."""
    halves = ctx.kept("halves", lambda: _half_sets(ctx, cfg))
    rounds = ctx.kept("rounds", lambda: halves.rounds(ctx.work.opened))
    if ctx.work.round + 1 == halves_rounds(cfg):
        rounds.write(ctx.work, item, ctx.work.array("halves"), halves.series.model.scale / halves.bin)
    else:
        rounds.iterate(ctx.work, item, _solving(ctx), lambda: ctx.checkpoints.out_of_time)


def _half_sets(ctx: Context, cfg: config.Halves) -> Any:
    from gigascope.tomography.half_sets import HalfSets
    from gigascope.tomography.series import Refinement, Series

    tomogram = ctx.open("tomogram")
    settings = config.Reconstruct.model_validate(tomogram.attrs["reconstruct"])
    series = Series(ctx.open("tilt_series"), Refinement.of(tomogram.attrs))
    return HalfSets(series, tomogram, settings, cfg, ctx.device)


@stage(
    "tomography.halves",
    config.Halves,
    inputs={"tilt_series": Kind.STORE, "tomogram": Kind.STORE},
    outputs={"halves": Kind.STORE},
    estimate=plan.estimate_halves,
    gpu=True,
    scatter=Scatter(
        open_halves,
        half_slab,
        rounds=halves_rounds,
        estimate=plan.estimate_halves_job,
        threads=plan.SLAB_THREADS,
        unit="slab",
    ),
)
def halves(ctx: Context, cfg: config.Halves) -> None:
    """Reconstruct the even and the odd views apart, with the shifts and settings of the tomogram."""


@stage(
    "tomography.evaluate",
    config.Evaluate,
    inputs={"tilt_series": Kind.STORE, "prealigned": Kind.STORE, "tomogram": Kind.STORE},
    optional_inputs={"halves": Kind.STORE},
    outputs={"metrics": Kind.FILE, "fsc": Kind.TABLE, "frc_views": Kind.TABLE},
    estimate=plan.estimate_evaluate,
    gpu=True,
)
def evaluate(ctx: Context, cfg: config.Evaluate) -> None:
    """Measure residuals, FRC and FSC, and with known truth the error of the shifts in pixels."""
    import json

    from gigascope.tomography.quality import Quality
    from gigascope.tomography.series import Refinement, Series

    tomogram = ctx.open("tomogram")
    series = Series(ctx.open("tilt_series"), Refinement.of(tomogram.attrs))
    settings = config.Reconstruct.model_validate(tomogram.attrs["reconstruct"])
    quality = Quality(series, ctx.open("prealigned"), tomogram, settings, cfg, ctx.device)
    found = {
        name: quality.predict(alignment)
        for name, alignment in ctx.progress(
            (quality.alignments | quality.others).items(), what="comparing alignments", unit="alignment"
        )
    }
    compared = {name: found[name] for name in quality.alignments}
    halves = quality.half_curve(ctx.open("halves")) if ctx.has("halves") else None
    ctx.write_table("frc_views", *quality.view_table(compared))
    ctx.write_table("fsc", *quality.shell_table(compared, halves))
    text = json.dumps(quality.metrics(found, halves), indent=2, ensure_ascii=False)
    ctx.path("metrics").write_text(text + "\n", encoding="utf-8")
