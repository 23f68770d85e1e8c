"""The stage of the synthesis chain that makes images of phantoms: read, call, write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gigascope.config import synthesis_simulate as config
from gigascope.stage import Kind, Scatter, stage
from gigascope.synthesis.simulation import plan

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """Lay out all images, compute PSFs, and the light of those spheroids that several items share."""
    import math

    from gigascope.runtime.parts import WorkPlan
    from gigascope.synthesis.phantom.stored import n_spheroids

    ctx.create_ensemble("cultures")
    total = n_spheroids(ctx.open("phantoms"))
    cultures: list[dict[str, Any]] = []
    weights: list[float] = []
    psfs: dict[str, tuple[int, float]] = {}
    for number in ctx.progress(range(total), what="layout", unit="spheroid"):
        culture, cut = _lay_out(ctx, resolved(cfg, ctx.seed, number), number, total, psfs)
        cultures.append(culture)
        voxels = [float(math.prod(s.stop - s.start for s in region)) for region in cut.regions()]
        weights += [sum(voxels)] if culture["whole"] else voxels
    return WorkPlan([range(len(weights))], weights=weights, facts={"cultures": cultures})


def _lay_out(
    ctx: Context, found: dict[str, Any], number: int, total: int, psfs: dict[str, tuple[int, float]]
) -> tuple[dict[str, Any], Any]:
    """Arrays of one spheroid; returns what the items need to know of it, and how its image is cut.

    `psfs` has the number and axial stretch of every PSF so far, by its key.
    """
    import numpy as np

    from gigascope.kernels.cells.bodies import reach_of_gap
    from gigascope.store.ensemble import image_name
    from gigascope.synthesis.phantom.stored import read_phantom
    from gigascope.synthesis.simulation import illumination, settings, stored

    phantom, name = read_phantom(ctx.open("phantoms"), number), image_name(number)
    region, height = phantom.region, float(phantom.region.field_um[0])
    key = plan.psf_key(found, height)
    if key not in psfs:
        psfs[key] = len(psfs), _save_psf(ctx, found, region.field_um.tolist(), len(psfs))
    placed = phantom.facts["settings"]["placement"]
    image = settings.image_of(found, phantom.region, psfs[key][1])
    if not np.allclose(placed["voxel_um"], image.voxel_um, rtol=0.01):
        ctx.warn(f"{name}: contacts of nuclei were settled on voxels of {placed['voxel_um']} micrometres, the image "
                 f"has {list(image.voxel_um)}: set phantoms.placement.voxel_um to these.")  # fmt: skip
    spacing, gap = found["attenuation"]["grid_um"], float(placed["gap_um"])
    box = region.field_um.tolist(), region.low.tolist(), region.high.tolist()
    grid = illumination.light_grid(phantom.table, *box, spacing)
    made = stored.create_culture(ctx.written("cultures"), name, image, grid, found)
    cut = stored.image_plan(image, np.uint16, found)
    culture = {
        "name": name,
        "settings": found,
        "psf": psfs[key][0],
        "psf_key": key,
        "stretch": psfs[key][1],
        "cells": [list(grid.first), list(grid.shape), grid.spacing],
        "n_shards": cut.n_shards,
        "whole": plan.is_whole(cut.n_shards, total),
        "gap_um": gap,
        "reach": reach_of_gap(phantom.table, gap),
        "median": settings.median_intensity(phantom.table),
    }
    if not culture["whole"]:
        light = illumination.light_of(phantom.table, region.distance, grid, settings.attenuating(found), gap)
        made.group["interim/tau"][...] = light.tau.numpy()  # type: ignore[index]
        for part, values in (("haze", light.haze), ("distance", light.distance)):
            shared = ctx.work.create_array(f"{part} {name}", grid.shape, np.float32, plan=stored.light_plan(grid.shape))
            shared[...] = values.numpy()
    return culture, cut


def _save_psf(ctx: Context, found: dict[str, Any], field_um: Sequence[float], place: int) -> float:
    """Compute a PSF, or find it kept from another run, and save it for all items; returns its axial stretch."""
    from gigascope.store.ensemble import ensemble_plan
    from gigascope.synthesis.optics.blocks import refuse_larger
    from gigascope.synthesis.optics.cache import cached_psf, psf_folder
    from gigascope.synthesis.optics.settings import Settings
    from gigascope.synthesis.simulation.geometry import fine_shape

    z, y, x = (v / r for v, r in zip(found["grid"]["output_voxel_um"], found["grid"]["oversample"]))
    psf = cached_psf(psf_folder(), Settings.of(found["optics"]), (z, y, x), plan.psf_depth(field_um[0]))
    refuse_larger(psf, fine_shape(field_um, (z / psf.axial_stretch, y, x)))
    arrays = psf.arrays()
    # an array of its own: saved ones are held by every process, all of them
    kernels = arrays.pop("kernels")
    cut = ensemble_plan(kernels.shape, kernels.dtype)
    ctx.work.create_array(f"psf{place}", kernels.shape, kernels.dtype, plan=cut)[...] = kernels
    ctx.work.save(**{f"psf{place}.{part}": values for part, values in arrays.items()})
    for warning in psf.warnings:
        ctx.warn(warning)
    ctx.log.info("PSF of %d kernels (%s) of %s voxels", len(psf.kernels), psf.method, psf.kernels.shape[1:])
    return psf.axial_stretch


def simulate_item(ctx: Context, cfg: config.Simulate, item: int) -> None:
    """One shard of the image of one spheroid, or all of them, and of all that goes with it."""
    from gigascope.synthesis.simulation.measured import label_sums
    from gigascope.synthesis.simulation.shard import simulate_shard
    from gigascope.synthesis.simulation.stored import PATHS

    number, shards = plan.locate(ctx.work.facts["cultures"], item)
    culture = ctx.work.facts["cultures"][number]
    name, found = culture["name"], culture["settings"]
    rows: dict[str, Any] = {}
    totals = [0.0, 0.0, 0.0]
    for shard in shards:
        region = ctx.work.array("cultures", f"{name}/0").region(shard)
        scene, columns, blurred = _scene(ctx, number, region)
        made = simulate_shard(scene, region, found, columns, blurred)
        for member, values in made.items():
            target = ctx.work.array("cultures", f"{name}/{PATHS[member]}")
            target[target.region(shard)] = values
        rows[f"rows{shard}"] = label_sums(made["nuclei"], tuple(s.start for s in region))
        for k, sum_ in enumerate((made["image"].sum(), (made["nuclei"] > 0).sum(), made["image"].size)):
            totals[k] += float(sum_)
    ctx.work.save(**rows)
    ctx.work.metrics |= {"mean": totals[0] / totals[2], "labelled": totals[1] / totals[2]}


def _scene(ctx: Context, number: int, region: Any) -> tuple[Any, Any, Any]:
    """The scene of a shard with the light around it, places of the phantom's nuclei, PSF for labels as they look."""
    from gigascope.synthesis.simulation.scene import Scene

    latest: dict[str, Any] = ctx.kept("latest spheroid", dict)
    if latest.get("number") != number:
        # one spheroid at a time: the next ones are as large
        latest.clear()
        latest |= _open_spheroid(ctx, number)
    culture = ctx.work.facts["cultures"][number]
    table, ids, light = _whole(ctx, number, latest) if culture["whole"] else _around(ctx, number, region, latest)
    scene = Scene(latest["image"], table, culture["gap_um"], light, latest["psf"], latest["exposure"], ids)
    if "blur" in latest:
        # spectra of the PSF are good for the next shard too
        scene.blur = latest["blur"]
    latest["blur"] = scene.blur
    return scene, latest["places"], latest["blurred"]


def _open_spheroid(ctx: Context, number: int) -> dict[str, Any]:
    """What all shards of a spheroid need."""
    from gigascope.synthesis.optics.depth_psf import DepthPsf
    from gigascope.synthesis.phantom.stored import read_facts, read_places, read_region
    from gigascope.synthesis.simulation import settings
    from gigascope.synthesis.simulation.cells import CellGrid
    from gigascope.synthesis.simulation.shard import psf_on_image

    culture, store = ctx.work.facts["cultures"][number], ctx.open("phantoms")
    found, prefix = culture["settings"], f"psf{culture['psf']}."
    arrays = {k.removeprefix(prefix): v for k, v in ctx.work.opened.items() if k.startswith(prefix)}
    psf = DepthPsf.of({**arrays, "kernels": ctx.work.array(f"psf{culture['psf']}")[...]})
    region = read_region(store, number, read_facts(store, number))
    image = settings.image_of(found, region, psf.axial_stretch)
    middle = float(region.field_um[0]) / 2
    first, shape, spacing = culture["cells"]
    return {
        "number": number,
        "psf": psf,
        "image": image,
        "cells": CellGrid(tuple(first), tuple(shape), spacing),
        "exposure": settings.exposure(found, culture["median"], ctx.seed, number),
        "places": read_places(store, number) if found["labels"]["distance"] else {},
        "blurred": psf_on_image(psf.at(middle), image.ratio) if found["labels"]["blurred"] else None,
    }


def _whole(ctx: Context, number: int, latest: dict[str, Any]) -> tuple[Any, Any, Any]:
    """All nuclei of a spheroid and its light, which is computed here; on the CPU, as in the open job."""
    from gigascope.synthesis.phantom.stored import read_phantom
    from gigascope.synthesis.simulation import illumination, settings
    from gigascope.synthesis.simulation.scene import Light

    if "light" not in latest:
        culture, phantom = ctx.work.facts["cultures"][number], read_phantom(ctx.open("phantoms"), number)
        grid, how = latest["cells"], settings.attenuating(culture["settings"])
        light = illumination.light_of(phantom.table, phantom.region.distance, grid, how, culture["gap_um"])
        tau = light.tau.numpy()
        ctx.work.array("cultures", f"{culture['name']}/interim/tau")[...] = tau
        arrays = [tau, light.haze.numpy(), light.distance.numpy()]
        latest["light"] = Light.of_arrays(grid, arrays, ctx.device)
        latest["table"] = phantom.table.to(ctx.device)
    return latest["table"], None, latest["light"]


def _around(ctx: Context, number: int, region: Any, latest: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Nuclei around a shard, their labels, and the light there, of a spheroid that several items share."""
    import numpy as np

    from gigascope.synthesis.phantom.stored import read_nuclei_near
    from gigascope.synthesis.simulation.scene import Light, reach_um

    culture, image = ctx.work.facts["cultures"][number], latest["image"]
    low, high = reach_um(image, latest["psf"], region)
    near, slices = latest["cells"].around(low, high)
    arrays = [ctx.work.array("cultures", f"{culture['name']}/interim/tau")]
    arrays += [ctx.work.array(f"{part} {culture['name']}") for part in ("haze", "distance")]
    light = Light.of_arrays(near, [array[slices] for array in arrays], ctx.device)
    # labels as they look are drawn a little further than the light reaches
    more = 2.0 * np.array(image.voxel_um)
    table, ids = read_nuclei_near(ctx.open("phantoms"), number, low - more, high + more, culture["reach"])
    return table.to(ctx.device), ids.to(ctx.device), light


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
        image = settings.image_of(culture["settings"], phantom.region, culture["stretch"])
        parts = [rows for k in range(plan.items_of(culture)) for rows in ctx.work.read(item + k).values()]
        item += plan.items_of(culture)
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
