"""Where a spheroid is, and how much of it lies above each place: on a coarse grid, for volumes of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.synthesis.evaluation.segmenting import otsu
from gigascope.synthesis.evaluation.volumes import Region, Volume, slabs

F32 = NDArray[np.float32]
# Finest edge of a cell, most cells of a grid.
FINEST_UM, MOST_CELLS = 2.0, 2**24
# A cell with this share of nuclei belongs to them.
SHARE = 0.25
# Blur before the threshold of an image without labels.
BLUR_UM = 2.5


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Spheroid and depth of one volume.

    Attributes
    ----------
    inside : (cells z, y, x) bool, cells of the spheroid
    depth_um : (cells z, y, x) float32, spheroid above the middle of a cell, along the optical axis
    factor : voxels of a cell along each axis
    shape : of the volume, voxels
    """

    inside: NDArray[np.bool_]
    depth_um: F32
    factor: tuple[int, int, int]
    shape: tuple[int, int, int]

    def of(self, region: Region) -> tuple[NDArray[np.bool_], F32]:
        """Inside and depth of the voxels of a region, those of their cells."""
        index = np.ix_(*(np.arange(r.start, r.stop) // f for r, f in zip(region, self.factor)))
        return self.inside[index], self.depth_um[index]

    def share(self, region: Region) -> float:
        """How much of a region is spheroid."""
        cells = tuple(slice(r.start // f, -(-r.stop // f)) for r, f in zip(region, self.factor))
        return float(self.inside[cells].mean())

    def column(self, rows: slice, cols: slice) -> tuple[int | None, int | None]:
        """First slice and last + 1 in which at least half of a window is spheroid; none: it never is."""
        _, fy, fx = self.factor
        cells = self.inside[:, rows.start // fy : -(-rows.stop // fy), cols.start // fx : -(-cols.stop // fx)]
        full = np.flatnonzero(cells.mean(axis=(1, 2)) >= 0.5)
        if not full.size:
            return None, None
        return int(full[0]) * self.factor[0], min(self.shape[0], (int(full[-1]) + 1) * self.factor[0])


def surroundings(volume: Volume, closing_um: float) -> Surroundings:
    """The spheroid of a volume.

    With labels: nuclei, closed by a ball. Without: what is brighter than Otsu's threshold of the blurred logarithm,
    closed, its largest part, without holes.

    Parameters
    ----------
    closing_um : radius of the ball; spaces between nuclei up to twice as wide belong to the spheroid
    """
    factor = _factor(volume)
    step = tuple(f * v for f, v in zip(factor, volume.voxel_um))
    if volume.labels is not None:
        solid = _coarse(volume, factor, labels=True) >= SHARE
    else:
        light = np.log(_coarse(volume, factor, labels=False) + 1.0)
        light = ndimage.gaussian_filter(light, [BLUR_UM / s for s in step])
        solid = light > otsu(light)
    inside = _closed(solid, step, closing_um)
    if volume.labels is None:
        inside = _largest(inside)
    above = np.cumsum(inside, axis=0, dtype=np.float32) - 0.5 * inside
    return Surroundings(inside, np.asarray(step[0] * above, np.float32), factor, volume.shape)


def _factor(volume: Volume) -> tuple[int, int, int]:
    edge = FINEST_UM
    while True:
        z, y, x = (max(1, round(edge / v)) for v in volume.voxel_um)
        if math.prod(-(-n // f) for n, f in zip(volume.shape, (z, y, x))) <= MOST_CELLS:
            return (z, y, x)
        edge *= 1.25


def _coarse(volume: Volume, factor: tuple[int, int, int], labels: bool) -> F32:
    """(cells) float32: share of nuclei, or mean of the image, of each cell."""
    fz, fy, fx = factor
    found = []
    for region in slabs(volume, fz * max(1, 16 // fz)):
        block: Any = volume.read_labels(region) > 0 if labels else volume.read(region)
        block = np.asarray(block, np.float32)
        sums, counts = (_sums(v, (fz, fy, fx)) for v in (block, np.ones_like(block)))
        found.append(sums / counts)
    return np.concatenate(found)


def _sums(block: F32, factor: tuple[int, int, int]) -> F32:
    for axis, f in enumerate(factor):
        block = np.add.reduceat(block, np.arange(0, block.shape[axis], f), axis=axis)
    return block


def _closed(mask: NDArray[np.bool_], step: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    if not mask.any() or radius <= 0:
        return mask
    pad = [math.ceil(radius / s) + 1 for s in step]
    wide = np.pad(mask, [(p, p) for p in pad])
    grown = ndimage.distance_transform_edt(~wide, sampling=step) <= radius
    shrunk = ndimage.distance_transform_edt(grown, sampling=step) > radius
    return np.asarray(shrunk[tuple(slice(p, -p) for p in pad)] | mask)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, n = ndimage.label(mask)
    if n == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()))
