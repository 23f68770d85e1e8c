"""Definition of the camera in plain torch, in float64: Philox in int64, rejection loops over all voxels with a mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gigascope.kernels.cells import noise_law as law

_MASK = 0xFFFFFFFF


def camera(
    expected: Tensor, sensor: Tensor, key: int, origin: tuple[int, int, int], shape: tuple[int, int, int]
) -> Tensor:
    """See :func:`gigascope.kernels.cells.noise.camera`."""
    values = sensor.tolist()
    index, lateral = addresses(tuple(expected.shape), origin, shape, expected.device)
    rate = expected.double()
    total = torch.zeros_like(rate)
    for acquisition in range(int(values[law.N_AVERAGE])):
        electrons = poisson(rate, index, acquisition, key)
        if values[law.EXCESS] > 1:
            electrons = gamma(electrons, values[law.EXCESS] - 1, index, acquisition, key)
        if values[law.GAIN_SPREAD] > 0 or values[law.OFFSET_SPREAD] > 0:
            first, second = normals(philox(lateral, law.FIXED, 0, key))
            electrons = electrons * (1 + values[law.GAIN_SPREAD] * first) + values[law.OFFSET_SPREAD] * second
        if values[law.READ_NOISE] > 0:
            electrons = electrons + values[law.READ_NOISE] * normals(philox(index, law.READ, acquisition, key))[0]
        total += electrons
    mean = (total / values[law.N_AVERAGE]).clamp(max=values[law.FULL_WELL])
    grey = torch.round(values[law.OFFSET] + values[law.GAIN] * mean)  # torch rounds halves to even
    return grey.clamp(0, values[law.LARGEST]).to(torch.int32).to(torch.uint16)


def addresses(
    block: tuple[int, ...], origin: tuple[int, int, int], shape: tuple[int, int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Linear index of every voxel in the whole image, and of its column in a slice."""
    z, y, x = (torch.arange(o, o + n, device=device) for o, n in zip(origin, block))
    lateral = (y[:, None] * shape[2] + x).expand(block)
    return z[:, None, None] * (shape[1] * shape[2]) + lateral, lateral


def philox(index: Tensor, draw: int, acquisition: int, key: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words of 32 bits for every index, as int64."""
    c0, c1 = index & _MASK, (index >> 32) & _MASK
    c2, c3 = torch.full_like(index, draw), torch.full_like(index, acquisition)
    k0, k1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(law.ROUNDS):
        p0, p1 = c0 * law.M0, c2 * law.M1  # modulo 2^64; the mask makes the shift a logical one
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + law.W0) & _MASK, (k1 + law.W1) & _MASK
    return c0, c1, c2, c3


def uniform(high: Tensor, low: Tensor) -> Tensor:
    """53 bits between 0 and 1, both excluded."""
    return ((high >> 5).double() * 67108864.0 + (low >> 6).double() + 0.5) * 2.0**-53


def normals(words: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Two standard normal numbers from two words."""
    radius = torch.sqrt(-2 * torch.log((words[0].double() + 0.5) * 2.0**-32))
    angle = (words[1].double() + 0.5) * (2 * math.pi * 2.0**-32)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def log_gamma(x: Tensor) -> Tensor:
    """ln Gamma(x) for x >= 1: Stirling's series, after x was raised to 10 or more."""
    product = torch.ones_like(x)
    for _ in range(9):
        low = x < 10
        product = torch.where(low, product * x, product)
        x = torch.where(low, x + 1, x)
    inverse, series = 1 / (x * x), torch.zeros_like(x)
    for term in reversed(law.STIRLING):
        series = series * inverse + term
    return (x - 0.5) * torch.log(x) - x + law.HALF_LOG_2PI + series / x - torch.log(product)


def poisson(rate: Tensor, index: Tensor, acquisition: int, key: int) -> Tensor:
    """Counts as float64."""
    words = philox(index, law.POISSON, acquisition, key)
    small = _inverted(rate.clamp(max=law.INVERSION_BELOW), uniform(words[0], words[1]))
    large, pending = torch.zeros_like(rate), rate >= law.INVERSION_BELOW
    lam = rate.clamp(min=law.INVERSION_BELOW)
    b = 0.931 + 2.53 * torch.sqrt(lam)
    a = -0.059 + 0.02483 * b
    for trial in range(law.MOST_TRIALS):
        if not pending.any():
            break
        words = philox(index, law.POISSON + trial, acquisition, key)
        u, v = uniform(words[0], words[1]) - 0.5, uniform(words[2], words[3])
        us = 0.5 - u.abs()
        k = torch.floor((2 * a / us + b) * u + lam + 0.43)
        quick = (us >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
        refused = (k < 0) | ((us < 0.013) & (v > us))
        left = torch.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (us * us) + b))
        accepted = quick | (~refused & (left <= -lam + k * torch.log(lam) - log_gamma(k.clamp(min=0) + 1)))
        large = torch.where(pending & accepted, k, large)
        pending = pending & ~accepted
    return torch.where(rate < law.INVERSION_BELOW, small, large)


def _inverted(rate: Tensor, u: Tensor) -> Tensor:
    """First count at which the sum of the law passes u."""
    k, p = torch.zeros_like(rate), torch.exp(-rate)
    while (more := (u > p) & (k < 100)).any():
        u = torch.where(more, u - p, u)
        k = k + more
        p = torch.where(more, p * rate / k.clamp(min=1), p)
    return k


def gamma(counts: Tensor, scale: float, index: Tensor, acquisition: int, key: int) -> Tensor:
    """Gamma(counts / scale, scale) where there are counts, else 0."""
    shape = counts.clamp(min=1) / scale
    raised = torch.where(shape < 1, shape + 1, shape)
    d = raised - 1 / 3
    c = 1 / torch.sqrt(9 * d)
    found, pending = torch.zeros_like(counts), counts > 0
    for trial in range(law.MOST_TRIALS):
        if not pending.any():
            break
        words = philox(index, law.GAMMA + trial, acquisition, key)
        normal, u = normals(words)[0], uniform(words[2], words[3])
        v = (1 + c * normal) ** 3
        inside = v > 0
        log_v = torch.log(torch.where(inside, v, 1.0))
        accepted = inside & (torch.log(u) < 0.5 * normal * normal + d - d * v + d * log_v)
        found = torch.where(pending & accepted, d * v, found)
        pending = pending & ~accepted
    words = philox(index, law.GAMMA + law.MOST_TRIALS, acquisition, key)
    boost = torch.where(shape < 1, torch.exp(torch.log(uniform(words[0], words[1])) / shape), 1.0)
    return torch.where(counts > 0, found * boost * scale, 0.0)
