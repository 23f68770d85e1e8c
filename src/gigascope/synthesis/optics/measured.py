"""PSFs that were measured: stacks of beads, or distilled from images, brought onto the voxels of a grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.volume import KEY, open_volume_file
from gigascope.synthesis.optics.settings import Settings

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Three = tuple[float, float, float]

_KEY = "optics.paths"


def load(settings: Settings, voxel_um: Three, limits: tuple[int, int, int]) -> F32:
    """(stack, z, y, x) float32: the stacks of `settings.paths` on one grid of odd size, each of sum 1.

    Parameters
    ----------
    voxel_um : (z, y, x) of that grid
    limits : largest half size in voxels

    Raises
    ------
    UserError : a stack that cannot be read, of several channels or one plane, without voxel size, without a peak
    """
    stacks = []
    for path in settings.paths:
        stack, size = read(path, settings.path_voxel_um)
        signal = without_background(stack, path)
        middle = peak(signal, path) if settings.recentre else tuple((n - 1) / 2 for n in signal.shape)
        stacks.append(resample(signal, size, middle, voxel_um, limits))
    shape = tuple(max(s.shape[axis] for s in stacks) for axis in range(3))
    grown = [_grow(s, shape) for s in stacks]
    if settings.symmetrise:
        grown = [symmetrised(s, square=voxel_um[1] == voxel_um[2] and s.shape[1] == s.shape[2]) for s in grown]
    for path, stack in zip(settings.paths, grown):
        if not stack.sum() > 0:
            what = "holds no light within optics.cap_um of its middle."
            raise UserError(what, where=path, do=f"Check {_KEY}, and optics.recentre.")
    grown = [s / s.sum() for s in grown]
    half = [max(h) for h in zip(*(reach(s, settings.psf_energy) for s in grown))]
    cut = [s[tuple(slice(n // 2 - h, n // 2 + h + 1) for n, h in zip(s.shape, half))] for s in grown]
    return np.array([s / s.sum() for s in cut], np.float32)


def read(path: str, voxel_um: Three | None) -> tuple[F64, Three]:
    """A stack and the size of its voxels.

    Parameters
    ----------
    voxel_um : (z, y, x) set by hand; None: as the file says

    Raises
    ------
    UserError : as :func:`load`
    """
    try:
        source = open_volume_file(path)
    except UserError as error:
        do = None if error.do is None else error.do.replace(KEY, _KEY)
        raise UserError(error.what, where=error.where, do=do) from None
    n_t, n_c, n_z, n_y, n_x = source.shape
    if n_t * n_c > 1:
        what = f"holds {n_t} times and {n_c} channels; a PSF is one stack."
        raise UserError(what, where=path, do="Save the stack that is wanted as a file of its own.")
    if min(n_z, n_y, n_x) < 3:
        what = f"is a stack of {n_z} x {n_y} x {n_x} voxels (z, y, x); a PSF needs 3 along each axis."
        raise UserError(what, where=path, do="Give the whole stack, with planes above and below the focus.")
    size = source.voxel_size_um if voxel_um is None else voxel_um
    if any(s is None for s in size):
        what = "does not say the size of its voxels along each axis."
        raise UserError(what, where=path, do="Set optics.path_voxel_um, (z, y, x) in micrometres.")
    stack = source.read(0, 0, 0, n_z).astype(np.float64)
    if not np.isfinite(stack).all():
        raise UserError("holds values that are not numbers.", where=path, do="Save the PSF without NaN and infinity.")
    z, y, x = (float(s) for s in size if s is not None)
    return stack, (z, y, x)


def without_background(stack: F64, path: str) -> F64:
    """The stack less the median of its outer shell, not below 0.

    Raises
    ------
    UserError : nothing is left
    """
    inner = np.zeros(stack.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    signal = np.maximum(stack - np.median(stack[~inner]), 0.0)
    if not signal.any():
        raise UserError("is nowhere brighter than at its border.", where=path, do=f"Check {_KEY}: is this a PSF?")
    return signal


def peak(signal: F64, path: str) -> tuple[int, int, int]:
    """(z, y, x) of the brightest voxel.

    Raises
    ------
    UserError : it lies at the border
    """
    z, y, x = (int(i) for i in np.unravel_index(int(np.argmax(signal)), signal.shape))
    if any(i in (0, n - 1) for i, n in zip((z, y, x), signal.shape)):
        raise UserError(
            f"is brightest at its border, at voxel ({z}, {y}, {x}) of {' x '.join(map(str, signal.shape))}.",
            where=path,
            do="Cut the stack out around the bead, or set optics.recentre: false to take the middle of the stack.",
        )
    return z, y, x


def resample(signal: F64, size: Three, middle: tuple[float, ...], voxel: Three, limits: tuple[int, int, int]) -> F64:
    """On a grid of odd size whose middle voxel is centred on `middle`: means over voxels, or between finer ones lines.

    Parameters
    ----------
    size, voxel : (z, y, x) of the voxels that there are and of those wanted
    middle : (z, y, x) in voxels of `signal`
    limits : largest half size
    """
    for axis, (s, m, v, limit) in enumerate(zip(size, middle, voxel, limits)):
        n = signal.shape[axis]
        far = (max(m, n - 1 - m) + 0.5) * s / v - 0.5
        matrix = _onto(n, m, v / s, min(limit, max(1, math.ceil(far - 1e-6))))
        signal = np.moveaxis(np.tensordot(matrix, signal, axes=(1, axis)), 0, axis)
    return signal


def symmetrised(psf: F64, *, square: bool) -> F64:
    """Mean over the mirror images along y and x, and with `square` those at the diagonal."""
    psf = (psf + psf[:, ::-1]) / 2
    psf = (psf + psf[:, :, ::-1]) / 2
    return (psf + psf.swapaxes(1, 2)) / 2 if square else psf


def reach(psf: F64, energy: float) -> tuple[int, ...]:
    """(z, y, x) half sizes that hold `energy`: half of the loss along z, a quarter along y and x each."""
    halves = []
    for axis, share in enumerate((0.5, 0.25, 0.25)):
        along = psf.sum(tuple(a for a in range(3) if a != axis))
        n = len(along) // 2
        pairs = along[n:].copy()
        pairs[1:] += along[:n][::-1]
        held = np.cumsum(pairs)
        halves.append(min(n, int(np.searchsorted(held, (1 - (1 - energy) * share) * held[-1]))))
    return tuple(halves)


def _onto(n: int, middle: float, ratio: float, half: int) -> F64:
    """(2 half + 1, n): means over voxels `ratio` times as long where that is 1 or more, else linear interpolation."""
    centre = middle + ratio * np.arange(-half, half + 1)[:, None]
    at = np.arange(n)
    if ratio < 1 - 1e-6:
        return np.maximum(1 - np.abs(at - centre), 0.0)
    low, high = centre - ratio / 2, centre + ratio / 2
    return np.maximum(np.minimum(high, at + 0.5) - np.maximum(low, at - 0.5), 0.0) / ratio


def _grow(psf: F64, shape: tuple[int, ...]) -> F64:
    """Zeros around it; odd sizes."""
    return np.pad(psf, [((m - n) // 2,) * 2 for n, m in zip(psf.shape, shape)])
