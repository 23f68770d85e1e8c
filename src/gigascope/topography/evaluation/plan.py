"""What the evaluation will need, from shapes alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gigascope.runtime.resources import Estimate

if TYPE_CHECKING:
    from gigascope.config.dataset import TopographyDataset
    from gigascope.topography.plan import TopographyHeader

# Measured with `gigascope run`; the peak is in its last line, and in `gigascope info`. Python with torch, the compiled
# sharpness and SciPy; what a tile of the mosaic holds; float64 maps of a view; values of a stack beside its own.
START_BYTES = 330 * 2**20
TILE_BYTES = 60 * 2**20
MAP_BYTES = 8 * 25
STACK_BYTES = 4 * 3
# Of the sums over views: three float32 of each method.
SUM_BYTES = 12
PIXELS_PER_S, VIEW_PIXELS_PER_S = 1.5e5, 2.5e5


def estimate_evaluate(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """One view, or one tile, at a time; and the sums of the estimators."""
    cfg, (_, _, n_z, height, width) = dataset.evaluate, header.shape
    view, n_views = height * width, header.n_views
    measured = min(n_views, max(1, cfg.max_view_pixels // view)) * view
    truth = dataset.inputs.instrument is not None
    held = view * (n_z * (header.itemsize + (STACK_BYTES if truth else 8)) + MAP_BYTES)
    held += SUM_BYTES * (len(cfg.estimators) + 1) * measured // 2 if truth else 0
    # with usual overlaps a mosaic has a third to a fifth of the pixels of its views
    mosaic = min(cfg.max_pixels, math.prod(header.mosaic_shape) or n_views * view)
    seconds = 10 + (measured / VIEW_PIXELS_PER_S + mosaic / PIXELS_PER_S if truth else (measured + mosaic) / 1e6)
    return Estimate(START_BYTES + TILE_BYTES + held, 0, seconds, 5 * 10**6, 16, "tables")
