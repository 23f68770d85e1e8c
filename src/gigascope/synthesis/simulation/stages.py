"""The stage of the synthesis chain that makes images of phantoms: read, call, write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gigascope.config import synthesis_simulate as config
from gigascope.stage import Kind, Scatter, stage
from gigascope.synthesis.simulation import plan

if TYPE_CHECKING:
    from gigascope.runtime.context import Context
    from gigascope.runtime.parts import WorkPlan


def resolved(cfg: config.Simulate, seed: int, number: int) -> dict[str, Any]:
    """The section without distributions, for one spheroid, as JSON values; checked again by its model."""
    from gigascope.config.section import dump
    from gigascope.synthesis.sampler import resolve
    from gigascope.synthesis.seeds import seed_of

    drawn = resolve(dump(cfg), seed_of(seed, "spheroid", number, "simulate"))
    found = dump(config.Simulate.model_validate(drawn))
    # what is made does not depend on how many jobs make it
    del found["parts"]
    return found


def open_simulate(ctx: Context, cfg: config.Simulate) -> WorkPlan:
    """Lay out all images, compute light and PSF of each spheroid."""
    import math

    from gigascope.runtime.parts import WorkPlan
    from gigascope.synthesis.phantom.stored import n_spheroids

    store = ctx.open("phantoms")
    ctx.create_ensemble("cultures")
    cultures: list[dict[str, Any]] = []
    weights: list[float] = []
    psfs: dict[str, tuple[int, float]] = {}
    for number in ctx.progress(range(n_spheroids(store)), what="light", unit="spheroid"):
        culture, cut = _lay_out(ctx, resolved(cfg, ctx.seed, number), number, psfs)
        cultures.append(culture)
        weights += [float(math.prod(s.stop - s.start for s in region)) for region in cut.regions()]
    return WorkPlan([range(len(weights))], weights=weights, facts={"cultures": cultures})


def _lay_out(ctx: Context, found: dict[str, Any], number: int, psfs: dict[str, tuple[int, float]]) -> tuple[Any, Any]:
    """Arrays and light of one spheroid; returns what the items need to know of it, and how its image is cut.

    `psfs` has the number and axial stretch of every PSF so far, by its key.
    """
    import numpy as np

    from gigascope.store.ensemble import ensemble_plan, image_name
    from gigascope.synthesis.phantom.stored import read_phantom
    from gigascope.synthesis.simulation import illumination, settings, stored

    phantom, name = read_phantom(ctx.open("phantoms"), number), image_name(number)
    region, height = phantom.region, float(phantom.region.field_um[0])
    key = plan.psf_key(found, height)
    if key not in psfs:
        psfs[key] = len(psfs), _save_psf(ctx, found, height, len(psfs))
    placed = phantom.facts["settings"]["placement"]
    image = settings.image_of(found, phantom, psfs[key][1])
    if not np.allclose(placed["voxel_um"], image.voxel_um, rtol=0.01):
        ctx.warn(f"{name}: contacts of nuclei were settled on voxels of {placed['voxel_um']} micrometres, the image "
                 f"has {list(image.voxel_um)}: set phantoms.placement.voxel_um to these.")  # fmt: skip
    spacing = found["attenuation"]["grid_um"]
    box = region.field_um.tolist(), region.low.tolist(), region.high.tolist()
    grid = illumination.light_grid(phantom.table, *box, spacing)
    how, gap = settings.attenuating(found), float(placed["gap_um"])
    light = illumination.light_of(phantom.table, region.distance, grid, how, gap)
    made = stored.create_culture(ctx.written("cultures"), name, image, grid, found)
    made.group["interim/tau"][...] = light.tau.numpy()  # type: ignore[index]
    for part, values in (("haze", light.haze), ("distance", light.distance)):
        cut = ensemble_plan(grid.shape, np.float32)
        ctx.work.create_array(f"{part} {name}", grid.shape, np.float32, plan=cut)[...] = values.numpy()
    cut = stored.image_plan(image, np.uint16, found)
    culture = {
        "name": name,
        "settings": found,
        "psf": psfs[key][0],
        "psf_key": key,
        "stretch": psfs[key][1],
        "cells": [list(grid.first), list(grid.shape), grid.spacing],
        "n_shards": cut.n_shards,
        "gap_um": gap,
    }
    return culture, cut


def _save_psf(ctx: Context, found: dict[str, Any], height: float, place: int) -> float:
    """Compute a PSF and keep it for all items; returns its axial stretch."""
    from gigascope.synthesis.optics.settings import Settings
    from gigascope.synthesis.optics.tabulate import depth_psf

    z, y, x = (v / r for v, r in zip(found["grid"]["output_voxel_um"], found["grid"]["oversample"]))
    psf = depth_psf(Settings.of(found["optics"]), (z, y, x), plan.psf_depth(height))
    ctx.work.save(**{f"psf{place}.{part}": values for part, values in psf.arrays().items()})
    for warning in psf.warnings:
        ctx.warn(warning)
    ctx.log.info("PSF of %d kernels (%s) of %s voxels", len(psf.kernels), psf.method, psf.kernels.shape[1:])
    return psf.axial_stretch


def simulate_item(ctx: Context, cfg: config.Simulate, item: int) -> None:
    """One shard of the image of one spheroid, and of all that goes with it."""
    from gigascope.synthesis.simulation.measured import label_sums
    from gigascope.synthesis.simulation.shard import simulate_shard
    from gigascope.synthesis.simulation.stored import PATHS

    number, shard = plan.locate(ctx.work.facts["cultures"], item)
    culture = ctx.work.facts["cultures"][number]
    name, found = culture["name"], culture["settings"]
    region = ctx.work.array("cultures", f"{name}/0").region(shard)
    scene, columns, blurred = _scene(ctx, number, region)
    made = simulate_shard(scene, region, found, columns, blurred)
    for member, values in made.items():
        target = ctx.work.array("cultures", f"{name}/{PATHS[member]}")
        target[target.region(shard)] = values
    ctx.work.save(rows=label_sums(made["nuclei"], tuple(s.start for s in region)))
    ctx.work.metrics |= {"mean": float(made["image"].mean()), "labelled": float((made["nuclei"] > 0).mean())}


def _scene(ctx: Context, number: int, region: Any) -> tuple[Any, Any, Any]:
    """The scene of a shard with the light around it, columns of the phantom's table, PSF for labels as they look."""
    from gigascope.synthesis.simulation.cells import CellGrid
    from gigascope.synthesis.simulation.scene import Light, Scene, reach_um

    culture = ctx.work.facts["cultures"][number]
    latest: dict[str, Any] = ctx.kept("latest spheroid", dict)
    if latest.get("number") != number:
        # one spheroid at a time: the next ones are as large
        latest.clear()
        latest |= _open_spheroid(ctx, number)
    image, psf = latest["image"], latest["psf"]
    first, shape, spacing = culture["cells"]
    near, slices = CellGrid(tuple(first), tuple(shape), spacing).around(*reach_um(image, psf, region))
    arrays = [ctx.work.array("cultures", f"{culture['name']}/interim/tau")]
    arrays += [ctx.work.array(f"{part} {culture['name']}") for part in ("haze", "distance")]
    light = Light.of_arrays(near, [array[slices] for array in arrays], ctx.device)
    scene = Scene(image, latest["table"], culture["gap_um"], light, psf, latest["exposure"])
    if "blur" in latest:
        # spectra of the PSF are good for the next shard too
        scene.blur = latest["blur"]
    latest["blur"] = scene.blur
    return scene, latest["columns"], latest["blurred"]


def _open_spheroid(ctx: Context, number: int) -> dict[str, Any]:
    """What all shards of a spheroid need."""
    from gigascope.synthesis.optics.depth_psf import DepthPsf
    from gigascope.synthesis.phantom.stored import read_phantom
    from gigascope.synthesis.simulation import settings
    from gigascope.synthesis.simulation.shard import psf_on_image

    culture = ctx.work.facts["cultures"][number]
    found, prefix = culture["settings"], f"psf{culture['psf']}."
    arrays = {k.removeprefix(prefix): v for k, v in ctx.work.opened.items() if k.startswith(prefix)}
    psf, phantom = DepthPsf.of(arrays), read_phantom(ctx.open("phantoms"), number)
    image = settings.image_of(found, phantom, psf.axial_stretch)
    middle = float(phantom.region.field_um[0]) / 2
    return {
        "number": number,
        "psf": psf,
        "image": image,
        "columns": phantom.columns,
        "table": phantom.table.to(ctx.device),
        "exposure": settings.exposure(found, phantom.table, ctx.seed, number),
        "blurred": psf_on_image(psf.at(middle), image.ratio) if found["labels"]["blurred"] else None,
    }


@stage(
    "synthesis.simulate",
    config.Simulate,
    inputs={"phantoms": Kind.STORE},
    outputs={"cultures": Kind.STORE},
    estimate=plan.estimate_simulate,
    gpu=True,
    scatter=Scatter(
        open_simulate, simulate_item, estimate=plan.estimate_simulate_job, gpu=("part",), threads=2, unit="shard"
    ),
    files=plan.psf_files,
)
def simulate(ctx: Context, cfg: config.Simulate) -> None:
    """Make images of all phantoms: draw, dim, blur and photograph them, with exact labels."""
    from gigascope.synthesis.phantom.stored import UNITS, read_phantom
    from gigascope.synthesis.simulation import settings, stored
    from gigascope.synthesis.simulation.measured import merged

    written, item, total = ctx.written("cultures"), 0, 0
    for number, culture in enumerate(ctx.work.facts["cultures"]):
        phantom = read_phantom(ctx.open("phantoms"), number)
        image = settings.image_of(culture["settings"], phantom, culture["stretch"])
        parts = [ctx.work.read(item + k)["rows"] for k in range(culture["n_shards"])]
        item += culture["n_shards"]
        rows = merged(parts, phantom.table.n)
        facts = {
            "settings": culture["settings"],
            "phantom": phantom.facts,
            "noise_key": f"{settings.noise_key(ctx.seed, number):016x}",
            "psf_key": culture["psf_key"],
            "axial_stretch": culture["stretch"],
            "first_voxel": list(image.first),
            "n_labels": int((rows[:, 1] > 0).sum()),
        }
        stored.complete_culture(written.image(culture["name"]), rows, image, phantom.columns, UNITS, facts)
        total += facts["n_labels"]
        missing = phantom.table.n - facts["n_labels"]
        if missing and culture["settings"]["grid"]["field_um"] is None:
            ctx.warn(f"{culture['name']}: {missing} nuclei are smaller than a voxel and have no label.")
    written.attrs |= {"n_spheroids": len(ctx.work.facts["cultures"]), "n_labels": total}
    ctx.log.info("%d images with %d labelled nuclei", len(ctx.work.facts["cultures"]), total)
