"""The camera on the GPU in Triton: a block of voxels per program, rejection loops until its last voxel has accepted."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.cells import noise_law as law
from gigascope.kernels.gpu import n_blocks, on_device_of

BLOCK = 256
WARPS = 4

_M0, _M1, _W0, _W1 = (tl.constexpr(n) for n in (law.M0, law.M1, law.W0, law.W1))
_ROUNDS, _TRIALS, _LOW = tl.constexpr(law.ROUNDS), tl.constexpr(law.MOST_TRIALS), tl.constexpr(law.INVERSION_BELOW)
_POISSON, _GAMMA = tl.constexpr(law.POISSON), tl.constexpr(law.GAMMA)
_READ, _FIXED = tl.constexpr(law.READ), tl.constexpr(law.FIXED)
_S0, _S1, _S2, _S3, _S4, _S5 = (tl.constexpr(term) for term in law.STIRLING)
_HALF_LOG_2PI = tl.constexpr(law.HALF_LOG_2PI)
_EXCESS, _READ_NOISE, _GAIN, _OFFSET = (tl.constexpr(n) for n in (law.EXCESS, law.READ_NOISE, law.GAIN, law.OFFSET))
_FULL_WELL, _LARGEST = tl.constexpr(law.FULL_WELL), tl.constexpr(law.LARGEST)
_GAIN_SPREAD, _OFFSET_SPREAD = tl.constexpr(law.GAIN_SPREAD), tl.constexpr(law.OFFSET_SPREAD)
_TO_53, _TO_32 = tl.constexpr(2.0**-53), tl.constexpr(2.0**-32)
_TURN = tl.constexpr(2 * math.pi * 2.0**-32)


def camera(
    expected: Tensor, sensor: Tensor, key: int, origin: tuple[int, int, int], shape: tuple[int, int, int]
) -> Tensor:
    """See :func:`gigascope.kernels.cells.noise.camera`; `expected` contiguous."""
    out = torch.empty(expected.shape, dtype=torch.int32, device=expected.device)
    halves = torch.tensor([key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF], device=expected.device)
    values = sensor.tolist()
    with on_device_of(expected):
        _camera[(n_blocks(expected.numel(), BLOCK),)](
            expected, sensor.to(expected.device), halves, out, expected.numel(), expected.shape[1], expected.shape[2],
            *origin, shape[1], shape[2],
            N_AVERAGE=int(values[law.N_AVERAGE]), MULTIPLIES=values[law.EXCESS] > 1,
            PATTERN=values[law.GAIN_SPREAD] > 0 or values[law.OFFSET_SPREAD] > 0, READS=values[law.READ_NOISE] > 0,
            B=BLOCK, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return out.to(torch.uint16)


@triton.jit
def _philox(index, draw, acquisition, key):
    """Four words of 32 bits as uint64, for a block of indices."""
    c0, c1 = index & 0xFFFFFFFF, index >> 32
    c2, c3 = tl.zeros_like(index) + draw, tl.zeros_like(index) + acquisition
    k0, k1 = tl.load(key).to(tl.uint64), tl.load(key + 1).to(tl.uint64)
    for _ in tl.static_range(_ROUNDS):
        p0, p1 = c0 * tl.full((1,), _M0, tl.uint64), c2 * tl.full((1,), _M1, tl.uint64)
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


@triton.jit
def _uniform(high, low):
    """53 bits between 0 and 1, both excluded."""
    return ((high >> 5).to(tl.float64) * 67108864.0 + (low >> 6).to(tl.float64) + 0.5) * _TO_53


@triton.jit
def _normals(first, second):
    """Two standard normal numbers from two words."""
    radius = tl.sqrt(-2.0 * tl.log((first.to(tl.float64) + 0.5) * _TO_32))
    angle = (second.to(tl.float64) + 0.5) * tl.full((1,), _TURN, tl.float64)
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def _log_gamma(x):
    """ln Gamma(x) for x >= 1: Stirling's series, after x was raised to 10 or more."""
    product = x * 0.0 + 1.0
    for _ in tl.static_range(9):
        low = x < 10.0
        product = tl.where(low, product * x, product)
        x = tl.where(low, x + 1.0, x)
    inverse = 1.0 / (x * x)
    one = x * 0.0 + 1.0
    series = (((one * _S5 * inverse + one * _S4) * inverse + one * _S3) * inverse + one * _S2) * inverse + one * _S1
    series = series * inverse + one * _S0
    return (x - 0.5) * tl.log(x) - x + one * _HALF_LOG_2PI + series / x - tl.log(product)


@triton.jit
def _inverted(rate, u):
    """First count at which the sum of the law passes u."""
    k, p = rate * 0.0, tl.exp(-rate)
    more = (u > p).to(tl.int32)
    while tl.max(more, axis=0) > 0:
        go = more > 0
        u = tl.where(go, u - p, u)
        k = tl.where(go, k + 1.0, k)
        p = tl.where(go, p * (rate / tl.maximum(k, 1.0)), p)
        more = (go & (u > p) & (k < 100.0)).to(tl.int32)
    return k


@triton.jit
def _rejected(rate, index, acquisition, key):
    """Counts for the rates of 10 or more, 0 for the others."""
    pending = (rate >= _LOW).to(tl.int32)
    lam = tl.maximum(rate, _LOW)
    b = 2.53 * tl.sqrt(lam) + 0.931
    a = 0.02483 * b - 0.059
    found, trial = lam * 0.0, 0
    while (tl.max(pending, axis=0) > 0) & (trial < _TRIALS):
        w0, w1, w2, w3 = _philox(index, _POISSON + trial, acquisition, key)
        u = _uniform(w0, w1) - 0.5
        v = _uniform(w2, w3)
        us = 0.5 - tl.abs(u)
        k = tl.floor((2.0 * a / us + b) * u + lam + 0.43)
        quick = (us >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2.0))
        refused = (k < 0.0) | ((us < 0.013) & (v > us))
        left = tl.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (us * us) + b))
        right = -lam + k * tl.log(lam) - _log_gamma(tl.maximum(k, 0.0) + 1.0)
        accepted = quick | ((left <= right) & (refused == 0))
        found = tl.where((pending > 0) & accepted, k, found)
        pending = tl.where(accepted, 0, pending)
        trial += 1
    return found


@triton.jit
def _gamma(count, scale, index, acquisition, key):
    """Gamma(count / scale, scale) where there are counts, else 0."""
    shape = tl.maximum(count, 1.0) / scale
    d = tl.where(shape < 1.0, shape + 1.0, shape) - 1.0 / (count * 0.0 + 3.0)
    c = 1.0 / tl.sqrt(9.0 * d)
    pending = (count > 0.0).to(tl.int32)
    found, trial = count * 0.0, 0
    while (tl.max(pending, axis=0) > 0) & (trial < _TRIALS):
        w0, w1, w2, w3 = _philox(index, _GAMMA + trial, acquisition, key)
        normal, _ = _normals(w0, w1)
        side = 1.0 + c * normal
        v = side * side * side
        log_v = tl.log(tl.where(v > 0.0, v, 1.0))
        below = tl.log(_uniform(w2, w3)) < 0.5 * normal * normal + d - d * v + d * log_v
        accepted = (v > 0.0) & below
        found = tl.where((pending > 0) & accepted, d * v, found)
        pending = tl.where(accepted, 0, pending)
        trial += 1
    w0, w1, _, _ = _philox(index, _GAMMA + _TRIALS, acquisition, key)
    boost = tl.where(shape < 1.0, tl.exp(tl.log(_uniform(w0, w1)) / shape), 1.0)
    return tl.where(count > 0.0, found * boost * scale, 0.0)


@triton.jit
def _camera(
    expected, sensor, key, out, n, n_y, n_x, origin_z, origin_y, origin_x, image_y, image_x,
    N_AVERAGE: tl.constexpr, MULTIPLIES: tl.constexpr, PATTERN: tl.constexpr, READS: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    exists = at < n
    rate = tl.load(expected + at, mask=exists, other=0).to(tl.float64)
    lateral = ((origin_y + at // n_x % n_y) * image_x + origin_x + at % n_x).to(tl.uint64)
    plane = (image_y + tl.zeros_like(at)) * image_x
    index = ((origin_z + at // (n_x * n_y)) * plane).to(tl.uint64) + lateral
    total = rate * 0.0
    for acquisition in range(N_AVERAGE):
        w0, w1, _, _ = _philox(index, _POISSON, acquisition, key)
        small = _inverted(tl.where(rate < _LOW, rate, 0.0), _uniform(w0, w1))
        e = tl.where(rate < _LOW, small, _rejected(rate, index, acquisition, key))
        if MULTIPLIES:
            e = _gamma(e, tl.load(sensor + _EXCESS) - 1.0, index, acquisition, key)
        if PATTERN:
            w0, w1, _, _ = _philox(lateral, _FIXED, 0, key)
            first, second = _normals(w0, w1)
            e = e * (1.0 + tl.load(sensor + _GAIN_SPREAD) * first) + tl.load(sensor + _OFFSET_SPREAD) * second
        if READS:
            w0, w1, _, _ = _philox(index, _READ, acquisition, key)
            normal, _ = _normals(w0, w1)
            e += tl.load(sensor + _READ_NOISE) * normal
        total += e
    mean = tl.minimum(total / N_AVERAGE, tl.load(sensor + _FULL_WELL))
    value = tl.load(sensor + _OFFSET) + tl.load(sensor + _GAIN) * mean
    whole = tl.floor(value)
    part = value - whole
    odd = whole - 2.0 * tl.floor(whole * 0.5) != 0.0
    whole = tl.where((part > 0.5) | ((part == 0.5) & odd), whole + 1.0, whole)
    whole = tl.minimum(tl.maximum(whole, 0.0), tl.load(sensor + _LARGEST))
    tl.store(out + at, whole.to(tl.int32), mask=exists)
