"""Ortho ops on the GPU in Triton: the maps; coordinates in float64, since float32 would lose hundredths of a pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gpu import n_blocks, on_device_of
from gigascope.kernels.ortho.cuda_splat import splat, splat_predict, splat_predict_backward

__all__ = ["coordinates", "pixel_of", "pixels", "splat", "splat_predict", "splat_predict_backward"]

BLOCK = 256
WARPS = 4
NEWTON_STEPS = tl.constexpr(3)
N_COLUMNS = tl.constexpr(21)


def coordinates(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    corners: Tensor,
    shape: Sequence[int],
    spacing: float,
    heights: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """See :func:`gigascope.kernels.ortho.coordinates`; all contiguous."""
    out = torch.empty(table.shape[0], 2, *shape, dtype=dtype, device=table.device)
    # numbers that float32 arguments would round
    numbers = torch.tensor([*size, spacing], dtype=torch.float64, device=table.device)
    arguments = (table.detach(), distortion, numbers, corners, table if heights is None else heights, out)
    grid = (n_blocks(shape[0] * shape[1], BLOCK), table.shape[0])
    with on_device_of(table):
        _map_forward[grid](
            *arguments, shape[0], shape[1], ORDER=len(distortion), LIFT=heights is not None, B=BLOCK,
            num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return out


def pixels(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    start: Sequence[int],
    shape: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    """See :func:`gigascope.kernels.ortho.pixels`; all contiguous."""
    out = torch.empty(table.shape[0], 2, *shape, dtype=dtype, device=table.device)
    numbers = torch.tensor([*size, *start], dtype=torch.float64, device=table.device)
    grid = (n_blocks(shape[0] * shape[1], BLOCK), table.shape[0])
    with on_device_of(table):
        _map_back[grid](
            table.detach(), distortion, numbers, out, shape[0], shape[1], ORDER=len(distortion), B=BLOCK,
            num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return out


@triton.jit
def _map_forward(
    table, distortion, numbers, corners, heights, out, n_rows, n_cols,
    ORDER: tl.constexpr, LIFT: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    k, at = tl.program_id(1), tl.program_id(0) * B + tl.arange(0, B)
    n = n_rows * n_cols
    inside = at < n
    size_r, size_c, spacing = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    larger = tl.maximum(size_r, size_c)
    row = table + k * N_COLUMNS
    y = (tl.load(corners + 2 * k) + spacing * (at // n_cols) - 0.5 * size_r) / larger
    x = (tl.load(corners + 2 * k + 1) + spacing * (at % n_cols) - 0.5 * size_c) / larger
    s2 = 2.0 * (x * x + y * y)
    m = s2 * 0.0
    for q in tl.static_range(ORDER):
        m = (m + tl.load(distortion + ORDER - 1 - q)) * s2
    y, x = y * (1.0 + m), x * (1.0 + m)
    w = tl.load(row + 6) * y + tl.load(row + 7) * x + tl.load(row + 8)
    q_row = (tl.load(row) * y + tl.load(row + 1) * x + tl.load(row + 2)) / w
    q_col = (tl.load(row + 3) * y + tl.load(row + 4) * x + tl.load(row + 5)) / w
    if LIFT:
        z = tl.load(heights + k.to(tl.int64) * n + at, mask=inside, other=0.0).to(tl.float64)
        shrink = 1.0 - z / tl.load(row + 20)
        foot_r, foot_c = tl.load(row + 18), tl.load(row + 19)
        q_row, q_col = foot_r + (q_row - foot_r) * shrink, foot_c + (q_col - foot_c) * shrink
    target = out + k.to(tl.int64) * 2 * n + at
    tl.store(target, q_row.to(out.dtype.element_ty), mask=inside)
    tl.store(target + n, q_col.to(out.dtype.element_ty), mask=inside)


@triton.jit
def pixel_of(row, distortion, size_r, size_c, q_row, q_col, known, ORDER: tl.constexpr):
    """Pixel of a view, whose row of the table is at pointer(s) `row`, that sees mosaic coordinates; all float64."""
    w = tl.load(row + 15, mask=known, other=0.0) * q_row + tl.load(row + 16, mask=known, other=0.0) * q_col
    w += tl.load(row + 17, mask=known, other=1.0)
    y = tl.load(row + 9, mask=known, other=0.0) * q_row + tl.load(row + 10, mask=known, other=0.0) * q_col
    y = (y + tl.load(row + 11, mask=known, other=0.0)) / w
    x = tl.load(row + 12, mask=known, other=0.0) * q_row + tl.load(row + 13, mask=known, other=0.0) * q_col
    x = (x + tl.load(row + 14, mask=known, other=0.0)) / w
    t = 2.0 * (x * x + y * y)
    ratio = t * 0.0 + 1.0
    for _ in tl.static_range(NEWTON_STEPS if ORDER > 0 else 0):
        s, m, slope = t * ratio * ratio, t * 0.0, t * 0.0
        for p in tl.static_range(ORDER):
            d = tl.load(distortion + ORDER - 1 - p)
            m = (m + d) * s
            slope = (slope + (2 * (ORDER - p) + 1) * d) * s
        ratio = ratio - (ratio * (1.0 + m) - 1.0) / (1.0 + slope)
    larger = tl.maximum(size_r, size_c)
    return y * ratio * larger + 0.5 * size_r, x * ratio * larger + 0.5 * size_c


@triton.jit
def _map_back(table, distortion, numbers, out, n_rows, n_cols, ORDER: tl.constexpr, B: tl.constexpr):
    k, at = tl.program_id(1), tl.program_id(0) * B + tl.arange(0, B)
    n = n_rows * n_cols
    inside = at < n
    size_r, size_c = tl.load(numbers), tl.load(numbers + 1)
    q_row, q_col = tl.load(numbers + 2) + at // n_cols, tl.load(numbers + 3) + at % n_cols
    r, c = pixel_of(table + k * N_COLUMNS, distortion, size_r, size_c, q_row, q_col, k >= 0, ORDER)
    target = out + k.to(tl.int64) * 2 * n + at
    tl.store(target, r.to(out.dtype.element_ty), mask=inside)
    tl.store(target + n, c.to(out.dtype.element_ty), mask=inside)
