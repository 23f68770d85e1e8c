"""The decoder's arithmetic on one Gaussian at a time, compiled: the same operations in the same order as
:mod:`exact`, :mod:`frames`, :mod:`adaptive_law` and :mod:`fixed_law` do on whole columns, and so the same bits.

No operation is fused or reordered: numba keeps to IEEE 754 unless it is told otherwise.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.gmix import exact, fixed_law
from gigascope.compression.gmix.adaptive_law import MOST, MOST_RINGS, MOST_UNLIKE, ROOT_PI
from gigascope.compression.gmix.compiled import compiled
from gigascope.compression.gmix.quantiser import CELL, Quantiser

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_LOG2_E, _LN2_HIGH, _LN2_LOW = exact.LOG2_E, exact.LN2_HIGH, exact.LN2_LOW
_HALF_PI_HIGH, _HALF_PI_LOW = exact.HALF_PI_HIGH, exact.HALF_PI_LOW
_EXP, _SIN, _COS = tuple(exact.EXP), tuple(exact.SIN), tuple(exact.COS)
_ROOT_HALF = math.sqrt(0.5)
_TWO_PI, _HALF_PI, _QUARTER_PI, _TWO_OVER_PI = 2 * math.pi, math.pi / 2, math.pi / 4, 2 / math.pi


class LawRows(NamedTuple):
    """A quantiser as compiled code takes it.

    Attributes
    ----------
    adaptive : the law
    delta, step : (n,) by class of the amplitude, relative step and step of the log scales
    base : log scale of the integer 0
    amplitude : step of b, or for the fixed law the largest integer
    amplitude_scale : fixed law: amplitude of the largest integer
    half : fixed law: steps of a component of the quaternion on either side of 0
    places : fixed law: places in a cell
    shift : what is added to the size of an amplitude before its class is taken
    """

    adaptive: bool
    delta: F64
    step: F64
    base: float
    amplitude: float
    amplitude_scale: float
    half: int
    places: int
    shift: int


@functools.lru_cache
def law_rows(quantiser: Quantiser, amplitude_scale: float) -> LawRows:
    """A quantiser for :func:`dequantise`."""
    low, high = quantiser.log_range
    delta = quantiser.deltas().numpy()
    if quantiser.adaptive:
        step = math.sqrt(2.0) * delta
        return LawRows(True, delta, step, (low + high) / 2, quantiser.amplitude_step, 1.0, 1, 1, 0)
    step = np.full(len(delta), (high - low) / ((1 << quantiser.scale_bits) - 1))
    most = float((1 << (quantiser.amplitude_bits - 1)) - 1)
    half = (fixed_law.rotation_values(quantiser) - 1) // 2
    return LawRows(False, delta, step, low, most, amplitude_scale, half, CELL << quantiser.position_bits, 1)


@compiled
def exp(x):  # type: ignore[no-untyped-def]
    """See :func:`exact.exp`."""
    k = np.rint(x * _LOG2_E)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    value = _EXP[14]
    for n in range(13, -1, -1):
        value = value * r + _EXP[n]
    return value * math.ldexp(1.0, int(k))


@compiled
def sincos(x):  # type: ignore[no-untyped-def]
    """See :func:`exact.sincos`."""
    k = np.rint(x * _TWO_OVER_PI)
    r = (x - k * _HALF_PI_HIGH) - k * _HALF_PI_LOW
    square = r * r
    sine, cosine = _SIN[8], _COS[8]
    for n in range(7, -1, -1):
        sine = sine * square + _SIN[n]
        cosine = cosine * square + _COS[n]
    sine = r * sine
    quadrant = np.int64(k) & 3
    if quadrant & 1 == 1:
        sine, cosine = cosine, sine
    if quadrant >= 2:
        sine = -sine
    if quadrant == 1 or quadrant == 2:
        cosine = -cosine
    return sine, cosine


@compiled
def multiply(p, q):  # type: ignore[no-untyped-def]
    """See :func:`frames.multiply`."""
    a, b, c, d = p
    w, x, y, z = q
    return (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )


@compiled
def amplitude_class(size):  # type: ignore[no-untyped-def]
    """See :func:`adaptive_law.amplitude_class`; of a positive integer."""
    k = 0
    while size >> k > 1:
        k += 1
    return 2 * k + (1 if k > 0 and size >> (k - 1) & 1 else 0)


@compiled
def class_bounds(c):  # type: ignore[no-untyped-def]
    """See :func:`adaptive_law.class_bounds`."""
    octave = 1 << c // 2
    middle = octave + (octave + 1) // 2
    return (middle, 2 * octave) if c % 2 == 1 else (octave, middle)


@compiled
def _unlikeness(difference, step):  # type: ignore[no-untyped-def]
    x = min(difference * step, MOST_UNLIKE)
    return exp(x) - exp(-x)


@compiled
def _count(wanted, least, most):  # type: ignore[no-untyped-def]
    return np.int64(min(max(np.rint(wanted), least), most))


@compiled
def rotation_grid(i_1, i_2, i_3, delta, step):  # type: ignore[no-untyped-def]
    """Rings, rolls, and whether the pole is the last axis; see :class:`adaptive_law.RotationGrid`."""
    upper, lower = i_1 - i_2, i_2 - i_3
    near = _unlikeness(np.float64(max(upper, lower)), step)
    far = _unlikeness(np.float64(upper + lower), step)
    roll = _unlikeness(np.float64(min(upper, lower)), step)
    tilt = math.sqrt((near * near + far * far) / 2)
    n_rings = _count(_QUARTER_PI * tilt / delta, 0, MOST_RINGS)
    return n_rings, _count(_HALF_PI * roll / delta, 1, MOST), lower > upper


@compiled
def ring_height(n_rings):  # type: ignore[no-untyped-def]
    """Polar angle between rings."""
    return _HALF_PI / np.float64(max(n_rings, 1))


@compiled
def ring_cells(n_rings, ring):  # type: ignore[no-untyped-def]
    """See :func:`frames.ring_cells`."""
    if n_rings == 0:
        return 1
    height = ring_height(n_rings)
    sine, _ = sincos((ring + 0.5) * height)
    return max(1, np.int64(np.rint(_TWO_PI * sine / height)))


@compiled
def direction(n_rings, ring, azimuth):  # type: ignore[no-untyped-def]
    """See :func:`frames.directions`."""
    sine, cosine = 0.0, 1.0
    if n_rings > 0:
        sine, cosine = sincos((ring + 0.5) * ring_height(n_rings))
    turn = (azimuth + 0.5) * _TWO_PI / np.float64(ring_cells(n_rings, ring))
    sine_turn, cosine_turn = sincos(turn)
    return cosine, sine * cosine_turn, sine * sine_turn


@compiled
def frame(pole, roll, n_rolls, last):  # type: ignore[no-untyped-def]
    """Quaternion of a pole, a tuple, and a roll; see adaptive_law."""
    w, y, z = 1 + pole[0], -pole[2], pole[1]
    root = math.sqrt(w * w + 0.0 * 0.0 + y * y + z * z)
    angle = roll * math.pi / np.float64(n_rolls)
    sine, cosine = sincos(angle / 2)
    q = multiply((w / root, 0.0 / root, y / root, z / root), (cosine, sine, 0.0, 0.0))
    if last:
        q = multiply(q, (0.5, 0.5, 0.5, 0.5))
    return smallest_angle(q)


@compiled
def smallest_angle(q):  # type: ignore[no-untyped-def]
    """See :func:`frames.smallest_angle`."""
    w, x, y, z = q
    place, largest, negative = 0, abs(w), w < 0
    # the relative quaternion is the conjugate
    if abs(x) > largest:
        place, largest, negative = 1, abs(x), x > 0
    if abs(y) > largest:
        place, largest, negative = 2, abs(y), y > 0
    if abs(z) > largest:
        place, largest, negative = 3, abs(z), z > 0
    sign = -1.0 if negative else 1.0
    unit = (
        sign if place == 0 else 0.0,
        sign if place == 1 else 0.0,
        sign if place == 2 else 0.0,
        sign if place == 3 else 0.0,
    )
    return multiply(q, unit)


@compiled
def fixed_quaternion(a, b, c, half):  # type: ignore[no-untyped-def]
    """See fixed_law."""
    x = np.float64(a - half) / half * _ROOT_HALF
    y = np.float64(b - half) / half * _ROOT_HALF
    z = np.float64(c - half) / half * _ROOT_HALF
    w = math.sqrt(max(1 - (x * x + y * y + z * z), 0.0))
    root = math.sqrt(w * w + x * x + y * y + z * z)
    return w / root, x / root, y / root, z / root


@compiled
def place_counts(l_1, l_2, l_3, q, delta):  # type: ignore[no-untyped-def]
    """Places in a cell along each axis; see adaptive_law."""
    w, x, y, z = q
    a, b, c = exp(2 * l_1), exp(2 * l_2), exp(2 * l_3)
    r_0 = (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y))
    r_1 = (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x))
    zz = r_0[0] * r_0[0] * a + r_0[1] * r_0[1] * b + r_0[2] * r_0[2] * c
    zy = r_0[0] * r_1[0] * a + r_0[1] * r_1[1] * b + r_0[2] * r_1[2] * c
    yy = r_1[0] * r_1[0] * a + r_1[1] * r_1[1] * b + r_1[2] * r_1[2] * c
    y_given_z = yy - zy * zy / zz
    rest = exp(2 * (l_1 + l_2 + l_3)) / (zz * y_given_z)
    fine = CELL / delta
    return (
        _count(fine / math.sqrt(2 * zz), 1, MOST),
        _count(fine / math.sqrt(2 * y_given_z), 1, MOST),
        _count(fine / math.sqrt(2 * rest), 1, MOST),
    )


@compiled
def geometry(law, c, scales, rotation):  # type: ignore[no-untyped-def]
    """Log scales, quaternion and places in a cell, tuples, of the integers (3,), (3,) of one Gaussian of class c."""
    step = law.step[c]
    l_1, l_2, l_3 = law.base + scales[0] * step, law.base + scales[1] * step, law.base + scales[2] * step
    if not law.adaptive:
        q = fixed_quaternion(rotation[0], rotation[1], rotation[2], law.half)
        return (l_1, l_2, l_3), q, (law.places, law.places, law.places)
    n_rings, n_rolls, last = rotation_grid(scales[0], scales[1], scales[2], law.delta[c], step)
    q = frame(direction(n_rings, rotation[0], rotation[1]), rotation[2], n_rolls, last)
    return (l_1, l_2, l_3), q, place_counts(l_1, l_2, l_3, q, law.delta[c])


@compiled
def dequantise(law, cell, place, scales, rotation, amplitude, means, log_scales, quaternions, amplitudes):  # type: ignore[no-untyped-def]
    """Fill float32 columns from int32 ones."""
    for i in range(len(amplitude)):
        size = abs(np.int64(amplitude[i]))
        c = amplitude_class(size + law.shift)
        scale, q, counts = geometry(law, c, scales[i], rotation[i])
        for k in range(3):
            means[i, k] = CELL * (cell[i, k] + (place[i, k] + 0.5) / counts[k]) - 0.5
            log_scales[i, k] = scale[k]
        for k in range(4):
            quaternions[i, k] = q[k]
        if law.adaptive:
            amplitudes[i] = amplitude[i] * law.amplitude / (ROOT_PI * exp((scale[0] + scale[1] + scale[2]) / 2))
        else:
            share = amplitude[i] / law.amplitude
            amplitudes[i] = share * abs(share) * law.amplitude_scale
