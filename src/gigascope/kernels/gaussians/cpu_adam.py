"""What the CPU computes once per Gaussian: gradients from the ten sums, and the step of Adam."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import prange
from torch import Tensor

from gigascope.kernels.parallel import inline_kernel, parallel_kernel

# operations for one Gaussian
WORK = 300


def parameter_gradients(
    log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`gigascope.kernels.gaussians.parameter_gradients`; all contiguous."""
    n = sums.shape[0]
    results = sums.new_empty(n, 3), sums.new_empty(n, 3), sums.new_empty(n, 4), sums.new_empty(n)
    arrays = (tensor.detach().numpy() for tensor in (log_scales, quaternions, amplitudes, sums, *results))
    _parameter_gradients(*arrays, work=WORK * n)
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
    arrays = (tensor.detach().numpy() for tensor in tensors)
    per_column = np.repeat(np.array(rates, np.float64), (3, 3, 4, 1))
    ranges = np.array(mean_range, np.float64).reshape(2, 3), np.array(log_scale_range, np.float64)
    _adam(*arrays, per_column, betas[0], betas[1], eps, *ranges, work=WORK * means.shape[0])


@parallel_kernel
def _parameter_gradients(log_scales, quaternions, amplitudes, sums, d_means, d_log_scales, d_quaternions, d_amplitudes):
    for i in prange(sums.shape[0]):
        w, x = np.float64(quaternions[i, 0]), np.float64(quaternions[i, 1])
        y, z = np.float64(quaternions[i, 2]), np.float64(quaternions[i, 3])
        length = math.sqrt(w * w + x * x + y * y + z * z)
        w, x, y, z = w / length, x / length, y / length, z / length
        a = np.float64(amplitudes[i])
        one, two = math.exp(np.float64(log_scales[i, 0])), math.exp(np.float64(log_scales[i, 1]))
        three = math.exp(np.float64(log_scales[i, 2]))
        u, v, t = a * sums[i, 1] / one, a * sums[i, 2] / two, a * sums[i, 3] / three
        d_means[i, 0] = (1 - 2 * (y * y + z * z)) * u + 2 * (x * y - w * z) * v + 2 * (x * z + w * y) * t
        d_means[i, 1] = 2 * (x * y + w * z) * u + (1 - 2 * (x * x + z * z)) * v + 2 * (y * z - w * x) * t
        d_means[i, 2] = 2 * (x * z - w * y) * u + 2 * (y * z + w * x) * v + (1 - 2 * (x * x + y * y)) * t
        for k in range(3):
            d_log_scales[i, k] = a * sums[i, 4 + k]
        g1 = a * sums[i, 7] * (two / three - three / two) * 2 / length
        g2 = a * sums[i, 8] * (three / one - one / three) * 2 / length
        g3 = a * sums[i, 9] * (one / two - two / one) * 2 / length
        d_quaternions[i, 0] = -(x * g1 + y * g2 + z * g3)
        d_quaternions[i, 1] = w * g1 + y * g3 - z * g2
        d_quaternions[i, 2] = w * g2 + z * g1 - x * g3
        d_quaternions[i, 3] = w * g3 + x * g2 - y * g1
        d_amplitudes[i] = sums[i, 0]


@inline_kernel
def _moved(parameter, gradient, first, second, k, rate, beta1, beta2, correct1, correct2, eps):
    """One parameter after its step; its running means are written."""
    g = np.float64(gradient)
    m = beta1 * np.float64(first[k]) + (1 - beta1) * g
    v = beta2 * np.float64(second[k]) + (1 - beta2) * g * g
    first[k], second[k] = m, v
    return np.float64(parameter) - rate * (m * correct1) / (math.sqrt(v * correct2) + eps)


@inline_kernel
def _clamped(value, low, high):
    """Within low and high; what is not a number stays so."""
    if value < low:
        return low
    return high if value > high else value


@parallel_kernel
def _adam(
    means, log_scales, quaternions, amplitudes, d_means, d_log_scales, d_quaternions, d_amplitudes, first, second,
    steps, rates, beta1, beta2, eps, mean_range, log_scale_range
):  # fmt: skip
    for i in prange(means.shape[0]):
        steps[i] += 1
        t = np.float64(steps[i])
        decay = beta1, beta2, 1 / (1 - beta1**t), 1 / (1 - beta2**t), eps
        m, v = first[i], second[i]
        for j in range(3):
            mean = _moved(means[i, j], d_means[i, j], m, v, j, rates[j], *decay)
            means[i, j] = _clamped(mean, mean_range[0, j], mean_range[1, j])
            log_scale = _moved(log_scales[i, j], d_log_scales[i, j], m, v, 3 + j, rates[3 + j], *decay)
            log_scales[i, j] = _clamped(log_scale, log_scale_range[0], log_scale_range[1])
        w = _moved(quaternions[i, 0], d_quaternions[i, 0], m, v, 6, rates[6], *decay)
        x = _moved(quaternions[i, 1], d_quaternions[i, 1], m, v, 7, rates[7], *decay)
        y = _moved(quaternions[i, 2], d_quaternions[i, 2], m, v, 8, rates[8], *decay)
        z = _moved(quaternions[i, 3], d_quaternions[i, 3], m, v, 9, rates[9], *decay)
        per_length = 1 / math.sqrt(w * w + x * x + y * y + z * z)
        quaternions[i, 0], quaternions[i, 1] = w * per_length, x * per_length
        quaternions[i, 2], quaternions[i, 3] = y * per_length, z * per_length
        amplitudes[i] = _moved(amplitudes[i], d_amplitudes[i], m, v, 10, rates[10], *decay)
