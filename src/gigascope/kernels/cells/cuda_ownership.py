"""Which nucleus owns each sample, in Triton: the operations of `cpu_ownership` one by one, so that the bits agree.

Every product that the CPU adds with one rounding is a `tl.fma` here, all others are kept apart (no contraction), and
division and root are the exactly rounded ones.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gigascope.kernels.cells import packing
from gigascope.kernels.simd import _EXP2
from gigascope.kernels.simd_select import _LOG2

_ROW, _AXES = tl.constexpr(packing.N_SHAPE), tl.constexpr(packing.INVERSE_AXES)
_EXPONENT = tl.constexpr(packing.EXPONENT)
_ROOT, _WAVES, _TOP = tl.constexpr(packing.ROOT), tl.constexpr(packing.WAVES), tl.constexpr(packing.DEGREE)
_TINY, _LEAST = tl.constexpr(1e-30), tl.constexpr(1e-10)
_E0, _E1, _E2, _E3, _E4, _E5 = (tl.constexpr(c) for c in _EXP2[32])
_L9, _L7, _L5, _L3, _L1 = (tl.constexpr(c) for c in _LOG2)
_SQRT_HALF = tl.constexpr(0x3F3504F3)
# adding and taking it away rounds to the nearest whole number, of two the even one
_ROUNDER = tl.constexpr(1.5 * 2.0**23)
N_FORM = 7
_N_FORM = tl.constexpr(N_FORM)
# ρ² <= 1 is below the next float32
MOST = 1 + 2.0**-23


@triton.jit
def exp2(a):
    """2^a for a between -126 and 127."""
    nearest = (a + _ROUNDER) - _ROUNDER
    f = a - nearest
    value = tl.fma(f, _E5, f * 0.0 + _E4)
    value = tl.fma(value, f, f * 0.0 + _E3)
    value = tl.fma(value, f, f * 0.0 + _E2)
    value = tl.fma(value, f, f * 0.0 + _E1)
    value = tl.fma(value, f, f * 0.0 + _E0)
    bits = value.to(tl.int32, bitcast=True) + (nearest.to(tl.int32) << 23)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def log2(a):
    """log2 of normal numbers above 0."""
    bits = a.to(tl.int32, bitcast=True)
    exponent = (bits - _SQRT_HALF) >> 23
    m = (bits - (exponent << 23)).to(tl.float32, bitcast=True)
    s = tl.div_rn(m - 1.0, m + 1.0)
    square = s * s
    value = tl.fma(square, _L9, square * 0.0 + _L7)
    value = tl.fma(value, square, square * 0.0 + _L5)
    value = tl.fma(value, square, square * 0.0 + _L3)
    value = tl.fma(value, square, square * 0.0 + _L1)
    return tl.fma(value, s, exponent.to(tl.float32))


@triton.jit
def body_frame(row, dz, dy, dx):
    """b = R (x - centre)."""
    zero = dz * 0.0
    b0 = tl.fma(zero + tl.load(row + 2), dx, tl.load(row) * dz + tl.load(row + 1) * dy)
    b1 = tl.fma(zero + tl.load(row + 5), dx, tl.load(row + 3) * dz + tl.load(row + 4) * dy)
    b2 = tl.fma(zero + tl.load(row + 8), dx, tl.load(row + 6) * dz + tl.load(row + 7) * dy)
    return b0, b1, b2


@triton.jit
def waves(row, z, y, x, DEGREE: tl.constexpr):
    """-2 log2(e) Σ q_lm Y_lm of unit vectors."""
    zero = z * 0.0
    first = row + _WAVES + _TOP - DEGREE
    total = zero + tl.load(first)
    for i in tl.static_range(DEGREE):
        total = tl.fma(total, z, zero + tl.load(first + 1 + i))
    cosine, sine = x, y
    for m in tl.static_range(1, DEGREE + 1):
        start = first + (_TOP + 1) + 2 * (_TOP + 1) * (m - 1) - m * (m - 1)
        width = _TOP + 1 - m
        a, b = zero + tl.load(start), zero + tl.load(start + width)
        for i in tl.static_range(DEGREE - m):
            a = tl.fma(a, z, zero + tl.load(start + 1 + i))
            b = tl.fma(b, z, zero + tl.load(start + width + 1 + i))
        total = tl.fma(b, sine, tl.fma(a, cosine, total))
        turned = tl.fma(cosine, x, -(sine * y))
        sine = tl.fma(sine, x, cosine * y)
        cosine = turned
    return total


@triton.jit
def squared_rho(row, b0, b1, b2, square, DEGREE: tl.constexpr):
    """ρ² of samples with |b|² = square."""
    inverse = tl.div_rn(square * 0.0 + 1.0, tl.sqrt_rn(tl.maximum(square, _TINY)))
    power = waves(row, b0 * inverse, b1 * inverse, b2 * inverse, DEGREE)
    s0, s1, s2 = b0 * tl.load(row + _AXES), b1 * tl.load(row + _AXES + 1), b2 * tl.load(row + _AXES + 2)
    e = tl.load(row + _EXPONENT)
    if e == 2.0:
        rho = tl.fma(s2, s2, tl.fma(s1, s1, s0 * s0)) * exp2(power)
    else:
        t0, t1, t2 = tl.maximum(tl.abs(s0), _LEAST), tl.maximum(tl.abs(s1), _LEAST), tl.maximum(tl.abs(s2), _LEAST)
        total = exp2(e * log2(t0)) + exp2(e * log2(t1)) + exp2(e * log2(t2))
        rho = exp2(tl.fma(log2(total), square * 0.0 + tl.load(row + _ROOT), power))
    return rho


@triton.jit
def own(
    members, begin, end, centres, rows, bounds, pz, py, px, most, gap,
    DEGREE: tl.constexpr, GAP: tl.constexpr,
):  # fmt: skip
    """ρ² and place in the list, or -1, of the owners of samples at (pz, py, px), float64 µm."""
    zero = (pz + py + px).to(tl.float32) * 0.0
    best, second, distance = zero + most, zero + most, zero
    owner = zero.to(tl.int32) - 1
    for k in range(begin, end):
        i = tl.load(members + k)
        centre, row = centres + 3 * i, rows + _ROW * i
        dz, dy = (pz - tl.load(centre)).to(tl.float32) + zero, (py - tl.load(centre + 1)).to(tl.float32) + zero
        dx = (px - tl.load(centre + 2)).to(tl.float32) + zero
        b0, b1, b2 = body_frame(row, dz, dy, dx)
        s0, s1, s2 = b0 * tl.load(row + _AXES), b1 * tl.load(row + _AXES + 1), b2 * tl.load(row + _AXES + 2)
        nearest = s0 * s0 + s1 * s1 + s2 * s2
        if tl.min(nearest) <= tl.load(bounds + i):
            square = tl.fma(b2, b2, tl.fma(b1, b1, b0 * b0))
            rho = squared_rho(row, b0, b1, b2, square, DEGREE)
            nearer = rho < best
            if GAP:
                second = tl.minimum(second, tl.maximum(best, rho))
                distance = tl.where(nearer, square, distance)
            owner = tl.where(nearer, (k - begin).to(tl.int32), owner)
            best = tl.where(nearer, rho, best)
    if GAP:
        rho = tl.sqrt_rn(best)
        apart = (tl.sqrt_rn(second) - rho) * tl.sqrt_rn(distance)
        owner = tl.where((best > 1.0) | (apart < gap * rho), -1, owner)
    return best, owner
