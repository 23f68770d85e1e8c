"""Number formats and the table of the integer Gaussians. Normative: files with a residual layer depend on every bit.

A Gaussian is a row of int64. Its exponent at an integer place t, relative to its anchor, is the quadratic polynomial
``E(t) = c + cz tz + cy ty + cx tx + czz tz^2 + ... + cyx ty tx`` with `EXPONENT_BITS` binary digits behind the point,
and its value there is ``amplitude 2^-E`` where E is below `limit`, else 0. E is exact in int64, whatever the order of
evaluation, so an implementation may use differences along rows.

With ``E' = max(E, 0)``, ``n = E' >> 32``, ``i`` the next 12 bits of E' and ``f`` the 12 bits after these, the term is
``(amplitude (table[i, 0] - (table[i, 1] f >> 12))) >> (24 + n)``, shifts rounding down.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

# Digits behind the binary point. 32 of the exponent keep the error of a rounded quadratic form below 5e-6 within 70
# voxels of the anchor; 16 of the field make the shifts of a hundred overlapping terms 0.001 grey values.
EXPONENT_BITS = 32
TABLE_BITS = 12
FRACTION_BITS = 12
WEIGHT_BITS = 28
AMPLITUDE_BITS = 12
FIELD_BITS = 16
# right shift of amplitude times weight that leaves FIELD_BITS
TERM_SHIFT = AMPLITUDE_BITS + WEIGHT_BITS - FIELD_BITS

# Amplitude times weight stays below 2^62 up to here, in grey values.
LARGEST_AMPLITUDE = 1 << (62 - AMPLITUDE_BITS - WEIGHT_BITS)

# Columns of a row.
ANCHOR = slice(0, 3)
CONSTANT = 3
LINEAR = slice(4, 7)
SQUARE = slice(7, 10)  # zz, yy, xx
MIXED = slice(10, 13)  # zy, zx, yx
LIMIT = 13
AMPLITUDE = 14
LOW = slice(15, 18)  # first voxel (z, y, x) of a box that holds every place with E < limit
HIGH = slice(18, 21)  # last voxel
N_COLUMNS = 21


@functools.cache
def exp2_table() -> NDArray[np.int32]:
    """2^-(i / 4096) and its decrease to the next entry, (4096, 2) int32 with `WEIGHT_BITS` digits behind the point.

    From integer square roots of 256-bit numbers: exact rounding, no library function.
    """
    precision = 256
    step = 1 << (precision - 1)  # 1/2, its root 12 times: 2^(-1/4096)
    for _ in range(TABLE_BITS):
        step = math.isqrt(step << precision)
    value, powers = 1 << precision, []
    for _ in range((1 << TABLE_BITS) + 1):
        powers.append((value + (1 << (precision - WEIGHT_BITS - 1))) >> (precision - WEIGHT_BITS))
        value = value * step >> precision
    table = np.array(powers, np.int32)
    return np.ascontiguousarray(np.stack([table[:-1], table[:-1] - table[1:]], axis=1))
