"""Range coder with adaptive contexts for quantised residuals; encoder and decoder are one loop.

A residual is split, by the class that its surroundings give it (:mod:`.residual_tables`), into a sign, a bucket in
unary, one adaptive low bit, and bits that are nearly uniform. Every decision has two running estimates of its
probability, a fast and a slow one, and is coded with their mean. The range has 56 bits and carries into bytes already
written; G. N. N. Martin, *Range encoding* (Video & Data Recording Conf., Southampton 1979).

Numba keeps the machine code of this file until this file changes: constants that it compiles in are defined here. Inner
functions take arrays one by one, since numba counts a reference each time one is taken out of a tuple.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

# a scalar inside numba, which type checkers do not follow
Int = Any
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

# a block of this side with nothing in it costs one flag
BLOCK = 8

# Classes of spread, ratios of the neighbours to it, and the sum of neighbours up to which both are looked up.
N_CLASSES, N_RATIOS, N_ACTIVITIES = 80, 8, 2048
# Slots of a context, each the probability of one decision.
ZERO, SIGN, UNARY, LOW_BIT, ESCAPE = 0, 1, 4, 24, 32
N_UNARY, N_LOW_BIT, N_ESCAPE, N_SLOTS = 20, 8, 18, 50
# Behind the contexts: flags of blocks, by how many of three neighbours are in use.
FLAGS = N_CLASSES * N_RATIOS * N_SLOTS
N_MODELS = FLAGS + 4
PROBABILITY_BITS = 22

# Neighbours already coded (z, y, x), one voxel away: their errors tell that of the prediction.
NEIGHBOURS = tuple((-1, j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)) + (
    (0, -1, -1),
    (0, -1, 0),
    (0, -1, 1),
    (0, 0, -1),
)
WEIGHT_BITS = 12

_BOTTOM, _TOP = 1 << 48, 1 << 56
_ONE = 1 << PROBABILITY_BITS
_TO_16_BITS = PROBABILITY_BITS + 1 - 16
_LEAST, _MOST = 16, 65520
# 41 decisions of at most 12 bits, and 32 that are not modelled, rounded up
VOXEL_BYTES = 72
# no honest level is larger: a residual of 17 bits less a mean of 17 bits
_LARGEST = 1 << 18

# Running means of what was seen: the first probability counts as 6 observations, later ones as the last 128 and 1024.
# Bytes of the bench crop at bounds of 0, 10 and 100 grey values change by less than 0.1 % with half or twice of each.
PRIOR_COUNT, FAST, SLOW = 6, 128, 1024
_RATES = np.array([[(1 << 16) // min(n + PRIOR_COUNT, limit) for limit in (FAST, SLOW)] for n in range(SLOW)])

# Lower end and width of the range, bytes written or read, and bytes there are to read, -1 when writing.
Coder = tuple[Int, Int, Int, Int]
WRITER: Coder = (0, _TOP - 1, 0, -1)


class Brick(NamedTuple):
    """What is coded and what is known of it. Padded arrays have one more plane before, one row and column all round.

    Attributes
    ----------
    residual : (z, y, x) what to code, or where to put what was decoded
    classes : (z, y, x) expected spread, in quarter octaves of a step
    flags : (z, y, x) / 8, 1 where a block has anything to code
    levels : padded, quantised residuals coded so far
    coded : padded, residuals as decoded so far; empty if no mean is subtracted
    weights : (13,) of the neighbours in their mean, of 2^12; or none, and no mean is subtracted
    around : (3, x) of the row being coded: sum of magnitudes (weights of 12 in all), sum of signs, sum for the mean
    contexts, shifts : tables of the classes
    """

    residual: I32
    classes: U8
    flags: U8
    levels: I32
    coded: I32
    weights: I64
    around: I64
    contexts: I16
    shifts: I64


class Quantiser(NamedTuple):
    """Step and rounding: ``level = sign(r) ((|r| + rounding) // step)``; with a weight on bits, what is worth it.

    Attributes
    ----------
    step, rounding : grey values
    weight : squared grey values that a bit is worth; 0: levels are not changed
    bits : (4096,) bits of a decision of probability (i + 1/2) / 4096; empty without a weight
    worth : (z, y, x) / 8, out: squared error saved by coding a block, less the weight of its bits
    """

    step: int
    rounding: int
    weight: float
    bits: F64
    worth: F64


def reader(data: bytes) -> Coder:
    """State before anything is decoded; the first seven bytes are read, zeros where there are fewer."""
    return int.from_bytes(data[:7].ljust(7, b"\0"), "big"), _TOP - 1, 7, len(data)


@numba.njit(nogil=True, forceinline=True)
def _renormalised(coder: Coder, data: U8) -> Coder:
    """Move whole bytes between the lower end of the range and the data until the range is wide again."""
    low, span, at, end = coder
    while span < _BOTTOM:
        if end >= 0:
            byte = np.int64(0)
            if at < end:
                byte = np.int64(data[at])
            low = low << 8 | byte
        else:
            if low >= _TOP:
                low -= _TOP
                back = at - 1
                while data[back] == 255:
                    data[back] = 0
                    back -= 1
                data[back] += 1
            data[at] = low >> 48
            low = (low & (_BOTTOM - 1)) << 8
        at += 1
        span <<= 8
    return low, span, at, end


@numba.njit(nogil=True, forceinline=True)
def _probability(model: I32, slot: Int) -> Int:
    """Of a 1, of 2^16."""
    i = np.uint64(slot)
    return min(max((np.int64(model[i, 0]) + np.int64(model[i, 1])) >> _TO_16_BITS, _LEAST), _MOST)


@numba.njit(nogil=True, forceinline=True)
def _bit(coder: Coder, data: U8, model: I32, slot: Int, bit: Int) -> tuple[Int, Coder]:
    """Code one decision with the probability of a slot, which learns from it."""
    low, span, at, end = coder
    bound = (span >> 16) * _probability(model, slot)
    if end >= 0:
        bit = low < bound
        if not bit:
            low -= bound
    elif not bit:
        low += bound
    span = bound if bit else span - bound
    i: Int = np.uint64(slot)
    fast, slow, n = np.int64(model[i, 0]), np.int64(model[i, 1]), np.uint64(model[i, 2])
    target = np.int64(_ONE) if bit else np.int64(0)
    model[i, 0] = fast + ((target - fast) * _RATES[n, 0] >> 16)
    model[i, 1] = slow + ((target - slow) * _RATES[n, 1] >> 16)
    model[i, 2] = n + 1 if n < SLOW - 1 else n
    return bit, _renormalised((low, span, at, end), data)


@numba.njit(nogil=True, forceinline=True)
def _uniform(coder: Coder, data: U8, value: Int, n_bits: Int) -> tuple[Int, Coder]:
    """Code a number of `n_bits` equally probable bits, at most 24."""
    low, span, at, end = coder
    span >>= n_bits
    if end >= 0:
        value = min(low // span, (1 << n_bits) - 1)
        low -= value * span
    else:
        low += value * span
    return value, _renormalised((low, span, at, end), data)


@numba.njit(nogil=True)
def _escape(coder: Coder, data: U8, model: I32, first: Int, value: Int) -> tuple[Int, Coder]:
    """Code a number of at most 17 bits: how many bits in unary, then the bits. Exponential Golomb code."""
    n_bits = 0
    while n_bits < N_ESCAPE - 1:
        more, coder = _bit(coder, data, model, first + n_bits, value + 1 >= 2 << n_bits)
        if not more:
            break
        n_bits += 1
    rest, coder = _uniform(coder, data, value + 1 - (1 << n_bits), n_bits)
    return (1 << n_bits) - 1 + rest, coder


@numba.njit(nogil=True, forceinline=True)
def _folded(level: Int, shift: Int) -> Int:
    """Magnitude that follows the sign; where zero is not coded apart, -1 is the mirror image of 0."""
    if level < 0:
        return -level - 1
    return level if shift else level - 1


@numba.njit(nogil=True, forceinline=True)
def _level(coder: Coder, data: U8, model: I32, first: Int, shift: Int, signs: Int, level: Int) -> tuple[Int, Coder]:
    """Code one level with the slots from `first`, `shift` bits of its magnitude apart."""
    if shift == 0:
        something, coder = _bit(coder, data, model, first + ZERO, level != 0)
        if not something:
            return 0, coder
    negative, coder = _bit(coder, data, model, first + SIGN + signs, level < 0)
    magnitude = _folded(level, shift)
    high, bucket = magnitude >> shift, 0
    while bucket < N_UNARY:
        more, coder = _bit(coder, data, model, first + UNARY + bucket, high > bucket)
        if not more:
            break
        bucket += 1
    if bucket == N_UNARY:
        rest, coder = _escape(coder, data, model, first + ESCAPE, high - bucket)
        bucket += rest
    if shift:
        slot = first + LOW_BIT + min(bucket, N_LOW_BIT - 1)
        upper, coder = _bit(coder, data, model, slot, magnitude >> (shift - 1) & 1 == 1)
        rest, coder = _uniform(coder, data, magnitude & ((1 << (shift - 1)) - 1), shift - 1)
        magnitude = (2 * bucket + (1 if upper else 0) << (shift - 1)) + rest
        return (-magnitude - 1 if negative else magnitude), coder
    return (-bucket - 1 if negative else bucket + 1), coder


@numba.njit(nogil=True)
def _look_around(brick: Brick, z: Int, y: Int) -> None:
    """Fill `around` with what the rows and the plane before a row say; the voxel to the left is still to come."""
    n_x = brick.residual.shape[2]
    activity, sign, mean = brick.around[0], brick.around[1], brick.around[2]
    before, under = brick.levels[z + 1, y], brick.levels[z, y + 1]
    under_back, under_front = brick.levels[z, y], brick.levels[z, y + 2]
    for x in range(n_x):
        far = abs(before[x]) + abs(before[x + 2]) + abs(under[x]) + abs(under[x + 2])
        far += abs(under_back[x + 1]) + abs(under_front[x + 1])
        activity[x] = 2 * (abs(before[x + 1]) + abs(under[x + 1])) + far
        sign[x] = (before[x + 1] > 0) - (before[x + 1] < 0) + (under[x + 1] > 0) - (under[x + 1] < 0)
    if len(brick.weights):
        mean[:] = 1 << (WEIGHT_BITS - 1)
        for k in range(len(brick.weights) - 1):
            dz, dy, dx = NEIGHBOURS[k]
            weight, row = brick.weights[k], brick.coded[z + 1 + dz, y + 1 + dy]
            for x in range(n_x):
                mean[x] += weight * row[x + 1 + dx]


@numba.njit(nogil=True, forceinline=True)
def _context(contexts: I16, shifts: I64, expected: Int, activity: Int) -> Int:
    """Context of a class and of what lies around."""
    c = np.uint64(expected)
    while activity >> shifts[c, 1] >= N_ACTIVITIES and c < np.uint64(N_CLASSES - 4):
        c += np.uint64(4)
    return np.int64(contexts[c, np.uint64(min(activity >> shifts[c, 1], N_ACTIVITIES - 1))])


@numba.njit(nogil=True, forceinline=True)
def _quantised(r: Int, step: Int, rounding: Int) -> Int:
    if step == 1:
        return r
    return (r + rounding) // step if r >= 0 else -((rounding - r) // step)


@numba.njit(nogil=True)
def _bits(model: I32, bits: F64, first: Int, shift: Int, signs: Int, level: Int) -> float:
    """About what a level costs now."""
    total = 0.0
    if shift == 0:
        p = _probability(model, first + ZERO) >> 4
        if level == 0:
            return bits[4095 - p]
        total += bits[p]
    p = _probability(model, first + SIGN + signs) >> 4
    total += bits[p] if level < 0 else bits[4095 - p]
    high = _folded(level, shift) >> shift
    for bucket in range(min(high, N_UNARY)):
        total += bits[_probability(model, first + UNARY + bucket) >> 4]
    if high >= N_UNARY:
        return total + shift + 2 * math.log2(high - N_UNARY + 1) + 1
    return total + shift + bits[4095 - (_probability(model, first + UNARY + high) >> 4)]


@numba.njit(nogil=True)
def _worth_it(model: I32, q: Quantiser, first: Int, shift: Int, signs: Int, r: Int) -> tuple[Int, float]:
    """Of the nearest level, the next one to zero, and zero, that with the least error plus weighted bits; its worth."""
    nearest = _quantised(r, q.step, q.rounding)
    best, least = 0, float(r * r) + q.weight * _bits(model, q.bits, first, shift, signs, 0)
    for back in range(min(abs(nearest), 2)):
        level = nearest - back if nearest > 0 else nearest + back
        error = float(r - level * q.step)
        cost = error * error + q.weight * _bits(model, q.bits, first, shift, signs, level)
        if cost < least:
            best, least = level, cost
    return best, float(r * r) - least


@numba.njit(nogil=True)
def _code_run(
    coder: Coder, data: U8, model: I32, brick: Brick, q: Quantiser, z: Int, y: Int, start: Int, stop: Int
) -> Coder:
    """Code the voxels from `start` to `stop` of a row that was looked around at."""
    residual, classes, levels = brick.residual[z, y], brick.classes[z, y], brick.levels[z + 1, y + 1]
    contexts, shifts, activity, sign, before = (
        brick.contexts,
        brick.shifts,
        brick.around[0],
        brick.around[1],
        brick.around[2],
    )
    has_mean, step, rounding, weighted = len(brick.weights) > 0, q.step, q.rounding, q.weight > 0
    last_weight = brick.weights[-1] if has_mean else 0
    coded = brick.coded[z + 1, y + 1] if has_mean else levels
    mean: Int = np.int64(0)
    for x in range(start, stop):
        left = np.int64(levels[x])
        context = _context(contexts, shifts, classes[x], activity[x] + 2 * abs(left))
        first, shift = context * N_SLOTS, shifts[np.uint64(context // N_RATIOS), 0]
        positive = sign[x] + (left > 0) - (left < 0)
        signs = 1 + (positive > 0) - (positive < 0)
        level: Int = np.int64(0)
        if has_mean:
            mean = (before[x] + last_weight * coded[x]) >> WEIGHT_BITS
            mean = min(max(mean, -_LARGEST // 4), _LARGEST // 4)
        if coder[3] < 0:
            r = np.int64(residual[x]) - mean
            level = _quantised(r, step, rounding)
            if weighted:
                level, worth = _worth_it(model, q, first, shift, signs, r)
                q.worth[z // BLOCK, y // BLOCK, x // BLOCK] += worth
        level, coder = _level(coder, data, model, first, shift, signs, level)
        level = min(max(level, -_LARGEST), _LARGEST)
        levels[x + 1] = level
        if has_mean:
            coded[x + 1] = mean + level * step
        if coder[3] >= 0:
            residual[x] = mean + level * step
    return coder


@numba.njit(nogil=True)
def _code_flags(coder: Coder, data: U8, model: I32, flags: U8) -> Coder:
    n_z, n_y, n_x = flags.shape
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                slot = FLAGS
                slot += flags[z - 1, y, x] if z else 0
                slot += flags[z, y - 1, x] if y else 0
                slot += flags[z, y, x - 1] if x else 0
                flag, coder = _bit(coder, data, model, slot, flags[z, y, x] == 1)
                flags[z, y, x] = 1 if flag else 0
    return coder


@numba.njit(nogil=True, cache=True)
def code(coder: Coder, data: U8, model: I32, brick: Brick, q: Quantiser) -> Coder:
    """Code a brick plane by plane, first the flags unless a mean is subtracted; `data` are the bytes.

    `model` is (N_MODELS, 3): fast and slow probability of a 1, of 2^22, and number of observations; written. Returns
    the coder's state, with a range of width 0 if there was too little room to write in.
    """
    n_z, n_y, n_x = brick.residual.shape
    if len(brick.weights) == 0:
        coder = _code_flags(coder, data, model, brick.flags)
    for z in range(n_z):
        for y in range(n_y):
            if coder[3] < 0 and coder[2] + VOXEL_BYTES * n_x + 16 > len(data):
                return coder[0], 0, coder[2], -1
            used = brick.flags[z // BLOCK, y // BLOCK]
            if used.any():
                _look_around(brick, z, y)
            block = 0
            while block < len(used):
                first = block
                while block < len(used) and used[block]:
                    block += 1
                if block > first:
                    coder = _code_run(coder, data, model, brick, q, z, y, first * BLOCK, min(block * BLOCK, n_x))
                block += 1
    return coder


@numba.njit(nogil=True, cache=True)
def finish(coder: Coder, data: U8) -> Int:
    """Write the shortest number within the range; zeros behind it need not be kept. Returns the bytes to keep."""
    low = (coder[0] + _BOTTOM - 1) & ~np.int64(_BOTTOM - 1)
    at = _renormalised((low, np.int64(_BOTTOM >> 1), coder[2], coder[3]), data)[2]
    while at > 0 and data[at - 1] == 0:
        at -= 1
    return at
