"""Convolution that varies along z on the CPU: transforms plane by plane, then rows of the planes along z in cache.

Transforms are scipy's (pocketfft), which took two thirds of the core time of torch's (MKL) on volumes of 9 Mvoxel. They
run in threads of this module over work that is cut the same way for any number of threads, so that results are too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels.filters.cpu_sample import lateral, sample, sample_z
from gigascope.kernels.filters.overlaps import overlaps
from gigascope.kernels.parallel import serial_kernel

# Bytes of one line of transforms along z with its product and sum, which should stay in a second-level cache.
SLAB_BYTES = 1 << 20

Three = tuple[int, int, int]
ThreeFloats = tuple[float, float, float]


def convolve(volume: Tensor, weights: Tensor, spectra: Tensor, fft_shape: Three, start: Three, shape: Three) -> Tensor:
    """See :func:`gigascope.kernels.filters.convolve`; contiguous."""
    out = torch.empty(shape)
    found = out.numpy()
    stop_x = start[2] + shape[2]

    def keep(z: int, rows: NDArray[np.complex64]) -> None:
        found[z] = scipy.fft.irfft(rows, n=fft_shape[2], axis=1)[:, start[2] : stop_x]

    _run(volume, weights, spectra, fft_shape, (start[0], shape[0]), (start[1], shape[1]), keep)
    return out


def area_sample(volume: Tensor, ratio: ThreeFloats, start: ThreeFloats, shape: Three) -> Tensor:
    """See :func:`gigascope.kernels.filters.area_sample`; contiguous."""
    return sample(volume, ratio, start, shape)


def convolve_sampled(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Three,
    ratio: ThreeFloats,
    start: ThreeFloats,
    shape: Three,
) -> Tensor:
    """See :func:`gigascope.kernels.filters.convolve_sampled`; contiguous."""
    axes = [tuple(part.numpy() for part in overlaps(r, s, n)) for r, s, n in zip(ratio, start, shape)]
    (z_first, z_shares), (y_first, y_shares), (x_first, x_shares) = axes
    low_z, low_y = int(z_first[0]), int(y_first[0])
    n_z = min(int(z_first[-1]) + z_shares.shape[1], fft_shape[0]) - low_z
    n_y = min(int(y_first[-1]) + y_shares.shape[1], fft_shape[1]) - low_y
    planes = np.empty((n_z, shape[1], shape[2]), np.float32)

    def keep(z: int, rows: NDArray[np.complex64]) -> None:
        plane = scipy.fft.irfft(rows, n=fft_shape[2], axis=1)
        lateral(plane, y_first - low_y, y_shares, x_first, x_shares, planes[z])

    _run(volume, weights, spectra, fft_shape, (low_z, n_z), (low_y, n_y), keep)
    return sample_z(planes, z_first - low_z, z_shares)


def transform_z_(planes: Tensor) -> None:
    """In place, transform (z, y, x) complex64 along z, rows at a time."""
    values = planes.numpy()

    def rows(y: int) -> None:
        part = values[:, y : y + step]
        part[:] = scipy.fft.fft(part, axis=0)

    step = _rows_at_once(*values.shape[::2])
    _in_threads(rows, range(0, values.shape[1], step))


def _rows_at_once(n_z: int, n_x: int) -> int:
    """Rows whose values, product and sum along z fill a slab."""
    return max(1, SLAB_BYTES // (24 * n_z * n_x))


def _run(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Three,
    z_box: tuple[int, int],
    y_box: tuple[int, int],
    keep: Callable[[int, NDArray[np.complex64]], None],
) -> None:
    """Give `keep` the rows of `y_box` of every plane of `z_box` of the result, still transformed along x."""
    f, w, s = volume.detach().numpy(), weights.detach().numpy(), spectra.detach().numpy()
    n_z, (_, fft_y, fft_x) = f.shape[0], fft_shape
    planes = np.empty((max(n_z, z_box[1]), fft_y, fft_x // 2 + 1), np.complex64)

    def forward(z: int) -> None:
        planes[z] = scipy.fft.fft(scipy.fft.rfft(f[z], n=fft_x, axis=1), n=fft_y, axis=0, overwrite_x=True)

    def mix(y: int) -> None:
        _mix_rows(planes[:, y : y + step], n_z, w, s[:, :, y : y + step], z_box)

    def inverse(z: int) -> None:
        rows = scipy.fft.ifft(planes[z], axis=0, overwrite_x=True)
        keep(z, rows[y_box[0] : y_box[0] + y_box[1]])

    step = _rows_at_once(fft_shape[0], planes.shape[2])
    _in_threads(forward, range(n_z))
    _in_threads(mix, range(0, fft_y, step))
    _in_threads(inverse, range(z_box[1]))


def _in_threads(work: Callable[[int], None], items: Iterable[int]) -> None:
    """Do every item, on as many threads as numba may use; scipy releases the interpreter's lock."""
    n_threads = numba.get_num_threads()
    if n_threads == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(work, items):
            pass


def _mix_rows(
    planes: NDArray[np.complex64],
    n_z: int,
    weights: NDArray[np.float32],
    spectra: NDArray[np.complex64],
    z_box: tuple[int, int],
) -> None:
    """Along z: transform the weighted rows for each k, sum the products with the spectra, transform back in place."""
    n_k, fft_z = spectra.shape[:2]
    shape = (fft_z, *planes.shape[1:])
    total, product = np.empty(shape, np.complex64), np.empty(shape, np.complex64)
    for k in range(n_k):
        _weigh(planes, n_z, weights[k], product)
        transformed = scipy.fft.fft(product, axis=0, overwrite_x=True)
        _add_product(transformed, spectra[k], k == 0, total)
    result = scipy.fft.ifft(total, axis=0, overwrite_x=True)
    planes[: z_box[1]] = result[z_box[0] : z_box[0] + z_box[1]]


@serial_kernel
def _weigh(planes, n_z, weights, out):
    """Rows times the weight of their plane, zeros behind the last plane."""
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            target = out[z, y]
            if z < n_z:
                source, w = planes[z, y], weights[z]
                for x in range(target.size):
                    target[x] = source[x] * w
            else:
                target[:] = 0


@serial_kernel
def _add_product(values, spectrum, first, total):
    """Add, or for the first write, values times spectrum."""
    for z in range(total.shape[0]):
        for y in range(total.shape[1]):
            a, b, c = values[z, y], spectrum[z, y], total[z, y]
            if first:
                for x in range(c.size):
                    c[x] = a[x] * b[x]
            else:
                for x in range(c.size):
                    c[x] += a[x] * b[x]
