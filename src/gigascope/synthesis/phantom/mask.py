"""Regions from volumes: a mask becomes a grid of signed distances; an image of nuclei becomes a mask."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import UserError
from gigascope.synthesis.phantom.recipe import Triple
from gigascope.synthesis.phantom.region import DistanceGrid

# Cells of the grid along its longest axis, at most.
LARGEST_GRID = 256
OTSU_BINS = 512
# How far around the brightness of the spheroid is averaged, of the sigma of the Gaussian before the threshold.
LEVEL_REACH = 4.0
F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]


def distance_of_mask(mask: Mask, voxel_um: Triple, where: object = None) -> DistanceGrid:
    """Signed distance to the surface of a mask, negative inside, on a grid with equal spacing along all axes.

    Parameters
    ----------
    mask : (z, y, x) bool
    voxel_um : its voxel size, µm
    where : of the mask, for messages

    Raises
    ------
    UserError : the mask is empty
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        raise UserError("the mask is empty: no voxel is inside.", where=where, do="Check phantoms.region.mask.")
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(mask))
    # one voxel of outside all around; what touches the edge of the volume ends there
    mask = np.pad(mask[box], 2)
    size = np.array(voxel_um, np.float64)
    signed = np.where(mask, -_to_surface(mask, size), _to_surface(~mask, size)).astype(np.float32)
    extent = np.array(mask.shape) * size
    spacing = max(float(size.min()), float(extent.max()) / LARGEST_GRID)
    counts = np.ceil(extent / spacing).astype(int) + 1
    axes = [np.arange(n) * spacing / v for n, v in zip(counts, size)]
    values = np.empty(tuple(counts), np.float32)
    for z, at in enumerate(axes[0]):
        grid = np.meshgrid([at], axes[1], axes[2], indexing="ij")
        values[z] = ndimage.map_coordinates(signed, grid, order=1, mode="nearest")[0]
    return DistanceGrid(values, np.zeros(3), np.full(3, spacing))


def _to_surface(inside: Mask, size: NDArray[np.float64]) -> F32:
    """Way from the middle of each voxel inside to the nearest face of one outside."""
    away, nearest = ndimage.distance_transform_edt(inside, sampling=size, return_indices=True)
    places = np.ogrid[tuple(slice(n) for n in inside.shape)]
    steps = np.stack([np.abs(nearest[axis] - places[axis]) for axis in range(3)])
    # along the way to the middle of the outer voxel, the last half voxel lies beyond the face
    longest = np.maximum(steps.max(axis=0), 1)
    found: F32 = (away * (1.0 - 0.5 / longest)).astype(np.float32)
    return found


def mask_of_image(image: F32, voxel_um: Triple, smooth_um: float = 2.5, closing_um: float = 15.0) -> Mask:
    """Where the spheroid is in an image of its nuclei.

    Gaussian, Otsu's threshold of the logarithm, closing by a ball, largest component, holes filled. The threshold of
    the logarithm finds faint parts, but lies low on an edge that the Gaussian has blurred, at an eighth of its height:
    about 1.2 sigma too far out. So before the closing, what is darker than the middle between the background and the
    mean of what was found around it is taken away.

    Parameters
    ----------
    image : (z, y, x), any real values
    voxel_um : its voxel size, µm
    smooth_um : sigma of the Gaussian
    closing_um : radius of the ball

    Raises
    ------
    UserError : an image of one value
    """
    size = np.array(voxel_um, np.float64)
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float32), smooth_um / size, mode="nearest")
    low = float(np.percentile(smooth, 0.1))
    high = float(smooth.max())
    if not high > low:
        raise UserError(
            f"the image has one value, {low:g}, and shows no spheroid.", do="Check phantoms.region.mask.path."
        )
    # the darkest level is the camera's offset; a thousandth of the range keeps the logarithm away from it
    logarithm = np.log(np.clip(smooth - low, 0.0, None) + 1e-3 * (high - low))
    found = logarithm > otsu(logarithm)
    found &= _above_half(smooth, found, LEVEL_REACH * smooth_um / size)
    if closing_um > 0:
        found = _closed(found, size, closing_um)
    labels, n = ndimage.label(found)
    if n > 1:
        found = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(found))


def otsu(values: NDArray[np.floating]) -> float:
    """Threshold between two classes of values with the largest variance between them (Otsu, IEEE SMC 9:62, 1979)."""
    counts, edges = np.histogram(values, OTSU_BINS)
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    total = np.cumsum(counts * middle)
    mean_below = total[:-1] / np.maximum(below, 1)
    mean_above = (total[-1] - total[:-1]) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    # between two levels with nothing in between, every threshold is as good: the middle one
    return float(edges[1 + (int(best[0]) + int(best[-1])) // 2])


def _above_half(smooth: F32, inside: Mask, sigma: NDArray[np.float64]) -> Mask:
    """Voxels above the middle between the background and the mean brightness around them of what is inside."""
    if inside.all():
        return inside
    dark = np.float32(np.median(smooth[~inside]))
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma, mode="nearest")
    light = ndimage.gaussian_filter(np.where(inside, smooth - dark, np.float32(0)), sigma, mode="nearest")
    return np.asarray((smooth - dark) * weight > light / 2)


def _closed(mask: Mask, size: NDArray[np.float64], radius_um: float) -> Mask:
    pad = [math.ceil(radius_um / v) + 1 for v in size]
    padded = np.pad(mask, [(n, n) for n in pad])
    grown = ndimage.distance_transform_edt(~padded, sampling=size) <= radius_um
    shrunk = ndimage.distance_transform_edt(grown, sampling=size) > radius_um
    inner = tuple(slice(n, n + length) for n, length in zip(pad, mask.shape))
    return np.asarray(shrunk[inner] | mask)
