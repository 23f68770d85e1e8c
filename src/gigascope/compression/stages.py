"""The stages of the compression chain: read, call, write. The science is in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gigascope
from gigascope.compression import plan
from gigascope.config import compression as config
from gigascope.stage import Kind, Scatter, stage

if TYPE_CHECKING:
    from gigascope.runtime.context import Context
    from gigascope.runtime.parts import WorkPlan


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
    from gigascope.compression.slabs import n_slabs, place, slabs
    from gigascope.compression.source import open_source

    source, clean = open_source(ctx.inputs_section, cfg, ctx.seed)
    for note in source.notes:
        ctx.log.info("%s", note)
    axes = raw.kept_axes(source.shape)
    image: dict[str, Any] = {"axes": tuple(axes), "shape": tuple(axes.values()), "dtype": source.dtype}
    volume = ctx.create("volume", **image, spacing=dict(zip("zyx", source.voxel_size_um)), unit="micrometer")
    truth = None if clean is None else volume.create_array("clean", volume.shape, np.float32)
    facts = raw.VolumeFacts(source)
    found = slabs(source, volume.plan, ctx.scratch, facts.seen)
    for slab in ctx.progress(found, what="reading", unit="slab", total=n_slabs(source.shape, volume.plan)):
        raw.mend(slab, source, cfg.not_finite)
        here: tuple[Any, ...] = (*place(source.shape, slab.t, slab.c), slab.z, slab.y)
        volume[here] = slab.voxels
        if truth is not None and clean is not None:
            truth[here] = clean[slab.z, slab.y]
        facts.add(slab)
    for message in raw.warnings(facts.frames, source):
        ctx.warn(message)
    background = raw.background_array(facts.frames, source.shape)
    volume.create_array("background", background.shape, np.float32)[:] = background
    volume.write_table("cells", *raw.cell_table(facts.frames))
    volume.attrs |= raw.attributes(facts, source)


def open_gate(ctx: Context, cfg: config.Gate) -> WorkPlan:
    """Measure how the background of each frame scatters, and lay out the gate."""
    import numpy as np

    from gigascope.compression.gating import gate as science
    from gigascope.compression.gating.gate_layout import gate_plan
    from gigascope.compression.gating.gate_rounds import ROUNDS
    from gigascope.runtime.parts import WorkPlan

    volume = ctx.open("volume")
    image: dict[str, Any] = {"shape": volume.shape, "axes": volume.axes, "spacing": volume.spacing}
    cut = gate_plan(volume.shape)
    written = ctx.create("gate", dtype=np.uint8, **image, unit=volume.unit, plan=cut, window=(0.0, 1.0))
    if cfg.mode != "intensity":
        frames = science.evidence_of_frames(volume, cfg.smooth)
        ctx.work.save(levels=np.stack([frame.levels for frame in frames]))
        ctx.work.save(scatter=np.array([(frame.centre, frame.spread) for frame in frames]))
        for name in ("candidates", "objects"):
            ctx.work.create_array(name, volume.shape, np.uint8, plan=cut)
    items = {"settle": range(1), "train": range(len(volume.attrs["range"]))}
    regions = range(written.plan.n_shards)
    return WorkPlan([items.get(name, regions) for name in ROUNDS[cfg.mode]])


def gate_item(ctx: Context, cfg: config.Gate, item: int) -> None:
    """What one round does to one region, or in one go for all of them."""
    from gigascope.compression.gating.gate_rounds import ROUNDS

    regions = ctx.kept("regions", lambda: _gate_regions(ctx, cfg))
    name = ROUNDS[cfg.mode][ctx.work.round]
    if name == "sample":
        regions.sample(ctx.work, item, ctx.random("points", item))
    elif name == "train":
        seed = int(ctx.random("network", item).integers(2**62))
        training = regions.training(ctx.work, item, seed)
        ctx.solve("network", training, what=f"network of frame {item}", total=cfg.network.steps)
        regions.trained(ctx.work, training)
    else:
        getattr(regions, name)(ctx.work, item)


def _gate_regions(ctx: Context, cfg: config.Gate) -> Any:
    """The regions of the gate with all that their rounds need."""
    from gigascope.compression.gating import gate as science
    from gigascope.compression.gating import gate_rounds as rounds
    from gigascope.compression.gating.gate_layout import gate_plan

    volume, opened = ctx.open("volume"), ctx.work.opened
    thresholds = rounds.Thresholds(cfg.seed_sd, cfg.grow_sd, cfg.min_voxels, cfg.dilate)
    cut, array = gate_plan(volume.shape), volume.array()
    if cfg.mode == "intensity":
        levels = [low + cfg.intensity * (high - low) for low, high in volume.attrs["range"]]
        return rounds.GateRegions(array, cut, thresholds, levels=levels)
    frames = science.evidence_of_frames(volume, cfg.smooth, opened["levels"], opened["scatter"])
    if cfg.mode == "threshold":
        return rounds.GateRegions(array, cut, thresholds, frames)
    from gigascope.compression.gating.gate_network import Settings

    of = cfg.network
    settings = Settings(of.steps, of.batch, of.width, of.depth, of.lr)
    size = (volume.spacing["z"], volume.spacing["y"], volume.spacing["x"])
    network = rounds.Network(settings, None if of.tau == "f1" else of.tau, size, ctx.device)
    return rounds.GateRegions(array, cut, thresholds, frames, network=network)


@stage(
    "compression.gate",
    config.Gate,
    inputs={"volume": Kind.STORE},
    outputs={"gate": Kind.STORE},
    estimate=plan.estimate_gate,
    gpu=True,
    scatter=Scatter(open_gate, gate_item, rounds=plan.gate_rounds, estimate=plan.estimate_gate_job, unit="region"),
)
def gate(ctx: Context, cfg: config.Gate) -> None:
    """Find the voxels that hold signal."""
    from gigascope.compression.gating import gate_rounds as rounds

    written, volume = ctx.written("gate"), ctx.open("volume")
    n_frames, last = len(volume.attrs["range"]), len(rounds.ROUNDS[cfg.mode]) - 1
    counts = [ctx.work.metrics_of(n, last)["voxels"] for n in range(written.plan.n_shards)]
    fractions = rounds.fractions(counts, volume.shape, n_frames)
    written.attrs |= {"mode": cfg.mode, "fraction": fractions}
    if cfg.mode == "network":
        written.attrs["tau"] = [ctx.work.metrics_of(n, last - 1)["tau"] for n in range(n_frames)]
    for message in rounds.warnings(fractions):
        ctx.warn(message)


def open_fit(ctx: Context, cfg: config.Fit) -> WorkPlan:
    """See where the signal is, and find the lambda that meets the target."""
    import numpy as np

    from gigascope.compression.fitting import lambda_search
    from gigascope.runtime.parts import WorkPlan

    fit = _volume_fit(ctx, cfg)
    found = [fit.survey(item) for item in ctx.progress(range(fit.n_items), what="surveying", unit="brick")]
    signal = [n for n, _ in found]
    means = fit.mean_signal(found)
    target = lambda_search.Target(fit.target_bytes(cfg.ratio, cfg.bytes), cfg.psnr)
    lam, samples = cfg.lambda_ or fit.default_rate(means), list[Any]()
    if target.bytes is not None or target.psnr is not None:
        lam, samples = lambda_search.search(fit, means, signal, target, lambda n, s: ctx.solve(n, s, what=n))
        ctx.log.info("lambda %.4g for the target, from %d trials", lam, len(samples))
    ctx.work.save(signal=np.array(signal))
    facts = {
        "lambda": lam,
        "step": fit.step(means, cfg.psnr, signal),
        "means": means,
        "target_bytes": target.bytes,
        "samples": [[s.rate, s.bytes, s.psnr] for s in samples],
    }
    items = fit.items_of(signal) + ([fit.ordered()] if plan.has_residual(cfg) else [])
    return WorkPlan(items, weights=signal, facts=facts)


def fit_brick(ctx: Context, cfg: config.Fit, item: int) -> None:
    """One brick in one round."""
    from gigascope.compression.fitting.brick_round import BrickRound

    fit = ctx.kept("fit", lambda: _volume_fit(ctx, cfg))
    fits = ctx.kept("fits", lambda: fit.fits(ctx.work.facts["means"], ctx.work.facts["lambda"]))
    turn = BrickRound(fit, fits, ctx.work, item)
    if ctx.work.round == len(fit.rounds):
        if (settings := plan.residual_target(cfg, ctx.work.facts)) is not None:
            turn.residual(settings)
        return
    turn.fit(lambda name, solver: ctx.solve(name, solver, what=f"brick {item}, {name}"))


def _volume_fit(ctx: Context, cfg: config.Fit) -> Any:
    """The bricks of the volume, with all that their rounds need."""
    from gigascope.compression.fitting.volume_fit import VolumeFit

    return VolumeFit(ctx.open("volume"), ctx.open("gate"), plan.fit_options(cfg), ctx.device)


@stage(
    "compression.fit",
    config.Fit,
    inputs={"volume": Kind.STORE, "gate": Kind.STORE},
    outputs={"gmix": Kind.FILE, "gaussians": Kind.STORE, "bricks": Kind.TABLE},
    estimate=plan.estimate_fit,
    gpu=True,
    scatter=Scatter(open_fit, fit_brick, rounds=plan.fit_rounds, estimate=plan.estimate_fit_job, unit="brick"),
)
def fit(ctx: Context, cfg: config.Fit) -> None:
    """Fit Gaussians brick by brick, meet the target, write the compressed file."""
    from gigascope.compression.fitting import fit_result
    from gigascope.store.create import create_store

    whole = _volume_fit(ctx, cfg)
    fits = whole.fits(ctx.work.facts["means"], ctx.work.facts["lambda"])
    residual = plan.residual_target(cfg, ctx.work.facts)
    result = fit_result.FitResult(whole, fits, ctx.work, residual, gigascope.__version__)
    size = result.write(ctx.path("gmix"))
    store = create_store(ctx.scratch_path("gaussians"))
    ctx.adopt("gaussians", store)
    result.write_group(store)
    ctx.write_table("bricks", *result.brick_table())
    for message in result.check(ctx.scratch_path("gmix"), fit_result.Asked(cfg.ratio, cfg.bytes, cfg.psnr)):
        ctx.warn(message)
    ctx.log.info("%d Gaussians in %d bytes, 1 : %.1f", result.count, size, whole.raw_bytes / size)


def open_decode(ctx: Context, cfg: config.Decode) -> WorkPlan:
    """Lay out the decoded volume."""
    from gigascope.compression.decoding.decoded_files import Excerpt, create_decoded
    from gigascope.compression.decoding.volume import GaussianVolume
    from gigascope.runtime.parts import WorkPlan

    volume = GaussianVolume(ctx.input_path("gmix"), device=ctx.device).at_level(cfg.factor)
    written = create_decoded(ctx.scratch_path("decoded"), Excerpt(volume), "decoded")
    ctx.adopt("decoded", written)
    return WorkPlan([range(written.plan.n_shards)])


def decode_shard(ctx: Context, cfg: config.Decode, item: int) -> None:
    """One shard of the decoded volume."""
    from gigascope.compression.decoding.decoded_files import Excerpt
    from gigascope.compression.decoding.volume import GaussianVolume

    def opened() -> Excerpt:
        return Excerpt(GaussianVolume(ctx.input_path("gmix"), device=ctx.device).at_level(cfg.factor))

    written = ctx.work.array("decoded")
    region = written.region(item)
    written[region] = ctx.kept("volume", opened).read(region)


@stage(
    "compression.decode",
    config.Decode,
    inputs={"gmix": Kind.FILE},
    outputs={"decoded": Kind.STORE},
    estimate=plan.estimate_decode,
    gpu=True,
    scatter=Scatter(open_decode, decode_shard, estimate=plan.estimate_decode_job, unit="shard"),
)
def decode(ctx: Context, cfg: config.Decode) -> None:
    """Decode the volume from the compressed file alone."""
    ctx.written("decoded").attrs |= {"factor": list(cfg.factor)}


@stage(
    "compression.evaluate",
    config.Evaluate,
    inputs={"volume": Kind.STORE, "gate": Kind.STORE, "gmix": Kind.FILE},
    optional_inputs={"decoded": Kind.STORE},
    outputs={
        "metrics": Kind.FILE,
        "frames": Kind.TABLE,
        "codecs": Kind.TABLE,
        "curves": Kind.TABLE,
        "deciles": Kind.TABLE,
        "components": Kind.TABLE,
        "codec_pictures": Kind.STORE,
    },
    estimate=plan.estimate_evaluate,
    parallel=True,
)
def evaluate(ctx: Context, cfg: config.Evaluate) -> None:
    """Measure what the file decodes to by every measure, beside codecs at the same number of bytes."""
    import json

    from gigascope.compression.decoding.volume import GaussianVolume
    from gigascope.compression.quality import frame_evaluation as frames
    from gigascope.compression.quality.result_evaluation import ResultEvaluation
    from gigascope.store.create import create_store

    result = ResultEvaluation(
        ctx.open("volume"),
        ctx.open("gate"),
        GaussianVolume(ctx.input_path("gmix")),
        ctx.open("decoded") if ctx.has("decoded") else None,
        codecs=cfg.codecs,
        rates=cfg.rates,
        max_voxels=cfg.max_voxels,
    )
    found = [result.frame(n) for n in ctx.progress(range(result.n_frames), what="measuring", unit="frame")]
    pictures = create_store(ctx.scratch_path("codec_pictures"))
    ctx.adopt("codec_pictures", pictures)
    result.pictures.write(pictures)
    tables = frames.tables(found)
    for name, table in (("codecs", "codecs"), ("curves", "curves"), ("deciles", "residual"), ("components",) * 2):
        ctx.write_table(name, *tables[table])
    ctx.write_table("frames", *frames.frame_table(found))
    text = json.dumps(frames.together(found), indent=2, ensure_ascii=False)
    ctx.path("metrics").write_text(text + "\n", encoding="utf-8")
