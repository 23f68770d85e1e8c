"""Distance of two distributions of intensities, as samples or as counts, and a score of it per slice and region.

The first Wasserstein distance in one dimension is the area between the two distribution functions (Villani, *Topics in
Optimal Transportation*, AMS 2003, 2.18), so that counts on a lattice of values give it exactly and in one pass.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gigascope.errors import ShapeError

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
# Values of a region map.
NEITHER, OUTER, INNER, FOREGROUND = 0, 1, 2, 3
REGIONS = {OUTER: "background outside", INNER: "background inside", FOREGROUND: "nuclei"}


def wasserstein(a: ArrayLike, b: ArrayLike) -> float:
    """W1 of two sets of samples of any number each; NaN where one is empty."""
    x, y = (np.sort(np.asarray(v, np.float64).ravel()) for v in (a, b))
    if not x.size or not y.size:
        return math.nan
    if x.size == y.size:
        return float(np.abs(x - y).mean())
    both = np.sort(np.concatenate([x, y]))
    below = [np.searchsorted(v, both[:-1], side="right") / v.size for v in (x, y)]
    return float((np.abs(below[0] - below[1]) * np.diff(both)).sum())


def counted_wasserstein(a: ArrayLike, b: ArrayLike, step: float = 1.0) -> F64:
    """W1 of counts on a lattice of values.

    Parameters
    ----------
    a, b : (..., values) counts or weights, not negative; leading axes broadcast
    step : from one value to the next

    Returns
    -------
    (...) in the unit of `step`; NaN where one of the two has no counts
    """
    x, y = (np.asarray(v, np.float64) for v in (a, b))
    if x.shape[-1] != y.shape[-1]:
        raise ShapeError(f"counts are of one lattice of values, got {x.shape[-1]} and {y.shape[-1]}")
    with np.errstate(invalid="ignore", divide="ignore"):
        below = [np.cumsum(v, axis=-1) / v.sum(axis=-1, keepdims=True) for v in (x, y)]
    return np.asarray(step * np.abs(below[0] - below[1])[..., :-1].sum(axis=-1))


def wasserstein_score(real: ArrayLike, synthetic: ArrayLike) -> float:
    """1 - W1 / W0, with W0 the distance of the real values from black, their mean.

    1 is identical, 0 as bad as a black image; it may be negative. NaN where a set is empty or the real one black. Bruch
    et al., PLOS ONE 18, e0283828 (2023).
    """
    values = np.asarray(real, np.float64)
    black = float(np.abs(values).mean()) if values.size else math.nan
    return 1.0 - wasserstein(values, synthetic) / black if black > 0 else math.nan


def region_map(foreground: Mask, closing: int = 15, erosion: int = 2) -> NDArray[np.uint8]:
    """Nuclei, background between them and background outside, as the reference system tells them apart.

    The foreground is closed by `closing` dilations and as many erosions with the 6-neighbour element, in a volume with
    one empty slice more than that before and behind; what that adds is the inner background, the rest the outer one,
    both eroded `erosion` times.

    Parameters
    ----------
    foreground : (z, y, x)

    Returns
    -------
    (z, y, x) of OUTER, INNER, FOREGROUND or NEITHER. A slab with a halo of 2 closing + erosion voxels that is cut off
    afterwards has the values of the whole.
    """
    pad = closing + 1
    wide = np.pad(foreground, ((pad, pad), (0, 0), (0, 0)))
    closed = _closed(wide, closing)[pad : pad + len(foreground)]
    cross = ndimage.generate_binary_structure(3, 1)
    outer, inner = ~closed, closed & ~foreground
    if erosion:
        outer, inner = (ndimage.binary_erosion(v, cross, erosion) for v in (outer, inner))
    found = np.zeros(foreground.shape, np.uint8)
    found[outer], found[inner], found[foreground] = OUTER, INNER, FOREGROUND
    return found


def slice_scores(
    real: NDArray, real_regions: NDArray[np.uint8], synthetic: NDArray, synthetic_regions: NDArray[np.uint8]
) -> F64:
    """:func:`wasserstein_score` of each region in each slice, of what the two volumes share from their first corner on.

    Returns
    -------
    (3, z) by outer, inner background and foreground; NaN where a region is empty in either
    """
    z, y, x = (min(n, m) for n, m in zip(real.shape, synthetic.shape))
    found = np.full((3, z), np.nan)
    for k in range(z):
        part = (k, slice(0, y), slice(0, x))
        for row, region in enumerate(REGIONS):
            ours = real[part][real_regions[part] == region]
            theirs = synthetic[part][synthetic_regions[part] == region]
            found[row, k] = wasserstein_score(ours, theirs)
    return found


def _closed(mask: Mask, steps: int) -> Mask:
    """`steps` dilations and erosions with the 6-neighbour element; beyond the volume is no foreground."""
    if not steps or not mask.any():
        return mask.copy()
    grown = ndimage.distance_transform_cdt(~mask, "taxicab") <= steps
    edged = np.pad(grown, 1)
    return np.asarray(ndimage.distance_transform_cdt(edged, "taxicab")[1:-1, 1:-1, 1:-1] > steps)
