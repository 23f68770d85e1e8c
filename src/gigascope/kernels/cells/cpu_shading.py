"""Brightness inside nuclei on the CPU: texture, rim and nucleoli of the samples that a nucleus owns."""

from __future__ import annotations

import numpy as np

from gigascope.kernels.cells import packing
from gigascope.kernels.cells.cpu_ownership import LANES, body_frame, line_window, offsets, span
from gigascope.kernels.cells.table import CROP, CROP_SPACING_UM, N_NUCLEOLI
from gigascope.kernels.parallel import exact_inline_kernel
from gigascope.kernels.simd import (
    divide,
    down,
    exp2,
    fma,
    larger,
    load,
    load_part,
    multiply,
    root,
    smaller,
    splat,
    store,
    store_part,
    subtract,
)
from gigascope.kernels.simd_integer import (
    add_integers,
    and_integers,
    multiply_integers,
    shift_right,
    splat_integer,
    to_floats,
    to_integers,
    xor_integers,
)
from gigascope.kernels.simd_select import any_equal, first_lanes_or, log2, where_equal

_INTENSITY, _SIGMA, _RIM, _GAMMA = packing.INTENSITY, packing.SIGMA, packing.RIM, packing.GAMMA
_NUCLEOLI, _OCTAVE, _N_OCTAVE = packing.NUCLEOLI, packing.OCTAVE, packing.N_OCTAVE
_P0, _P1, _P2 = (np.int32(p) for p in packing.AXES)
_MIX0, _MIX1 = (np.int32(np.uint32(m).view(np.int32)) for m in packing.MIX)
_BITS, _COMPONENT = np.int32(packing.COMPONENT_BITS), np.int32((1 << packing.COMPONENT_BITS) - 1)
_MIDDLE = np.float32(packing.COMPONENT_MIDDLE)
_S15, _S16 = np.int32(15), np.int32(16)
_0, _1, _6, _10, _15 = (np.float32(n) for n in (0, 1, 6, 10, 15))
_HALF, _2, _3 = np.float32(0.5), np.float32(2), np.float32(3)
_SMALL, _LEAST_POWER = np.float32(1e-12), np.float32(-100)
_RIM_RATE, _DEPTH = np.float32(packing.RIM_RATE), np.float32(packing.NUCLEOLUS_DEPTH)
_PER_EDGE = np.float32(1 / packing.NUCLEOLUS_EDGE_UM)
_CROP, _PER_SPACING, _CROP_MIDDLE = CROP, np.float32(1 / CROP_SPACING_UM), np.float32((CROP - 1) / 2)
_CROP_LAST = np.float32(CROP - 1)


@exact_inline_kernel
def _mix(word):
    word = xor_integers(word, shift_right(word, splat_integer(_S16)))
    word = multiply_integers(word, splat_integer(_MIX0))
    word = xor_integers(word, shift_right(word, splat_integer(_S15)))
    word = multiply_integers(word, splat_integer(_MIX1))
    return xor_integers(word, shift_right(word, splat_integer(_S15)))


@exact_inline_kernel
def _corner(word, d0, d1, d2, middle):
    """Gradient of a lattice point, from its bits, times the way from it."""
    word = _mix(word)
    mask, bits = splat_integer(_COMPONENT), splat_integer(_BITS)
    g0 = to_floats(and_integers(word, mask))
    word = shift_right(word, bits)
    g1 = to_floats(and_integers(word, mask))
    g2 = to_floats(and_integers(shift_right(word, bits), mask))
    return fma(g2, d2, fma(g1, d1, fma(g0, d0, middle)))


@exact_inline_kernel
def _fade(t):
    """t³ (t (6 t - 15) + 10)."""
    inner = fma(t, fma(t, splat(_6), splat(-_15)), splat(_10))
    return multiply(multiply(multiply(t, t), t), inner)


@exact_inline_kernel
def _between(a, b, t):
    return fma(t, subtract(b, a), a)


@exact_inline_kernel
def noise(look, keys, b0, b1, b2):
    """Gradient noise of unit variance at points of the body frame."""
    total = splat(_0)
    one = splat(_1)
    for octave in range(keys.size):
        at = _OCTAVE + _N_OCTAVE * octave
        frequency = splat(look[at])
        p0 = fma(b0, frequency, splat(look[at + 1]))
        p1 = fma(b1, frequency, splat(look[at + 2]))
        p2 = fma(b2, frequency, splat(look[at + 3]))
        f0, f1, f2 = down(p0), down(p1), down(p2)
        d0, d1, d2 = subtract(p0, f0), subtract(p1, f1), subtract(p2, f2)
        h0 = add_integers(multiply_integers(to_integers(f0), splat_integer(_P0)), splat_integer(keys[octave]))
        h1 = multiply_integers(to_integers(f1), splat_integer(_P1))
        h2 = multiply_integers(to_integers(f2), splat_integer(_P2))
        e0, e1, e2 = subtract(d0, one), subtract(d1, one), subtract(d2, one)
        u0, u1, u2 = _fade(d0), _fade(d1), _fade(d2)
        k1, k2 = add_integers(h1, splat_integer(_P1)), add_integers(h2, splat_integer(_P2))
        low = _plane(h0, d0, h1, k1, d1, e1, h2, k2, d2, e2, u1, u2)
        high = _plane(add_integers(h0, splat_integer(_P0)), e0, h1, k1, d1, e1, h2, k2, d2, e2, u1, u2)
        total = fma(_between(low, high, u0), splat(look[at + 4]), total)
    return total


@exact_inline_kernel
def _plane(h0, d0, h1, k1, d1, e1, h2, k2, d2, e2, u1, u2):
    """The four corners of a cell with the same first index, interpolated."""
    middle = splat(-_MIDDLE)
    a, b = multiply(middle, d0), add_integers(h0, h1)
    c = add_integers(h0, k1)
    near, far = fma(middle, d1, a), fma(middle, e1, a)
    n0 = _corner(add_integers(b, h2), d0, d1, d2, fma(middle, d2, near))
    n1 = _corner(add_integers(b, k2), d0, d1, e2, fma(middle, e2, near))
    n2 = _corner(add_integers(c, h2), d0, e1, d2, fma(middle, d2, far))
    n3 = _corner(add_integers(c, k2), d0, e1, e2, fma(middle, e2, far))
    return _between(_between(n0, n1, u2), _between(n2, n3, u2), u1)


@exact_inline_kernel
def _nucleolus(look, at, b0, b1, b2):
    """Factor of one nucleolus: down to its depth inside, smooth over its edge."""
    d0, d1, d2 = subtract(b0, splat(look[at])), subtract(b1, splat(look[at + 1])), subtract(b2, splat(look[at + 2]))
    away = root(fma(d2, d2, fma(d1, d1, multiply(d0, d0))))
    t = fma(subtract(splat(look[at + 3]), away), splat(_PER_EDGE), splat(_HALF))
    t = smaller(larger(t, splat(_0)), splat(_1))
    step = multiply(multiply(t, t), fma(t, splat(-_2), splat(_3)))
    return fma(step, splat(-_DEPTH), splat(_1))


@exact_inline_kernel
def _rim(amplitude, rho, b0, b1, b2):
    """1 + A exp(-(1 - ρ) r / length), with (1 - ρ) r = |b| / ρ - |b| and `rho` its square."""
    size = root(fma(b2, b2, fma(b1, b1, multiply(b0, b0))))
    away = subtract(divide(size, root(larger(rho, splat(_SMALL)))), size)
    power = larger(multiply(away, splat(_RIM_RATE)), splat(_LEAST_POWER))
    return fma(splat(amplitude), exp2(power), splat(_1))


@exact_inline_kernel
def _library(crop, gamma, library, halves, b0, b1, b2, lanes):
    """Trilinear value of a crop to the power gamma; beyond its faces their values go on."""
    middle, last = splat(_CROP_MIDDLE), splat(_CROP_LAST)
    for axis, b in enumerate((b0, b1, b2)):
        at = fma(b, splat(_PER_SPACING), middle)
        store(lanes, axis * LANES, smaller(larger(at, splat(_0)), last))
    for lane in range(LANES):
        z, y, x = lanes[lane], lanes[LANES + lane], lanes[2 * LANES + lane]
        i, j, k = min(int(z), _CROP - 2), min(int(y), _CROP - 2), min(int(x), _CROP - 2)
        z, y, x = z - np.float32(i), y - np.float32(j), x - np.float32(k)
        at = ((np.int64(crop) * _CROP + i) * _CROP + j) * _CROP + k
        v00 = _mean(halves[library[at]], halves[library[at + 1]], x)
        v01 = _mean(halves[library[at + _CROP]], halves[library[at + _CROP + 1]], x)
        at += _CROP * _CROP
        v10 = _mean(halves[library[at]], halves[library[at + 1]], x)
        v11 = _mean(halves[library[at + _CROP]], halves[library[at + _CROP + 1]], x)
        lanes[lane] = _mean(_mean(v00, v01, y), _mean(v10, v11, y), z)
    value = larger(load(lanes, 0), splat(_0))
    if gamma == _1:
        return value
    power = larger(multiply(splat(gamma), log2(larger(value, splat(_SMALL)))), splat(_LEAST_POWER))
    return exp2(power)


@exact_inline_kernel
def _mean(a, b, t):
    return a + t * (b - a)


@exact_inline_kernel
def shade(look, keys, crop, library, halves, rho, b0, b1, b2, lanes):
    """Brightness of samples with ρ² = rho."""
    value = splat(look[_INTENSITY])
    if crop >= 0:
        value = multiply(value, _library(crop, look[_GAMMA], library, halves, b0, b1, b2, lanes))
    elif look[_SIGMA] != _0:
        waves = fma(noise(look, keys, b0, b1, b2), splat(look[_SIGMA]), splat(_1))
        value = multiply(value, larger(waves, splat(_0)))
    if look[_RIM] != _0:
        value = multiply(value, _rim(look[_RIM], rho, b0, b1, b2))
    for spot in range(N_NUCLEOLI):
        at = _NUCLEOLI + 4 * spot
        if look[at + 3] > _0:
            value = multiply(value, _nucleolus(look, at, b0, b1, b2))
    return value


@exact_inline_kernel
def shade_tile(
    first, size, step, members, boxes, corner, shape, centres, rows, forms, best, owner, dx,
    looks, keys, crop, library, halves, out,
):  # fmt: skip
    """Write the brightness of a tile's owned samples into the block, which is flat and 0 elsewhere."""
    lanes = np.empty(3 * LANES, np.float32)
    nobody = splat(np.float32(-2))
    for k in range(members.size):
        i = members[k]
        box, centre, row, form = boxes[i], centres[i], rows[i], forms[i]
        z0, z1 = span(box[0], box[1], corner[0], 1, first[0], size[0])
        y0, y1 = span(box[2], box[3], corner[1], 1, first[1], size[1])
        x0, x1 = span(box[4], box[5], corner[2], 1, first[2], size[2])
        offsets(dx, centre[2], first[2], size[2], step[2])
        name = splat(np.float32(k))
        for z in range(z0, z1):
            dz = (first[0] + z + 0.5) * step[0] - centre[0]
            for y in range(y0, y1):
                dy = (first[1] + y + 0.5) * step[1] - centre[1]
                x, end = line_window(form, dz, dy, centre[2], step[2], first[2], x0, x1)
                start = (z * size[1] + y) * size[2]
                line = first[0] - corner[0] + z, first[1] - corner[1] + y
                target = (line[0] * shape[1] + line[1]) * shape[2] + first[2] - corner[2]
                while x < end:
                    count = min(LANES, end - x)
                    at = start + x
                    mine = first_lanes_or(load_part(owner, at, count), count, nobody)
                    if any_equal(mine, name):
                        b0, b1, b2 = body_frame(row, np.float32(dz), np.float32(dy), load(dx, x))
                        rho = load_part(best, at, count)
                        value = shade(looks[i], keys[i], crop[i], library, halves, rho, b0, b1, b2, lanes)
                        old = load_part(out, target + x, count)
                        store_part(out, target + x, where_equal(mine, name, value, old), count)
                    x += LANES
