"""A volume's bricks on their way into a file: in order, one at a time, coded and counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.gmix import background_code
from gigascope.compression.gmix.header import Header
from gigascope.compression.gmix.index import BrickIndex, BrickPlaces, box_of
from gigascope.compression.gmix.law_rows import law_rows
from gigascope.compression.gmix.model_fit import fit
from gigascope.compression.gmix.models import Models
from gigascope.compression.gmix.payload import MOST, Coder
from gigascope.compression.gmix.quantise import Symbols, cell_codes, dequantise, quantise
from gigascope.compression.gmix.spool import Spool
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError

Key = tuple[int, int, int, int]
Brick = Mixture | Symbols
Bricks = Mapping[Key, Brick] | Iterable[tuple[Key, Brick]]
Residuals = Mapping[Key, bytes] | Iterable[tuple[Key, bytes]]
# Called with every brick: its row in the index, what was given, and what it decodes to.
Watch = Callable[[int, Brick, Mixture], None]

# Gaussians from which the probabilities are learnt: the first ones of a large volume, all of a small one.
LEARN_FROM = 1 << 17
# Weight with which a cell of the background counts for the squared error: its voxels times (2/3)^3, the mean square of
# the trilinear weights.
_CELL_WEIGHT = (2 / 3) ** 3


@dataclass(frozen=True)
class Encoded:
    """All that a file holds, the payloads and residuals in temporary files.

    Attributes
    ----------
    header : with the law of the background
    models : probabilities
    index : bricks
    background : per frame (nz, ny, nx) int64
    payload, residual : bytes
    """

    header: Header
    models: Models
    index: BrickIndex
    background: list[NDArray[np.int64]]
    payload: Spool
    residual: Spool

    def close(self) -> None:
        """Drop the temporary files."""
        self.payload.close()
        self.residual.close()


def encode(
    folder: Path,
    header: Header,
    frames: Bricks,
    backgrounds: NDArray[np.float32] | Tensor,
    residual: Residuals | None = None,
    background_step: float | None = None,
    watch: Watch | None = None,
) -> Encoded:
    """Code a volume; arguments as in :func:`container.write_compact`, temporary files go into `folder`."""
    if (residual is None) != (header.residual is None):
        raise ShapeError("a residual layer needs header.residual, and the other way round")
    grids = np.asarray(backgrounds, np.float32)
    if grids.shape != (header.n_frames, *header.background_shape):
        raise ShapeError(f"backgrounds {grids.shape}, expected {(header.n_frames, *header.background_shape)}")
    steps = [background_step or default_background_step(header, frame) for frame in range(header.n_frames)]
    scales, integers = zip(*(background_code.quantise(grid, step) for grid, step in zip(grids, steps)))
    header = replace(header, background=tuple(scales))
    payload, extra = Spool(folder), Spool(folder)
    try:
        models, index = _encode(header, frames, payload, watch)
        lengths = _spool_residuals(BrickPlaces(header), residual or {}, extra)
    except BaseException:
        payload.close()
        extra.close()
        raise
    return Encoded(header, models, replace(index, residuals=lengths), list(integers), payload, extra)


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


def _encode(header: Header, frames: Bricks, payload: Spool, watch: Watch | None) -> tuple[Models, BrickIndex]:
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
        if watch is not None:
            watch(row, brick, decoded)
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
        if (np.diff(cell_codes(brick.cell, header.brick).astype(np.int64)) < 0).any():
            raise ShapeError("the rows of a brick are not in Z-order of their cells")
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
