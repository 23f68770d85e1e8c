"""Volumes in OME-Zarr 0.4 and 0.5, and in plain Zarr arrays."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from gigascope.store.readers.units import NANOMETRES
from gigascope.store.readers.volume import (
    AXES,
    KEYS,
    UNKNOWN,
    Keys,
    VolumeSource,
    VoxelSize,
    grey_dtype,
    name_axes,
    note_dtype,
    plane_reader,
    shape_of,
)
from gigascope.store.readers.zarr_image import ZarrImage, open_image, read_part

_TYPES = {"time": "t", "channel": "c"}


def open_zarr_volume(path: Path, axes: str | None = None, keys: Keys = KEYS) -> VolumeSource:
    """Open the first image of a store at full resolution; see :func:`gigascope.store.readers.volume.open_volume_file`.

    Raises
    ------
    UserError : not Zarr, damaged or incomplete metadata, another version, a plate, axes that are not clear
    """
    found = open_image(path, keys.path)
    array = found.array
    stored = np.dtype(array.dtype)
    letters, notes = name_axes([_letter(axis) for axis in found.axes], array.shape, axes, path, keys)

    def read(index: tuple[int | slice, ...]) -> np.ndarray:
        return read_part(array, index, "a chunk", path)

    size, origin = _voxel_size(found, letters)
    source = VolumeSource(
        path=path,
        format=found.format,
        shape=shape_of(letters, array.shape),
        dtype=grey_dtype(stored, path, keys),
        read_planes=plane_reader(letters, read),
        voxel_size_um=size,
        origin=origin,
        notes=notes,
        files=[found.metadata_file, found.array_folder],
    )
    if (remark := found.missing_chunks()) is not None:
        source.notes.append(remark)
    note_dtype(source, stored)
    return source


def _letter(axis: dict[str, object]) -> str:
    name = str(axis["name"]).lower()
    if name in set(AXES):
        return name
    return _TYPES.get(str(axis.get("type")), UNKNOWN if name.startswith("axis ") else name)


def _voxel_size(found: ZarrImage, letters: str) -> tuple[VoxelSize, str]:
    if not found.image:
        return (None, None, None), "a plain Zarr array carries no voxel size"
    scale, _ = found.steps()
    sizes: dict[str, float | None] = {}
    for letter, axis, step in zip(letters, found.axes, scale):
        unit = NANOMETRES.get(str(axis.get("unit") or ""))
        known = unit is not None and math.isfinite(step) and step > 0
        sizes[letter] = float(step) * unit / 1e3 if known and unit is not None else None
    size = (sizes.get("z"), sizes.get("y"), sizes.get("x"))
    return size, "the OME-Zarr scale" if any(size) else "the axes of the OME-Zarr have no unit of length"
