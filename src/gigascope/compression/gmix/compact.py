"""The compact form: one file of bytes, a zip archive that holds a Zarr array of bytes.

The array begins with a head: three numbers, one stream with probabilities, index and background, and the checksums of
pages. The payloads of the bricks follow, then the residual layer. One array, because entries and metadata of an archive
cost more than the Gaussians of a small volume.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.gmix import background_code, entropy
from gigascope.compression.gmix.archive import Reader, Writer
from gigascope.compression.gmix.header import Header
from gigascope.compression.gmix.index import BrickIndex, BrickPlaces
from gigascope.compression.gmix.models import Models
from gigascope.compression.gmix.pages import PAGE, Pages
from gigascope.errors import UserError

if TYPE_CHECKING:
    from gigascope.compression.gmix.encoding import Encoded

# Bytes of a chunk of the array, each one entry of the archive.
CHUNK = 1 << 24
HEAD = struct.Struct("<III")
I64 = NDArray[np.int64]


class CompactFile:
    """A compact file that is open for reading; its directory, attributes and head are checked.

    Attributes
    ----------
    header : its attributes
    models : probabilities
    index : its bricks
    background : per frame (nz, ny, nx) int64

    Raises
    ------
    UserError : it is no such file, was cut off or altered, or is of another version
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive = Reader(path)
        try:
            self._open()
        except BaseException:
            self.archive.close()
            raise

    @property
    def n_read(self) -> int:
        """Bytes read of the file so far."""
        return self.archive.n_read

    def payload(self, start: int, stop: int) -> bytes:
        """Bytes of the payloads, checked by whole pages."""
        return self._payload.part(start, stop)

    def residual(self, start: int, stop: int) -> bytes:
        """Bytes of the residual layer, checked by whole pages."""
        return self._residual.part(start, stop)

    def damaged(self, what: str) -> UserError:
        """The refusal of a file that is not as it was written."""
        return self.archive.damaged(what)

    def bytes_by_component(self) -> dict[str, int]:
        """Every byte of the file."""
        found = dict(self._parts, payload=self._payload.size, residual=self._residual.size)
        return {"header": self.archive.size - sum(found.values()), **found}

    def close(self) -> None:
        """Close the file."""
        self.archive.close()

    def _open(self) -> None:
        try:
            metadata = json.loads(self.archive.read("zarr.json"))
            self.header = Header.from_json(metadata["attributes"]["gmix"])
            self._chunk = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"is no Gaussian file that can be read ({error}).", where=self.path) from error
        size, checksum, n_stream = HEAD.unpack(self._bytes(0, HEAD.size))
        if size < HEAD.size + n_stream:
            raise self.damaged("its head was altered")
        head = self._bytes(0, size)
        if zlib.crc32(head[8:]) != checksum:
            raise self.damaged("its head was altered: its checksum differs")
        try:
            self._read_head(head, n_stream)
        except (entropy.Damaged, ValueError) as error:
            raise self.damaged(f"its head cannot be decoded ({error})") from error

    def _read_head(self, head: bytes, n_stream: int) -> None:
        header = self.header
        decoder = entropy.Decoder(head[HEAD.size : HEAD.size + n_stream])
        places = [0]

        def column(length: int) -> I64:
            return entropy.integers(decoder, length)

        self.models = Models.of_columns([column(n) for n in Models.lengths(header.brick)])
        places.append(int(decoder.state[1]))
        n = len(BrickPlaces(header))
        self.index = BrickIndex.read(decoder, n, header.brick, residual=header.residual is not None)
        places.append(int(decoder.state[1]))
        shape = header.background_shape
        left = [column(int(np.prod(shape))) for _ in range(header.n_frames)]
        self.background = [background_code.from_residuals(row, shape) for row in left]
        places.append(int(decoder.state[1]))
        decoder.end()
        sizes = int(self.index.lengths.sum()), int(self.index.residuals.sum())
        sums = np.frombuffer(head, "<u4", offset=HEAD.size + n_stream)
        n_pages = [-(-size // PAGE) for size in sizes]
        if len(sums) != sum(n_pages):
            raise entropy.Damaged("the number of checksums differs")
        self._payload = Pages(sizes[0], functools.partial(self._page, len(head), sums[: n_pages[0]]))
        self._residual = Pages(sizes[1], functools.partial(self._page, len(head) + sizes[0], sums[n_pages[0] :]))
        tables, index, background = np.diff(places).tolist()
        self._parts = {"tables": tables, "index": index + 4 * len(sums), "background": background}

    def _bytes(self, start: int, stop: int) -> bytes:
        parts = []
        while start < stop:
            chunk, place = divmod(start, self._chunk)
            end = min(self._chunk, place + stop - start)
            parts.append(self.archive.part(f"c/{chunk}", place, end))
            start += end - place
        return b"".join(parts)

    def _page(self, first: int, sums: NDArray, start: int, stop: int) -> bytes:
        data = self._bytes(first + start, first + stop)
        if zlib.crc32(data) != sums[start // PAGE]:
            raise self.damaged(f"bytes {first + start} to {first + stop} were altered: their checksum differs")
        return data


def write(path: Path, encoded: Encoded) -> None:
    """Write a compact file in place of one that is there, all or nothing."""
    header, payload, residual = encoded.header, encoded.payload, encoded.residual
    columns = [
        *encoded.models.columns,
        *encoded.index.columns(header.brick, residual=header.residual is not None),
        *(background_code.residuals(grid) for grid in encoded.background),
    ]
    stream = entropy.encode_integers(columns)
    body = struct.pack("<I", len(stream)) + stream + payload.checksums() + residual.checksums()
    head = struct.pack("<II", 8 + len(body), zlib.crc32(body)) + body
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            archive = Writer(file)
            pieces = itertools.chain([head], payload.pieces(), residual.pieces())
            _write_array(archive, header, len(head) + payload.size + residual.size, pieces)
            archive.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_array(archive: Writer, header: Header, size: int, pieces: Iterator[bytes]) -> None:
    n_chunks = max(1, -(-size // CHUNK))
    # equal chunks, because the last one is padded to a whole one
    chunk = -(-size // n_chunks)
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [size],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        "attributes": {"gmix": header.to_json()},
    }
    archive.add("zarr.json", json.dumps(metadata, separators=(",", ":")).encode(), deflate=True)
    held, number = b"", 0
    for piece in pieces:
        held += piece
        while len(held) >= chunk:
            archive.add(f"c/{number}", held[:chunk])
            held, number = held[chunk:], number + 1
    if held:
        archive.add(f"c/{number}", held.ljust(chunk, b"\0"))
