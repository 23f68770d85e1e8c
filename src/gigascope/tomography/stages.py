"""The stages of the tomography chain: read, call, write. The science is in the modules beside this one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gigascope.config import tomography as config
from gigascope.errors import UserError
from gigascope.stage import Kind, stage
from gigascope.tomography import plan

if TYPE_CHECKING:
    from gigascope.runtime.context import Context


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

    series = Series(ctx.open("tilt_series"))
    found = coarse.coarse_alignment(series, cfg, ctx.device)
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
    aligned.attrs |= {"bin": found.bin, "method": found.method, "residuals": found.residuals}
    ctx.write_table("shifts", columns, units)
    products.write_xf_file(series, found.alignment, ctx.path("xf"))


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
)
def reconstruct(ctx: Context, cfg: config.Reconstruct) -> None:
    """Solve for the remaining shifts and the tomogram together, then reconstruct at full resolution."""
    import numpy as np

    from gigascope.tomography import products
    from gigascope.tomography.series import Series
    from gigascope.tomography.tomogram import Tomography

    series = Series(ctx.open("tilt_series"))
    start = products.read_shifts(ctx.open("prealigned").table("shifts"), series.order)
    solve = Tomography(series, start, cfg, ctx.device)
    for message in solve.remarks():
        ctx.warn(message)
    if cfg.align.enabled:
        solve.accept(ctx.solve("joint", solve.joint_solver(), what="joint alignment", total=solve.n_updates))
    if cfg.method == "tv":
        ctx.solve("tomogram", solve.tomogram_solver(), what="reconstruction", total=solve.n_looks)
    sizes = solve.layout.shape(cfg.bin)
    step = series.pixel_nm * cfg.bin
    written = ctx.create(
        "tomogram",
        shape=(sizes[0], sizes[2], sizes[1]),
        dtype=np.float32,
        axes=("z", "y", "x"),
        spacing={"z": step * cfg.hz, "y": step, "x": step},
    )
    products.write_volume(written, solve.volume(), series.model.scale / cfg.bin)
    columns, units = products.joint_columns(series, solve.alignment)
    written.write_table("shifts", columns, units)
    written.write_table("offsets", {"offset": series.in_file_order(solve.alignment.offsets)})
    written.attrs |= solve.describe()
    ctx.write_table("shifts", columns, units)
    ctx.write_table("history", *solve.history())
    views = solve.aligned_views()
    stack = ctx.create(
        "aligned",
        shape=(views.shape[0], views.shape[2], views.shape[1]),
        dtype=np.float32,
        axes=("tilt", "y", "x"),
        spacing={"y": series.pixel_nm, "x": series.pixel_nm},
        access="views",
    )
    products.write_views(stack, views, series)
    formats = {name: ctx.path(name) for name in ("xf", "tlt", "aln", "json", "newst", "tilt")}
    products.write_interchange(series, solve.alignment, solve.layout, cfg.bin, formats)
    for message in solve.warnings():
        ctx.warn(message)


@stage(
    "tomography.halves",
    config.Halves,
    inputs={"tilt_series": Kind.STORE, "tomogram": Kind.STORE},
    outputs={"halves": Kind.STORE},
    estimate=plan.estimate_halves,
    gpu=True,
)
def halves(ctx: Context, cfg: config.Halves) -> None:
    """Reconstruct the even and the odd views apart, with the shifts and settings of the tomogram."""
    import numpy as np

    from gigascope.tomography import products
    from gigascope.tomography.half_sets import HalfSets
    from gigascope.tomography.series import Series

    if not cfg.enabled:
        raise UserError("halves.enabled is false.", where="tomography.halves", do="Set it to true to run this stage.")
    series = Series(ctx.open("tilt_series"))
    tomogram = ctx.open("tomogram")
    settings = config.Reconstruct.model_validate(tomogram.attrs["reconstruct"])
    halves = HalfSets(series, tomogram, settings, cfg.bin, ctx.device)
    z, x, y = halves.shape
    step = series.pixel_nm * halves.bin
    written = ctx.create(
        "halves",
        shape=(2, z, y, x),
        dtype=np.float32,
        axes=("c", "z", "y", "x"),
        spacing={"z": step * halves.layout.hz, "y": step, "x": step},
    )
    for half, name in enumerate(("even views", "odd views")):
        solver = halves.solver(half)
        if solver is not None:
            ctx.solve(f"half_{half}", solver, what=name, total=halves.n_looks)
        products.write_volume(written, halves.volume(half, solver), series.model.scale / halves.bin, channel=half)
    written.attrs |= {"bin": halves.bin, "channels": ["even views", "odd views"]}


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
    from gigascope.tomography.series import Series

    series = Series(ctx.open("tilt_series"))
    tomogram = ctx.open("tomogram")
    settings = config.Reconstruct.model_validate(tomogram.attrs["reconstruct"])
    quality = Quality(series, ctx.open("prealigned"), tomogram, settings, cfg, ctx.device)
    found = {
        name: quality.predict(alignment)
        for name, alignment in ctx.progress(quality.alignments.items(), what="comparing alignments", unit="alignment")
    }
    halves = quality.half_curve(ctx.open("halves")) if ctx.has("halves") else None
    ctx.write_table("frc_views", *quality.view_table(found))
    ctx.write_table("fsc", *quality.shell_table(found, halves))
    text = json.dumps(quality.metrics(found, halves), indent=2, ensure_ascii=False)
    ctx.path("metrics").write_text(text + "\n", encoding="utf-8")
