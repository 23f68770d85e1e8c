"""Structural similarity in two and three dimensions, over scales, and of gradients.

Values are normalised to ``(v - low) / scale`` of the original first, so that the result does not depend on the camera's
offset; the data range is then 1. Windows are Gaussian, sigma 1.5, 11 samples wide, with mirrored borders, and every
sample counts. Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13 (2004) 600.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import ShapeError
from gigascope.metrics.image import Box, Voxels, boxes

F32 = NDArray[np.float32]

RADIUS = 5
# K1, K2 of the paper, data range 1
C1, C2 = 0.01**2, 0.03**2
_WINDOW = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()
# Wang, Simoncelli and Bovik, Asilomar 2003, table of the exponents of five scales
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Xue, Zhang, Mou and Bovik, IEEE TIP 23 (2014) 684: 170 for values up to 255
GMSD_CONSTANT = 170.0 / 255.0**2


def similarity(a: F32, b: F32) -> tuple[F32, F32]:
    """Luminance and contrast-structure terms of SSIM at every sample; their product is SSIM.

    Parameters
    ----------
    a, b : float32 of one shape, any number of axes, data range 1
    """
    mean_a, mean_b = _blur(a), _blur(b)
    # E[x^2] - E[x]^2 in float32 is off by 1e-7, against C2 = 9e-4
    var_a, var_b = _blur(a * a) - mean_a * mean_a, _blur(b * b) - mean_b * mean_b
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1)
    structure = (2 * covariance + C2) / (var_a + var_b + C2)
    return luminance.astype(np.float32, copy=False), structure.astype(np.float32, copy=False)


def ssim(
    reference: Voxels,
    test: Voxels,
    low: float,
    scale: float,
    regions: Mapping[str, Voxels | None] | None = None,
) -> dict[str, float]:
    """Mean of the three-dimensional SSIM over regions of two volumes, read box by box.

    Parameters
    ----------
    reference, test : (z, y, x), units of the file
    low, scale : minimum and range of the original
    regions : name to mask, none for all voxels; default {"whole": None}

    Returns
    -------
    mean by name of region, NaN for a region without voxels

    Raises
    ------
    ShapeError : the shapes differ
    """
    regions = {"whole": None} if regions is None else regions
    shape = tuple(reference.shape)
    if any(tuple(v.shape) != shape for v in (test, *regions.values()) if v is not None):
        raise ShapeError(f"volumes and masks of one comparison have one shape, {shape}")
    sums, counts = dict.fromkeys(regions, 0.0), dict.fromkeys(regions, 0)
    # a quarter of the usual box: eleven float32 arrays of it live at a time
    for box in boxes(shape, 2**22):
        wide, inner = _grown(box, shape)
        a, b = (_normalised(v[wide], low, scale) for v in (reference, test))
        luminance, structure = similarity(a, b)
        values = (luminance * structure)[inner]
        for name, region in regions.items():
            inside = values if region is None else values[np.asarray(region[box], bool)]
            sums[name] += float(inside.sum(dtype=np.float64))
            counts[name] += inside.size
    return {name: sums[name] / counts[name] if counts[name] else math.nan for name in regions}


def ssim_image(reference: NDArray[np.generic], test: NDArray[np.generic], low: float, scale: float) -> float:
    """Mean SSIM of two images (y, x)."""
    luminance, structure = similarity(_normalised(reference, low, scale), _normalised(test, low, scale))
    return float((luminance * structure).mean(dtype=np.float64))


def ms_ssim(reference: NDArray[np.generic], test: NDArray[np.generic], low: float, scale: float) -> float:
    """Multi-scale SSIM of two images (y, x): structure over up to five scales, luminance at the coarsest.

    An image shorter than the window at a scale ends there; the exponents of the scales used are rescaled to the sum 1.
    Negative structure counts as 0. NaN for an image with a side below the 11 samples of the window.
    """
    a, b = _normalised(reference, low, scale), _normalised(test, low, scale)
    side = min(a.shape)
    n_scales = sum(side >> i >= 2 * RADIUS + 1 for i in range(len(SCALE_WEIGHTS)))
    if n_scales == 0:
        return math.nan
    weights = np.array(SCALE_WEIGHTS[:n_scales]) / sum(SCALE_WEIGHTS[:n_scales])
    result = 1.0
    for i, weight in enumerate(weights):
        luminance, structure = similarity(a, b)
        term = luminance * structure if i == n_scales - 1 else structure
        result *= max(0.0, float(term.mean(dtype=np.float64))) ** float(weight)
        a, b = _halved(a), _halved(b)
    return result


def gmsd(reference: NDArray[np.generic], test: NDArray[np.generic], low: float, scale: float) -> float:
    """Gradient magnitude similarity deviation of two images (y, x): 0 is equal, larger is worse.

    NaN for an image with a side below 4. Xue et al., IEEE TIP 23 (2014) 684.
    """
    if min(reference.shape) < 4:
        return math.nan
    a, b = (_prewitt(_halved(_normalised(v, low, scale))) for v in (reference, test))
    return float(((2 * a * b + GMSD_CONSTANT) / (a * a + b * b + GMSD_CONSTANT)).std(dtype=np.float64))


def _prewitt(image: F32) -> F32:
    along_y, along_x = (ndimage.prewitt(image, axis=axis) / 3.0 for axis in (0, 1))
    return np.hypot(along_y, along_x)


def _halved(image: F32) -> F32:
    """Means of 2 x 2 samples; an odd last row or column is left out."""
    n_y, n_x = (n - n % 2 for n in image.shape)
    blocks: F32 = image[:n_y, :n_x].reshape(n_y // 2, 2, n_x // 2, 2).mean((1, 3))
    return blocks


def _blur(values: F32) -> F32:
    for axis in range(values.ndim):
        values = ndimage.correlate1d(values, _WINDOW, axis=axis, mode="reflect")
    return values


def _normalised(values: NDArray[np.generic], low: float, scale: float) -> F32:
    return ((np.asarray(values, np.float64) - low) / scale).astype(np.float32)


def _grown(box: Box, shape: tuple[int, ...]) -> tuple[Box, Box]:
    """The box with the window's radius around it inside the volume, and where the box lies in that one."""
    wide, inner = [], []
    for cut, n in zip(box, shape):
        start = max(0, cut.start - RADIUS)
        wide.append(slice(start, min(n, cut.stop + RADIUS)))
        inner.append(slice(cut.start - start, cut.stop - start))
    return (wide[0], wide[1], wide[2]), (inner[0], inner[1], inner[2])
