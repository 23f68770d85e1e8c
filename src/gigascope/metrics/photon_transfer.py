"""Noise against brightness from the images themselves: photon-transfer curve, and what neighbouring noise shares.

Janesick, *Photon Transfer* (SPIE 2007). The noise of a voxel is taken from second differences in its plane, which
smooth structure leaves alone: Immerkaer, Fast noise variance estimation, CVIU 64, 300 (1996).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

F64 = NDArray[np.float64]
# [1, -2, 1] along y and along x; the sum of squares of its product is 36.
_SECOND = (1.0, -2.0, 1.0)
_GAIN = 36.0
# Values of a row with fewer voxels are not used.
LEAST = 200


def noise_residual(image: NDArray) -> F64:
    """(z, y, x) second differences along y and x: of white noise with variance v they have variance v."""
    found = np.asarray(image, np.float64)
    for axis in (1, 2):
        found = ndimage.correlate1d(found, _SECOND, axis=axis)
    return np.asarray(found / math.sqrt(_GAIN))


class PhotonTransfer:
    """Variance of the noise by local brightness, over any number of tiles.

    Parameters
    ----------
    low, high : brightness of the first and the last row
    rows : between them
    """

    def __init__(self, low: float, high: float, rows: int = 24) -> None:
        self.low, self.high = float(low), float(max(high, low + 1e-9))
        self._sums = np.zeros((4, rows))
        self._pairs = np.zeros((2, 2))

    def add(self, image: NDArray, inside: NDArray[np.bool_]) -> None:
        """Count a tile.

        Parameters
        ----------
        image, inside : (z, y, x); voxels that count, such as the insides of nuclei. The tile's borders do not count
        """
        residual = noise_residual(image)
        brightness = ndimage.uniform_filter(np.asarray(image, np.float64), (1, 5, 5))
        use = np.zeros(inside.shape, bool)
        use[:, 2:-2, 2:-2] = inside[:, 2:-2, 2:-2]
        rows = self._sums.shape[1]
        place = ((brightness - self.low) / (self.high - self.low) * rows).astype(np.int64)
        use &= (place >= 0) & (place < rows)
        for k, values in enumerate((np.ones(1), brightness[use], residual[use] ** 2, residual[use] ** 4)):
            self._sums[k] += np.bincount(place[use], np.broadcast_to(values, int(use.sum())), rows)
        # the filter reaches one voxel to each side, so white noise shares nothing three voxels on, nor between slices
        for k, (axis, lag) in enumerate(((0, 1), (2, 3))):
            first, second = [slice(None)] * 3, [slice(None)] * 3
            first[axis], second[axis] = slice(None, -lag), slice(lag, None)
            both = use[tuple(first)] & use[tuple(second)]
            one, other = residual[tuple(first)][both], residual[tuple(second)][both]
            self._pairs[k] += one @ other, 0.5 * (one @ one + other @ other)

    @property
    def curve(self) -> tuple[F64, F64, F64]:
        """Mean brightness, variance of the noise and its standard error, of each row with enough voxels."""
        n = self._sums[0]
        good = n >= LEAST
        mean, variance, fourth = (self._sums[k][good] / n[good] for k in (1, 2, 3))
        return mean, variance, np.sqrt(np.maximum(fourth - variance**2, 0.0) / n[good])

    def line(self) -> TransferLine:
        """Weighted least squares through the curve; see :class:`TransferLine`."""
        mean, variance, error = self.curve
        if mean.size < 2:
            return TransferLine(math.nan, math.nan)
        # texture adds to the variance of bright rows: all count by their relative, not their statistical error
        weight = 1.0 / np.maximum(error, 0.02 * np.maximum(variance, variance.max() * 1e-3))
        design = np.stack([mean, np.ones_like(mean)], axis=1) * weight[:, None]
        slope, at_zero = np.linalg.lstsq(design, variance * weight, rcond=None)[0]
        return TransferLine(float(slope), float(at_zero))

    @property
    def correlation(self) -> tuple[float, float]:
        """Of the noise of two voxels on top of each other, and of two that lie three apart in x; 0 for white noise."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found = self._pairs[:, 0] / self._pairs[:, 1]
        return float(found[0]), float(found[1])


@dataclass(frozen=True)
class TransferLine:
    """variance = slope brightness + at_zero.

    Attributes
    ----------
    slope : grey values per photo-electron, times the excess noise factor
    at_zero : variance at brightness 0
    """

    slope: float
    at_zero: float

    @property
    def offset(self) -> float:
        """Brightness without any noise of light; NaN where the slope is not positive."""
        return -self.at_zero / self.slope if self.slope > 0 else math.nan
