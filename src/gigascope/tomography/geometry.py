"""Geometry of a tilt series: shapes of frame and volume, raw and aligned coordinates, and the gauge of the shifts.

Conventions: array index (n - 1) / 2 is coordinate 0 on every axis; s = x cos t + z sin t; the tilt axis angle phi runs
from image up, counter-clockwise, as in IMOD; a raw coordinate r and an aligned one a obey a = R(-phi) r - f.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError

F64 = NDArray[np.float64]

MAX_TILT_FOR_WIDTH = math.radians(75.0)
OBJECT_WIDTH = 1.25
# Below these a level holds too little to align by.
MIN_FIELD = 32
MIN_PLANES = 12


def rotation(angle: float) -> F64:
    """R(a) = [[cos a, -sin a], [sin a, cos a]] on (x right, y up)."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def frame_shape(raw_shape: tuple[int, int], tilt_axis: float, largest_bin: int = 1) -> tuple[int, int]:
    """(n_s, n_y) of the rotated frame for raw images of shape (height, width), multiples of `largest_bin`.

    The axes are swapped when the tilt axis lies nearer to the image's horizontal (|sin phi| > 0.707).
    """
    height, width = raw_shape
    n_s, n_y = (height, width) if abs(math.sin(tilt_axis)) > math.sqrt(0.5) else (width, height)
    return n_s // largest_bin * largest_bin, n_y // largest_bin * largest_bin


def linear_maps(linear: ArrayLike) -> F64:
    """m R(a) on (s, y) for each row (a, m - 1) of rotation in radians and magnification less 1; (n, 2, 2)."""
    angle, further = np.asarray(linear, dtype=np.float64).reshape(-1, 2).T
    c, s = np.cos(angle), np.sin(angle)
    return (1 + further)[:, None, None] * np.stack([np.stack([c, -s], axis=1), np.stack([s, c], axis=1)], axis=1)


def raw_from_aligned(
    shifts: ArrayLike,
    tilt_axis: float,
    raw_shape: tuple[int, int],
    frame: tuple[int, int],
    linear: ArrayLike | None = None,
) -> F64:
    """Index matrices from the aligned frame into raw images, for one resampling of rotation and shift together.

    Parameters
    ----------
    shifts : (tilt, 2) pixels, (f_s, f_y) in the rotated frame; zeros give the rotated, unaligned frame
    tilt_axis : phi, radians
    raw_shape : (height, width) of the raw images, rows y up
    frame : (n_s, n_y) of the aligned frame at the raw pixel size
    linear : (tilt, 2) rotation (radians) and magnification less 1 of each view's content; none: 0

    Returns
    -------
    (tilt, 2, 3) float64: raw (row, column) = M[:, :2] @ (i_s, i_y) + M[:, 2]
    """
    shifts = np.asarray(shifts, dtype=np.float64).reshape(-1, 2)
    turn = rotation(tilt_axis)[::-1]  # (row, column) is (y, x)
    centre_raw = (np.asarray(raw_shape, dtype=np.float64) - 1) / 2
    centre = (np.asarray(frame, dtype=np.float64) - 1) / 2
    matrices = np.empty((len(shifts), 2, 3))
    maps = linear_maps(np.zeros_like(shifts) if linear is None else linear)
    matrices[:, :, :2] = turn @ maps
    matrices[:, :, 2] = (shifts - maps @ centre) @ turn.T + centre_raw
    return matrices


def raw_translation(shifts: ArrayLike, tilt_axis: float) -> F64:
    """T = R(phi) f, (tilt, 2) in raw (x, y): the translation of AreTomo's tables."""
    return np.asarray(shifts, dtype=np.float64) @ rotation(tilt_axis).T


def aligned_shifts(translation: ArrayLike, tilt_axis: float) -> F64:
    """f = R(-phi) T, the inverse of :func:`raw_translation`."""
    return np.asarray(translation, dtype=np.float64) @ rotation(tilt_axis)


def volume_thickness(thickness_nm: float, pixel_nm: float, hz: float = 1.0, largest_bin: int = 1) -> int:
    """Number of planes for a thickness in nm, rounded up to a multiple of the largest bin."""
    planes = math.ceil(thickness_nm / (hz * pixel_nm) - 1e-9)
    return max(1, math.ceil(planes / largest_bin)) * largest_bin


def volume_width(n_s: int, n_z: int, tilt: ArrayLike, extent: str, hz: float = 1.0, largest_bin: int = 1) -> int:
    """Width W of the volume across the tilt axis, in voxels.

    `section`: every ray inside the slab stays inside the volume up to 75 degrees; `object`: 1.25 n_s; `crop`: n_s.
    Even, and a multiple of the largest bin, so that binned levels keep the centre.

    Raises
    ------
    ValueError : unknown extent
    """
    t_max = min(float(np.max(np.abs(tilt))), MAX_TILT_FOR_WIDTH)
    widths = {
        "section": n_s / math.cos(t_max) + n_z * hz * math.tan(t_max),
        "object": OBJECT_WIDTH * n_s,
        "crop": float(n_s),
    }
    if extent not in widths:
        raise ValueError(f"extent is {extent!r}, expected section, object or crop")
    step = math.lcm(2, largest_bin) if extent != "crop" else largest_bin
    return math.ceil(widths[extent] / step - 1e-9) * step


def gauge_basis(tilt: ArrayLike) -> F64:
    """C = [cos t, sin t], (tilt, 2): the shifts along s that a translation of the specimen along x and z causes."""
    tilt = np.asarray(tilt, dtype=np.float64)
    return np.stack([np.cos(tilt), np.sin(tilt)], axis=1)


def remove_gauge(increment: ArrayLike, tilt: ArrayLike, use: ArrayLike | None = None) -> F64:
    """Take a translation of the specimen out of an increment of the shifts.

    Parameters
    ----------
    increment : (tilt, 2) pixels
    tilt : (tilt,) radians
    use : (tilt,) bool, views that determine the translation; it is removed from all

    Returns
    -------
    (tilt, 2) float64, orthogonal (over the used views) to cos t and sin t along s, and of mean 0 along y
    """
    increment = np.asarray(increment, dtype=np.float64)
    return increment - gauge_shifts(gauge_of(increment, tilt, use), tilt)


def gauge_of(shifts: ArrayLike, tilt: ArrayLike, use: ArrayLike | None = None) -> F64:
    """Translation (x, y, z) in pixels that fits `shifts` best in least squares over the used views; (3,) float64."""
    shifts = np.asarray(shifts, dtype=np.float64)
    basis = gauge_basis(tilt)
    if shifts.shape != basis.shape:
        raise ShapeError(f"shifts has shape {shifts.shape}, expected {basis.shape}: one (f_s, f_y) per tilt angle")
    keep = np.ones(len(basis), dtype=bool) if use is None else np.asarray(use, dtype=bool)
    x, z = np.linalg.lstsq(basis[keep], shifts[keep, 0], rcond=None)[0]
    return np.array([x, shifts[keep, 1].mean(), z])


def gauge_shifts(translation: ArrayLike, tilt: ArrayLike) -> F64:
    """Shifts (tilt, 2) in pixels caused by a translation (x, y, z) of the specimen."""
    x, y, z = np.asarray(translation, dtype=np.float64)
    basis = gauge_basis(tilt)
    return np.stack([basis @ np.array([x, z]), np.full(len(basis), y)], axis=1)


def alignment_errors(found: ArrayLike, true: ArrayLike, tilt: ArrayLike, use: ArrayLike | None = None) -> F64:
    """Length of the 2-D error of every view after the gauge is removed, (tilt,) float64 in pixels."""
    difference = np.asarray(found, dtype=np.float64) - np.asarray(true, dtype=np.float64)
    return np.linalg.norm(remove_gauge(difference, tilt, use), axis=1)


def rms_error(found: ArrayLike, true: ArrayLike, tilt: ArrayLike, use: ArrayLike | None = None) -> float:
    """RMS over the used views of :func:`alignment_errors`, pixels."""
    errors = alignment_errors(found, true, tilt, use)
    if use is not None:
        errors = errors[np.asarray(use, dtype=bool)]
    return float(np.sqrt(np.mean(errors**2)))


def centring_shift(volume_profile: ArrayLike, hz: float = 1.0) -> float:
    """Offset along z (voxels of x) of the centre of a variance profile over z from the volume's centre.

    `gauge_shifts((0, 0, -offset), tilt)` added to the shifts brings it to 0. `volume_profile` is (z,), not negative.
    """
    profile = np.asarray(volume_profile, dtype=np.float64)
    profile = profile - profile.min()
    if profile.sum() == 0:
        return 0.0
    z = (np.arange(len(profile)) - (len(profile) - 1) / 2) * hz
    return float((profile * z).sum() / profile.sum())


def level_shape(shape: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """Shape after block-mean binning; every axis must be a multiple of `factor`, or the centre would move.

    Raises
    ------
    ShapeError : an axis is not a multiple of the bin
    """
    if any(n % factor for n in shape):
        raise ShapeError(f"shape {shape} is not a multiple of the bin {factor}; crop to a multiple of the largest bin")
    return tuple(n // factor for n in shape)


def alignment_bins(n_s: int, n_y: int, n_z: int, width: int = 1024) -> tuple[int, ...]:
    """Bins from coarse to fine: down to a field of 32 samples and 12 planes, up to `width` samples, never finer than 2.

    Parameters
    ----------
    n_s, n_y, n_z : samples across and along the tilt axis, and planes, at bin 1
    width : the finest level is binned to at most this many samples across

    Returns
    -------
    Powers of two, descending; at least one
    """
    finest = 2
    while n_s / finest > width:
        finest *= 2
    coarsest = 1
    while min(n_s, n_y) / (2 * coarsest) >= MIN_FIELD and n_z / (2 * coarsest) >= MIN_PLANES:
        coarsest *= 2
    bins = [finest]
    while bins[0] * 2 <= coarsest:
        bins.insert(0, bins[0] * 2)
    return tuple(bins)


def guessed_thickness(width: float, extent: str) -> float:
    """Thickness to reconstruct when none is given, in the unit of `width` (the field's width across the axis).

    Half the field's width for a section, the whole of it for an isolated object.
    """
    return width if extent == "object" else width / 2
