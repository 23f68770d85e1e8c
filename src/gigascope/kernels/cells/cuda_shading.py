"""Brightness inside nuclei in Triton: the operations of `cpu_shading` one by one."""

from __future__ import annotations

import triton
import triton.language as tl

from gigascope.kernels.cells import packing
from gigascope.kernels.cells.cuda_ownership import body_frame, exp2, log2, own
from gigascope.kernels.cells.table import CROP, CROP_SPACING_UM, N_NUCLEOLI

_ROW = tl.constexpr(packing.N_SHAPE)
_INTENSITY, _SIGMA, _RIM = (tl.constexpr(c) for c in (packing.INTENSITY, packing.SIGMA, packing.RIM))
_GAMMA, _NUCLEOLI, _OCTAVE = (tl.constexpr(c) for c in (packing.GAMMA, packing.NUCLEOLI, packing.OCTAVE))
_N_OCTAVE, _N_NUCLEOLI = tl.constexpr(packing.N_OCTAVE), tl.constexpr(N_NUCLEOLI)
_P0, _P1, _P2 = (tl.constexpr(p) for p in packing.AXES)
_MIX0, _MIX1 = (tl.constexpr(m) for m in packing.MIX)
_BITS, _COMPONENT = tl.constexpr(packing.COMPONENT_BITS), tl.constexpr((1 << packing.COMPONENT_BITS) - 1)
_MIDDLE = tl.constexpr(packing.COMPONENT_MIDDLE)
_SMALL, _LEAST_POWER = tl.constexpr(1e-12), tl.constexpr(-100.0)
_RIM_RATE, _DEPTH = tl.constexpr(packing.RIM_RATE), tl.constexpr(packing.NUCLEOLUS_DEPTH)
_PER_EDGE = tl.constexpr(1 / packing.NUCLEOLUS_EDGE_UM)
_CROP, _PER_SPACING, _CROP_MIDDLE = (tl.constexpr(n) for n in (CROP, 1 / CROP_SPACING_UM, (CROP - 1) / 2))


@triton.jit
def _corner(word, d0, d1, d2, middle):
    word = word ^ (word >> 16)
    word = word * _MIX0
    word = word ^ (word >> 15)
    word = word * _MIX1
    word = word ^ (word >> 15)
    g0 = (word & _COMPONENT).to(tl.float32)
    g1 = ((word >> _BITS) & _COMPONENT).to(tl.float32)
    g2 = ((word >> (2 * _BITS)) & _COMPONENT).to(tl.float32)
    return tl.fma(g2, d2, tl.fma(g1, d1, tl.fma(g0, d0, middle)))


@triton.jit
def _fade(t):
    zero = t * 0.0
    inner = tl.fma(t, tl.fma(t, zero + 6.0, zero - 15.0), zero + 10.0)
    return t * t * t * inner


@triton.jit
def _between(a, b, t):
    return tl.fma(t, b - a, a)


@triton.jit
def _plane(h0, d0, h1, k1, d1, e1, h2, k2, d2, e2, u1, u2):
    middle = d0 * 0.0 - _MIDDLE
    a = middle * d0
    near, far = tl.fma(middle, d1, a), tl.fma(middle, e1, a)
    b, c = h0 + h1, h0 + k1
    n0 = _corner(b + h2, d0, d1, d2, tl.fma(middle, d2, near))
    n1 = _corner(b + k2, d0, d1, e2, tl.fma(middle, e2, near))
    n2 = _corner(c + h2, d0, e1, d2, tl.fma(middle, d2, far))
    n3 = _corner(c + k2, d0, e1, e2, tl.fma(middle, e2, far))
    return _between(_between(n0, n1, u2), _between(n2, n3, u2), u1)


@triton.jit
def _lattice(cell, prime):
    return cell.to(tl.int32).to(tl.uint32, bitcast=True) * prime


@triton.jit
def noise(look, keys, b0, b1, b2, OCTAVES: tl.constexpr):
    """Gradient noise of unit variance at points of the body frame."""
    zero = b0 * 0.0
    total = zero
    for octave in tl.static_range(OCTAVES):
        at = look + _OCTAVE + _N_OCTAVE * octave
        frequency = zero + tl.load(at)
        p0 = tl.fma(b0, frequency, zero + tl.load(at + 1))
        p1 = tl.fma(b1, frequency, zero + tl.load(at + 2))
        p2 = tl.fma(b2, frequency, zero + tl.load(at + 3))
        f0, f1, f2 = tl.floor(p0), tl.floor(p1), tl.floor(p2)
        d0, d1, d2 = p0 - f0, p1 - f1, p2 - f2
        h0 = _lattice(f0, _P0) + tl.load(keys + octave).to(tl.uint32, bitcast=True)
        h1, h2 = _lattice(f1, _P1), _lattice(f2, _P2)
        e0, e1, e2 = d0 - 1.0, d1 - 1.0, d2 - 1.0
        u0, u1, u2 = _fade(d0), _fade(d1), _fade(d2)
        k1, k2 = h1 + _P1, h2 + _P2
        low = _plane(h0, d0, h1, k1, d1, e1, h2, k2, d2, e2, u1, u2)
        high = _plane(h0 + _P0, e0, h1, k1, d1, e1, h2, k2, d2, e2, u1, u2)
        total = tl.fma(_between(low, high, u0), zero + tl.load(at + 4), total)
    return total


@triton.jit
def _nucleolus(at, radius, b0, b1, b2):
    d0, d1, d2 = b0 - tl.load(at), b1 - tl.load(at + 1), b2 - tl.load(at + 2)
    away = tl.sqrt_rn(tl.fma(d2, d2, tl.fma(d1, d1, d0 * d0)))
    t = tl.fma(radius - away, away * 0.0 + _PER_EDGE, away * 0.0 + 0.5)
    t = tl.minimum(tl.maximum(t, 0.0), 1.0)
    step = t * t * tl.fma(t, away * 0.0 - 2.0, away * 0.0 + 3.0)
    return tl.fma(step, away * 0.0 - _DEPTH, away * 0.0 + 1.0)


@triton.jit
def _rim(amplitude, rho, b0, b1, b2):
    size = tl.sqrt_rn(tl.fma(b2, b2, tl.fma(b1, b1, b0 * b0)))
    away = tl.div_rn(size, tl.sqrt_rn(tl.maximum(rho, _SMALL))) - size
    power = tl.maximum(away * _RIM_RATE, _LEAST_POWER)
    return tl.fma(size * 0.0 + amplitude, exp2(power), size * 0.0 + 1.0)


@triton.jit
def _along(b):
    """Sample of a crop below a place, and how far beyond it."""
    at = tl.fma(b, b * 0.0 + _PER_SPACING, b * 0.0 + _CROP_MIDDLE)
    at = tl.minimum(tl.maximum(at, 0.0), _CROP - 1.0)
    cell = tl.minimum(at.to(tl.int32), _CROP - 2)
    return cell, at - cell.to(tl.float32)


@triton.jit
def _pair(library, at, t):
    a, b = tl.load(library + at).to(tl.float32), tl.load(library + at + 1).to(tl.float32)
    return a + t * (b - a)


@triton.jit
def _library(crop, gamma, library, b0, b1, b2):
    i, z = _along(b0)
    j, y = _along(b1)
    k, x = _along(b2)
    at = ((crop.to(tl.int64) * _CROP + i) * _CROP + j) * _CROP + k
    v00, v01 = _pair(library, at, x), _pair(library, at + _CROP, x)
    at += _CROP * _CROP
    v10, v11 = _pair(library, at, x), _pair(library, at + _CROP, x)
    low, high = v00 + y * (v01 - v00), v10 + y * (v11 - v10)
    value = tl.maximum(low + z * (high - low), 0.0)
    power = tl.maximum(gamma * log2(tl.maximum(value, _SMALL)), _LEAST_POWER)
    return tl.where(gamma == 1.0, value, exp2(power))


@triton.jit
def shade(look, keys, crop, library, rho, b0, b1, b2, OCTAVES: tl.constexpr):
    """Brightness of samples with ρ² = rho."""
    value = b0 * 0.0 + tl.load(look + _INTENSITY)
    sigma, rim = tl.load(look + _SIGMA), tl.load(look + _RIM)
    if crop >= 0:
        value = value * _library(crop, tl.load(look + _GAMMA), library, b0, b1, b2)
    else:
        if sigma != 0.0:
            waves = tl.fma(noise(look, keys, b0, b1, b2, OCTAVES), b0 * 0.0 + sigma, b0 * 0.0 + 1.0)
            value = value * tl.maximum(waves, 0.0)
    if rim != 0.0:
        value = value * _rim(rim, rho, b0, b1, b2)
    for spot in tl.static_range(_N_NUCLEOLI):
        radius = tl.load(look + _NUCLEOLI + 4 * spot + 3)
        if radius > 0.0:
            value = value * _nucleolus(look + _NUCLEOLI + 4 * spot, radius, b0, b1, b2)
    return value


@triton.jit
def shade_tiles(
    starts, members, centres, rows, bounds, steps, looks, keys, crops, library, out,
    first_z, first_y, first_x, n_z, n_y, n_x, tiles_y, tiles_x, most, gap,
    OCTAVES: tl.constexpr, DEGREE: tl.constexpr, GAP: tl.constexpr, Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr,
):  # fmt: skip
    """Brightness of one tile of samples."""
    tile = tl.program_id(0)
    begin, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    if begin == end:
        return
    v = tl.arange(0, Z * Y * X)
    z, y, x = v // (Y * X), v // X % Y, v % X
    z, y, x = tile // (tiles_x * tiles_y) * Z + z, tile // tiles_x % tiles_y * Y + y, tile % tiles_x * X + x
    pz = ((first_z + z).to(tl.float64) + 0.5) * tl.load(steps)
    py = ((first_y + y).to(tl.float64) + 0.5) * tl.load(steps + 1)
    px = ((first_x + x).to(tl.float64) + 0.5) * tl.load(steps + 2)
    best, owner = own(members, begin, end, centres, rows, bounds, pz, py, px, most, gap, DEGREE, GAP)
    value = best * 0.0
    for k in range(begin, end):
        mine = owner == k - begin
        if tl.sum(mine.to(tl.int32)) > 0:
            i = tl.load(members + k)
            centre = centres + 3 * i
            dz, dy = (pz - tl.load(centre)).to(tl.float32), (py - tl.load(centre + 1)).to(tl.float32)
            dx = (px - tl.load(centre + 2)).to(tl.float32)
            b0, b1, b2 = body_frame(rows + _ROW * i, dz, dy, dx)
            look = looks + (_OCTAVE + _N_OCTAVE * OCTAVES) * i
            shaded = shade(look, keys + OCTAVES * i, tl.load(crops + i), library, best, b0, b1, b2, OCTAVES)
            value = tl.where(mine, shaded, value)
    exists = (z < n_z) & (y < n_y) & (x < n_x)
    tl.store(out + (z.to(tl.int64) * n_y + y) * n_x + x, value, mask=exists)
