"""Zip files that are the same bytes whenever and wherever they are written, and that are known in every byte when read.

Entries follow each other without gaps and in a fixed order, have the date 1980-01-01 and no optional fields but those
of large files; the directory ends the file. A reader makes the directory and the headers anew from what it read and
compares: every byte is either part of an entry, which has a checksum, or is what it must be.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gigascope.errors import UserError

STORED, DEFLATED = 0, 8
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_ENTRY = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_LARGE_END = struct.Struct("<IQHHIIQQQQIIQI")
_LARGE_EXTRA = struct.Struct("<HHQ")
_DATE = 1 << 5 | 1
_VERSION, _LARGE_VERSION = 20, 45
_FULL = 0xFFFFFFFF
_MANY = 0xFFFF


@dataclass(frozen=True)
class Entry:
    """One file of an archive.

    Attributes
    ----------
    name : with slashes
    method : STORED or DEFLATED
    checksum : CRC-32 of the content
    packed, size : bytes in the archive, and unpacked
    start : of its header, bytes from the beginning of the archive
    """

    name: str
    method: int
    checksum: int
    packed: int
    size: int
    start: int

    @property
    def header(self) -> bytes:
        """In front of the content."""
        name = self.name.encode()
        sizes = (self.checksum, self.packed, self.size, len(name), 0)
        return _LOCAL.pack(0x04034B50, _VERSION, 0, self.method, 0, _DATE, *sizes) + name

    @property
    def data(self) -> int:
        """Where the content begins."""
        return self.start + _LOCAL.size + len(self.name.encode())

    @property
    def record(self) -> bytes:
        """In the directory."""
        name = self.name.encode()
        large = self.start >= _FULL
        extra = _LARGE_EXTRA.pack(1, 8, self.start) if large else b""
        sizes = (self.checksum, self.packed, self.size, len(name), len(extra), 0, 0, 0, 0, min(self.start, _FULL))
        version = _LARGE_VERSION if large else _VERSION
        return _ENTRY.pack(0x02014B50, version, version, 0, self.method, 0, _DATE, *sizes) + name + extra


class Writer:
    """An archive while it is written to an open file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.entries: list[Entry] = []
        self._place = 0

    def add(self, name: str, content: bytes, *, deflate: bool = False) -> None:
        """Append an entry of less than 4 GiB."""
        packed = content
        if deflate:
            compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
            packed = compressor.compress(content) + compressor.flush()
        method = DEFLATED if deflate else STORED
        entry = Entry(name, method, zlib.crc32(content), len(packed), len(content), self._place)
        self.file.write(entry.header + packed)
        self.entries.append(entry)
        self._place = entry.data + len(packed)

    def close(self) -> None:
        """Append the directory."""
        self.file.write(_directory(self.entries))


class Reader:
    """A finished archive.

    Attributes
    ----------
    path : of the file
    entries : by name
    n_read : bytes that were read of the file so far

    Raises
    ------
    UserError : no archive, or one that was cut off or altered in its directory
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_read = 0
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - stays open as long as the reader
        except (FileNotFoundError, IsADirectoryError) as error:
            raise UserError(f"is no Gaussian file: {error.strerror}.", where=path) from None
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.directory_size = 0
            self._seen: set[str] = set()
            self.entries = {entry.name: entry for entry in self._entries()}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str) -> bytes:
        """The whole content of an entry, checked.

        Raises
        ------
        UserError : there is none, or it was altered
        """
        entry = self._entry(name)
        raw = self._raw(entry.start, entry.data - entry.start + entry.packed)
        if raw[: entry.data - entry.start] != entry.header:
            raise self.damaged(f"the header of {name} was altered")
        content = raw[entry.data - entry.start :]
        if entry.method == DEFLATED:
            content = _unpacked(raw[entry.data - entry.start :], entry.size)
        if len(content) != entry.size or zlib.crc32(content) != entry.checksum:
            raise self.damaged(f"{name} was altered: its checksum differs")
        return content

    def part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes of an entry that is stored as it is. Its checksum is not looked at: the caller has its own.

        Raises
        ------
        UserError : there is no such entry, or not so much of it
        """
        entry = self._entry(name)
        if entry.method != STORED or not 0 <= start <= stop <= entry.size:
            raise self.damaged(f"bytes {start} to {stop} of {name} do not exist")
        if name not in self._seen:
            if self._raw(entry.start, entry.data - entry.start) != entry.header:
                raise self.damaged(f"the header of {name} was altered")
            self._seen.add(name)
        return self._raw(entry.data + start, stop - start)

    def damaged(self, what: str) -> UserError:
        """The refusal of a file that is not as it was written."""
        return UserError(f"is damaged: {what}.", where=self.path, do="Copy or make the file again.")

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise self.damaged(f"{name} is missing")
        return self.entries[name]

    def _raw(self, start: int, n: int) -> bytes:
        self._file.seek(start)
        content = self._file.read(n)
        self.n_read += len(content)
        if len(content) != n:
            raise self.damaged("it ends too early")
        return content

    def _entries(self) -> list[Entry]:
        if self.size < _END.size or self._raw(0, 4) != b"PK\x03\x04":
            raise UserError("is no Gaussian file: it is no zip archive.", where=self.path)
        try:
            start, n_bytes = self._directory_span()
        except (struct.error, ValueError):
            raise self.damaged("it is cut off: its directory is missing") from None
        directory = self._raw(start, self.size - start)
        try:
            entries = list(_parse(directory[:n_bytes]))
        except (struct.error, ValueError):
            raise self.damaged("its directory was altered") from None
        place = 0
        for entry in entries:
            if entry.start != place:
                raise self.damaged("its directory was altered")
            place = entry.data + entry.packed
        names = {entry.name for entry in entries}
        if place != start or _directory(entries) != directory or len(names) != len(entries):
            raise self.damaged("its directory was altered")
        self.directory_size = len(directory)
        return entries

    def _directory_span(self) -> tuple[int, int]:
        """Where the directory begins, and its bytes without what ends it."""
        signature, *_, n_entries, n_bytes, start, comment = _END.unpack(self._raw(self.size - _END.size, _END.size))
        if signature != 0x06054B50 or comment:
            raise ValueError("no end record")
        if n_entries == _MANY or start == _FULL:
            place = self.size - _END.size - _LARGE_END.size
            if place < 0:
                raise ValueError("no large end record")
            signature, *_, n_bytes, start, _, _, _, _ = _LARGE_END.unpack(self._raw(place, _LARGE_END.size))
            if signature != 0x06064B50:
                raise ValueError("no large end record")
        if start + n_bytes > self.size:
            raise ValueError("the directory is outside")
        return start, n_bytes


def _unpacked(packed: bytes, size: int) -> bytes:
    """The content of a deflated entry of `size` bytes, or nothing if it is damaged."""

    def inflated(data: bytes) -> bytes:
        decompressor = zlib.decompressobj(-15)
        try:
            content = decompressor.decompress(data, size + 1)
        except zlib.error:
            return b""
        return content if decompressor.eof and not decompressor.unused_data else b""

    content = inflated(packed)
    # The last byte ends with bits that say nothing: they are 0, or the file was altered.
    for bit in range(7, -1, -1):
        if inflated(packed[:-1] + bytes([packed[-1] ^ 1 << bit])) != content:
            break
        if packed[-1] >> bit & 1:
            return b""
    return content


def _parse(directory: bytes) -> Iterator[Entry]:
    place = 0
    while place < len(directory):
        fields = _ENTRY.unpack_from(directory, place)
        method, checksum, packed, size, n_name, n_extra, start = *fields[4:5], *fields[7:12], fields[16]
        place += _ENTRY.size
        name = directory[place : place + n_name].decode()
        if n_extra:
            _, _, start = _LARGE_EXTRA.unpack_from(directory, place + n_name)
        place += n_name + n_extra
        yield Entry(name, method, checksum, packed, size, start)


def _directory(entries: list[Entry]) -> bytes:
    """All that follows the last entry."""
    start = entries[-1].data + entries[-1].packed if entries else 0
    records = b"".join(entry.record for entry in entries)
    n, n_bytes = len(entries), len(records)
    large = b""
    if n >= _MANY or start >= _FULL or n_bytes >= _FULL:
        end = (0x06064B50, 44, _LARGE_VERSION, _LARGE_VERSION, 0, 0, n, n, n_bytes, start)
        large = _LARGE_END.pack(*end, 0x07064B50, 0, start + n_bytes, 1)
    n, n_bytes, start = min(n, _MANY), min(n_bytes, _FULL), min(start, _FULL)
    return records + large + _END.pack(0x06054B50, 0, 0, n, n, n_bytes, start, 0)
