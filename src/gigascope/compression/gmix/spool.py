"""Bytes on their way into a file of which nobody knows yet how many they will be."""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gigascope.compression.gmix.pages import PAGE

_PIECE = 1 << 24


class Spool:
    """Bytes on their way into an array, in a file without a name, and the checksums of their pages."""

    def __init__(self, folder: Path) -> None:
        self.file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - see close
        self.size = 0

    def append(self, data: bytes) -> None:
        """Add to the end."""
        self.file.write(data)
        self.size += len(data)

    def part(self, start: int, stop: int) -> bytes:
        """Some of the bytes."""
        self.file.seek(start)
        return self.file.read(stop - start)

    def checksums(self) -> bytes:
        """CRC-32 of each page, little-endian."""
        self.file.seek(0)
        return b"".join(struct.pack("<I", zlib.crc32(page)) for page in iter(lambda: self.file.read(PAGE), b""))

    def pieces(self) -> Iterator[bytes]:
        """All bytes, in order."""
        self.file.seek(0)
        yield from iter(lambda: self.file.read(_PIECE), b"")

    def close(self) -> None:
        """Drop it."""
        self.file.close()
