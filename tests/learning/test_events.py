"""Events for TensorBoard: read back by the format's own rules, and by TensorBoard where it is installed."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gigascope.learning.events import EventFile, crc32c, png


def fields(message: bytes) -> list[tuple[int, Any]]:
    """(number, value) of each field of a protocol buffer message."""
    found: list[tuple[int, Any]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(message):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            found.append((number, varint()))
            continue
        size = {1: 8, 5: 4}[kind] if kind != 2 else varint()
        piece = message[at : at + size]
        at += size
        form = {1: "<d", 5: "<f"}.get(kind)
        found.append((number, piece if form is None else struct.unpack(form, piece)[0]))
    return found


def records(path: Path) -> list[dict[int, Any]]:
    """Events of a file, checksums compared."""
    data, at, found = path.read_bytes(), 0, []

    def masked(piece: bytes) -> int:
        crc = crc32c(piece)
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    while at < len(data):
        length, check = struct.unpack("<QI", data[at : at + 12])
        assert check == masked(data[at : at + 8])
        event = data[at + 12 : at + 12 + length]
        assert struct.unpack("<I", data[at + 12 + length : at + 16 + length])[0] == masked(event)
        found.append(dict(fields(event)))
        at += 16 + length
    return found


def write(path: Path, pixels: np.ndarray) -> None:
    events = EventFile(path)
    events.scalars(3, {"loss/cycle": 0.25, "rate": 2e-4})
    events.picture(300, "adapted", pixels)
    events.close()


def test_checksum_is_that_of_castagnoli() -> None:
    # RFC 3720, B.4
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_events_hold_scalars_and_pictures(rng: np.random.Generator, tmp_path: Path) -> None:
    pixels = rng.integers(0, 256, (12, 300), dtype=np.uint8)
    write(tmp_path / "events.out.tfevents.a", pixels)
    first, scalars, picture = records(tmp_path / "events.out.tfevents.a")
    assert first[3] == b"brain.Event:2"
    assert (scalars[2], picture[2]) == (3, 300)
    values = [dict(fields(value)) for number, value in fields(scalars[5]) if number == 1]
    assert [(v[1], pytest.approx(v[2])) for v in values] == [(b"loss/cycle", 0.25), (b"rate", 2e-4)]
    image = dict(fields(dict(fields(dict(fields(picture[5]))[1]))[4]))
    assert (image[1], image[2], image[3]) == (12, 300, 1)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image[4]))), pixels)


def test_png_is_read_by_others(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (7, 5), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


def test_a_name_that_tensorboard_would_not_find_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tfevents"):
        EventFile(tmp_path / "losses.log")


def test_tensorboard_reads_the_events(rng: np.random.Generator, tmp_path: Path) -> None:
    reason = "no tensorboard: pip install tensorboard to run this test"
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    pixels = rng.integers(0, 256, (12, 30), dtype=np.uint8)
    write(tmp_path / "events.out.tfevents.a", pixels)
    found = module.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss/cycle")] == [(3, 0.25)]
    assert [(e.step, e.width) for e in found.Images("adapted")] == [(300, 30)]
