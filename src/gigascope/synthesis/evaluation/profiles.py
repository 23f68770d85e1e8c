"""What becomes of the image with depth: brightness and the sharpness of edges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.metrics.edges import MeanCurve, curve_distance, from_peak, from_surface, mean_curve, tile_curves
from gigascope.synthesis.evaluation.tiles import (
    BINS,
    DEPTH_UM,
    LOWEST,
    N_DEPTHS,
    PER_UNIT,
    Grey,
    Measured,
    SetMeasures,
)

F64 = NDArray[np.float64]
# Columns that are read of one volume.
MOST_COLUMNS = 36
LEAST_VOXELS = 500


@dataclass(frozen=True)
class EdgeForm:
    """How edges are measured.

    Parameters
    ----------
    sigma : blur of a slice
    tile : edge of a tile
    quantile : of the gradients of a tile
    least : shortest curve that counts
    peak : that a curve has to reach: relative to the largest of its image, or in units of a scale from 0 to 1
    physical : lengths are micrometres, depth counts from the surface; else pixels, slices, and from the curve's maximum
    """

    sigma: float = 1.5
    tile: float = 50.0
    quantile: float = 0.95
    least: float = 30.0
    peak: float = 0.3
    physical: bool = True


PARITY = EdgeForm(sigma=3, tile=100, quantile=0.95, least=50, peak=0.026, physical=False)


@dataclass(frozen=True)
class EdgeCurve:
    """Edges of a set by depth.

    Attributes
    ----------
    step : from one value to the next: micrometres, or 1 slice
    curve : over the tiles of all images (physical), or over images
    """

    step: float
    curve: MeanCurve


def edge_curve(measured: Measured, grey: Grey, form: EdgeForm) -> EdgeCurve:
    """Steepest gradients by depth, in units of the range from -1 to 1 of a set's scale, halved.

    Parameters
    ----------
    measured : set with its spheroids
    grey : its scale
    """
    found: list[F64] = []
    step = measured.images.voxel_um[0] if form.physical else 1.0
    for volume, around in zip(measured.images.volumes, measured.around):
        image = volume.image if len(volume.image.shape) == 3 else _FirstChannel(volume.image)
        unit = volume.voxel_um[1:] if form.physical else (1.0, 1.0)
        tile = [max(4, round(form.tile / u)) for u in unit]
        curves = tile_curves(image, tile, [form.sigma / u for u in unit], form.quantile, MOST_COLUMNS)
        values = curves.values / (grey.high - grey.low)
        if not form.physical:
            kept = from_peak(values, int(form.least), form.peak)
            found += [mean_curve(kept).mean] if kept else []
            continue
        top = float(values.max(initial=0.0))
        spans = [around.column(*w) for w in curves.windows]
        bright = [v.max() >= form.peak * top for v in values]
        starts = [s[0] if ok else None for s, ok in zip(spans, bright)]
        kept = from_surface(values, starts, [s[1] for s in spans], math.ceil(form.least / volume.voxel_um[0]))
        found += [_resampled(c, volume.voxel_um[0], step) for c in kept]
    return EdgeCurve(step, mean_curve(found))


def edge_distances(a: EdgeCurve, b: EdgeCurve) -> list[float]:
    """Mean absolute difference of two curves: of all depths, and of the upper, middle and lower third."""
    other = _resampled(b.curve.mean, b.step, a.step)
    return [*curve_distance(a.curve.mean, other), *curve_distance(a.curve.mean, other, thirds=True)]


@dataclass(frozen=True)
class DepthProfile:
    """Brightness of the spheroid by depth, on a scale from 0 to 1 between the percentiles of the set.

    Attributes
    ----------
    depth_um : middles, spheroid above
    mean, q95 : of the voxels of nuclei and between them
    """

    depth_um: F64
    mean: F64
    q95: F64


def depth_profile(measures: SetMeasures) -> DepthProfile:
    """From the counts of a set."""
    values = (LOWEST + (np.arange(BINS) + 0.5) / PER_UNIT + 1.0) / 2.0
    counts = measures.by_depth.sum(axis=0)[:, 1:].sum(axis=1).astype(np.float64)
    n = counts.sum(axis=1)
    use = n >= LEAST_VOXELS
    counts, n = counts[use], n[use]
    place = (np.cumsum(counts, axis=1) < 0.95 * n[:, None]).sum(axis=1)
    depth = (np.arange(N_DEPTHS)[use] + 0.5) * DEPTH_UM
    return DepthProfile(depth, counts @ values / n, values[np.minimum(place, BINS - 1)])


def _resampled(curve: F64, step: float, wanted: float) -> F64:
    if not curve.size or abs(step - wanted) < 1e-6 * wanted:
        return curve
    n = int((curve.size - 1) * step / wanted) + 1
    return np.interp(np.arange(n) * wanted, np.arange(curve.size) * step, curve)


class _FirstChannel:
    """The first channel of an array (c, z, y, x), read piece by piece."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = tuple(array.shape[1:])

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray:
        return np.asarray(self._array[(0, *key)])
