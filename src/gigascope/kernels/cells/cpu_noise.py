"""The camera on the CPU: one voxel after the other, rows over threads."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import prange
from torch import Tensor

from gigascope.kernels.cells import noise_law as law
from gigascope.kernels.parallel import inline_kernel, parallel_kernel

# operations that one acquisition of a voxel is worth, in the unit of `parallel.WORK_PER_THREAD`
VOXEL = 300.0

_MASK, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_M0, _M1, _W0, _W1 = (np.uint64(n) for n in (law.M0, law.M1, law.W0, law.W1))
_ROUNDS, _TRIALS, _LOW = law.ROUNDS, law.MOST_TRIALS, law.INVERSION_BELOW
_POISSON, _GAMMA, _READ, _FIXED = law.POISSON, law.GAMMA, law.READ, law.FIXED
_S0, _S1, _S2, _S3, _S4, _S5 = law.STIRLING
_HALF_LOG_2PI = law.HALF_LOG_2PI
_EXCESS, _READ_NOISE, _GAIN, _OFFSET = law.EXCESS, law.READ_NOISE, law.GAIN, law.OFFSET
_FULL_WELL, _LARGEST, _N_AVERAGE = law.FULL_WELL, law.LARGEST, law.N_AVERAGE
_GAIN_SPREAD, _OFFSET_SPREAD = law.GAIN_SPREAD, law.OFFSET_SPREAD
_TO_53, _TO_32, _TURN = 2.0**-53, 2.0**-32, 2 * math.pi * 2.0**-32
_5, _6 = np.uint64(5), np.uint64(6)


def camera(
    expected: Tensor, sensor: Tensor, key: int, origin: tuple[int, int, int], shape: tuple[int, int, int]
) -> Tensor:
    """See :func:`gigascope.kernels.cells.noise.camera`; `expected` contiguous."""
    out = np.empty(tuple(expected.shape), np.uint16)
    work = VOXEL * out.size * float(sensor[law.N_AVERAGE])
    halves = np.array([key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF], np.uint64)
    _camera(expected.numpy(), sensor.numpy(), halves, np.array(origin), np.array(shape), out, work=work)
    return torch.from_numpy(out)


@inline_kernel
def _philox(index, draw, acquisition, key):
    """Four words of 32 bits as uint64."""
    c0, c1 = np.uint64(index) & _MASK, np.uint64(index) >> _SHIFT
    c2, c3 = np.uint64(draw), np.uint64(acquisition)
    k0, k1 = key[0], key[1]
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _MASK, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@inline_kernel
def _uniform(high, low):
    """53 bits between 0 and 1, both excluded."""
    return (np.float64(high >> _5) * 67108864.0 + np.float64(low >> _6) + 0.5) * _TO_53


@inline_kernel
def _normals(first, second):
    """Two standard normal numbers from two words."""
    radius = math.sqrt(-2.0 * math.log((np.float64(first) + 0.5) * _TO_32))
    angle = (np.float64(second) + 0.5) * _TURN
    return radius * math.cos(angle), radius * math.sin(angle)


@inline_kernel
def _log_gamma(x):
    """ln Gamma(x) for x >= 1: Stirling's series, after x was raised to 10 or more."""
    product = 1.0
    while x < 10.0:
        product *= x
        x += 1.0
    inverse = 1.0 / (x * x)
    series = ((((_S5 * inverse + _S4) * inverse + _S3) * inverse + _S2) * inverse + _S1) * inverse + _S0
    return (x - 0.5) * math.log(x) - x + _HALF_LOG_2PI + series / x - math.log(product)


@inline_kernel
def _poisson(rate, index, acquisition, key):
    """A count as float64."""
    if rate < _LOW:
        a, b, _, _ = _philox(index, _POISSON, acquisition, key)
        u, k, p = _uniform(a, b), 0.0, math.exp(-rate)
        while u > p and k < 100.0:
            u -= p
            k += 1.0
            p *= rate / k
        return k
    b = 0.931 + 2.53 * math.sqrt(rate)
    a = -0.059 + 0.02483 * b
    for trial in range(_TRIALS):
        w0, w1, w2, w3 = _philox(index, _POISSON + trial, acquisition, key)
        u, v = _uniform(w0, w1) - 0.5, _uniform(w2, w3)
        us = 0.5 - abs(u)
        k = math.floor((2.0 * a / us + b) * u + rate + 0.43)
        if us >= 0.07 and v <= 0.9277 - 3.6224 / (b - 2.0):
            return k
        if k < 0.0 or (us < 0.013 and v > us):
            continue
        left = math.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (us * us) + b))
        if left <= -rate + k * math.log(rate) - _log_gamma(k + 1.0):
            return k
    return 0.0


@inline_kernel
def _gamma(count, scale, index, acquisition, key):
    """Gamma(count / scale, scale) for count > 0."""
    shape = count / scale
    d = (shape + 1.0 if shape < 1.0 else shape) - 1.0 / 3.0
    c, found = 1.0 / math.sqrt(9.0 * d), 0.0
    for trial in range(_TRIALS):
        w0, w1, w2, w3 = _philox(index, _GAMMA + trial, acquisition, key)
        normal, u = _normals(w0, w1)[0], _uniform(w2, w3)
        side = 1.0 + c * normal
        v = side * side * side
        if v > 0.0 and math.log(u) < 0.5 * normal * normal + d - d * v + d * math.log(v):
            found = d * v
            break
    if shape < 1.0:
        w0, w1, _, _ = _philox(index, _GAMMA + _TRIALS, acquisition, key)
        found *= math.exp(math.log(_uniform(w0, w1)) / shape)
    return found * scale


@inline_kernel
def _electrons(rate, index, lateral, acquisition, sensor, key):
    """What one acquisition of a voxel reads, in electrons."""
    e = _poisson(rate, index, acquisition, key)
    if sensor[_EXCESS] > 1.0 and e > 0.0:
        e = _gamma(e, sensor[_EXCESS] - 1.0, index, acquisition, key)
    if sensor[_GAIN_SPREAD] > 0.0 or sensor[_OFFSET_SPREAD] > 0.0:
        a, b, _, _ = _philox(lateral, _FIXED, 0, key)
        first, second = _normals(a, b)
        e = e * (1.0 + sensor[_GAIN_SPREAD] * first) + sensor[_OFFSET_SPREAD] * second
    if sensor[_READ_NOISE] > 0.0:
        a, b, _, _ = _philox(index, _READ, acquisition, key)
        e += sensor[_READ_NOISE] * _normals(a, b)[0]
    return e


@inline_kernel
def _grey(electrons, sensor):
    """Grey value, halves to even."""
    value = sensor[_OFFSET] + sensor[_GAIN] * min(electrons, sensor[_FULL_WELL])
    whole = math.floor(value)
    part = value - whole
    if part > 0.5 or (part == 0.5 and whole % 2.0 != 0.0):
        whole += 1.0
    return min(max(whole, 0.0), sensor[_LARGEST])


@parallel_kernel
def _camera(expected, sensor, key, origin, shape, out):
    n_z, n_y, n_x = expected.shape
    n_average = int(sensor[_N_AVERAGE])
    for row in prange(n_z * n_y):
        z, y = row // n_y, row % n_y
        lateral_row = (origin[1] + y) * shape[2] + origin[2]
        index_row = (origin[0] + z) * shape[1] * shape[2] + lateral_row
        for x in range(n_x):
            rate = np.float64(expected[z, y, x])
            total = 0.0
            for acquisition in range(n_average):
                total += _electrons(rate, index_row + x, lateral_row + x, acquisition, sensor, key)
            out[z, y, x] = np.uint16(_grey(total / n_average, sensor))
