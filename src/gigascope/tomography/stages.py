"""The stages of the tomography chain: read, call, write. The science is in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.config import tomography as config
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
    from gigascope.tomography import ingest as raw
    from gigascope.tomography.series import write_facts
    from gigascope.tomography.signal_estimate import estimate_signal
    from gigascope.tomography.source import open_source

    if ctx.inputs_section.phantom is not None:
        stack, facts = raw.simulated(ctx.inputs_section.phantom, ctx.seed)
        shape, dtype, views = stack.shape, stack.dtype, stack
    else:
        source = open_source(ctx.inputs_section, cfg)
        facts = raw.facts_of(source, cfg)
        shape, dtype, views = source.shape, source.dtype, raw.checked_views(source, cfg.exclude)
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
    with LayerWriter(series.array, series.path) as pixels, LayerWriter(mask, series.path) as valid:
        for view in ctx.progress(views, what="reading", unit="view", total=shape[0]):
            pixels.append(view)
            valid.append(np.isfinite(view))
    model = estimate_signal(
        series.array,
        np.deg2rad(facts.tilt_deg),
        raw.signal_settings(cfg),
        tilt_axis=float(np.deg2rad(facts.tilt_axis_deg)),
        valid=mask,
    )
    write_facts(series, facts, model)
    for message in raw.warnings(model, facts):
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
    },
    estimate=plan.estimate_reconstruct,
    gpu=True,
)
def reconstruct(ctx: Context, cfg: config.Reconstruct) -> None:
    """Solve for the remaining shifts and the tomogram together, then reconstruct at full resolution."""


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
