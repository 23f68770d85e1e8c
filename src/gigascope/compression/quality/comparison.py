"""Codecs beside ours on the same volume: at the same number of bytes, and over a range of rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gigascope.compression.peers.codecs import CODECS, CodecError, Coded, Search
from gigascope.compression.peers.codecs import codec as codec_of
from gigascope.compression.quality.fidelity import Original
from gigascope.metrics.image import Voxels
from gigascope.metrics.rate import delta_rate, rate_at

# A curve runs from half our bytes to four times as many: where codecs need three times the bytes for our quality.
LEAST, MOST = 0.5, 4.0
# Qualities that rates are compared at, with the words for them.
QUALITIES = {
    "psnr_fg": "foreground PSNR",
    "psnr_fg_clean": "foreground PSNR against the noise-free volume",
    "psnr_gate": "PSNR in the gate",
    "psnr_whole": "PSNR of all voxels",
    "mip_ssim": "SSIM of the maximum projections",
}


@dataclass(frozen=True)
class Point:
    """One decoded result.

    Attributes
    ----------
    method : short name of the codec, "ours" for this package's
    label : name for people
    n_bytes : all bytes that decoding needs
    values : measures by name, as in `fidelity.LABELS`
    setting : of the codec, NaN for ours
    encode_s, decode_s : seconds, NaN where not measured
    """

    method: str
    label: str
    n_bytes: int
    values: dict[str, float]
    setting: float = math.nan
    encode_s: float = math.nan
    decode_s: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """What the codecs do with a volume that ours codes to some bytes.

    Attributes
    ----------
    equal : at equal bytes, by short name; only codecs that come within 10 % of them
    curves : ascending in bytes, by short name
    left_out : why a codec is missing from `equal` or everywhere, in words, by label
    """

    equal: dict[str, Point] = field(default_factory=dict)
    curves: dict[str, list[Point]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def bytes_at_quality(self, ours: Point, method: str, quality: str) -> float:
        """Fraction by which our bytes differ from those a codec needs for our quality; NaN outside its curve."""
        theirs = rate_at(_points(self.curves.get(method, []), quality), ours.values.get(quality, math.nan))
        return ours.n_bytes / theirs - 1.0

    def delta_rate(
        self, ours: Sequence[Point], method: str, quality: str, interval: tuple[float, float] = (-math.inf, math.inf)
    ) -> float:
        """Bjontegaard delta-rate of our points against a codec's curve, a fraction; NaN where they do not overlap."""
        return delta_rate(_points(self.curves.get(method, []), quality), _points(ours, quality), interval).value


def compare(
    original: Original,
    n_bytes: int,
    methods: Iterable[str],
    rates: int = 4,
    *,
    sizes: Sequence[int] | None = None,
    full: bool = True,
    keep: Callable[[str, Voxels], None] | None = None,
) -> Comparison:
    """Run codecs on a volume in memory.

    Parameters
    ----------
    original : to code; a box of at most some 64 million voxels
    n_bytes : of our file for the same voxels
    methods : short names of codecs
    rates : points of each curve, from half to four times `n_bytes`, beside the one at equal bytes
    sizes : bytes of the curves' points instead
    full : measure similarity, resolution and structure at equal bytes too, not PSNR and projections alone
    keep : called with the short name and the decoded volume of every codec at equal bytes
    """
    found = Comparison()
    for method in methods:
        try:
            _run(found, original, n_bytes, method, sizes or _sizes(n_bytes, rates), full, keep)
        except CodecError as error:
            label = CODECS[method].label if method in CODECS else method
            found.left_out[label] = str(error)
    return found


def measured(original: Original, coded: Coded, full: bool) -> tuple[Point, Voxels]:
    """The point of a coded volume, decoded from its bytes, and the decoded volume."""
    decoded, seconds = coded.decode()
    values = original.measure(decoded) if full else original.quick(decoded)
    codec = coded.codec
    return Point(codec.key, codec.label, len(coded.data), values, coded.setting, coded.encode_s, seconds), decoded


def _run(
    found: Comparison,
    original: Original,
    n_bytes: int,
    method: str,
    sizes: Sequence[int],
    full: bool,
    keep: Callable[[str, Voxels], None] | None,
) -> None:
    codec = codec_of(method)
    search = Search(codec, np.asarray(original.volume))
    equal = search.at_bytes(n_bytes)
    if equal.reached:
        found.equal[method], decoded = measured(original, equal, full)
        if keep is not None:
            keep(method, decoded)
    else:
        found.left_out[codec.label] = (
            f"it has no setting near {n_bytes:,} bytes; the nearest gives {len(equal.data):,} "
            f"({codec.setting} {equal.setting:.4g})"
        )
    points = {} if not equal.reached else {equal.setting: found.equal[method]}
    for size in sizes:
        coded = search.at_bytes(size, tolerance=0.03)
        # a size that the codec does not come near stands for its own bytes: it is a point of the curve all the same
        if coded.setting not in points:
            points[coded.setting] = measured(original, coded, full=False)[0]
    found.curves[method] = sorted(points.values(), key=lambda p: p.n_bytes)


def _sizes(n_bytes: int, rates: int) -> list[int]:
    factors = np.geomspace(LEAST, MOST, rates) if rates > 1 else [1.0]
    return [max(1, round(n_bytes * factor)) for factor in factors]


def _points(points: Sequence[Point], quality: str) -> list[tuple[float, float]]:
    return [(float(p.n_bytes), p.values.get(quality, math.nan)) for p in points]
