"""From raw views (tilt, y, x) to prepared views (tilt, s, y): signal, rotation, shift and binning in one resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.tomography.cleaning import ViewSource, as_mask, as_view
from gigascope.tomography.frame import rotate_view
from gigascope.tomography.geometry import frame_shape
from gigascope.tomography.signal import SignalModel, prepare_view


def prepared_views(
    views: ViewSource,
    model: SignalModel,
    *,
    tilt_axis: float,
    bin: int = 1,
    largest_bin: int = 1,
    shifts: ArrayLike | None = None,
    linear: ArrayLike | None = None,
    order: Sequence[int] | None = None,
    valid: ViewSource | None = None,
    spline: int = 1,
    mask_spikes: bool = True,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Prepared views in the rotated frame, one resampling from the raw pixels; one raw view in memory at a time.

    Parameters
    ----------
    views : (tilt, y, x) raw values, rows y up, in stack order
    model : from `estimate_signal` on the same stack
    tilt_axis : phi, radians
    bin : output pixel in raw pixels; mean of bin x bin samples
    largest_bin : the frame is rounded down to a multiple of it; `bin` must divide it, or be it
    shifts : (n, 2) raw pixels in the rotated frame, one per output view; none: unaligned
    linear : (n, 2) rotation (radians) and magnification less 1 of each output view; none: 0
    order : indices into the stack, one per output view (ascending tilt); none: stack order
    valid : (tilt, y, x) masks in stack order
    spline : interpolation order, 1 or 3
    mask_spikes : at bin 1 also mask replaced hot pixels; a binned pixel keeps them, they are a small part of its mean
    progress : called with the fraction done

    Returns
    -------
    out : (n, s, y) float32, 0 where nothing is known and in flagged views
    mask : (n, s, y) uint8, 1 where every raw pixel that contributes is usable; 0 in flagged views

    Raises
    ------
    ShapeError : shifts and order of different lengths, or the frame is no multiple of `bin`
    """
    order = list(range(views.shape[0])) if order is None else list(order)
    moved = np.zeros((len(order), 2)) if shifts is None else np.asarray(shifts, dtype=np.float64)
    turned = np.zeros((len(order), 2)) if linear is None else np.asarray(linear, dtype=np.float64)
    if moved.shape != (len(order), 2):
        raise ShapeError(f"shifts has shape {moved.shape}, expected ({len(order)}, 2)")
    raw_shape = (int(views.shape[1]), int(views.shape[2]))
    n_s, n_y = frame_shape(raw_shape, tilt_axis, max(bin, largest_bin))
    if n_s % bin or n_y % bin or min(n_s, n_y) < bin:
        raise ShapeError(f"a frame of {n_s} x {n_y} pixels is no multiple of bin {bin}")
    shape = (n_s // bin, n_y // bin)
    out = torch.zeros((len(order), *shape), device=device)
    mask = torch.zeros((len(order), *shape), dtype=torch.uint8, device=device)
    for k, index in enumerate(order):
        if model.flags[index] == "":
            raw = as_view(views, index, device)
            view, usable, spikes = prepare_view(raw, model, index, valid=as_mask(valid, index, raw.shape, device))
            place = {
                "tilt_axis": tilt_axis,
                "shape": shape,
                "bin": bin,
                "shift": moved[k],
                "linear": turned[k],
                "spline": spline,
            }
            out[k], mask[k] = rotate_view(view, usable, **place)
            if mask_spikes and bin == 1 and bool(spikes.any()):
                mask[k] = rotate_view(view, usable & ~spikes, **place)[1]
        if progress is not None:
            progress((k + 1) / len(order))
    return out, mask
