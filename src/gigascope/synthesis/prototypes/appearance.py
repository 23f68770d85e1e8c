"""How bright a labelled nucleus is, and what it looks like inside, in its own frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.kernels.cells.table import CROP, CROP_SPACING_UM
from gigascope.synthesis.prototypes.shape_fit import ShapeFit, Size3


def local_background(
    image: NDArray, mask: NDArray[np.bool_], free: NDArray[np.bool_], voxel_um: Size3, reach_um: float
) -> float | None:
    """Median of the unlabelled voxels within `reach_um` of a nucleus, or None where there is none.

    Parameters
    ----------
    image, mask, free : (z, y, x) of a crop around the nucleus; `free`: voxels without any label
    """
    distance = ndimage.distance_transform_edt(~mask, sampling=voxel_um)
    around = free & (distance <= reach_um)
    return float(np.median(image[around])) if around.any() else None


def texture_crop(signal: NDArray[np.float32], mask: NDArray[np.bool_], shape: ShapeFit, voxel_um: Size3) -> NDArray:
    """(48, 48, 48) float16: brightness over its mean inside, sampled at 0.25 µm in the body's frame.

    Outside of the nucleus (in its neighbours, for instance) stands the value of the nearest voxel inside, so that a
    shape that is varied later has nothing of the surroundings in it.

    Parameters
    ----------
    signal : (z, y, x) without background
    mask : (z, y, x), True inside
    """
    nearest = ndimage.distance_transform_edt(~mask, sampling=voxel_um, return_distances=False, return_indices=True)
    filled = signal[tuple(nearest)] / signal[mask].mean()
    steps = (np.arange(CROP) - (CROP - 1) / 2) * CROP_SPACING_UM
    body = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"))
    # x = centre + R^T body
    places = shape.centre[:, None, None, None] + np.tensordot(shape.frame.T, body, axes=1)
    index = places / np.asarray(voxel_um)[:, None, None, None] - 0.5
    found = ndimage.map_coordinates(filled.astype(np.float32), index, order=1, mode="nearest")
    limit = float(np.finfo(np.float16).max)
    return np.clip(found, 0, limit).astype(np.float16)
