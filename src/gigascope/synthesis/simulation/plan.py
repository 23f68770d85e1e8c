"""What the simulation will need, from the config alone; and which shard an item is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigascope.config.section import canonical_json
from gigascope.errors import UserError
from gigascope.runtime.resources import Estimate
from gigascope.store.ensemble import ensemble_plan
from gigascope.store.plan import ShardPlan
from gigascope.store.pyramid import level_plans
from gigascope.synthesis.phantom.plan import largest, most_nuclei
from gigascope.synthesis.simulation.geometry import image_grid, padded_shape, shard_of

if TYPE_CHECKING:
    from gigascope.config.dataset import SynthesisDataset
    from gigascope.config.synthesis_simulate import Simulate
    from gigascope.stage import JobKind

F32 = 4
# Depths of PSFs are rounded up to this, so that spheroids of like size share them.
PSF_DEPTH_UM = 25.0
# PSFs of the default objectives at 100 to 225 um: how many eigen-PSFs, and where 99 % of their light is (z, y, x). With
# a high aperture into a sample of another index more are needed, and with depth: 2, 3, 9 and more than 12 of them for
# 0.9, 2.7, 6.6 and 13 wavelengths of spherical aberration (NA 0.5 from air into cleared tissue, 75 to 1100 um).
EIGEN_PSFS, MOST_EIGEN_PSFS, GAUSSIAN_REACH = 3, 8, 3.3
EIGEN_PSFS_PER_WAVE = 1.33
HIGH_NA, OTHER_INDEX = 0.6, 0.06
# Kernels that are convolved together, see `gigascope.synthesis.optics.blocks`, which imports torch.
AT_ONCE = 12
HALF_UM = {"confocal": (18.5, 7.0, 7.0), "widefield": (19.5, 12.5, 12.5), "lightsheet": (5.5, 9.0, 9.0)}
# A spheroid of more shards is shared out by shard, however many spheroids there are.
MOST_SHARDS = 8
# Python with torch, numba and zarr; arrays of a block beside the K spectra: volume, its transform, one that is at work.
START_BYTES = 430 * 2**20
BLOCK_ARRAYS = 3
# Bytes of a cell of the coarse grid while light is computed, with the sheared frame of a ray; of a nucleus beside it.
CELL_BYTES, NUCLEUS_BYTES = 32, 540
GATHER_BYTES = 500 * 2**20
# The published chain holds all voxels of the finer grid: what was drawn, the light, and the light in 8 bits.
PUBLISHED_BYTES = 6
# Core seconds per million voxels of the finer grid, by benchmarks/synthesis.py, and to compress a million of the image.
FIXED_SECONDS, KERNEL_SECONDS, WRITE_SECONDS = 0.06, 0.01, 0.1
# A job until it begins, the layout of a spheroid, what else one takes beside its voxels; light of a cell.
START_SECONDS, LAYOUT_SECONDS, SPHEROID_SECONDS, CELL_SECONDS = 8.0, 0.3, 0.5, 2e-6
# Of the store, read and made smaller and hashed.
GATHER_BYTES_PER_S = 2e8


def psf_depth(field_um: float) -> float:
    """Depth to which PSFs are computed for a phantom of this height."""
    return PSF_DEPTH_UM * math.ceil(field_um / PSF_DEPTH_UM)


def psf_key(settings: Mapping[str, Any], field_um: float) -> str:
    """Spheroids with equal keys have equal PSFs."""
    grid = settings["grid"]
    values = [settings["optics"], grid["output_voxel_um"], grid["oversample"], psf_depth(field_um)]
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:16]


def psf_files(cfg: Simulate) -> tuple[Path, ...]:
    """The stacks of a measured PSF.

    Raises
    ------
    UserError : one is not there
    """
    found = tuple(Path(path) for path in cfg.optics.paths)
    for path in found:
        if not path.exists():
            raise UserError("no such file.", where=path, do="Correct the path under simulate.optics.paths.")
    return found


def is_whole(n_shards: int, n_spheroids: int) -> bool:
    """Whether a spheroid is one item, which makes its light too; else its shards are items, and their light is ready.

    Many small spheroids share out well as they are; few large ones by their shards.
    """
    return n_shards <= min(MOST_SHARDS, n_spheroids)


def locate(cultures: Sequence[Mapping[str, Any]], item: int) -> tuple[int, range]:
    """Spheroid and shards of an item: items count the spheroids, or the shards of one, one after the other.

    Raises
    ------
    ValueError : there is no such item
    """
    for number, culture in enumerate(cultures):
        n_items = items_of(culture)
        if item < n_items:
            return number, range(culture["n_shards"]) if culture["whole"] else range(item, item + 1)
        item -= n_items
    raise ValueError("there is no such item")


def items_of(culture: Mapping[str, Any]) -> int:
    """Items of a spheroid."""
    return 1 if culture["whole"] else int(culture["n_shards"])


def field_of(dataset: SynthesisDataset) -> tuple[float, float, float]:
    """Size of the field of a phantom, micrometres, at most; a region from a file counts as one of semi_axes_um."""
    region = dataset.phantoms.region
    axes = [largest(value) for value in region.semi_axes_um]
    axes = axes * 3 if len(axes) == 1 else axes
    # a rough surface goes beyond its mean by one and a half times its RMS
    z, y, x = (2 * a * (1 + 1.5 * largest(region.surface_rms)) + 2 * region.margin_um for a in axes)
    return z, y, x


def n_kernels(cfg: Simulate, depth_um: float) -> int:
    """Eigen-PSFs that are to be expected over a depth; more than `eig_max`: PSFs of the depths themselves, blended."""
    optics = cfg.optics
    if optics.model == "none":
        return 1
    if optics.model == "measured":
        return max(1, len(optics.paths))
    found = EIGEN_PSFS
    if optics.model == "gibson_lanni":
        low, high = sorted((largest(optics.n_immersion), largest(optics.n_sample)))
        if low == high:
            return 1
        na = largest(optics.na)
        if high - low > OTHER_INDEX and na > HIGH_NA:
            found = MOST_EIGEN_PSFS
        # spherical aberration of the deepest emitter, in wavelengths
        waves = 1e3 * depth_um * na**4 / 8 * (low**-3 - high**-3) / largest(optics.lambda_em_nm)
        found = max(found, round(EIGEN_PSFS_PER_WAVE * waves))
    return found


def kernels_of_block(cfg: Simulate, depth_um: float, planes_um: float) -> tuple[int, int]:
    """Kernels that blur a block with this many planes, and how many of them are held at a time."""
    n, optics = n_kernels(cfg, depth_um), cfg.optics
    if n > optics.eig_max and optics.model == "gibson_lanni":
        n = min(math.ceil(planes_um / optics.depth_step_um) + 2, math.ceil(depth_um / optics.depth_step_um) + 1)
    elif optics.model != "measured":
        n = min(n, optics.eig_max)
    return n, min(n, AT_ONCE)


def psf_half_um(cfg: Simulate, depth_um: float) -> tuple[float, float, float]:
    """Half size (z, y, x) of the PSF that is to be expected, micrometres."""
    optics = cfg.optics
    if optics.model == "none":
        return 0.0, 0.0, 0.0
    found = optics.cap_um
    if optics.model == "gibson_lanni":
        found = HALF_UM[optics.modality]
    elif optics.model == "gaussian":
        growth = math.hypot(1.0, depth_um / largest(optics.sigma_depth_um))
        a, b, c = (GAUSSIAN_REACH * s * growth for s in optics.sigma_um)
        found = a, b, c
    z, y, x = (min(cap, h * largest(optics.widen)) for cap, h in zip(optics.cap_um, found))
    return z, y, x


def image_bytes(cfg: Simulate) -> list[int]:
    """Bytes of a voxel in each array of the image's size."""
    found = [1 if cfg.camera.bits <= 8 else 2, 4, 1]
    found += [1] * cfg.labels.boundary + [4] * cfg.labels.distance + [4] * cfg.labels.blurred
    density = round(math.prod(cfg.grid.oversample)) * 2
    return [*found, *[4] * cfg.store.keep_expected, *[density] * cfg.store.keep_density]


@dataclass(frozen=True)
class _Needs:
    """What the estimates of all jobs follow from.

    Attributes
    ----------
    plan : cut of the image of a spheroid
    whole : a spheroid is one item
    work : bytes of a block with its transforms and spectra
    making : bytes while a shard is made
    light : bytes while the light of a spheroid is computed
    voxels : of an image, and of all levels of its pyramid
    each : bytes of a voxel in each array of the image's size
    cells : of the coarse grid
    image_seconds, light_seconds : of a spheroid
    """

    plan: ShardPlan
    whole: bool
    work: int
    making: int
    light: int
    voxels: tuple[int, int]
    each: list[int]
    cells: int
    image_seconds: float
    light_seconds: float


def _needs(dataset: SynthesisDataset) -> _Needs:
    cfg, field = dataset.simulate, field_of(dataset)
    grid = image_grid(field, cfg.grid.output_voxel_um, cfg.grid.oversample, cfg.grid.field_um)
    cut = shard_of(grid.shape, cfg.store.chunk, cfg.store.shard, cfg.chain)
    plan = ensemble_plan(grid.shape, "uint16", cfg.store.chunk, cut)
    each = image_bytes(cfg)
    half = [math.ceil(h / v) for h, v in zip(psf_half_um(cfg, field[0]), grid.fine_um)]
    sides = [min(s, n) for s, n in zip(plan.shards, grid.shape)]
    # shards are cut into blocks of nearly equal size
    block = [math.ceil(s / math.ceil(s / b)) for s, b in zip(sides, cfg.grid.block)]
    shape = padded_shape(block, grid.ratio, half)
    padded = math.prod(shape)
    n_used, kernels = kernels_of_block(cfg, psf_depth(field[0]), shape[0] * grid.fine_um[0])
    work = padded * F32 * (kernels + BLOCK_ARRAYS)
    if cfg.chain == "published":
        work += math.prod(padded_shape(grid.shape, grid.ratio, half)) * PUBLISHED_BYTES
    shard = min(math.prod(plan.shards), math.prod(grid.shape))
    # blocks first, with the electrons of the shard; spectra are still there when its other arrays are made
    making = START_BYTES + max(work + shard * F32, padded * F32 * kernels + 2 * shard * sum(each))
    cells = math.prod(math.ceil(f / cfg.attenuation.grid_um) + 1 for f in field)
    levels = level_plans(plan, "zyx")
    voxels = math.prod(grid.shape)
    blocks = math.prod(math.ceil(s / b) for s, b in zip(grid.shape, block))
    # of more kernels than are held at a time, the spectra too are made for every block
    kernel_seconds = KERNEL_SECONDS * n_used * (1 if n_used <= AT_ONCE else 2)
    image_seconds = blocks * padded / 1e6 * (FIXED_SECONDS + kernel_seconds) + WRITE_SECONDS * voxels / 1e6
    return _Needs(
        plan,
        is_whole(plan.n_shards, dataset.phantoms.n_spheroids),
        work,
        making,
        START_BYTES + most_nuclei(dataset.phantoms) * NUCLEUS_BYTES + cells * CELL_BYTES,
        (voxels, sum(math.prod(level.shape) for level in levels)),
        each,
        cells,
        SPHEROID_SECONDS + image_seconds,
        cells * CELL_SECONDS,
    )


def estimate_simulate(dataset: SynthesisDataset, header: Any) -> Estimate:
    """A padded block with its transforms and spectra, one shard of every array, and the light of one phantom."""
    found, n = _needs(dataset), dataset.phantoms.n_spheroids
    disk = n * (found.voxels[1] * sum(found.each) + found.cells * F32 * (1 if found.whole else 3))
    files = n * (sum(level.n_shards for level in level_plans(found.plan, "zyx")) * len(found.each) + 60) + 20
    seconds = START_SECONDS + n * (found.image_seconds + found.light_seconds)
    z, y, x = found.plan.shape
    memory = max(found.making, found.light)
    return Estimate(memory, found.work, seconds, disk, files, f"{n} images of {x} x {y} x {z}")


def estimate_simulate_job(dataset: SynthesisDataset, header: Any, job: JobKind) -> Estimate:
    """Layout, and light that shards share; a share of the spheroids or shards; every shard read once, in blocks."""
    whole, found = estimate_simulate(dataset, header), _needs(dataset)
    n, parts = dataset.phantoms.n_spheroids, dataset.simulate.parts
    image, pyramid = found.voxels[0] * sum(found.each), found.voxels[1] * sum(found.each)
    if job == "open":
        shown = f"layout of {n} images" + ("" if found.whole else ", their light")
        memory = START_BYTES if found.whole else found.light
        light = 0.0 if found.whole else found.light_seconds
        disk = 0 if found.whole else n * found.cells * F32 * 3
        return Estimate(memory, 0, START_SECONDS + n * (LAYOUT_SECONDS + light), disk, 60 * n, shown)
    if job == "part":
        items = n if found.whole else n * found.plan.n_shards
        memory = max(found.making, found.light if found.whole else 0)
        seconds = n * (found.image_seconds + (found.light_seconds if found.whole else 0.0)) / parts
        per = "images" if found.whole else "shards"
        shown = f"{math.ceil(items / parts)} of {items} {per}"
        files = n * found.plan.n_shards * len(found.each) // parts
        return Estimate(memory, found.work, START_SECONDS + seconds, n * image // parts, files, shown)
    files = max(1, whole.files - n * found.plan.n_shards * len(found.each) - 60 * n)
    seconds = START_SECONDS + whole.disk / GATHER_BYTES_PER_S
    return Estimate(GATHER_BYTES, 0, seconds, n * (pyramid - image), files, "pyramids and tables")
