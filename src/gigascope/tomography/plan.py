"""What the tomography chain will need: shapes through the chain, memory, time and disk, from the header alone.

Nothing here reads pixels or imports torch; `gigascope check` and the workflow's resources are made from it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigascope.config.dataset import TomographyDataset
from gigascope.config.tomography import Halves, Reconstruct
from gigascope.runtime.resources import BASE_BYTES, Estimate
from gigascope.stage import JobKind
from gigascope.store.plan import shard_plan
from gigascope.tomography.layout import Layout, joint_bytes, lay_out, prealign_bin, residual_bin
from gigascope.tomography.slabs import (
    F32,
    SAMPLE_BYTES,
    Slabs,
    cut,
    halves_rounds,
    n_rounds,
    reconstruct_rounds,
    row_bytes,
)

# Python with what the stages import, compiled kernels loaded, before any data.
TORCH_BYTES = 420 * 2**20
# One slab at a time: its kernels have all threads.
SLAB_THREADS = 256
JOBS: tuple[JobKind, ...] = ("open", "part", "gather")
# Resampling: what a view takes for each of its pixels, and pixels per second; what prealign holds for a binned pixel.
VIEW_BYTES = 64
STACK_BYTES = 24
VIEW_SAMPLES = 4e6
# A block of a volume on its way into the store, for each voxel; shards that a step of the pyramid holds.
WRITE_BYTES = 12
PYRAMID_SHARDS = 2
# Multiply-adds per second that the CPU projector sustains on two cores (benchmarks/projector.py prints it).
CPU_FLOPS = 1.0e10


@dataclass(frozen=True)
class SeriesHeader:
    """Shape and geometry of a tilt series, without its pixels.

    Attributes
    ----------
    shape : (tilt, y, x)
    itemsize : bytes per pixel of the file
    pixel_size_nm : nanometres
    tilt_deg : tilt angles in degrees, file order
    tilt_axis_deg : degrees
    notes : what was chosen, and from where
    """

    shape: tuple[int, int, int]
    itemsize: int
    pixel_size_nm: float
    tilt_deg: tuple[float, ...]
    tilt_axis_deg: float
    notes: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """Lines for a person."""
        n_tilts, height, width = self.shape
        return [
            f"{n_tilts} views of {height} x {width} px (y, x), {self.pixel_size_nm:g} nm per pixel",
            f"tilt {min(self.tilt_deg):g} to {max(self.tilt_deg):g} degrees, axis at {self.tilt_axis_deg:g} degrees",
            *self.notes,
        ]


@functools.cache
def read_header(dataset: TomographyDataset) -> SeriesHeader:
    """Header of a dataset's tilt series.

    Raises
    ------
    UserError : the file is missing, broken or inconsistent
    """
    phantom = dataset.inputs.phantom
    if phantom is not None:
        tilts = np.linspace(-phantom.max_tilt_deg, phantom.max_tilt_deg, phantom.n_tilts)
        shape = (phantom.n_tilts, phantom.size_px, phantom.size_px)
        return SeriesHeader(shape, F32, phantom.pixel_size_nm, tuple(tilts), 0.0, ("simulated from a phantom",))
    from gigascope.tomography.source import open_source

    source = open_source(dataset.inputs, dataset.ingest)
    return SeriesHeader(
        source.shape,
        np.dtype(source.dtype).itemsize,
        float(source.pixel_size_nm or 0),
        tuple(float(t) for t in np.asarray(source.tilt_deg)),
        float(source.tilt_axis_deg or 0),
        tuple(source.notes),
    )


def layout(dataset: TomographyDataset, header: SeriesHeader, further_bin: int = 1) -> Layout:
    """Sizes of the reconstruction; an `auto` extent counts as `section`, the larger one."""
    return lay_out(
        header.shape[1:],
        np.radians(header.tilt_deg),
        tilt_axis=math.radians(header.tilt_axis_deg),
        pixel_nm=header.pixel_size_nm,
        extent="section" if dataset.ingest.extent == "auto" else dataset.ingest.extent,
        cfg=dataset.reconstruct,
        further_bin=further_bin,
    )


def _flops(n_tilts: int, n_s: int, shape: tuple[int, int, int]) -> float:
    """One pass of the projector, tomography.md 5.2: 4 Nt Ns Nz Ny."""
    return 4.0 * n_tilts * n_s * shape[0] * shape[2]


def estimate_ingest(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """One view at a time."""
    n_tilts, height, width = header.shape
    stack = n_tilts * height * width
    held = 3 * stack * F32 if dataset.inputs.phantom is not None else 16 * height * width * F32
    disk = stack * (header.itemsize + 1)
    return Estimate(BASE_BYTES + held, 0, 5 + stack / 2e7, disk, 8, f"({n_tilts}, {height}, {width}) raw")


def estimate_prealign(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """The binned stack, its mask and its aligned copy, and one raw view at a time."""
    n_tilts, height, width = header.shape
    factor = prealign_bin((height, width), dataset.prealign.width)
    binned = n_tilts * (height // factor) * (width // factor)
    held = VIEW_BYTES * height * width + STACK_BYTES * binned
    return Estimate(
        TORCH_BYTES + held,
        held,
        5 + binned * dataset.prealign.passes / 2e6,
        binned * F32,
        6,
        f"({n_tilts}, {height // factor}, {width // factor}) aligned for viewing",
    )


def estimate_reconstruct(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """All jobs one after the other."""
    cfg, jobs = dataset.reconstruct, {job: estimate_reconstruct_job(dataset, header, job) for job in JOBS}
    return _one_after_the_other(jobs, cfg.parts * reconstruct_rounds(cfg), "tomogram, " + jobs["gather"].shape)


def estimate_reconstruct_job(dataset: TomographyDataset, header: SeriesHeader, job: JobKind) -> Estimate:
    """Alignment: K volumes at one level; a part: a slab and its halo; the gather: the coarser levels."""
    cfg, sizes, n_tilts = dataset.reconstruct, layout(dataset, header), header.shape[0]
    samples = n_tilts * math.prod(sizes.frame)
    if job != "open":
        how: dict[str, Any] = {"volumes": 1, "iterations": cfg.iterations, "method": cfg.method}
        return _slab_job(_SlabStage.of(sizes, cfg.bin, n_tilts, cfg, **how), job)
    seconds = 10 + samples / VIEW_SAMPLES
    memory = VIEW_BYTES * math.prod(sizes.frame) + joint_bytes(sizes, n_tilts)
    for bin in sizes.bins:
        level = sizes.shape(bin)
        pass_seconds = 2 * _flops(n_tilts, sizes.frame[0] // bin, level) / CPU_FLOPS
        seconds += 2.5 * cfg.align.outer * (cfg.align.inner + 1) * pass_seconds
    start = F32 * math.prod(sizes.shape(sizes.bins[-1])) if sizes.bins else 0
    disk = F32 * samples + (F32 + 1) * samples // cfg.bin**2 + start
    bands = -(-sizes.shape(cfg.bin)[2] // cfg.round)
    shape = f"({n_tilts}, {sizes.frame[1]}, {sizes.frame[0]}) aligned views"
    return Estimate(TORCH_BYTES + memory, memory, seconds, disk, 40 + 2 * bands, shape)


def estimate_halves(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """All jobs one after the other."""
    cfg, jobs = dataset.halves, {job: estimate_halves_job(dataset, header, job) for job in JOBS}
    return _one_after_the_other(jobs, cfg.parts * halves_rounds(cfg), "half tomograms, " + jobs["gather"].shape)


def estimate_halves_job(dataset: TomographyDataset, header: SeriesHeader, job: JobKind) -> Estimate:
    """Constants of the views from coarse volumes; a part: a slab and its halo; the gather: the coarser levels."""
    cfg, bin = dataset.halves, dataset.reconstruct.bin * dataset.halves.bin
    sizes, n_tilts = layout(dataset, header, bin), header.shape[0]
    iterations = min(cfg.iterations, dataset.reconstruct.iterations)
    if job != "open":
        how: dict[str, Any] = {"volumes": 2, "iterations": iterations, "method": dataset.reconstruct.method}
        return _slab_job(_SlabStage.of(sizes, bin, -(-n_tilts // 2), cfg, **how), job)
    coarse = sizes.coarser(bin)
    voxels, samples = math.prod(sizes.shape(coarse)), n_tilts * math.prod(sizes.frame)
    memory = max(VIEW_BYTES * math.prod(sizes.frame), 24 * voxels + SAMPLE_BYTES * samples // coarse**2)
    passes = 2.5 * iterations * 2 * _flops(n_tilts, sizes.frame[0] // coarse, sizes.shape(coarse)) / CPU_FLOPS
    seconds = 10 + samples / VIEW_SAMPLES + passes
    disk, bands = (F32 + 1) * samples // bin**2, -(-sizes.shape(bin)[2] // cfg.round)
    return Estimate(TORCH_BYTES + memory, memory, seconds, disk, 40 + 4 * bands, "constants of the views")


@dataclass(frozen=True)
class _SlabStage:
    """What the parts and the gather of a stage of slabs do, in numbers; see :mod:`gigascope.tomography.slab_rounds`."""

    shape: tuple[int, int, int]
    samples: int
    slabs: Slabs
    row_bytes: int
    volumes: int
    seconds: float
    parts: int
    rounds: int

    @classmethod
    def of(
        cls,
        sizes: Layout,
        bin: int,
        n_views: int,
        cfg: Reconstruct | Halves,
        *,
        volumes: int,
        iterations: int,
        method: str,
    ) -> _SlabStage:
        parts, shape = -(-cfg.parts // volumes), sizes.shape(bin)
        slabs = cut(
            sizes,
            bin,
            n_views,
            round=cfg.round,
            slab=cfg.slab,
            parts=parts,
            gib=cfg.memory_gib,
            method=method,
        )
        windows = map(slabs.window, range(len(slabs)))
        more = sum(window.stop - window.start for window in windows) / slabs.n
        n_s = sizes.frame[0] // bin
        seconds = volumes * more * 2.5 * iterations * 2 * _flops(n_views, n_s, shape) / CPU_FLOPS
        return cls(
            shape,
            n_views * n_s * shape[2],
            slabs,
            row_bytes(sizes, bin, n_views),
            volumes,
            seconds,
            cfg.parts,
            1 + n_rounds(cfg.iterations, cfg.round),
        )


def _slab_job(stage: _SlabStage, job: JobKind) -> Estimate:
    (z, x, y), n = stage.shape, stage.volumes
    voxels, cut_ = z * x * y, shard_plan((z, y, x), np.float32, "slabs")
    shape = f"({z}, {y}, {x})" if n == 1 else f"({n}, {z}, {y}, {x})"
    if job == "gather":
        memory = PYRAMID_SHARDS * cut_.shard_nbytes
        n_files = int(1.15 * n * cut_.n_shards) + 20
        return Estimate(TORCH_BYTES + memory, 0, 10 + n * voxels / 5e7, int(0.15 * F32 * n * voxels), n_files, shape)
    window = max(w.stop - w.start for w in map(stage.slabs.window, range(len(stage.slabs))))
    slab = stage.row_bytes * window
    memory = max(slab, WRITE_BYTES * z * x * min(y, cut_.shards[1]))
    # a state of 5 volumes and the dual of the views, as it was before a round and as it is after it
    states = 0 if len(stage.slabs) == 1 else 2 * (5 * voxels + stage.samples)
    jobs = stage.parts * stage.rounds
    disk = F32 * n * (states + 2 * voxels) // jobs
    bands = -(-y // stage.slabs.round)
    n_files = -(-n * bands * (1 if len(stage.slabs) == 1 else 12) // jobs) + 4
    return Estimate(
        TORCH_BYTES + memory, slab, 5 + stage.seconds / jobs, disk, n_files, f"{len(stage.slabs)} slabs, in rounds"
    )


def _one_after_the_other(jobs: dict[JobKind, Estimate], n_parts: int, shape: str) -> Estimate:
    """Needs of a stage that is one job, from those of the jobs that it may be cut into."""
    times = {"open": 1, "part": n_parts, "gather": 1}
    return Estimate(
        max(job.memory for job in jobs.values()),
        max(job.gpu_memory for job in jobs.values()),
        sum(times[kind] * job.seconds for kind, job in jobs.items()),
        sum(times[kind] * job.disk for kind, job in jobs.items()),
        sum(times[kind] * job.files for kind, job in jobs.items()),
        shape,
    )


def estimate_evaluate(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """Views and their reprojections at the finest level of the alignment, and the halves' transforms."""
    bin = residual_bin(layout(dataset, header), dataset.reconstruct.bin)
    sizes = layout(dataset, header, bin)
    samples = header.shape[0] * math.prod(sizes.frame) // bin**2
    voxels = math.prod(sizes.shape(bin))
    memory = 24 * samples + 48 * voxels
    return Estimate(BASE_BYTES + memory, memory, 20 + memory / 1e8, 10**5, 3, "tables")
