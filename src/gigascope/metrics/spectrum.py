"""Power spectra of many crops: averaged over rings in the plane, for each frequency along the optical axis."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.errors import ShapeError

F64 = NDArray[np.float64]
# Of the frequencies up to which spectra are compared: beyond it window and sampling decide.
SHARE_OF_NYQUIST = 0.9


def ring_power(crop: NDArray) -> F64:
    """Power of a crop, its mean removed, under a Hann window.

    Parameters
    ----------
    crop : (z, y, x), at least 4 samples along each axis

    Returns
    -------
    (z // 2 + 1, rings) float64: by frequency along z, and by distance from 0 in the plane in steps of one sample of the
    shorter axis' spectrum; power per voxel, so that crops of white noise of one variance agree whatever their size
    """
    if crop.ndim != 3 or min(crop.shape) < 4:
        raise ShapeError(f"a crop is (z, y, x) with at least 4 samples each, got {crop.shape}")
    values = torch.from_numpy(np.ascontiguousarray(crop, dtype=np.float32)).double()
    window, ring, counts = _geometry(tuple(crop.shape))
    spectrum = torch.fft.fftn((values - values.mean()) * window)
    power = (spectrum.real**2 + spectrum.imag**2).numpy()
    n_z = crop.shape[0]
    # frequencies +k and -k together
    folded = np.zeros((n_z // 2 + 1, *crop.shape[1:]))
    np.add.at(folded, np.minimum(np.arange(n_z), n_z - np.arange(n_z)), power)
    doubled = np.bincount(np.minimum(np.arange(n_z), n_z - np.arange(n_z)), minlength=n_z // 2 + 1)
    sums = np.stack([np.bincount(ring.ravel(), plane.ravel(), counts.size) for plane in folded])
    scale = float((window**2).sum())
    return np.asarray(sums / (doubled[:, None] * counts) / scale)


def frequencies(shape: tuple[int, int, int]) -> tuple[F64, F64]:
    """Cycles per voxel of :func:`ring_power`'s rows and of its rings."""
    along = np.arange(shape[0] // 2 + 1) / shape[0]
    rings = _geometry(tuple(shape))[2].size
    return along, np.arange(rings) / min(shape[1:])


def spectrum_distance(a: F64, b: F64, shape: tuple[int, int, int]) -> F64:
    """Root mean square of the difference of log10 power over all bins below 0.9 of the Nyquist frequency.

    Parameters
    ----------
    a, b : (..., z // 2 + 1, rings) mean power of two sets of crops
    shape : of the crops
    """
    along, rings = frequencies(shape)
    used = (along[:, None] <= 0.5 * SHARE_OF_NYQUIST) & (rings[None, :] <= 0.5 * SHARE_OF_NYQUIST)
    # the mean was removed
    used[0, 0] = False
    floor = np.finfo(np.float64).tiny
    apart = np.log10(np.maximum(a, floor)) - np.log10(np.maximum(b, floor))
    return np.asarray(np.sqrt((apart[..., used] ** 2).mean(axis=-1)))


@functools.lru_cache(maxsize=4)
def _geometry(shape: tuple[int, ...]) -> tuple[torch.Tensor, NDArray[np.intp], F64]:
    """Hann window, ring of each sample of a plane, samples in each ring."""
    parts = [torch.hann_window(n, periodic=True, dtype=torch.float64) for n in shape]
    window = parts[0][:, None, None] * parts[1][None, :, None] * parts[2][None, None, :]
    fy, fx = (np.fft.fftfreq(n) for n in shape[1:])
    ring = np.round(np.hypot(fy[:, None], fx[None, :]) * min(shape[1:])).astype(np.intp)
    last = min(shape[1:]) // 2
    ring = np.minimum(ring, last)
    return window, ring, np.bincount(ring.ravel(), minlength=last + 1).astype(np.float64)
