"""The codecs that a compressed volume is compared with, at the same number of bytes.

Each codes a frame (z, y, x) to bytes that hold all that decoding needs, and back. `at_bytes` finds the setting that
comes nearest to a size; what is compared is always decoded from the bytes.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from gigascope.compression.peers import codecs_array, codecs_video
from gigascope.compression.peers.codec_frame import CodecError, Frame

__all__ = ["CODECS", "CodecError", "Coded", "Search", "at_bytes", "codec", "curve", "rates_around"]


@dataclass(frozen=True)
class Span:
    """Settings of a codec, from the fewest bytes to the most.

    Attributes
    ----------
    coarse, fine : the setting with the fewest and with the most bytes
    logarithmic : settings count by their ratio
    step : smallest difference that changes anything, of the setting or of its binary logarithm; 0 for none
    """

    coarse: float
    fine: float
    logarithmic: bool = False
    step: float = 0.0

    def at(self, place: float) -> float:
        """Setting at a place between 0 (fewest bytes) and 1, on the step."""
        ends = [math.log2(s) if self.logarithmic else s for s in (self.coarse, self.fine)]
        value = ends[0] + (ends[1] - ends[0]) * place
        if self.step:
            value = round(value / self.step) * self.step
        return 2.0**value if self.logarithmic else value


@dataclass(frozen=True)
class Codec:
    """A lossy codec.

    Attributes
    ----------
    key : short name, for tables and JSON
    label : name for people
    setting : what its setting is
    encode : (frame, setting) -> bytes
    decode : bytes -> frame
    span : range of the values (max - min) of a frame -> its settings
    missing : why it cannot be used here, or none
    """

    key: str
    label: str
    setting: str
    encode: Callable[[Frame, float], bytes]
    decode: Callable[[bytes], Frame]
    span: Callable[[float], Span]
    missing: Callable[[], str | None]


@dataclass(frozen=True)
class Coded:
    """A frame coded by one codec.

    Attributes
    ----------
    codec : it was coded with
    setting : of the codec
    data : all bytes that decoding needs
    encode_s : seconds of the one call that made `data`
    wanted : bytes asked for
    """

    codec: Codec
    setting: float
    data: bytes
    encode_s: float
    wanted: int

    @property
    def reached(self) -> bool:
        """The size is within 10 % of the one asked for."""
        return abs(len(self.data) / self.wanted - 1.0) <= 0.1

    def decode(self) -> tuple[Frame, float]:
        """Decoded frame and the seconds it took."""
        start = time.perf_counter()
        frame = self.codec.decode(self.data)
        return frame, time.perf_counter() - start


def _video(missing_encoder: str) -> Callable[[], str | None]:
    return functools.partial(codecs_video.missing, missing_encoder)


def _array(library: str) -> Callable[[], str | None]:
    return functools.partial(codecs_array.missing, library)


def _hevc(bits: int) -> Codec:
    return Codec(
        f"hevc{bits}",
        f"HEVC {bits}-bit",
        "crf",
        functools.partial(codecs_video.encode_hevc, bits=bits),
        functools.partial(codecs_video.decode_hevc, bits=bits),
        lambda _: Span(51.0, 0.0),
        _video("libx265"),
    )


def _av1(key: str, label: str, preset: int) -> Codec:
    return Codec(
        key,
        label,
        "crf",
        functools.partial(codecs_video.encode_av1, preset=preset),
        codecs_video.decode_av1,
        lambda _: Span(63.0, 1.0, step=0.25),
        _video("libsvtav1"),
    )


CODECS: dict[str, Codec] = {
    codec.key: codec
    for codec in (
        _av1("av1", "AV1 10-bit", 6),
        _hevc(12),
        _hevc(10),
        Codec(
            "sperr",
            "SPERR",
            "PSNR target, dB",
            codecs_array.encode_sperr,
            codecs_array.decode_sperr,
            lambda _: Span(5.0, 120.0),
            _array("sperr"),
        ),
        Codec(
            "sz3",
            "SZ3",
            "absolute bound",
            codecs_array.encode_sz3,
            codecs_array.decode_sz3,
            lambda scale: Span(scale, 1e-6 * scale, logarithmic=True),
            _array("sz3"),
        ),
        Codec(
            "jpeg2000",
            "JPEG 2000 slices",
            "PSNR target, dB",
            codecs_array.encode_jpeg2000,
            codecs_array.decode_jpeg2000,
            lambda _: Span(5.0, 110.0),
            _array("jpeg2k"),
        ),
        Codec(
            "jpegxl",
            "JPEG XL slices",
            "distance",
            codecs_array.encode_jpegxl,
            codecs_array.decode_jpegxl,
            lambda _: Span(25.0, 0.05, logarithmic=True),
            _array("jpegxl"),
        ),
        Codec(
            "zfp",
            "ZFP",
            "tolerance",
            codecs_array.encode_zfp,
            codecs_array.decode_zfp,
            lambda scale: Span(64.0 * scale, 1e-6 * scale, logarithmic=True, step=1.0),
            _array("zfpy"),
        ),
        # not among the baselines of the literature on volumes, but a stronger AV1 that anyone can have for more time
        _av1("av1_slow", "AV1 10-bit, preset 2", 2),
    )
}


def codec(key: str) -> Codec:
    """The codec of a short name.

    Raises
    ------
    CodecError : there is none of that name, or it is not installed
    """
    if key not in CODECS:
        raise CodecError(f"no codec is called {key}; there are {', '.join(CODECS)}")
    reason = CODECS[key].missing()
    if reason:
        raise CodecError(reason)
    return CODECS[key]


class Search:
    """Settings of one codec on one frame, remembered over several sizes asked for.

    Parameters
    ----------
    codec : to code with
    frame : (z, y, x)

    Raises
    ------
    CodecError : the codec is not installed
    """

    def __init__(self, codec: Codec, frame: Frame) -> None:
        reason = codec.missing()
        if reason:
            raise CodecError(reason)
        self._codec, self._frame = codec, frame
        self._span = codec.span(float(frame.max()) - float(frame.min()) or 1.0)
        # setting to (place, bytes, seconds)
        self._tried: dict[float, tuple[float, bytes, float]] = {}

    def at_bytes(self, wanted: int, tolerance: float = 0.01, most: int = 12) -> Coded:
        """Code to the number of bytes asked for, as near as the codec's settings come.

        Parameters
        ----------
        wanted : bytes
        tolerance : relative difference at which the search ends
        most : calls of the encoder

        Returns
        -------
        Coded, the nearest that was found; its `reached` is false where the codec has no setting near that size

        Raises
        ------
        CodecError : the codec refuses the frame
        """
        goal = math.log(max(1, wanted))
        for _ in range(most):
            place = self._next(goal)
            if place is None or self._span.at(place) in self._tried:
                break
            self._try(place)
            if abs(self._nearest(goal)[1]) <= math.log1p(tolerance):
                break
        setting, _ = self._nearest(goal)
        _, data, seconds = self._tried[setting]
        return Coded(self._codec, setting, data, seconds, wanted)

    def sizes(self) -> list[int]:
        """Bytes of everything coded so far."""
        return [len(data) for _, data, _ in self._tried.values()]

    def _try(self, place: float) -> None:
        setting = self._span.at(place)
        start = time.perf_counter()
        data = self._codec.encode(self._frame, setting)
        self._tried[setting] = place, data, time.perf_counter() - start

    def _nearest(self, goal: float) -> tuple[float, float]:
        """Setting with the size nearest to exp(goal), and the logarithm of the ratio of both."""
        found = ((s, math.log(len(data)) - goal) for s, (_, data, _) in self._tried.items())
        return min(found, key=lambda entry: abs(entry[1]))

    def _next(self, goal: float) -> float | None:
        """Where to try next: between the neighbours, where the straight line in ln(bytes) says; none: no place left."""
        if not self._tried:
            return 0.4
        points = sorted((place, math.log(len(data)) - goal) for place, data, _ in self._tried.values())
        below = [p for p in points if p[1] <= 0]
        above = [p for p in points if p[1] > 0]
        if not below or not above:
            # one side only: the ends of the settings are tried last, they may cost as much as the volume
            end, (place, miss) = (0.0, points[0]) if above else (1.0, points[-1])
            if place == end:
                return None
            # ln(bytes) over all settings spans about 9 for every codec here
            step = min(max(abs(miss) / 9.0 * 1.3, 0.03), abs(end - place))
            return place + math.copysign(step, end - place)
        low, high = below[-1], above[0]
        if high[0] - low[0] < 1e-4:
            # a jump of the codec, or sizes that do not rise with the setting: come down to its own ripple
            return None
        # never nearer than a tenth to either end, so that the interval shrinks on a curve with a corner
        share = min(max(-low[1] / (high[1] - low[1]), 0.1), 0.9)
        # on a step that was tried before, one between the neighbours may be left
        places = (low[0] + part * (high[0] - low[0]) for part in (share, 0.5))
        return next((p for p in places if self._span.at(p) not in self._tried), None)


def at_bytes(codec: Codec, frame: Frame, wanted: int, tolerance: float = 0.01) -> Coded:
    """Code a frame (z, y, x) to a number of bytes, as near as the codec comes; see :meth:`Search.at_bytes`."""
    return Search(codec, frame).at_bytes(wanted, tolerance)


def curve(codec: Codec, frame: Frame, sizes: Iterable[int], tolerance: float = 0.03) -> list[Coded]:
    """Code a frame to several sizes, ascending; sizes that the codec has no setting for are left out."""
    search = Search(codec, frame)
    found = {c.setting: c for c in (search.at_bytes(n, tolerance) for n in sorted(sizes)) if c.reached}
    return sorted(found.values(), key=lambda c: len(c.data))


def rates_around(size: int, n: int = 4, factor: float = 4.0) -> list[int]:
    """`n` sizes evenly spaced in ratio, from size / sqrt(factor) to size * sqrt(factor)."""
    return [round(size * factor**e) for e in np.linspace(-0.5, 0.5, n)]
