"""How good a compressed volume is: every measure from the decoded bytes, beside codecs at the same number of bytes.

Takes arrays and numbers; stores, config and pages know nothing of how it is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.peers.lossless import lossless_sizes
from gigascope.compression.quality.comparison import QUALITIES, Comparison, Point, compare
from gigascope.compression.quality.fidelity import FOREGROUND, LABELS, Original, entries
from gigascope.compression.quality.seed_numbers import PointValues, seed_numbers
from gigascope.metrics.image import Above, Box, ResidualCurve, Voxels, fraction

Entry = dict[str, Any]
Table = tuple[dict[str, Any], dict[str, str]]

# A codec that is better by less than this does not raise a warning: 0.05 dB, 0.002 of SSIM
NOTABLE = {name: 0.05 if name.startswith("psnr") else 0.002 for name in QUALITIES}
# residual over noise beyond which signal was lost, and below which noise was coded (acceptance test A15)
COMPLETE = (0.95, 1.15)


@dataclass(frozen=True)
class Account:
    """What a compressed volume takes.

    Attributes
    ----------
    components : bytes by component; their sum is the size of the file
    n_gaussians : number of Gaussians
    bytes_in : box of the volume -> bytes of the file that belong to it, for volumes that are larger than what codecs
        are run on; none: bytes in proportion to voxels
    """

    components: Mapping[str, int]
    n_gaussians: int
    bytes_in: Callable[[Box], int] | None = None

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.components.values())


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured.

    Attributes
    ----------
    metrics : name to {"value", "unit", "label"}, "warnings" as a list of sentences, and "notes": what was compared how
    ours : this result as a point beside the codecs', over the box they were run on
    comparison : the codecs
    residual : over the intensity, none without a noise model
    components : bytes by component
    """

    metrics: dict[str, Any]
    ours: Point
    comparison: Comparison
    residual: ResidualCurve | None
    components: dict[str, int] = field(default_factory=dict)

    def tables(self) -> dict[str, Table]:
        """Columns and units of the tables `codecs`, `curves`, `residual` and `components`."""
        curves = [p for points in self.comparison.curves.values() for p in points]
        found = {
            "codecs": _point_table([self.ours, *self.comparison.equal.values()], self.ours.values),
            "curves": _point_table([self.ours, *curves], QUALITIES),
            "components": (
                {"component": list(self.components), "bytes": list(self.components.values())},
                {"bytes": "byte"},
            ),
        }
        if self.residual is not None:
            curve = self.residual
            columns = {
                "from": curve.edges[:-1],
                "to": curve.edges[1:],
                "n_voxels": curve.n_voxels,
                "sd": curve.sd,
                "mean": curve.mean,
                "beyond_4_sd": curve.beyond,
            }
            found["residual"] = columns, {"sd": "noise sd", "mean": "noise sd"}
        return found


def evaluate(
    original: Original,
    decoded: Voxels,
    account: Account,
    *,
    codecs: Sequence[str] = (),
    rates: int = 4,
    max_voxels: int = 2**26,
    lossless: bool = True,
    nearest: PointValues | None = None,
    keep: Callable[[str, Voxels], None] | None = None,
) -> Evaluation:
    """Measure one decoded frame.

    Parameters
    ----------
    original : the frame and what is known about it
    decoded : (z, y, x), decoded from the bytes of the file, in the units and the type of the original
    account : bytes of the file and the number of Gaussians
    codecs : short names of the codecs to compare with
    rates : points of each codec's curve
    max_voxels : codecs run on the box of at most this many voxels with the most foreground
    lossless : find out what lossless codecs need, too
    nearest : VolMicro's evaluator on this mixture (`seed_numbers.nearest_values`), for its own definition of PSNR
    keep : called with the short name and the decoded volume of every codec at equal bytes

    Raises
    ------
    ShapeError : volumes and masks of different shapes
    """
    n_voxels = math.prod(original.volume.shape)
    box = original.box(max_voxels)
    part, here = original.part(box), np.asarray(decoded[box])
    whole = here.size == n_voxels
    if whole:  # in memory from here on
        original, decoded = part, here
    values, ceilings, residual = original.measure(decoded), original.ceilings(), original.residual(decoded)
    n_bytes = account.total if whole else _bytes_in(account, box, here.size / n_voxels)
    ours = Point("ours", "gigascope", n_bytes, values if whole else part.measure(here))
    comparison = compare(part, n_bytes, codecs, rates, keep=keep)
    metrics = entries(values | ceilings) | _sizes(original, account, np.asarray(part.volume), lossless)
    metrics |= _residual_entries(residual) | _codec_entries(comparison, ours)
    gate = Above(original.volume, original.threshold)
    metrics |= seed_numbers(original.volume, decoded, gate, account.n_gaussians, original.scale, nearest)
    metrics |= _regions(original)
    said = {"warnings": warnings(ours, comparison, residual, metrics), "notes": _left_out(comparison)}
    if codecs and not whole:
        said["notes"].append(
            f"Codecs were run on the box with the most foreground, {_words(box)} (z, y, x), "
            f"{100 * here.size / n_voxels:.2g} % of the volume."
        )
    return Evaluation(metrics | said, ours, comparison, residual, dict(account.components))


def warnings(
    ours: Point, comparison: Comparison, residual: ResidualCurve | None, metrics: Mapping[str, Any]
) -> list[str]:
    """What the reader should know, in plain words: where a codec is better, and what the residual says."""
    said = []
    for theirs in comparison.equal.values():
        better = [_worse_than(ours, theirs, name) for name in QUALITIES]
        if any(better):
            said.append(
                f"{theirs.label} is better at the same number of bytes ({theirs.n_bytes:,} against {ours.n_bytes:,}): "
                f"{'; '.join(b for b in better if b)}."
            )
    if residual is not None:
        low, high = residual.extremes()
        if high > COMPLETE[1]:
            said.append(
                f"Signal was lost: the residual is up to {high:.2f} times the noise (1.00 is noise alone). "
                "A smaller ratio or lambda keeps more."
            )
        if low < COMPLETE[0]:
            said.append(
                f"Noise was coded: the residual falls to {low:.2f} times the noise. "
                "A larger ratio would lose no signal."
            )
    reached, ceiling = (metrics.get(name, {}).get("value") for name in ("psnr_fg", "noise_ceiling_fg"))
    if reached is not None and ceiling is not None and reached > ceiling + 0.05:
        said.append(
            f"The foreground PSNR of {reached:.2f} dB is above the {ceiling:.2f} dB of the noise alone: "
            "part of the noise was coded."
        )
    return said


def _left_out(comparison: Comparison) -> list[str]:
    return [f"{label} is not compared at equal bytes: {reason}." for label, reason in comparison.left_out.items()]


def _worse_than(ours: Point, theirs: Point, name: str) -> str | None:
    """By how much a codec beats us in one quality, in words; none where it does not."""
    a, b = ours.values.get(name, math.nan), theirs.values.get(name, math.nan)
    if not b > a + NOTABLE[name]:
        return None
    unit, digits = (" dB", 2) if LABELS[name][1] == "dB" else ("", 3)
    return f"{QUALITIES[name]} {b:.{digits}f}{unit} against {a:.{digits}f}{unit}"


def _sizes(original: Original, account: Account, part: NDArray[Any], lossless: bool) -> dict[str, Entry]:
    """Bytes, rates and ratios; the best lossless size is measured on the part and scaled to the volume."""
    n_voxels = math.prod(original.volume.shape)
    total, raw = account.total, n_voxels * part.itemsize
    found = {
        "bytes": (float(total), "byte", "Size of the compressed file, everything that decoding needs"),
        "raw_bytes": (float(raw), "byte", f"Size of the original as {part.dtype.name}"),
        "bpp": (8 * total / n_voxels, "bit/voxel", "Rate"),
        "ratio": (raw / total, "", "Ratio against the original's type"),
        "n_gaussians": (float(account.n_gaussians), "", "Gaussians"),
        "bytes_per_gaussian": (total / max(1, account.n_gaussians), "byte", "All bytes per Gaussian"),
    }
    found |= {f"bytes_{k}": (float(v), "byte", f"Size of {k}") for k, v in account.components.items()}
    sizes = lossless_sizes(part)[0] if lossless else {}
    for label, size in sizes.items():
        key = label.lower().replace(" ", "_").replace("-", "_")
        found[f"ratio_{key}"] = (part.nbytes / size, "", f"Ratio of {label}, without loss")
    if sizes:
        best = min(sizes, key=lambda k: sizes[k])
        ratio = raw / total * sizes[best] / part.nbytes
        found["ratio_lossless"] = (ratio, "", f"Ratio against the best lossless codec, {best}")
    return _finite(found)


def _codec_entries(comparison: Comparison, ours: Point) -> dict[str, Entry]:
    found: dict[str, tuple[float, str, str]] = {}
    for method, point in comparison.equal.items():
        for name in ("psnr_fg", "psnr_fg_clean", "psnr_whole"):
            if name in point.values:
                label = f"{point.label} at {point.n_bytes:,} bytes: {LABELS[name][0]}"
                found[f"{method}_{name}"] = (point.values[name], "dB", label)
    for method, points in comparison.curves.items():
        for name in ("psnr_fg", "psnr_fg_clean", "psnr_whole"):
            if name in ours.values and points:
                label = f"Our bytes against those of {points[0].label} at our {QUALITIES[name]}; -0.4: 40 % fewer"
                found[f"bytes_vs_{method}_{name}"] = (
                    comparison.bytes_at_quality(ours, method, name),
                    "fraction",
                    label,
                )
    return _finite(found)


def _residual_entries(residual: ResidualCurve | None) -> dict[str, Entry]:
    if residual is None:
        return {}
    low, high = residual.extremes()
    n = residual.n_voxels
    beyond = float(np.nansum(residual.beyond * n) / max(1, n.sum()))
    words = "over the tenths of the range with at least 1,000 voxels"
    return _finite(
        {
            "residual_sd_least": (low, "noise sd", f"Residual over noise, least {words}"),
            "residual_sd_most": (high, "noise sd", f"Residual over noise, most {words}"),
            "residual_beyond_4_sd": (beyond, "fraction", "Voxels with a residual beyond 4 noise sd"),
        }
    )


def _regions(original: Original) -> dict[str, Entry]:
    words = {"fg": f"Foreground, above {100 * FOREGROUND:.0f} % of the range", "gate": "Gate"}
    found = {
        f"fraction_{name}": (fraction(region), "fraction", f"{words[name]}: share of the voxels")
        for name, region in original.regions.items()
        if region is not None
    }
    return _finite(found)


def _bytes_in(account: Account, box: Box, share: float) -> int:
    return account.bytes_in(box) if account.bytes_in is not None else max(1, round(account.total * share))


def _point_table(points: Sequence[Point], names: Mapping[str, Any]) -> Table:
    """One row per point; a measure that a point lacks is NaN."""
    columns: dict[str, Any] = {
        "method": [p.method for p in points],
        "label": [p.label for p in points],
        "bytes": [p.n_bytes for p in points],
        "setting": [p.setting for p in points],
        "encode_s": [p.encode_s for p in points],
        "decode_s": [p.decode_s for p in points],
    }
    known = [name for name in names if any(name in p.values for p in points)]
    columns |= {name: [p.values.get(name, math.nan) for p in points] for name in known}
    units = {"bytes": "byte", "encode_s": "s", "decode_s": "s"} | {n: LABELS[n][1] for n in known if LABELS[n][1]}
    return columns, units


def _finite(found: Mapping[str, tuple[float, str, str]]) -> dict[str, Entry]:
    return {
        name: {"value": value if math.isfinite(value) else None, "unit": unit, "label": label}
        for name, (value, unit, label) in found.items()
    }


def _words(box: Box) -> str:
    return ", ".join(f"{cut.start} to {cut.stop}" for cut in box)
