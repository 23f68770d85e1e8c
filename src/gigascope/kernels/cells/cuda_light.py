"""Light on the GPU in Triton: one program per block of columns of the sheared frame, then one per block of cells."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.cells.reference_light import Places
from gigascope.kernels.gpu import n_blocks, on_device_of

COLUMNS = 128
BLOCK = 512
WARPS = 4


def cone_depth(mu: Tensor, slopes: list[list[float]]) -> Tensor:
    """See :func:`gigascope.kernels.cells.light.cone_depth`; `mu` contiguous."""
    n_z, n_y, n_x = mu.shape
    transmitted = torch.zeros_like(mu)
    for ray in slopes:
        low = [min(0, math.floor((n_z - 1) * s)) - 1 for s in ray]
        high = [n + max(0, math.ceil((n_z - 1) * s)) + 1 for n, s in zip((n_y, n_x), ray)]
        height, width = (b - a for a, b in zip(low, high))
        sums = torch.empty(n_z, height, width, device=mu.device)
        # layer by layer: whole cells that the frame is moved, and the part of a cell, exact from float64
        moved = torch.arange(n_z, dtype=torch.float64)[:, None] * torch.tensor(ray, dtype=torch.float64)
        whole = moved.floor()
        shift, part = (whole - torch.tensor(low)).int().to(mu.device), (moved - whole).float().to(mu.device)
        with on_device_of(mu):
            _sum_rays[(n_blocks(width, COLUMNS), height)](
                mu, shift, part, sums, n_z, n_y, n_x, height, width, B=COLUMNS, num_warps=WARPS
            )
            _transmit[(n_blocks(mu.numel(), BLOCK),)](
                sums, shift, part, -math.hypot(1.0, *ray), transmitted, mu.numel(), n_y, n_x, height, width,
                B=BLOCK, num_warps=WARPS,
            )  # fmt: skip
    return -torch.log(transmitted / len(slopes))


def attenuate_(density: Tensor, tau: Tensor, places: Places) -> None:
    """See :func:`gigascope.kernels.cells.light.attenuate_`; contiguous."""
    _launch(tau, places, density, True)


def read_out(grid: Tensor, places: Places) -> Tensor:
    """See :func:`gigascope.kernels.cells.light.read_out`; contiguous."""
    out = torch.empty([len(below) for below, _ in places], dtype=torch.float32, device=grid.device)
    _launch(grid, places, out, False)
    return out


def _launch(grid: Tensor, places: Places, out: Tensor, attenuates: bool) -> None:
    arrays = [array.to(grid.device) for pair in places for array in pair]
    with on_device_of(grid):
        _read[(n_blocks(out.numel(), BLOCK),)](
            grid, *arrays, out, out.numel(), out.shape[1], out.shape[2], *grid.shape,
            ATTENUATES=attenuates, B=BLOCK, num_warps=WARPS,
        )  # fmt: skip


@triton.jit
def _cell(layer, y, x, n_y, n_x):
    """Values of a layer, 0 outside."""
    inside = (y >= 0) & (y < n_y) & (x >= 0) & (x < n_x)
    return tl.load(layer + y * n_x + x, mask=inside, other=0.0)


@triton.jit
def _sum_rays(mu, shift, part, sums, n_z, n_y, n_x, height, width, B: tl.constexpr):
    """Prefix sums along the rays: (z, Y, X) with half of the own layer."""
    column = tl.program_id(0) * B + tl.arange(0, B)
    row = tl.program_id(1)
    exists = column < width
    total = tl.zeros((B,), dtype=tl.float32)
    for z in range(n_z):
        y = row - tl.load(shift + 2 * z)
        x = column - tl.load(shift + 2 * z + 1)
        part_y, part_x = tl.load(part + 2 * z), tl.load(part + 2 * z + 1)
        layer = mu + tl.cast(z, tl.int64) * n_y * n_x
        near = (1.0 - part_x) * _cell(layer, y, x, n_y, n_x) + part_x * _cell(layer, y, x - 1, n_y, n_x)
        far = (1.0 - part_x) * _cell(layer, y - 1, x, n_y, n_x) + part_x * _cell(layer, y - 1, x - 1, n_y, n_x)
        here = (1.0 - part_y) * near + part_y * far
        place = (tl.cast(z, tl.int64) * height + row) * width + column
        tl.store(sums + place, total + 0.5 * here, mask=exists)
        total += here


@triton.jit
def _transmit(sums, shift, part, scale, transmitted, n, n_y, n_x, height, width, B: tl.constexpr):
    """Add exp(scale * sum along the ray) of every cell."""
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    exists = at < n
    z, y, x = at // (n_y * n_x), at // n_x % n_y, at % n_x
    top = y + tl.load(shift + 2 * z, mask=exists, other=0)
    left = x + tl.load(shift + 2 * z + 1, mask=exists, other=0)
    part_y = tl.load(part + 2 * z, mask=exists, other=0.0)
    part_x = tl.load(part + 2 * z + 1, mask=exists, other=0.0)
    base = sums + (z * height + top) * width + left
    more = exists & (top + 1 < height)
    first = (1.0 - part_y) * tl.load(base, mask=exists, other=0.0)
    first += part_y * tl.load(base + width, mask=more, other=0.0)
    second = (1.0 - part_y) * tl.load(base + 1, mask=exists, other=0.0)
    second += part_y * tl.load(base + width + 1, mask=more, other=0.0)
    depth = first + part_x * (second - first)
    found = tl.load(transmitted + at, mask=exists, other=0.0)
    tl.store(transmitted + at, found + tl.exp(scale * depth), mask=exists)


@triton.jit
def _read(
    grid, cell_z, part_z, cell_y, part_y, cell_x, part_x, out, n, n_y, n_x, cells_z, cells_y, cells_x,
    ATTENUATES: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Interpolate into `out`, or multiply it by exp(-value)."""
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    exists = at < n
    z, y, x = at // (n_y * n_x), at // n_x % n_y, at % n_x
    a, b, c = (
        tl.load(cell_z + z, mask=exists, other=0),
        tl.load(cell_y + y, mask=exists, other=0),
        tl.load(cell_x + x, mask=exists, other=0),
    )
    w_z = tl.load(part_z + z, mask=exists, other=0.0)
    w_y = tl.load(part_y + y, mask=exists, other=0.0)
    w_x = tl.load(part_x + x, mask=exists, other=0.0)
    value = tl.zeros((B,), dtype=tl.float32)
    for k in tl.static_range(8):
        i = tl.minimum(a + k // 4, cells_z - 1)
        j = tl.minimum(b + k // 2 % 2, cells_y - 1)
        m = tl.minimum(c + k % 2, cells_x - 1)
        weight = (w_z if k // 4 else 1.0 - w_z) * (w_y if k // 2 % 2 else 1.0 - w_y) * (w_x if k % 2 else 1.0 - w_x)
        value += weight * tl.load(grid + (i * cells_y + j) * cells_x + m, mask=exists, other=0.0)
    if ATTENUATES:
        value = tl.load(out + at, mask=exists, other=0.0) * tl.exp(-value)
    tl.store(out + at, value, mask=exists)
