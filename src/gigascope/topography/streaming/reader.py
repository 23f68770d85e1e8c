"""Whole chunks of the raw store into memory, several requests at a time.

Plain chunks (see :mod:`gigascope.store.plain_shard`) go from the file to where they are wanted, without a copy: the
shard's index is read once, neighbours in the file are one request, each is checked against its crc32c. Compressed ones
go through Zarr.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.store.checksum import read_block, shard_file
from gigascope.store.plain_shard import is_plain, shard_places

if TYPE_CHECKING:
    import zarr

_ABSENT = 2**64 - 1
_CRC_BYTES = 4
_AGAIN = "Run the stage that makes it again."
# Files kept open at a time: a sample has 3456 shards, a process may have 1024 files.
_OPEN = 128


@dataclass(frozen=True)
class Box:
    """Chunks of a view: rows `first[0]` to `last[0]` - 1 of chunks, and columns likewise."""

    first: tuple[int, int]
    last: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Chunks along rows and columns."""
        return self.last[0] - self.first[0], self.last[1] - self.first[1]


class ChunkReader:
    """Reads chunks of an array (view_row, view_col, z, row, col) whose shards are views and whose chunks hold all z.

    Parameters
    ----------
    root : folder of the store
    array : opened from it, see :meth:`gigascope.store.open.StoreReader.member`
    threads : requests at a time
    check : compare plain chunks with their crc32c (24 GB/s on one core); compressed ones always are

    Raises
    ------
    ShapeError : an array of another layout
    """

    def __init__(self, root: Path, array: zarr.Array, *, threads: int = 16, check: bool = True) -> None:
        whole = (1, 1, array.shape[2]) if array.ndim == 5 else ()
        if array.ndim != 5 or array.chunks[:3] != whole or (array.shards or array.chunks)[:2] != (1, 1):
            raise ShapeError(f"reader: expected chunks of all slices of a view, got {array.chunks} of {array.shape}")
        if array.dtype not in (np.uint8, np.uint16):
            raise ShapeError(f"reader: expected uint8 or uint16, got {array.dtype}")
        self.root, self.array, self.check = root, array, check
        self.chunk: tuple[int, int] = (array.chunks[3], array.chunks[4])
        self.chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
        self.plain = is_plain(array)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="chunks")
        self._files = _Files(_OPEN)
        self._places: dict[tuple[int, int], NDArray[np.uint64]] = {}

    def box(self, corner: Sequence[int], shape: Sequence[int]) -> Box:
        """The chunks that cover samples from `corner` on."""
        first = (int(corner[0]) // self.chunk[0], int(corner[1]) // self.chunk[1])
        last = (-(-int(corner[0] + shape[0]) // self.chunk[0]), -(-int(corner[1] + shape[1]) // self.chunk[1]))
        return Box(first, last)

    def submit(self, view: tuple[int, int], box: Box, out: NDArray[np.uint8]) -> list[Future[int]]:
        """Begin to read chunks; each future ends with the bytes that it read, or the error.

        Parameters
        ----------
        view : (view row, view column)
        box : chunks
        out : (chunk rows, chunk columns, chunk_bytes) uint8, C-contiguous, where they go: each as (z, row, column) of
            the array's dtype, little-endian. It must stay until all futures are done
        """
        if out.shape != (*box.shape, self.chunk_bytes) or not out.flags.c_contiguous:
            raise ShapeError(f"submit: out: expected {(*box.shape, self.chunk_bytes)} uint8, got {out.shape}")
        read = self._read_plain if self.plain else self._read_compressed
        rows = range(box.first[0], box.last[0])
        return [self._pool.submit(read, view, row, (box.first[1], box.last[1]), out[n]) for n, row in enumerate(rows)]

    def close(self) -> None:
        """Wait for what is being read and let go of the files."""
        self._pool.shutdown(cancel_futures=True)
        self._files.close()

    def path(self, view: tuple[int, int]) -> Path:
        """File of a view."""
        return self.root / shard_file(self.array, (*view, 0, 0, 0))

    def _index(self, view: tuple[int, int]) -> NDArray[np.uint64]:
        """(chunk rows, chunk columns, 2) offset and length of each chunk of a view; read once."""
        if view not in self._places:
            # two threads may read the same one, which does no harm
            self._places[view] = shard_places(self.path(view), self.array)[0, 0, 0]
        return self._places[view]

    def _read_plain(self, view: tuple[int, int], row: int, cols: tuple[int, int], out: NDArray[np.uint8]) -> int:
        places, path = self._index(view)[row, slice(*cols)], self.path(view)
        length = self.chunk_bytes + _CRC_BYTES
        if (places[:, 1] != length).any():
            at = cols[0] + int(np.argmax(places[:, 1] != length))
            word = "was never written" if places[at - cols[0], 1] == _ABSENT else "has another length than its array"
            raise UserError(f"chunk ({row}, {at}) of this shard {word}.", where=path, do=_AGAIN)
        sums = np.empty((len(out), _CRC_BYTES), np.uint8)
        offsets = places[:, 0].astype(np.int64)
        # neighbours in the file are one request
        cuts = [0, *(np.flatnonzero(np.diff(offsets) != length) + 1).tolist(), len(out)]
        with self._files.use(path) as file:
            for a, b in itertools.pairwise(cuts):
                wanted = [memoryview(part) for n in range(a, b) for part in (out[n], sums[n])]
                if _read_into(file, wanted, int(offsets[a]), path) < (b - a) * length:
                    raise UserError("the shard cannot be read back (it is cut short).", where=path, do=_AGAIN)
        if self.check:
            self._compare(out, sums, (row, cols[0]), path)
        return len(out) * length

    def _compare(self, out: NDArray[np.uint8], sums: NDArray[np.uint8], first: tuple[int, int], path: Path) -> None:
        from google_crc32c import value as crc32c

        for n, (data, found) in enumerate(zip(out, sums)):
            if crc32c(data).to_bytes(_CRC_BYTES, "little") != found.tobytes():
                at = (first[0], first[1] + n)
                raise UserError(f"the shard cannot be read back (chunk {at} is altered).", where=path, do=_AGAIN)

    def _read_compressed(self, view: tuple[int, int], row: int, cols: tuple[int, int], out: NDArray[np.uint8]) -> int:
        array, (a, b) = self.array, self.chunk
        rows = slice(row * a, min((row + 1) * a, array.shape[3]))
        columns = slice(cols[0] * b, min(cols[1] * b, array.shape[4]))
        whole: tuple[slice, ...] = (slice(view[0], view[0] + 1), slice(view[1], view[1] + 1), slice(0, array.shape[2]))
        block = read_block(self.root, array, (*whole, rows, columns))[0, 0]
        chunks = out.view(array.dtype.newbyteorder("<")).reshape(len(out), *array.chunks[2:])
        for n, chunk in enumerate(chunks):
            part = block[:, :, n * b : (n + 1) * b]
            chunk[:, : part.shape[1], : part.shape[2]] = part
        return int(self._index(view)[row, slice(*cols), 1].sum()) if array.shards else out.nbytes


def _read_into(file: int, wanted: list[Any], offset: int, path: Path) -> int:
    """Bytes that were read into some buffers, fewer only at the end of the file."""
    done = 0
    try:
        while wanted:
            n = os.preadv(file, wanted, offset + done)
            if n == 0:
                break
            done += n
            # a read may stop early, above all on a network
            while wanted and n >= len(wanted[0]):
                n -= len(wanted.pop(0))
            if n:
                wanted[0] = wanted[0][n:]
    except OSError as error:
        raise UserError(f"the shard cannot be read back ({error.strerror}).", where=path, do=_AGAIN) from error
    return done


class _Files:
    """Open files, the ones used last; none is closed while a thread reads it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, list[int]] = OrderedDict()

    @contextmanager
    def use(self, path: Path) -> Iterator[int]:
        """Descriptor of a file."""
        with self._lock:
            if path not in self._open:
                try:
                    self._open[path] = [os.open(path, os.O_RDONLY), 0]
                except FileNotFoundError:
                    raise UserError("the shard is missing.", where=path, do=_AGAIN) from None
                except OSError as error:
                    what = f"the shard cannot be read back ({error.strerror})."
                    raise UserError(what, where=path, do=_AGAIN) from error
            entry = self._open[path]
            entry[1] += 1
            self._open.move_to_end(path)
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1
                idle = [p for p, (_, users) in self._open.items() if not users]
                for old in idle[: max(0, len(self._open) - self._most)]:
                    os.close(self._open.pop(old)[0])

    def close(self) -> None:
        """Close all; nobody reads any more."""
        with self._lock:
            for file, _ in self._open.values():
                os.close(file)
            self._open.clear()
