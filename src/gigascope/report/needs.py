"""What the pages of the chains will need, from shapes alone: pictures at screen size, and what they are made from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gigascope.runtime.resources import Estimate

if TYPE_CHECKING:
    from gigascope.compression.plan import VolumeHeader
    from gigascope.config.dataset import CompressionDataset, SynthesisDataset, TomographyDataset, TopographyDataset
    from gigascope.synthesis.plan import SynthesisHeader
    from gigascope.tomography.plan import SeriesHeader
    from gigascope.topography.plan import TopographyHeader

MIB = 2**20
# Peaks of `gigascope run` on results of some voxels: Python with zarr, and what a chain's pages are made with: SciPy;
# torch and numba too; torch.
LIGHT_BYTES, COMPRESSION_BYTES, TOPOGRAPHY_BYTES, SYNTHESIS_BYTES = 94 * MIB, 392 * MIB, 374 * MIB, 270 * MIB
# A plane of a tomogram is read in chunks this thick, of float32, of which Zarr has some at a time.
CHUNK, MOST_CHUNKS = 64, 100 * MIB
# Of a voxel of a box of original and decoded volume, and most of them; see `gigascope.metrics.image.BOX_VOXELS`.
BOX_BYTES, BOX_VOXELS = 12, 2**24
# Of the level that projections are made from; see `report.compression_result.PROJECTED_VOXELS`.
MOST_VOXELS = 2**27
# Of a pixel of the view that is shown, beside its stack: picture, slice and index, and what is fine in them.
VIEW_BYTES = 100
# Of a pixel of a slice through an image, with its labels.
SLICE_BYTES = 30


def estimate_tomography(dataset: TomographyDataset, header: SeriesHeader) -> Estimate:
    """Planes through the middle, and one view at a time."""
    n_tilts, *sides = header.shape
    side = min(max(sides), 2 * dataset.report.picture_px)
    chunks = min(4 * CHUNK * side * side, MOST_CHUNKS)
    return _page(LIGHT_BYTES + chunks, 5 + n_tilts * side * side / 1e7)


def estimate_compression(dataset: CompressionDataset, header: VolumeHeader) -> Estimate:
    """Boxes of a level of the pyramid, and what is decoded of them."""
    frame = math.prod(header.shape[2:])
    shrunk = max(1, max(header.shape[3:]) // (2 * dataset.report.picture_px))
    level = min(frame // shrunk**2, MOST_VOXELS)
    return _page(COMPRESSION_BYTES + BOX_BYTES * min(level, BOX_VOXELS), 10 + level / 5e6)


def estimate_topography(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """The stack of one view, and what was found in it."""
    _, _, n_z, height, width = header.shape
    held = 2 * header.view_bytes + VIEW_BYTES * height * width
    return _page(TOPOGRAPHY_BYTES + held, 10 + n_z * height * width / 5e6)


def estimate_synthesis(dataset: SynthesisDataset, header: SynthesisHeader) -> Estimate:
    """Slices that the evaluation kept; simulated images are about as wide as the real ones."""
    slices = max((math.prod(image.shape[-2:]) for image in header.domain), default=0)
    return _page(SYNTHESIS_BYTES + SLICE_BYTES * slices, 10)


def _page(memory: int, seconds: float) -> Estimate:
    return Estimate(memory, 0, seconds, 4 * 10**6, 1, "one page")
