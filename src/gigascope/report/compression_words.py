"""Words and single numbers of the compression page: summary, headline numbers, warnings, decisions, use of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gigascope.report.compression_plots import size_words
from gigascope.report.figures import length
from gigascope.report.page import (
    DASH,
    Html,
    Number,
    commands,
    duration,
    facts,
    join,
    number,
    paragraph,
    plain,
    quantity,
)

if TYPE_CHECKING:
    from gigascope.report.compression_result import CompressionResult

Row = tuple[str, object, str]


def summary(result: CompressionResult) -> str:
    """Two sentences: what went in, what came out."""
    z, y, x = result.volume.shape[-3:]
    n_frames = len(result.frames)
    what = f"{'A simulated' if result.simulated else 'A'} volume of {f'{n_frames} frames of ' if n_frames > 1 else ''}"
    raw, n_bytes, count = (result.value(n) for n in ("raw_bytes", "bytes", "n_gaussians"))
    return (
        f"{what}{x} × {y} × {z} voxels (x, y, z) of {result.volume.dtype.name}, {_voxel(result)}. As {number(count)} "
        f"Gaussians it takes {size_words(n_bytes or 0)} instead of {size_words(raw or 0)}."
    )


def _voxel(result: CompressionResult) -> str:
    sizes = [length(1000 * s) for s in reversed(result.voxel_size_um)]
    return f"{sizes[0]} wide" if len(set(sizes)) == 1 else f"{' × '.join(sizes)} each"


def footer(result: CompressionResult) -> str:
    """Version, time, and what the file is."""
    record = result.records[-1]
    made = str(record.get("finished", "")).replace("T", " ").replace("+00:00", " UTC")
    file = result.compressed.decoder.gmix.path.name
    return f"gigascope {record.get('gigascope', '')}, {file} evaluated {made or DASH}."


def headlines(result: CompressionResult) -> list[Number]:
    """The numbers seen first."""
    value = result.value
    found = [
        Number("Ratio", value("ratio"), ": 1", f"against {result.volume.dtype.name}{_lossless(result)}"),
        Number("Size", *_split(size_words(value("bytes") or 0)), f"{quantity(value('bpp'), 'bit/voxel')}, all counted"),
        Number("Gaussians", value("n_gaussians"), "", f"{quantity(value('bytes_per_gaussian'), 'bytes')} each"),
    ]
    if value("psnr_fg") is not None:
        found.append(Number("PSNR, foreground", value("psnr_fg"), "dB", _ceiling(result, "fg"), digits=4))
    if value("psnr_fg_clean") is not None:
        note = "foreground, against the noise-free volume"
        found.append(Number("PSNR, true signal", value("psnr_fg_clean"), "dB", note, digits=4))
    found.append(Number("PSNR, all voxels", value("psnr_whole"), "dB", _ceiling(result, "whole"), digits=4))
    found += _best_codec(result)
    low, high = value("residual_sd_least"), value("residual_sd_most")
    if low is not None and high is not None:
        note = "in units of the noise, by intensity; 1 is noise alone"
        found.append(Number("Residual", f"{low:.2f}–{high:.2f}", "", note))
    seconds = [float(r["wall_s"]) for r in result.records if isinstance(r.get("wall_s"), int | float)]
    if seconds:
        note = "of the stages listed below"
        found.append(Number("Computing time", *_split(duration(sum(seconds))), note))
    return found


def _lossless(result: CompressionResult) -> str:
    ratio = result.value("ratio_lossless")
    return f"; {number(ratio)} : 1 against the best lossless codec" if ratio is not None else ""


def _ceiling(result: CompressionResult, region: str) -> str:
    limit = result.value(f"noise_ceiling_{region}")
    return f"the noise alone: {quantity(limit, 'dB', 4)}" if limit is not None else ""


def _best_codec(result: CompressionResult) -> list[Number]:
    """The strongest codec at equal bytes, by foreground PSNR, noise-free where that is known."""
    clean = result.value("psnr_fg_clean") is not None
    quality = "psnr_fg_clean" if clean else "psnr_fg"
    labels = _labels(result)
    found = {m: v for m in labels if (v := result.value(f"{m}_{quality}")) is not None}
    ours = result.value(quality)
    if not found or ours is None:
        return []
    best = max(found, key=lambda m: found[m])
    gain = ours - found[best]
    against = " against the noise-free volume" if clean else ""
    note = (
        f"{labels[best]}, foreground{against}: {quantity(abs(gain), 'dB')} {'less' if gain >= 0 else 'more'} than here"
    )
    return [Number("Best codec at these bytes", found[best], "dB", note, digits=4)]


def _labels(result: CompressionResult) -> dict[str, str]:
    codecs = result.tables["codecs"]
    return {str(m): str(label) for m, label in zip(codecs["method"], codecs["label"]) if m != "ours"}


def _split(text: str) -> tuple[str, str]:
    head, _, unit = text.replace("\N{NO-BREAK SPACE}", " ").rpartition(" ")
    return (head, unit) if " " not in head else (text, "")


def decisions(result: CompressionResult) -> Html:
    """What was chosen for the user, with the value and the reason."""
    rows: list[Row] = [
        *_target(result),
        *_noise(result),
        *_gate(result),
        *_background(result),
        *_bricks(result),
        *_bits(result),
        *_residual_layer(result),
    ]
    rows += [("Note of the input", "", str(note)) for note in result.volume.attrs.get("notes") or []]
    return facts(rows)


def _target(result: CompressionResult) -> list[Row]:
    asked = {k: v for k, v in result.config("fit").items() if k in _TARGETS and v is not None}
    words = "; ".join(
        f"{_TARGETS[k]} {v:,}" if isinstance(v, int) else f"{_TARGETS[k]} {v:g}" for k, v in asked.items()
    )
    lam = result.header.lam
    rows: list[Row] = [("Target", words, "as asked for in the section fit")] if words else []
    if lam is not None:
        why = (
            "squared error that one bit is worth, in variances of the noise, or of 2/256 of the range where the noise "
            "is less: a Gaussian is kept if it saves more than its bits cost"
        )
        if asked and "lambda" not in asked:
            why += "; found by fitting some bricks at several values"
        elif not asked and result.config("fit"):
            why += "; no target was given: what is lost is noise, or a twentieth of the mean signal"
        rows.append(("Lambda", plain(lam), why))
    return rows


_TARGETS = {
    "ratio": "ratio",
    "bytes": "bytes",
    "psnr": "PSNR in the gate, dB,",
    "max_error": "largest error",
    "lambda": "lambda",
}


def _noise(result: CompressionResult) -> list[Row]:
    rows: list[Row] = []
    for n, (noise, limits) in enumerate(zip(result.volume.attrs["noise"], result.volume.attrs["range"])):
        if n >= _MOST_FRAMES:
            rows.append(("Noise", f"{len(result.frames) - n} more frames", "see `gigascope info` of volume.zarr"))
            break
        name = result.frame_name(n)
        chosen = f"{number(noise['gain'])} (v − {number(noise['offset'])}) + {number(noise['read'])}²"
        span = f"values from {number(limits[0])} to {number(limits[1])}"
        why = f"variance at the grey value v, by a photon-transfer fit; {span}"
        rows.append((f"Noise{', ' + name if name else ''}", chosen, why))
    return rows


_MOST_FRAMES = 4


def _gate(result: CompressionResult) -> list[Row]:
    store = result.stores["gate"]
    share = store.attrs.get("fraction") or []
    shown = ", ".join(f"{100 * float(f):.3g} %" for f in share[:_MOST_FRAMES]) + (
        " …" if len(share) > _MOST_FRAMES else ""
    )
    cfg = result.config("gate")
    mode = str(store.attrs.get("mode", cfg.get("mode", "")))
    why = {
        "threshold": f"objects that reach {cfg.get('seed_sd', 6):g} noise standard deviations, down to "
        f"{cfg.get('grow_sd', 3):g} of them, with a margin",
        "intensity": f"above {100 * float(cfg.get('intensity', 0.1)):g} % of the range",
        "network": "an occupancy network, trained on the thresholded volume",
    }.get(mode, "")
    return [("Gate", f"{mode}: {shown} of the voxels", f"{why}. It is not stored: decoding does not need it")]


def _background(result: CompressionResult) -> list[Row]:
    cell = " × ".join(map(str, result.header.cell))
    grid = " × ".join(map(str, result.header.background_shape))
    why = f"one value for every {cell} voxels (z, y, x), {grid} in all, linear in between; Gaussians stand on top of it"
    return [("Background", "levels of cells", why)]


def _bricks(result: CompressionResult) -> list[Row]:
    header = result.header
    size, counts = (" × ".join(map(str, v)) for v in (header.brick, header.grid.counts))
    why = f"{counts} bricks (z, y, x), each fitted with {header.halo} voxels around it; further passes mend the seams"
    ends = ", ".join(number(e, 2) for e in header.eps[:_MOST_FRAMES])
    return [
        ("Bricks", f"{size} voxels", why),
        (
            "Gaussians end",
            f"at {number(header.c_max)} standard deviations",
            f"or where they fall below {ends} of the range, a quarter of the noise: the same in fit and decoder",
        ),
    ]


def _bits(result: CompressionResult) -> list[Row]:
    law = result.header.quantiser
    if law.adaptive:
        chosen = "steps by the error they cause"
        theta = number(law.theta, 2)
        why = f"a parameter of a bright, large Gaussian is kept finer than that of a faint one (theta {theta})"
    else:
        chosen = f"{law.position_bits} / {law.scale_bits} / {law.rotation_bits} / {law.amplitude_bits} bits"
        why = "of positions below one voxel, scales, rotations and amplitudes, before entropy coding"
    return [("Rounding", chosen, f"{why}; the last iterations of the fit already see the rounded values")]


def _residual_layer(result: CompressionResult) -> list[Row]:
    layer = result.header.residual
    if layer is None:
        return []
    bound = layer.get("bound")
    chosen = "lossless" if bound == 0 else f"error at most {bound}" if bound is not None else "present"
    return [("Residual layer", chosen, "what the Gaussians leave over, so that the error is bounded at every voxel")]


def use(result: CompressionResult) -> Html:
    """How to open the compressed file, on the command line and in Python."""
    file = f"results/{result.name}/gaussians.gmix"
    z, y, x = (min(n, 64) for n in result.volume.shape[-3:])
    leading = "".join("0, " for _ in result.volume.shape[:-3])
    decode = f"gigascope decode {file}"
    lines = _aligned(
        (f"{decode} decoded.tif", "all of it; .zarr: OME-Zarr with its pyramid"),
        (f"{decode} part.tif --roi 0:{z},0:{y},0:{x}", "a region, first and last + 1 voxel"),
        (f"{decode} small.tif --factor 4", "means over 4 x 4 x 4 voxels, straight from the Gaussians"),
        (f"{decode} view.png --project max --axis z", "a projection"),
        (f"gigascope export {file} gaussians.parquet", "a table; .ply and .splat: for viewers of splats"),
    )
    snippet = [
        "import numpy as np",
        "from gigascope.compression.decoding.volume import GaussianVolume",
        "",
        f'volume = GaussianVolume("{file}")',
        *_aligned(
            (f"part = volume[{leading}0:{z}, 0:{y}, 0:{x}]", "reads and decodes only what this touches"),
            ("whole = np.asarray(volume)", "or volume.dask(), one chunk per brick"),
            ("coarse = volume.at_level(4)", "a quarter of the resolution"),
        ),
    ]
    text = paragraph("The file alone is enough; nothing else of the result is needed. On the command line:")
    return join([text, commands(lines), paragraph("In Python, as an array:"), commands(snippet)])


def _aligned(*lines: tuple[str, str]) -> list[str]:
    """Commands with their remarks below each other."""
    width = max(len(line) for line, _ in lines)
    return [f"{line.ljust(width)}  # {remark}" for line, remark in lines]


def frame_rows(result: CompressionResult, names: Mapping[str, str]) -> tuple[Sequence[str], list[list[Any]]]:
    """Header and rows of the table of frames, with the columns `names` that exist."""
    frames = result.tables["frames"]
    kept = [name for name in names if name in frames]
    body = [
        [result.frame_name(int(number_)), *(_cell(frames[name][i]) for name in kept)]
        for i, number_ in enumerate(frames["frame"])
    ]
    return ["frame", *(names[name] for name in kept)], body


def _cell(value: Any) -> float | None:
    found = float(value)
    return None if found != found else found
