"""Write an array layer by layer along its first axis, in whole shards."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.store.create import plan_of
from gigascope.store.disk import disk_errors

if TYPE_CHECKING:
    from pathlib import Path

    import zarr


class LayerWriter:
    """Collects layers until a row of shards is full, and writes it once; a shard written twice is compressed twice.

    Parameters
    ----------
    array : zarr array of (n, ...)
    path : of its store, for messages

    Raises
    ------
    RuntimeError : on leaving without an error, layers are missing
    """

    def __init__(self, array: zarr.Array, path: Path) -> None:
        self._array = array
        self._path = path
        self._depth = plan_of(array).shards[0]
        self._buffer: list[NDArray] = []
        self._written = 0

    def append(self, layer: ArrayLike) -> None:
        """The next layer, of the array's shape without its first axis."""
        self._buffer.append(np.asarray(layer, dtype=self._array.dtype))
        if len(self._buffer) == self._depth:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            end = self._written + len(self._buffer)
            with disk_errors(self._path):
                self._array[self._written : end] = np.stack(self._buffer)
            self._written, self._buffer = end, []

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
            if self._written != self._array.shape[0]:
                raise RuntimeError(f"{self._written} of {self._array.shape[0]} layers were written to {self._path}")
