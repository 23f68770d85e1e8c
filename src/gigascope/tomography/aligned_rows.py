"""Aligned views in an array that is cut along the tilt axis: they come one by one, and are read back as rows of all.

The views of a series are resampled whole, each once; a slab wants some rows of every one of them. They go to a file in
scratch in the order in which they are wanted: 120 views of 4096 x 4096 pixels would be 8 GB in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gigascope.store.create import plan_of
from gigascope.store.disk import disk_errors

if TYPE_CHECKING:
    import zarr

# Zarr arrays of views and masks, each (tilt, s, y).
Rows = tuple[Any, Any]


class AlignedRows:
    """Fills arrays with views and masks; on leaving without an error they are complete.

    Parameters
    ----------
    sets : of each set of views the arrays of its views and masks, (tilt, s, y), whose shards are cut along y only
    folder : for the files
    """

    def __init__(self, sets: Sequence[Rows], folder: Path) -> None:
        self._sets = [
            [_Transposed(array, folder / f"rows-{n}-{m}.partial") for m, array in enumerate(arrays)]
            for n, arrays in enumerate(sets)
        ]

    def put(self, number: int, index: int, *layers: Tensor) -> None:
        """View `index` of set `number` and its mask, (s, y) each."""
        for target, layer in zip(self._sets[number], layers, strict=True):
            target.put(index, layer.cpu().numpy())

    def __enter__(self) -> AlignedRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for target in (target for targets in self._sets for target in targets):
            target.close(complete=kind is None)


class _Transposed:
    """One array, and its file: one band of slices after the other, all views of each."""

    def __init__(self, array: zarr.Array, path: Path) -> None:
        self._array, self._path = array, path
        n, step = array.shape[2], plan_of(array).shards[2]
        self._bands = [slice(a, min(a + step, n)) for a in range(0, n, step)]
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w+b")

    def put(self, index: int, layer: NDArray) -> None:
        n_views, n_s, _ = self._array.shape
        values, itemsize = layer.astype(self._array.dtype, copy=False), self._array.dtype.itemsize
        with disk_errors(self._path, math.prod(self._array.shape) * itemsize):
            for rows in self._bands:
                piece = np.ascontiguousarray(values[:, rows])
                self._file.seek(n_views * n_s * rows.start * itemsize + index * piece.nbytes)
                self._file.write(piece.data)

    def close(self, *, complete: bool) -> None:
        with disk_errors(self._path), self._file as file:
            file.seek(0)
            for rows in self._bands if complete else ():
                shape = (*self._array.shape[:2], rows.stop - rows.start)
                # not np.fromfile, which reads past what Python has buffered
                self._array[:, :, rows] = np.frombuffer(
                    file.read(math.prod(shape) * self._array.dtype.itemsize), self._array.dtype
                ).reshape(shape)
        self._path.unlink()
