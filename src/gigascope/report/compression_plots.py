"""Plots of the compression page: rate against distortion, residual over the noise, bytes by component, bricks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.report.compression_result import CompressionResult, rows
from gigascope.report.page import Html, details, grid, heading, join, number, paragraph, quantity, table, tag
from gigascope.report.plots import Axis, Mark, Series, Style, bars, plot

# Video codecs warm, wavelets and predictors green, codecs of single slices grey; a second of a kind is dashed.
LOOKS: dict[str, tuple[int, Style]] = {
    "av1": (2, "linedots"),
    "av1_slow": (2, "dashdots"),
    "hevc12": (4, "linedots"),
    "hevc10": (4, "dashdots"),
    "sperr": (3, "linedots"),
    "sz3": (3, "dashdots"),
    "jpeg2000": (0, "linedots"),
    "jpegxl": (0, "dashdots"),
    "zfp": (0, "line"),
}
# Measure, title of its plot, axis, and the metric that is drawn as a line across.
QUALITIES = (
    ("psnr_fg", "Foreground PSNR, against the original", "dB", "noise_ceiling_fg"),
    ("psnr_fg_clean", "Foreground PSNR, against the noise-free volume", "dB", None),
    ("psnr_whole", "PSNR of all voxels", "dB", "noise_ceiling_whole"),
    ("mip_ssim", "SSIM of the maximum projections", "", None),
)
COMPONENTS = {
    "payload": "Gaussians",
    "residual": "residual layer",
    "header": "header",
    "tables": "probabilities",
    "index": "index of bricks",
    "background": "background",
}
# Bricks below which a table says more than a plot.
FEW_BRICKS = 12
# Codecs that are worse by more (decibels; of SSIM a fortieth of it) would press all others together.
FLOOR = 16.0
# Voxels of a step of the intensity below which its residual says little (acceptance test A15).
ENOUGH = 1000


def size_words(n_bytes: float) -> str:
    """Bytes for a person, in powers of 1000."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e4, "kB")):
        if n_bytes >= limit:
            return quantity(n_bytes / {"GB": 1e9, "MB": 1e6, "kB": 1e3}[unit], unit)
    return f"{number(round(n_bytes))} bytes"


def rate_distortion(result: CompressionResult) -> Html:
    """Curves of all codecs with our point, for every quality that was measured."""
    curves, frame = result.tables["curves"], result.looked_at
    present = [q for q in QUALITIES if q[0] in curves]
    blocks = [_curve_plot(result, *quality) for quality in present]
    words = f" of {result.frame_name(frame)}" if len(result.frames) > 1 else ""
    lead = paragraph(
        f"Quality{words} against bytes, each decoded from its own. Further up and to the left is better. The blue "
        "point is this result; codecs are run from half its bytes to four times as many, and not drawn where they are "
        f"worse by more than {FLOOR:g} dB.",
        class_="lead",
    )
    notes = [paragraph(note, class_="note") for note in result.metrics.get("notes") or []]
    said = details(f"{len(notes)} notes on what was compared", *notes) if len(notes) > 2 else join(notes)
    return join([lead, grid(*blocks), equal_bytes(result), said])


def _curve_plot(result: CompressionResult, name: str, title: str, unit: str, ceiling: str | None) -> Html:
    found = rows(result.tables["curves"], ("method", "label", "bytes", name), frame=result.looked_at)
    best = max((row[3] for row in found if row[0] == "ours" and row[3] is not None), default=math.inf)
    floor = best - (FLOOR if unit else FLOOR / 40) if math.isfinite(best) else -math.inf
    found = [row for row in found if row[3] is not None and row[3] >= floor]
    series = []
    for method in dict.fromkeys(row[0] for row in found if row[0] != "ours"):
        points = sorted((row[2], row[3]) for row in found if row[0] == method)
        if points:
            label = next(row[1] for row in found if row[0] == method)
            colour, style = LOOKS.get(method, (0, "dashdots"))
            x, y = (np.array(column, np.float64) for column in zip(*points))
            names = [f"{label}, {size_words(a)}: {quantity(b, unit, 4)}" for a, b in points]
            series.append(Series(label, x, y, style=style, colour=colour, names=names))
    ours = [(row[2], row[3]) for row in found if row[0] == "ours"]
    if ours:
        names = [f"this result, {size_words(a)}: {quantity(b, unit, 4)}" for a, b in ours]
        x, y = (np.array(column, np.float64) for column in zip(*ours))
        series.append(Series("this result", x, y, style="large", colour=1, names=names))
    limit = result.value(ceiling) if ceiling else None
    axis = Axis("bytes", log=True, ticks=list(_byte_ticks([float(b) for s in series for b in np.asarray(s.x)])))
    return plot(
        series,
        axis,
        Axis(f"{name.split('_')[0].upper() if unit else 'SSIM'}{f' ({unit})' if unit else ''}"),
        title=title,
        description=f"{title}, against the number of bytes, of this result and of every codec",
        marks=[Mark("y", limit, "noise alone")] if limit is not None else [],
        height=270,
    )


def _byte_ticks(values: Sequence[float]) -> Iterator[tuple[float, str]]:
    """1, 2 and 5 times powers of ten, thinned out over a long range."""
    if not values:
        return
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        for step in steps:
            size = step * 10.0**power
            unit = next(((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= s), (1.0, "B"))
            yield size, f"{size / unit[0]:g} {unit[1]}"


def equal_bytes(result: CompressionResult) -> Html:
    """Ours beside every codec that comes near our bytes, by every measure worth a column."""
    columns = {
        "psnr_fg": "PSNR, foreground",
        "psnr_fg_clean": "against noise-free",
        "psnr_gate": "PSNR, gate",
        "psnr_whole": "PSNR, all",
        "ssim_fg": "SSIM, foreground",
        "mip_ssim": "SSIM, projections",
        "mip_gmsd": "GMSD, projections",
        "fsc": "FSC 0.143 (1/voxel)",
        "cl_dice": "clDice",
        "encode_s": "encode (s)",
        "decode_s": "decode (s)",
    }
    found = result.tables["codecs"]
    names = [name for name in columns if name in found]
    listed = rows(found, ["label", "bytes", *names], frame=result.looked_at)
    if len(listed) < 2:
        return Html("")
    body = [[_ours(row[0]), int(row[1]), *row[2:]] for row in listed]
    head = ["", "bytes", *(columns[name] for name in names)]
    caption = "At equal bytes, decoded from the bytes; PSNR in dB, GMSD: 0 is equal, all others: more is better"
    saved = _saved(result)
    return join([heading("At equal bytes"), table(head, body, caption, digits=4), saved])


def _ours(label: str) -> str:
    return "this result" if label == "gigascope" else str(label)


def _saved(result: CompressionResult) -> Html:
    """Bytes against those that each codec needs for the same quality."""
    curves = result.tables["curves"]
    wanted = [(q, words) for q, words in _SAME if q in curves and _curve(result, "ours", q)]
    body = []
    for method, label in dict(rows(curves, ("method", "label"), frame=result.looked_at)).items():
        values = [_against(result, method, quality) for quality, _ in wanted]
        if method != "ours" and any(values):
            body.append([label, *values])
    caption = "Our bytes less those that a codec needs for the same PSNR; −40 %: 40 % fewer"
    return table(["", *(words for _, words in wanted)], body, caption)


_SAME = (("psnr_fg", "foreground"), ("psnr_fg_clean", "foreground, noise-free"), ("psnr_whole", "all voxels"))


def _against(result: CompressionResult, method: str, quality: str) -> str:
    """Saving in percent; where a codec's curve does not reach our quality, a bound of it."""
    value = result.value(f"bytes_vs_{method}_{quality}")
    if value is not None:
        return _percent(value)
    theirs, ((n_bytes, ours),) = _curve(result, method, quality), _curve(result, "ours", quality)
    if theirs and max(q for _, q in theirs) < ours:
        return f"under {_percent(n_bytes / max(n for n, _ in theirs) - 1)}"
    if theirs and min(q for _, q in theirs) > ours:
        return f"over {_percent(n_bytes / min(n for n, _ in theirs) - 1)}"
    return ""


def _curve(result: CompressionResult, method: str, quality: str) -> list[tuple[float, float]]:
    found = rows(result.tables["curves"], ("bytes", quality), frame=result.looked_at, method=method)
    return [(float(n), float(q)) for n, q in found if q is not None]


def _percent(value: float) -> str:
    return f"{100 * value:+.0f} %".replace("-", "−")


def residual(result: CompressionResult) -> Html:
    """Residual in units of the noise, by tenth of the intensity range."""
    found = result.tables["deciles"]
    of = rows(found, ("from", "to", "n_voxels", "sd", "mean", "beyond_4_sd"), frame=result.looked_at)
    steps = [row for row in of if row[3] is not None]
    if not steps:
        return Html("")
    low, high, count, sd = (np.array(column, np.float64) for column in list(zip(*steps))[:4])
    middle = (low + high) / 2
    many = count >= ENOUGH
    words = [f"{number(a)} to {number(b)}: {number(s)} of the noise, {int(n):,} voxels" for a, b, n, s, *_ in steps]
    series = [Series("", middle, sd, style="line", colour=0)]
    for label, chosen, style in (("at least 1,000 voxels", many, "dots"), ("fewer", ~many, "hollow")):
        names = [w for w, c in zip(words, chosen) if c]
        series.append(Series(label, middle[chosen], sd[chosen], style=style, colour=1, names=names))  # type: ignore[arg-type]
    drawn = plot(
        series,
        Axis("decoded value"),
        Axis("residual / noise", (min(0.9, float(sd.min()) - 0.05), max(1.25, float(sd.max()) + 0.05))),
        title="Residual over the noise",
        description="Standard deviation of original less decoded in units of the noise, by tenth of the range",
        marks=[Mark("y", 1.0, "noise alone"), Mark("y", 1.15, "complete")],
    )
    caption = "Residual by tenth of the range of the decoded values, in units of the noise at that value"
    body = [[f"{number(a)} to {number(b)}", int(n), s, m, _percent_of(f)] for a, b, n, s, m, f in steps]
    listed = table(["decoded value", "voxels", "sd", "mean", "beyond 4 sd"], body, caption)
    text = paragraph(
        "What the decoded volume leaves of the original, in units of the noise that the model expects at each value. "
        "At 1 nothing but noise is left; up to 1.15 a result counts as complete; well below 1 noise was coded; a mean "
        "away from 0 says that bright or dim structures come out too dark or too bright.",
        class_="lead",
    )
    return join([text, grid(drawn, listed)])


def _percent_of(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2g} %"


def where_bytes_are(result: CompressionResult) -> Html:
    """Bars of the bytes of every component, all frames together."""
    sums: dict[str, int] = {}
    for component, n in rows(result.tables["components"], ("component", "bytes")):
        sums[component] = sums.get(component, 0) + int(n)
    total = sum(sums.values()) or 1
    shown = sorted(((COMPONENTS.get(k, k), v) for k, v in sums.items() if v), key=lambda item: -item[1])
    entries = [(name, float(n), f"{n:,} bytes, {100 * n / total:.3g} %") for name, n in shown]
    return bars(entries, title=f"{total:,} bytes by component")


def bricks(result: CompressionResult) -> Html:
    """What the fit came to in every brick: plot where there are many, table always."""
    names = [n for n in ("frame", "z", "y", "x", "signal_voxels", "gaussians", "psnr") if n in result.tables["bricks"]]
    listed = rows(result.tables["bricks"], names)
    if not listed:
        return paragraph("No brick has signal: the file holds the background only.")
    head = ["frame", "z", "y", "x", "voxels of signal", "Gaussians", "PSNR in the gate (dB)"]
    titles = dict(zip(("frame", "z", "y", "x", "signal_voxels", "gaussians", "psnr"), head))
    if len(result.frames) == 1:
        names = [n for n in names if n != "frame"]
        listed = rows(result.tables["bricks"], names)
    size = " × ".join(map(str, result.header.brick))
    whole = table([titles[n] for n in names], listed, f"Bricks of {size} voxels (z, y, x) with signal", digits=4)
    if len(listed) <= FEW_BRICKS or not {"psnr", "gaussians", "signal_voxels"} <= set(names):
        return whole
    return join([_brick_plots(result.tables["bricks"]), details(f"All {len(listed)} bricks", whole)])


def _brick_plots(found: Any) -> Html:
    gaussians, psnr, signal = (np.asarray(found[n], np.float64) for n in ("gaussians", "psnr", "signal_voxels"))
    names = [
        f"brick {z}, {y}, {x}: {int(g):,} Gaussians, {quantity(p, 'dB', 4)}"
        for z, y, x, g, p in zip(found["z"], found["y"], found["x"], gaussians, psnr)
    ]
    some = gaussians > 0
    quality = plot(
        [Series("", _positive(gaussians), psnr, style="dots", colour=1, names=names)],
        Axis("Gaussians", log=True),
        Axis("PSNR (dB)"),
        title="PSNR in the gate, brick by brick",
        description="PSNR of every brick against its number of Gaussians",
    )
    density = plot(
        [Series("", _positive(signal[some]), gaussians[some], style="dots", colour=1, names=_some(names, some))],
        Axis("voxels of signal", log=True),
        Axis("Gaussians", log=True),
        title="Gaussians and signal, brick by brick",
        description="Number of Gaussians of every brick against its number of voxels of signal",
    )
    return grid(quality, density)


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values > 0, values, np.nan)


def _some(names: Sequence[str], keep: NDArray[np.bool_]) -> list[str]:
    return [name for name, kept in zip(names, keep) if kept]


def seed_table(result: CompressionResult) -> Html:
    """The numbers that VolMicro would give this result, beside the honest ones."""

    def shown(name: str, unit: str = "") -> str:
        value = result.value(name)
        return "" if value is None else size_words(value) if unit == "byte" else quantity(value, unit, 4)

    body = [
        ["Ratio", shown("ratio"), shown("seed_ratio")],
        ["Size", shown("bytes", "byte"), shown("seed_bytes", "byte")],
        ["Rate", shown("bpp", "bit/voxel"), shown("seed_bpp", "bit/voxel")],
        ["PSNR", shown("psnr_fg", "dB"), shown("seed_psnr", "dB")],
    ]
    if result.value("seed_psnr_nearest") is not None:
        body.append(["PSNR by the 32 nearest centres", "", shown("seed_psnr_nearest", "dB")])
    listed = table(["", "everything counted", "as VolMicro counts"], body, "This result by VolMicro's own definitions")
    text = paragraph(
        "For comparison with its published numbers. It counts 22 bytes for each Gaussian and nothing else, compares "
        "100,000 random voxels of the foreground, and evaluates only the 32 centres that are nearest to a voxel. The "
        "numbers of this page count the file and all voxels.",
        class_="note",
    )
    return tag("div", listed, text)
