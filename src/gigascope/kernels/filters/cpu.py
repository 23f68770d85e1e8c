"""Filters on the CPU: bands of rows of one slice at a time, vectors along columns, sums kept in registers.

A thread holds two buffers of one band and its surroundings, a few MB whatever the stack. Rows of the buffers are an odd
number of cache lines apart: at a multiple of 4096 bytes all rows of a column strip would share eight lines of cache.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import prange
from torch import Tensor

from gigascope.kernels.filters.taps import taps
from gigascope.kernels.parallel import inline_kernel, parallel_kernel
from gigascope.kernels.simd import fma, lanes_of, load, splat, splat_like, store

# rows of a band: the surroundings that neighbours compute again are a quarter of half the work
BAND = 128
# output rows whose sums the filter along columns carries at once
ROWS = 4
LANES = 16


def gaussian(stack: Tensor, sigma: float, truncate: float, border: str) -> Tensor:
    """See :func:`gigascope.kernels.filters.gaussian`; `stack` contiguous."""
    weights = _taps(sigma, truncate)
    out = torch.empty(stack.shape, dtype=torch.float32)
    work = 4 * weights.size * out.numel()
    _gaussian(stack.numpy(), weights, border == "zero", _bands(stack.shape[1]), out.numpy(), work=work)
    return out


def sharpness(stack: Tensor, sigma: float, truncate: float, border: str, floor: float) -> Tensor:
    """See :func:`gigascope.kernels.filters.sharpness`; `stack` contiguous."""
    weights = _taps(sigma, truncate)
    out = torch.empty(stack.shape, dtype=torch.float32)
    work = 8 * weights.size * out.numel()
    bands = _bands(stack.shape[1])
    _sharpness(stack.numpy(), weights, border == "zero", np.float32(floor), bands, out.numpy(), work=work)
    return out


def _taps(sigma: float, truncate: float) -> np.ndarray:
    """Taps between zeros, which the sums of neighbouring rows meet first and last."""
    return np.pad(taps(sigma, truncate).numpy(), ROWS - 1).astype(np.float32)


def _bands(n_rows: int) -> np.ndarray:
    """First row of each band and the end of the last, bands of nearly equal height."""
    n = math.ceil(n_rows / BAND)
    return np.array([n_rows * i // n for i in range(n + 1)])


@inline_kernel
def _stride(n):
    """Floats from row to row of a buffer: whole vectors, an odd number of them, three at least."""
    return max((n + LANES - 1) // LANES | 1, 3) * LANES


@inline_kernel
def _fill_line(line, n, reach, zero):
    """Continue the n samples that stand at `reach` beyond both ends."""
    for k in range(reach):
        line[k] = 0 if zero else line[reach]
        line[reach + n + k] = 0 if zero else line[reach + n - 1]


@inline_kernel
def _along_row(line, taps, out, at, n):
    """Filter a continued line into a row of a buffer that starts at `at`; samples past n are whatever comes out."""
    n_taps, lanes = taps.size - 2 * (ROWS - 1), lanes_of(line)
    x = 0
    while x + 4 * lanes <= n:
        a = b = c = d = splat_like(line, 0.0)
        for k in range(n_taps):
            tap = splat(taps[k + ROWS - 1])
            a = fma(tap, load(line, x + k), a)
            b = fma(tap, load(line, x + k + lanes), b)
            c = fma(tap, load(line, x + k + 2 * lanes), c)
            d = fma(tap, load(line, x + k + 3 * lanes), d)
        store(out, at + x, a)
        store(out, at + x + lanes, b)
        store(out, at + x + 2 * lanes, c)
        store(out, at + x + 3 * lanes, d)
        x += 4 * lanes
    while x < n:
        a = splat_like(line, 0.0)
        for k in range(n_taps):
            a = fma(splat(taps[k + ROWS - 1]), load(line, x + k), a)
        store(out, at + x, a)
        x += lanes


@inline_kernel
def _along_columns(rows, n_rows, stride, taps, out):
    """Filter a buffer of n_rows and its surroundings into n_rows of `out`; four rows, two vectors at a time.

    Both buffers have ROWS - 1 rows more than needed.
    """
    n_steps, lanes = taps.size - (ROWS - 1), lanes_of(rows)
    for pair in range(0, stride, 2 * lanes):
        x = min(pair, stride - 2 * lanes)  # the last pair begins one vector early
        for y in range(0, n_rows, ROWS):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = splat_like(rows, 0.0)
            t1, t2, t3 = splat(taps[2]), splat(taps[1]), splat(taps[0])
            at = y * stride + x
            for k in range(n_steps):
                t0 = splat(taps[k + ROWS - 1])
                left, right = load(rows, at), load(rows, at + lanes)
                a0, b0 = fma(t0, left, a0), fma(t0, right, b0)
                a1, b1 = fma(t1, left, a1), fma(t1, right, b1)
                a2, b2 = fma(t2, left, a2), fma(t2, right, b2)
                a3, b3 = fma(t3, left, a3), fma(t3, right, b3)
                t3, t2, t1 = t2, t1, t0
                at += stride
            at = y * stride + x
            store(out, at, a0)
            store(out, at + lanes, b0)
            store(out, at + stride, a1)
            store(out, at + stride + lanes, b1)
            store(out, at + 2 * stride, a2)
            store(out, at + 2 * stride + lanes, b2)
            store(out, at + 3 * stride, a3)
            store(out, at + 3 * stride + lanes, b3)


@inline_kernel
def _continue_rows(rows, first, end, n_rows, stride, zero):
    """Fill the rows of a buffer, which stands for rows `first` to `end`, that lie beyond the image."""
    for y in range(first, min(end, 0)):
        for x in range(stride):
            rows[(y - first) * stride + x] = 0 if zero else rows[-first * stride + x]
    for y in range(max(first, n_rows), end):
        for x in range(stride):
            rows[(y - first) * stride + x] = 0 if zero else rows[(n_rows - 1 - first) * stride + x]


@inline_kernel
def _blur_band(image, first, end, taps, zero, line, rows, out):
    """Filter rows `first` to `end` of an image; `rows` and `out` are buffers, `line` one continued line."""
    n_rows, n = image.shape
    reach, stride = taps.size // 2 - (ROWS - 1), _stride(n)
    above, below = first - reach, end + reach
    for y in range(max(above, 0), min(below, n_rows)):
        source, middle = image[y], line[reach : reach + n]
        for x in range(n):
            middle[x] = source[x]
        _fill_line(line, n, reach, zero)
        _along_row(line, taps, rows, (y - above) * stride, n)
    _continue_rows(rows, above, below, n_rows, stride, zero)
    _along_columns(rows, end - first, stride, taps, out)


@parallel_kernel
def _gaussian(stack, taps, zero, bands, out):
    n_bands, (n_z, _, n) = bands.size - 1, stack.shape
    reach, stride = taps.size // 2 - (ROWS - 1), _stride(n)
    for task in prange(n_z * n_bands):
        z, first, end = task // n_bands, bands[task % n_bands], bands[task % n_bands + 1]
        line = np.zeros(stride + 2 * reach + LANES, dtype=np.float32)
        rows = np.zeros((end - first + 2 * reach + 2 * ROWS) * stride, dtype=np.float32)
        blurred = np.empty((end - first + ROWS) * stride, dtype=np.float32)
        _blur_band(stack[z], first, end, taps, zero, line, rows, blurred)
        for y in range(first, end):
            source = blurred[(y - first) * stride : (y - first) * stride + n]
            out[z, y, :] = source


@inline_kernel
def _divide_rows(image, first, end, floor, stride, rows):
    """Put image / max(mean, floor) in the place of the mean of rows `first` to `end`."""
    n = image.shape[1]
    for y in range(first, end):
        source, mean = image[y], rows[(y - first) * stride : (y - first) * stride + n]
        for x in range(n):
            m = mean[x]
            mean[x] = np.float32(source[x]) / (floor if m < floor else m)


@inline_kernel
def _steepness(here, below, line):
    """Length of the two forward differences of a row, 0 across the last column."""
    n = here.size
    for x in range(n - 1):
        across, down = here[x] - here[x + 1], here[x] - below[x]
        line[x] = np.sqrt(across * across + down * down)
    line[n - 1] = abs(here[n - 1] - below[n - 1])


@parallel_kernel
def _sharpness(stack, taps, zero, floor, bands, out):
    n_bands, (n_z, n_rows, n) = bands.size - 1, stack.shape
    reach, stride = taps.size // 2 - (ROWS - 1), _stride(n)
    for task in prange(n_z * n_bands):
        z, first, end = task // n_bands, bands[task % n_bands], bands[task % n_bands + 1]
        # rows whose contrast counts: the filter reaches out for it, and differences look one row on
        top, bottom = max(first - reach, 0), min(end + reach + 1, n_rows)
        height = max(bottom - top, end - first) + ROWS
        line = np.zeros(stride + 2 * reach + LANES, dtype=np.float32)
        rows = np.zeros((height + 2 * reach + ROWS) * stride, dtype=np.float32)
        contrast = np.empty(height * stride, dtype=np.float32)
        image = stack[z]
        _blur_band(image, top, bottom, taps, zero, line, rows, contrast)
        _divide_rows(image, top, bottom, floor, stride, contrast)
        above = first - reach
        for y in range(top, min(end + reach, n_rows)):
            here = (y - top) * stride
            # the last row has none below: its difference is 0
            below = here if y == n_rows - 1 else here + stride
            _steepness(contrast[here : here + n], contrast[below : below + n], line[reach : reach + n])
            _fill_line(line, n, reach, zero)
            _along_row(line, taps, rows, (y - above) * stride, n)
        _continue_rows(rows, above, end + reach, n_rows, stride, zero)
        _along_columns(rows, end - first, stride, taps, contrast)
        for y in range(first, end):
            out[z, y, :] = contrast[(y - first) * stride : (y - first) * stride + n]
