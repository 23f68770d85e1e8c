"""What the evaluation will need, from the config alone: it reads tiles and windows, whatever the images' size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gigascope.runtime.resources import Estimate

if TYPE_CHECKING:
    from gigascope.config.dataset import SynthesisDataset

# Python with torch, SciPy and scikit-image.
START_BYTES = 500 * 2**20
# Of a voxel of a tile: image, regions, spectra and features in double precision; of one that is segmented: distances,
# their order and labels; of a cell of the coarse grid of a spheroid: two distance transforms.
TILE_BYTES, SEGMENTED_BYTES, CELL_BYTES = 120, 60, 20
MOST_CELLS = 2**24
TILE_VOXELS_PER_S, SEGMENTED_VOXELS_PER_S, STEP_VOXELS_PER_S = 1.5e6, 8e5, 1.5e5


def estimate_evaluate(dataset: SynthesisDataset, header: Any) -> Estimate:
    """Tiles one at a time, one image segmented at a time, and what is kept of all tiles."""
    cfg = dataset.evaluate
    tile = math.prod(cfg.tile)
    # patches, their projections and counts of three kinds of images
    kept = 3 * (cfg.patches * (245 + 256) * 4 + cfg.max_tiles * (256 * 256 * 4 + 3 * 1152 * 4))
    held = START_BYTES + kept + max(tile * TILE_BYTES, cfg.max_segmented * SEGMENTED_BYTES, MOST_CELLS * CELL_BYTES)
    seconds = 20 + 3 * (cfg.max_tiles * tile / TILE_VOXELS_PER_S + cfg.max_segmented / SEGMENTED_VOXELS_PER_S)
    networks = 3 * cfg.downstream.seeds
    seconds += networks * cfg.downstream.steps * 2 * math.prod(cfg.downstream.crop) / STEP_VOXELS_PER_S
    return Estimate(held, 2**30 if cfg.downstream.steps else 2**28, seconds, 10 * 2**20, 40, "tables")
