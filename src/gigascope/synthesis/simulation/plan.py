"""What the simulation will need, from the config alone; and which shard an item is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigascope.config.section import canonical_json
from gigascope.errors import UserError
from gigascope.runtime.resources import Estimate
from gigascope.store.ensemble import ensemble_plan
from gigascope.store.pyramid import level_plans
from gigascope.synthesis.simulation.geometry import image_grid, padded_shape

if TYPE_CHECKING:
    from gigascope.config.dataset import SynthesisDataset
    from gigascope.config.synthesis_simulate import Simulate
    from gigascope.stage import JobKind

F32 = 4
# Depths of PSFs are rounded up to this, so that spheroids of like size share them.
PSF_DEPTH_UM = 25.0
# PSFs of the default objectives at 100 to 225 um: how many eigen-PSFs, and where 99 % of their light is (z, y, x). With
# a high aperture into a sample of another index more are needed.
EIGEN_PSFS, MOST_EIGEN_PSFS, GAUSSIAN_REACH = 3, 8, 3.3
HIGH_NA, OTHER_INDEX = 0.6, 0.06
HALF_UM = {"confocal": (18.5, 7.0, 7.0), "widefield": (19.5, 12.5, 12.5), "lightsheet": (5.5, 9.0, 9.0)}
# Python with torch, numba and zarr; arrays of a block beside the K spectra: volume, its transform, one that is at work.
START_BYTES = 560 * 2**20
BLOCK_ARRAYS = 3
# Values of a cell of the coarse grid that are held while light is computed: with the sheared frame, and float64 sums.
CELL_BYTES = 48
GATHER_BYTES = 500 * 2**20
# Core seconds per million voxels of the finer grid, by benchmarks/synthesis.py, and to compress a million of the image.
FIXED_SECONDS, KERNEL_SECONDS, WRITE_SECONDS = 0.06, 0.01, 0.1


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


def locate(cultures: Sequence[Mapping[str, Any]], item: int) -> tuple[int, int]:
    """Spheroid and shard of an item: items count the shards of one spheroid after the other.

    Raises
    ------
    ValueError : there is no such item
    """
    for number, culture in enumerate(cultures):
        if item < culture["n_shards"]:
            return number, item
        item -= culture["n_shards"]
    raise ValueError("there is no such item")


def largest(value: Any) -> float:
    """The largest value of a key that may be a distribution; of one without an end, four standard deviations out."""
    if isinstance(value, (int, float)):
        return float(value)
    if value.dist == "choice":
        return max(float(v) for v in value.values)
    if getattr(value, "high", None) is not None:
        return float(value.high)
    return float(value.mean * (1 + 4 * value.cv) if value.dist == "lognormal" else value.mean + 4 * value.std)


def field_of(dataset: SynthesisDataset) -> tuple[float, float, float]:
    """Size of the field of a phantom, micrometres, at most; a region from a file counts as one of semi_axes_um."""
    region = dataset.phantoms.region
    axes = [largest(value) for value in region.semi_axes_um]
    axes = axes * 3 if len(axes) == 1 else axes
    # a rough surface goes beyond its mean by one and a half times its RMS
    z, y, x = (2 * a * (1 + 1.5 * largest(region.surface_rms)) + 2 * region.margin_um for a in axes)
    return z, y, x


def n_kernels(cfg: Simulate) -> int:
    """Eigen-PSFs that are to be expected."""
    optics = cfg.optics
    if optics.model == "none":
        return 1
    if optics.model == "measured":
        return max(1, len(optics.paths))
    if optics.model == "gibson_lanni":
        low, high = sorted((largest(optics.n_immersion), largest(optics.n_sample)))
        if low == high:
            return 1
        if high - low > OTHER_INDEX and largest(optics.na) > HIGH_NA:
            return min(optics.eig_max, MOST_EIGEN_PSFS)
    return min(optics.eig_max, EIGEN_PSFS)


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


def estimate_simulate(dataset: SynthesisDataset, header: Any) -> Estimate:
    """A padded block with its transforms and spectra, one shard of every array, and the light of one phantom."""
    cfg, field = dataset.simulate, field_of(dataset)
    grid = image_grid(field, cfg.grid.output_voxel_um, cfg.grid.oversample, cfg.grid.field_um)
    plan = ensemble_plan(grid.shape, "uint16", cfg.store.chunk, cfg.store.shard)
    each = image_bytes(cfg)
    half = [math.ceil(h / v) for h, v in zip(psf_half_um(cfg, field[0]), grid.fine_um)]
    sides = [min(s, n) for s, n in zip(plan.shards, grid.shape)]
    # shards are cut into blocks of nearly equal size
    block = [math.ceil(s / math.ceil(s / b)) for s, b in zip(sides, cfg.grid.block)]
    padded, kernels = math.prod(padded_shape(block, grid.ratio, half)), n_kernels(cfg)
    work = padded * F32 * (kernels + BLOCK_ARRAYS)
    shard = min(math.prod(plan.shards), math.prod(grid.shape))
    cells = math.prod(math.ceil(f / cfg.attenuation.grid_um) + 1 for f in field)
    # blocks first, with the electrons of the shard; spectra are still there when its other arrays are made
    later = padded * F32 * kernels + 2 * shard * sum(each)
    memory = START_BYTES + max(work + shard * F32, later, cells * CELL_BYTES)
    n = dataset.phantoms.n_spheroids
    levels = level_plans(plan, "zyx")
    voxels = sum(math.prod(level.shape) for level in levels)
    disk = n * (voxels * sum(each) + cells * F32)
    files = n * (sum(level.n_shards for level in levels) * len(each) + 60) + 20
    blocks = math.prod(math.ceil(s / b) for s, b in zip(grid.shape, block))
    fine = blocks * padded / 1e6
    seconds = n * (2 + fine * (FIXED_SECONDS + KERNEL_SECONDS * kernels) + WRITE_SECONDS * voxels / 1e6)
    z, y, x = grid.shape
    return Estimate(memory, work, seconds, disk, files, f"{n} images of {x} x {y} x {z}")


def estimate_simulate_job(dataset: SynthesisDataset, header: Any, job: JobKind) -> Estimate:
    """The light of every spheroid; a share of the shards; every shard read once, in blocks."""
    whole, parts = estimate_simulate(dataset, header), dataset.simulate.parts
    field, n = field_of(dataset), dataset.phantoms.n_spheroids
    cells = math.prod(math.ceil(f / dataset.simulate.attenuation.grid_um) + 1 for f in field)
    if job == "open":
        light = START_BYTES + cells * CELL_BYTES
        return replace(
            whole, memory=light, gpu_memory=0, seconds=20 + n * cells * 1e-6, disk=n * cells * 12, files=60 * n
        )
    if job == "part":
        return replace(whole, seconds=10 + whole.seconds / parts, disk=whole.disk // parts, files=whole.files // parts)
    return replace(whole, memory=GATHER_BYTES, gpu_memory=0, seconds=10 + whole.disk / 2e8)
