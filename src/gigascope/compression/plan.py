"""What the compression stages will need, from the shape of the volume alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gigascope.compression.gating.gate_layout import gate_plan
from gigascope.config.compression import Fit, Gate
from gigascope.config.dataset import CompressionDataset
from gigascope.runtime.resources import Estimate
from gigascope.stage import JobKind
from gigascope.store.plan import ShardPlan, shard_plan
from gigascope.store.pyramid import level_plans

if TYPE_CHECKING:
    from gigascope.compression.fitting.volume_fit import Options

F32 = 4
# Python with torch, numba and zarr loaded, the kernels compiled before; bytes per voxel of a brick with its halo; what
# is left of bricks that came before, per voxel of the volume and at most. Peaks of `gigascope run` on 0.1 to 34 million
# voxels, with 0.04 to 2.7 million in a brick with its halo.
TORCH_BYTES = 420 * 2**20
FIT_BYTES = 89
LEFT_BYTES, MOST_LEFT = 8.4, 80 * 2**20
# On a GPU, of a brick with its halo.
FIT_GPU_BYTES = 163
# Beside two shards of a decoded volume: pieces of it in float32, at most four times the volume. The same volumes, and
# 105 million voxels.
DECODE_BYTES = 90 * 2**20
# The codecs loaded too; bytes per voxel that they are run on, and per voxel that is measured, as far as it is held at
# once. Peaks on 0.1, 1.6, 12.8 and 115 million voxels, with all codecs, one and none.
EVALUATE_BYTES = 600 * 2**20
COMPARED_BYTES, MEASURED_BYTES = 74, 39
MOST_MEASURED = 2**26
AXES = ("t", "c", "z", "y", "x")
# Measured with `gigascope run` on volumes of 1 MB to 1 GiB; the peak is in its last line, and in `gigascope info`.
# Python with torch, scipy and zarr loaded, without the kernels.
LIGHT_BYTES = 290 * 2**20
# Buffers that do not grow with the volume: strips of the noise filter, blocks of the pyramid.
SMALL_BYTES = 24 * 2**20
# Planes on their way to a scratch file, where a shard is narrower than a plane.
SPILL_BYTES = 64 * 2**20
# numba, which only the simulation needs, and its arrays for each voxel.
NUMBA_BYTES = 110 * 2**20
PHANTOM_BYTES = 21
# A row of the table of cells.
CELL_BYTES = 40
# Evidence, masks, labels and counts of a voxel of a region; of an eighth of at most so many voxels, from which the
# scatter of the background is taken, kept, joined and sorted.
REGION_BYTES = 24
SAMPLE_BYTES, SAMPLED = 12, 16 * 64 * 128 * 256


@dataclass(frozen=True)
class VolumeHeader:
    """Shape of a volume, without its voxels.

    Attributes
    ----------
    shape : (t, c, z, y, x), 1 along axes that the file does not have
    dtype : of the file
    voxel_size_um : (z, y, x), micrometres
    notes : what was chosen, and from where
    """

    shape: tuple[int, int, int, int, int]
    dtype: str
    voxel_size_um: tuple[float, float, float]
    notes: tuple[str, ...] = ()

    @property
    def itemsize(self) -> int:
        """Bytes per voxel."""
        return np.dtype(self.dtype).itemsize

    @property
    def n_voxels(self) -> int:
        """Over all times and channels."""
        return math.prod(self.shape)

    def describe(self) -> list[str]:
        """Lines for a person."""
        t, c, z, y, x = self.shape
        frames = [f"{n} {name}" for n, name in ((t, "times"), (c, "channels")) if n > 1]
        size = " x ".join(f"{s:g}" for s in self.voxel_size_um)
        return [", ".join([*frames, f"{z} x {y} x {x} voxels (z, y, x) of {self.dtype}, {size} um"]), *self.notes]


@functools.cache
def read_header(dataset: CompressionDataset) -> VolumeHeader:
    """Header of a dataset's volume.

    Raises
    ------
    UserError : the file is missing, broken or inconsistent
    """
    phantom = dataset.inputs.phantom
    if phantom is not None:
        z, y, x = (b - a for a, b in phantom.crop) if phantom.crop else phantom.shape
        return VolumeHeader((1, 1, z, y, x), "uint16", (1.0, 1.0, 1.0), ("simulated neurons, truth known",))
    from gigascope.compression.source import open_volume

    source = open_volume(dataset.inputs, dataset.ingest)
    depth, height, width = (float(v or 1) for v in source.voxel_size_um)
    return VolumeHeader(source.shape, str(source.dtype), (depth, height, width), (*source.notes, *source.warnings))


def kept_shape(header: VolumeHeader) -> dict[str, int]:
    """Axes and sizes of the stored volume: time and channel only where there are several."""
    return {axis: n for axis, n in zip(AXES, header.shape) if axis in "zyx" or n > 1}


def _size(shape: Iterable[int]) -> str:
    """For a person: times and channels only where there are several."""
    t, c, z, y, x = shape
    return " x ".join(str(n) for n in (*(n for n in (t, c) if n > 1), z, y, x))


def _files(plan: ShardPlan, axes: Iterable[str]) -> int:
    """Of an image with its pyramid: shards, and the metadata of every level, the group and the checksums."""
    levels = level_plans(plan, tuple(axes))
    return sum(level.n_shards for level in levels) + len(levels) + 8


def _piece(n: int, step: int) -> int:
    """Longest piece of an axis, see :func:`gigascope.compression.slabs.cuts`."""
    thin = n % step if n > step and n % step < 32 else 0
    return min(n, step + thin)


def estimate_ingest(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """A slab of whole shards, and what is made of it: read, copied by Zarr, filtered strip by strip."""
    axes = kept_shape(header)
    cut = shard_plan(tuple(axes.values()), header.dtype)
    _, _, depth, n_y, n_x = header.shape
    slab = _piece(depth, cut.shards[-3]) * _piece(n_y, cut.shards[-2]) * n_x * header.itemsize
    held = 3 * slab + SMALL_BYTES + (SPILL_BYTES if cut.shards[-2] < n_y else 0)
    if dataset.inputs.phantom is not None:
        held += NUMBA_BYTES + PHANTOM_BYTES * math.prod(dataset.inputs.phantom.shape)
    cells = header.shape[0] * header.shape[1] * math.prod(-(-n // 32) for n in header.shape[2:])
    bytes_ = header.itemsize + (F32 if dataset.inputs.phantom is not None else 0)
    return Estimate(
        LIGHT_BYTES + held + CELL_BYTES * cells,
        0,
        5 + header.n_voxels / 1.5e7,
        int(1.15 * header.n_voxels * bytes_) + CELL_BYTES * cells,
        _files(cut, axes) + 20,
        f"{_size(header.shape)} {header.dtype}",
    )


def gate_rounds(cfg: Gate) -> int:
    """Rounds of a gate's items: see :data:`gigascope.compression.gating.gate_rounds.ROUNDS`."""
    return {"intensity": 1, "threshold": 5, "network": 7}[cfg.mode]


def estimate_gate(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """One region at a time."""
    return _estimate_gate(dataset, header, "part")


def estimate_gate_job(dataset: CompressionDataset, header: VolumeHeader, job: JobKind) -> Estimate:
    """The empty store; a share of the regions in one round; the coarser levels."""
    whole = _estimate_gate(dataset, header, job)
    if job == "part":
        jobs = dataset.gate.parts * gate_rounds(dataset.gate)
        seconds, disk = 5 + whole.seconds / jobs, int(whole.disk / 1.15) // jobs
        return replace(whole, seconds=seconds, disk=disk, files=-(-whole.files // jobs), shape="its regions")
    if job == "gather":
        return replace(whole, disk=whole.disk - int(whole.disk / 1.15))
    return replace(whole, seconds=5, disk=0, files=4, shape="an empty mask")


def _estimate_gate(dataset: CompressionDataset, header: VolumeHeader, job: JobKind) -> Estimate:
    """Evidence, masks and labels of a region; points and activations of the network."""
    cfg, axes = dataset.gate, kept_shape(header)
    cut = gate_plan(tuple(axes.values()))
    region = math.prod(min(s, n) for s, n in zip(cut.shards, cut.shape))
    memory, gpu = LIGHT_BYTES + SMALL_BYTES, 0
    if cfg.mode != "intensity":
        # the first job of all, in the same process where there is one part
        memory += SAMPLE_BYTES * min(math.prod(header.shape[2:]), SAMPLED) // 8
    if job == "part":
        memory += REGION_BYTES * region
        if cfg.mode == "network":
            points = 2 * min(math.prod(header.shape[2:]), 1 << 22)
            activations = 10 * F32 * cfg.network.width * max(cfg.network.batch, 1 << 17)
            memory, gpu = memory + 40 * points + activations, 40 * points + activations
    seconds = 5 + header.n_voxels / 1e7
    if cfg.mode == "network":
        weights = cfg.network.width**2 * (cfg.network.depth - 1)
        seconds += 6 * weights * (cfg.network.steps * cfg.network.batch + header.n_voxels / 3) / 5e10
    disk, shape = int(1.15 * header.n_voxels), "occupancy of " + _size(header.shape)
    return Estimate(memory, gpu, seconds, disk, _files(cut, axes) + 4, shape)


def fit_rounds(cfg: Fit) -> int:
    """Rounds of the bricks, see :mod:`gigascope.compression.fitting.frame_fit`; one more for a residual layer."""
    return 1 + max(1, 8 * cfg.sweeps) + int(has_residual(cfg))


def has_residual(cfg: Fit) -> bool:
    """The file may get a residual layer: for a bound, or for a PSNR that the noise keeps Gaussians from."""
    return cfg.max_error is not None or cfg.psnr is not None


def fit_options(cfg: Fit) -> Options:
    """The section as the fit takes it."""
    from gigascope.compression.fitting.volume_fit import Options
    from gigascope.compression.gmix.quantiser import Quantiser

    bits = cfg.quantise
    law = Quantiser(bits.position_bits, bits.scale_bits, bits.rotation_bits, bits.amplitude_bits)
    names = ("iterations", "sweep_iterations", "halo", "c_max", "weight", "robust", "nonneg")
    frame = {name: getattr(cfg, name) for name in names}
    return Options(cfg.brick, cfg.sweeps, {**frame, "finish_iterations": bits.iterations}, law, bits.adaptive)


def residual_target(cfg: Fit, facts: Mapping[str, Any]) -> dict[str, int] | None:
    """Settings of the residual layer; None: the file has none."""
    if cfg.max_error is not None:
        return {"bound": cfg.max_error}
    return {"step": facts["step"]} if facts["step"] is not None else None


def estimate_fit(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """One brick with its halo at a time."""
    cfg = dataset.fit
    seen = math.prod(_seen(n, b, cfg.halo) for n, b in zip(header.shape[2:], cfg.brick))
    memory = TORCH_BYTES + FIT_BYTES * seen + min(int(LEFT_BYTES * header.n_voxels), MOST_LEFT)
    frames = math.prod(header.shape[:2])
    fitted = frames * math.prod(_fitted(n, b, cfg.halo) for n, b in zip(header.shape[2:], cfg.brick))
    seconds = 20 + 6e-8 * fitted * cfg.iterations
    return Estimate(memory, FIT_GPU_BYTES * seen, seconds, header.n_voxels // 20, 24, "mixture of Gaussians")


def _seen(n: int, brick: int, halo: int) -> int:
    """Most that a brick and its halo have of an axis: there is a halo towards neighbours only."""
    return min(n, brick + halo * min(2, -(-n // brick) - 1))


def _fitted(n: int, brick: int, halo: int) -> int:
    """What all bricks along an axis have together: halos are fitted by both neighbours."""
    return n + 2 * halo * (-(-n // brick) - 1)


def estimate_fit_job(dataset: CompressionDataset, header: VolumeHeader, job: JobKind) -> Estimate:
    """Trials for the target; a share of the bricks in one round; the file."""
    whole, cfg = estimate_fit(dataset, header), dataset.fit
    if job == "part":
        seconds = 10 + whole.seconds / (cfg.parts * fit_rounds(cfg))
        return replace(whole, seconds=seconds, disk=whole.disk // cfg.parts, shape="Gaussians of its bricks")
    if job == "gather":
        return replace(whole, seconds=10 + header.n_voxels / 1e6)
    searched = cfg.ratio is not None or cfg.bytes is not None or cfg.psnr is not None
    seconds = 10 + header.n_voxels / 2e7 + (whole.seconds / 4 if searched else 0)
    return replace(whole, seconds=seconds, disk=0, files=4, shape="lambda for the target")


def estimate_decode(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """One shard at a time."""
    shape = (*header.shape[:2], *(-(-n // f) for n, f in zip(header.shape[2:], dataset.decode.factor)))
    axes = {axis: n for axis, n in zip(AXES, shape) if axis in "zyx" or n > 1}
    cut = shard_plan(tuple(axes.values()), header.dtype)
    shard = math.prod(min(n, s) for n, s in zip(cut.shape, cut.shards))
    n = math.prod(shape)
    held = 2 * shard * header.itemsize + min(4 * n * header.itemsize, DECODE_BYTES)
    disk = int(1.15 * n * header.itemsize)
    return Estimate(TORCH_BYTES + held, held, 5 + n / 2e7, disk, _files(cut, axes), "decoded, " + _size(shape))


def estimate_decode_job(dataset: CompressionDataset, header: VolumeHeader, job: JobKind) -> Estimate:
    """The empty store; a share of its shards; the coarser levels."""
    whole, parts = estimate_decode(dataset, header), dataset.decode.parts
    if job == "part":
        seconds, disk = 5 + whole.seconds / parts, int(whole.disk / 1.15) // parts
        return replace(whole, seconds=seconds, disk=disk, files=-(-whole.files // parts), shape="its shards")
    if job == "gather":
        return replace(whole, disk=whole.disk - int(whole.disk / 1.15))
    return replace(whole, seconds=5, disk=0, files=4, shape="an empty volume")


def estimate_evaluate(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """One frame at a time: what the codecs are run on, or what the measures hold, whichever is more."""
    cfg, frame = dataset.evaluate, math.prod(header.shape[2:])
    compared = min(frame, cfg.max_voxels) if cfg.codecs else 0
    held = max(COMPARED_BYTES * compared, MEASURED_BYTES * min(frame, MOST_MEASURED))
    n_compared = min(header.n_voxels, max(compared, cfg.max_voxels)) if cfg.codecs else 0
    seconds = 10 + 2e-6 * header.n_voxels + 2.5e-7 * n_compared * (cfg.rates + 1) * len(cfg.codecs)
    return Estimate(EVALUATE_BYTES + held, 0, seconds, 10**6, 12, "tables")
