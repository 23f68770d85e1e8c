"""The same slices from raw, pre-aligned and aligned views by the same plain method, so that only the shifts differ.

Filtered backprojection of two planes, at screen size: a picture for comparing, not the tomogram. Natterer, *The
Mathematics of Computerized Tomography* (SIAM 2001), V.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.report.figures import Plane, level_for, level_shapes, level_spacing, shrink

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Preview:
    """What one set of shifts makes of the views.

    Parameters
    ----------
    sinogram : (tilt, s) float32, the row through the middle of every view, in the order asked for
    xz : slice through the middle, z up
    xy : slice at z = 0, y up
    width_nm : of the sinogram
    """

    sinogram: F32
    xz: Plane
    xy: Plane
    width_nm: float


def preview(
    store: StoreReader,
    order: NDArray[np.int64],
    tilt: ArrayLike,
    *,
    use: ArrayLike,
    depth_nm: float,
    max_px: int,
    undo_nm: ArrayLike | None = None,
) -> Preview:
    """Sinogram and two slices from a stack of views.

    Parameters
    ----------
    store : axes (tilt, y, x), x across the tilt axis, y up
    order : (n,) indices of views in the stack, by ascending tilt
    tilt : (n,) radians, of the views in `order`
    use : (n,) bool, views that are backprojected
    depth_nm : thickness to show
    max_px : longest side of a picture
    undo_nm : (n, 2) shifts (f_s, f_y) that the store's views were corrected by and that are put back
    """
    tilt = np.asarray(tilt, dtype=np.float64)
    use = np.asarray(use, dtype=bool)
    weights = view_weights(tilt, use)
    sums: tuple[F64, F64] | None = None
    rows: list[F32] = []
    pixel = 1.0
    for n, (view, pixel) in enumerate(_views(store, order, max_px)):
        if undo_nm is not None:
            view = _moved(view, np.asarray(undo_nm, dtype=np.float64)[n] / pixel)
        middle = view.shape[0] // 2
        rows.append(view[middle])
        n_s = view.shape[1]
        if sums is None:
            sums = np.zeros(view.shape), np.zeros((max(1, min(round(depth_nm / pixel), 2 * n_s)), n_s))
        if not use[n]:
            continue
        filtered = ramp_filtered(view)
        x, z = _centred(n_s), _centred(sums[1].shape[0])
        sums[0][:] += weights[n] * _sampled(filtered, x * math.cos(tilt[n]))
        across = x[None, :] * math.cos(tilt[n]) + z[:, None] * math.sin(tilt[n])
        sums[1][:] += weights[n] * _sampled(filtered[middle], across)
    if sums is None:
        raise ValueError("a preview needs at least one view")
    xy, xz = (Plane(s[::-1].astype(np.float32), (pixel, pixel)) for s in sums)
    sinogram = np.stack(rows)
    return Preview(sinogram, xz, xy, sinogram.shape[1] * pixel)


def view_weights(tilt: F64, use: NDArray[np.bool_]) -> F64:
    """Angle that each used view stands for, half the way to its neighbours; 0 for the others. (n,) radians."""
    weights = np.zeros(len(tilt))
    index = np.flatnonzero(use)
    if index.size > 1:
        weights[index] = np.gradient(tilt[index])
    elif index.size == 1:
        weights[index] = 1.0
    return np.maximum(weights, 0.0)


def ramp_filtered(rows: NDArray) -> F64:
    """Rows times |k| with a Hann roll-off, last axis; ends are continued by their values so that no step rings."""
    n = rows.shape[-1]
    pad = n // 2
    wide = np.pad(np.asarray(rows, dtype=np.float64), [(0, 0)] * (rows.ndim - 1) + [(pad, pad)], mode="edge")
    k = np.fft.rfftfreq(wide.shape[-1])
    response = k * 0.5 * (1.0 + np.cos(2.0 * np.pi * k))
    filtered: F64 = np.fft.irfft(np.fft.rfft(wide, axis=-1) * response, n=wide.shape[-1], axis=-1)
    return filtered[..., pad : pad + n]


def _views(store: StoreReader, order: NDArray[np.int64], max_px: int) -> Iterator[tuple[F32, float]]:
    """Views one at a time at screen size, with their pixel size in nm."""
    level = level_for(level_shapes(store), max_px)
    array = store.array(level)
    step = level_spacing(store, level)[2]
    for index in order:
        view, factor = shrink(np.asarray(array[int(index)]), max_px)
        yield view, step * factor


def _moved(view: F32, shift: NDArray) -> F32:
    """Content of a view (y, s) moved by (s, y) pixels; what comes in from outside is as bright as the sides."""
    from scipy.ndimage import shift as move

    sides = float(np.median(view[:, [0, -1]]))
    moved: F32 = move(view, (shift[1], shift[0]), order=1, mode="constant", cval=sides)
    return moved


def _centred(n: int) -> F64:
    return np.arange(n, dtype=np.float64) - (n - 1) / 2


def _sampled(rows: F64, at: F64) -> F64:
    """Linear interpolation along the last axis at coordinates about its centre; 0 outside.

    `at` (n,) for rows (y, s) gives (y, n); `at` of any shape for one row (s,) gives that shape.
    """
    n = rows.shape[-1]
    position = at + (n - 1) / 2
    low = np.clip(np.floor(position).astype(np.int64), 0, n - 2)
    part = position - low
    inside = (position >= 0) & (position <= n - 1)
    found: F64 = np.where(inside, rows[..., low] * (1 - part) + rows[..., low + 1] * part, 0.0)
    return found
