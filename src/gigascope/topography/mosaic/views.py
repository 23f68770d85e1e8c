"""Views as inference left them, read where a tile of the mosaic looks at them: heights, confidence and colours."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.errors import ShapeError, UserError
from gigascope.topography.calibration.field import N_TERMS
from gigascope.topography.calibration.result import Calibration
from gigascope.topography.geometry.candidates import Candidates, crop_of_tile, extent, views_of_tile

F64 = NDArray[np.float64]
# Rows of a view whose heights are computed at once, in float64.
BAND = 64
# Of colours between two slices, so that they count where there are no others.
LEAST_CLARITY = np.float32(1e-3)
# Pixels by which a view may reach beyond the mosaic: rounding of its border.
OVERHANG_PX = 1.0
# Terms of what is added to the heights of a view: 1, x, y, see :mod:`gigascope.topography.calibration.field`.
N_OFFSETS = 3


class Maps(Protocol):
    """A NumPy or Zarr array of (view_row, view_col, row, col) or (view_row, view_col, row, col, c)."""

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True, eq=False)
class Crops:
    """The same window of K views' worth of maps, each at a place of its own.

    Attributes
    ----------
    view : (K,) view numbers, ascending
    heights : (K, h, w) float32, NaN where nothing is known or nothing was read
    confidence : (K, h, w) float32
    clarity : (K, h, w) float32, how sharp the colours can be, above 0 to 1; none: nobody asked
    colours : (K, h, w, c) dtype of the stacks
    corners : (K, 2) int64, first row and column of each window
    """

    view: NDArray[np.int64]
    heights: Tensor
    confidence: Tensor
    clarity: Tensor | None
    colours: Tensor
    corners: Tensor

    def to(self, device: torch.device) -> Crops:
        """The same on a device."""
        maps = (self.heights, self.confidence, self.clarity, self.colours, self.corners)
        return Crops(self.view, *(None if t is None else t.to(device) for t in maps))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Views:
    """All views of an acquisition.

    Parameters
    ----------
    index, confidence : (view_row, view_col, R, C) float32
    aif : (view_row, view_col, R, C, c) uint8, uint16 or float32, c 1 or 3
    calibration : of the views; heights count from its surfaces of focus, or from the middle of the stacks where these
        are not known
    candidates : of its mosaic
    z_mm : (V, n_z) stage position of each slice
    present : (V,) bool
    per_mm : unit of the heights: 1000 for micrometres, 1 where a slice counts as a millimetre
    offsets : (V, 3) added to the heights: o0 + o1 x + o2 y

    Attributes
    ----------
    datum_known : the surfaces of focus of all views are known

    Raises
    ------
    ShapeError : shapes that do not go together
    UserError : a view that lies outside the mosaic, wholly or in part
    """

    index: Maps
    confidence: Maps
    aif: Maps
    calibration: Calibration
    candidates: Candidates
    z_mm: F64
    present: NDArray[np.bool_]
    per_mm: float = 1000.0
    offsets: F64 | None = None
    datum_known: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        instrument = self.calibration.instrument
        n, maps = instrument.n_views, (*instrument.view_shape, *instrument.size)
        shapes = {"index": maps, "confidence": maps, "aif": (*maps, self.n_colours), "present": (n,)}
        if self.offsets is not None:
            shapes["offsets"] = (n, N_OFFSETS)
        for name, shape in shapes.items():
            if tuple(getattr(self, name).shape) != shape:
                found = tuple(getattr(self, name).shape)
                raise ShapeError(f"views: {name}: expected {shape} for {n} views, got {found}")
        _refuse_outside(self.calibration, self.candidates.shape, self.present)
        planes = self.calibration.focus_plane
        known = np.asarray(np.isfinite(planes).all(axis=1, keepdims=True))
        middle = np.array([float(self.z_mm[self.present].mean()), *[0.0] * (N_TERMS - 1)])
        object.__setattr__(self, "calibration", replace(self.calibration, focus_plane=np.where(known, planes, middle)))
        object.__setattr__(self, "datum_known", bool(known[self.present].all()))

    @property
    def n_colours(self) -> int:
        """Colours of the all-in-focus images."""
        return int(self.aif.shape[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of the mosaic."""
        return self.candidates.shape

    @property
    def dz(self) -> float:
        """Step between slices in the unit of the heights."""
        return float(np.abs(np.diff(self.z_mm[self.present], axis=1)).mean()) * self.per_mm

    def of_tile(self, start: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.int64]:
        """(n,) views that may see some of a tile of the mosaic, ascending."""
        found = views_of_tile(self.candidates, start, shape).astype(np.int64)
        return found[self.present[found]]

    def photometric(self, view: NDArray[np.int64]) -> Tensor:
        """(K, 8) float64 corrections of the light for :func:`gigascope.kernels.ortho.blend`."""
        found = self.calibration
        camera = found.camera[view]
        rows = np.zeros((len(view), 2 + N_TERMS))
        rows[:, 0] = found.gain[camera] / found.gain.mean()
        rows[:, 2:] = found.illumination[camera]
        rows[:, 2] -= found.illumination[:, 0].mean()
        return torch.from_numpy(rows)

    def read(
        self, start: tuple[int, int], shape: tuple[int, int], pool: ThreadPoolExecutor, depth: float | None = None
    ) -> Crops:
        """What a tile of the mosaic needs of the views that see it, several read at once; K is 0 where there are none.

        Parameters
        ----------
        start, shape : (row, col) of its first pixel, and its (rows, cols)
        pool : threads that read
        depth : distance from the nearest slice at which colours have lost their clarity, slices; none: not asked for

        Notes
        -----
        All windows have the shape of the largest crop, and lie within their view: so the last row of a window is that
        of the view where the crop reaches it, and no sample is lost there. What is not needed is not read.
        """
        poses, size = self.calibration.poses, self.calibration.instrument.size
        views, crops = [], []
        for view in self.of_tile(start, shape):
            crop = crop_of_tile(poses, int(view), start, shape)
            if min(s.stop - s.start for s in crop) > 1:
                views.append(int(view))
                crops.append(crop)
        h, w = (max((crop[axis].stop - crop[axis].start for crop in crops), default=2) for axis in (0, 1))
        k = len(views)
        heights, confidence = np.full((k, h, w), np.nan, np.float32), np.zeros((k, h, w), np.float32)
        clarity = None if depth is None else np.zeros((k, h, w), np.float32)
        colours = np.zeros((k, h, w, self.n_colours), self.aif.dtype)
        corners = np.array(
            [[min(s.start, n - m) for s, n, m in zip(crop, size, (h, w))] for crop in crops], np.int64
        ).reshape(k, 2)

        def fill(number: int) -> None:
            rows, cols = crops[number]
            top, left = corners[number]
            here = (slice(rows.start - top, rows.stop - top), slice(cols.start - left, cols.stop - left))
            place = (*divmod(views[number], self.calibration.instrument.view_shape[1]), rows, cols)
            index = np.asarray(self.index[place])
            self.fill_heights(views[number], index, rows, cols, heights[(number, *here)])
            if clarity is not None and depth is not None:
                clarity[(number, *here)] = clarity_of(index, depth)
            confidence[(number, *here)] = self.confidence[place]
            colours[(number, *here)] = self.aif[place]

        list(pool.map(fill, range(k)))
        maps = (None if a is None else torch.from_numpy(a) for a in (heights, confidence, clarity, colours, corners))
        return Crops(np.array(views, np.int64), *maps)  # type: ignore[arg-type]

    def fill_heights(
        self, view: int, index: NDArray[np.float32], rows: slice, cols: slice, out: NDArray[np.float32]
    ) -> None:
        """Put the heights of a part of a view with this index into `out` (rows, cols), NaN where it has none."""
        for top in range(rows.start, rows.stop, BAND):
            band = slice(top, min(top + BAND, rows.stop))
            here = slice(band.start - rows.start, band.stop - rows.start)
            out[here] = self._height(view, index[here], band, cols)

    def _height(self, view: int, index: NDArray[np.float32], rows: slice, cols: slice) -> F64:
        found, size = self.calibration, self.calibration.instrument.size
        known = found.height_mm(view, index, self.z_mm[view], rows, cols) * self.per_mm
        if self.offsets is None:
            return known
        y, x = ((np.arange(s.start, s.stop) - n / 2) / max(size) for s, n in zip((rows, cols), size))
        o = self.offsets[view]
        return known + (o[0] + o[1] * x[None] + o[2] * y[:, None])


def clarity_of(index: NDArray[np.float32], depth: float) -> NDArray[np.float32]:
    """(...) float32, 1 where a slice is in focus and near 0 where the focus lies in the middle between two.

    Parameters
    ----------
    index : slices in focus; NaN has none
    depth : distance from a slice at which it has fallen to 1 / e
    """
    away = (index - np.rint(index)) / np.float32(depth)
    return np.nan_to_num(np.exp(-away * away)) + LEAST_CLARITY


def _refuse_outside(calibration: Calibration, shape: tuple[int, int], present: NDArray[np.bool_]) -> None:
    bounds = extent(calibration.poses)
    last = np.array(shape) - 1
    outside = ((bounds[:, 0] < -OVERHANG_PX) | (bounds[:, 1] > last + OVERHANG_PX)).any(axis=1) & present
    if outside.any():
        view = int(np.flatnonzero(outside)[0])
        first, end = (tuple(float(round(v, 1)) for v in corner) for corner in bounds[view])
        raise UserError(
            f"{int(outside.sum())} of {int(present.sum())} views lie outside the mosaic of {shape[0]} x {shape[1]} "
            f"pixels, the first is view {calibration.instrument.name(view)}: it reaches from {first} to {end}.",
            do="Calibrate again: the mosaic is laid out for the views that the calibration found.",
        )
