"""What the compression stages will need, from the shape of the volume alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gigascope.config.compression import Fit, Gate
from gigascope.config.dataset import CompressionDataset
from gigascope.runtime.resources import BASE_BYTES, Estimate
from gigascope.stage import JobKind

if TYPE_CHECKING:
    from gigascope.compression.volume_fit import Options

F32 = 4
# Noise variances of squared error that a bit is worth where no target is given.
DEFAULT_LAMBDA = 4.0
AXES = ("t", "c", "z", "y", "x")


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


def estimate_ingest(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """One layer of 64 planes at a time."""
    _, _, _, y, x = header.shape
    held = 3 * 64 * y * x * (header.itemsize + F32)
    disk = int(1.15 * header.n_voxels * header.itemsize)
    return Estimate(BASE_BYTES + held, 0, 5 + header.n_voxels / 2e7, disk, 16, f"{header.shape} {header.dtype}")


def gate_rounds(cfg: Gate) -> int:
    """Rounds of a gate's items: see :data:`gigascope.compression.gate_rounds.ROUNDS`."""
    return {"intensity": 1, "threshold": 5, "network": 7}[cfg.mode]


def estimate_gate(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """One region at a time."""
    held = 40 * 64 * 256 * 256
    return Estimate(
        BASE_BYTES + held, held, 5 + header.n_voxels / 5e6, header.n_voxels, 16, f"{header.shape} occupancy"
    )


def estimate_gate_job(dataset: CompressionDataset, header: VolumeHeader, job: JobKind) -> Estimate:
    """One region at a time, whatever the job."""
    return estimate_gate(dataset, header)


def fit_rounds(cfg: Fit) -> int:
    """Rounds of a fit's bricks: see :func:`gigascope.compression.frame_fit.rounds`; one more for a residual layer."""
    return 1 + max(1, 8 * cfg.sweeps) + int(has_residual(cfg))


def has_residual(cfg: Fit) -> bool:
    """The file may get a residual layer: for a bound, or for a PSNR that the noise keeps Gaussians from."""
    return cfg.max_error is not None or cfg.psnr is not None


def fit_options(cfg: Fit) -> Options:
    """The section as the fit takes it."""
    from gigascope.compression.quantiser import Quantiser
    from gigascope.compression.volume_fit import Options

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
    """One brick with its halo at a time; all Gaussians of a volume when the file is written."""
    cfg = dataset.fit
    seen = math.prod(n + 2 * cfg.halo for n in cfg.brick)
    held = 40 * seen
    seconds = 20 + 6e-8 * header.n_voxels * cfg.iterations
    return Estimate(BASE_BYTES + held, held, seconds, header.n_voxels // 20, 24, "mixture of Gaussians")


def estimate_fit_job(dataset: CompressionDataset, header: VolumeHeader, job: JobKind) -> Estimate:
    """A part has its share of the bricks."""
    whole = estimate_fit(dataset, header)
    parts = dataset.fit.parts if job == "part" else 1
    return Estimate(whole.memory, whole.gpu_memory, whole.seconds / parts, whole.disk, whole.files, whole.shape)


def estimate_decode(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """One shard at a time."""
    shard = 128 * 2**20
    n = header.n_voxels // math.prod(dataset.decode.factor)
    held = shard * (1 + F32 // header.itemsize * 3)
    disk = int(1.15 * n * header.itemsize)
    return Estimate(BASE_BYTES + held, held, 5 + n / 2e7, disk, 16, f"{n} voxels decoded")


def estimate_decode_job(dataset: CompressionDataset, header: VolumeHeader, job: JobKind) -> Estimate:
    """A part has its share of the shards."""
    whole = estimate_decode(dataset, header)
    parts = dataset.decode.parts if job == "part" else 1
    return Estimate(whole.memory, whole.gpu_memory, whole.seconds / parts, whole.disk, whole.files, whole.shape)


def estimate_evaluate(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """The box that codecs are run on, with what they and the measures make of it; the rest box by box."""
    return Estimate(BASE_BYTES, 0, 60, 10**6, 12, "tables")
