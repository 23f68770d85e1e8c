"""What the compression stages will need, from the shape of the volume alone."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from gigascope.config.compression import Gate
from gigascope.config.dataset import CompressionDataset
from gigascope.runtime.resources import BASE_BYTES, Estimate
from gigascope.stage import JobKind

F32 = 4
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
