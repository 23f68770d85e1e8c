"""Volume, centroid and bounding box of every label, out of the voxels: sums of whole numbers, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# columns of a row: label, voxels, sums of the indices z, y, x, least and largest index of each axis
N_COLUMNS = 11
# voxels that are looked at together
SLAB_VOXELS = 1 << 20
Rows = NDArray[np.int64]


def label_sums(labels: NDArray[np.integer], origin: tuple[int, int, int]) -> Rows:
    """Sums of one block.

    Parameters
    ----------
    labels : (z, y, x), 0 is background
    origin : index of the block's first voxel in the image

    Returns
    -------
    (label, 11) int64, ascending
    """
    step = max(1, SLAB_VOXELS // (labels.shape[1] * labels.shape[2]))
    slabs = range(0, labels.shape[0], step)
    rows = np.concatenate([_slab_sums(labels[z : z + step], (origin[0] + z, *origin[1:])) for z in slabs])
    order = np.argsort(rows[:, 0], kind="stable")
    return _reduced(rows[order])


def _slab_sums(labels: NDArray[np.integer], origin: tuple[int, ...]) -> Rows:
    place = np.nonzero(labels)
    value = labels[place].astype(np.int64)
    order = np.argsort(value, kind="stable")
    at = np.stack([p[order] + o for p, o in zip(place, origin)], axis=1)
    return _reduced(np.column_stack([value[order], np.ones(len(value), np.int64), at, at, at]))


def _reduced(rows: Rows) -> Rows:
    """One row for each label, of rows in the order of labels."""
    if not len(rows):
        return np.zeros((0, N_COLUMNS), np.int64)
    starts = np.flatnonzero(np.append(True, rows[1:, 0] != rows[:-1, 0]))
    sums = np.add.reduceat(rows[:, 1:5], starts)
    low, high = np.minimum.reduceat(rows[:, 5:8], starts), np.maximum.reduceat(rows[:, 8:11], starts)
    return np.column_stack([rows[starts, :1], sums, low, high])


def merged(parts: Iterable[Rows], n_labels: int) -> Rows:
    """Sums of the whole image.

    Parameters
    ----------
    parts : of every block
    n_labels : labels are 1 to this

    Returns
    -------
    (n_labels, 11) int64; a label without a voxel has the count 0
    """
    total = np.zeros((n_labels, N_COLUMNS), np.int64)
    total[:, 0] = np.arange(1, n_labels + 1)
    total[:, 5:8] = np.iinfo(np.int64).max
    total[:, 8:11] = -1
    for rows in parts:
        at = rows[:, 0] - 1
        total[at, 1:5] += rows[:, 1:5]
        total[at, 5:8] = np.minimum(total[at, 5:8], rows[:, 5:8])
        total[at, 8:11] = np.maximum(total[at, 8:11], rows[:, 8:11])
    return total


def label_table(
    rows: Rows, shape: tuple[int, int, int], voxel_um: tuple[float, float, float]
) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Columns that describe labels as the image shows them, and their units.

    Parameters
    ----------
    rows : of :func:`merged`
    shape : (z, y, x) of the image
    voxel_um : (z, y, x)

    Returns
    -------
    n_voxels, volume_um3, centroid_z, _y, _x, low_z, ... high_x (bounding box), touching_border; lengths are from the
    image's corner, and NaN for a label without a voxel
    """
    count = rows[:, 1]
    seen = count > 0
    volume = float(np.prod(voxel_um))
    columns: dict[str, NDArray] = {"n_voxels": count.astype(np.int64), "volume_um3": count * volume}
    units = {"volume_um3": "um^3"}
    border = np.zeros(len(rows), bool)
    for k, (axis, size) in enumerate(zip("zyx", voxel_um)):
        with np.errstate(invalid="ignore", divide="ignore"):
            centre = (rows[:, 2 + k] / count + 0.5) * size
        low, high = rows[:, 5 + k], rows[:, 8 + k]
        columns[f"centroid_{axis}"] = np.where(seen, centre, np.nan)
        columns[f"low_{axis}"] = np.where(seen, low.astype(np.float64) * size, np.nan)
        columns[f"high_{axis}"] = np.where(seen, (high + 1.0) * size, np.nan)
        border |= seen & ((low == 0) | (high == shape[k] - 1))
        units |= {f"centroid_{axis}": "um", f"low_{axis}": "um", f"high_{axis}": "um"}
    columns["touching_border"] = border
    return columns, units
