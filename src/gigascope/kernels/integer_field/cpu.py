"""The integer field on the CPU: parallel over planes, second differences along rows, no voxel outside an ellipsoid."""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from torch import Tensor

from gigascope.kernels.integer_field import layout
from gigascope.kernels.parallel import inline_kernel, parallel_kernel

# operations per voxel of a box: half of them lie in its ellipsoid, each a table entry and some twenty instructions
PER_VOXEL = 10

_EXPONENT_BITS = layout.EXPONENT_BITS
_ENTRY_SHIFT = layout.EXPONENT_BITS - layout.TABLE_BITS
_ENTRY_MASK = (1 << layout.TABLE_BITS) - 1
_FRACTION_SHIFT = _ENTRY_SHIFT - layout.FRACTION_BITS
_FRACTION_MASK = (1 << layout.FRACTION_BITS) - 1
_FRACTION_BITS = layout.FRACTION_BITS
_TERM_SHIFT = layout.TERM_SHIFT
_CONSTANT, _LINEAR, _SQUARE, _MIXED = layout.CONSTANT, layout.LINEAR.start, layout.SQUARE.start, layout.MIXED.start
_LIMIT, _AMPLITUDE, _LOW, _HIGH = layout.LIMIT, layout.AMPLITUDE, layout.LOW.start, layout.HIGH.start


def add_(field: Tensor, gaussians: Tensor, origin: tuple[int, int, int]) -> None:
    """See :func:`gigascope.kernels.integer_field.add_`; contiguous."""
    rows, target = gaussians.detach().numpy(), field.detach().numpy()
    first, last = np.array(origin), np.array(origin) + target.shape - 1
    low, high = np.maximum(rows[:, layout.LOW], first), np.minimum(rows[:, layout.HIGH], last)
    sides = np.maximum(high - low + 1, 0).astype(np.float64)
    touching = sides.prod(1) > 0
    if touching.any():
        work = PER_VOXEL * float(sides.prod(1).sum())
        _add(target, rows[touching], first, layout.exp2_table(), work=work)


@inline_kernel
def _interval(a, b, c, limit, first, last):
    """First and last integer x in [first, last] with ``a + b x + c x^2 < limit``; the first is larger if there is none.

    Floating point only guesses; integers decide.
    """
    vertex = -0.5 * b / c
    near = np.int64(math.floor(min(max(vertex, -1e9), 1e9)))
    if a + near * (b + c * near) >= limit:
        near += 1
        if a + near * (b + c * near) >= limit:
            return first, first - 1
    square = vertex * vertex - (np.float64(a) - np.float64(limit)) / c
    half = math.sqrt(max(square, 0.0))
    low = min(near, np.int64(math.ceil(vertex - half)))
    high = max(near, np.int64(math.floor(vertex + half)))
    while a + low * (b + c * low) >= limit:
        low += 1
    while a + (low - 1) * (b + c * (low - 1)) < limit:
        low -= 1
    while a + high * (b + c * high) >= limit:
        high -= 1
    while a + (high + 1) * (b + c * (high + 1)) < limit:
        high += 1
    return max(low, first), min(high, last)


@inline_kernel
def _add_row(row, amplitude, exponent, first_difference, second_difference, start, stop, table):
    """Terms of one Gaussian along x, its exponent by second differences."""
    for x in range(start, stop):
        e = max(exponent, 0)
        entry = (e >> _ENTRY_SHIFT) & _ENTRY_MASK
        weight = table[entry, 0] - (table[entry, 1] * ((e >> _FRACTION_SHIFT) & _FRACTION_MASK) >> _FRACTION_BITS)
        row[x] += amplitude * weight >> (_TERM_SHIFT + (e >> _EXPONENT_BITS))
        exponent += first_difference
        first_difference += second_difference


@parallel_kernel
def _add(field, rows, origin, table):
    n_z, n_y, n_x = field.shape
    for k in prange(n_z):
        for i in range(rows.shape[0]):
            g = rows[i]
            if not g[_LOW] <= k + origin[0] <= g[_HIGH]:
                continue
            z = k + origin[0] - g[0]
            constant = g[_CONSTANT] + z * (g[_LINEAR] + z * g[_SQUARE])
            along_y, along_x = g[_LINEAR + 1] + z * g[_MIXED], g[_LINEAR + 2] + z * g[_MIXED + 1]
            curvature, amplitude, limit = g[_SQUARE + 2], g[_AMPLITUDE], g[_LIMIT]
            shift = g[2] - origin[2]
            for j in range(max(g[_LOW + 1] - origin[1], 0), min(g[_HIGH + 1] - origin[1] + 1, n_y)):
                y = j + origin[1] - g[1]
                a, b = constant + y * (along_y + y * g[_SQUARE + 1]), along_x + y * g[_MIXED + 2]
                low, high = _interval(a, b, curvature, limit, -shift, n_x - 1 - shift)
                if low <= high:
                    e, d = a + low * (b + curvature * low), b + curvature * (2 * low + 1)
                    _add_row(field[k, j], amplitude, e, d, 2 * curvature, low + shift, high + shift + 1, table)
