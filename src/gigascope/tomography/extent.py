"""Is the specimen an isolated object, or a section wider than the field of view? Decided on three coarse views."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gigascope.tomography.cleaning import median
from gigascope.tomography.frame import rotate_view
from gigascope.tomography.geometry import frame_shape

COARSE_WIDTH = 32
OBJECT_CONTRAST = 5.0
SIDE_TILT = math.radians(30.0)


def decide_extent(
    view_at: Callable[[int], tuple[Tensor, Tensor]],
    tilt: NDArray[np.float64],
    good: NDArray[np.bool_],
    tilt_axis: float,
) -> tuple[str, tuple[int, ...], tuple[float, ...]]:
    """ "object" if two of the three views at about -30, 0 and 30 degrees stand out of their sides, else "section".

    Parameters
    ----------
    view_at : gives signal and usable pixels of the view of an index, (y, x) each
    tilt : (tilt,) radians
    good : (tilt,) bool, views that may be asked for
    tilt_axis : phi, radians

    Returns
    -------
    extent, the indices looked at, and d of each: simulated and real objects 18 and more, sections -0.8 to 1.9
    """
    candidates = np.flatnonzero(good)
    chosen: list[int] = []
    for target in (0.0, -SIDE_TILT, SIDE_TILT):
        left = [i for i in candidates if i not in chosen]
        if left:
            chosen.append(int(min(left, key=lambda i: abs(tilt[i] - target))))
    contrast = []
    for i in chosen:
        view, usable = view_at(i)
        n_s, n_y = frame_shape((view.shape[0], view.shape[1]), tilt_axis)
        factor = max(1, min(round(n_s / COARSE_WIDTH), n_y))
        coarse, _ = rotate_view(view, usable, tilt_axis, (n_s // factor, n_y // factor), factor)
        contrast.append(side_contrast(coarse))
    is_object = sum(d > OBJECT_CONTRAST for d in contrast) >= 2
    return ("object" if is_object else "section"), tuple(chosen), tuple(contrast)


def side_contrast(view: Tensor) -> float:
    """d = (median of the middle third - median of the outer sixteenths) / MAD of the outer sixteenths, across the axis.

    Parameters
    ----------
    view : (s, y) float, about 32 samples across the axis
    """
    smooth = torch.from_numpy(gaussian_filter(view.cpu().numpy(), 1.0, mode="nearest"))
    n_s = smooth.shape[0]
    edge = max(1, round(n_s / 16))
    sides = torch.cat([smooth[:edge], smooth[-edge:]])
    middle = smooth[n_s // 3 : n_s - n_s // 3]
    level = median(sides)
    spread = median((sides - level).abs())
    # a counter that reads 0 outside the object has no spread there
    spread = max(spread, 1e-3 * float(smooth.max() - smooth.min()), 1e-30)
    return (median(middle) - level) / spread
