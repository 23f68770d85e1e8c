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
from gigascope.tomography import geometry

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


@dataclass(frozen=True)
class Volume:
    """Shapes at full resolution and at the finest level of the joint alignment."""

    frame: tuple[int, int]
    shape: tuple[int, int, int]
    bins: tuple[int, ...]
    level: tuple[int, int, int]


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


def volume(dataset: TomographyDataset, header: SeriesHeader) -> Volume:
    """Shapes of the reconstruction; an `auto` extent counts as `section`, the larger one."""
    cfg = dataset.reconstruct
    height, width = header.shape[1:]
    phi = math.radians(header.tilt_axis_deg)
    full = geometry.frame_shape((height, width), phi)
    thickness = cfg.thickness_nm or geometry.guessed_thickness(full[0] * header.pixel_size_nm, dataset.ingest.extent)
    planes = geometry.volume_thickness(thickness, header.pixel_size_nm, cfg.hz)
    bins = (
        tuple(cfg.align.bins or geometry.alignment_bins(*full, planes, cfg.align.width)) if cfg.align.enabled else (1,)
    )
    largest = max(*bins, cfg.bin)
    frame = geometry.frame_shape((height, width), phi, largest)
    planes = geometry.volume_thickness(thickness, header.pixel_size_nm, cfg.hz, largest)
    extent = "section" if dataset.ingest.extent == "auto" else dataset.ingest.extent
    across = geometry.volume_width(frame[0], planes, np.radians(header.tilt_deg), extent, cfg.hz, largest)
    shape = (planes, across, frame[1])
    return Volume(
        frame,
        tuple(n // cfg.bin for n in shape),  # type: ignore[arg-type]
        bins,
        tuple(n // bins[-1] for n in shape),  # type: ignore[arg-type]
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
    factor = max(1, 2 ** math.ceil(math.log2(max(height, width) / dataset.prealign.width)))
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
    sizes = volume(dataset, header)
    n_tilts = header.shape[0]
    voxels = math.prod(sizes.shape)
    samples = n_tilts * sizes.frame[0] * sizes.frame[1]
    level_samples = samples // sizes.bins[-1] ** 2
    full = 24 * voxels + 20 * samples
    joint = (24 * cfg.align.groups * math.prod(sizes.level) + 40 * level_samples + 8 * samples) * cfg.align.enabled
    seconds = 2.5 * cfg.iterations * 2 * _flops(n_tilts, sizes.frame[0] // cfg.bin, sizes.shape) / CPU_FLOPS
    if cfg.align.enabled:
        level = 2.5 * 2 * _flops(n_tilts, sizes.frame[0] // sizes.bins[-1], sizes.level) / CPU_FLOPS
        seconds += 1.5 * cfg.align.outer * (cfg.align.inner + 1) * level
    memory = max(full, joint)
    z, x, y = sizes.shape
    return Estimate(
        BASE_BYTES + memory,
        memory,
        10 + seconds,
        int(voxels * F32 * 1.15) + samples * F32,
        24,
        f"({z}, {y}, {x}) tomogram",
    )


def estimate_halves(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """Two runs of half the views each, binned."""
    sizes = volume(dataset, header)
    factor = dataset.halves.bin
    whole = estimate_reconstruct(dataset, header)
    shape = tuple(n // factor for n in sizes.shape)
    voxels = math.prod(shape)
    samples = header.shape[0] * math.prod(sizes.frame)
    memory = 24 * voxels + 12 * samples
    return Estimate(
        BASE_BYTES + memory,
        memory,
        10 + whole.seconds / factor**3,
        2 * voxels * F32,
        8,
        f"(2, {shape[0]}, {shape[2]}, {shape[1]}) half tomograms",
    )


def estimate_evaluate(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """Views and their reprojections at the finest level of the alignment, and the halves' transforms."""
    sizes = volume(dataset, header)
    samples = header.shape[0] * math.prod(sizes.frame)
    voxels = math.prod(sizes.shape) // dataset.halves.bin**3
    memory = 16 * samples + 32 * voxels + F32 * math.prod(sizes.shape)
    return Estimate(BASE_BYTES + memory, memory, 20 + memory / 1e8, 10**5, 3, "tables")
