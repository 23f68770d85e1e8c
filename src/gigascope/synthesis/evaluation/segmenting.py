"""A classical segmenter of nuclei: a threshold for every slice, then a watershed of the distance to the background.

It learns nothing, so that it is the same for all kinds of images: what it finds depends on the images alone. Otsu, IEEE
Trans. SMC 9, 62 (1979); Vincent and Soille, IEEE PAMI 13, 583 (1991).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.synthesis.evaluation.volumes import Region, Volume

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
# Of an expected nucleus' diameter: blur before the threshold, of the distance, and how near two centres may lie.
BLUR, SMOOTH, APART = 0.06, 0.06, 0.4
# Of an expected nucleus' volume: smaller pieces are specks.
LEAST = 0.05
# The two classes of a slice differ by this many standard deviations of the darker one, or the slice is empty: the
# halves of pure noise differ by 2.6.
CONTRAST = 4.0
BINS = 512


@dataclass(frozen=True)
class Classical:
    """The segmenter.

    Parameters
    ----------
    nucleus_um : expected diameter
    apart : least distance of two centres, of it
    """

    nucleus_um: float = 9.5
    apart: float = APART

    def blurred(self, image: NDArray, voxel_um: tuple[float, float, float]) -> F64:
        """Slices as they are compared with thresholds."""
        found = np.asarray(image, np.float64)
        for axis in (1, 2):
            found = ndimage.gaussian_filter1d(found, BLUR * self.nucleus_um / voxel_um[axis], axis=axis)
        return found

    def thresholds(self, volume: Volume, region: Region | None = None) -> F64:
        """(z,) threshold of each slice of a region; infinite where a slice shows nothing."""
        _, rows, cols = region or volume.whole()
        found = [
            otsu(self.blurred(volume.read((slice(z, z + 1), rows, cols)), volume.voxel_um))
            for z in range(volume.shape[0])
        ]
        return np.array(found)

    def foreground(self, image: NDArray, voxel_um: tuple[float, float, float], thresholds: F64) -> NDArray[np.bool_]:
        """(z, y, x) where an image is above the thresholds of its slices."""
        return np.asarray(self.blurred(image, voxel_um) > thresholds[:, None, None])

    def labels(self, image: NDArray, voxel_um: tuple[float, float, float], thresholds: F64) -> I32:
        """(z, y, x) label image, 0 is background."""
        mask = self.foreground(image, voxel_um, thresholds)
        return split(ndimage.binary_fill_holes(mask), voxel_um, self.nucleus_um, self.apart)

    def __call__(self, volume: Volume, region: Region) -> I32:
        """Labels of a region of a volume, by the thresholds of its own slices."""
        thresholds = self.thresholds(volume, region)[region[0]]
        return self.labels(volume.read(region), volume.voxel_um, thresholds)


def otsu(values: NDArray, contrast: float = CONTRAST) -> float:
    """Threshold that parts values into the two classes farthest apart; infinite if they do not stand apart.

    Parameters
    ----------
    contrast : standard deviations of the darker class between the means of two that stand apart
    """
    flat = np.asarray(values, np.float64).ravel()
    low, high = float(flat.min()), float(flat.max())
    if not high > low:
        return math.inf
    counts, edges = np.histogram(flat, BINS, (low, high))
    middles = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts).astype(np.float64)
    sums = np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        dark, bright = sums / below, (sums[-1] - sums) / above
        between = np.nan_to_num(below * above * (bright - dark) ** 2)
    # Otsu's measure is flat where no values are: the middle of the best
    best = np.flatnonzero(between == between.max())
    at = int(best[best.size // 2])
    spread = math.sqrt(max(0.0, float(counts[: at + 1] @ (middles[: at + 1] - dark[at]) ** 2 / below[at])))
    width = (high - low) / BINS
    if float(bright[at] - dark[at]) < contrast * max(spread, 0.3 * width):
        return math.inf
    return float(edges[at + 1])


def split(
    mask: NDArray[np.bool_], voxel_um: tuple[float, float, float], nucleus_um: float, apart: float = APART
) -> I32:
    """Touching nuclei of a mask apart: one for each place farthest from the background.

    Parameters
    ----------
    mask : (z, y, x)
    voxel_um : edges (z, y, x)
    nucleus_um : expected diameter
    apart : least distance of two centres, of it

    Returns
    -------
    (z, y, x) int32 labels, specks left out
    """
    from skimage.segmentation import watershed

    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    distance = ndimage.distance_transform_edt(mask, sampling=voxel_um)
    distance = ndimage.gaussian_filter(distance, [SMOOTH * nucleus_um / v for v in voxel_um])
    found = watershed(-distance, peaks(distance, mask, voxel_um, apart * nucleus_um), mask=mask)
    return without_specks(found.astype(np.int32), LEAST * math.pi / 6 * nucleus_um**3 / math.prod(voxel_um))


def peaks(height: NDArray, mask: NDArray[np.bool_], voxel_um: Iterable[float], apart_um: float) -> I32:
    """(z, y, x) int32: a number at every place that is highest within `apart_um` around it; plateaus are one."""
    reach = [max(1, round(apart_um / v)) for v in voxel_um]
    ball = np.sqrt(sum((g / r) ** 2 for g, r in zip(np.ogrid[tuple(slice(-r, r + 1) for r in reach)], reach))) <= 1
    top = (height == ndimage.maximum_filter(height, footprint=ball)) & mask
    found, _ = ndimage.label(top, np.ones((3, 3, 3)))
    return np.asarray(found, np.int32)


def without_specks(labels: I32, least: float) -> I32:
    """Labels of at least so many voxels, numbered anew."""
    sizes = np.bincount(labels.ravel())
    keep = sizes >= least
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0).astype(np.int32)[labels]
