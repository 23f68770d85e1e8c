"""Bayer mosaics: which site has which colour, packed green, demosaicing, and whether a pattern can be right.

A pattern names the top left 2 x 2 block row by row: GBRG is green, blue over red, green. Green sites lie on the
diagonal (GBRG, GRBG) or off it (RGGB, BGGR). Bayer, US patent 3971065 (1976).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError

PATTERNS = ("GBRG", "GRBG", "RGGB", "BGGR")
# Side of the squares, in blocks of 2 x 2 pixels, over which sites are averaged to compare them.
_SQUARE = 8
# Sites must differ this much more than the others, and by this share of the light, to be of other colours.
_RATIO, _LEAST = 3.0, 0.02


def green_offset(pattern: str) -> int:
    """Column of the green site in even rows, 0 or 1; odd rows have the other.

    Raises
    ------
    ValueError : no pattern
    """
    if pattern not in PATTERNS:
        raise ValueError(f"{pattern!r} is no Bayer pattern; one of {', '.join(PATTERNS)} was expected")
    return 0 if pattern[0] == "G" else 1


def pack_green(mosaic: NDArray, pattern: str) -> NDArray:
    """Keep the green sites: half of the pixels.

    Parameters
    ----------
    mosaic : (..., rows, cols), rows and cols even
    pattern : see :data:`PATTERNS`

    Returns
    -------
    (..., rows, cols / 2) of the same dtype; entry (r, j) is the site (r, 2 j + (r + offset) mod 2), with the offset of
    :func:`green_offset`
    """
    _check_even(mosaic)
    first = green_offset(pattern)
    packed = np.empty((*mosaic.shape[:-1], mosaic.shape[-1] // 2), mosaic.dtype)
    packed[..., 0::2, :] = mosaic[..., 0::2, first::2]
    packed[..., 1::2, :] = mosaic[..., 1::2, 1 - first :: 2]
    return packed


def unpack_green(packed: NDArray, pattern: str, *, fill: bool = True) -> NDArray:
    """Put packed green back onto the full grid.

    Parameters
    ----------
    packed : (..., rows, cols / 2)
    fill : the other sites get the mean of their neighbours above, below, left and right (integers rounded half up);
        False: they stay 0

    Returns
    -------
    (..., rows, cols) of the same dtype
    """
    first = green_offset(pattern)
    full = np.zeros((*packed.shape[:-1], 2 * packed.shape[-1]), packed.dtype)
    full[..., 0::2, first::2] = packed[..., 0::2, :]
    full[..., 1::2, 1 - first :: 2] = packed[..., 1::2, :]
    if not fill:
        return full
    rows, cols = np.indices(full.shape[-2:], sparse=True)
    empty = (rows + cols) % 2 != first
    total, count = _cross(full.astype(np.float32)), _cross((~empty).astype(np.float32))
    mean = total / np.maximum(count, 1)
    filled = np.floor(mean + 0.5) if packed.dtype.kind in "iu" else mean
    full[..., empty] = filled.astype(packed.dtype)[..., empty]
    return full


def demosaic(mosaic: NDArray, pattern: str) -> NDArray[np.float32]:
    """Red, green and blue of every pixel by bilinear interpolation within each colour.

    Parameters
    ----------
    mosaic : (..., rows, cols), rows and cols even

    Returns
    -------
    (..., rows, cols, 3) float32; sites keep their own values, at borders the neighbours that are there count
    """
    _check_even(mosaic)
    if pattern not in PATTERNS:
        green_offset(pattern)
    values = mosaic.astype(np.float32)
    result = np.empty((*mosaic.shape, 3), np.float32)
    for channel, letter in enumerate("RGB"):
        mask = np.zeros(mosaic.shape[-2:], np.float32)
        for site in range(4):
            if pattern[site] == letter:
                mask[site // 2 :: 2, site % 2 :: 2] = 1
        result[..., channel] = _tent(values * mask) / _tent(mask)
        result[..., channel] = np.where(mask > 0, values, result[..., channel])
    return result


@dataclass(frozen=True)
class SiteDifferences:
    """How well the four sites of the 2 x 2 blocks of a mosaic agree, as shares of the light.

    Attributes
    ----------
    diagonal, across : median difference of the two sites on the diagonal, and of the other two
    between : median difference of the means of these pairs
    """

    diagonal: float
    across: float
    between: float

    def green_and_other(self, pattern: str) -> tuple[float, float]:
        """Difference of the two sites that a pattern calls green, and of the other two."""
        return (self.diagonal, self.across) if green_offset(pattern) == 0 else (self.across, self.diagonal)

    def contradict(self, pattern: str) -> bool:
        """The sites that it calls green cannot be of one colour, while the others agree."""
        green, other = self.green_and_other(pattern)
        return green > _LEAST and green > _RATIO * other

    @property
    def patterns(self) -> tuple[str, ...]:
        """Those that fit what can only be a mosaic; none where every pixel may be of one colour."""
        fitting = tuple(p for p in PATTERNS if any(self.contradict(q) for q in _opposite(p)))
        # red and blue may be equal, green is then brighter or darker than both
        alternates = self.between > _LEAST and self.between > _RATIO * max(self.diagonal, self.across)
        return fitting or (PATTERNS if alternates else ())


def _opposite(pattern: str) -> tuple[str, ...]:
    return tuple(p for p in PATTERNS if green_offset(p) != green_offset(pattern))


def site_differences(mosaic: NDArray) -> SiteDifferences:
    """Compare the four sites of all blocks of 2 x 2 pixels with each other.

    Two sites of one colour see the same light but for noise and edges, which means over squares of 16 pixels take out;
    red and blue do not, unless the picture is grey: then nothing can be said. Exchanged red and blue are not seen.

    Parameters
    ----------
    mosaic : (..., rows, cols)
    """
    side = 2 * _SQUARE
    rows, cols = mosaic.shape[-2] // side * side, mosaic.shape[-1] // side * side
    if not rows or not cols:
        return SiteDifferences(0.0, 0.0, 0.0)
    sites = mosaic[..., :rows, :cols].reshape(-1, rows // side, _SQUARE, 2, cols // side, _SQUARE, 2)
    means = sites.mean(axis=(2, 5), dtype=np.float64)
    a, b, c, d = (means[:, :, i, :, j] for i in (0, 1) for j in (0, 1))
    light = float(np.median(means)) or 1.0
    pairs = ((a, d), (b, c), ((a + d) / 2, (b + c) / 2))
    return SiteDifferences(*(float(np.median(np.abs(p - q))) / light for p, q in pairs))


def _check_even(mosaic: NDArray) -> None:
    if mosaic.ndim < 2 or mosaic.shape[-2] % 2 or mosaic.shape[-1] % 2:
        raise ShapeError(f"a mosaic has an even number of rows and columns, got {mosaic.shape}")


def _cross(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of the four neighbours, those beyond the border left out."""
    total = np.zeros_like(values)
    total[..., 1:, :] += values[..., :-1, :]
    total[..., :-1, :] += values[..., 1:, :]
    total[..., :, 1:] += values[..., :, :-1]
    total[..., :, :-1] += values[..., :, 1:]
    return total


def _tent(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum with the weights 1/4 1/2 1/4, 1/2 1 1/2, 1/4 1/2 1/4, what is beyond the border left out."""
    rows = values.copy()
    rows[..., 1:, :] += 0.5 * values[..., :-1, :]
    rows[..., :-1, :] += 0.5 * values[..., 1:, :]
    both = rows.copy()
    both[..., :, 1:] += 0.5 * rows[..., :, :-1]
    both[..., :, :-1] += 0.5 * rows[..., :, 1:]
    return both
