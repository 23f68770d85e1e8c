"""Filters on the GPU in Triton: one pass per axis over tiles, a few slices at a time so that scratch stays small."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.filters.taps import taps
from gigascope.kernels.gpu import n_blocks, on_device_of, y_block

ROWS = 4
LARGEST_COLUMNS = 256
WARPS = 4
# pixels that are filtered together: two float32 arrays of 256 MB
AT_ONCE = 1 << 26


def gaussian(stack: Tensor, sigma: float, truncate: float, border: str) -> Tensor:
    """See :func:`gigascope.kernels.filters.gaussian`; `stack` contiguous."""
    weights = taps(sigma, truncate).to(stack.device, torch.float32)
    out = torch.empty(stack.shape, dtype=torch.float32, device=stack.device)
    for part in _parts(stack):
        _blur(stack[part], weights, border, out[part])
    return out


def sharpness(stack: Tensor, sigma: float, truncate: float, border: str, floor: float) -> Tensor:
    """See :func:`gigascope.kernels.filters.sharpness`; `stack` contiguous."""
    weights = taps(sigma, truncate).to(stack.device, torch.float32)
    out = torch.empty(stack.shape, dtype=torch.float32, device=stack.device)
    for part in _parts(stack):
        image, result = stack[part], out[part]
        contrast = torch.empty_like(result)
        _blur(image, weights, border, contrast)
        _launch(_steepness, image, image, contrast, result, float(floor))
        _blur(result, weights, border, result)
    return out


def _parts(stack: Tensor) -> list[slice]:
    """Slices in groups of at most AT_ONCE pixels."""
    step = max(1, AT_ONCE // (stack.shape[1] * stack.shape[2]))
    return [slice(z, z + step) for z in range(0, stack.shape[0], step)]


def _blur(image: Tensor, weights: Tensor, border: str, out: Tensor) -> None:
    """Filter both axes of `image` into `out`, which may be `image`."""
    along = torch.empty_like(out)
    options = {"N_TAPS": len(weights), "ZERO": border == "zero"}
    _launch(_filter, image, image, weights, along, ALONG_COLUMNS=False, **options)
    _launch(_filter, image, along, weights, out, ALONG_COLUMNS=True, **options)


def _launch(kernel, like: Tensor, *arguments: Tensor | float, **constants: int) -> None:
    """One program per slice, ROWS rows and stretch of columns."""
    n_z, n_rows, n_columns = like.shape
    block = y_block(n_columns, LARGEST_COLUMNS)
    grid = (n_blocks(n_columns, block), n_blocks(n_rows, ROWS), n_z)
    with on_device_of(like):
        kernel[grid](
            *arguments, n_rows, n_columns, R=ROWS, C=block, num_warps=WARPS, enable_fp_fusion=True, **constants
        )


@triton.jit
def _tile(n_rows, n_columns, R: tl.constexpr, C: tl.constexpr):
    """Offset of the slice of this program, its rows and columns, and which of them exist."""
    r = (tl.program_id(1) * R + tl.arange(0, R))[:, None]
    c = (tl.program_id(0) * C + tl.arange(0, C))[None, :]
    return tl.program_id(2).to(tl.int64) * n_rows * n_columns, r, c, (r < n_rows) & (c < n_columns)


@triton.jit
def _filter(
    image, taps, out, n_rows, n_columns,
    R: tl.constexpr, C: tl.constexpr, N_TAPS: tl.constexpr, ZERO: tl.constexpr, ALONG_COLUMNS: tl.constexpr,
):  # fmt: skip
    """One axis; ALONG_COLUMNS sums over the rows of a column."""
    start, r, c, inside = _tile(n_rows, n_columns, R, C)
    total = tl.zeros((R, C), dtype=tl.float32)
    for k in range(N_TAPS):
        if ALONG_COLUMNS:
            at, n = r + k - N_TAPS // 2, n_rows
        else:
            at, n = c + k - N_TAPS // 2, n_columns
        clamped = tl.minimum(tl.maximum(at, 0), n - 1)
        place = clamped * n_columns + c if ALONG_COLUMNS else r * n_columns + clamped
        read = inside & (at == clamped) if ZERO else inside
        total += tl.load(taps + k) * tl.load(image + start + place, mask=read, other=0).to(tl.float32)
    tl.store(out + start + r * n_columns + c, total, mask=inside)


@triton.jit
def _contrast(image, mean, at, floor, inside):
    """Intensity over the mean around it."""
    value = tl.load(image + at, mask=inside, other=0).to(tl.float32)
    around = tl.load(mean + at, mask=inside, other=1.0)
    return value / tl.where(around < floor, floor, around)


@triton.jit
def _steepness(image, mean, out, floor, n_rows, n_columns, R: tl.constexpr, C: tl.constexpr):
    """Length of the two forward differences of the contrast, 0 across the last column and row."""
    start, r, c, inside = _tile(n_rows, n_columns, R, C)
    here = start + r * n_columns + c
    center = _contrast(image, mean, here, floor, inside)
    beside = _contrast(image, mean, start + r * n_columns + tl.minimum(c + 1, n_columns - 1), floor, inside)
    under = _contrast(image, mean, start + tl.minimum(r + 1, n_rows - 1) * n_columns + c, floor, inside)
    across, down = center - beside, center - under
    tl.store(out + here, tl.sqrt(across * across + down * down), mask=inside)
