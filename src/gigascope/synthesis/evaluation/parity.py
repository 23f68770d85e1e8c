"""The measures of the reference system as published: slice against slice of images in the order of their lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.metrics.wasserstein import region_map, slice_scores
from gigascope.synthesis.evaluation.tiles import Measured

F64 = NDArray[np.float64]
SLAB = 16


@dataclass(frozen=True)
class ParityScores:
    """Of one set against the real images.

    Attributes
    ----------
    slices : (3, n) float64: 1 - W1 / W0 of outer and inner background and nuclei in every slice of every pair
    edges : mean absolute difference of the edge curves: of all offsets, and of the upper, middle and lower third
    """

    slices: F64
    edges: list[float]


def parity_scores(real: Measured, other: Measured, closing: int, erosion: int) -> F64:
    """(3, n) scores of every slice of every pair of images, slab by slab.

    Parameters
    ----------
    closing, erosion : steps of the regions, see :func:`gigascope.metrics.wasserstein.region_map`
    """
    found = []
    for n, (a, b) in enumerate(zip(real.images.volumes, other.images.volumes)):
        depth = min(a.shape[0], b.shape[0])
        for start in range(0, depth, SLAB):
            stop = min(start + SLAB, depth)
            slabs = [_slab(m, n, start, stop, 2 * closing + erosion, closing, erosion) for m in (real, other)]
            tops = [np.iinfo(image.dtype).max for image, _ in slabs]
            images = [image / top for (image, _), top in zip(slabs, tops)]
            found.append(slice_scores(images[0], slabs[0][1], images[1], slabs[1][1]))
    return np.concatenate(found, axis=1) if found else np.zeros((3, 0))


def _slab(
    measured: Measured, number: int, start: int, stop: int, halo: int, closing: int, erosion: int
) -> tuple[NDArray, NDArray[np.uint8]]:
    """Image and regions of some slices; regions from as many more as they depend on."""
    volume = measured.images.volumes[number]
    _, rows, cols = volume.whole()
    low, high = max(0, start - halo), min(volume.shape[0], stop + halo)
    region = (slice(low, high), rows, cols)
    image = volume.read(region)
    regions = region_map(measured.foreground(number, region, image), closing, erosion)
    inner = slice(start - low, stop - low)
    return image[inner], regions[inner]
