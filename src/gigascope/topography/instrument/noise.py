"""Counter-based random numbers: any pixel of any image, or of the endless albedo, in any order, with equal bytes.

A number is a hash of its place, so nothing is drawn in sequence. Normal deviates come from a table of quantiles: no
logarithm or cosine whose last bit differs between machines.
"""

from __future__ import annotations

import functools
import hashlib

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from gigascope.kernels.parallel import inline_kernel, parallel_kernel

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# Cells of equal probability in the table of quantiles; the outermost ends stand for the tail beyond 1 / 16384.
_CELLS_LOG2 = 13
_TAIL = 4.1


def key(seed: int, *purpose: str | int) -> int:
    """64 bits for one purpose, such as ``key(seed, "shot", view)``."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A numpy generator (Philox) for one purpose: few numbers, drawn in sequence."""
    return np.random.Generator(np.random.Philox(key=key(seed, *purpose)))


@functools.cache
def quantiles() -> F32:
    """Edges (2^13 + 1,) of cells of equal probability under the standard normal density, scaled to unit variance."""
    edges = ndtri(np.linspace(0.0, 1.0, 2**_CELLS_LOG2 + 1))
    edges[0], edges[-1] = -_TAIL, _TAIL
    low, high = edges[:-1], edges[1:]
    variance = np.mean(low * low + low * high + high * high) / 3.0
    return (edges / np.sqrt(variance)).astype(np.float32)


def white_noise(origin: tuple[int, int], shape: tuple[int, int], noise_key: int) -> F32:
    """Standard normal numbers of a window of the integer lattice; the same lattice point has the same number always.

    Parameters
    ----------
    origin : (row, col) of the first point, of either sign
    shape : (rows, cols)
    noise_key : of the lattice, see :func:`key`

    Returns
    -------
    (rows, cols) float32
    """
    out = np.empty(shape, np.float32)
    _fill(out, np.int64(origin[0]), np.int64(origin[1]), np.uint64(noise_key), quantiles(), work=10.0 * out.size)
    return out


def expose(
    radiance: F32,
    shade: F32,
    out: U8,
    noise_key: int,
    *,
    origin: tuple[int, int],
    counts: float,
    electrons: float,
    read: float,
) -> None:
    """Turn radiance into counts: shading, shot and read noise, rounding to 8 bits.

    Parameters
    ----------
    radiance : (z, row, col) float32, 1 for a white surface under even light
    shade : (row, col) float32, factor by vignetting, gain and illumination
    out : (z, row, col) uint8, written
    noise_key : of the view
    origin : (row, col) of this block in the view, so that blocks equal the whole
    counts : counts of radiance 1
    electrons : electrons per count
    read : standard deviation of the read noise, electrons

    Notes
    -----
    Shot noise is normal with the variance of its mean: the darkest surface still yields more than 100 electrons.
    """
    row, col = np.int64(origin[0]), np.int64(origin[1])
    scale = (np.float32(counts), np.float32(electrons), np.float32(read * read))
    _expose(radiance, shade, out, np.uint64(noise_key), row, col, *scale, quantiles(), work=20.0 * out.size)


@inline_kernel
def _mixed(x):  # type: ignore[no-untyped-def]
    """Finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inline_kernel
def _line_key(noise_key, plane, row):  # type: ignore[no-untyped-def]
    place = (np.uint64(plane) << np.uint64(40)) + np.uint64(row)
    return _mixed(noise_key ^ _mixed(place * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0xD1B54A32D192ED03)))


@inline_kernel
def _normal(line, col, table):  # type: ignore[no-untyped-def]
    bits = _mixed(line + np.uint64(col) * np.uint64(0x9E3779B97F4A7C15))
    cell = np.int64(bits >> np.uint64(51))
    part = np.float32(np.int64((bits >> np.uint64(27)) & np.uint64(0xFFFFFF))) * np.float32(1.0 / (1 << 24))
    low = table[cell]
    return low + part * (table[cell + 1] - low)


@parallel_kernel
def _fill(out, row, col, noise_key, table):  # type: ignore[no-untyped-def]
    n_rows, n_cols = out.shape
    for i in numba.prange(n_rows):
        line = _line_key(noise_key, 0, row + i)
        for j in range(n_cols):
            out[i, j] = _normal(line, col + j, table)


@parallel_kernel
def _expose(radiance, shade, out, noise_key, row, col, counts, electrons, read, table):  # type: ignore[no-untyped-def]
    n_z, n_rows, n_cols = out.shape
    per_count = np.float32(1.0) / electrons
    for job in numba.prange(n_z * n_rows):
        k = job // n_rows
        i = job - k * n_rows
        line = _line_key(noise_key, k, row + i)
        for j in range(n_cols):
            mean = radiance[k, i, j] * shade[i, j] * counts
            deviation = np.sqrt(mean * electrons + read) * per_count
            value = mean + deviation * _normal(line, col + j, table)
            out[k, i, j] = np.uint8(np.rint(min(max(value, np.float32(0.0)), np.float32(255.0))))
