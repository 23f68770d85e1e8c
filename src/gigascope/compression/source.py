"""The volume a dataset names, opened: readers called with what the config says, or a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gigascope.errors import UserError
from gigascope.store.readers.volume import VolumeSource, VoxelSize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gigascope.config.compression import CompressionInputs, Ingest, NeuronVolume


def open_source(inputs: CompressionInputs, cfg: Ingest, seed: int) -> tuple[VolumeSource, NDArray[np.float32] | None]:
    """The volume of a dataset, read or simulated, and its noise-free truth where that is known."""
    return (open_volume(inputs, cfg), None) if inputs.phantom is None else simulate(inputs.phantom, seed)


def open_volume(inputs: CompressionInputs, cfg: Ingest) -> VolumeSource:
    """Open the volume file of a dataset, with the channels and times that are kept; no voxels are read.

    Returns
    -------
    VolumeSource : its voxel size is complete

    Raises
    ------
    UserError : missing, broken or inconsistent files; see :func:`gigascope.store.readers.volume.open_volume_file`
    """
    from gigascope.store.readers.volume import open_volume_file

    if inputs.volume is None:
        raise ValueError("a simulated volume has no file")
    source = open_volume_file(inputs.volume, cfg.axes)
    times = _chosen("times", cfg.times, source.shape[0], source.path)
    channels = _chosen("channels", cfg.channels, source.shape[1], source.path)
    size, notes, warnings = _voxel_size(source, cfg.voxel_size_um)
    read = source.read_planes
    return replace(
        source,
        shape=(len(times), len(channels), *source.shape[2:]),
        read_planes=lambda t, c, z0, z1: read(times[t], channels[c], z0, z1),
        voxel_size_um=size,
        notes=[*source.notes, *notes],
        warnings=[*source.warnings, *warnings],
    )


def _chosen(name: str, wanted: tuple[int, ...] | None, n: int, path: Path) -> Sequence[int]:
    if wanted is None:
        return range(n)
    beyond = [i for i in wanted if i >= n]
    if beyond:
        there = f"0 to {n - 1}" if n > 1 else "only 0"
        raise UserError(f"has {name} {there}, not {beyond[0]}.", where=path, do=f"Correct ingest.{name}.")
    return wanted


def _voxel_size(
    source: VolumeSource, given: tuple[float, float, float] | None
) -> tuple[VoxelSize, list[str], list[str]]:
    """By hand, else from the file, else 1; with notes and warnings."""
    if given is not None:
        return given, ["voxel size from ingest.voxel_size_um"], []
    size = source.voxel_size_um
    if all(size):
        return size, [f"voxel size from {source.origin}"], []
    z, y, x = size
    advice = "set ingest.voxel_size_um if it is not"
    if x is None and y is None:
        warning = f"the voxel size is not known ({source.origin}): 1 um was assumed; {advice}."
        return (z or 1.0, 1.0, 1.0), [], [warning]
    lateral = x or y or 1.0
    one_plane = source.shape[2] == 1
    text = f"the distance of the planes is not known: {lateral:g} um as between pixels was assumed; {advice}."
    return (z or lateral, y or lateral, x or lateral), [], [] if one_plane else [text]


def simulate(cfg: NeuronVolume, seed: int) -> tuple[VolumeSource, NDArray[np.float32]]:
    """Simulate neurons; seed 0 gives the bench volume of the specification, voxel for voxel, any other one of its own.

    Parameters
    ----------
    seed : the dataset's

    Returns
    -------
    the volume as a source, and its noise-free truth (z, y, x), grey values
    """
    from gigascope.compression.bench_volume import SEED, bench_volume

    made = bench_volume(cfg.shape, seed=seed or SEED, peak=cfg.peak_electrons)
    if cfg.crop is not None:
        (z0, z1), (y0, y1), (x0, x1) = cfg.crop
        made = made.crop((z0, y0, x0), (z1 - z0, y1 - y0, x1 - x0))
    volume = made.volume
    source = VolumeSource(
        path=Path("phantom"),
        format="simulation",
        shape=(1, 1, volume.shape[0], volume.shape[1], volume.shape[2]),
        dtype=volume.dtype,
        read_planes=lambda t, c, z0, z1: volume[z0:z1],
        voxel_size_um=(1.0, 1.0, 1.0),
        notes=[f"simulated neurons, {cfg.peak_electrons:g} photo-electrons at the brightest voxel; the truth is known"],
    )
    return source, made.clean
