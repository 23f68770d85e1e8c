"""Rate against distortion: our files beside the codecs a user would pick instead, in one run, all bytes counted.

    python benchmarks/compression.py [--quick] [--json FILE] [--case NAME ...] [--lambda L ...]

Cases: `bench`, the simulated neurons of 100 x 320 x 400 voxels with their noise-free truth; `crop`, 64 x 128 x 128 of
them (a small volume is unkind to video codecs); and every real volume found in ../shared/data/volumes, channel by
channel. Everything is decoded from the bytes. Each case is coded at four values of lambda, and every codec at sizes
around ours; the rows named after a case alone are at the bytes of our file nearest to a ratio of 231.

delta_rate_vs_CODEC_fg_clean   mean difference of our bytes from the codec's at equal foreground PSNR against the
                               noise-free volume, between 30 and 40 dB (a fraction, negative is better)
psnr_fg_at_231x, _at_400x      our quality at exactly that ratio, interpolated between our files

Codecs: those of `gigascope.compression.peers.codecs`; AV1 in its preset 6 of the literature, and in preset 2 as well.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from gigascope.compress import compress, decompress
from gigascope.compression.bench_volume import bench_crop, bench_volume
from gigascope.compression.noise import NoiseModel, PhotonTransfer
from gigascope.compression.peers.codecs import CODECS
from gigascope.compression.peers.codecs_array import decode_sz3, encode_sz3
from gigascope.compression.peers.lossless import lossless_sizes
from gigascope.compression.quality.comparison import QUALITIES, Comparison, Point, compare
from gigascope.compression.quality.fidelity import LABELS, Original
from gigascope.metrics.rate import quality_at

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "volumes"
LAMBDAS = (0.5, 3.0, 16.0, 80.0)
RATIO = 231.0
INTERVAL = (30.0, 40.0)
BOUNDS = (20, 50, 100)
# At the default of 4 the middle tenths of the bench volume keep up to 1.22 of the noise, at 1.5 up to 1.12.
COMPLETE = 1.5
PARTS = ("rate", "bound", "noise")
QUICK_CODECS = ("av1", "hevc12", "sperr", "sz3")

Frame = NDArray[Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A volume to code."""

    name: str
    original: Original

    @property
    def frame(self) -> Frame:
        """(z, y, x)."""
        return np.asarray(self.original.volume)

    def row(self, method: str, metric: str, value: float, unit: str, part: str = "") -> Row:
        """One figure for the JSON file."""
        found = value if math.isfinite(value) else None
        return {"case": self.name + part, "method": method, "metric": metric, "value": found, "unit": unit}


def simulated(names: Sequence[str]) -> Iterator[Case]:
    """The bench volume and its crop, with the noise they were made with."""
    bench = bench_volume() if {"bench", "crop"} & set(names) else None
    for name in ("bench", "crop"):
        if bench is not None and name in names:
            part = bench if name == "bench" else bench_crop(bench)
            noise = NoiseModel(part.gain, part.offset, part.read)
            yield Case(name, Original(part.volume, part.clean, None, noise.variance))


def real(names: Sequence[str], folder: Path) -> Iterator[Case]:
    """The real volumes of a folder, one case per channel, with the noise that a photon-transfer fit finds."""
    files = sorted(folder.glob("*.tif*")) if folder.is_dir() else []
    if not files:
        print(f"real volumes: none in {folder}, skipped")
    for file in files:
        stack = tifffile.imread(file)
        channels = {"": stack} if stack.ndim == 3 else {f" channel {i}": stack[:, i] for i in range(stack.shape[1])}
        for suffix, volume in channels.items():
            name = file.stem + suffix
            if not names or name in names:
                frame = np.ascontiguousarray(volume)
                transfer = PhotonTransfer(frame.shape, frame.dtype.kind in "ui", None)
                transfer.add(frame)
                yield Case(name, Original(frame, variance=transfer.fit().variance))


def our_points(case: Case, lambdas: Sequence[float]) -> list[Point]:
    """Our files at each lambda, decoded."""
    points = []
    for value in lambdas:
        start = time.perf_counter()
        data = compress(case.frame, **{"lambda_": value})
        between = time.perf_counter()
        decoded = decompress(data)
        end = time.perf_counter()
        quality = case.original.quick(decoded)
        point = Point("ours", "gigascope", len(data), quality, value, between - start, end - between)
        show(case, point, f"lambda {value:g}")
        points.append(point)
    return sorted(points, key=lambda p: p.n_bytes)


def headline(case: Case, points: Sequence[Point]) -> Point | None:
    """Our largest file that is at least 231 times smaller than the volume, else the smallest one."""
    fitting = [p for p in points if case.frame.nbytes / p.n_bytes >= RATIO]
    return max(fitting, key=lambda p: p.n_bytes) if fitting else (points[0] if points else None)


def show(case: Case, point: Point, setting: str) -> None:
    """A line of the table."""
    values = [point.values.get(name, math.nan) for name in ("psnr_whole", "psnr_fg", "psnr_fg_clean", "mip_ssim")]
    text = " ".join("     -" if math.isnan(v) else f"{v:6.3f}" if v < 2 else f"{v:6.2f}" for v in values)
    ratio = case.frame.nbytes / point.n_bytes
    seconds = f"{point.encode_s:7.1f} {point.decode_s:6.1f}"
    print(f"{case.name:24} {point.label:20} {setting:20} {point.n_bytes:9d} {ratio:7.1f} {text} {seconds}", flush=True)


def point_rows(case: Case, point: Point, method: str, part: str = "") -> list[Row]:
    """Figures of one point."""
    n_bytes, raw = point.n_bytes, case.frame.nbytes
    rows = [
        case.row(method, "bytes", n_bytes, "byte", part),
        case.row(method, "ratio", raw / n_bytes, "", part),
        case.row(method, "bpp", 8 * n_bytes / case.frame.size, "bit/voxel", part),
        case.row(method, "encode_s", point.encode_s, "s", part),
        case.row(method, "decode_s", point.decode_s, "s", part),
    ]
    return rows + [case.row(method, name, value, LABELS[name][1], part) for name, value in point.values.items()]


def rate_rows(case: Case, points: list[Point], comparison: Comparison) -> list[Row]:
    """Delta-rates against every codec, and our quality at the ratios that the seed and the targets name."""
    rows = []
    for method in comparison.curves:
        for quality in ("psnr_fg", "psnr_fg_clean", "psnr_whole"):
            interval = INTERVAL if quality == "psnr_fg_clean" else (-math.inf, math.inf)
            value = comparison.delta_rate(points, method, quality, interval)
            if math.isfinite(value):
                name = f"delta_rate_vs_{method}_{quality.removeprefix('psnr_')}"
                rows.append(case.row("gigascope", name, value, "fraction"))
                against = f"{CODECS[method].label}, {QUALITIES[quality]}"
                print(f"{case.name:24} delta-rate {100 * value:6.1f} % against {against}")
    for ratio in (RATIO, 400.0):
        for quality in ("psnr_fg", "psnr_fg_clean", "psnr_whole"):
            curve = [(float(p.n_bytes), p.values.get(quality, math.nan)) for p in points]
            value = quality_at(curve, case.frame.nbytes / ratio)
            if math.isfinite(value):
                rows.append(case.row("gigascope", f"{quality}_at_{ratio:g}x", value, "dB"))
                print(f"{case.name:24} {QUALITIES[quality]} at {ratio:g}x: {value:.2f} dB")
    return rows


def rate_distortion(case: Case, lambdas: Sequence[float], methods: Sequence[str]) -> list[Row]:
    """Ours and the codecs at all rates."""
    raw, points = case.frame.nbytes, our_points(case, lambdas)
    chosen = headline(case, points)
    n_bytes = chosen.n_bytes if chosen else round(raw / RATIO)
    least, most = (points[0].n_bytes, points[-1].n_bytes) if points else (n_bytes / 2, n_bytes)
    sizes = [round(n) for n in np.geomspace(least / 1.2, 4 * most, 6)]
    comparison = compare(case.original, n_bytes, methods, sizes=sizes, full=False)
    rows = point_rows(case, chosen, "gigascope") if chosen else []
    for point in points:
        rows += point_rows(case, point, f"gigascope lambda {point.setting:g}", ", curve")
    for method, curve in comparison.curves.items():
        if method in comparison.equal:
            rows += point_rows(case, comparison.equal[method], CODECS[method].label)
        for point in curve:
            setting = f"{CODECS[method].setting} {point.setting:.4g}"
            show(case, point, setting)
            rows += point_rows(case, point, f"{point.label} {setting}", ", curve")
    for label, reason in comparison.left_out.items():
        print(f"{case.name:24} {label}: {reason}")
    return rows + rate_rows(case, points, comparison)


def without_loss(case: Case) -> list[Row]:
    """Noise ceilings and lossless ratios: what to judge the rest by."""
    rows = [case.row("noise alone", name, v, "dB") for name, v in case.original.ceilings().items()]
    for row in rows:
        if row["value"] is not None:
            print(f"{case.name:24} {LABELS[row['metric']][0]}: {row['value']:.2f} dB")
    sizes, refused = lossless_sizes(case.frame)
    for label, size in sizes.items():
        print(f"{case.name:24} {label:20} {size:9d} {case.frame.nbytes / size:7.2f}")
        rows.append(case.row(label, "ratio", case.frame.nbytes / size, ""))
    for label, reason in refused.items():
        print(f"{case.name:24} {label}: {reason}")
    return rows


def bounded(case: Case) -> list[Row]:
    """Ours and SZ3 at the same bound of the largest error; ours too without any."""
    rows = []
    for bound in (0, *BOUNDS):
        results: dict[str, tuple[bytes, Frame]] = {}
        if bound:
            data = encode_sz3(case.frame, float(bound))
            results["SZ3"] = data, decode_sz3(data)
        data = compress(case.frame, max_error=bound)
        results["gigascope"] = data, decompress(data)
        for method, (data, decoded) in results.items():
            worst = float(np.abs(decoded.astype(np.float64) - case.frame).max())
            quality, ratio = case.original.psnr(decoded)["psnr_whole"], case.frame.nbytes / len(data)
            part = f", error at most {bound}"
            print(f"{case.name + part:40} {method:10} {len(data):9d} {ratio:7.2f}x, error {worst:g}, {quality:.2f} dB")
            rows += [
                case.row(method, "ratio", ratio, "", part),
                case.row(method, "bpp", 8 * len(data) / case.frame.size, "bit/voxel", part),
                case.row(method, "largest_error", worst, "DN", part),
                case.row(method, "psnr_whole", quality, "dB", part),
            ]
    return rows


def completeness(case: Case) -> list[Row]:
    """Residual over noise by tenth of the range, with the errors weighted by the noise (`weight: ml`)."""
    curve = case.original.residual(decompress(compress(case.frame, weight="ml", lambda_=COMPLETE)))
    assert curve is not None  # every case has a noise model
    for low, high, n, sd in zip(curve.edges, curve.edges[1:], curve.n_voxels, curve.sd):
        tenth = f"{low:7.0f} to {high:7.0f} {n:9d} voxels"
        print(f"{case.name}, weight ml, lambda {COMPLETE:g}: {tenth}, residual {sd:.3f} of the noise")
    least, most = curve.extremes()
    names = {"residual_sd_least": least, "residual_sd_most": most}
    return [case.row("gigascope", name, value, "noise sd", ", weight ml") for name, value in names.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the crop alone, two rates, four codecs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--case", nargs="+", default=[], help="only these cases; none: all")
    parser.add_argument(
        "--lambda", dest="lambdas", type=float, nargs="+", help=f"default {' '.join(map(str, LAMBDAS))}"
    )
    parser.add_argument(
        "--part", nargs="+", choices=PARTS, default=PARTS, help="curves, bounds of the error, residual over noise"
    )
    parser.add_argument("--codecs", nargs="+", choices=list(CODECS), help="none: all")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real volumes")
    arguments = parser.parse_args()
    lambdas = arguments.lambdas or ((1.0, 2.0) if arguments.quick else LAMBDAS)
    methods = arguments.codecs or (QUICK_CODECS if arguments.quick else tuple(CODECS))
    names = ["crop"] if arguments.quick else arguments.case
    print(f"{'case':24} {'method':20} {'setting':20} {'bytes':>9} {'ratio':>7} ", end="")
    print(f"{'whole':>6} {'FG':>6} {'clean':>6} {'MIP':>6} {'enc s':>7} {'dec s':>6}")
    rows: list[Row] = []
    for case in simulated(names or ["bench", "crop"]):
        if "rate" in arguments.part:
            rows += without_loss(case) + rate_distortion(case, lambdas, methods)
        if "bound" in arguments.part and not arguments.quick:
            rows += bounded(case)
        if "noise" in arguments.part and not arguments.quick:
            rows += completeness(case)
    if not arguments.quick and (not names or set(names) - {"bench", "crop"}):
        for case in real(names, arguments.data):
            rows += without_loss(case) + rate_distortion(case, lambdas, methods)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
