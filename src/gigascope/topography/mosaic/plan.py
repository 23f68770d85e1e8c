"""What the stages that put views together will need, from shapes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.runtime.resources import Estimate
from gigascope.topography.mosaic import layout

if TYPE_CHECKING:
    from gigascope.config.dataset import TopographyDataset
    from gigascope.config.topography import Mosaic
    from gigascope.stage import JobKind
    from gigascope.topography.plan import TopographyHeader


def mosaic_rounds(cfg: Mosaic) -> int:
    """Rounds of the tiles: blending, and before it, where offsets are refined, comparing and solving."""
    return len(layout.ROUNDS[cfg.refine])


def estimate_mosaic(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """A tile of all channels, and what two of its blocks read of the views."""
    return Estimate(0, 0, 0, 0, 0, "")


def estimate_mosaic_job(dataset: TopographyDataset, header: TopographyHeader, job: JobKind) -> Estimate:
    """A part has its share of the tiles; the gather makes the pyramid."""
    return estimate_mosaic(dataset, header)


def estimate_tiff(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """Some tiles at a time."""
    return Estimate(0, 0, 0, 0, 0, "")


def estimate_mesh(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """A level of the pyramid, and the vertices."""
    return Estimate(0, 0, 0, 0, 0, "")
