"""A height map as a picture: shaded as if lit from the upper left, coloured by height or as the sample itself is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Where the light comes from: to the left of the top, halfway up, as maps have it. From below, hills look like hollows.
AZIMUTH_DEG, ALTITUDE_DEG = 315.0, 45.0
# Brightness of a slope that the light does not reach; a shadow that is black hides what lies in it.
AMBIENT = 0.25
# What no view has seen.
UNSEEN = 225
# viridis of matplotlib at 0, 1/8, ... 1: brightness rises evenly, so the shading stays readable.
HEIGHT_COLOURS = np.array(
    [
        (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
        (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
    ],
    np.float32,
)  # fmt: skip
# Share of the heights at each end that does not set the colours.
TAILS = 0.005


def shaded_relief(
    height_um: NDArray[np.floating],
    pixel_um: float,
    *,
    exaggeration: float = 1.0,
    colour: NDArray | None = None,
    height_range: tuple[float, float] | None = None,
) -> U8:
    """Shaded relief of a height map.

    Parameters
    ----------
    height_um : (r, c) heights, NaN where unseen
    pixel_um : distance of its pixels, micrometres; at a coarser level of a pyramid, that of the level
    exaggeration : heights are multiplied by it before they are lit
    colour : (r, c, 3) 0 to 1, the sample's colours; none: coloured by height
    height_range : heights of the first and the last colour; none: those of the map but for half a percent at each end

    Returns
    -------
    (r, c, 3) uint8, light grey where unseen

    Notes
    -----
    Lambert's law on the normals of central differences. Beside what is unseen the slope is taken as level, so that no
    hole gets a rim of its own.
    """
    height = np.asarray(height_um, dtype=np.float32)
    known = np.isfinite(height)
    light = _lambert(height, exaggeration / pixel_um)
    if colour is None:
        base = height_colours(height, height_range or height_limits(height))
    else:
        base = np.clip(np.nan_to_num(np.asarray(colour, dtype=np.float32)), 0.0, 1.0) * 255.0
    shaded = np.where(known[..., None], base * light[..., None], np.float32(UNSEEN))
    return np.rint(np.clip(shaded, 0.0, 255.0)).astype(np.uint8)


def height_colours(height: F32, limits: tuple[float, float]) -> F32:
    """(r, c, 3) float32, 0 to 255, colours of heights (r, c) from dark (low) to bright (high); those of NaN are low."""
    low, high = limits
    share = (np.nan_to_num(height, nan=low) - low) / max(high - low, 1e-30)
    place = np.clip(share, 0.0, 1.0) * (len(HEIGHT_COLOURS) - 1)
    stops = np.arange(len(HEIGHT_COLOURS))
    return np.stack([np.interp(place, stops, c) for c in HEIGHT_COLOURS.T], axis=-1).astype(np.float32)


def height_limits(height: NDArray[np.floating]) -> tuple[float, float]:
    """Lowest and highest height that set the colours; (0, 1) where nothing is known."""
    seen = height[np.isfinite(height)]
    if not seen.size:
        return 0.0, 1.0
    low, high = np.quantile(seen, [TAILS, 1.0 - TAILS])
    return float(low), float(high)


def _lambert(height: F32, scale: float) -> F32:
    """(r, c) brightness around 1, the one of level ground, from central differences of heights times `scale`."""
    north_south, west_east = (_slope(height, axis) * np.float32(scale) for axis in (0, 1))
    azimuth, altitude = math.radians(AZIMUTH_DEG), math.radians(ALTITUDE_DEG)
    # toward the light: x to the right, y down, z toward the viewer; azimuth clockwise from the top
    x, y, z = (
        math.sin(azimuth) * math.cos(altitude),
        -math.cos(azimuth) * math.cos(altitude),
        math.sin(altitude),
    )
    facing = (z - x * west_east - y * north_south) / np.sqrt(1.0 + west_east**2 + north_south**2)
    return (AMBIENT + (1.0 - AMBIENT) * np.clip(facing / z, 0.0, None)).astype(np.float32)


def _slope(height: F32, axis: int) -> F32:
    """Central differences along an axis, one-sided at the border, 0 where a neighbour is not known."""
    if height.shape[axis] < 2:
        return np.zeros_like(height)
    return np.nan_to_num(np.gradient(height, axis=axis)).astype(np.float32)
