"""MRC export of tomograms and of aligned stacks, mode 2 (float32), written section by section.

Not through a memory map: on a full disk that ends the process instead of raising.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from gigascope.errors import ShapeError
from gigascope.store.writers.whole_file import whole_file

_BLOCK_BYTES = 64 * 2**20  # read at a time
_VOLUME, _IMAGES = 1, 0  # space group: a volume, or a stack of images


class Sliceable(Protocol):
    """A numpy or Zarr array: what is needed of either."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def write_mrc_volume(
    path: str | Path,
    volume: Sliceable,
    voxel_nm: tuple[float, float, float],
    *,
    axes: Literal["zyx", "xzy"] = "zyx",
    label: str = "",
) -> None:
    """Write a tomogram.

    Parameters
    ----------
    volume : (z, y, x), y up
    voxel_nm : in z, y, x, nanometres; the header holds angstrom
    axes : "zyx": z slowest; "xzy": fastest to slowest x, z, y, as IMOD's tilt program writes, one section per y. No
        axis is reversed: sections ascend in z or y.
    label : title in the header, at most 80 characters

    Raises
    ------
    ShapeError : not three axes
    UserError : the disk is full or must not be written to
    """
    _expect_3d(volume)
    z, y, x = (10.0 * size for size in voxel_nm)
    across = 0 if axes == "zyx" else 1
    n_z, n_y, n_x = (int(n) for n in volume.shape)
    if axes == "zyx":
        shape, cell, per_section = (n_z, n_y, n_x), (z, y, x), n_y * n_x
    else:
        shape, cell, per_section = (n_y, n_z, n_x), (y, z, x), n_z * n_x
    _write(Path(path), shape, cell, _VOLUME, label, _sections(volume, across, per_section))


def write_mrc_stack(path: str | Path, views: Sliceable, pixel_nm: float, *, label: str = "") -> None:
    """Write a stack of images (tilt, y, x), y up, that programs of the field take as a tilt series.

    Parameters
    ----------
    pixel_nm : pixel size in nanometres

    Raises
    ------
    ShapeError : not three axes
    UserError : the disk is full or must not be written to
    """
    _expect_3d(views)
    n, n_y, n_x = (int(size) for size in views.shape)
    _write(Path(path), (n, n_y, n_x), (10.0 * pixel_nm,) * 3, _IMAGES, label, _sections(views, 0, n_y * n_x))


def _expect_3d(array: Sliceable) -> None:
    if len(array.shape) != 3 or min(array.shape) < 1:
        raise ShapeError(f"an array of shape {tuple(array.shape)} cannot be written as MRC, expected three axes")


def _sections(array: Sliceable, across: int, per_section: int) -> Iterator[np.ndarray]:
    """float32 sections along axis 0 or 1, read in blocks so that chunks are decoded as seldom as memory allows."""
    step = max(1, _BLOCK_BYTES // (4 * per_section))
    for start in range(0, array.shape[across], step):
        part = slice(start, start + step)
        block = np.asarray(array[part] if across == 0 else array[:, part], dtype="<f4")
        for i in range(block.shape[across]):
            yield np.ascontiguousarray(block[i] if across == 0 else block[:, i])


def _write(
    path: Path,
    shape: tuple[int, int, int],
    cell: tuple[float, float, float],
    space_group: int,
    label: str,
    sections: Iterator[np.ndarray],
) -> None:
    header = _header(shape, cell, space_group, label)
    count, low, high, total, squares = 0, np.inf, -np.inf, 0.0, 0.0
    with (
        whole_file(path, header.nbytes + 4 * int(np.prod(shape, dtype=np.int64))) as partial,
        partial.open("wb") as file,
    ):
        file.write(header.tobytes())
        for section in sections:
            file.write(section.data)
            low, high = min(low, float(section.min())), max(high, float(section.max()))
            count += section.size
            total += float(section.sum(dtype=np.float64))
            squares += float(np.square(section, dtype=np.float64).sum())
        mean = total / count
        header["dmin"], header["dmax"], header["dmean"] = low, high, mean
        header["rms"] = np.sqrt(max(squares / count - mean * mean, 0.0))
        file.seek(0)
        file.write(header.tobytes())


def _header(shape: tuple[int, int, int], cell: tuple[float, float, float], space_group: int, label: str) -> np.ndarray:
    """MRC2014 header, little-endian."""
    from mrcfile.dtypes import HEADER_DTYPE
    from mrcfile.utils import machine_stamp_from_byte_order

    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    nz, ny, nx = shape
    header["nx"], header["ny"], header["nz"] = nx, ny, nz
    header["mx"], header["my"], header["mz"] = nx, ny, nz if space_group == _VOLUME else 1
    header["cella"] = (cell[2] * nx, cell[1] * ny, cell[0] * (nz if space_group == _VOLUME else 1))
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mode"] = 2
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"] = space_group
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = machine_stamp_from_byte_order("<")
    text = (label or "written by gigascope").encode("ascii", "replace")[:80]
    header["label"][0] = text
    header["nlabl"] = 1
    return header
