"""Nuclei out of a mask and a mark in each of them: a watershed of the distance to the mask's surface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import UserError
from gigascope.synthesis.domain.labels import TOUCHING


def divide_mask(
    mask: NDArray, centres: NDArray, voxel_um: tuple[float, float, float], where: Path
) -> tuple[NDArray[np.int32], list[str]]:
    """Divide a mask among marks.

    A mark is a connected group of voxels that are not 0; marks that touch each other count as one. What of the mask is
    not reached from a mark becomes an object of its own.

    Parameters
    ----------
    mask : (z, y, x), not 0 inside nuclei
    centres : (z, y, x), not 0 at marks
    voxel_um : (z, y, x), micrometres
    where : the file of the marks, for messages

    Returns
    -------
    (z, y, x) int32 ids from 1; and remarks

    Raises
    ------
    UserError : shapes differ, or no mark lies in the mask
    """
    from skimage.segmentation import watershed

    if mask.shape != centres.shape:
        what = f"has the shape {centres.shape}, the mask {mask.shape}."
        raise UserError(what, where=where, do="Export both from the same image.")
    inside = mask != 0
    marks, n_marks = ndimage.label(centres != 0, TOUCHING)
    seen = np.unique(marks[inside & (marks > 0)])
    if not seen.size:
        raise UserError("has no mark inside the mask.", where=where, do="Name the right files in labels and centres.")
    remarks = []
    if n_marks > seen.size:
        remarks.append(f"{n_marks - seen.size} of {n_marks} centres lie outside the mask and were left out.")
    depth = ndimage.distance_transform_edt(inside, sampling=voxel_um)
    seeds = np.where(inside, marks, 0)
    found = watershed(-depth, seeds, mask=inside, connectivity=TOUCHING).astype(np.int32)
    left, n_left = ndimage.label(inside & (found == 0), TOUCHING)
    if n_left:
        found[left > 0] = left[left > 0] + n_marks
        remarks.append(f"{n_left} pieces of the mask have no centre: each was taken for an object.")
    return found, remarks
