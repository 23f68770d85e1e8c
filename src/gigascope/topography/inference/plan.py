"""What inference will need, from shapes alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from gigascope.runtime.resources import Estimate
from gigascope.stage import JobKind

if TYPE_CHECKING:
    from gigascope.config.dataset import TopographyDataset
    from gigascope.topography.plan import TopographyHeader

# Peaks on views of 0.04 to 4 megapixels with 7 to 28 slices, tiles of 256 and 1024 pixels. Python with torch, numba and
# zarr loaded.
INFER_BYTES = 395 * 2**20
# For each pixel of a tile with its margins, and there for each slice: by focus alone, and with a network.
FOCUS_BYTES, FOCUS_SLICE_BYTES = 192, 12
NETWORK_BYTES, NETWORK_SLICE_BYTES = 480, 9.5
# The published network takes the slices at full resolution.
PUBLISHED_BYTES = 700
# For each pixel of a view: maps that are put together, filled and written.
MAP_BYTES = 100
# Margin of a tile on either side, pixels: reach of evidence and of the networks of each mode.
MARGIN, PUBLISHED_MARGIN = 96, 192


def estimate_infer(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """A view as it is stored, one tile of it at work, and what is found in it."""
    cfg, (_, _, n_z, rows, cols) = dataset.infer, header.shape
    pixels, tile = rows * cols, cfg.tile_px
    network = cfg.method != "focus" and dataset.train.method == "network" and header.n_views > 1
    work: float = (FOCUS_BYTES + FOCUS_SLICE_BYTES * n_z) * min(rows, max(tile, tile * tile // cols)) * cols
    if network:
        published = dataset.train.mode == "parity"
        margin = 2 * (PUBLISHED_MARGIN if published else MARGIN)
        seen = min(rows, tile + margin) * min(cols, tile + margin)
        each = (PUBLISHED_BYTES if published else NETWORK_BYTES) + NETWORK_SLICE_BYTES * n_z
        work = max(work, each * seen) if published else each * seen
    colours = 3 if header.pattern is not None or header.colours == 3 else 1
    # Zarr has the bytes of a shard beside what it makes of them
    memory = INFER_BYTES + 2 * header.view_bytes + work + MAP_BYTES * pixels
    disk = header.n_views * pixels * (8 + colours * header.itemsize)
    seconds = 10 + header.n_views * pixels * n_z * (2e-7 if network else 1e-7)
    files = 3 * header.n_views + 12
    return Estimate(int(memory), int(work), seconds, disk, files, f"focus and picture of {header.n_views} views")


def estimate_infer_job(dataset: TopographyDataset, header: TopographyHeader, job: JobKind) -> Estimate:
    """The empty arrays; a share of the views; every shard read once, in blocks."""
    whole, parts = estimate_infer(dataset, header), dataset.infer.parts
    if job == "part":
        return replace(whole, seconds=10 + whole.seconds / parts, disk=whole.disk // parts, files=whole.files // parts)
    light = replace(whole, memory=INFER_BYTES, gpu_memory=0, seconds=10, disk=0, files=12)
    return replace(light, seconds=10 + math.ceil(whole.disk / 5e8)) if job == "gather" else light
