"""Rows of samples inside the ellipsoid of a Gaussian, planned for many planes at once.

The ends of a row follow from a square root in float64: 20 cycles to wait for, and eight rows take no longer than one.
The kernels therefore plan the rows of a Gaussian first, in vectors over y, and then walk along x without waiting.
"""

from __future__ import annotations

import math

import numpy as np

from gigascope.kernels.gaussians.frames import LOG2E_2
from gigascope.kernels.parallel import inline_kernel
from gigascope.kernels.simd import (
    add,
    down,
    fma,
    lane_numbers,
    lanes_of,
    larger,
    multiply,
    root,
    smaller,
    splat,
    store,
    subtract,
    subtract_product,
    up,
)

# what is known of a row, each in its stretch of one float64 array: flat index of the first sample and how many they are
# (not above 0: none); the first x, counted from the anchor of the Gaussian; -scale times the x at which c_x is 0;
# exponent of 2 there; sqrt(k) c_y. With scale = sqrt(k) s_x, c_x in units of the exponent is scale x plus the fourth.
START, COUNT, BEGIN, MIDDLE, EXPONENT, ACROSS = range(6)
N_FIELDS = 6
# rows that are planned at a time, if planes are not larger
CAPACITY = 1024
_PADDING = 8


@inline_kernel
def scratch(n_y):
    """Place for planned rows, and for their number and sqrt(k) c_z per plane."""
    capacity = max(CAPACITY, n_y + _PADDING)
    return np.empty(N_FIELDS * capacity), np.empty(2 * capacity)


@inline_kernel
def anchor_of(frame):
    """Offsets along x are counted from here: they are small, and the same wherever the grid starts."""
    return math.floor(frame[2])


@inline_kernel
def plan(frame, z, window, n_y, n_x, rows, planes):
    """Plan rows of the planes from z on, as many as there is place for; returns rows, planes, and the next z.

    `window` is z0, z1, y0, y1: the rows that are asked for.
    """
    _, z1, y0, y1 = window
    capacity = rows.size // N_FIELDS
    anchor, n_rows, n_planes = anchor_of(frame), 0, 0
    middle = frame[2] - anchor
    per_s_y, k = 1 / frame[4], math.sqrt(LOG2E_2)
    while z < z1:
        d_z = z - frame[0]
        c_z = frame[3] * d_z
        left = frame[9] - c_z * c_z
        if left > 0:
            y_mid, half = frame[1] - frame[6] * d_z, math.sqrt(left) * per_s_y
            first, last = max(math.floor(y_mid - half) + 1, y0), min(math.ceil(y_mid + half), y1)
            if n_rows + last - first + _PADDING > capacity and n_rows > 0:
                break
            if last > first:
                start = float((z * n_y + first) * n_x + anchor)
                ends = float(-anchor), float(n_x - anchor)
                _plan_plane(frame, left, (first - y_mid, first - frame[1]), middle - frame[8] * d_z, start, n_x, ends,
                            last - first, rows, n_rows)  # fmt: skip
                planes[2 * n_planes], planes[2 * n_planes + 1] = last - first, k * c_z
                n_rows, n_planes = n_rows + last - first, n_planes + 1
        z += 1
    return n_rows, n_planes, z


@inline_kernel
def _plan_plane(frame, left, offsets, shift, start, n_x, ends, n, rows, at):
    """The rows of one plane from place `at` on; `offsets` of the first row from the middle and from the mean."""
    numbers, lanes, capacity = lane_numbers(rows), lanes_of(rows), rows.size // N_FIELDS
    s_y, skew, per_s_x = splat(frame[4]), splat(-frame[7]), splat(1 / frame[5])
    from_middle, from_mean, lefts, shifts = splat(offsets[0]), splat(offsets[1]), splat(left), splat(shift)
    low, high, one, zero = splat(ends[0]), splat(ends[1]), splat(1.0), splat(0.0)
    starts, stride = splat(start), splat(float(n_x))
    k, whole, scale = splat(LOG2E_2), splat(frame[9]), splat(-frame[5] * math.sqrt(LOG2E_2))
    root_k = splat(math.sqrt(LOG2E_2))
    for j in range(0, n, lanes):
        y = add(numbers, splat(float(j)))
        c_y = multiply(s_y, add(y, from_middle))
        rest = subtract_product(c_y, c_y, lefts)
        middle = fma(skew, add(y, from_mean), shifts)
        half = multiply(root(larger(rest, zero)), per_s_x)
        # strictly within: at m = cut^2 a sample is outside
        begin = larger(add(down(subtract(middle, half)), one), low)
        count = subtract(smaller(up(add(middle, half)), high), begin)
        store(rows, START * capacity + at + j, add(fma(y, stride, starts), begin))
        store(rows, COUNT * capacity + at + j, count)
        store(rows, BEGIN * capacity + at + j, begin)
        store(rows, MIDDLE * capacity + at + j, multiply(scale, middle))
        store(rows, EXPONENT * capacity + at + j, multiply(k, subtract(rest, whole)))
        store(rows, ACROSS * capacity + at + j, multiply(root_k, c_y))
