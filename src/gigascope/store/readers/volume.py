"""General volumes: TIFF of every kind, stacks of TIFF files, OME-Zarr and Zarr arrays, read plane by plane.

Whatever order a file keeps its axes in, planes come out as (z, y, x) of one time and one channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gigascope.errors import ShapeError, UserError

KEY = "inputs.volume"
AXES = "tczyx"
UNKNOWN = "?"
# Types kept as they are, and those whose values float32 holds to its own precision.
KEPT = {"u1", "i1", "u2", "i2", "f4"}
NARROWED = {"f2", "f8"}
# Read where labels may be meant; bools become 0 and 1.
WIDE = {"u4", "i4", "u8", "i8"}

Shape5 = tuple[int, int, int, int, int]
Planes = Callable[[int, int, int, int], np.ndarray]
VoxelSize = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Keys:
    """What the config calls a volume and its axes, for messages, and which values are taken.

    Attributes
    ----------
    path : key that names the file
    axes : key that names its axes
    wide : integers of 32 and 64 bits and bools are taken too
    """

    path: str = KEY
    axes: str = "ingest.axes"
    wide: bool = False


KEYS = Keys()


@dataclass
class VolumeSource:
    """A volume on disk, opened but not read.

    Attributes
    ----------
    path : file, folder or glob it comes from
    format : in words, for people
    shape : (t, c, z, y, x), 1 along axes that the file does not have
    dtype : of the arrays `read` returns, native byte order
    read_planes : (time, channel, first plane, last + 1) -> (z, y, x)
    voxel_size_um : (z, y, x) micrometres; None where nothing says it
    origin : where the voxel size comes from, or why there is none
    notes : choices made for the user, one sentence each
    warnings : what may be wrong, one sentence each
    files : every file or folder that was looked into, for provenance
    """

    path: Path
    format: str
    shape: Shape5
    dtype: np.dtype
    read_planes: Planes = field(repr=False)
    voxel_size_um: VoxelSize = (None, None, None)
    origin: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def read(self, t: int, c: int, z0: int, z1: int) -> np.ndarray:
        """Planes z0 to z1 - 1 of one time and channel, a fresh contiguous (z, y, x) array of `dtype`.

        Raises
        ------
        IndexError : no such planes
        UserError : the file cannot give them (damaged chunk, unreadable page)
        """
        n_t, n_c, n_z, n_y, n_x = self.shape
        if not (0 <= t < n_t and 0 <= c < n_c and 0 <= z0 < z1 <= n_z):
            raise IndexError(f"{self.path} of shape {self.shape} has no planes {z0} to {z1} of time {t}, channel {c}")
        planes = self.read_planes(t, c, z0, z1)
        if planes.shape != (z1 - z0, n_y, n_x):
            raise ShapeError(f"{self.path} gave planes of {planes.shape}, expected {(z1 - z0, n_y, n_x)}")
        return np.array(planes, dtype=self.dtype, order="C")


def open_volume_file(path: str | Path, axes: str | None = None, keys: Keys = KEYS) -> VolumeSource:
    """Open a volume, whatever its format.

    Parameters
    ----------
    path : TIFF file, folder or glob of TIFF files, OME-Zarr image or Zarr array, HDF5 file or a dataset in it
    axes : order of the file's axes, letters of t, c, z, y, x; for a stack of files the first letter is the files';
        None: as the file says
    keys : of the config that say so, and which values are taken

    Raises
    ------
    UserError : missing, truncated, damaged or mixed files, axes that are not clear, values that are not real numbers of
        at most 32 bits
    """
    from gigascope.store.readers import volume_hdf5, volume_tiff, volume_zarr
    from gigascope.store.readers.tiff_file import tiff_files
    from gigascope.store.readers.zarr_image import MARKERS, is_zarr

    path = Path(path)
    if path.name in MARKERS and path.is_file():
        return volume_zarr.open_zarr_volume(path.parent, axes, keys)
    if (found := volume_hdf5.hdf5_path(path)) is not None:
        return volume_hdf5.open_hdf5_volume(*found, axes, keys)
    if any(sign in path.name for sign in "*?[") and not path.exists():
        return volume_tiff.open_tiff_stack(tiff_files(path.parent.glob(path.name)), path, axes, keys)
    if not path.exists():
        raise UserError("no such file or folder.", where=path, do=f"Check {keys.path}.")
    if is_zarr(path):
        return volume_zarr.open_zarr_volume(path, axes, keys)
    if path.is_dir():
        return volume_tiff.open_tiff_stack(tiff_files(path.iterdir()), path, axes, keys)
    if _looks_like_tiff(path, keys):
        return volume_tiff.open_tiff_volume(path, axes, keys)
    raise UserError(
        f"{path.suffix or 'this kind of'} files are not read.",
        where=path,
        do="Convert it to TIFF or OME-Zarr; .tif, .ome.tif, .btf, .zarr, .h5 and folders of TIFF files are read.",
    )


def _looks_like_tiff(path: Path, keys: Keys) -> bool:
    from gigascope.store.readers.tiff_file import SUFFIXES

    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}).", where=path, do=f"Check {keys.path}.") from None


def grey_dtype(dtype: np.dtype, path: Path, keys: Keys = KEYS) -> np.dtype:
    """The type that planes are handed over in: the file's own in native byte order, or float32.

    Raises
    ------
    UserError : not real numbers, or integers that float32 cannot hold
    """
    kind = f"{dtype.kind}{dtype.itemsize}"
    if kind in KEPT or (keys.wide and kind in WIDE):
        return dtype.newbyteorder("=")
    if kind in NARROWED:
        return np.dtype(np.float32)
    if keys.wide and dtype.kind == "b":
        return np.dtype(np.uint8)
    advice = "Save it as integers of 8 or 16 bits, or as 32-bit floating point."
    if dtype.kind in "ui":
        raise UserError(f"holds integers of {8 * dtype.itemsize} bits ({dtype}).", where=path, do=advice)
    raise UserError(f"holds values of type {dtype}, which are no grey values.", where=path, do=advice)


def note_dtype(source: VolumeSource, stored: np.dtype) -> None:
    """Say so where values are narrowed."""
    if f"{stored.kind}{stored.itemsize}" in NARROWED:
        source.notes.append(f"values of {stored} are kept as float32")


def name_axes(
    names: Sequence[str], shape: Sequence[int], given: str | None, path: Path, keys: Keys = KEYS
) -> tuple[str, list[str]]:
    """Decide what each axis of an array is.

    Parameters
    ----------
    names : what the file says, lower case; "?" where it does not say
    shape : of the array
    given : letters set by hand, for all axes or for those longer than 1

    Returns
    -------
    one letter of t, c, z, y, x for each axis, "1" for one of length 1 that is none of these; and notes

    Raises
    ------
    UserError : axes that are none of these, or are not clear
    """
    if given is not None:
        return _given_axes(shape, given, path, keys), []
    found, notes = list(names), []
    layout = ", ".join(f"{name} {n}" for name, n in zip(names, shape, strict=True))
    if "s" in [name for name, n in zip(names, shape) if n != 1]:
        raise UserError("is a colour image.", where=path, do="Save one channel, or the channels apart, as grey values.")
    found = [name if name in AXES or n != 1 else "1" for name, n in zip(found, shape)]
    unclear = [i for i, name in enumerate(found) if name == UNKNOWN]
    if len(unclear) == 1 and "z" not in found:
        found[unclear[0]] = "z"
        if len(found) > 3:
            notes.append(f"the axis of {shape[unclear[0]]} that the file does not name was taken for z")
    elif unclear:
        raise UserError(
            f"has the axes {layout}: the file does not say what those with a question mark are.",
            where=path,
            do=f"Set {keys.axes} to their order, such as tzyx or czyx.",
        )
    other = [name for name in found if name not in AXES and name != "1"]
    letters = [name for name in found if name in AXES]
    if other or len(set(letters)) != len(letters) or not {"y", "x"} <= set(letters):
        raise UserError(
            f"has the axes {layout}; t, c, z, y and x are read, each once, y and x among them.",
            where=path,
            do=f"Save the part that is wanted, or set {keys.axes} to the order of the axes, such as czyx.",
        )
    return "".join(found), notes


def _given_axes(shape: Sequence[int], given: str, path: Path, keys: Keys) -> str:
    if len(given) == len(shape):
        return given
    long = [i for i, n in enumerate(shape) if n != 1]
    if len(given) == len(long):
        letters = ["1"] * len(shape)
        for i, letter in zip(long, given):
            letters[i] = letter
        return "".join(letters)
    raise UserError(
        f"{keys.axes} {given} names {len(given)} axes, the file has {len(shape)}: {' x '.join(map(str, shape))}.",
        where=path,
        do="Name every axis of the file, in its order.",
    )


def shape_of(axes: str, shape: Sequence[int]) -> Shape5:
    """(t, c, z, y, x) of an array with these axes."""
    size = dict(zip(axes, shape))
    return size.get("t", 1), size.get("c", 1), size.get("z", 1), size["y"], size["x"]


def plane_reader(axes: str, get: Callable[[tuple[int | slice, ...]], np.ndarray]) -> Planes:
    """Planes of an array with these axes.

    Parameters
    ----------
    get : index with one number or slice for each axis -> block
    """

    def read(t: int, c: int, z0: int, z1: int) -> np.ndarray:
        at: dict[str, int | slice] = {"t": t, "c": c, "z": slice(z0, z1), "y": slice(None), "x": slice(None), "1": 0}
        block = get(tuple(at[axis] for axis in axes))
        left = [axis for axis in axes if axis in "zyx"]
        block = block.transpose([left.index(axis) for axis in "zyx" if axis in left])
        return block if "z" in left else block[None]

    return read
