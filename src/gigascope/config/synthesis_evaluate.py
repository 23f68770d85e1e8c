"""Config of the synthesis chain: what is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gigascope.config.section import Section

Counts = tuple[PositiveInt, PositiveInt, PositiveInt]
Overlap = Annotated[float, Field(gt=0, le=1)]


class Edge(Section):
    """How fast edges blur with depth."""

    sigma_um: NonNegativeFloat = Field(1.5, description="blur of each slice before its gradients, micrometres")
    tile_um: PositiveFloat = Field(50.0, description="edge of the tiles of a slice, micrometres")
    quantile: float = Field(0.95, gt=0, le=1, description="of the gradients of a tile: the edges")
    min_length_um: NonNegativeFloat = Field(30.0, description="shortest curve that counts, micrometres of spheroid")
    min_peak: float = Field(0.3, ge=0, le=1, description="least peak of a curve, of the highest one of its image")


class Wasserstein(Section):
    """Intensities of nuclei, between them and outside."""

    closing_um: NonNegativeFloat = Field(
        15.0, description="gaps between nuclei up to twice as wide belong to the spheroid, micrometres"
    )
    closing: NonNegativeInt = Field(15, description="the same for the measures of the publication, steps of a voxel")
    erosion: NonNegativeInt = Field(
        2, description="measures of the publication: background this near to a border counts for no region, steps"
    )


class Downstream(Section):
    """Networks that learn to find nuclei from each kind of images, and are tested on real ones with labels."""

    steps: NonNegativeInt = Field(
        0, description="training steps of each network; 0: left out. 2000 on a GPU say what the images are worth"
    )
    seeds: PositiveInt = Field(3, description="networks for each kind of images")
    crop: Counts = Field((16, 64, 64), description="voxels (z, y, x) of the crops that are learned from")


class Evaluate(Section):
    """Measure how real the images look, and how well they keep their labels."""

    edge: Edge = Field(Edge(), description="edges by depth")
    wasserstein: Wasserstein = Field(Wasserstein(), description="regions whose intensities are compared")
    downstream: Downstream = Field(Downstream(), description="what segmenters learn from the images")
    tile: Counts = Field(
        (32, 128, 128),
        description="voxels (z, y, x) of the tiles that are compared, less where images are small or hold fewer than 4",
    )
    max_tiles: PositiveInt = Field(
        200, description="tiles of each kind of images; of more, so many evenly spread over the spheroids"
    )
    patches: PositiveInt = Field(20_000, description="small patches that are compared, of each kind of images")
    bootstrap: NonNegativeInt = Field(200, description="draws of tiles for the intervals of the distances; 0: none")
    scale: Literal["own", "real"] = Field(
        "own",
        description=(
            "grey values of simulated images are compared: `own`, between their own percentiles, as the network sees "
            "them; `real`, between those of the real images, as they are"
        ),
    )
    iou_thresholds: tuple[Overlap, ...] = Field(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        min_length=1,
        description="overlaps (intersection over union) from which on a nucleus counts as found",
    )
    segmenter: Literal["classical", "network"] = Field(
        "classical",
        description=(
            "what finds nuclei in every kind of images: `classical`, a threshold of each slice and a watershed, the "
            "same for all; `network`, the one that learned beside the adaptation"
        ),
    )
    nucleus_um: PositiveFloat = Field(
        9.5, description="expected diameter of a nucleus, micrometres, for the classical segmenter"
    )
    max_segmented: PositiveInt = Field(
        2**24, description="voxels of each kind of images that are segmented; of larger ones the middle"
    )
    parity: bool = Field(
        False,
        description=(
            "also the measures of Bruch et al. (2023) as published: slice against slice of images in order, pixels "
            "instead of micrometres"
        ),
    )
