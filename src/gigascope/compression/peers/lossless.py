"""Lossless codecs through imagecodecs: what a volume takes without losing anything, the honest base of a ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigascope.compression.peers import codecs_array
from gigascope.compression.peers.codec_frame import CodecError, Frame, FrameHeader, join, split


@dataclass(frozen=True)
class Lossless:
    """One lossless codec.

    Attributes
    ----------
    label : name for people
    library : its name in imagecodecs
    encode : frame (z, y, x) -> bytes
    decode : bytes -> the same frame
    kinds : kinds of numpy types it takes: "u", "i", "f"
    """

    label: str
    library: str
    encode: Callable[[Frame], bytes]
    decode: Callable[[bytes], Frame]
    kinds: str

    def size(self, frame: Frame) -> int:
        """Bytes of the coded frame, after decoding it and comparing.

        Raises
        ------
        CodecError : not installed, the type is not taken, or the frame does not come back
        """
        reason = codecs_array.missing(self.library)
        if reason is None and frame.dtype.kind not in self.kinds:
            reason = f"{self.label} takes no values of type {frame.dtype.name}"
        if reason:
            raise CodecError(reason)
        try:
            data = self.encode(frame)
            same = np.array_equal(self.decode(data), frame)
        except (RuntimeError, ValueError) as error:
            raise CodecError(f"{self.label} refused the frame: {error}") from error
        if not same:
            raise CodecError(f"{self.label} did not give the frame back")
        return len(data)


def _whole(encode: Callable[[Any], Any], decode: Callable[[bytes, FrameHeader], Any]) -> tuple[Any, Any]:
    def one(frame: Frame) -> bytes:
        return FrameHeader.of(frame).pack(bytes(encode(np.ascontiguousarray(frame))))

    def back(data: bytes) -> Frame:
        header, stream = FrameHeader.unpack(data)
        raw = decode(stream, header)
        values = raw if isinstance(raw, np.ndarray) else np.frombuffer(raw, header.dtype)
        return values.reshape(header.shape)

    return one, back


def _slices(encode: Callable[[Any], Any], decode: Callable[[bytes], Any]) -> tuple[Any, Any]:
    """Slice by slice, integers less their minimum, which makes signed ones unsigned."""

    def one(frame: Frame) -> bytes:
        header = FrameHeader.of(frame)
        kind = np.uint8 if header.high - header.low < 256 else np.uint16
        images = (frame.astype(np.int32) - int(header.low)).astype(kind)
        return header.pack(join(bytes(encode(image)) for image in images))

    def back(data: bytes) -> Frame:
        header, stream = FrameHeader.unpack(data)
        images = np.stack([decode(part) for part in split(stream)]).astype(np.int32)
        return (images + int(header.low)).astype(header.dtype).reshape(header.shape)

    return one, back


def lossless_codecs() -> list[Lossless]:
    """The lossless codecs that are compared, from the simplest to the strongest."""
    import imagecodecs as ic

    def blosc2(values: Any) -> Any:
        options: dict[str, Any] = {"level": 9, "compressor": "zstd", "shuffle": "bitshuffle"}
        return ic.blosc2_encode(values, typesize=values.itemsize, **options)

    whole = {
        "blosc2 zstd": ("blosc2", *_whole(blosc2, lambda s, _: ic.blosc2_decode(s))),
        "pcodec": (
            "pcodec",
            *_whole(ic.pcodec_encode, lambda s, h: ic.pcodec_decode(s, shape=h.shape, dtype=np.dtype(h.dtype))),
        ),
    }
    slices = {
        "JPEG-LS": ("jpegls", *_slices(ic.jpegls_encode, ic.jpegls_decode)),
        "JPEG 2000 lossless": (
            "jpeg2k",
            *_slices(
                lambda s: ic.jpeg2k_encode(s, level=0, reversible=True, codecformat="j2k"),
                ic.jpeg2k_decode,
            ),
        ),
        "JPEG XL lossless": ("jpegxl", *_slices(lambda s: ic.jpegxl_encode(s, lossless=True), ic.jpegxl_decode)),
    }
    return [Lossless(label, *entry, kinds="uif") for label, entry in whole.items()] + [
        Lossless(label, *entry, kinds="ui") for label, entry in slices.items()
    ]


def lossless_sizes(frame: Frame) -> tuple[dict[str, int], dict[str, str]]:
    """Bytes of a frame (z, y, x) under every lossless codec that takes it, and why the others do not."""
    sizes, refused = {}, {}
    for codec in lossless_codecs():
        try:
            sizes[codec.label] = codec.size(frame)
        except CodecError as error:
            refused[codec.label] = str(error)
    return sizes, refused
