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
                BY_COLUMNS=by_columns, VIEWS=VIEWS, SAMPLES=SAMPLES, Y=block, EVEN_Y=n_y % block == 0,
                num_warps=WARPS, enable_fp_fusion=True,
            )  # fmt: skip
    return out


def backproject(
    sinogram: Tensor, angles: Tensor, shape_zx: tuple[int, int], hz: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """See :func:`gigascope.kernels.projector.backproject`; `sinogram` contiguous."""
    n_t, n_s, n_y = sinogram.shape
    n_z, n_x = shape_zx
    fixed = remembered(_sample_fixed, angles, sinogram.device, n_s, shape_zx, hz)
    numbers = remembered(_sample_numbers, angles, sinogram.device, n_s, shape_zx, hz)
    if out is None:
        out = sinogram.new_empty(n_z, n_x, n_y)
    block = y_block(n_y, LARGEST_Y)
    grid = (n_blocks(n_x, COLUMNS) * n_blocks(n_z, PLANES), n_blocks(n_y, block))
    with on_device_of(sinogram):
        _backproject[grid](
            sinogram, fixed, numbers, out, n_t, n_s, n_z, n_x, n_y,
            PAIRS=math.ceil(max(1.0, hz)), PLANES=PLANES, COLUMNS=COLUMNS, Y=block, EVEN_Y=n_y % block == 0,
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
    """Per view cos, hz sin, position of voxel (0, 0), reach and g of `coefficients.sample_table`; (tilt, 5) float64."""
    n_z, n_x = shape_zx
    cos, sin = torch.cos(angles), torch.sin(angles)
    reach = torch.where(cos.abs() >= sin.abs() * hz, cos.abs(), sin.abs() * hz)
    centre = (n_s - 1) / 2 - cos * ((n_x - 1) / 2) - hz * sin * ((n_z - 1) / 2)
    return torch.stack((cos, hz * sin, centre, reach, hz / reach), dim=1)


def _sample_fixed(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float) -> Tensor:
    """Factors of x and z and position of voxel (0, 0) as fixed point with 32 fractional bits; (tilt, 3) int64."""
    return torch.round(_sample_lines(angles, n_s, shape_zx, hz)[:, :3] * 2.0**32).to(torch.int64).contiguous()


def _sample_numbers(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float) -> Tensor:
    """Factors of x and z, reach, g and g / reach; (tilt, 5) float32."""
    cos, sin, _, reach, g = _sample_lines(angles, n_s, shape_zx, hz).unbind(1)
    return torch.stack((cos, sin, reach, g, g / reach), dim=1).float()


@triton.jit
def _project(
    volume, table, out, n_t, n_s, n_z, n_x, n_y,
    BY_COLUMNS: tl.constexpr, VIEWS: tl.constexpr, SAMPLES: tl.constexpr, Y: tl.constexpr, EVEN_Y: tl.constexpr,
):  # fmt: skip
    """Sums of VIEWS x SAMPLES rays over Y slices."""
    n_sample_blocks = tl.cdiv(n_s, SAMPLES)
    first_view = tl.program_id(0) // n_sample_blocks * VIEWS
    first_sample = tl.program_id(0) % n_sample_blocks * SAMPLES
    y = tl.program_id(1) * Y + tl.arange(0, Y)
    inside_y = (y < n_y)[None, :]
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
        start = volume + begin.to(tl.int64) * outer_step + y[None, :]
        total = tl.zeros((VIEWS * SAMPLES, Y), dtype=tl.float32)
        for _ in range(begin, end):
            n = (position >> 32).to(tl.int32)
            w1 = g * ((position & 0xFFFFFFFF).to(tl.uint32).to(tl.float32) * 2.3283064365386963e-10)
            w0 = g - w1
            # a row outside is read from the border with weight 0: cheaper than a mask on every element
            n0, n1 = _moved_inside(n, n_inner), _moved_inside(n + 1, n_inner)
            w0, w1 = tl.where(n0 == n, w0, 0.0), tl.where(n1 == n + 1, w1, 0.0)
            total += w0[:, None] * _load(start + (n0.to(tl.int64) * inner_step)[:, None], inside_y, EVEN_Y)
            total += w1[:, None] * _load(start + (n1.to(tl.int64) * inner_step)[:, None], inside_y, EVEN_Y)
            position += increment
            start += outer_step
        target = (view * n_s + sample) * n_y
        tl.store(out + target[:, None] + y[None, :], total, mask=known[:, None] & inside_y)


@triton.jit
def _backproject(
    sinogram, fixed, numbers, out, n_t, n_s, n_z, n_x, n_y,
    PAIRS: tl.constexpr, PLANES: tl.constexpr, COLUMNS: tl.constexpr, Y: tl.constexpr, EVEN_Y: tl.constexpr,
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
    dz, dx = dz.to(tl.float32), dx.to(tl.float32)
    start = sinogram + y[None, :]
    total = tl.zeros((PLANES * COLUMNS, Y), dtype=tl.float32)
    for _ in range(n_t):
        # the corner of the tile in fixed point with 32 fractional bits, the rest in float32: 1e-6 of a sample
        corner = tl.load(fixed) * first_x + tl.load(fixed + 1) * first_z + tl.load(fixed + 2)
        whole = (corner >> 32).to(tl.int32)
        fraction = (corner & 0xFFFFFFFF).to(tl.uint32).to(tl.float32) * 2.3283064365386963e-10
        reach, g, slope = tl.load(numbers + 2), tl.load(numbers + 3), tl.load(numbers + 4)
        local = fraction + dx * tl.load(numbers) + dz * tl.load(numbers + 1)
        first = tl.floor(local - reach) + 1.0
        for pair in tl.static_range(PAIRS):
            sample = first + 2 * pair
            i = whole + sample.to(tl.int32)
            w0 = tl.maximum(g - slope * tl.abs(sample - local), 0.0)
            w1 = tl.maximum(g - slope * tl.abs(sample + 1.0 - local), 0.0)
            i0, i1 = _moved_inside(i, n_s), _moved_inside(i + 1, n_s)
            w0, w1 = tl.where(i0 == i, w0, 0.0), tl.where(i1 == i + 1, w1, 0.0)
            total += w0[:, None] * _load(start + (i0 * n_y)[:, None], inside_y, EVEN_Y)
            total += w1[:, None] * _load(start + (i1 * n_y)[:, None], inside_y, EVEN_Y)
        start += n_s * n_y
        fixed += 3
        numbers += 5
    target = (z.to(tl.int64) * n_x + x) * n_y
    known = (z < n_z) & (x < n_x)
    tl.store(out + target[:, None] + y[None, :], total, mask=known[:, None] & inside_y)


@triton.jit
def _moved_inside(index, n):
    return tl.minimum(tl.maximum(index, 0), n - 1)


@triton.jit
def _load(pointers, inside_y, EVEN_Y: tl.constexpr):
    """Rows of a tile; without a mask where the tiles along y cover the array exactly."""
    if EVEN_Y:
        return tl.load(pointers)
    return tl.load(pointers, mask=inside_y, other=0.0)
