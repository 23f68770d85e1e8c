"""The compact form: one file of bytes, a zip archive that holds a Zarr group with one array of bytes, or two.

Array `p` begins with a head: three numbers, one stream with probabilities, index and background, and the checksums of
pages. The payloads of the bricks follow. Array `r` holds the residual layer.
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
from typing import TYPE_CHECKING, Any

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

# Bytes of a chunk of the arrays, each one entry of the archive.
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
        residual = sum(e.packed for e in self.archive.entries.values() if e.name.startswith("r/c/"))
        found = dict(self._parts, payload=self._payload.size, residual=residual)
        return {"header": self.archive.size - sum(found.values()), **found}

    def close(self) -> None:
        """Close the file."""
        self.archive.close()

    def _open(self) -> None:
        try:
            attributes = json.loads(self.archive.read("zarr.json"))["attributes"]["gmix"]
            self.header = Header.from_json(attributes)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"is no Gaussian file that can be read ({error}).", where=self.path) from error
        arrays = [name for name in ("p", "r") if f"{name}/zarr.json" in self.archive.entries]
        self._chunk = {name: self._chunk_size(name) for name in arrays}
        if "p" not in self._chunk or ("r" in self._chunk) != (self.header.residual is not None):
            raise self.damaged("an array is missing")
        size, checksum, n_stream = HEAD.unpack(self._bytes("p", 0, HEAD.size))
        if size < HEAD.size + n_stream:
            raise self.damaged("its head was altered")
        head = self._bytes("p", 0, size)
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
        self._payload = Pages(sizes[0], functools.partial(self._page, "p", len(head), sums[: n_pages[0]]))
        self._residual = Pages(sizes[1], functools.partial(self._page, "r", 0, sums[n_pages[0] :]))
        tables, index, background = np.diff(places).tolist()
        self._parts = {"tables": tables, "index": index + 4 * len(sums), "background": background}

    def _chunk_size(self, name: str) -> int:
        metadata = json.loads(self.archive.read(f"{name}/zarr.json"))
        return int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])

    def _bytes(self, name: str, start: int, stop: int) -> bytes:
        size = self._chunk[name]
        parts = []
        while start < stop:
            chunk, place = divmod(start, size)
            end = min(size, place + stop - start)
            parts.append(self.archive.part(f"{name}/c/{chunk}", place, end))
            start += end - place
        return b"".join(parts)

    def _page(self, name: str, first: int, sums: NDArray, start: int, stop: int) -> bytes:
        data = self._bytes(name, first + start, first + stop)
        if zlib.crc32(data) != sums[start // PAGE]:
            raise self.damaged(f"bytes {start} to {stop} of {name} were altered: their checksum differs")
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
            root = {"zarr_format": 3, "node_type": "group", "attributes": {"gmix": header.to_json()}}
            archive.add("zarr.json", _json(root), deflate=True)
            _write_array(archive, "p", len(head) + payload.size, itertools.chain([head], payload.pieces()))
            if header.residual is not None:
                _write_array(archive, "r", residual.size, residual.pieces())
            archive.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_array(archive: Writer, name: str, size: int, pieces: Iterator[bytes]) -> None:
    n_chunks = max(1, -(-size // CHUNK))
    # equal chunks, because the last one is padded to a whole one
    chunk = max(1, -(-size // n_chunks))
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [size],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
    }
    archive.add(f"{name}/zarr.json", _json(metadata), deflate=True)
    held, number = b"", 0
    for piece in pieces:
        held += piece
        while len(held) >= chunk:
            archive.add(f"{name}/c/{number}", held[:chunk])
            held, number = held[chunk:], number + 1
    if held:
        archive.add(f"{name}/c/{number}", held.ljust(chunk, b"\0"))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
