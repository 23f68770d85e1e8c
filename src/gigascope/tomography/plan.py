"""What the tomography chain will need: shapes through the chain, memory, time and disk, from the header alone.

Nothing here reads pixels or imports torch; `gigascope check` and the workflow's resources are made from it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from gigascope.config.dataset import TomographyDataset
from gigascope.runtime.resources import BASE_BYTES, Estimate
from gigascope.tomography.layout import Layout, lay_out, prealign_bin, residual_bin

F32 = 4
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
    """The binned stack and a few transforms of single views."""
    n_tilts, height, width = header.shape
    factor = prealign_bin((height, width), dataset.prealign.width)
    binned = n_tilts * (height // factor) * (width // factor)
    held = n_tilts * height * width * F32 * 2 + binned * F32 * 4
    return Estimate(
        BASE_BYTES + held,
        held,
        5 + binned * dataset.prealign.passes / 2e6,
        binned * F32,
        6,
        f"({n_tilts}, {height // factor}, {width // factor}) aligned for viewing",
    )


def estimate_reconstruct(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """State of tomography.md section 8: 20 B per voxel (u, ubar, p) and 8 B per sample, K volumes while aligning."""
    cfg = dataset.reconstruct
    sizes = layout(dataset, header)
    n_tilts = header.shape[0]
    shape = sizes.shape(cfg.bin)
    voxels = math.prod(shape)
    samples = n_tilts * math.prod(sizes.frame)
    full = 24 * voxels + 20 * samples
    seconds = 2.5 * cfg.iterations * 2 * _flops(n_tilts, sizes.frame[0] // cfg.bin, shape) / CPU_FLOPS
    joint = 0
    for bin in sizes.bins:
        level = sizes.shape(bin)
        joint = max(joint, 24 * cfg.align.groups * math.prod(level) + 40 * samples // bin**2 + 8 * samples)
        pass_seconds = 2 * _flops(n_tilts, sizes.frame[0] // bin, level) / CPU_FLOPS
        seconds += 2.5 * cfg.align.outer * (cfg.align.inner + 1) * pass_seconds
    memory = max(full, joint)
    disk = int(voxels * F32 * 1.15) + samples * F32
    z, x, y = shape
    return Estimate(BASE_BYTES + memory, memory, 10 + seconds, disk, 24, f"({z}, {y}, {x}) tomogram")


def estimate_halves(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """Two runs of half the views each, binned."""
    factor = dataset.reconstruct.bin * dataset.halves.bin
    sizes = layout(dataset, header, factor)
    z, x, y = sizes.shape(factor)
    voxels = z * x * y
    samples = header.shape[0] * math.prod(sizes.frame) // factor**2
    memory = 32 * voxels + 20 * samples
    passes = 2.5 * dataset.reconstruct.iterations * 2
    seconds = 10 + passes * _flops(header.shape[0], sizes.frame[0] // factor, (z, x, y)) / CPU_FLOPS
    return Estimate(BASE_BYTES + memory, memory, seconds, 2 * voxels * F32, 8, f"(2, {z}, {y}, {x}) half tomograms")


def estimate_evaluate(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """Views and their reprojections at the finest level of the alignment, and the halves' transforms."""
    bin = residual_bin(layout(dataset, header), dataset.reconstruct.bin)
    sizes = layout(dataset, header, bin)
    samples = header.shape[0] * math.prod(sizes.frame) // bin**2
    voxels = math.prod(sizes.shape(bin))
    memory = 24 * samples + 48 * voxels
    return Estimate(BASE_BYTES + memory, memory, 20 + memory / 1e8, 10**5, 3, "tables")
