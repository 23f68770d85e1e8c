"""The integer field on the GPU in Triton: one program per tile over the Gaussians whose boxes touch it, no atomics."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gpu import n_blocks, on_device_of
from gigascope.kernels.integer_field import layout

TILE = (4, 8, 8)
WARPS = 4

_EXPONENT_BITS = tl.constexpr(layout.EXPONENT_BITS)
_ENTRY_SHIFT = tl.constexpr(layout.EXPONENT_BITS - layout.TABLE_BITS)
_ENTRY_MASK = tl.constexpr((1 << layout.TABLE_BITS) - 1)
_FRACTION_SHIFT = tl.constexpr(layout.EXPONENT_BITS - layout.TABLE_BITS - layout.FRACTION_BITS)
_FRACTION_MASK = tl.constexpr((1 << layout.FRACTION_BITS) - 1)
_FRACTION_BITS = tl.constexpr(layout.FRACTION_BITS)
_TERM_SHIFT = tl.constexpr(layout.TERM_SHIFT)
_CONSTANT, _LIMIT, _AMPLITUDE = (tl.constexpr(c) for c in (layout.CONSTANT, layout.LIMIT, layout.AMPLITUDE))
_LINEAR, _SQUARE, _MIXED = (tl.constexpr(c.start) for c in (layout.LINEAR, layout.SQUARE, layout.MIXED))
_COLUMNS = tl.constexpr(layout.N_COLUMNS)


def add_(field: Tensor, gaussians: Tensor, origin: tuple[int, int, int]) -> None:
    """See :func:`gigascope.kernels.integer_field.add_`; contiguous."""
    tiles, starts, stops, members = bin_tiles(gaussians, origin, tuple(field.shape))
    if not len(tiles):
        return
    table = torch.from_numpy(layout.exp2_table()).to(field.device)
    shape = tuple(field.shape)
    with on_device_of(field):
        _add[(len(tiles),)](
            field, gaussians, table, tiles, starts, stops, members, *origin, *shape,
            Z=TILE[0], Y=TILE[1], X=TILE[2], num_warps=WARPS,
        )  # fmt: skip


def bin_tiles(
    gaussians: Tensor, origin: tuple[int, int, int], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which boxes touch which tiles.

    Returns
    -------
    tiles : (T,) int64 flat indices of the tiles that are touched
    starts, stops : (T,) int64, their share of `members`
    members : (P,) int64 rows of `gaussians`, tile by tile
    """
    device = gaussians.device
    tile, first = (torch.tensor(v, device=device) for v in (TILE, origin))
    counts = [n_blocks(n, t) for n, t in zip(shape, TILE)]
    low = (gaussians[:, layout.LOW] - first).clamp_min(0) // tile
    last = torch.tensor(shape, device=device) - 1
    high = torch.minimum(gaussians[:, layout.HIGH] - first, last)
    spans = (torch.where(high >= 0, high // tile, -1) - low + 1).clamp_min(0)
    pairs = spans.prod(1)
    members = torch.repeat_interleave(torch.arange(len(gaussians), device=device), pairs)
    within = torch.arange(len(members), device=device) - (pairs.cumsum(0) - pairs)[members]
    span = spans[members]
    z = within // (span[:, 1] * span[:, 2]) + low[members, 0]
    y = within // span[:, 2] % span[:, 1] + low[members, 1]
    x = within % span[:, 2] + low[members, 2]
    tiles, order = torch.sort((z * counts[1] + y) * counts[2] + x, stable=True)
    touched, sizes = torch.unique_consecutive(tiles, return_counts=True)
    stops = sizes.cumsum(0)
    return touched, stops - sizes, stops, members[order]


@triton.jit
def _add(
    field, gaussians, table, tiles, starts, stops, members, origin_z, origin_y, origin_x, n_z, n_y, n_x,
    Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    tile = tl.load(tiles + program)
    tiles_y, tiles_x = tl.cdiv(n_y, Y), tl.cdiv(n_x, X)
    lane = tl.arange(0, Z * Y * X).to(tl.int64)
    z = tile // (tiles_y * tiles_x) * Z + lane // (Y * X)
    y = tile // tiles_x % tiles_y * Y + lane // X % Y
    x = tile % tiles_x * X + lane % X
    exists = (z < n_z) & (y < n_y) & (x < n_x)
    place = field + (z * n_y + y) * n_x + x
    total = tl.load(place, mask=exists, other=0)
    z, y, x = z + origin_z, y + origin_y, x + origin_x
    for k in range(tl.load(starts + program), tl.load(stops + program)):
        g = gaussians + tl.load(members + k) * _COLUMNS
        total += _term(g, table, z - tl.load(g), y - tl.load(g + 1), x - tl.load(g + 2))
    tl.store(place, total, mask=exists)


@triton.jit
def _term(g, table, z, y, x):
    """Contribution of the Gaussian at `g` to places relative to its anchor."""
    along_z = tl.load(g + _LINEAR) + tl.load(g + _SQUARE) * z
    along_y = tl.load(g + _LINEAR + 1) + tl.load(g + _SQUARE + 1) * y + tl.load(g + _MIXED) * z
    along_x = tl.load(g + _LINEAR + 2) + tl.load(g + _SQUARE + 2) * x
    along_x += tl.load(g + _MIXED + 1) * z + tl.load(g + _MIXED + 2) * y
    e = tl.load(g + _CONSTANT) + along_z * z + along_y * y + along_x * x
    inside = e < tl.load(g + _LIMIT)
    e = tl.where(inside & (e > 0), e, 0)
    entry = ((e >> _ENTRY_SHIFT) & _ENTRY_MASK) * 2
    fraction = ((e >> _FRACTION_SHIFT) & _FRACTION_MASK).to(tl.int32)
    weight = tl.load(table + entry) - (tl.load(table + entry + 1) * fraction >> _FRACTION_BITS)
    term = tl.load(g + _AMPLITUDE) * weight.to(tl.int64) >> ((e >> _EXPONENT_BITS) + _TERM_SHIFT)
    return tl.where(inside, term, 0)
