"""One raw view in the frame of the tilt axis: rotation, shift and binning in a single resampling."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gigascope.kernels import warp
from gigascope.tomography.geometry import raw_from_aligned


def rotate_view(
    view: Tensor,
    usable: Tensor,
    tilt_axis: float,
    shape: tuple[int, int],
    bin: int,
    *,
    shift: ArrayLike = (0.0, 0.0),
    linear: ArrayLike = (0.0, 0.0),
    spline: int = 1,
) -> tuple[Tensor, Tensor]:
    """One prepared view (y, x) in the rotated, shifted and binned frame.

    Parameters
    ----------
    view : (y, x) float32
    usable : (y, x) bool
    tilt_axis : phi, radians
    shape : (n_s, n_y) after binning
    shift : (f_s, f_y), raw pixels
    linear : rotation of the content in radians, and its magnification less 1

    Returns
    -------
    (s, y) float32, 0 outside the raw image; (s, y) uint8
    """
    fine = (shape[0] * bin, shape[1] * bin)
    matrix = raw_from_aligned(shift, tilt_axis, (view.shape[0], view.shape[1]), fine, linear)
    source = warp.spline_coefficients(view[None]) if spline == 3 else view[None]
    out, valid = warp.resample(
        source, torch.from_numpy(matrix).to(view.device), shape, spline, bin, usable[None].to(torch.uint8)
    )
    known = valid[0] > 0
    return torch.where(known, out[0], 0.0), known.to(torch.uint8)
