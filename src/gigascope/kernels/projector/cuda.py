"""Projector on the GPU in Triton: tiles of rows times y, coalesced along y, every result summed by one program.

Forward: a program holds the slices of a few neighbouring detector samples of a few neighbouring views and walks through
the planes (or columns) once; neighbouring rays meet the same rows of the volume, so that each row comes from the second
cache about once and from the first cache otherwise. Adjoint: a program holds a tile of voxel rows and walks through the
views, gathering the detector samples that see each row. No atomics, no copies to the host.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gpu import n_blocks, on_device_of, y_block
from gigascope.kernels.projector.coefficients import ray_table, remembered

# rows per program: 4 views x 8 samples forward, 4 planes x 8 columns back; with 128 floats of y and 8 warps every
# thread keeps 16 sums and reads 16 bytes at a time
VIEWS, SAMPLES = 4, 8
PLANES, COLUMNS = 4, 8
LARGEST_Y = 128
WARPS = 8


def project(volume: Tensor, angles: Tensor, n_s: int, hz: float = 1.0, out: Tensor | None = None) -> Tensor:
    """See :func:`gigascope.kernels.projector.project`; `volume` contiguous."""
    n_z, n_x, n_y = volume.shape
    # views of one branch side by side, so that a program has one loop; their number stays on the device
    table = remembered(_ordered_rays, angles, volume.device, n_s, (n_z, n_x), hz)
    if out is None:
        out = volume.new_empty(angles.shape[0], n_s, n_y)
    n_t, block = angles.shape[0], y_block(n_y, LARGEST_Y)
    grid = (n_blocks(n_t, VIEWS) * n_blocks(n_s, SAMPLES), n_blocks(n_y, block))
    with on_device_of(volume):
        for by_columns in (False, True):
            _project[grid](
                volume, table, out, n_t, n_s, n_z, n_x, n_y,
                BY_COLUMNS=by_columns, VIEWS=VIEWS, SAMPLES=SAMPLES, Y=block, num_warps=WARPS, enable_fp_fusion=True,
            )  # fmt: skip
    return out


def backproject(
    sinogram: Tensor, angles: Tensor, shape_zx: tuple[int, int], hz: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """See :func:`gigascope.kernels.projector.backproject`; `sinogram` contiguous."""
    n_t, n_s, n_y = sinogram.shape
    n_z, n_x = shape_zx
    table = remembered(_sample_lines, angles, sinogram.device, n_s, shape_zx, hz)
    if out is None:
        out = sinogram.new_empty(n_z, n_x, n_y)
    block = y_block(n_y, LARGEST_Y)
    grid = (n_blocks(n_x, COLUMNS) * n_blocks(n_z, PLANES), n_blocks(n_y, block))
    with on_device_of(sinogram):
        _backproject[grid](
            sinogram, table, out, n_t, n_s, n_z, n_x, n_y,
            PAIRS=math.ceil(max(1.0, hz)), PLANES=PLANES, COLUMNS=COLUMNS, Y=block,
            num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return out


def _ordered_rays(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float) -> Tensor:
    """`ray_table` with the views by planes first; columns 5 and 6: index of the view, number of views by planes."""
    table = ray_table(angles, n_s, shape_zx, hz)
    order = torch.argsort(table[:, 0], stable=True)
    n_by_planes = (table[:, 0] == 0).sum().expand(len(order))
    return torch.cat((table[order], torch.stack((order, n_by_planes), dim=1)), dim=1)


def _sample_lines(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float) -> Tensor:
    """One line per view of `sample_table`, without view and offset: here all views take PAIRS pairs."""
    n_z, n_x = shape_zx
    cos, sin = torch.cos(angles), torch.sin(angles)
    reach = torch.where(cos.abs() >= sin.abs() * hz, cos.abs(), sin.abs() * hz)
    centre = (n_s - 1) / 2 - cos * ((n_x - 1) / 2) - hz * sin * ((n_z - 1) / 2)
    return torch.stack((cos, hz * sin, centre, reach, hz / reach), dim=1)


@triton.jit
def _project(
    volume, table, out, n_t, n_s, n_z, n_x, n_y,
    BY_COLUMNS: tl.constexpr, VIEWS: tl.constexpr, SAMPLES: tl.constexpr, Y: tl.constexpr,
):  # fmt: skip
    """Sums of VIEWS x SAMPLES rays over Y slices."""
    n_sample_blocks = tl.cdiv(n_s, SAMPLES)
    first_view = tl.program_id(0) // n_sample_blocks * VIEWS
    first_sample = tl.program_id(0) % n_sample_blocks * SAMPLES
    y = tl.program_id(1) * Y + tl.arange(0, Y)
    n_by_planes = tl.load(table + 6).to(tl.int32)
    if BY_COLUMNS:
        first_view += n_by_planes
        last_view = n_t
        n_outer, n_inner = n_x, n_z
        outer_step, inner_step = n_y, n_x * n_y
    else:
        last_view = n_by_planes
        n_outer, n_inner = n_z, n_x
        outer_step, inner_step = n_x * n_y, n_y
    if first_view < last_view:
        row = tl.arange(0, VIEWS * SAMPLES)
        slot, sample = first_view + row // SAMPLES, first_sample + row % SAMPLES
        known = (slot < last_view) & (sample < n_s)
        line = table + tl.where(known, slot, 0) * 7
        alpha, beta = tl.load(line + 1), tl.load(line + 2)
        base = alpha * sample + tl.load(line + 3)
        g = tl.load(line + 4).to(tl.float32)
        view = tl.load(line + 5).to(tl.int64)

        # where a ray of the tile is within a voxel of the grid
        steep = tl.abs(beta) > 1e-12
        slope = tl.where(steep, beta, 1.0)
        one, two = (-1.0 - base) / slope, (n_inner - base) / slope
        low = tl.where(steep, tl.minimum(one, two), 0.0)
        high = tl.where(steep, tl.maximum(one, two), n_outer * 1.0)
        begin = tl.maximum(tl.floor(tl.min(tl.where(known, low, n_outer * 1.0))), 0.0).to(tl.int32)
        end = tl.minimum(tl.ceil(tl.max(tl.where(known, high, 0.0))) + 1, n_outer * 1.0).to(tl.int32)

        # fixed point with 32 fractional bits: exact increments at the price of two integer additions, where float64
        # runs at a 64th of the speed on most cards and float32 loses 1e-4 at 4096 voxels
        position = tl.floor((base + beta * begin) * 4294967296.0 + 0.5).to(tl.int64)
        increment = tl.floor(beta * 4294967296.0 + 0.5).to(tl.int64)
        inside_y = (y < n_y)[None, :]
        start = volume + begin.to(tl.int64) * outer_step + y[None, :]
        total = tl.zeros((VIEWS * SAMPLES, Y), dtype=tl.float32)
        for _ in range(begin, end):
            n = (position >> 32).to(tl.int32)
            w1 = g * ((position & 0xFFFFFFFF).to(tl.uint32).to(tl.float32) * 2.3283064365386963e-10)
            w0 = g - w1
            rows = start + (n.to(tl.int64) * inner_step)[:, None]
            has0 = known & (n >= 0) & (n < n_inner)
            has1 = known & (n >= -1) & (n < n_inner - 1)
            u0 = tl.load(rows, mask=has0[:, None] & inside_y, other=0.0)
            u1 = tl.load(rows + inner_step, mask=has1[:, None] & inside_y, other=0.0)
            total += w0[:, None] * u0 + w1[:, None] * u1
            position += increment
            start += outer_step
        target = (view * n_s + sample) * n_y
        tl.store(out + target[:, None] + y[None, :], total, mask=known[:, None] & inside_y)


@triton.jit
def _backproject(
    sinogram, table, out, n_t, n_s, n_z, n_x, n_y,
    PAIRS: tl.constexpr, PLANES: tl.constexpr, COLUMNS: tl.constexpr, Y: tl.constexpr,
):  # fmt: skip
    """Sums of PLANES x COLUMNS voxel rows over Y slices, views in the order of their index."""
    n_column_blocks = tl.cdiv(n_x, COLUMNS)
    first_z = tl.program_id(0) // n_column_blocks * PLANES
    first_x = tl.program_id(0) % n_column_blocks * COLUMNS
    y = tl.program_id(1) * Y + tl.arange(0, Y)
    inside_y = (y < n_y)[None, :]
    row = tl.arange(0, PLANES * COLUMNS)
    dz, dx = row // COLUMNS, row % COLUMNS
    z, x = first_z + dz, first_x + dx
    known = (z < n_z) & (x < n_x)
    start = sinogram + y[None, :]
    total = tl.zeros((PLANES * COLUMNS, Y), dtype=tl.float32)
    for t in range(n_t):
        cos, sin = tl.load(table + t * 5), tl.load(table + t * 5 + 1)
        reach = tl.load(table + t * 5 + 3).to(tl.float32)
        g = tl.load(table + t * 5 + 4).to(tl.float32)
        # the tile's corner in float64, the few voxels from there in float32: 1e-6 of a sample
        corner = cos * first_x + sin * first_z + tl.load(table + t * 5 + 2)
        whole = tl.floor(corner)
        local = (corner - whole).to(tl.float32) + dx * cos.to(tl.float32) + dz * sin.to(tl.float32)
        first = tl.floor(local - reach) + 1.0
        for pair in tl.static_range(PAIRS):
            i0 = whole.to(tl.int32) + first.to(tl.int32) + 2 * pair
            d0 = tl.abs(first + 2 * pair - local) / reach
            d1 = tl.abs(first + (2 * pair + 1) - local) / reach
            has0 = known & (i0 >= 0) & (i0 < n_s) & (d0 < 1.0)
            has1 = known & (i0 >= -1) & (i0 < n_s - 1) & (d1 < 1.0)
            rows = start + (i0 * n_y)[:, None]
            q0 = tl.load(rows, mask=has0[:, None] & inside_y, other=0.0)
            q1 = tl.load(rows + n_y, mask=has1[:, None] & inside_y, other=0.0)
            total += (g - g * d0)[:, None] * q0 + (g - g * d1)[:, None] * q1
        start += n_s * n_y
    target = (z.to(tl.int64) * n_x + x) * n_y
    tl.store(out + target[:, None] + y[None, :], total, mask=known[:, None] & inside_y)
