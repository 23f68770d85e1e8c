"""Elementary functions from additions, products, quotients and square roots only.

IEEE 754 fixes the result of these operations to the last bit, not that of `exp` or `sin`, which differ between
libraries and processors. What a decoder computes from a file is built from the functions here, in float64, so that it
is the same number everywhere. Errors are a few units in the last place.
"""

from __future__ import annotations

import functools
import math
from decimal import Context, Decimal

import torch
from torch import Tensor

# constants and coefficients, which law_rows takes from here
LN2_HIGH = 0.693147180369123816490  # 32 bits: k times it is exact
LN2_LOW = 1.90821492927058770002e-10
LOG2_E = 1.4426950408889634074
HALF_PI_HIGH = 1.57079632673412561417  # 33 bits
HALF_PI_LOW = 6.07710050650619224932e-11

EXP = [1 / math.factorial(n) for n in range(15)]
SIN = [(-1) ** n / math.factorial(2 * n + 1) for n in range(9)]
COS = [(-1) ** n / math.factorial(2 * n) for n in range(9)]


@functools.lru_cache
def log(value: float) -> float:
    """Natural logarithm of a positive number, correctly rounded."""
    return float(Decimal(value).ln(Context(prec=60)))


def exp(x: Tensor) -> Tensor:
    """Exponential of float64, \\|x\\| < 88."""
    k = torch.round(x * LOG2_E)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    return _polynomial(r, EXP) * _powers(x.device)[k.to(torch.int64) + 128]


def sincos(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of float64, 0 <= x < 8."""
    k = torch.round(x * (2 / math.pi))
    r = (x - k * HALF_PI_HIGH) - k * HALF_PI_LOW
    square = r * r
    sine, cosine = r * _polynomial(square, SIN), _polynomial(square, COS)
    quadrant = k.to(torch.int64) & 3
    swap, negative_sine, negative_cosine = (quadrant & 1) == 1, quadrant >= 2, (quadrant == 1) | (quadrant == 2)
    sine, cosine = torch.where(swap, cosine, sine), torch.where(swap, sine, cosine)
    return torch.where(negative_sine, -sine, sine), torch.where(negative_cosine, -cosine, cosine)


@functools.cache
def _powers(device: torch.device) -> Tensor:
    """Powers of two from -128, exact; a power function need not be."""
    return torch.tensor([2.0**k for k in range(-128, 129)], dtype=torch.float64, device=device)


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
