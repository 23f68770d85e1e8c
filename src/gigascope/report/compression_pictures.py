"""Pictures of the compression page: projections and slices of original, decoded and difference, and the codecs' slices.

Rows run down and columns to the right, as the files of microscopes have them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.metrics.image import Above, boxes, maximum_projections
from gigascope.report.compression_result import NM_PER_UM, CompressionResult, Level, rows
from gigascope.report.figures import COARSE, OrthogonalSlices, Plane, length, picture, shrink, three_views
from gigascope.report.page import Html, figure, grid, join, number, paragraph, plain, tag

if TYPE_CHECKING:
    from gigascope.metrics.image import Voxels

F32 = NDArray[np.float32]

# As the evaluation counts it, of the range.
FOREGROUND = 0.1
# Of the configured size: three pictures stand side by side.
SHARE = 0.65
# Edge of an enlarged part, voxels; and how many other frames are shown.
PART = 96
MOST_FRAMES = 6
# Bright structures fill little of a volume: a window that ends at a usual percentile would cut them off.
BRIGHT = (0.5, 99.9)


def projections(result: CompressionResult, picture_px: int) -> Html:
    """Maximum projections along all axes of original and decoded volume, and the difference of the two."""
    level = result.level(result.looked_at, round(picture_px * SHARE))
    before, after = (maximum_projections(v) for v in (level.original, level.decoded))
    difference = [b - a for a, b in zip(before, after)]
    window, spread = _window(before), _spread(difference)
    max_px = round(picture_px * SHARE)
    views = [
        _views("original", before, level, window, max_px),
        _views("decoded", after, level, window, max_px),
        _views("difference", difference, level, (-spread, spread), max_px),
    ]
    size = [n * s for n, s in zip(level.shape, level.spacing_nm)]
    what = (
        f"Maximum projections along z, x and y of {_of_frame(result)}, {length(size[2])} × {length(size[1])} × "
        f"{length(size[0])} (x, y, z), to one scale. Original and decoded: black is {number(window[0])}, white "
        f"{number(window[1])}. Difference, decoded less original: grey is none, white {number(spread)}, black "
        f"{number(-spread)}{_means(level)}."
    )
    return figure(grid(*views, columns="three"), what)


def slices(result: CompressionResult, picture_px: int) -> Html:
    """A slice of original with its gate, decoded and difference; a part of it enlarged; and the codecs' slices."""
    frame, max_px = result.looked_at, round(picture_px * SHARE)
    level = result.level(frame, max_px)
    z = busiest_slice(Above(level.original, _threshold(result)))
    here = (slice(z, z + 1), slice(0, level.shape[1]), slice(0, level.shape[2]))
    before, after = (np.asarray(v[here])[0].astype(np.float32) for v in (level.original, level.decoded))
    gate = np.asarray(level.gate[here])[0] != 0
    fine = min(round((z + 0.5) * level.factors[0] - 0.5), result.volume.shape[-3] - 1)
    whole = _triple(before, after, level.spacing_nm[1:], max_px, f"z = {fine}", outline=gate)
    lead = paragraph(
        "The plane with the most foreground. The line is the edge of the gate: where Gaussians were "
        "seeded and where quality counts as that of the signal. What is left in the difference should look like "
        "noise; structure in it was lost.",
        class_="lead",
    )
    part = _enlarged(result, frame, fine, before, level)
    return join([lead, whole, part, other_frames(result, max_px), codecs(result)])


def busiest_slice(mask: Voxels) -> int:
    """Plane along z with the most voxels in a mask; the middle one where it is empty."""
    counts = np.zeros(mask.shape[0])
    for box in boxes(tuple(mask.shape)):
        counts[box[0]] += np.count_nonzero(np.asarray(mask[box]), axis=(1, 2))
    return int(counts.argmax()) if counts.any() else mask.shape[0] // 2


def busiest_part(image: NDArray[Any], size: tuple[int, int]) -> tuple[slice, slice]:
    """Window of a picture in which values vary most."""
    values = np.asarray(image, np.float64)
    rows_, columns = (min(n, s) for n, s in zip(values.shape, size))
    mean, square = (_window_means(v, (rows_, columns)) for v in (values, values**2))
    y, x = np.unravel_index(int((square - mean**2).argmax()), mean.shape)
    return slice(int(y), int(y) + rows_), slice(int(x), int(x) + columns)


def codecs(result: CompressionResult) -> Html:
    """The same part of a slice from the original, from our file and from every codec at as many bytes."""
    store = result.stores["codec_pictures"]
    names = ("method", "label", "bytes", "psnr_fg", "psnr_fg_clean")
    found = rows(result.tables["codecs"], names, frame=result.looked_at)
    known = [row for row in found if f"slice_{row[0]}" in store.sides]
    if not any(row[0] != "ours" for row in known):
        return Html("")
    original = np.asarray(store.side("slice_original")[:])
    part = busiest_part(original, (PART, PART))
    window = _window([original[part]])
    step = result.voxel_size_um[1] * NM_PER_UM, result.voxel_size_um[2] * NM_PER_UM
    best = 4 if any(row[4] is not None for row in known) else 3
    ordered = sorted(known, key=lambda row: (row[0] != "ours", -(row[best] or 0.0)))
    shown = [_cell(original[part], step, window, "original", "Original: a part of a slice", scale=True)]
    for method, label, n_bytes, fg, clean in ordered:
        image = np.asarray(store.side(f"slice_{method}")[:])[part]
        quality = f"{plain(clean if best == 4 else fg, 'dB') if (clean or fg) else ''}"
        words = f"{label} at {n_bytes:,} bytes: the same part of the slice"
        shown.append(_cell(image, step, window, label, words, corner=quality))
    against = "against the noise-free volume" if best == 4 else "against the original"
    title = tag("b", "The same bytes, spent by others")
    note = f": a part of a slice; foreground PSNR {against} at the lower right. {_bytes_range(ordered)}"
    return figure(tag("div", *shown, class_="grid small"), join([title, note]))


def other_frames(result: CompressionResult, max_px: int) -> Html:
    """Projections along z of further times and channels, original above decoded."""
    others = [n for n in range(len(result.frames)) if n != result.looked_at]
    chosen = others[:: max(1, math.ceil(len(others) / MOST_FRAMES))]
    if not chosen:
        return Html("")
    pairs = []
    for frame in chosen:
        level = result.level(frame, max_px // 2)
        before, after = (maximum_projections(v)[0] for v in (level.original, level.decoded))
        window, name = _window([before]), result.frame_name(frame)
        planes = [_plane(v, level.spacing_nm[1:], max_px // 2) for v in (before, after)]
        words = [f"{name}, {what}: maximum projection along z" for what in ("original", "decoded")]
        pictures = [picture(p, window, alt=w, name=n) for p, w, n in zip(planes, words, (name, "decoded"))]
        pairs.append(tag("div", *pictures, class_="pair"))
    title = tag("b", "Other frames" if len(chosen) == len(others) else f"{len(chosen)} of {len(others)} other frames")
    caption = join([title, ": maximum projections along z, original above decoded, each frame with its own window."])
    return figure(tag("div", *pairs, class_="grid small"), caption)


def _views(name: str, images: Sequence[F32], level: Level, window: tuple[float, float], max_px: int) -> Html:
    dz, dy, dx = level.spacing_nm
    along_z, along_y, along_x = images
    planes = OrthogonalSlices(
        _plane(along_z, (dy, dx), max_px), _plane(along_y, (dz, dx), max_px), _plane(along_x.T, (dy, dz), max_px)
    )
    directions = {
        "xy": "along z, x to the right, y down",
        "zy": "along x, z to the right, y down",
        "xz": "along y, x to the right, z down",
    }
    alts = {k: f"{name}: maximum projection {words}" for k, words in directions.items()}
    return three_views(planes, window, {"xy": name, "zy": "z–y", "xz": "x–z"}, alts)


def _triple(
    before: F32,
    after: F32,
    spacing: tuple[float, float],
    max_px: int,
    where: str,
    outline: NDArray[np.bool_] | None = None,
    clean: F32 | None = None,
) -> Html:
    """Original, decoded, difference, and the noise-free image where it is known."""
    window, spread = _window([before]), _spread([after - before])
    edge = None if outline is None else _edge(outline, max_px)
    plane = _plane(before, spacing, max_px)
    first = picture(
        plane if edge is None else _repeated(plane, edge.shape),
        window,
        alt=f"Original, {where}" + (", with the edge of the gate" if edge is not None else ""),
        name="original",
        corner=where,
        outline=edge,
    )
    shown = [
        first,
        picture(_plane(after, spacing, max_px), window, alt=f"Decoded, {where}", name="decoded"),
        picture(
            _plane(after - before, spacing, max_px),
            (-spread, spread),
            alt=f"Decoded less original, {where}",
            name="difference",
            corner=f"± {number(spread)}",
        ),
    ]
    if clean is not None:
        shown.append(picture(_plane(clean, spacing, max_px), window, alt=f"Noise-free truth, {where}", name="truth"))
    columns = "three" if clean is None else "four"
    shades = f"Black is {number(window[0])}, white {number(window[1])}"
    caption = f"{shades}; the difference is from {number(-spread)} to {number(spread)}."
    return figure(grid(*shown, columns=columns), caption)


def _enlarged(result: CompressionResult, frame: int, z: int, coarse: F32, level: Level) -> Html:
    """A part of the slice, voxel by voxel, beside the noise-free truth where it is known."""
    n_y, n_x = result.volume.shape[-2:]
    if max(n_y, n_x) <= PART and not result.simulated:
        return Html("")
    fy, fx = level.factors[1:]
    rows_, columns = busiest_part(coarse, (max(1, PART // fy), max(1, PART // fx)))
    y = slice(rows_.start * fy, min(n_y, rows_.start * fy + PART))
    x = slice(columns.start * fx, min(n_x, columns.start * fx + PART))
    finest = result.level(frame, 10**9, limit=10**18)
    here = (slice(z, z + 1), y, x)
    before, after = (np.asarray(v[here])[0].astype(np.float32) for v in (finest.original, finest.decoded))
    clean = result.clean(frame)
    truth = None if clean is None else np.asarray(clean[here])[0].astype(np.float32)
    step = finest.spacing_nm[1:]
    return _triple(before, after, step, 10**9, f"{y.stop - y.start} × {x.stop - x.start} voxels", clean=truth)


def _cell(
    image: NDArray[Any],
    spacing: tuple[float, float],
    window: tuple[float, float],
    name: str,
    alt: str,
    corner: str = "",
    scale: bool = False,
) -> Html:
    plane = Plane(np.asarray(image, np.float32), spacing)
    return picture(plane, window, alt=alt, name=name, low_corner=corner, bar=scale)


def _plane(values: NDArray[Any], spacing: tuple[float, float], max_px: int) -> Plane:
    small, factor = shrink(values, max_px)
    return Plane(small, (spacing[0] * factor, spacing[1] * factor))


def _edge(mask: NDArray[np.bool_], max_px: int) -> NDArray[np.bool_]:
    """Samples on the inner edge of a mask, at a resolution where a line of one sample is thin."""
    small = shrink(mask, max_px)[0] >= 0.5
    fine = np.kron(small, np.ones((_repeats(small.shape),) * 2, bool))
    return fine & ~ndimage.binary_erosion(fine, border_value=1)


def _repeats(shape: tuple[int, ...]) -> int:
    return max(1, math.ceil(COARSE / max(shape)))


def _repeated(plane: Plane, shape: tuple[int, ...]) -> Plane:
    """The same picture with every sample several times, in the shape of its outline."""
    n = shape[0] // plane.values.shape[0]
    values = np.kron(plane.values, np.ones((n, n), np.float32))
    return Plane(values, (plane.spacing[0] / n, plane.spacing[1] / n))


def _window(images: Sequence[NDArray[Any]]) -> tuple[float, float]:
    values = np.concatenate([np.ravel(image).astype(np.float64) for image in images])
    low, high = (float(q) for q in np.percentile(values[np.isfinite(values)], BRIGHT))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _spread(images: Sequence[NDArray[Any]]) -> float:
    """Half-width of a window about zero."""
    found = float(np.percentile(np.abs(np.concatenate([np.ravel(image) for image in images])), 99.8))
    return found if found > 0 else 1.0


def _window_means(values: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Mean over every window of a size, by its first row and column."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    h, w = size
    return (sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]) / (h * w)


def _threshold(result: CompressionResult) -> float:
    """Grey value above which a voxel counts as foreground in the evaluation."""
    low, high = result.volume.attrs["range"][result.looked_at]
    return float(low + FOREGROUND * (high - low))


def _of_frame(result: CompressionResult) -> str:
    name = result.frame_name(result.looked_at)
    return f"{name} of the volume" if name else "the volume"


def _means(level: Level) -> str:
    if level.factors == (1, 1, 1):
        return ""
    return f". Every sample is the mean over {' × '.join(map(str, reversed(level.factors)))} voxels (x, y, z)"


def _bytes_range(found: Sequence[tuple[Any, ...]]) -> str:
    sizes = [int(row[2]) for row in found]
    return f"{min(sizes):,} to {max(sizes):,} bytes."
