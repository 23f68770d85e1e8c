"""The slices of one stack on the disk, one after the other: a store holds all slices of a patch together instead.

A stack of one camera may be as large as the memory. Registration looks at whole slices and the store at whole patches;
between them stands a file in scratch, which is gone when it is closed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gigascope.topography.capture.bayer import demosaic


class SliceFile:
    """A stack (z, r, c[, colours]) in a nameless file.

    Parameters
    ----------
    folder : scratch
    shape : of the stack
    """

    def __init__(self, folder: Path, shape: Sequence[int], dtype: DTypeLike) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self._row = int(np.prod(self.shape[2:])) * self.dtype.itemsize
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with this object

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, k: int, block: NDArray, first_row: int = 0) -> None:
        """Write some rows (rows, c[, colours]) of slice k."""
        data = memoryview(np.ascontiguousarray(block, dtype=self.dtype).tobytes())
        place = (k * self.shape[1] + first_row) * self._row
        while data:
            n = os.pwrite(self._file.fileno(), data, place)
            data, place = data[n:], place + n

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray:
        """Some rows of some slices, (slices, rows, c[, colours])."""
        (z0, z1, _), (r0, r1, _) = key[0].indices(self.shape[0]), key[1].indices(self.shape[1])
        found = np.empty((z1 - z0, r1 - r0, *self.shape[2:]), self.dtype)
        for k, block in zip(range(z0, z1), found):
            data = memoryview(block).cast("B")
            place = (k * self.shape[1] + r0) * self._row
            while data:
                n = os.preadv(self._file.fileno(), [data], place)
                if not n:
                    raise EOFError(f"slice {k} was not written")
                data, place = data[n:], place + n
        return found


class OrderedSlices:
    """Slices of a file in another order, mosaics in colour: what registration asks for.

    Parameters
    ----------
    file : the slices as they were taken
    order : (z,) slice of the file at each place
    pattern : Bayer mosaic of the slices; none: they have none
    """

    def __init__(self, file: SliceFile, order: Sequence[int], pattern: str | None = None) -> None:
        self._file, self._order, self._pattern = file, [int(k) for k in order], pattern
        self.shape = (len(self._order), *file.shape[1:], *((3,) if pattern is not None else ()))
        self.dtype = file.dtype

    def image(self, k: int) -> NDArray:
        """(r, c[, colours]) slice at place k."""
        n = self._order[k]
        found = self._file[n : n + 1, 0 : self.shape[1]][0]
        if self._pattern is None:
            return found
        most = np.iinfo(self.dtype).max
        return np.clip(np.rint(demosaic(found, self._pattern)), 0, most).astype(self.dtype)

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray:
        """Some rows of some slices."""
        places = range(*key[0].indices(self.shape[0]))
        # one slice is not copied
        return (
            self.image(places[0])[None, key[1]]
            if len(places) == 1
            else np.stack([self.image(k)[key[1]] for k in places])
        )


class PatchesOfSlices:
    """A file of slices as a block of a store, axes (1, 1, z, r, c) or (1, 1, z, colour, r, c), read band by band.

    Parameters
    ----------
    file : of (z, r, c) or (z, r, c, colours)
    colour : one of its colours alone; none: as the file is
    """

    def __init__(self, file: SliceFile, colour: int | None = None) -> None:
        self._file, self._colour = file, colour
        n_z, rows, cols, *colours = file.shape
        between = colours if colour is None else []
        self.shape = (1, 1, n_z, *between, rows, cols)
        self._band: tuple[slice, NDArray] | None = None

    def __getitem__(self, cut: tuple[slice, ...]) -> NDArray:
        rows, cols = cut[-2:]
        if self._band is None or self._band[0] != rows:
            self._band = rows, self._file[0 : self.shape[2], rows]
        block = self._band[1][:, :, cols]
        if block.ndim == 4:
            block = np.moveaxis(block, -1, 1) if self._colour is None else block[..., self._colour]
        return block[None, None]
