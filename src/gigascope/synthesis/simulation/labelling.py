"""Further products of the labels of a region of the image: boundary, distance to the centre, and size after blur."""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

Labels = NDArray[np.integer]
F32 = NDArray[np.float32]


def boundary(labels: Labels) -> NDArray[np.uint8]:
    """1 where a nucleus has a face in common with another label.

    Parameters
    ----------
    labels : (z, y, x) with a margin of one voxel on all sides

    Returns
    -------
    (z - 2, y - 2, x - 2) uint8
    """
    inner = labels[1:-1, 1:-1, 1:-1]
    meets = np.zeros(inner.shape, bool)
    for axis in range(3):
        for shift in (0, 2):
            around = [slice(1, -1)] * 3
            around[axis] = slice(shift, shift + inner.shape[axis])
            meets |= labels[tuple(around)] != inner
    return (meets & (inner != 0)).astype(np.uint8)


def centre_distance(
    labels: Labels, origin: tuple[int, int, int], voxel_um: tuple[float, float, float], centre_um: NDArray[np.float64],
    volume_um3: NDArray[np.float64],
) -> F32:  # fmt: skip
    """1 at the centre of a nucleus, falling to 0 at the radius of the sphere of its volume, 0 outside.

    Parameters
    ----------
    labels : (z, y, x), rows of the table + 1
    origin : (z, y, x) global index of the first voxel
    voxel_um : (z, y, x)
    centre_um : (n, 3)
    volume_um3 : (n,)

    Returns
    -------
    (z, y, x) float32
    """
    found = np.zeros(labels.shape, np.float32)
    place = np.nonzero(labels)
    row = labels[place].astype(np.int64) - 1
    squares = np.zeros(len(row))
    for axis in range(3):
        at = (place[axis] + origin[axis] + 0.5) * voxel_um[axis]
        squares += (at - centre_um[row, axis]) ** 2
    radius = np.cbrt(np.asarray(volume_um3) * 3 / (4 * np.pi))[row]
    found[place] = np.maximum(0, 1 - np.sqrt(squares) / radius)
    return found


def blurred(labels: Labels, psf: F32, threshold: float) -> NDArray[np.uint32]:
    """Nuclei as large as they look: each one's mask is blurred, and a voxel is of the one with the largest value.

    Parameters
    ----------
    labels : (z, y, x) with a margin of the PSF's half size on all sides
    psf : (z, y, x) float32 of odd sizes, sum 1, on the voxels of the labels
    threshold : least value

    Returns
    -------
    labels without the margin; ties go to the smaller label

    Notes
    -----
    Bruch et al. (2023) do the same on the finer grid; conflicts go to the larger value.
    """
    half = [n // 2 for n in psf.shape]
    inner = [n - 2 * h for n, h in zip(labels.shape, half)]
    best, found = np.full(inner, np.float32(threshold)), np.zeros(inner, np.uint32)
    for value, box in _boxes(labels):
        # the box in the margin's frame is where its light reaches in the inner one, from -2 half on
        low = [s.start - 2 * h for s, h in zip(box, half)]
        mask = (labels[box] == value).astype(np.float32)
        full = [n + 2 * h for n, h in zip(mask.shape, half)]
        sizes = [scipy.fft.next_fast_len(n, real=True) for n in full]
        product = scipy.fft.rfftn(mask, sizes) * scipy.fft.rfftn(psf, sizes)
        light = scipy.fft.irfftn(product, sizes)[tuple(slice(0, n) for n in full)]
        # where numbers this near are equal, the smaller label stays: transforms differ in their last digits
        light = np.round(light, 5).astype(np.float32)
        target = tuple(slice(max(a, 0), min(a + n, m)) for a, n, m in zip(low, full, inner))
        source = tuple(slice(t.start - a, t.stop - a) for t, a in zip(target, low))
        if any(t.stop <= t.start for t in target):
            continue
        more = light[source] > best[target]
        best[target] = np.where(more, light[source], best[target])
        found[target] = np.where(more, np.uint32(value), found[target])
    return found


def _boxes(labels: Labels) -> list[tuple[int, tuple[slice, ...]]]:
    """Bounding box of every label, in their order."""
    present = np.unique(labels)
    present = present[present > 0]
    if not len(present):
        return []
    compact = np.searchsorted(present, labels).astype(np.int32) + 1
    compact[labels == 0] = 0
    found = scipy.ndimage.find_objects(compact)
    return [(int(value), box) for value, box in zip(present, found, strict=True) if box is not None]
