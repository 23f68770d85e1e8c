"""Which nucleus owns each sample of a tile, on the CPU: vectors along x, one nucleus after the other."""

from __future__ import annotations

import math

import numpy as np

from gigascope.kernels.cells import packing
from gigascope.kernels.parallel import exact_inline_kernel
from gigascope.kernels.simd import (
    add,
    divide,
    exp2,
    fma,
    larger,
    load,
    load_part,
    multiply,
    root,
    smaller,
    splat,
    store_part,
)
from gigascope.kernels.simd_select import log2, where_smaller

LANES = 16
# operations of one evaluation of a sample, in the unit of `parallel.WORK_PER_THREAD`
EVALUATION = 60.0

_AXES, _EXPONENT, _ROOT, _WAVES = packing.INVERSE_AXES, packing.EXPONENT, packing.ROOT, packing.WAVES
_DEGREE = packing.DEGREE
_STARTS = tuple(packing.wave_start(m) for m in range(_DEGREE + 1))
# no vector is normalised, and no power taken, of less than this
_TINY, _LEAST = np.float32(1e-30), np.float32(1e-10)
_ZERO, _ONE = np.float32(0), np.float32(1)


@exact_inline_kernel
def body_frame(row, dz, dy, dx):
    """b = R (x - centre) of the samples of a line; `dx` is a vector."""
    b0 = fma(splat(row[2]), dx, splat(row[0] * dz + row[1] * dy))
    b1 = fma(splat(row[5]), dx, splat(row[3] * dz + row[4] * dy))
    b2 = fma(splat(row[8]), dx, splat(row[6] * dz + row[7] * dy))
    return b0, b1, b2


@exact_inline_kernel
def waves(row, degree, z, y, x):
    """-2 log2(e) Σ q_lm Y_lm of unit vectors."""
    at = _WAVES + _DEGREE - degree
    total = splat(row[at])
    for _ in range(degree):
        at += 1
        total = fma(total, z, splat(row[at]))
    cosine, sine = x, y
    for m in range(1, degree + 1):
        width = _DEGREE + 1 - m
        at = _WAVES + _STARTS[m] + _DEGREE - degree
        a, b = splat(row[at]), splat(row[at + width])
        for _ in range(degree - m):
            at += 1
            a, b = fma(a, z, splat(row[at])), fma(b, z, splat(row[at + width]))
        total = fma(b, sine, fma(a, cosine, total))
        turned = fma(cosine, x, multiply(splat(-_ONE), multiply(sine, y)))
        cosine, sine = turned, fma(sine, x, multiply(cosine, y))
    return total


@exact_inline_kernel
def squared_rho(row, degree, b0, b1, b2):
    """ρ² and |b|² of samples."""
    square = fma(b2, b2, fma(b1, b1, multiply(b0, b0)))
    inverse = divide(splat(_ONE), root(larger(square, splat(_TINY))))
    power = waves(row, degree, multiply(b0, inverse), multiply(b1, inverse), multiply(b2, inverse))
    s0 = multiply(b0, splat(row[_AXES]))
    s1 = multiply(b1, splat(row[_AXES + 1]))
    s2 = multiply(b2, splat(row[_AXES + 2]))
    if row[_EXPONENT] == np.float32(2):
        rho = multiply(fma(s2, s2, fma(s1, s1, multiply(s0, s0))), exp2(power))
    else:
        e = splat(row[_EXPONENT])
        total = add(add(_power(s0, e), _power(s1, e)), _power(s2, e))
        rho = exp2(fma(log2(total), splat(row[_ROOT]), power))
    return rho, square


@exact_inline_kernel
def _power(s, e):
    """|s|^e."""
    size = larger(s, multiply(splat(-_ONE), s))
    return exp2(multiply(e, log2(larger(size, splat(_LEAST)))))


@exact_inline_kernel
def offsets(dx, centre, first, n, step):
    """Signed distances of the samples of a line from a centre along its axis, in float64 until they are short."""
    for i in range(n):
        dx[i] = np.float32((first + i + 0.5) * step - centre)


@exact_inline_kernel
def line_window(form, dz, dy, centre, step, first, begin, end):
    """Samples of a line, from `first` on, that are inside the ellipsoid of bounds: begin and one past the end."""
    beta = form[2] * dz + form[4] * dy
    gamma = (form[0] * dz + 2 * form[1] * dy) * dz + form[3] * dy * dy - form[6]
    inside = beta * beta - form[5] * gamma
    if inside < 0:
        return begin, begin
    half = math.sqrt(inside)
    low = (centre + (-beta - half) / form[5]) / step - 0.5 - first
    high = (centre + (-beta + half) / form[5]) / step - 0.5 - first
    return max(begin, math.ceil(low)), min(end, math.floor(high) + 1)


@exact_inline_kernel
def span(low, high, corner, per, first, size):
    """Samples of a tile, from its first, that one side of a box covers."""
    return max((corner + low) // per - first, 0), min(-(-(corner + high) // per) - first, size)


@exact_inline_kernel
def scratch(size, gap):
    """What :func:`own_tile` fills for tiles of that size: best, second, distance, owner, dx."""
    n = size[0] * size[1] * size[2]
    rare = n if gap > 0 else 1
    return (
        np.empty(n, np.float32), np.empty(rare, np.float32), np.empty(rare, np.float32), np.empty(n, np.float32),
        np.zeros(size[2] + LANES, np.float32),
    )  # fmt: skip


@exact_inline_kernel
def own_tile(
    first, size, step, per, members, boxes, corner, centres, rows, forms, degree, limit, gap,
    best, second, distance, owner, dx,
):  # fmt: skip
    """Fill the tile's arrays, flat and (z, y, x): the owner's place in `members`, or -1.

    Parameters
    ----------
    first, size : (3,) samples of the tile, counted from the field's
    boxes : of the bodies, in parts of samples, `per` to a sample, counted from `corner`, the block's first
    best, second, distance, owner : float32 scratch of at least the tile's size; ρ², that of the second, |b|² of the
        owner (both only with a gap)
    dx : float32 scratch of the tile's width and a vector more
    """
    n = size[0] * size[1] * size[2]
    # ρ² <= 1 is below the next number, and with a gap all that is below the limit counts
    most = np.float32(1.0000001) if gap == 0 else np.float32(limit * limit)
    best[:n] = most
    owner[:n] = np.float32(-1)
    if gap > 0:
        second[:n] = most
        distance[:n] = _ZERO
    for k in range(members.size):
        i = members[k]
        box, centre, row, form = boxes[i], centres[i], rows[i], forms[i]
        z0, z1 = span(box[0], box[1], corner[0], per, first[0], size[0])
        y0, y1 = span(box[2], box[3], corner[1], per, first[1], size[1])
        x0, x1 = span(box[4], box[5], corner[2], per, first[2], size[2])
        offsets(dx, centre[2], first[2], size[2], step[2])
        name = splat(np.float32(k))
        for z in range(z0, z1):
            dz = (first[0] + z + 0.5) * step[0] - centre[0]
            for y in range(y0, y1):
                dy = (first[1] + y + 0.5) * step[1] - centre[1]
                x, end = line_window(form, dz, dy, centre[2], step[2], first[2], x0, x1)
                start = (z * size[1] + y) * size[2]
                while x < end:
                    count = min(LANES, end - x)
                    at = start + x
                    b0, b1, b2 = body_frame(row, np.float32(dz), np.float32(dy), load(dx, x))
                    rho, square = squared_rho(row, degree, b0, b1, b2)
                    old = load_part(best, at, count)
                    if gap > 0:
                        rest = smaller(load_part(second, at, count), larger(old, rho))
                        store_part(second, at, rest, count)
                        kept = where_smaller(rho, old, square, load_part(distance, at, count))
                        store_part(distance, at, kept, count)
                    store_part(owner, at, where_smaller(rho, old, name, load_part(owner, at, count)), count)
                    store_part(best, at, smaller(rho, old), count)
                    x += LANES
    if gap > 0:
        _keep_gap(n, np.float32(gap), best, second, distance, owner)


@exact_inline_kernel
def _keep_gap(n, gap, best, second, distance, owner):
    """Take samples from owners that are outside or too close to a second nucleus."""
    for at in range(n):
        if owner[at] < _ZERO:
            continue
        rho = np.float32(math.sqrt(best[at]))
        apart = (np.float32(math.sqrt(second[at])) - rho) * np.float32(math.sqrt(distance[at]))
        if best[at] > _ONE or apart < gap * rho:
            owner[at] = np.float32(-1)


@exact_inline_kernel
def vote(owner, middle, size, subsample, z, y, x, seen, votes):
    """Place in the list of the nucleus that owns most of a voxel's sub-samples, -1 where fewer than half are owned.

    Of exactly half, the owner of the voxel's centre decides, in `middle`: with them all a ball of 5 voxels is 4 % too
    large, without them as much too small.
    """
    start = (z * subsample * size[1] + y * subsample) * size[2] + x * subsample
    first, same, n_seen, inside = owner[start], True, 0, 0
    for k in range(subsample):
        for j in range(subsample):
            for i in range(subsample):
                same &= owner[start + (k * size[1] + j) * size[2] + i] == first
    if same:
        return int(first)
    for k in range(subsample):
        for j in range(subsample):
            for i in range(subsample):
                found = owner[start + (k * size[1] + j) * size[2] + i]
                if found < 0:
                    continue
                inside += 1
                place = 0
                while place < n_seen and seen[place] != found:
                    place += 1
                if place == n_seen:
                    seen[place], votes[place] = found, 0
                    n_seen += 1
                votes[place] += 1
    if 2 * inside < subsample**3:
        return -1
    if 2 * inside == subsample**3:
        line = size[1] // subsample
        if middle[(z * line + y) * (size[2] // subsample) + x] < 0:
            return -1
    winner = 0
    for place in range(1, n_seen):
        more = votes[place] > votes[winner]
        if more or (votes[place] == votes[winner] and seen[place] < seen[winner]):
            winner = place
    return int(seen[winner])


@exact_inline_kernel
def own_voxels(
    first, size, step, subsample, members, boxes, corner, centres, rows, forms, degree, limit, gap,
    best, second, distance, owner, dx, middle,
):  # fmt: skip
    """Owners of a tile's sub-samples, and in `middle`, where votes can be equal, those of its voxels' centres.

    Arguments as in :func:`own_tile`, in sub-samples.
    """
    for turn in range(subsample % 2, 2):
        per = subsample if turn == 0 else 1
        begin = first[0] // per, first[1] // per, first[2] // per
        number = size[0] // per, size[1] // per, size[2] // per
        spacing = step[0] * per, step[1] * per, step[2] * per
        own_tile(
            begin, number, spacing, per, members, boxes, corner, centres, rows, forms, degree, limit, gap,
            best, second, distance, owner, dx,
        )  # fmt: skip
        if turn == 0:
            n = number[0] * number[1] * number[2]
            middle[:n] = owner[:n]
