"""What a codec of images or of bytes has to be told to give a frame back: its type, shape and range of values."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[Any]

DTYPES = ("uint8", "uint16", "int16", "float32")
_LAYOUT = struct.Struct("<B3I2d")


class CodecError(RuntimeError):
    """A codec cannot code this frame, or is not installed; the message says why in plain words."""


@dataclass(frozen=True)
class FrameHeader:
    """Type, shape and range of one frame (z, y, x); 29 bytes in front of every codec's stream, counted with it.

    Attributes
    ----------
    dtype : one of :data:`DTYPES`
    shape : (z, y, x)
    low, high : smallest and largest value that the codec's levels stand for
    """

    dtype: str
    shape: tuple[int, int, int]
    low: float
    high: float

    @staticmethod
    def of(frame: Frame, window: tuple[float, float] | None = None) -> FrameHeader:
        """The header of a frame; the window is its own range unless another one is given.

        Raises
        ------
        CodecError : a type or shape that no codec here takes, or values that are not finite
        """
        if frame.dtype.name not in DTYPES:
            raise CodecError(f"values of type {frame.dtype.name} are not coded, only {', '.join(DTYPES)}")
        if frame.ndim != 3 or frame.size == 0:
            raise CodecError(f"a frame has the axes (z, y, x), not the shape {frame.shape}")
        low, high = window or (float(frame.min()), float(frame.max()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CodecError("the frame holds values that are not finite")
        return FrameHeader(frame.dtype.name, (frame.shape[0], frame.shape[1], frame.shape[2]), low, high)

    @property
    def scale(self) -> float:
        """Range of the values; 1 where they are all equal."""
        return self.high - self.low or 1.0

    def pack(self, stream: bytes) -> bytes:
        """The stream with this header before it."""
        return _LAYOUT.pack(DTYPES.index(self.dtype), *self.shape, self.low, self.high) + stream

    @staticmethod
    def unpack(data: bytes) -> tuple[FrameHeader, bytes]:
        """Header and stream.

        Raises
        ------
        CodecError : too short to hold a header
        """
        if len(data) < _LAYOUT.size:
            raise CodecError(f"{len(data)} bytes are too few for a coded frame")
        code, z, y, x, low, high = _LAYOUT.unpack_from(data)
        return FrameHeader(DTYPES[code], (z, y, x), low, high), data[_LAYOUT.size :]

    def levels(self, frame: Frame, top: int) -> NDArray[np.uint16]:
        """Values as integers 0 to `top`, the window over all of them; values outside are clipped."""
        scaled = (frame.astype(np.float64) - self.low) * (top / self.scale)
        return np.clip(np.rint(scaled), 0, top).astype(np.uint16)

    def values(self, levels: NDArray[Any], top: int) -> Frame:
        """The inverse of :meth:`levels`, in the frame's type."""
        return self.typed(levels.astype(np.float64) * (self.scale / top) + self.low)

    def typed(self, values: NDArray[Any]) -> Frame:
        """Values in the frame's type and shape; integers are rounded and clipped to what the type holds."""
        values = values.reshape(self.shape)
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            return values.astype(dtype, copy=False)
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


def join(parts: Iterable[bytes]) -> bytes:
    """Byte strings one after the other, each behind its length (base 128, least significant first)."""
    out = bytearray()
    for part in parts:
        n = len(part)
        while n >= 128:
            out.append(n & 127 | 128)
            n >>= 7
        out.append(n)
        out += part
    return bytes(out)


def split(data: bytes) -> Iterator[bytes]:
    """The byte strings of :func:`join`."""
    at = 0
    while at < len(data):
        n = shift = 0
        while data[at] & 128:
            n |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
        n |= data[at] << shift
        yield data[at + 1 : at + 1 + n]
        at += 1 + n
