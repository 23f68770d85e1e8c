"""The mosaic, tile by tile: heights and picture against the truth, seams, agreement of views, coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.metrics.distribution import ErrorDistribution, ScaledDifference
from gigascope.topography.calibration.phase import peaks, phase_correlation
from gigascope.topography.evaluation.labels import OURS
from gigascope.topography.evaluation.tiles import BARE, Region, Tile
from gigascope.topography.evaluation.truth import GREEN, Truth
from gigascope.topography.evaluation.view_scores import MOST_SLICES, ViewScores

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
BOOL = NDArray[np.bool_]
COLOURS = ("red", "green", "blue")
# Blocks that are compared with the truth for the lateral error, pixels, and how far they are looked for.
BLOCK_PX, REACH_PX = 64, 3.0
# Distances from the border of a view in the profile of seams, pixels; the seam itself is what is nearer than one.
PROFILE_PX = 32
SEAM_PX = 1.0
# Pixels along the longer side of the picture of errors.
PICTURE_PX = 1024
# Views that are averaged where a mosaic must be better than one of them.
BLENDED = 3


class Mosaic:
    """A finished mosaic by the names of its channels.

    Parameters
    ----------
    store : (c, y, x) with `channels` and `height_unit` among its attributes
    """

    def __init__(self, store: StoreReader) -> None:
        self.store = store
        self._array = store.array()
        self._channels = {str(name): n for n, name in enumerate(store.attrs["channels"])}
        self.shape: tuple[int, int] = self._array.shape[1], self._array.shape[2]
        self.in_um = str(store.attrs.get("height_unit", "micrometer")) == "micrometer"
        self.white = float(store.attrs.get("white", 255.0))
        self.colours = tuple(n for n in COLOURS if n in self._channels) or ("grey",)

    @property
    def focus(self) -> str:
        """Channel that focus was measured in."""
        return "green" if "green" in self.colours else "grey"

    def read(self, region: Region, margin: int = 0) -> dict[str, F32]:
        """All channels of a region, with a margin that is NaN beyond the mosaic."""
        rows, cols = region
        low = max(0, rows.start - margin), max(0, cols.start - margin)
        high = min(self.shape[0], rows.stop + margin), min(self.shape[1], cols.stop + margin)
        block = np.asarray(self._array[:, low[0] : high[0], low[1] : high[1]])
        around = [(low[i] - (r.start - margin), r.stop + margin - high[i]) for i, r in enumerate((rows, cols))]
        block = np.pad(block, [(0, 0), *around], constant_values=np.nan)
        return {name: block[n] for name, n in self._channels.items()}


class MosaicScores:
    """Scores of a mosaic without the truth: seams, agreement of the views, coverage.

    Parameters
    ----------
    mosaic : to be scored
    dz : step between slices in the unit of heights

    Attributes
    ----------
    seams : (PROFILE_PX + 1, 4) sums of gradients of picture and height by the distance from the nearest border of a
        view, and how many pixels of each
    """

    def __init__(self, mosaic: Mosaic, dz: float) -> None:
        self._mosaic = mosaic
        self.pixels = self.covered = 0
        self._views = 0.0
        # of 0: how far the views' heights scatter at pixels that two or more see
        self.scatter = ErrorDistribution((0.0, 1.0), MOST_SLICES * dz, groups=1, bins=16000)
        self.seams = np.zeros((PROFILE_PX + 1, 4))

    def add(self, tile: Tile) -> None:
        """Score a tile."""
        wide = self._mosaic.read(tile.region, 1)
        inner = {name: values[1:-1, 1:-1] for name, values in wide.items()}
        seen = np.isfinite(inner["height"])
        self.pixels += seen.size
        self.covered += int(seen.sum())
        self._views += float(inner["n_views"][seen].sum(dtype=np.float64))
        std = inner["height_std"][seen & (inner["n_views"] >= 2)]
        std = std[np.isfinite(std)]
        self.scatter.add(std, np.zeros(std.shape))
        distance = np.minimum(tile.border_px.astype(np.float64), PROFILE_PX).astype(np.intp)
        for column, name in ((0, self._mosaic.focus), (2, "height")):
            size = gradient(wide[name])
            known = np.isfinite(size)
            self.seams[:, column] += np.bincount(distance[known], size[known], PROFILE_PX + 1)
            self.seams[:, column + 1] += np.bincount(distance[known], minlength=PROFILE_PX + 1)

    @property
    def views_per_pixel(self) -> float:
        """Mean over the pixels that are seen."""
        return self._views / self.covered if self.covered else math.nan

    def seam_energy(self, column: int = 0) -> float:
        """Mean gradient closer than a pixel to a border of a view over that elsewhere.

        Parameters
        ----------
        column : 0 of the picture, 2 of the heights
        """
        total, count = self.seams[:, column], self.seams[:, column + 1]
        near, far = slice(0, int(SEAM_PX)), slice(int(SEAM_PX), None)
        if not count[near].sum() or not total[far].sum():
            return math.nan
        return float(total[near].sum() / count[near].sum() / (total[far].sum() / count[far].sum()))


class TruthScores:
    """Scores of a mosaic against the truth.

    Parameters
    ----------
    mosaic : heights in micrometres
    truth : on the same views
    dz_um : step between slices
    views : scores of single views, whose estimators are compared with the mosaic on the same pixels

    Attributes
    ----------
    heights : errors of textured, unoccluded pixels away from steps, by true height, um
    beside_steps, bare : likewise beside steps, and where there is no texture
    picture, picture_rgb : of the channel of focus, and of all colours
    lateral_px : distances of blocks from where the truth has them
    compared : by method, errors and picture of the means over views; ours on the same pixels
    """

    def __init__(self, mosaic: Mosaic, truth: Truth, dz_um: float, views: ViewScores) -> None:
        self._mosaic, self._truth, self._views = mosaic, truth, views
        low, high = truth.height_range_um
        self._span = (low, high) if high > low else (low - 0.5, high + 0.5)
        self._limit = MOST_SLICES * dz_um
        self.heights = self._distribution(bins=32000)
        self.beside_steps, self.bare = (self._distribution(1) for _ in range(2))
        self.picture = ScaledDifference()
        self._colours = {name: ScaledDifference() for name in mosaic.colours}
        self._blended = ScaledDifference()
        self.lateral_px: list[float] = []
        self.compared = {m: (self._distribution(1), ScaledDifference()) for m in views.single}
        self.per_pixel: dict[str, list[float]] = {m: [0.0, 0.0] for m in views.single}
        self.planes: dict[int, F64] = {}
        self._errors = ErrorPicture(mosaic.shape)
        self._coverage = np.zeros(3, np.int64)

    def _distribution(self, groups: int = 64, bins: int = 8000) -> ErrorDistribution:
        # wide enough for a common offset: that of a calibration without a flat target
        return ErrorDistribution(self._span, 4 * self._limit, groups=groups, bins=bins)

    def add(self, tile: Tile) -> None:
        """Score a tile."""
        block = self._mosaic.read(tile.region)
        height, surface = block["height"].astype(np.float64), tile.surface
        error, seen = height - surface.height_um, np.isfinite(height)
        good = seen & tile.visible & tile.textured
        self.heights.add(error[good], surface.height_um[good])
        beside = seen & surface.inside & tile.unoccluded & tile.textured & surface.near_step
        self.beside_steps.add(error[beside], surface.height_um[beside])
        bare = seen & surface.inside & (surface.texture < BARE)
        self.bare.add(error[bare], surface.height_um[bare])
        for n, name in enumerate(self._mosaic.colours):
            shown = tile.albedo[n if len(self._mosaic.colours) == 3 else GREEN]
            lit = good & np.isfinite(block[name])
            self._colours[name].add(block[name][lit], shown[lit])
            if name == self._mosaic.focus:
                several = lit & (block["n_views"] >= BLENDED)
                self._blended.add(block[name][several], shown[several])
        self._add_lateral(tile, block, good)
        self._add_planes(height, surface.height_um, good)
        self._errors.add(tile.region, np.where(seen & surface.inside, error, np.nan))

    def compare(self, tile: Tile) -> None:
        """Score means over views of section 12's estimators on a tile of their block, and ours on the same pixels."""
        block, surface = self._mosaic.read(tile.region), tile.surface
        good = np.isfinite(block["height"]) & tile.visible & tile.textured
        means = {m: self._views.mean_of(m, *tile.region) for m in self._views.averaged}
        for height, _, _ in means.values():
            good &= np.isfinite(height)
        channel = block[self._mosaic.focus].astype(np.float64)
        ours = {OURS: (block["height"].astype(np.float64), channel, block["n_views"].astype(np.float64))}
        for method, (height, picture, count) in (ours | means).items():
            errors, difference = self.compared[method]
            errors.add((height - surface.height_um)[good], surface.height_um[good])
            difference.add(picture[good], tile.albedo[GREEN][good])
            self.per_pixel[method][0] += float(count[good].sum())
            self.per_pixel[method][1] += int(good.sum())

    def add_coverage(self, rows: slice, cols: slice) -> None:
        """Count the pixels of a window of the true mosaic that views see and that the mosaic holds."""
        seen = self._truth.coverage(rows, cols) > 0
        points = np.moveaxis(np.mgrid[rows, cols].astype(np.float64), 0, -1)
        at = np.rint(self._truth.on_mosaic(points)).astype(np.int64)
        on = np.all((at >= 0) & (at < self._mosaic.shape), axis=-1)
        low = np.clip(at.min(axis=(0, 1)), 0, np.array(self._mosaic.shape) - 1)
        high = np.clip(at.max(axis=(0, 1)) + 1, low + 1, self._mosaic.shape)
        block = self._mosaic.read((slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))))["height"]
        held = np.zeros(seen.shape, np.bool_)
        held[on] = np.isfinite(block[tuple((at[on] - low).T)])
        # the outermost row of pixels that views see is a matter of a hundredth of a pixel
        self._coverage += (int(seen.sum()), int((seen & held).sum()), int((held & ~_grown(seen)).sum()))

    @property
    def coverage(self) -> float:
        """Share of the seen pixels that the mosaic holds."""
        return float(self._coverage[1] / self._coverage[0]) if self._coverage[0] else math.nan

    @property
    def unseen(self) -> int:
        """Pixels with values that no view sees."""
        return int(self._coverage[2])

    @property
    def picture_psnr(self) -> dict[str, float]:
        """PSNR by channel, dB, full scale of the sensor."""
        return {name: d.psnr(self._mosaic.white) for name, d in self._colours.items()}

    @property
    def blended_psnr(self) -> float:
        """PSNR of the channel of focus where :data:`BLENDED` views or more are averaged, dB."""
        return self._blended.psnr(self._mosaic.white)

    @property
    def offset_um(self) -> float:
        """Common offset of the heights, their median error; 0 where nothing was scored."""
        return self.heights.median() if self.heights.n else 0.0

    def error_picture(self, offset: float) -> F32:
        """(rows, cols) mean errors less an offset, at most PICTURE_PX along a side; NaN where nothing was scored."""
        return self._errors.picture(offset)

    @property
    def picture_factor(self) -> int:
        """Mosaic pixels along a side of one of the picture of errors."""
        return self._errors.factor

    def steps(self) -> list[tuple[float, ...]]:
        """Planes of a gauge-block specimen, from low to high: true height, mean and standard deviation of ours, um, and
        pixels; planes with less than a hundredth of the pixels are left out."""
        total = sum(p[0] for p in self.planes.values())
        found: list[tuple[float, ...]] = []
        for level, (n, sums, squares) in sorted(self.planes.items()):
            if n >= 0.01 * total:
                mean = sums / n
                found.append((float(level), mean, math.sqrt(max(0.0, squares / n - mean**2)), int(n)))
        return found

    def _add_planes(self, height: F64, true: F64, good: BOOL) -> None:
        if str(self._truth.attrs.get("specimen")) != "staircase":
            return
        level = np.rint(true[good]).astype(np.int64)
        # on a plane, not within the cell of two heights
        flat = np.abs(true[good] - level) < 0.25
        values, levels = height[good][flat], level[flat]
        for k in np.unique(levels):
            h = values[levels == k]
            self.planes[int(k)] = self.planes.get(int(k), np.zeros(3)) + (h.size, h.sum(), h @ h)

    def _add_lateral(self, tile: Tile, block: Mapping[str, F32], good: BOOL) -> None:
        picture = block[self._mosaic.focus]
        fixed, moving = [], []
        for row in range(0, tile.shape[0] - BLOCK_PX + 1, BLOCK_PX):
            for col in range(0, tile.shape[1] - BLOCK_PX + 1, BLOCK_PX):
                part = slice(row, row + BLOCK_PX), slice(col, col + BLOCK_PX)
                if good[part].mean() > 0.9 and np.isfinite(picture[part]).all():
                    fixed.append(tile.albedo[GREEN][part])
                    moving.append(picture[part])
        if not fixed:
            return
        pair = [torch.from_numpy(np.stack(v).astype(np.float32)) for v in (fixed, moving)]
        correlation = phase_correlation(pair[0], pair[1])
        moved, _, _ = peaks(correlation, torch.zeros(len(fixed), 2), (REACH_PX, REACH_PX))
        self.lateral_px += moved.norm(dim=1).tolist()


class ErrorPicture:
    """Mean errors on a coarse grid.

    Parameters
    ----------
    shape : (rows, cols) of the mosaic
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.factor = max(1, math.ceil(max(shape) / PICTURE_PX))
        self._sums = np.zeros((2, *(-(-n // self.factor) for n in shape)))

    def add(self, region: Region, errors: F64) -> None:
        """Errors of a region, NaN where there are none."""
        known = np.isfinite(errors)
        rows, cols = (np.arange(r.start, r.stop) // self.factor for r in region)
        place = np.broadcast_to(rows[:, None], errors.shape)[known], np.broadcast_to(cols, errors.shape)[known]
        np.add.at(self._sums[0], place, errors[known])
        np.add.at(self._sums[1], place, 1.0)

    def picture(self, offset: float) -> F32:
        """(rows, cols) float32."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._sums[0] / self._sums[1] - offset, np.float32)


def gradient(values: F32) -> F64:
    """(rows - 2, cols - 2) magnitude of the central differences of (rows, cols); NaN beside NaN."""
    v = values.astype(np.float64)
    return np.asarray(0.5 * np.hypot(v[2:, 1:-1] - v[:-2, 1:-1], v[1:-1, 2:] - v[1:-1, :-2]))


def _grown(mask: BOOL) -> BOOL:
    """A mask and the pixels beside it; the border of the window goes on beyond it."""
    wide = np.pad(mask, 1, mode="edge")
    rows, cols = mask.shape
    parts = [wide[1 + i : 1 + i + rows, 1 + j : 1 + j + cols] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return np.asarray(np.logical_or.reduce(parts))
