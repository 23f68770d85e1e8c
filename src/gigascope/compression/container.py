"""Files of Gaussians: write a volume's bricks, open a file, read single bricks.

Two forms with the same content. *Compact*: one file, entropy-coded, for keeping and sending. *Group*: a folder that is
a Zarr group, which also has the plain tables of the Gaussians; see :mod:`gigascope.compression.group`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression import background_code, compact
from gigascope.compression.compact import CompactFile, Spool
from gigascope.compression.header import BackgroundScale, Header, Intensity
from gigascope.compression.index import BrickIndex, BrickPlaces, Index, box_of
from gigascope.compression.law_rows import law_rows
from gigascope.compression.mixture import Mixture
from gigascope.compression.model_fit import fit
from gigascope.compression.models import Models
from gigascope.compression.payload import MOST, Coder, Damaged
from gigascope.compression.quantise import Symbols, dequantise, quantise
from gigascope.errors import ShapeError
from gigascope.store.disk import disk_errors

__all__ = ["BackgroundScale", "Gmix", "Header", "Intensity", "write_compact"]

Key = tuple[int, int, int, int]
Brick = Mixture | Symbols
Bricks = Mapping[Key, Brick] | Iterable[tuple[Key, Brick]]
Residuals = Mapping[Key, bytes] | Iterable[tuple[Key, bytes]]

# Gaussians from which the probabilities are learnt: the first ones of a large volume, all of a small one.
LEARN_FROM = 1 << 17
# Weight with which a cell of the background counts for the squared error: its voxels times (2/3)^3, the mean square of
# the trilinear weights.
_CELL_WEIGHT = (2 / 3) ** 3


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
    if (residual is None) != (header.residual is None):
        raise ShapeError("a residual layer needs header.residual, and the other way round")
    grids = np.asarray(backgrounds, np.float32)
    if grids.shape != (header.n_frames, *header.background_shape):
        raise ShapeError(f"backgrounds {grids.shape}, expected {(header.n_frames, *header.background_shape)}")
    steps = [background_step or default_background_step(header, frame) for frame in range(header.n_frames)]
    scales, integers = zip(*(background_code.quantise(grid, step) for grid, step in zip(grids, steps)))
    header = replace(header, background=tuple(scales))
    with disk_errors(path):
        payload, extra = Spool(path.parent), Spool(path.parent)
        try:
            models, index = _encode(header, frames, payload)
            lengths = _spool_residuals(BrickPlaces(header), residual or {}, extra)
            compact.write(path, header, models, replace(index, residuals=lengths), list(integers), payload, extra)
        finally:
            payload.close()
            extra.close()


def default_background_step(header: Header, frame: int) -> float:
    """Step of the background's integers whose error is worth what it saves: like any parameter's of the Gaussians."""
    if header.quantiser.adaptive:
        return math.sqrt(12 * header.quantiser.theta / (_CELL_WEIGHT * math.prod(header.cell)))
    # an eighth of the noise's standard deviation
    return header.eps[frame] / 2


def in_order(places: BrickPlaces, given: Mapping[Key, Any] | Iterable[tuple[Key, Any]]) -> Iterator[tuple[int, Any]]:
    """Rows of the index and values, in the order of the file.

    Raises
    ------
    ShapeError : a brick that does not exist, or an iterator that is not in order
    """

    def row(key: Key) -> int:
        try:
            return places.row(key[0], key[1:])
        except KeyError:
            raise ShapeError(f"there is no brick {key[1:]} of frame {key[0]}") from None

    if isinstance(given, Mapping):
        yield from ((r, given[key]) for r, key in sorted((row(key), key) for key in given))
        return
    last = -1
    for key, value in given:
        if row(key) <= last:
            raise ShapeError(f"brick {key} comes after {places.key(last)}, the order is by frame and Morton code")
        last = row(key)
        yield last, value


def _encode(header: Header, frames: Bricks, payload: Spool) -> tuple[Models, BrickIndex]:
    places = BrickPlaces(header)
    n = len(places)
    index = BrickIndex(*(np.zeros(s, np.int64) for s in (n, n, (n, 6), n)))
    waiting: list[tuple[int, Symbols]] = []
    coder: Coder | None = None
    models: Models | None = None

    def flush() -> None:
        nonlocal coder, models
        if coder is None:
            law = header.quantiser
            models = fit([symbols for _, symbols in waiting], header.brick, law, law_rows(law, 1.0))
            coder = Coder(models, header.brick, law)
        for row, symbols in waiting:
            data = coder.encode(symbols)
            payload.append(data)
            index.lengths[row] = len(data)
        waiting.clear()

    n_waiting = 0
    for row, brick in in_order(places, frames):
        symbols = _symbols(header, brick)
        decoded = dequantise(symbols, header.brick, header.quantiser, header.amplitude_scale)
        index.counts[row] = len(symbols)
        index.boxes[row] = box_of(decoded, header.c_max, header.eps[places.key(row)[0]])
        waiting.append((row, symbols))
        n_waiting += len(symbols)
        if n_waiting >= (LEARN_FROM if coder is None else 1):
            flush()
            n_waiting = 0
    flush()
    assert models is not None
    return models, index


def _symbols(header: Header, brick: Brick) -> Symbols:
    if len(brick) > MOST:
        raise ShapeError(f"a brick has {len(brick)} Gaussians, at most {MOST} can be kept")
    if isinstance(brick, Symbols):
        return brick
    law = header.quantiser
    if not law.adaptive and len(brick) and float(brick.amplitudes.abs().max()) > header.amplitude_scale:
        raise ShapeError(f"an amplitude is beyond header.amplitude_scale, {header.amplitude_scale}")
    return quantise(brick.to("cpu"), header.brick, law, header.amplitude_scale)[0]


def _spool_residuals(places: BrickPlaces, residual: Residuals, spool: Spool) -> NDArray[np.int64]:
    lengths = np.zeros(len(places), np.int64)
    for row, data in in_order(places, residual):
        spool.append(data)
        lengths[row] = len(data)
    return lengths


def _open(path: Path) -> CompactFile:
    return CompactFile(path)


def split(mixture: Mixture, header: Header, frame: int = 0) -> dict[Key, Mixture]:
    """The Gaussians of a frame by the brick that owns them, for :func:`write_compact`.

    A brick owns the means in its voxels, ``[b n - 1/2, (b + 1) n - 1/2)``; what lies outside the volume goes to the
    nearest brick.

    Parameters
    ----------
    mixture : means relative to the volume's first voxel
    header : of the file
    frame : number of the frame
    """
    brick = torch.tensor(header.brick)
    last = torch.tensor(header.grid.counts) - 1
    home = torch.floor((mixture.means + 0.5) / brick).long().clamp(min=torch.zeros_like(last), max=last)
    found = {}
    for index in torch.unique(home, dim=0):
        own = mixture[(home == index).all(1)]
        z, y, x = index.tolist()
        found[frame, z, y, x] = own.moved((-index * brick).tolist())
    return found
