"""What the evaluation will need, from shapes alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gigascope.runtime.resources import Estimate

if TYPE_CHECKING:
    from gigascope.config.dataset import TopographyDataset
    from gigascope.topography.plan import TopographyHeader

# Measured with `gigascope run`; the peak is in its last line, and in `gigascope info`. Python with torch, SciPy and a
# tile of the mosaic; with a truth the compiled sharpness, distributions of errors and more of a tile.
START_BYTES, TRUTH_BYTES = 350 * 2**20, 150 * 2**20
# Of a pixel of a view: float32 maps of picture and gradients; with a truth float64 maps, and of a value of the stack
# beside it: as a number, its sharpness, what the estimators make of it.
MAP_BYTES, TRUTH_MAP_BYTES, STACK_BYTES = 30, 8 * 25, 4 * 3
# Of the sums over views: three float32 of each method.
SUM_BYTES = 12
PIXELS_PER_S, VIEW_PIXELS_PER_S = 1.5e5, 2.5e5


def estimate_evaluate(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """One view, or one tile, at a time; and the sums of the estimators."""
    cfg, (_, _, n_z, height, width) = dataset.evaluate, header.shape
    view, n_views = height * width, header.n_views
    measured = min(n_views, max(1, cfg.max_view_pixels // view)) * view
    truth = dataset.inputs.instrument is not None
    held = START_BYTES + view * (n_z * header.itemsize + MAP_BYTES)
    if truth:
        held += TRUTH_BYTES + view * (n_z * STACK_BYTES + TRUTH_MAP_BYTES)
        held += SUM_BYTES * (len(cfg.estimators) + 2) * measured // 3
    # with usual overlaps a mosaic has a third to a fifth of the pixels of its views
    mosaic = min(cfg.max_pixels, math.prod(header.mosaic_shape) or n_views * view)
    seconds = 10 + (measured / VIEW_PIXELS_PER_S + mosaic / PIXELS_PER_S if truth else (measured + mosaic) / 1e6)
    return Estimate(held, 0, seconds, 5 * 10**6, 16, "tables")
