"""Codecs of images and of arrays on volumes: JPEG 2000 and JPEG XL slice by slice, SPERR, SZ3 and ZFP in 3-D.

All through imagecodecs, ZFP through zfpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gigascope.compression.peers.codec_frame import CodecError, Frame, FrameHeader, join, split


def encode_jpeg2000(frame: Frame, psnr: float) -> bytes:
    """Code every slice as a bare JPEG 2000 code stream, irreversible, to a PSNR in dB of the declared bit depth.

    Integers are coded as they are less the minimum, declared with as many bits as they use (without that the target
    would refer to 65535, and 12-bit data collapse); floats are stretched over 16 bits.
    """
    import imagecodecs

    header = FrameHeader.of(frame)
    top, bits = _integer_levels(header)
    # 8 bits in a 16-bit image are taken for 16: the target would refer to 65535 again
    images = header.levels(frame, top).astype(np.uint8 if bits == 8 else np.uint16)

    options: dict[str, Any] = {"level": psnr, "reversible": False, "bitspersample": bits, "codecformat": "j2k"}

    def one(image: Any) -> bytes:
        return bytes(imagecodecs.jpeg2k_encode(image, **options))

    return header.pack(join(_run("JPEG 2000", one, image) for image in images))


def decode_jpeg2000(data: bytes) -> Frame:
    """The frame of :func:`encode_jpeg2000`'s bytes."""
    import imagecodecs

    header, stream = FrameHeader.unpack(data)
    images = [_run("JPEG 2000", imagecodecs.jpeg2k_decode, part) for part in split(stream)]
    return header.values(np.stack(images), _integer_levels(header)[0])


def encode_jpegxl(frame: Frame, distance: float) -> bytes:
    """Code every slice with JPEG XL, effort 5, to a perceptual distance (0.05 to 25, smaller is better).

    The distance refers to the declared range: values are stretched over all of 16 bits.
    """
    import imagecodecs

    header = FrameHeader.of(frame)

    def one(image: Any) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(image, distance=distance, effort=5))

    return header.pack(join(_run("JPEG XL", one, image) for image in header.levels(frame, 65535)))


def decode_jpegxl(data: bytes) -> Frame:
    """The frame of :func:`encode_jpegxl`'s bytes."""
    import imagecodecs

    header, stream = FrameHeader.unpack(data)
    images = [_run("JPEG XL", imagecodecs.jpegxl_decode, part) for part in split(stream)]
    return header.values(np.stack(images), 65535)


def encode_sperr(frame: Frame, psnr: float) -> bytes:
    """Code with SPERR (3-D wavelets) to a PSNR target in dB; it stays on the safe side of it by some dB."""
    import imagecodecs

    header = FrameHeader.of(frame)
    values = _squeezed(frame)
    if values.ndim < 2:
        raise CodecError("SPERR needs two axes longer than 1")  # it ends the process otherwise
    return header.pack(_run("SPERR", lambda v: bytes(imagecodecs.sperr_encode(v, psnr, "psnr")), values))


def decode_sperr(data: bytes) -> Frame:
    """The frame of :func:`encode_sperr`'s bytes."""
    import imagecodecs

    header, stream = FrameHeader.unpack(data)
    return header.typed(_run("SPERR", imagecodecs.sperr_decode, stream))


def encode_sz3(frame: Frame, bound: float) -> bytes:
    """Code with SZ3 (3-D prediction) to an absolute error bound in the units of the frame."""
    import imagecodecs

    header = FrameHeader.of(frame)
    values = _squeezed(frame)
    return header.pack(_run("SZ3", lambda v: bytes(imagecodecs.sz3_encode(v, mode="abs", abs=bound)), values))


def decode_sz3(data: bytes) -> Frame:
    """The frame of :func:`encode_sz3`'s bytes."""
    import imagecodecs

    header, stream = FrameHeader.unpack(data)
    shape = tuple(n for n in header.shape if n > 1) or (1,)
    return header.typed(_run("SZ3", lambda s: imagecodecs.sz3_decode(s, shape=shape, dtype=np.float32), stream))


def encode_zfp(frame: Frame, tolerance: float) -> bytes:
    """Code with ZFP to an absolute tolerance in the units of the frame.

    The true error is 4 to 10 times smaller, and only the power of two below the tolerance counts: rates come in steps.
    """
    header = FrameHeader.of(frame)
    return header.pack(_run("ZFP", lambda v: bytes(_zfpy().compress_numpy(v, tolerance=tolerance)), _squeezed(frame)))


def decode_zfp(data: bytes) -> Frame:
    """The frame of :func:`encode_zfp`'s bytes."""
    header, stream = FrameHeader.unpack(data)
    return header.typed(_run("ZFP", _zfpy().decompress_numpy, stream))


def missing(codec: str) -> str | None:
    """Why a codec of imagecodecs (its name there), or zfpy, cannot be used here, or none."""
    try:
        if codec == "zfpy":
            _zfpy()
            return None
        import imagecodecs

        available = bool(getattr(imagecodecs, codec.upper()).available)
    except ImportError:
        return "imagecodecs is not installed (pip install imagecodecs)"
    except CodecError as error:
        return str(error)
    except AttributeError:
        available = False
    return None if available else f"this imagecodecs was built without {codec}"


def _zfpy() -> Any:
    try:
        import zfpy
    except ImportError as error:
        raise CodecError("zfpy is not installed (pip install zfpy)") from error
    return zfpy


def _run(name: str, function: Callable[[Any], Any], argument: Any) -> Any:
    """Call into a codec's library; what it raises (all of them RuntimeError or ValueError) becomes one error."""
    try:
        return function(argument)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, CodecError):
            raise
        raise CodecError(f"{name} refused the frame: {error}") from error


def _integer_levels(header: FrameHeader) -> tuple[int, int]:
    """Largest level and bits to declare: the integers' own, so that levels are values; 16 bits for floats."""
    if header.dtype == "float32":
        return 65535, 16
    top = max(1, round(header.scale))
    return top, max(8, top.bit_length())


def _squeezed(frame: Frame) -> Frame:
    """float32 without axes of one sample (SPERR ends the process on one plane of a volume, ZFP pads it fourfold)."""
    values = np.ascontiguousarray(frame.squeeze(), np.float32)
    return values if values.ndim else values.reshape(1)
