"""What the evaluation will need, from the config alone: it reads tiles and windows, whatever the images' size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gigascope.runtime.resources import Estimate
from gigascope.synthesis.adaptation.plan import naive_of

if TYPE_CHECKING:
    from gigascope.config.dataset import SynthesisDataset

# Python with torch, SciPy and scikit-image: 385 MiB with next to nothing to evaluate.
START_BYTES = 400 * 2**20
# Of a voxel of a tile: image, regions, spectra and features in double precision; of one that is segmented: distances,
# their order and labels; of one whose labels are kept until images are compared; of a cell of the coarse grid of a
# spheroid: two distance transforms.
TILE_BYTES, SEGMENTED_BYTES, KEPT_BYTES, CELL_BYTES = 120, 60, 4, 20
MOST_CELLS, CELL_UM3 = 2**24, 8.0
# A patch with its projections; counts of the projections of a tile, and of its intensities.
PATCH_BYTES, PER_TILE_BYTES = 4 * (245 + 256), 256 * 256 * 4 + 3 * 1152 * 4
TILE_VOXELS_PER_S, SEGMENTED_VOXELS_PER_S, STEP_VOXELS_PER_S = 1.5e6, 8e5, 1.5e5


def estimate_evaluate(dataset: SynthesisDataset, header: Any) -> Estimate:
    """Tiles one at a time, one image segmented at a time, and what is kept of all tiles.

    Real images count as many and as large as the simulated ones.
    """
    cfg = dataset.evaluate
    shape, voxel_um, n = naive_of(dataset, header, "inference")
    voxels = math.prod(shape)
    kinds = 3 if dataset.has_real else 1
    tile = math.prod(min(t, s) for t, s in zip(cfg.tile, shape))
    tiles = min(cfg.max_tiles, n * math.prod(-(-s // t) for s, t in zip(shape, cfg.tile)))
    segmented = min(cfg.max_segmented, n * voxels)
    one = min(max(1, cfg.max_segmented // n), voxels)
    cells = min(MOST_CELLS, math.ceil(voxels * math.prod(voxel_um) / CELL_UM3))
    kept = kinds * (cfg.patches * PATCH_BYTES + tiles * PER_TILE_BYTES + segmented * KEPT_BYTES)
    held = START_BYTES + kept + max(tile * TILE_BYTES, one * SEGMENTED_BYTES, cells * CELL_BYTES)
    seconds = 10 + kinds * (tiles * tile / TILE_VOXELS_PER_S + segmented / SEGMENTED_VOXELS_PER_S)
    networks = 3 * cfg.downstream.seeds if kinds > 1 else 0
    seconds += networks * cfg.downstream.steps * 2 * math.prod(cfg.downstream.crop) / STEP_VOXELS_PER_S
    return Estimate(held, 2**30 if cfg.downstream.steps else 2**28, seconds, 10 * 2**20, 40, "tables")
