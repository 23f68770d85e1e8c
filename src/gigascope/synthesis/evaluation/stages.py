"""The stage that measures the images: reads, calls, writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gigascope.config import synthesis_evaluate as config
from gigascope.stage import Kind, stage
from gigascope.synthesis.evaluation import plan
from gigascope.synthesis.evaluation.labels import TABLES

if TYPE_CHECKING:
    from gigascope.runtime.context import Context
    from gigascope.synthesis.evaluation.evaluation import Plan


@stage(
    "synthesis.evaluate",
    config.Evaluate,
    inputs={},
    optional_inputs={"cultures": Kind.STORE, "real": Kind.STORE, "adapted": Kind.STORE, "network": Kind.FILE},
    outputs={"metrics": Kind.FILE, "evaluation": Kind.STORE, **dict.fromkeys(TABLES, Kind.TABLE)},
    estimate=plan.estimate_evaluate,
    gpu=True,
)
def evaluate(ctx: Context, cfg: config.Evaluate) -> None:
    """Measure how real the images look, how well they keep their labels, and what segmenters make of them."""
    import json

    from gigascope.store.create import create_store
    from gigascope.synthesis.evaluation.evaluation import Evaluation, picture_planes
    from gigascope.synthesis.evaluation.labels import entries
    from gigascope.synthesis.evaluation.nuclei import classes, histograms
    from gigascope.synthesis.evaluation.opened import network_segmenter, open_sets
    from gigascope.synthesis.evaluation.tables import all_tables
    from gigascope.synthesis.evaluation.values import values
    from gigascope.synthesis.evaluation.warnings import warnings

    stores = {name: ctx.open(name) for name in ("cultures", "real", "adapted") if ctx.has(name)}
    sets = open_sets(stores)
    origin = stores.get("cultures") or stores["real"]
    naive = [(v.name, origin.image(v.name)) for v in sets.naive.volumes]
    nuclei = {name: image.table("nuclei") for name, image in naive if "nuclei" in image.tables}
    options: dict[str, Any] = {}
    if cfg.segmenter == "network":
        path = ctx.input_path("network") if ctx.has("network") else None
        options["segmenter"] = network_segmenter(path, ctx.device)
    if cfg.downstream.steps:
        from gigascope.synthesis.evaluation.downstream import NetworkLearner

        of = cfg.downstream
        options["learner"] = NetworkLearner(of.steps, of.crop, ctx.device)
    found = Evaluation(
        sets.naive,
        sets.real,
        sets.adapted,
        plan=_plan(cfg),
        random=ctx.random,
        test=sets.test,
        classes={name: classes(columns) for name, columns in nuclei.items()},
        device=ctx.device,
        **options,
    ).measure(ctx.progress)
    for name, written in all_tables(found, histograms(list(nuclei.values()))).items():
        ctx.write_table(name, *written)
    store = create_store(ctx.scratch_path("evaluation"))
    ctx.adopt("evaluation", store)
    for images in sets.all:
        for name, plane in picture_planes(images, found.found.get(images.key), 1024).items():
            store.create_array(f"{images.key}_{name}", plane.shape, plane.dtype)[...] = plane
    store.attrs |= {
        "voxel_um": list(found.voxel_um),
        "tile": list(found.tile),
        "scales": {key: [grey.low, grey.high] for key, grey in found.scales.items()},
        "images": found.sizes,
        "segmenter": cfg.segmenter,
        "naive_given": "cultures" not in stores,
        "first": sets.naive.volumes[0].name,
    }
    numbers = values(found)
    said = [*found.warnings, *warnings(numbers)]
    for message in said:
        ctx.warn(message)
    metrics = entries(numbers) | {"warnings": said, "notes": found.notes}
    ctx.path("metrics").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _plan(cfg: config.Evaluate) -> Plan:
    from gigascope.synthesis.evaluation.evaluation import Plan
    from gigascope.synthesis.evaluation.profiles import EdgeForm

    edge = cfg.edge
    return Plan(
        edge=EdgeForm(edge.sigma_um, edge.tile_um, edge.quantile, edge.min_length_um, edge.min_peak),
        closing_um=cfg.wasserstein.closing_um,
        tile=cfg.tile,
        max_tiles=cfg.max_tiles,
        patches=cfg.patches,
        bootstrap=cfg.bootstrap,
        own_scale=cfg.scale == "own",
        thresholds=cfg.iou_thresholds,
        nucleus_um=cfg.nucleus_um,
        max_segmented=cfg.max_segmented,
        downstream_steps=cfg.downstream.steps,
        downstream_seeds=cfg.downstream.seeds,
        parity=cfg.parity,
        parity_closing=cfg.wasserstein.closing,
        parity_erosion=cfg.wasserstein.erosion,
    )
