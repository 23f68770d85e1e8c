"""Volumes in HDF5: a dataset is named after its file, as in `ovule.h5/raw`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.volume import (
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

SUFFIXES = (".h5", ".hdf5", ".hdf")
# What the image is called where a file has several datasets, by programs that write labels beside it.
_IMAGE = "raw"
# PlantSeg and other programs of this family: (z, y, x), micrometres.
_SIZE = "element_size_um"


def hdf5_path(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> tuple[Path, str] | None:
    """The file and the dataset in it that a path names, the dataset empty where it names the file alone."""
    for part in (path, *path.parents):
        if part.suffix.lower() in suffixes and not part.is_dir():
            return part, "" if part == path else path.relative_to(part).as_posix()
    return None


def open_hdf5_volume(file: Path, name: str = "", axes: str | None = None, keys: Keys = KEYS) -> VolumeSource:
    """Open a dataset; see :func:`gigascope.store.readers.volume.open_volume_file`.

    Parameters
    ----------
    name : of the dataset; empty: `raw`, or the only one there is

    Raises
    ------
    UserError : no HDF5, no such dataset, several of which none is called raw, axes that are not clear
    """
    import h5py

    with open_hdf5(file, keys.path) as opened:
        chosen = choose_dataset(opened, name, file, keys.path)
        found = opened[chosen]
        size, stored = tuple(int(n) for n in found.shape), np.dtype(found.dtype)
        letters, notes = name_axes([*[UNKNOWN] * (len(size) - 2), "y", "x"], size, axes, file, keys)
        voxel, origin = voxel_size(found)

    def read(index: tuple[int | slice, ...]) -> np.ndarray:
        try:
            with h5py.File(file, "r") as again:
                return np.asarray(again[chosen][index])
        except OSError as error:
            what = f"{chosen} cannot be read ({str(error).splitlines()[0]})."
            raise UserError(what, where=file, do="Copy the file again.") from None

    source = VolumeSource(
        path=file / chosen,
        format="HDF5",
        shape=shape_of(letters, size),
        dtype=grey_dtype(stored, file, keys),
        read_planes=plane_reader(letters, read),
        voxel_size_um=voxel,
        origin=origin,
        notes=notes,
        files=[file],
    )
    note_dtype(source, stored)
    return source


def open_hdf5(file: Path, key: str) -> Any:
    """An open `h5py.File`, for reading.

    Parameters
    ----------
    key : of the config that names it

    Raises
    ------
    UserError : no such file, or no HDF5
    """
    import h5py

    if not file.exists():
        raise UserError("no such file or folder.", where=file, do=f"Check {key}.")
    try:
        return h5py.File(file, "r")
    except OSError as error:
        what = f"is no HDF5 file, or it is damaged ({str(error).splitlines()[0]})."
        raise UserError(what, where=file, do="Copy it again.") from None


def choose_dataset(
    opened: Any, name: str, file: Path, key: str, *, least: int = 2, preferred: tuple[str, ...] = (_IMAGE,)
) -> str:
    """Name of the dataset that is meant.

    Parameters
    ----------
    name : as given; empty: the only one there is, or one of `preferred`
    key : of the config that names it
    least : axes that it must have

    Raises
    ------
    UserError : no such dataset, or several
    """
    import h5py

    there: list[str] = []
    opened.visititems(
        lambda at, item: there.append(at) if isinstance(item, h5py.Dataset) and item.ndim >= least else None
    )
    if name in there:
        return name
    listed = ", ".join(there) or "none"
    if name:
        raise UserError(f"has no dataset {name}; it has: {listed}.", where=file, do=f"Correct {key}.")
    known = [each for each in preferred if each in there]
    if len(there) == 1 or known:
        return there[0] if len(there) == 1 else known[0]
    raise UserError(f"has the datasets: {listed}.", where=file, do=f"Name one in {key}, as in {file.name}/raw.")


def voxel_size(found: Any) -> tuple[VoxelSize, str]:
    """Voxel size of a dataset in micrometres, (z, y, x), and where it is from, or why there is none."""
    sizes = [float(v) for v in np.atleast_1d(found.attrs.get(_SIZE, []))]
    if len(sizes) == 3 and all(math.isfinite(s) and s > 0 for s in sizes):
        return (sizes[0], sizes[1], sizes[2]), f"the attribute {_SIZE}"
    return (None, None, None), f"the dataset has no attribute {_SIZE}"
