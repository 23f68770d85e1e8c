"""Volume, centroid and bounding box of every label, out of the voxels: sums of whole numbers, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# columns of a row: label, voxels, sums of the indices z, y, x, least and largest index of each axis
N_COLUMNS = 11
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
    place = np.nonzero(labels)
    if not len(place[0]):
        return np.zeros((0, N_COLUMNS), np.int64)
    value = labels[place].astype(np.int64)
    order = np.argsort(value, kind="stable")
    value = value[order]
    starts = np.flatnonzero(np.append(True, value[1:] != value[:-1]))
    columns = [value[starts], np.diff(np.append(starts, len(value)))]
    at = [p[order].astype(np.int64) + o for p, o in zip(place, origin)]
    columns += [np.add.reduceat(a, starts) for a in at]
    columns += [np.minimum.reduceat(a, starts) for a in at] + [np.maximum.reduceat(a, starts) for a in at]
    return np.stack(columns, axis=1)


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
