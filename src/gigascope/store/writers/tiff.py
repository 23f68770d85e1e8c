"""TIFF export of tomograms and aligned stacks: OME-TIFF, one page per slice, top row first, written page by page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gigascope.errors import ShapeError
from gigascope.store.writers.mrc import Sliceable
from gigascope.store.writers.whole_file import whole_file

_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
_CLASSIC_LIMIT = 2**32 - 2**25  # 4 GiB less room for the tags, as tifffile keeps it


def write_tiff_volume(path: str | Path, volume: Sliceable, voxel_nm: tuple[float, float, float]) -> None:
    """Write a tomogram (z, y, x), y up, as pages of ascending z; rows are flipped, as TIFF shows the top one first.

    Parameters
    ----------
    volume : real, or integer of at most 32 bit
    voxel_nm : in z, y, x, nanometres

    Raises
    ------
    ShapeError : not three axes, or a type that OME-TIFF does not have
    UserError : the disk is full or must not be written to
    """
    _write(Path(path), volume, {"axes": "ZYX", **_physical("Z", voxel_nm[0])}, voxel_nm[1:])


def write_tiff_stack(path: str | Path, views: Sliceable, pixel_nm: float) -> None:
    """Write views (tilt, y, x), y up, one page each in stack order; rows are flipped.

    Raises
    ------
    ShapeError : not three axes, or a type that OME-TIFF does not have
    UserError : the disk is full or must not be written to
    """
    _write(Path(path), views, {"axes": "TYX"}, (pixel_nm, pixel_nm))


def _physical(axis: str, size_nm: float) -> dict[str, object]:
    return {f"PhysicalSize{axis}": float(size_nm), f"PhysicalSize{axis}Unit": "nm"}


def _write(path: Path, array: Sliceable, metadata: dict[str, object], yx_nm: tuple[float, ...]) -> None:
    import tifffile

    if len(array.shape) != 3 or min(array.shape) < 1:
        raise ShapeError(f"an array of shape {tuple(array.shape)} cannot be written as TIFF, expected three axes")
    dtype = np.asarray(array[:1, :1, :1]).dtype.newbyteorder("<")
    if dtype.str[1:] not in _TYPES:
        raise ShapeError(f"values of type {dtype} cannot be written as OME-TIFF, expected one of {', '.join(_TYPES)}")
    n_bytes = int(np.prod(array.shape, dtype=np.int64)) * dtype.itemsize

    def pages() -> Iterator[np.ndarray]:
        for i in range(array.shape[0]):
            yield np.ascontiguousarray(np.asarray(array[i], dtype=dtype)[::-1])

    with (
        whole_file(path, n_bytes) as partial,
        tifffile.TiffWriter(partial, bigtiff=n_bytes > _CLASSIC_LIMIT, ome=True) as tiff,
    ):
        tiff.write(
            pages(),
            shape=tuple(int(n) for n in array.shape),
            dtype=dtype,
            photometric="minisblack",
            metadata={**metadata, **_physical("Y", yx_nm[0]), **_physical("X", yx_nm[1])},
        )
