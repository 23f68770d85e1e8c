"""Two renderers of a block of a view: a fast one for data sets and a ray tracer that it is checked against.

Both take the point in focus of each pixel, X_f at the height z_f of the focal surface in slice k, and rays through the
pupil: X(z) = X_f + (V + A - X_f)(z - z_f) / o_f, V the foot of the view, A in a disc of radius NA o_f.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.kernels.parallel import inline_kernel, parallel_kernel
from gigascope.topography.instrument.heights import Window
from gigascope.topography.instrument.pyramid import blur_pyramid, n_levels
from gigascope.topography.instrument.world import World

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

RINGS = 4
# Half steps z <- (z + height(X(z))) / 2 of the chief ray.
FIXED_POINT_STEPS = 8
MARCH_STEPS, BISECTIONS = 24, 6


@dataclass(frozen=True)
class Rays:
    """Geometry of a block of a view.

    Attributes
    ----------
    flow : (rows, cols, 2) float64, mosaic (row, col) of the point in focus
    lift_um : (rows, cols) float64, stage lift at which height 0 is in focus
    stage_um : (n_z,) float64, stage lift of each slice; z_f = lift - stage
    foot : (row, col) of the mosaic below the pupil
    distance_um : o_f
    na, pixel_um, diffraction_px : see Optics
    """

    flow: F64
    lift_um: F64
    stage_um: F64
    foot: F64
    distance_um: float
    na: float
    pixel_um: float
    diffraction_px: float

    def defocus_um(self, world: World) -> float:
        """Largest distance of a surface point from a focal surface."""
        low, high = world.range_um
        return max(high - (self.lift_um.min() - self.stage_um.max()), (self.lift_um.max() - self.stage_um.min()) - low)

    def window(self, world: World, *, pupil: bool) -> Window:
        """The part of the mosaic that the rays meet: chief rays, or all rays of the pupil."""
        defocus = self.defocus_um(world) / self.distance_um
        reach = np.abs(self.flow - self.foot).max() * defocus
        if pupil:
            reach += self.na * self.distance_um / self.pixel_um * defocus
        low = np.floor(self.flow.min(axis=(0, 1)) - reach).astype(int) - 2
        high = np.ceil(self.flow.max(axis=(0, 1)) + reach).astype(int) + 3
        return Window(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))

    def kernel_arrays(self, window: Window) -> tuple[F32, F32, F32, F32]:
        """flow and foot relative to a window, lift and stage, all float32 (relative: 1e5 px would cost digits)."""
        origin = np.array([window.row, window.col])
        flow = np.ascontiguousarray((self.flow - origin).astype(np.float32))
        foot = (self.foot - origin).astype(np.float32)
        return flow, foot, self.lift_um.astype(np.float32), self.stage_um.astype(np.float32)


Renderer = Callable[[World, Rays, NDArray[np.int8]], F32]


def render_fast(world: World, rays: Rays, colours: NDArray[np.int8]) -> F32:
    """Chief rays only; defocus by reading an albedo that was blurred in advance.

    Parameters
    ----------
    colours : (rows, cols) int8, colour 0, 1 or 2 that each pixel sees

    Returns
    -------
    (n_z, rows, cols) float32, radiance

    Notes
    -----
    Blur std sqrt(diffraction^2 + (NA |d - o_f| / (2 p))^2) pixels: a disc of radius R has a standard deviation of R / 2
    along each axis. Occlusion of the pupil is not seen; at steps use :func:`render_reference`.
    """
    largest = math.hypot(rays.diffraction_px, rays.na * rays.defocus_um(world) / (2.0 * rays.pixel_um))
    window = rays.window(world, pupil=False)
    # blurs reach beyond the points that are looked at
    margin = math.ceil(3.0 * largest)
    grown = window.grown(margin)
    pyramid = blur_pyramid(world.albedo(grown), rays.diffraction_px, n_levels(rays.diffraction_px, largest))
    out = np.empty((len(rays.stage_um), *colours.shape), np.float32)
    flow, foot, lift, stage = rays.kernel_arrays(grown)
    _chief_rays(
        world.heights(grown),
        (pyramid.values, pyramid.start, pyramid.shape, pyramid.rate, np.float32(pyramid.variance)),
        (flow, foot, lift, stage),
        (np.float32(rays.distance_um), np.float32(0.5 * rays.na / rays.pixel_um)),
        colours,
        out,
        work=150.0 * out.size,
    )
    return out


def render_reference(world: World, rays: Rays, colours: NDArray[np.int8]) -> F32:
    """Mean over the pupil of the albedo where each ray first meets the surface; occlusion included.

    Parameters, returns: see :func:`render_fast`. Diffraction is a Gaussian over the image of each colour.
    61 rays a pixel: about 1000 times the work of :func:`render_fast`.
    """
    window = rays.window(world, pupil=True)
    albedo, heights = world.albedo(window), world.heights(window)
    low, high = world.range_um
    slope = rays.na + np.abs(rays.flow - rays.foot).max() * rays.pixel_um / rays.distance_um
    # a step sideways of at most one pixel, so that no pin slips between two steps
    steps = max(MARCH_STEPS, math.ceil((high - low) * slope / rays.pixel_um))
    pupil = pupil_samples() * (rays.na * rays.distance_um / rays.pixel_um)
    flow, foot, lift, stage = rays.kernel_arrays(window)
    found = sorted(set(np.unique(colours).tolist()))
    images = np.empty((len(found), len(stage), *colours.shape), np.float32)
    _all_rays(
        heights,
        albedo[found],
        (flow, foot, lift, stage),
        (np.float32(rays.distance_um), np.float32(low - 1.0), np.float32(high + 1.0), steps),
        pupil.astype(np.float32),
        images,
        work=1e5 * images.size,
    )
    out = np.empty(images.shape[1:], np.float32)
    for colour, stack in zip(found, images):
        sees = colours == colour
        for image, slice_ in zip(stack, out):
            slice_[sees] = ndimage.gaussian_filter(image, rays.diffraction_px, mode="nearest")[sees]
    return out


def visible_share(world: World, rays: Rays, *, shortcut: bool = True) -> F32:
    """Share (rows, cols) float32 of the pupil that sees each pixel's in-focus point past the rest of the surface.

    Parameters
    ----------
    shortcut : trace only rays of points near a slope that is steeper than the flattest ray; the result is the same
    """
    low, high = world.range_um
    window = rays.window(world, pupil=True)
    heights = world.heights(window)
    slope = rays.na + np.abs(rays.flow - rays.foot).max() * math.sqrt(2.0) * rays.pixel_um / rays.distance_um
    steps = max(MARCH_STEPS, math.ceil((high - low) * slope / rays.pixel_um))
    flow, foot, _, _ = rays.kernel_arrays(window)
    traced = np.ones(flow.shape[:2], np.bool_)
    if shortcut:
        traced = _near_slope(heights, rays.pixel_um / slope, (high - low) * slope / rays.pixel_um, flow)
    pupil = pupil_samples() * (rays.na * rays.distance_um / rays.pixel_um)
    out = np.empty(flow.shape[:2], np.float32)
    scalars = (np.float32(rays.distance_um), np.float32(high), steps)
    work = 61.0 * 10 * steps * float(np.count_nonzero(traced)) + out.size
    _unobstructed(heights, flow, foot, pupil.astype(np.float32), scalars, traced, out, work=work)
    return out / np.float32(len(pupil))


def _near_slope(heights: F32, least: float, reach: float, flow: F32) -> NDArray[np.bool_]:
    """Points (rows, cols) within `reach` of a slope of `least` um per pixel; elsewhere no ray can meet the surface."""
    rise = [np.abs(np.diff(heights, axis=axis, append=heights.take([-1], axis))) for axis in (0, 1)]
    # a cell's slope along an axis is that of its steeper side
    rise = [np.maximum(rise[0], np.roll(rise[0], -1, 1)), np.maximum(rise[1], np.roll(rise[1], -1, 0))]
    steep = np.hypot(*rise) >= least
    if not steep.any():
        return np.zeros(flow.shape[:2], np.bool_)
    near = ndimage.distance_transform_edt(~steep) <= reach + 2.0
    at = np.clip(np.rint(flow).astype(np.int64), 0, np.array(heights.shape) - 1)
    return np.ascontiguousarray(near[at[..., 0], at[..., 1]], dtype=np.bool_)


def pupil_samples(rings: int = RINGS) -> F64:
    """Points (1 + 3 n (n + 1), 2) of the unit disc, 6 k on ring k, each for the same area."""
    points = [(0.0, 0.0)]
    total = 1 + 3 * rings * (rings + 1)
    for ring in range(1, rings + 1):
        inner, outer = 1 + 3 * ring * (ring - 1), 1 + 3 * ring * (ring + 1)
        radius = math.sqrt(0.5 * (inner + outer) / total)
        for angle in (np.arange(6 * ring) + 0.5 * (ring % 2)) * (math.pi / (3 * ring)):
            points.append((radius * math.sin(angle), radius * math.cos(angle)))
    return np.array(points)


@inline_kernel
def _read(values, y, x):  # type: ignore[no-untyped-def]
    """Bilinear value; the border is repeated."""
    n_rows, n_cols = values.shape
    y = min(max(y, np.float32(0.0)), np.float32(n_rows - 1.001))
    x = min(max(x, np.float32(0.0)), np.float32(n_cols - 1.001))
    i, j = np.int64(y), np.int64(x)
    a, b = y - np.float32(i), x - np.float32(j)
    upper = values[i, j] + b * (values[i, j + 1] - values[i, j])
    lower = values[i + 1, j] + b * (values[i + 1, j + 1] - values[i + 1, j])
    return upper + a * (lower - upper)


@inline_kernel
def _read_level(values, start, n_rows, n_cols, y, x):  # type: ignore[no-untyped-def]
    """Bilinear value of one plane of a pyramid."""
    y = min(max(y, np.float32(0.0)), np.float32(n_rows - 1.001))
    x = min(max(x, np.float32(0.0)), np.float32(n_cols - 1.001))
    i, j = np.int64(y), np.int64(x)
    a, b = y - np.float32(i), x - np.float32(j)
    at = start + i * n_cols + j
    upper = values[at] + b * (values[at + 1] - values[at])
    lower = values[at + n_cols] + b * (values[at + n_cols + 1] - values[at + n_cols])
    return upper + a * (lower - upper)


@inline_kernel
def _read_pyramid(pyramid, colour, y, x, variance):  # type: ignore[no-untyped-def]
    """Albedo of one colour with a given blur variance, px^2."""
    values, start, shape, rate, first = pyramid
    # variances double from level to level; elements, not rows, of `shape`: a row is a view that threads would count
    level, low = 0, first
    while level < len(start) - 2 and variance >= low + low:
        low += low
        level += 1
    share = min((variance - low) / low, np.float32(1.0))
    n_rows, n_cols = shape[level, 0], shape[level, 1]
    at = start[level] + colour * n_rows * n_cols
    fine = _read_level(values, at, n_rows, n_cols, y * rate[level], x * rate[level])
    n_rows, n_cols = shape[level + 1, 0], shape[level + 1, 1]
    at = start[level + 1] + colour * n_rows * n_cols
    coarse = _read_level(values, at, n_rows, n_cols, y * rate[level + 1], x * rate[level + 1])
    return fine + share * (coarse - fine)


@parallel_kernel
def _chief_rays(heights, pyramid, rays, scalars, colours, out):  # type: ignore[no-untyped-def]
    flow, foot, lift, stage = rays
    distance, blur = scalars
    n_z, n_rows, n_cols = out.shape
    half, per_distance = np.float32(0.5), np.float32(1.0) / distance
    for job in numba.prange(n_z * n_rows):
        k = job // n_rows
        r = job - k * n_rows
        for c in range(n_cols):
            y, x = flow[r, c, 0], flow[r, c, 1]
            to_y, to_x = (foot[0] - y) * per_distance, (foot[1] - x) * per_distance
            focus = lift[r, c] - stage[k]
            z = _read(heights, y, x)
            for _ in range(FIXED_POINT_STEPS):
                z += half * (_read(heights, y + to_y * (z - focus), x + to_x * (z - focus)) - z)
            radius = blur * (focus - z)
            variance = pyramid[4] + radius * radius
            out[k, r, c] = _read_pyramid(
                pyramid, np.int64(colours[r, c]), y + to_y * (z - focus), x + to_x * (z - focus), variance
            )


@inline_kernel
def _first_hit(heights, y, x, to_y, to_x, focus, low, high, steps):  # type: ignore[no-untyped-def]
    """Height at which a ray from above first meets the surface."""
    step = (high - low) / np.float32(steps)
    above, below = high, low
    for n in range(1, steps + 1):
        z = high - step * np.float32(n)
        if _read(heights, y + to_y * (z - focus), x + to_x * (z - focus)) >= z:
            below = z
            break
        above = z
    for _ in range(BISECTIONS):
        z = np.float32(0.5) * (above + below)
        if _read(heights, y + to_y * (z - focus), x + to_x * (z - focus)) >= z:
            below = z
        else:
            above = z
    return np.float32(0.5) * (above + below)


@parallel_kernel
def _all_rays(heights, albedo, rays, scalars, pupil, out):  # type: ignore[no-untyped-def]
    flow, foot, lift, stage = rays
    distance, low, high, steps = scalars
    n_colours, n_z, n_rows, n_cols = out.shape
    per_distance = np.float32(1.0) / distance
    share = np.float32(1.0) / np.float32(len(pupil))
    for job in numba.prange(n_z * n_rows):
        k = job // n_rows
        r = job - k * n_rows
        for c in range(n_cols):
            y, x = flow[r, c, 0], flow[r, c, 1]
            focus = lift[r, c] - stage[k]
            out[:, k, r, c] = 0.0
            for p in range(len(pupil)):
                to_y = (foot[0] + pupil[p, 0] - y) * per_distance
                to_x = (foot[1] + pupil[p, 1] - x) * per_distance
                z = _first_hit(heights, y, x, to_y, to_x, focus, low, high, steps)
                for n in range(n_colours):
                    out[n, k, r, c] += share * _read(albedo[n], y + to_y * (z - focus), x + to_x * (z - focus))


@parallel_kernel
def _unobstructed(heights, flow, foot, pupil, scalars, traced, out):  # type: ignore[no-untyped-def]
    distance, high, steps = scalars
    n_rows, n_cols = out.shape
    per_distance = np.float32(1.0) / distance
    for r in numba.prange(n_rows):
        for c in range(n_cols):
            if not traced[r, c]:
                out[r, c] = np.float32(len(pupil))
                continue
            y, x = flow[r, c, 0], flow[r, c, 1]
            surface = _read(heights, y, x)
            step = (high - surface) / np.float32(steps)
            seen = 0
            for p in range(len(pupil)):
                to_y = (foot[0] + pupil[p, 0] - y) * per_distance
                to_x = (foot[1] + pupil[p, 1] - x) * per_distance
                free = 1
                for n in range(1, steps + 1):
                    rise = step * np.float32(n)
                    # the surface's own slope within a pixel is no obstacle: half a micrometre of grace
                    if _read(heights, y + to_y * rise, x + to_x * rise) > surface + rise + np.float32(0.5):
                        free = 0
                        break
                seen += free
            out[r, c] = np.float32(seen)
