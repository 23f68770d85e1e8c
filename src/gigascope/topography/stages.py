"""The stages of the topography chain: read, call, write. The science is in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gigascope.config import topography as config
from gigascope.stage import Kind, Scatter, stage
from gigascope.topography import plan

if TYPE_CHECKING:
    from gigascope.runtime.context import Context
    from gigascope.runtime.parts import WorkPlan


def open_synth(ctx: Context, cfg: config.Synth) -> WorkPlan:
    """Mount the instrument, lay out its captures and the truth."""
    from gigascope.runtime.parts import WorkPlan
    from gigascope.store.create import create_store
    from gigascope.topography import synth as science

    instrument = _instrument(ctx)
    stores = {name: create_store(ctx.scratch_path(name)) for name in ("sample", "target", "truth")}
    science.lay_out_captures(stores["sample"], stores["target"], instrument)
    science.lay_out_truth(stores["truth"], instrument)
    for name, store in stores.items():
        ctx.adopt(name, store)
    return WorkPlan([range(instrument.size.n_views + len(science.tiles(instrument.truth.mosaic_shape)))])


def synth_item(ctx: Context, cfg: config.Synth, item: int) -> None:
    """Simulate one view of specimen and target, or take down the truth of one tile of the mosaic."""
    from gigascope.topography import synth as science
    from gigascope.topography.capture.stored import IMAGES

    instrument = ctx.kept("instrument", lambda: _instrument(ctx))
    if item >= instrument.size.n_views:
        region = science.tiles(instrument.truth.mosaic_shape)[item - instrument.size.n_views]
        for name, block in science.tile_truth(instrument, region).items():
            ctx.work.array("truth", name)[(..., *region)] = block
        return
    row, col = divmod(item, instrument.size.views[1])
    captures = {"sample": instrument.capture, "target": instrument.flat_capture}
    for name, capture in captures.items():
        ctx.work.array(name, IMAGES)[row, col] = capture.read(row, col)[None, None]
    for name, block in science.view_truth(instrument, row, col).items():
        ctx.work.array("truth", name)[row, col] = block[None, None]


def _instrument(ctx: Context) -> Any:
    from gigascope.topography.synth import build_instrument

    return build_instrument(ctx.inputs_section.instrument, ctx.seed)


@stage(
    "topography.synth",
    config.Synth,
    inputs={},
    outputs={"sample": Kind.STORE, "target": Kind.STORE, "truth": Kind.STORE},
    estimate=plan.estimate_synth,
    reads_inputs=True,
    scatter=Scatter(open_synth, synth_item, estimate=plan.estimate_synth_job, unit="view"),
)
def synth(ctx: Context, cfg: config.Synth) -> None:
    """Simulate the instrument's views of a specimen and of its flat target, and keep the truth."""
    for name in ("sample", "target"):
        ctx.log.info("%s: %s", name, ctx.written(name).attrs)


def open_ingest(ctx: Context, cfg: config.Ingest) -> WorkPlan:
    """Open all files, refuse what does not belong together, lay out the arrays."""
    from gigascope.runtime.parts import WorkPlan
    from gigascope.store.create import create_store
    from gigascope.topography import ingest as science
    from gigascope.topography.colour_sites import refuse_wrong_pattern

    acquired = _acquisition(ctx, cfg)
    sample, flat = acquired.sample, acquired.flat
    for capture in filter(None, (sample, flat)):
        refuse_wrong_pattern(capture)
    for note in (*sample.notes, *(flat.notes if flat is not None else ())):
        ctx.log.info("%s", note)
    for message in (*sample.warnings, *(flat.warnings if flat is not None else ())):
        ctx.warn(message)
    store = create_store(ctx.scratch_path("raw"))
    ctx.adopt("raw", store)
    science.lay_out(store, sample, cfg.chunk_px, cfg.codec)
    facts: dict[str, Any] = {"stage_up": acquired.stage_up, "optics": acquired.optics}
    store.attrs |= {**science.attributes(sample, **facts), "sensor": acquired.sensor, "flat": None}
    if flat is not None:
        science.lay_out(store, flat, cfg.chunk_px, cfg.codec, flat=True)
        store.attrs["flat"] = science.attributes(flat, **facts)
    n_views = [c.shape[0] * c.shape[1] for c in (sample, flat) if c is not None]
    n_z = [c.shape[2] for c in (sample, flat) if c is not None]
    weights = [float(n) for n, count in zip(n_z, n_views) for _ in range(count)]
    return WorkPlan([range(sum(n_views))] * science.ROUNDS[cfg.verify], weights=weights)


def ingest_view(ctx: Context, cfg: config.Ingest, item: int) -> None:
    """Read one view and write it; in a second round, read it again and compare."""
    import time

    from gigascope.topography import ingest as science
    from gigascope.topography.colour_sites import sites_of
    from gigascope.topography.slices import slice_numbers

    acquired = ctx.kept("acquisition", lambda: _acquisition(ctx, cfg))
    capture, number, before = acquired.sample, item, ""
    n_views = capture.shape[0] * capture.shape[1]
    if item >= n_views:
        capture, number, before = acquired.flat, item - n_views, science.FLAT
    row, col = divmod(number, capture.shape[1])
    begun = time.monotonic()
    stack = capture.read(row, col)
    found = science.arrays_of(stack, capture, colour=not before)
    for name in list(found):
        array, block = ctx.work.array("raw", before + name), found.pop(name)
        if ctx.work.round > 0:
            science.refuse_difference(array, (row, col), block, f"{capture.name(row, col)}: {before}{name}")
            continue
        array[row, col] = block[None, None]
    if ctx.work.round == 0 and capture.present[row, col]:
        ctx.work.metrics["facts"] = science.metrics_of(science.view_facts(stack))
        ctx.work.metrics |= {"slices": slice_numbers(stack), "sites": sites_of(stack, capture)}
    megabytes, seconds = stack.nbytes / 1e6, time.monotonic() - begun
    ctx.work.metrics |= {"MB": megabytes, "MB/s": megabytes / max(1e-9, seconds)}


def _acquisition(ctx: Context, cfg: config.Ingest) -> Any:
    from gigascope.topography.source import open_acquisition

    simulated = {name: ctx.open(name) if ctx.has(name) else None for name in ("sample", "target")}
    return open_acquisition(ctx.inputs_section, cfg, **simulated)


@stage(
    "topography.ingest",
    config.Ingest,
    inputs={},
    optional_inputs={"sample": Kind.STORE, "target": Kind.STORE},
    outputs={"raw": Kind.STORE},
    estimate=plan.estimate_ingest,
    reads_inputs=True,
    scatter=Scatter(
        open_ingest,
        ingest_view,
        rounds=plan.ingest_rounds,
        estimate=plan.estimate_ingest_job,
        threads=2,
        at_once=lambda cfg, device: cfg.readers,
        unit="view",
    ),
)
def ingest(ctx: Context, cfg: config.Ingest) -> None:
    """Read z-stacks view by view into shards, green apart, verified, with what is wrong with them said."""
    from gigascope.topography import ingest as science
    from gigascope.topography.colour_sites import mosaic_warnings, refuse_other_camera
    from gigascope.topography.slices import LOST, lost_of, slice_warnings

    acquired = _acquisition(ctx, cfg)
    store = ctx.written("raw")
    first = 0
    for capture, before in ((acquired.sample, ""), (acquired.flat, science.FLAT)):
        if capture is None:
            continue
        views = {(n // capture.shape[1], n % capture.shape[1]): first + n for n in range(capture.present.size)}
        told = {view: ctx.work.metrics_of(item, 0) for view, item in views.items() if capture.present[view]}
        names = ("facts", "slices", "sites")
        metrics, slices, sites = ({view: found[name] for view, found in told.items()} for name in names)
        refuse_other_camera(capture, sites)
        messages = science.warnings(capture, metrics, "views of the flat target" if before else "views")
        for message in (*messages, *slice_warnings(capture, slices), *mosaic_warnings(capture, sites)):
            ctx.warn(message)
        if not before:
            store.attrs |= {LOST: lost_of(slices)}
        store.write_table(f"{before}views", *science.facts_table(capture, metrics))
        first += capture.present.size
    found = [ctx.work.metrics_of(item, 0) for item in ctx.work.items]
    read, seconds = (sum(values) for values in zip(*((m["MB"], m["MB"] / max(1e-9, m["MB/s"])) for m in found)))
    ctx.log.info("%.0f MB of stacks in %d views, each read and written at %.0f MB/s", read, first, read / seconds)


@stage(
    "topography.register",
    config.Register,
    inputs={"raw": Kind.STORE},
    outputs={"registered": Kind.STORE},
    estimate=plan.estimate_register,
    parallel=True,
)
def register(ctx: Context, cfg: config.Register) -> None:
    """Bring the slices of one moving camera into the order of focus and onto each other."""
    from gigascope.store.create import create_store
    from gigascope.topography.focus import registered as science

    raw = ctx.open("raw")
    store = create_store(ctx.scratch_path("registered"))
    ctx.adopt("registered", store)
    science.lay_out(store, raw)
    done = science.register(
        raw,
        store,
        ctx.scratch,
        model=cfg.model,
        order=cfg.order,
        progress=lambda items, what, unit: ctx.progress(items, what=what, unit=unit),
    )
    for message in done.warnings():
        ctx.warn(message)
    ctx.log.info("%s", store.attrs["registration"])


def open_calibrate(ctx: Context, cfg: config.Calibrate) -> WorkPlan:
    """See where the calibration comes from, and refuse what cannot be one."""
    import numpy as np

    from gigascope.runtime.parts import WorkPlan
    from gigascope.store.plan import ShardPlan

    task = _calibrating(ctx, cfg)
    ctx.log.info("calibration from: %s", task.origin)
    task.begin()
    if task.needs_images:
        of = task.acquired.instrument
        view = (1, *of.size)
        plan_ = ShardPlan((of.n_views, *of.size), 2, view, view)
        ctx.work.create_array("images", plan_.shape, np.float16, plan=plan_)
    return WorkPlan([task.views])


def calibrate_view(ctx: Context, cfg: config.Calibrate, item: int) -> None:
    """Surface of focus of one view of the flat target, and its image in focus."""
    import numpy as np

    task = ctx.kept("task", lambda: _calibrating(ctx, cfg))
    focus, image = task.focus(item)
    ctx.work.save(plane=focus.plane, numbers=np.array([focus.rms_mm, focus.error_mm, focus.n_blocks, focus.n_total]))
    if task.needs_images:
        ctx.work.array("images")[item] = task.kept(image)[None]
    ctx.work.metrics |= {"blocks": focus.n_blocks, "focus_rms_mm": focus.rms_mm}


def _calibrating(ctx: Context, cfg: config.Calibrate) -> Any:
    """The calibration of the acquisition, by the source that the config names."""
    from pathlib import Path

    import numpy as np

    from gigascope.topography.calibration.acquired import Acquired
    from gigascope.topography.calibration.calibrate import Settings
    from gigascope.topography.calibration.calibrating import Calibrating
    from gigascope.topography.calibration.system import Priors

    free = Priors(np.inf, np.inf, np.inf) if cfg.independent else Priors()
    poses, known = (None if path is None else Path(path) for path in (cfg.poses, cfg.calibration))
    settings = Settings(cfg.search_share, cfg.rounds, free)
    return Calibrating(Acquired(ctx.open("raw")), poses, known, cfg.datum, settings)


@stage(
    "topography.calibrate",
    config.Calibrate,
    inputs={"raw": Kind.STORE},
    outputs={"calibration": Kind.STORE},
    estimate=plan.estimate_calibrate,
    files=plan.calibrate_files,
    scatter=Scatter(open_calibrate, calibrate_view, estimate=plan.estimate_calibrate_job, threads=2, unit="view"),
)
def calibrate(ctx: Context, cfg: config.Calibrate) -> None:
    """Find where every view lies, where it is in focus and how even its light is."""
    from gigascope.store.create import create_store
    from gigascope.topography.calibration.calibrating import doubts
    from gigascope.topography.calibration.flat_focus import FlatFocus
    from gigascope.topography.calibration.stored import write_calibration
    from gigascope.topography.geometry.candidates import find_candidates

    task = _calibrating(ctx, cfg)
    focus = {}
    for view in ctx.work.items:
        found = ctx.work.read(view)
        rms, error, blocks, total = found["numbers"].tolist()
        focus[view] = FlatFocus(found["plane"], rms, error, int(blocks), int(total))
    images: Any = ctx.work.array("images") if task.needs_images else {}
    calibration, facts = task.solve(focus, images.__getitem__)
    for message in doubts(calibration, task.acquired):
        ctx.warn(message)
    ctx.log.info("%s; %s", facts["datum"], calibration.statistics)
    store = create_store(ctx.scratch_path("calibration"))
    ctx.adopt("calibration", store)
    write_calibration(
        store, calibration, find_candidates(calibration.poses, calibration.mosaic_shape, calibration.present)
    )
    store.attrs |= facts
