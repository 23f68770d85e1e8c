"""The voxels of an image, those of the finer grid that is blurred, and how both are cut into blocks.

Global indices count from the corner of the phantom's field, so an image that shows a part of it draws the same nuclei
with the same bits. Voxel i of a grid of voxel size v covers [i v, (i + 1) v) µm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Three = tuple[int, int, int]
Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class ImageGrid:
    """Voxels of an image.

    Attributes
    ----------
    shape : (z, y, x)
    voxel_um : (z, y, x)
    ratio : (z, y, x) voxels of the finer grid per voxel of the image
    first : (z, y, x) global index of voxel 0
    """

    shape: Three
    voxel_um: tuple[float, float, float]
    ratio: tuple[float, float, float]
    first: Three = (0, 0, 0)

    @property
    def fine_um(self) -> tuple[float, float, float]:
        """Voxel size of the finer grid."""
        z, y, x = (v / r for v, r in zip(self.voxel_um, self.ratio))
        return z, y, x

    def origin(self, region: Region) -> Three:
        """Global index of the first voxel of a region of the image."""
        z, y, x = (f + s.start for f, s in zip(self.first, region))
        return z, y, x


def image_grid(
    field_um: Sequence[float],
    voxel_um: Sequence[float],
    ratio: Sequence[float],
    shown_um: Sequence[float] | None = None,
) -> ImageGrid:
    """The image of a phantom.

    Parameters
    ----------
    field_um : (z, y, x) size of the phantom's field
    voxel_um, ratio : see :class:`ImageGrid`
    shown_um : (z, y, x) size of the image in the middle of the field, or none for all of it
    """
    whole = [max(1, math.ceil(f / v - 1e-9)) for f, v in zip(field_um, voxel_um)]
    shown = whole if shown_um is None else [min(n, max(1, round(s / v))) for n, s, v in zip(whole, shown_um, voxel_um)]
    first = [(n - m) // 2 for n, m in zip(whole, shown)]
    return ImageGrid(
        (shown[0], shown[1], shown[2]),
        (float(voxel_um[0]), float(voxel_um[1]), float(voxel_um[2])),
        (float(ratio[0]), float(ratio[1]), float(ratio[2])),
        (first[0], first[1], first[2]),
    )


def blocks(region: Region, block: Sequence[int]) -> Iterator[Region]:
    """Cut a shard into blocks of nearly equal size, none larger than `block`; last axis fastest."""
    cuts = []
    for s, size in zip(region, block):
        n = math.ceil((s.stop - s.start) / size)
        cuts.append([s.start + (s.stop - s.start) * i // n for i in range(n + 1)])
    for z in zip(cuts[0], cuts[0][1:]):
        for y in zip(cuts[1], cuts[1][1:]):
            for x in zip(cuts[2], cuts[2][1:]):
                yield slice(*z), slice(*y), slice(*x)


def shard_of(shape: Sequence[int], chunk: Sequence[int], shard: Sequence[int], chain: str) -> list[int]:
    """Voxels of a shard: as given, or of chain `published` the whole image in whole chunks."""
    return [-(-n // c) * c for n, c in zip(shape, chunk)] if chain == "published" else list(shard)


def fine_shape(field_um: Sequence[float], fine_um: Sequence[float]) -> Three:
    """Voxels of `fine_um` that cover a field (both z, y, x)."""
    z, y, x = (math.ceil(f / v - 1e-9) for f, v in zip(field_um, fine_um))
    return z, y, x


def padded_shape(block: Sequence[int], ratio: Sequence[float], half: Sequence[int]) -> Three:
    """Largest volume on the finer grid that a block of the image needs: with the reach of the PSF."""
    z, y, x = (math.ceil(b * r) + 1 + 2 * h for b, r, h in zip(block, ratio, half))
    return z, y, x
