"""Files of Gaussians: write a volume's bricks, open a file, read single bricks.

Two forms with the same content. *Compact*: one file, entropy-coded, for keeping and sending. *Group*: a folder that is
a Zarr group, which also has the plain tables of the Gaussians; see :mod:`gigascope.compression.gmix.group`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.gmix import background_code, compact, group, tables
from gigascope.compression.gmix.compact import CompactFile
from gigascope.compression.gmix.encoding import Bricks, Residuals, encode, split
from gigascope.compression.gmix.group import GroupFile
from gigascope.compression.gmix.header import BackgroundScale, Header, Intensity
from gigascope.compression.gmix.index import BrickIndex, BrickPlaces, Index
from gigascope.compression.gmix.payload import Coder, Damaged
from gigascope.compression.gmix.quantise import Symbols, dequantise
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError
from gigascope.store.commit import finish
from gigascope.store.create import StoreWriter, create_store
from gigascope.store.disk import disk_errors

__all__ = ["BackgroundScale", "Bricks", "Gmix", "Header", "Intensity", "split", "write_compact", "write_group"]


class Gmix:
    """A file of Gaussians that is open for reading. Safe from several threads.

    Attributes
    ----------
    path : of the file
    header : its attributes
    residual : the residual layer; none without one

    Raises
    ------
    UserError : no such file, or one that was cut off or altered
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        self.header: Header = self._file.header
        self._places = BrickPlaces(self.header)
        self._index: BrickIndex = self._file.index
        self._offsets = self._index.offsets
        self._coder = Coder(self._file.models, self.header.brick, self.header.quantiser)
        self._lock = threading.Lock()
        self.residual = Residual(self) if self.header.residual is not None else None

    def __enter__(self) -> Gmix:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """Gaussians in the file."""
        return int(self._index.counts.sum())

    @property
    def bytes_read(self) -> int:
        """Bytes read of the file since it was opened, opening included."""
        return self._file.n_read

    def bytes_by_component(self) -> dict[str, int]:
        """Every byte of the file: header, tables (of probabilities), index, background, payload, residual."""
        return self._file.bytes_by_component()

    def bricks(self, frame: int) -> list[Index]:
        """Bricks of a frame that have Gaussians, in the order of the file."""
        counts = self._index.counts[self._rows(frame)]
        return [index for index, count in zip(self._places.order, counts) if count]

    def count(self, frame: int, index: Index) -> int:
        """Gaussians of a brick."""
        return int(self._index.counts[self._row(frame, index)])

    def payload_bytes(self, frame: int, index: Index) -> int:
        """Bytes that a brick takes."""
        return int(self._index.lengths[self._row(frame, index)])

    def touching(self, frame: int, roi: Sequence[slice]) -> list[Index]:
        """Bricks with Gaussians that may reach into a box of voxels (three slices), in the order of the file."""
        rows = self._rows(frame)
        corners = self._places.corners()
        low, high = corners + self._index.boxes[rows, :3], corners + self._index.boxes[rows, 3:]
        start, stop = np.array([r.start for r in roi]), np.array([r.stop for r in roi])
        meets = ((low < stop) & (high > start)).all(1) & (self._index.counts[rows] > 0)
        return [self._places.order[rank] for rank in np.flatnonzero(meets)]

    def box(self, frame: int, index: Index) -> tuple[slice, slice, slice]:
        """Voxels that the Gaussians of a brick may reach; may extend beyond the volume."""
        box = self._index.boxes[self._row(frame, index)]
        corner = [i * b for i, b in zip(index, self.header.brick)]
        z, y, x = (slice(int(c + a), int(c + e)) for c, a, e in zip(corner, box[:3], box[3:]))
        return z, y, x

    def read_brick(self, frame: int, index: Index) -> Mixture:
        """Gaussians of a brick, float32, means relative to the volume's first voxel.

        Raises
        ------
        ShapeError : no such brick
        UserError : the file was altered
        """
        symbols = self.read_symbols(frame, index)
        mixture = dequantise(symbols, self.header.brick, self.header.quantiser, self.header.amplitude_scale)
        return mixture.moved([float(i * b) for i, b in zip(index, self.header.brick)])

    def read_table(self, frame: int, index: Index) -> Mixture:
        """Gaussians of a brick from the plain tables (level 0) of a group, means relative to the volume's first voxel.

        Raises
        ------
        ShapeError : no such brick, or a compact file, which has no tables
        UserError : the store was altered
        """
        if not isinstance(self._file, GroupFile):
            raise ShapeError(f"{self.path.name} is a compact file: it has no tables")
        row = self._row(frame, index)
        start = int(self._index.counts[:row].sum())
        with self._lock:
            mixture = self._file.table(start, start + int(self._index.counts[row]))
        return mixture.moved([float(i * b) for i, b in zip(index, self.header.brick)])

    def read_bricks(self, frame: int, indices: Iterable[Index]) -> list[Mixture]:
        """Several bricks, each as :meth:`read_brick` gives it."""
        return [self.read_brick(frame, index) for index in indices]

    def read_symbols(self, frame: int, index: Index) -> Symbols:
        """Integers of the Gaussians of a brick."""
        row = self._row(frame, index)
        with self._lock:
            data = self._file.payload(int(self._offsets[row]), int(self._offsets[row + 1]))
        try:
            return self._coder.decode(data, int(self._index.counts[row]))
        except (Damaged, IndexError, OverflowError) as error:
            raise self._file.damaged(f"brick {index} of frame {frame} cannot be decoded ({error})") from error

    def background(self, frame: int) -> Tensor:
        """(nz, ny, nx) float32 background of a frame, units of the scale."""
        self._rows(frame)
        return background_code.dequantise(self._file.background[frame], self.header.background[frame])

    def _rows(self, frame: int) -> slice:
        n = len(self._places.order)
        if not 0 <= frame < self.header.n_frames:
            raise ShapeError(f"frame {frame} does not exist, {self.path.name} has {self.header.n_frames}")
        return slice(frame * n, (frame + 1) * n)

    def _row(self, frame: int, index: Index) -> int:
        try:
            return self._places.row(frame, tuple(index))  # type: ignore[arg-type]
        except KeyError:
            raise ShapeError(f"there is no brick {index} of frame {frame} in {self.path.name}") from None


class Residual:
    """The residual layer of an open file.

    Attributes
    ----------
    attributes : JSON values that its coder kept
    """

    def __init__(self, gmix: Gmix) -> None:
        self.attributes: Mapping[str, Any] = gmix.header.residual or {}
        self._gmix = gmix
        self._offsets = gmix._index.residual_offsets

    def read(self, frame: int, index: Index) -> bytes:
        """Bytes of a brick, empty where it has none.

        Raises
        ------
        ShapeError : no such brick
        UserError : the file was altered
        """
        gmix = self._gmix
        row = gmix._row(frame, index)
        with gmix._lock:
            return gmix._file.residual(int(self._offsets[row]), int(self._offsets[row + 1]))


def write_compact(
    path: Path | str,
    header: Header,
    frames: Bricks,
    backgrounds: NDArray[np.float32] | Tensor,
    residual: Residuals | None = None,
    background_step: float | None = None,
) -> None:
    """Write a compact file. Equal arguments give equal bytes.

    Parameters
    ----------
    path : of the file; one that is there is replaced when all is written
    header : attributes; with `residual` it needs the attributes of that layer, ``background`` is filled in here
    frames : Gaussians of each brick by (frame, bz, by, bx), means relative to the brick's first voxel, or their
        integers. A mapping, or an iterator of pairs in the order of the file (frame, then Morton order of the bricks),
        which is read once and never held. Bricks without Gaussians may be left out
    backgrounds : (frames, nz, ny, nx) float32, units of the scale
    residual : opaque bytes of each brick, in the same manner
    background_step : of the background's integers, units of the scale; default: what costs as much error as bits

    Raises
    ------
    ShapeError : bricks out of order or outside the volume; shapes that do not go together; an amplitude beyond the
        scale of the fixed law
    UserError : the disk is full or may not be written
    """
    path = Path(path)
    with disk_errors(path):
        encoded = encode(path.parent, header, frames, backgrounds, residual, background_step)
        try:
            compact.write(path, encoded)
        finally:
            encoded.close()


def write_group(
    store: StoreWriter | Path | str,
    header: Header,
    frames: Bricks,
    backgrounds: NDArray[np.float32] | Tensor,
    residual: Residuals | None = None,
    background_step: float | None = None,
) -> None:
    """Write the group form, with level 0 and level 1.

    Parameters
    ----------
    store : an unfinished store of :func:`gigascope.store.create.create_store`, which whoever made it finishes; or the
        path of a folder, at which a finished one is made
    header, frames, backgrounds, residual, background_step : see :func:`write_compact`

    Raises
    ------
    ShapeError, UserError : see :func:`write_compact`
    """
    writer = store if isinstance(store, StoreWriter) else create_store(Path(store))
    columns = tables.Columns(writer.path, header.brick)

    def watch(row: int, brick: Mixture | Symbols, decoded: Mixture) -> None:
        columns.append(brick.to("cpu") if isinstance(brick, Mixture) else decoded)

    with disk_errors(writer.path):
        try:
            encoded = encode(writer.path, header, frames, backgrounds, residual, background_step, watch)
            try:
                group.write(writer, encoded, columns)
            finally:
                encoded.close()
        finally:
            columns.close()
    if writer is not store:
        finish(writer, {})


def _open(path: Path) -> CompactFile | GroupFile:
    return GroupFile(path) if path.is_dir() else CompactFile(path)
