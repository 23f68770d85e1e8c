"""What the GPU computes once per Gaussian: gradients from the ten sums, and the step of Adam."""

from __future__ import annotations

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gpu import n_blocks, on_device_of

BLOCK = 64


def parameter_gradients(
    log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`gigascope.kernels.gaussians.parameter_gradients`; all contiguous."""
    n = sums.shape[0]
    results = sums.new_empty(n, 3), sums.new_empty(n, 3), sums.new_empty(n, 4), sums.new_empty(n)
    _launch(_parameter_gradients, log_scales, quaternions, amplitudes, sums, *results)
    return results


def adam_(
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    amplitudes: Tensor,
    gradients: Sequence[Tensor],
    first: Tensor,
    second: Tensor,
    steps: Tensor,
    rates: Sequence[float],
    betas: Sequence[float],
    eps: float,
    log_scale_range: Sequence[float],
    mean_range: Sequence[float],
) -> None:
    """See :func:`gigascope.kernels.gaussians.adam_`; all contiguous."""
    tensors = means, log_scales, quaternions, amplitudes, *gradients, first, second, steps
    # differences from 1 and logarithms here: of a float32 0.99 they would be 1e-6 off
    decay = (part for beta in betas for part in (beta, 1 - beta, math.log(beta) if beta > 0 else -1e30))
    numbers = *rates, *decay, eps, *log_scale_range, *mean_range
    _launch(_adam, *tensors, *(float(number) for number in numbers))


def _launch(kernel, first: Tensor, *others: Tensor | float) -> None:
    """BLOCK Gaussians per program."""
    n = first.shape[0]
    if n:
        with on_device_of(first):
            kernel[(n_blocks(n, BLOCK),)](first, *others, n, B=BLOCK, num_warps=2, enable_fp_fusion=True)


@triton.jit
def _parameter_gradients(
    log_scales, quaternions, amplitudes, sums, d_means, d_log_scales, d_quaternions, d_amplitudes, n, B: tl.constexpr
):
    i = tl.program_id(0) * B + tl.arange(0, B)
    ok = i < n
    w = tl.load(quaternions + 4 * i, mask=ok, other=1.0).to(tl.float64)
    x = tl.load(quaternions + 4 * i + 1, mask=ok, other=0.0).to(tl.float64)
    y = tl.load(quaternions + 4 * i + 2, mask=ok, other=0.0).to(tl.float64)
    z = tl.load(quaternions + 4 * i + 3, mask=ok, other=0.0).to(tl.float64)
    length = tl.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / length, x / length, y / length, z / length
    a = tl.load(amplitudes + i, mask=ok, other=0.0).to(tl.float64)
    one = tl.exp(tl.load(log_scales + 3 * i, mask=ok, other=0.0).to(tl.float64))
    two = tl.exp(tl.load(log_scales + 3 * i + 1, mask=ok, other=0.0).to(tl.float64))
    three = tl.exp(tl.load(log_scales + 3 * i + 2, mask=ok, other=0.0).to(tl.float64))
    s = sums + 10 * i
    u = a * tl.load(s + 1, mask=ok, other=0.0) / one
    v = a * tl.load(s + 2, mask=ok, other=0.0) / two
    t = a * tl.load(s + 3, mask=ok, other=0.0) / three
    mean_z = (1 - 2 * (y * y + z * z)) * u + 2 * (x * y - w * z) * v + 2 * (x * z + w * y) * t
    mean_y = 2 * (x * y + w * z) * u + (1 - 2 * (x * x + z * z)) * v + 2 * (y * z - w * x) * t
    mean_x = 2 * (x * z - w * y) * u + 2 * (y * z + w * x) * v + (1 - 2 * (x * x + y * y)) * t
    tl.store(d_means + 3 * i, mean_z.to(tl.float32), mask=ok)
    tl.store(d_means + 3 * i + 1, mean_y.to(tl.float32), mask=ok)
    tl.store(d_means + 3 * i + 2, mean_x.to(tl.float32), mask=ok)
    for k in tl.static_range(3):
        scale = a * tl.load(s + 4 + k, mask=ok, other=0.0)
        tl.store(d_log_scales + 3 * i + k, scale.to(tl.float32), mask=ok)
    g_1 = 2 * a / length * tl.load(s + 7, mask=ok, other=0.0) * (two / three - three / two)
    g_2 = 2 * a / length * tl.load(s + 8, mask=ok, other=0.0) * (three / one - one / three)
    g_3 = 2 * a / length * tl.load(s + 9, mask=ok, other=0.0) * (one / two - two / one)
    tl.store(d_quaternions + 4 * i, (-(x * g_1 + y * g_2 + z * g_3)).to(tl.float32), mask=ok)
    tl.store(d_quaternions + 4 * i + 1, (w * g_1 + y * g_3 - z * g_2).to(tl.float32), mask=ok)
    tl.store(d_quaternions + 4 * i + 2, (w * g_2 + z * g_1 - x * g_3).to(tl.float32), mask=ok)
    tl.store(d_quaternions + 4 * i + 3, (w * g_3 + x * g_2 - y * g_1).to(tl.float32), mask=ok)
    tl.store(d_amplitudes + i, tl.load(s, mask=ok, other=0.0), mask=ok)


@triton.jit
def _moved(parameter, gradient, first, second, rate, beta1, rest1, beta2, rest2, correct1, correct2, eps, ok):
    """Parameters after their step; the running means are written."""
    g = tl.load(gradient, mask=ok, other=0.0)
    m = beta1 * tl.load(first, mask=ok, other=0.0) + rest1 * g
    v = beta2 * tl.load(second, mask=ok, other=0.0) + rest2 * g * g
    tl.store(first, m, mask=ok)
    tl.store(second, v, mask=ok)
    return tl.load(parameter, mask=ok, other=1.0) - rate * (m * correct1) / (tl.sqrt(v * correct2) + eps)


@triton.jit
def _clamped(value, low, high):
    """Within low and high; what is not a number stays so."""
    return tl.where(value < low, low, tl.where(value > high, high, value))


@triton.jit
def _adam(
    means, log_scales, quaternions, amplitudes, d_means, d_log_scales, d_quaternions, d_amplitudes, first, second,
    steps, rate_m, rate_l, rate_q, rate_a, beta1, rest1, log1, beta2, rest2, log2, eps, least, largest,
    low_z, low_y, low_x, high_z, high_y, high_x, n, B: tl.constexpr
):  # fmt: skip
    i = tl.program_id(0) * B + tl.arange(0, B)
    ok = i < n
    step = tl.load(steps + i, mask=ok, other=0) + 1
    tl.store(steps + i, step, mask=ok)
    t = step.to(tl.float64)
    correct1 = (1 / (1 - tl.exp(t * log1))).to(tl.float32)
    correct2 = (1 / (1 - tl.exp(t * log2))).to(tl.float32)
    m, v = first + 11 * i, second + 11 * i
    lows, highs = (low_z, low_y, low_x), (high_z, high_y, high_x)
    for j in tl.static_range(3):
        at, d = means + 3 * i + j, d_means + 3 * i + j
        new = _moved(at, d, m + j, v + j, rate_m, beta1, rest1, beta2, rest2, correct1, correct2, eps, ok)
        tl.store(at, _clamped(new, lows[j], highs[j]), mask=ok)
        at, d = log_scales + 3 * i + j, d_log_scales + 3 * i + j
        new = _moved(at, d, m + 3 + j, v + 3 + j, rate_l, beta1, rest1, beta2, rest2, correct1, correct2, eps, ok)
        tl.store(at, _clamped(new, least, largest), mask=ok)
    q, d = quaternions + 4 * i, d_quaternions + 4 * i
    w = _moved(q, d, m + 6, v + 6, rate_q, beta1, rest1, beta2, rest2, correct1, correct2, eps, ok)
    x = _moved(q + 1, d + 1, m + 7, v + 7, rate_q, beta1, rest1, beta2, rest2, correct1, correct2, eps, ok)
    y = _moved(q + 2, d + 2, m + 8, v + 8, rate_q, beta1, rest1, beta2, rest2, correct1, correct2, eps, ok)
    z = _moved(q + 3, d + 3, m + 9, v + 9, rate_q, beta1, rest1, beta2, rest2, correct1, correct2, eps, ok)
    length = tl.sqrt(w * w + x * x + y * y + z * z)
    tl.store(q, w / length, mask=ok)
    tl.store(q + 1, x / length, mask=ok)
    tl.store(q + 2, y / length, mask=ok)
    tl.store(q + 3, z / length, mask=ok)
    at, d = amplitudes + i, d_amplitudes + i
    new = _moved(at, d, m + 10, v + 10, rate_a, beta1, rest1, beta2, rest2, correct1, correct2, eps, ok)
    tl.store(at, new, mask=ok)
