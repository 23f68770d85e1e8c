"""Total-variation ops on the CPU: one pass over memory each, parallel over planes or rows, vectors along y."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import prange
from torch import Tensor

from gigascope.kernels.parallel import inline_kernel, parallel_kernel
from gigascope.kernels.simd import (
    divide,
    first_lanes,
    fma,
    lanes_of,
    larger,
    load,
    load_part,
    multiply,
    root,
    splat,
    store,
    store_part,
    subtract,
)

# operations that the passage of one element through memory is worth, in the unit of `parallel.WORK_PER_THREAD`
PASS = 10


def gradient(u: Tensor, hz: float = 1.0) -> Tensor:
    """See :func:`gigascope.kernels.tv.gradient`; `u` contiguous."""
    out = u.new_empty(3, *u.shape)
    _gradient(u.detach().numpy(), _scalar(u, 1 / hz), out.numpy(), work=PASS * u.numel())
    return out


def gradient_adjoint(p: Tensor, hz: float = 1.0) -> Tensor:
    """See :func:`gigascope.kernels.tv.gradient_adjoint`; `p` contiguous."""
    out = p.new_empty(p.shape[1:])
    _gradient_adjoint(p.detach().numpy(), _scalar(p, 1 / hz), out.numpy(), work=PASS * out.numel())
    return out


def dual_step_(p: Tensor, ubar: Tensor, lam: float, sigma: float, hz: float = 1.0) -> None:
    """See :func:`gigascope.kernels.tv.dual_step_`; all contiguous."""
    floor = max(lam, torch.finfo(p.dtype).tiny)
    numbers = (_scalar(p, number) for number in (lam, floor, sigma, sigma / hz))
    _dual_step(p.detach().numpy(), ubar.detach().numpy(), *numbers, work=2 * PASS * ubar.numel())


def primal_step_(
    u: Tensor, ubar: Tensor, p: Tensor, atq: Tensor, tau: Tensor, hz: float = 1.0, positivity: bool = False
) -> None:
    """See :func:`gigascope.kernels.tv.primal_step_`; all contiguous."""
    arrays = (array.detach().numpy() for array in (u, ubar, p, atq, tau))
    _primal_step(*arrays, _scalar(u, 1 / hz), _scalar(u, 0.0 if positivity else -math.inf), work=2 * PASS * u.numel())


def data_step_(
    q: Tensor, projection: Tensor, views: Tensor, weights: Tensor, sigma_q: Tensor, offset: Tensor
) -> Tensor:
    """See :func:`gigascope.kernels.tv.data_step_`; all contiguous."""
    rows = np.empty(q.shape[:2])
    arrays = (array.detach().numpy() for array in (q, projection, views, weights, sigma_q, offset.to(q.dtype)))
    _data_step(*arrays, rows, work=PASS * q.numel())
    return torch.from_numpy(rows.sum(1))


def tv_norm(u: Tensor, hz: float = 1.0) -> Tensor:
    """See :func:`gigascope.kernels.tv.tv_norm`; `u` contiguous."""
    rows = np.empty(u.shape[:2])
    _tv_norm(u.detach().numpy(), _scalar(u, 1 / hz), rows, work=PASS * u.numel())
    return torch.tensor(rows.sum(), dtype=torch.float64)


def data_misfit(projection: Tensor, views: Tensor, weights: Tensor, offset: Tensor) -> Tensor:
    """See :func:`gigascope.kernels.tv.data_misfit`; all contiguous."""
    rows = np.empty(projection.shape[:2])
    arrays = (array.detach().numpy() for array in (projection, views, weights, offset.double()))
    _data_misfit(*arrays, rows, work=PASS * projection.numel())
    return torch.from_numpy(rows.sum(1))


def _scalar(like: Tensor, number: float) -> np.floating:
    """A number in the precision of the data: a float64 scalar would widen every vector of float32."""
    return np.float32(number) if like.dtype == torch.float32 else np.float64(number)


@parallel_kernel
def _gradient(u, per_hz, out):
    n_z, n_x, n_y = u.shape
    for z in prange(n_z):
        for x in range(n_x):
            here, up, right = u[z, x], u[min(z + 1, n_z - 1), x], u[z, min(x + 1, n_x - 1)]
            for y in range(n_y):
                out[0, z, x, y] = (up[y] - here[y]) * per_hz
            for y in range(n_y):
                out[1, z, x, y] = right[y] - here[y]
            for y in range(n_y - 1):
                out[2, z, x, y] = here[y + 1] - here[y]
            out[2, z, x, n_y - 1] = 0


@parallel_kernel
def _gradient_adjoint(p, per_hz, out):
    _, n_z, n_x, n_y = p.shape
    zero = per_hz * 0
    for z in prange(n_z):
        below = per_hz if z > 0 else zero
        here = per_hz if z < n_z - 1 else zero
        for x in range(n_x):
            left = per_hz * 0 + 1 if x > 0 else zero
            right = per_hz * 0 + 1 if x < n_x - 1 else zero
            pz0, pz1 = p[0, max(z - 1, 0), x], p[0, z, x]
            px0, px1 = p[1, z, max(x - 1, 0)], p[1, z, x]
            py = p[2, z, x]
            for y in range(n_y):
                out[z, x, y] = below * pz0[y] - here * pz1[y] + left * px0[y] - right * px1[y]
            for y in range(n_y - 1):
                out[z, x, y] -= py[y]
            for y in range(1, n_y):
                out[z, x, y] += py[y - 1]


@inline_kernel
def _raised_and_clipped(pz, px, py, here, up, right, back, lam, floor, sigma, sigma_z):
    """Vectors of the three components after the step and the projection onto the ball."""
    a = fma(sigma_z, subtract(up, here), pz)
    b = fma(sigma, subtract(right, here), px)
    c = fma(sigma, back, py)
    norm = root(fma(a, a, fma(b, b, multiply(c, c))))
    # lam / max(norm, lam) is 1 inside the ball; the floor keeps 0 / 0 away at lam = 0
    scale = divide(lam, larger(norm, floor))
    return multiply(scale, a), multiply(scale, b), multiply(scale, c)


@parallel_kernel
def _dual_step(p, ubar, lam, floor, sigma, sigma_z):
    n_z, n_x, n_y = ubar.shape
    u, target = ubar.reshape(-1), p.reshape(-1)
    lanes = lanes_of(u)
    lams, floors, sigmas, sigmas_z = splat(lam), splat(floor), splat(sigma), splat(sigma_z)
    for z in prange(n_z):
        to_up = n_x * n_y if z < n_z - 1 else 0
        for x in range(n_x):
            to_right = n_y if x < n_x - 1 else 0
            i = (z * n_x + x) * n_y
            j, k = i + n_z * n_x * n_y, i + 2 * n_z * n_x * n_y
            # a full vector needs its right neighbour too; 1 to `lanes` samples are left for the last one
            n_full = (n_y - 1) // lanes * lanes
            for y in range(0, n_full, lanes):
                here = load(u, i + y)
                back = subtract(load(u, i + y + 1), here)
                up, right = load(u, i + y + to_up), load(u, i + y + to_right)
                parts = load(target, i + y), load(target, j + y), load(target, k + y)
                a, b, c = _raised_and_clipped(*parts, here, up, right, back, lams, floors, sigmas, sigmas_z)
                store(target, i + y, a)
                store(target, j + y, b)
                store(target, k + y, c)
            y, n = n_full, n_y - n_full
            here = load_part(u, i + y, n)
            back = first_lanes(subtract(load_part(u, i + y + 1, n - 1), here), n - 1)
            up, right = load_part(u, i + y + to_up, n), load_part(u, i + y + to_right, n)
            parts = load_part(target, i + y, n), load_part(target, j + y, n), load_part(target, k + y, n)
            a, b, c = _raised_and_clipped(*parts, here, up, right, back, lams, floors, sigmas, sigmas_z)
            store_part(target, i + y, a, n)
            store_part(target, j + y, b, n)
            store_part(target, k + y, c, n)


@parallel_kernel
def _primal_step(u, ubar, p, atq, tau, per_hz, floor):
    n_z, n_x, n_y = u.shape
    zero = per_hz * 0
    for z in prange(n_z):
        below = per_hz if z > 0 else zero
        here = per_hz if z < n_z - 1 else zero
        for x in range(n_x):
            left = per_hz * 0 + 1 if x > 0 else zero
            right = per_hz * 0 + 1 if x < n_x - 1 else zero
            pz0, pz1 = p[0, max(z - 1, 0), x], p[0, z, x]
            px0, px1 = p[1, z, max(x - 1, 0)], p[1, z, x]
            py = p[2, z, x]
            for y in range(n_y):
                step = below * pz0[y] - here * pz1[y] + left * px0[y] - right * px1[y] + atq[z, x, y]
                if y > 0:
                    step += py[y - 1]
                if y < n_y - 1:
                    step -= py[y]
                old = u[z, x, y]
                new = max(old - tau[z, x] * step, floor)
                ubar[z, x, y] = 2 * new - old
                u[z, x, y] = new


@parallel_kernel
def _data_step(q, projection, views, weights, sigma_q, offset, rows):
    n_t, n_s, n_y = q.shape
    for row in prange(n_t * n_s):
        t, s = row // n_s, row % n_s
        sigma, o = sigma_q[t, s], offset[t]
        total = 0.0
        for y in range(n_y):
            w = weights[t, s, y]
            new = w * (q[t, s, y] + sigma * (projection[t, s, y] + o - views[t, s, y])) / (w + sigma)
            new = new if w > 0 else w * 0
            q[t, s, y] = new
            total += np.float64(new)
        rows[t, s] = total


@parallel_kernel
def _tv_norm(u, per_hz, rows):
    n_z, n_x, n_y = u.shape
    for row in prange(n_z * n_x):
        z, x = row // n_x, row % n_x
        here, up, right = u[z, x], u[min(z + 1, n_z - 1), x], u[z, min(x + 1, n_x - 1)]
        total = 0.0
        for y in range(n_y):
            a = np.float64(up[y] - here[y]) * per_hz
            b = np.float64(right[y] - here[y])
            c = np.float64(here[min(y + 1, n_y - 1)] - here[y])
            total += math.sqrt(a * a + b * b + c * c)
        rows[z, x] = total


@parallel_kernel
def _data_misfit(projection, views, weights, offset, rows):
    n_t, n_s, n_y = projection.shape
    for row in prange(n_t * n_s):
        t, s = row // n_s, row % n_s
        total = 0.0
        for y in range(n_y):
            w = np.float64(weights[t, s, y])
            residual = np.float64(projection[t, s, y]) - np.float64(views[t, s, y]) + offset[t]
            total += w * residual * residual if w > 0 else 0.0
        rows[t, s] = total
