"""How edges lose their sharpness with depth: the steepest gradients of each slice, tile by tile.

Bruch et al., PLOS ONE 18, e0283828 (2023). Tiles are read one by one with what the blur needs around them, so that a
volume of any size needs the memory of one tile over all slices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import ShapeError

F64 = NDArray[np.float64]
Window = tuple[slice, slice]
# Of the Gaussian, in standard deviations.
REACH = 4.0


def gradient_magnitude(image: NDArray, sigma: Sequence[float]) -> F64:
    """sqrt((Gx^2 + Gy^2) / 2) of blurred slices: a ramp of slope s gives sqrt(2) s.

    Parameters
    ----------
    image : (..., y, x)
    sigma : of the blur along y and x, pixels

    Notes
    -----
    G is the difference of the next and the last pixel along an axis, averaged by [1, 2, 1] / 4 across it.
    """
    axes = (image.ndim - 2, image.ndim - 1)
    found = np.asarray(image, np.float64)
    for axis, width in zip(axes, sigma):
        if width > 0:
            found = ndimage.gaussian_filter1d(found, width, axis=axis, truncate=REACH)
    steps = []
    for along, across in (axes, axes[::-1]):
        smooth = ndimage.correlate1d(found, [0.25, 0.5, 0.25], axis=across)
        steps.append(ndimage.correlate1d(smooth, [-1.0, 0.0, 1.0], axis=along))
    return np.asarray(np.sqrt((steps[0] ** 2 + steps[1] ** 2) / 2.0))


@dataclass(frozen=True)
class TileCurves:
    """Curves of all tiles of a volume.

    Attributes
    ----------
    values : (tiles, z) float64, quantile of the gradient magnitude in each slice
    windows : rows and columns of each tile
    """

    values: F64
    windows: list[Window]


def tile_windows(shape: Sequence[int], tile: Sequence[int]) -> list[Window]:
    """Tiles (y, x) of the middle of a slice, as many as fit whole; a slice smaller than a tile is one."""
    steps = [min(n, t) for n, t in zip(shape, tile)]
    starts = [range((n - n // t * t) // 2, (n - n // t * t) // 2 + n // t * t, t) for n, t in zip(shape, steps)]
    return [(slice(a, a + steps[0]), slice(b, b + steps[1])) for a in starts[0] for b in starts[1]]


def tile_curves(
    volume: Any, tile: Sequence[int], sigma: Sequence[float], quantile: float = 0.95, most: int | None = None
) -> TileCurves:
    """Curve over z of every tile.

    Parameters
    ----------
    volume : (z, y, x), sliced; an array or anything that gives out arrays, such as a Zarr array
    tile, sigma : along y and x, pixels
    most : tiles that are read; of more, as many are taken evenly

    Raises
    ------
    ShapeError : a volume that is not 3-D
    """
    shape = tuple(volume.shape)
    if len(shape) != 3:
        raise ShapeError(f"expected a volume (z, y, x), got {shape}")
    windows = tile_windows(shape[1:], tile)
    if most is not None and len(windows) > most:
        windows = [windows[int(i)] for i in np.linspace(0, len(windows) - 1, most).round()]
    # whole tiles are what is left of the volume: beyond their outermost nothing is known
    low = [min(w[k].start for w in tile_windows(shape[1:], tile)) for k in (0, 1)]
    high = [max(w[k].stop for w in tile_windows(shape[1:], tile)) for k in (0, 1)]
    halo = [int(REACH * s + 0.5) + 1 for s in sigma]
    found = np.empty((len(windows), shape[0]))
    for n, window in enumerate(windows):
        reads = [slice(max(a, w.start - h), min(b, w.stop + h)) for w, a, b, h in zip(window, low, high, halo)]
        block = np.asarray(volume[:, reads[0], reads[1]])
        inside = tuple(slice(w.start - r.start, w.stop - r.start) for w, r in zip(window, reads))
        for z, plane in enumerate(block):
            found[n, z] = np.quantile(gradient_magnitude(plane, sigma)[inside], quantile)
    return TileCurves(found, windows)


def from_peak(curves: F64, least: int, peak: float) -> list[F64]:
    """Each curve from its maximum on, without those of a lower peak or with fewer values than asked for.

    Parameters
    ----------
    curves : (tiles, z)
    least : values that have to remain
    peak : that the maximum has to reach
    """
    found = [curve[int(curve.argmax()) :] for curve in curves if curve.size and curve.max() >= peak]
    return [curve for curve in found if curve.size >= least]


def from_surface(curves: F64, starts: Sequence[int | None], stops: Sequence[int | None], least: int) -> list[F64]:
    """Each curve between two slices, without those that have none, or have fewer values than asked for."""
    found = [c[a:b] for c, a, b in zip(curves, starts, stops) if a is not None and b is not None]
    return [curve for curve in found if curve.size >= least]


@dataclass(frozen=True)
class MeanCurve:
    """Mean over curves of unequal length.

    Attributes
    ----------
    mean, std : (offset,) float64, over the curves that reach so far
    n : (offset,) int64, how many do
    """

    mean: F64
    std: F64
    n: NDArray[np.int64]


def mean_curve(curves: Sequence[F64]) -> MeanCurve:
    """Mean and standard deviation at each offset; empty of no curves."""
    longest = max((c.size for c in curves), default=0)
    table = np.full((len(curves), longest), np.nan)
    for row, curve in zip(table, curves):
        row[: curve.size] = curve
    n = np.isfinite(table).sum(axis=0)
    if not longest:
        return MeanCurve(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    return MeanCurve(np.nanmean(table, axis=0), np.nanstd(table, axis=0), n)


def curve_distance(a: F64, b: F64, thirds: bool = False) -> list[float]:
    """Mean absolute difference of two curves over the offsets that both have.

    Parameters
    ----------
    thirds : of each third of the longer curve, upper first, instead of all; NaN where one of the two has ended
    """
    n, longest = min(a.size, b.size), max(a.size, b.size)
    apart = np.abs(a[:n] - b[:n])
    if not thirds:
        return [float(apart.mean()) if n else math.nan]
    cuts = [0, longest // 3, 2 * longest // 3, longest]
    parts = [apart[p:q] for p, q in itertools.pairwise(cuts)]
    return [float(part.mean()) if part.size else math.nan for part in parts]
