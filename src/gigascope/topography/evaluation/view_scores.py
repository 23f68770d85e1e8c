"""Single views: our slices of focus and pictures beside section 12's estimators, on the same stacks.

A compact block of views is enough, so that a large acquisition is not read twice. Each view is read once; what the
estimators make of it goes into sums on the mosaic, whose means are scored when all views are in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.kernels.filters import sharpness
from gigascope.metrics.distribution import ErrorDistribution, ScaledDifference, Separation
from gigascope.topography.calibration.result import Calibration
from gigascope.topography.evaluation.labels import OURS, TRUE, TRUE_NEAREST
from gigascope.topography.evaluation.stacks import Stacks, View
from gigascope.topography.evaluation.tiles import BARE, TEXTURED, VISIBLE
from gigascope.topography.evaluation.truth import GREEN, WINDOW_PX, Truth
from gigascope.topography.focus.fuse import fuse
from gigascope.topography.focus.peak import estimate_peak
from gigascope.topography.geometry.candidates import extent, inside
from gigascope.topography.geometry.poses import select, to_view

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
BOOL = NDArray[np.bool_]
# Rim of a view that is not scored: the windows of the sharpness see less there.
RIM_PX = 20
# Rings of the field, from its middle to its corners.
RINGS = 16
TRUNCATE = 2.0
# Errors beyond this many slices are failures; their percentiles are not told apart.
MOST_SLICES = 4.0


def block_of_views(grid: tuple[int, int], present: BOOL, size: tuple[int, int], most: int) -> list[int]:
    """Numbers of the views of the most central block of the grid with at most `most` pixels; all where they fit.

    Parameters
    ----------
    grid : (view rows, view columns)
    present : (V,) views that are there
    size : (R, C) pixels of a view
    """
    n = max(1, most // (size[0] * size[1]))
    rows = min(grid[0], max(1, round(math.sqrt(n * grid[0] / grid[1]))))
    cols = min(grid[1], max(1, n // rows))
    rows = min(grid[0], max(1, n // cols))
    first = (grid[0] - rows) // 2, (grid[1] - cols) // 2
    numbers = [r * grid[1] + c for r in range(first[0], first[0] + rows) for c in range(first[1], first[1] + cols)]
    return [v for v in numbers if present[v]]


def sharpness_gain(picture: NDArray, stack: NDArray) -> float:
    """Mean squared Sobel gradient (Tenengrad) of a picture over that of the sharpest slice of its stack.

    Parameters
    ----------
    picture : (R, C)
    stack : (n_z, R, C) in the same units
    """
    best = max(tenengrad(image) for image in stack)
    return tenengrad(picture) / best if best > 0 else math.nan


def tenengrad(image: NDArray) -> float:
    """Mean squared Sobel gradient of a picture (R, C)."""
    values = image.astype(np.float32)
    total = sum(float(np.mean(ndimage.sobel(values, axis) ** 2, dtype=np.float64)) for axis in (0, 1))
    return total


@dataclass(eq=False)
class _Means:
    """Sums over views on a part of the mosaic: of heights in um, of pictures in counts, and how many views."""

    height: F32
    picture: F32
    count: F32


@dataclass(eq=False)
class _Single:
    """Errors of a method in single views by the distance from the axis: of focus in um; and its picture."""

    focus: ErrorDistribution
    picture: ScaledDifference


class ViewScores:
    """Scores of a block of views.

    Parameters
    ----------
    stacks : with their inferred views
    calibration : of them
    truth : none: sharpness and confidence alone are measured
    estimators : those of section 12 that are run too
    dz_um : step between slices
    most : pixels of all views of the block

    Attributes
    ----------
    views : numbers of the block's views
    region : rows and columns of the mosaic that they reach
    single : by method, errors of focus and pictures in single views
    height : our heights in single views, by the distance from the axis, um
    confidence : ours, of pixels with texture against pixels without
    gains : sharpness of our picture over the sharpest slice, view by view
    """

    def __init__(
        self,
        stacks: Stacks,
        calibration: Calibration,
        truth: Truth | None,
        *,
        estimators: Sequence[str],
        dz_um: float,
        most: int,
    ) -> None:
        self._stacks, self._calibration, self._truth, self._dz_um = stacks, calibration, truth, dz_um
        size = calibration.instrument.size
        self.views = block_of_views(stacks.grid, calibration.present, size, most)
        self._estimators = tuple(estimators)
        self.confidence = Separation()
        self.gains: list[float] = []
        self.trust: list[float] = []
        self.region = _region(calibration, self.views)
        methods = (OURS, *self._estimators, *TRUE) if truth is not None else ()
        self.single = {m: _Single(self._distribution(), ScaledDifference()) for m in methods}
        self.height = self._distribution()
        shape = tuple(r.stop - r.start for r in self.region)
        self._means = {m: _Means(*(np.zeros(shape, np.float32) for _ in range(3))) for m in methods if m != OURS}

    def _distribution(self) -> ErrorDistribution:
        corner = 0.5 * math.hypot(*self._calibration.instrument.size)
        return ErrorDistribution((0.0, corner), MOST_SLICES * self._dz_um, groups=RINGS)

    def measure(self, views: Iterable[int]) -> None:
        """Read views of the block and score them."""
        for number in views:
            stack, view = self._stacks.green(number), self._stacks.view(number)
            self.gains.append(sharpness_gain(view.picture[..., self._stacks.focus_channel], stack))
            self.trust.append(float(view.confidence.mean(dtype=np.float64)))
            if self._truth is not None:
                self._against(self._truth, number, stack, view)

    def _against(self, truth: Truth, number: int, stack: NDArray, view: View) -> None:
        flow = truth.view("flow", number).astype(np.float64)
        surface, true = truth.surface(flow), truth.view("index", number).astype(np.float64)
        inner = _inner(true.shape)
        for texture, positive in ((surface.texture > 1 - BARE, True), (surface.texture < BARE, False)):
            chosen = view.confidence[texture & inner]
            self.confidence.add(chosen, np.full(chosen.shape, positive))
        good = inner & (surface.texture > TEXTURED) & ~surface.near_step & surface.inside
        good &= (truth.view("visible", number) >= VISIBLE) & (true >= 0) & (true <= stack.shape[0] - 1)
        shown, light = truth.albedo(flow)[GREEN], self._calibration.correction_field(number)
        radius, sign = _radius(true.shape), self._calibration.instrument.stage_sign
        for method, index, picture in self._found(stack, view, true):
            kept = good & np.isfinite(index)
            single, lit = self.single[method], picture * light
            single.focus.add(sign * self._dz_um * (true - index)[kept], radius[kept])
            single.picture.add(lit[kept], shown[kept])
            heights = self._heights(number, index)
            if method == OURS:
                kept = kept & np.isfinite(heights)
                self.height.add((heights - surface.height_um)[kept], radius[kept])
            else:
                self._add_to_mosaic(self._means[method], number, heights, lit)

    def _found(self, stack: NDArray, view: View, true: F64) -> Iterator[tuple[str, F64, F64]]:
        """Every method with its slices (R, C) and its picture (R, C) in focus."""
        channel = self._stacks.focus_channel
        yield OURS, view.index.astype(np.float64), view.picture[..., channel].astype(np.float64)
        values = stack.astype(np.float32)
        volume = sharpness(torch.from_numpy(values), WINDOW_PX, TRUNCATE)
        found = {m: estimate_peak(volume, m, sigma=WINDOW_PX).index for m in self._estimators}  # type: ignore[arg-type]
        del volume
        found |= dict.fromkeys(TRUE, torch.from_numpy(true.astype(np.float32)))
        for method, index in found.items():
            # one slice is what the sharpest slice names
            mixed = fuse(values, index, mix="nearest" if method in ("argmax", TRUE_NEAREST) else "linear")
            yield method, index.numpy().astype(np.float64), mixed.astype(np.float64)

    def _heights(self, number: int, index: F64) -> F64:
        """(R, C) um above the flat target, NaN without an index."""
        known = np.isfinite(index)
        heights = self._calibration.height_mm(number, np.where(known, index, 0.0), self._stacks.z_mm(number))
        return np.asarray(np.where(known, 1000.0 * heights, np.nan))

    def _add_to_mosaic(self, means: _Means, number: int, heights: F64, picture: F64) -> None:
        box = _region(self._calibration, [number])
        rows, cols = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, self.region))
        points = np.moveaxis(np.mgrid[rows, cols].astype(np.float64), 0, -1)
        rc = to_view(self._calibration.poses, number, points)
        seen = inside(rc, self._calibration.instrument.size, RIM_PX)
        at = np.moveaxis(rc, -1, 0)[:, seen]
        here = (
            slice(rows.start - self.region[0].start, rows.stop - self.region[0].start),
            slice(cols.start - self.region[1].start, cols.stop - self.region[1].start),
        )
        # pictures by a spline: linear interpolation blurs what is as fine as a pixel
        for total, values, order in ((means.height, heights, 1), (means.picture, picture, 3)):
            total[here][seen] += ndimage.map_coordinates(values, at, order=order, mode="nearest", output=np.float32)
        means.count[here] += seen

    @property
    def averaged(self) -> tuple[str, ...]:
        """Methods whose means over views there are."""
        return tuple(self._means)

    def mean_of(self, method: str, rows: slice, cols: slice) -> tuple[F64, F64, F64]:
        """Mean height in um and mean picture of a method over the block's views on a window of the mosaic, NaN where
        none sees it, and how many do."""
        means = self._means[method]
        here = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip((rows, cols), self.region))
        count = means.count[here].astype(np.float64)
        with np.errstate(invalid="ignore"):
            n = np.where(count > 0, count, np.nan)
            return means.height[here] / n, means.picture[here] / n, count


def _region(calibration: Calibration, views: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of the mosaic that views reach."""
    if not len(views):
        return slice(0, 0), slice(0, 0)
    bounds = extent(select(calibration.poses, views))
    low = np.maximum(np.floor(bounds[:, 0].min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(bounds[:, 1].max(axis=0)).astype(int) + 1, calibration.mosaic_shape)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _inner(shape: tuple[int, ...]) -> BOOL:
    found = np.zeros(shape, np.bool_)
    found[RIM_PX : shape[0] - RIM_PX, RIM_PX : shape[1] - RIM_PX] = True
    return found


def _radius(shape: tuple[int, ...]) -> F64:
    """(R, C) distance from the axis, pixels."""
    rows, cols = (np.arange(n) - n / 2 for n in shape)
    return np.asarray(np.hypot(rows[:, None], cols[None]))
