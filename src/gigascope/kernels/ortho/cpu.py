"""Ortho ops on the CPU: lines of pixels, in float64 whatever the result's precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import prange
from torch import Tensor

from gigascope.kernels.ortho.cpu_blend import blend
from gigascope.kernels.ortho.cpu_splat import splat, splat_predict, splat_predict_backward
from gigascope.kernels.ortho.lines import SCRATCH, mosaic_line, pixel_line
from gigascope.kernels.parallel import parallel_kernel

__all__ = ["blend", "coordinates", "pixels", "splat", "splat_predict", "splat_predict_backward"]


def coordinates(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    corners: Tensor,
    shape: Sequence[int],
    spacing: float,
    heights: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """See :func:`gigascope.kernels.ortho.coordinates`; all contiguous."""
    out = torch.empty(table.shape[0], 2, *shape, dtype=dtype)
    # numba compiles one version for both cases
    lifted = np.empty((0, 0, 0), dtype=np.float32) if heights is None else heights.detach().numpy()
    views = table.detach().numpy(), distortion.detach().numpy(), np.array(size), corners.numpy()
    _coordinates(*views, float(spacing), lifted, out.numpy(), work=20 * out.numel())
    return out


def pixels(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    start: Sequence[int],
    shape: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    """See :func:`gigascope.kernels.ortho.pixels`; all contiguous."""
    out = torch.empty(table.shape[0], 2, *shape, dtype=dtype)
    views = table.detach().numpy(), distortion.detach().numpy(), np.array(size), np.array(start)
    _pixels(*views, out.numpy(), work=40 * out.numel())
    return out


@parallel_kernel
def _coordinates(table, distortion, size, corners, spacing, heights, out):
    n, _, n_rows, n_cols = out.shape
    larger = float(max(size[0], size[1]))
    for task in prange(n * n_rows):
        k, i = task // n_rows, task % n_rows
        scratch = np.empty((2, n_cols))
        at_row, at_col = np.empty(n_cols), np.empty(n_cols)
        y = (corners[k, 0] + spacing * i - 0.5 * size[0]) / larger
        x = (corners[k, 1] - 0.5 * size[1]) / larger
        mosaic_line(table[k], distortion, y, x, spacing / larger, scratch, at_row, at_col)
        if heights.size > 0:
            foot_row, foot_col, per_height = table[k, 18], table[k, 19], 1.0 / table[k, 20]
            z = heights[k, i]
            for j in range(n_cols):
                shrink = 1.0 - z[j] * per_height
                at_row[j] = foot_row + (at_row[j] - foot_row) * shrink
                at_col[j] = foot_col + (at_col[j] - foot_col) * shrink
        out[k, 0, i, :] = at_row
        out[k, 1, i, :] = at_col


@parallel_kernel
def _pixels(table, distortion, size, start, out):
    n, _, n_rows, n_cols = out.shape
    for task in prange(n * n_rows):
        k, i = task // n_rows, task % n_rows
        scratch = np.empty((SCRATCH, n_cols))
        at_row, at_col = np.empty(n_cols), np.empty(n_cols)
        pixel_line(table[k], distortion, size, float(start[0] + i), float(start[1]), scratch, at_row, at_col)
        out[k, 0, i, :] = at_row
        out[k, 1, i, :] = at_col
