"""Losses and pictures of a training as a file of events that TensorBoard shows: `tensorboard --logdir FOLDER`.

TensorBoard asks for no more than a few fields of two messages, so none of its libraries is needed to write them.
Records: https://www.tensorflow.org/tutorials/load_data/tfrecord; messages: `tensorboard/compat/proto/event.proto` and
`summary.proto`.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78


class EventFile:
    """Writes events, one after the other; the file can be read at any time.

    Parameters
    ----------
    path : of the file, whose name must hold `tfevents`; what is there is replaced
    """

    def __init__(self, path: Path) -> None:
        if "tfevents" not in path.name:
            raise ValueError(f"TensorBoard looks for files with tfevents in their name, not {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._write(_text(3, b"brain.Event:2"), 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, each by its tag."""
        summary = b"".join(_text(1, _text(1, tag.encode()) + _float(2, value)) for tag, value in values.items())
        self._write(_text(5, summary), step)

    def picture(self, step: int, tag: str, pixels: NDArray[np.uint8]) -> None:
        """A grey picture of a step: (rows, columns) uint8."""
        rows, columns = pixels.shape
        image = _number(1, rows) + _number(2, columns) + _number(3, 1) + _text(4, png(pixels))
        self._write(_text(5, _text(1, _text(1, tag.encode()) + _text(4, image))), step)

    def flush(self) -> None:
        """Let readers see what was written."""
        self._file.flush()

    def close(self) -> None:
        """The last event was written."""
        self._file.close()

    def _write(self, what: bytes, step: int) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + _number(2, step) + what
        length = struct.pack("<Q", len(event))
        self._file.write(length + _masked(length) + event + _masked(event))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A grey picture (rows, columns) uint8 as a PNG file."""
    rows, columns = pixels.shape
    lines = np.zeros((rows, columns + 1), np.uint8)
    lines[:, 1:] = pixels

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def crc32c(data: bytes) -> int:
    """CRC-32 by Castagnoli's polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (_POLYNOMIAL if n & 1 else 0)
        table.append(n)
    return table


_TABLE = _table()


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _text(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
