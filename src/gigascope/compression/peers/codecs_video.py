"""Video codecs on volumes, through PyAV: slices are frames of one film, AV1 in 10 bits and HEVC in 10 or 12.

The range of the volume is stretched over all levels of the codec. Streams are written without a container, and without
the encoder's text about itself, so that nothing but the picture counts.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.peers.codec_frame import CodecError, Frame, FrameHeader

U16 = NDArray[np.uint16]

# SVT-AV1 takes nothing smaller, and 4:2:0 only even sides
LEAST_SIDE = 64
LARGEST_SIDE = 8192


def encode_av1(frame: Frame, crf: float, preset: int = 6, window: tuple[float, float] | None = None) -> bytes:
    """Code with SVT-AV1, 10 bits, luma with neutral chroma.

    Parameters
    ----------
    frame : (z, y, x)
    crf : constant rate factor, 1 to 63 in steps of 0.25; smaller is better
    preset : 0 (slowest) to 13
    window : values that become 0 and 1023; none: the range of the frame

    Raises
    ------
    CodecError : PyAV or its SVT-AV1 is missing, or refuses the frame
    """
    header = FrameHeader.of(frame, window)
    # the encoder writes its settings to the terminal and offers no other switch; read when it starts
    os.environ.setdefault("SVT_LOG", "1")
    # ffmpeg's own crf takes whole numbers only. lp=2: the bytes do not depend on the number of cores
    options = {"preset": str(preset), "svtav1-params": f"lp=2:crf={round(4 * crf) / 4:g}"}
    luma = _padded(header.levels(frame, 1023))
    n_z, n_y, n_x = luma.shape
    images = np.full((n_z, n_y * 3 // 2, n_x), 512, np.uint16)
    images[:, :n_y] = luma
    with _scheduling_kept():
        return header.pack(_encode(images, (n_x, n_y), "libsvtav1", "yuv420p10le", "obu", options))


def decode_av1(data: bytes) -> Frame:
    """The frame of :func:`encode_av1`'s bytes."""
    header, stream = FrameHeader.unpack(data)
    return header.values(_decode(header, stream, "obu"), 1023)


def encode_hevc(frame: Frame, crf: float, bits: int = 12) -> bytes:
    """Code with x265, preset medium, grey in 10 or 12 bits.

    Parameters
    ----------
    frame : (z, y, x)
    crf : constant rate factor, 0 to 51, any fraction; smaller is better
    bits : 10 or 12

    Raises
    ------
    CodecError : PyAV or its x265 is missing, or refuses the frame
    """
    header = FrameHeader.of(frame)
    # info=0: no 2 kB of text about the encoder. One frame thread: the bytes do not depend on the number of cores
    options = {
        "preset": "medium",
        "crf": f"{crf:g}",
        "x265-params": "log-level=none:info=0:pools=2:frame-threads=1",
    }
    images = _padded(header.levels(frame, 2**bits - 1))
    size = images.shape[2], images.shape[1]
    return header.pack(_encode(images, size, "libx265", f"gray{bits}le", "hevc", options))


def decode_hevc(data: bytes, bits: int = 12) -> Frame:
    """The frame of :func:`encode_hevc`'s bytes with the same `bits`."""
    header, stream = FrameHeader.unpack(data)
    return header.values(_decode(header, stream, "hevc"), 2**bits - 1)


def missing(encoder: str) -> str | None:
    """Why an encoder cannot be used here, or none."""
    try:
        import av
    except ImportError:
        return "PyAV is not installed (pip install av)"
    return None if encoder in av.codecs_available else f"this PyAV was built without {encoder}"


@contextlib.contextmanager
def _scheduling_kept() -> Iterator[None]:
    """Where the user is root SVT-AV1 gives the thread that calls it real-time priority, and leaves it at that.

    What the thread does afterwards, and every process that it starts, would keep all others from the processors.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _encode(
    images: U16, size: tuple[int, int], encoder: str, pixels: str, muxer: str, options: dict[str, str]
) -> bytes:
    reason = missing(encoder)
    if reason:
        raise CodecError(reason)
    import av

    if max(size) > LARGEST_SIDE:
        raise CodecError(f"slices of {size[0]} x {size[1]} are larger than the {LARGEST_SIDE} that {encoder} takes")
    out = io.BytesIO()
    try:
        with av.open(out, "w", format=muxer) as film:
            stream: Any = film.add_stream(encoder, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt, stream.options = pixels, options
            for image in images:
                film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=pixels)))
            film.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        raise CodecError(f"{encoder} refused the frame: {error}") from error
    return out.getvalue()


def _decode(header: FrameHeader, stream: bytes, muxer: str) -> U16:
    import av

    n_z, n_y, n_x = header.shape
    try:
        with av.open(io.BytesIO(stream), "r", format=muxer) as film:
            images = [picture.to_ndarray()[:n_y, :n_x] for picture in film.decode(video=0)]
    except (av.FFmpegError, ValueError) as error:
        raise CodecError(f"the stream does not decode: {error}") from error
    if len(images) != n_z:
        raise CodecError(f"the stream holds {len(images)} of {n_z} slices")
    return np.stack(images)


def _padded(levels: U16) -> U16:
    """Repeat the last row and column to even sides of at least :data:`LEAST_SIDE`; the copies are cut off again."""
    wanted = [max(LEAST_SIDE, n + n % 2) for n in levels.shape[1:]]
    pads = [(0, 0), *((0, w - n) for w, n in zip(wanted, levels.shape[1:]))]
    return np.pad(levels, pads, mode="edge")
