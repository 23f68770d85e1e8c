"""Total-variation ops on the GPU in Triton: one pass over memory each, in place, sums through partial sums of programs.

A program holds a few rows x of one plane over a stretch of y. Planes are the fastest axis of the grid: the neighbour in
z that a program reads is the row of the program beside it and comes from the second cache, also when a plane is larger.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gpu import n_blocks, on_device_of, y_block

ROWS = 4
LARGEST_Y = 256
WARPS = 4


def gradient(u: Tensor, hz: float = 1.0) -> Tensor:
    """See :func:`gigascope.kernels.tv.gradient`; `u` contiguous."""
    out = u.new_empty(3, *u.shape)
    _launch(_gradient, u, u, out, 1 / hz)
    return out


def gradient_adjoint(p: Tensor, hz: float = 1.0) -> Tensor:
    """See :func:`gigascope.kernels.tv.gradient_adjoint`; `p` contiguous."""
    out = p.new_empty(p.shape[1:])
    _launch(_gradient_adjoint, out, p, out, 1 / hz)
    return out


def dual_step_(p: Tensor, ubar: Tensor, lam: float, sigma: float, hz: float = 1.0) -> None:
    """See :func:`gigascope.kernels.tv.dual_step_`; all contiguous."""
    _launch(_dual_step, ubar, p, ubar, lam, max(lam, torch.finfo(p.dtype).tiny), sigma, sigma / hz)


def primal_step_(
    u: Tensor, ubar: Tensor, p: Tensor, atq: Tensor, tau: Tensor, hz: float = 1.0, positivity: bool = False
) -> None:
    """See :func:`gigascope.kernels.tv.primal_step_`; all contiguous."""
    _launch(_primal_step, u, u, ubar, p, atq, tau, 1 / hz, POSITIVITY=positivity)


def data_step_(
    q: Tensor, projection: Tensor, views: Tensor, weights: Tensor, sigma_q: Tensor, offset: Tensor
) -> Tensor:
    """See :func:`gigascope.kernels.tv.data_step_`; all contiguous."""
    partial = _partial_sums(q)
    _launch(_data_step, q, q, projection, views, weights, sigma_q, offset.to(q.dtype), partial)
    return partial.sum((1, 2))


def tv_norm(u: Tensor, hz: float = 1.0) -> Tensor:
    """See :func:`gigascope.kernels.tv.tv_norm`; `u` contiguous."""
    partial = _partial_sums(u)
    _launch(_tv_norm, u, u, partial, 1 / hz)
    return partial.sum()


def data_misfit(projection: Tensor, views: Tensor, weights: Tensor, offset: Tensor) -> Tensor:
    """See :func:`gigascope.kernels.tv.data_misfit`; all contiguous."""
    partial = _partial_sums(projection)
    _launch(_data_misfit, projection, projection, views, weights, offset.double(), partial)
    return partial.sum((1, 2))


def _partial_sums(like: Tensor) -> Tensor:
    """One float64 number per program of `_launch`: (z, blocks of x, blocks of y)."""
    n_z, n_x, n_y = like.shape
    shape = (n_z, n_blocks(n_x, ROWS), n_blocks(n_y, y_block(n_y, LARGEST_Y)))
    return torch.empty(shape, dtype=torch.float64, device=like.device)


def _launch(kernel, like: Tensor, *arguments: Tensor | float, **constants: bool) -> None:
    """One program per plane, ROWS rows and stretch of y of an array (z, x, y) or (tilt, s, y)."""
    n_z, n_x, n_y = like.shape
    block = y_block(n_y, LARGEST_Y)
    grid = (n_z, n_blocks(n_x, ROWS), n_blocks(n_y, block))
    with on_device_of(like):
        kernel[grid](*arguments, n_z, n_x, n_y, X=ROWS, Y=block, num_warps=WARPS, enable_fp_fusion=True, **constants)


@triton.jit
def _tile(n_x, n_y, X: tl.constexpr, Y: tl.constexpr):
    """Plane, rows and samples of this program, offsets of its elements, and which of them exist."""
    z = tl.program_id(0)
    x = (tl.program_id(1) * X + tl.arange(0, X))[:, None]
    y = (tl.program_id(2) * Y + tl.arange(0, Y))[None, :]
    at = (z.to(tl.int64) * n_x + x) * n_y + y
    return z, x, y, at, (x < n_x) & (y < n_y)


@triton.jit
def _differences(u, z, x, y, at, inside, n_z, n_x, n_y):
    """Forward differences of a tile, 0 at the last element of each axis."""
    plane = tl.cast(n_x, tl.int64) * n_y
    has_up = z + 0 * x < n_z - 1
    here = tl.load(u + at, mask=inside, other=0.0)
    up = tl.load(u + at + plane, mask=inside & has_up, other=0.0)
    right = tl.load(u + at + n_y, mask=inside & (x < n_x - 1), other=0.0)
    back = tl.load(u + at + 1, mask=inside & (y < n_y - 1), other=0.0)
    return (
        tl.where(has_up, up - here, 0.0),
        tl.where(x < n_x - 1, right - here, 0.0),
        tl.where(y < n_y - 1, back - here, 0.0),
    )


@triton.jit
def _divergence(p, z, x, y, at, inside, per_hz, n_z, n_x, n_y):
    """Adjoint of `_differences` on a tile; the entries of last differences are not read."""
    plane = tl.cast(n_x, tl.int64) * n_y
    volume = plane * n_z
    pz = p + at
    px = pz + volume
    py = px + volume
    plane_of_row = z + 0 * x
    below = tl.load(pz - plane, mask=inside & (plane_of_row > 0), other=0.0)
    above = tl.load(pz, mask=inside & (plane_of_row < n_z - 1), other=0.0)
    left = tl.load(px - n_y, mask=inside & (x > 0), other=0.0)
    right = tl.load(px, mask=inside & (x < n_x - 1), other=0.0)
    front = tl.load(py - 1, mask=inside & (y > 0), other=0.0)
    back = tl.load(py, mask=inside & (y < n_y - 1), other=0.0)
    return (below - above) * per_hz + (left - right) + (front - back)


@triton.jit
def _store_partial(partial, terms):
    """Sum of a tile in float64, to this program's place."""
    n_x, n_y = tl.num_programs(1), tl.num_programs(2)
    place = (tl.program_id(0) * n_x + tl.program_id(1)) * n_y + tl.program_id(2)
    tl.store(partial + place, tl.sum(tl.sum(terms.to(tl.float64), axis=1), axis=0))


@triton.jit
def _gradient(u, out, per_hz, n_z, n_x, n_y, X: tl.constexpr, Y: tl.constexpr):
    z, x, y, at, inside = _tile(n_x, n_y, X, Y)
    dz, dx, dy = _differences(u, z, x, y, at, inside, n_z, n_x, n_y)
    volume = tl.cast(n_x, tl.int64) * n_y * n_z
    tl.store(out + at, dz * per_hz, mask=inside)
    tl.store(out + volume + at, dx, mask=inside)
    tl.store(out + 2 * volume + at, dy, mask=inside)


@triton.jit
def _gradient_adjoint(p, out, per_hz, n_z, n_x, n_y, X: tl.constexpr, Y: tl.constexpr):
    z, x, y, at, inside = _tile(n_x, n_y, X, Y)
    tl.store(out + at, _divergence(p, z, x, y, at, inside, per_hz, n_z, n_x, n_y), mask=inside)


@triton.jit
def _dual_step(p, ubar, lam, floor, sigma, sigma_z, n_z, n_x, n_y, X: tl.constexpr, Y: tl.constexpr):
    z, x, y, at, inside = _tile(n_x, n_y, X, Y)
    dz, dx, dy = _differences(ubar, z, x, y, at, inside, n_z, n_x, n_y)
    volume = tl.cast(n_x, tl.int64) * n_y * n_z
    pz = p + at
    px = pz + volume
    py = px + volume
    a = tl.load(pz, mask=inside, other=0.0) + sigma_z * dz
    b = tl.load(px, mask=inside, other=0.0) + sigma * dx
    c = tl.load(py, mask=inside, other=0.0) + sigma * dy
    norm = tl.sqrt(a * a + b * b + c * c)
    # lam / max(norm, lam) is 1 inside the ball; the floor keeps 0 / 0 away at lam = 0
    scale = lam / tl.where(norm > floor, norm, floor)
    tl.store(pz, scale * a, mask=inside)
    tl.store(px, scale * b, mask=inside)
    tl.store(py, scale * c, mask=inside)


@triton.jit
def _primal_step(
    u, ubar, p, atq, tau, per_hz, n_z, n_x, n_y, X: tl.constexpr, Y: tl.constexpr, POSITIVITY: tl.constexpr
):
    z, x, y, at, inside = _tile(n_x, n_y, X, Y)
    step = _divergence(p, z, x, y, at, inside, per_hz, n_z, n_x, n_y) + tl.load(atq + at, mask=inside, other=0.0)
    old = tl.load(u + at, mask=inside, other=0.0)
    new = old - tl.load(tau + z * n_x + x, mask=x < n_x, other=0.0) * step
    if POSITIVITY:
        new = tl.where(new < 0.0, 0.0, new)
    tl.store(ubar + at, 2.0 * new - old, mask=inside)
    tl.store(u + at, new, mask=inside)


@triton.jit
def _data_step(
    q, projection, views, weights, sigma_q, offset, partial, n_z, n_x, n_y, X: tl.constexpr, Y: tl.constexpr
):
    t, s, _y, at, inside = _tile(n_x, n_y, X, Y)
    sigma = tl.load(sigma_q + t * n_x + s, mask=s < n_x, other=1.0)
    w = tl.load(weights + at, mask=inside, other=0.0)
    residual = tl.load(projection + at, mask=inside, other=0.0) + tl.load(offset + t)
    residual -= tl.load(views + at, mask=inside, other=0.0)
    raised = tl.load(q + at, mask=inside, other=0.0) + sigma * residual
    new = tl.where(w > 0.0, w * raised / (w + sigma), 0.0)
    tl.store(q + at, new, mask=inside)
    _store_partial(partial, new)


@triton.jit
def _tv_norm(u, partial, per_hz, n_z, n_x, n_y, X: tl.constexpr, Y: tl.constexpr):
    z, x, y, at, inside = _tile(n_x, n_y, X, Y)
    dz, dx, dy = _differences(u, z, x, y, at, inside, n_z, n_x, n_y)
    dz *= per_hz
    _store_partial(partial, tl.where(inside, tl.sqrt(dz * dz + dx * dx + dy * dy), 0.0))


@triton.jit
def _data_misfit(projection, views, weights, offset, partial, n_z, n_x, n_y, X: tl.constexpr, Y: tl.constexpr):
    t, _s, _y, at, inside = _tile(n_x, n_y, X, Y)
    w = tl.load(weights + at, mask=inside, other=0.0).to(tl.float64)
    residual = tl.load(projection + at, mask=inside, other=0.0).to(tl.float64) + tl.load(offset + t)
    residual -= tl.load(views + at, mask=inside, other=0.0).to(tl.float64)
    _store_partial(partial, tl.where(w > 0.0, w * residual * residual, 0.0))
