"""A tile of the mosaic as it is scored: which views see its pixels, and what the truth has there."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.topography.calibration.result import Calibration
from gigascope.topography.evaluation.truth import Surface, Truth
from gigascope.topography.geometry.candidates import Candidates, crop_of_tile, inside, views_of_tile
from gigascope.topography.geometry.poses import to_view

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
BOOL = NDArray[np.bool_]
Region = tuple[slice, slice]
SIDE = 512
# Contrast of the albedo above which there is texture, and below which there is none.
TEXTURED, BARE = 0.5, 0.1
# Share of the pupil that has to see a point.
VISIBLE = 0.5


def tiles_of(region: Region, most: int | None = None, side: int = SIDE) -> list[Region]:
    """Tiles that cover a region, or evenly spread ones with about `most` pixels, at least one.

    Parameters
    ----------
    most : pixels; none: all
    """
    rows, cols = ([slice(a, min(a + side, r.stop)) for a in range(r.start, r.stop, side)] for r in region)
    found = [(r, c) for r in rows for c in cols]
    pixels = (region[0].stop - region[0].start) * (region[1].stop - region[1].start)
    if most is None or pixels <= most:
        return found
    n = max(1, most // side**2)
    return [found[int((k + 0.5) * len(found) / n)] for k in range(min(n, len(found)))]


class Tile:
    """Pixels of a tile of the calibrated mosaic.

    Parameters
    ----------
    region : rows and columns
    calibration, candidates : of the views
    truth : none: what needs it must not be asked for
    """

    def __init__(self, region: Region, calibration: Calibration, candidates: Candidates, truth: Truth | None) -> None:
        self.region, self._calibration, self._truth = region, calibration, truth
        self.start = region[0].start, region[1].start
        self.shape = region[0].stop - region[0].start, region[1].stop - region[1].start
        found = views_of_tile(candidates, self.start, self.shape)
        self.views = [int(v) for v in found if calibration.present[v]]

    @functools.cached_property
    def points(self) -> F64:
        """(rows, cols, 2) of the calibrated mosaic."""
        grid = np.moveaxis(np.indices(self.shape, dtype=np.float64), 0, -1)
        return np.asarray(grid + np.array(self.start))

    @property
    def truth(self) -> Truth:
        """That it is scored against."""
        if self._truth is None:
            raise ValueError("this tile has no truth")
        return self._truth

    @functools.cached_property
    def on_truth(self) -> F64:
        """(rows, cols, 2) of the true mosaic."""
        return self.truth.on_truth(self.points)

    @functools.cached_property
    def surface(self) -> Surface:
        """What the truth has at the pixels."""
        return self.truth.surface(self.on_truth)

    @functools.cached_property
    def albedo(self) -> F64:
        """(3, rows, cols), see :meth:`Truth.albedo`."""
        return self.truth.albedo(self.on_truth)

    def places(self) -> Iterator[tuple[int, F64]]:
        """Every view with the pixels (rows, cols, 2) of it that see those of the tile."""
        for view in self.views:
            yield view, to_view(self._calibration.poses, view, self.points)

    @functools.cached_property
    def border_px(self) -> F32:
        """(rows, cols) distance to the nearest border of a view, in its pixels; infinite far from all of them."""
        last = np.array(self._calibration.instrument.size) - 1.0
        nearest = np.full(self.shape, np.inf, np.float32)
        for _, rc in self.places():
            # inside: to the nearest side; outside: to the image
            within = np.minimum(rc, last - rc)
            beyond = np.linalg.norm(np.maximum(-within, 0.0), axis=-1)
            distance = np.where(beyond > 0, beyond, within.min(axis=-1))
            np.minimum(nearest, distance.astype(np.float32), out=nearest)
        return nearest

    @functools.cached_property
    def unoccluded(self) -> BOOL:
        """(rows, cols) whether the views see a pixel with at least half of their pupils, on the average."""
        size = self._calibration.instrument.size
        total, count = np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32)
        for view, rc in self.places():
            seen = inside(rc, size)
            if not seen.any():
                continue
            rows, cols = crop_of_tile(self._calibration.poses, view, self.start, self.shape)
            share = self.truth.view("visible", view, rows, cols)
            at = np.moveaxis(rc, -1, 0) - np.array([[[rows.start]], [[cols.start]]])
            total += np.where(seen, ndimage.map_coordinates(share, at, order=1, mode="nearest"), 0.0)
            count += seen
        return np.asarray(total >= VISIBLE * np.maximum(count, 1))

    @functools.cached_property
    def visible(self) -> BOOL:
        """(rows, cols) seen by the truth, unoccluded and away from steps; with or without texture."""
        return np.asarray(self.surface.inside & self.unoccluded & ~self.surface.near_step)

    @property
    def textured(self) -> BOOL:
        """(rows, cols) there is texture."""
        return np.asarray(self.surface.texture > TEXTURED)
