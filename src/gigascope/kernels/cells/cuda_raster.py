"""Labels, brightness and volume fraction of nuclei on the GPU in Triton: one program per tile of voxels, no atomics."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.cells.bodies import BOUND, Bodies, Grid, bodies_near
from gigascope.kernels.cells.cuda_ownership import MOST, own
from gigascope.kernels.cells.cuda_shading import shade_tiles
from gigascope.kernels.cells.packing import look_rows
from gigascope.kernels.cells.table import NucleiTable
from gigascope.kernels.gaussians.bins import members_of_tiles
from gigascope.kernels.gpu import n_blocks, on_device_of

# voxels of a tile of labels, with 8 samples each; samples of a tile of brightness
VOXELS, SAMPLES = (2, 4, 8), (4, 8, 16)
WARPS = 4


class _Tiles(NamedTuple):
    """Bodies of each tile: list of tile t is members[starts[t] : starts[t + 1]]."""

    starts: Tensor
    members: Tensor
    number: tuple[int, int, int]


def labels(table: NucleiTable, grid: Grid, gap: float, subsample: int) -> Tensor:
    """See :func:`gigascope.kernels.cells.labels`; `grid` is that of the sub-samples."""
    bodies = bodies_near(table, grid, gap)
    names = (bodies.number + 1).to(torch.int32)
    return _vote(bodies, names, grid, gap, subsample, torch.int32)


def fraction(table: NucleiTable, grid: Grid, gap: float, subsample: int) -> Tensor:
    """See :func:`gigascope.kernels.cells.fraction`; `grid` is that of the sub-samples."""
    bodies = bodies_near(table, grid, gap)
    return _vote(bodies, bodies.number, grid, gap, subsample, torch.float32)


def density(table: NucleiTable, grid: Grid, gap: float) -> Tensor:
    """See :func:`gigascope.kernels.cells.density`."""
    bodies = bodies_near(table, grid, gap)
    out = torch.zeros(grid.shape, dtype=torch.float32, device=table.centre.device)
    if len(bodies.number) == 0:
        return out
    tiles = _tiles(bodies, grid, SAMPLES)
    looks = look_rows(table.rows(bodies.number))
    library = table.crops if len(table.crops) else table.intensity.half()
    with on_device_of(out):
        shade_tiles[(math.prod(tiles.number),)](
            *_inputs(bodies, tiles, grid), *looks, library, out, *grid.first, *grid.shape, *tiles.number[1:],
            *_numbers(bodies, gap), OCTAVES=looks.keys.shape[1], DEGREE=bodies.degree, GAP=gap > 0,
            Z=SAMPLES[0], Y=SAMPLES[1], X=SAMPLES[2], num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def _vote(bodies: Bodies, names: Tensor, grid: Grid, gap: float, subsample: int, dtype: torch.dtype) -> Tensor:
    """Labels in int32 or fractions in float32."""
    shape = [n // subsample for n in grid.shape]
    out = torch.zeros(shape, dtype=dtype, device=names.device)
    if len(names) == 0:
        return out
    tiles = _tiles(bodies, grid, tuple(n * subsample for n in VOXELS))  # type: ignore[arg-type]
    with on_device_of(out):
        _vote_tiles[(math.prod(tiles.number),)](
            *_inputs(bodies, tiles, grid), names, out, *(n // subsample for n in grid.first), *shape,
            *tiles.number[1:], *_numbers(bodies, gap), 1.0 / subsample**3, K=subsample,
            S=triton.next_power_of_2(subsample**3), LABELS=dtype == torch.int32, DEGREE=bodies.degree, GAP=gap > 0,
            Z=VOXELS[0], Y=VOXELS[1], X=VOXELS[2], num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def _tiles(bodies: Bodies, grid: Grid, size: tuple[int, int, int]) -> _Tiles:
    """Lists from the counting sort on the CPU: some ten thousand tiles."""
    number = n_blocks(grid.shape[0], size[0]), n_blocks(grid.shape[1], size[1]), n_blocks(grid.shape[2], size[2])
    lists = members_of_tiles(bodies.boxes.cpu().numpy(), size, number)
    starts, members = (torch.from_numpy(array).to(bodies.boxes.device) for array in lists)
    return _Tiles(starts, members, number)


def _inputs(bodies: Bodies, tiles: _Tiles, grid: Grid) -> tuple[Tensor, ...]:
    # numbers that float32 arguments would round
    step = torch.tensor(grid.step, dtype=torch.float64, device=bodies.rows.device)
    bounds = bodies.forms[:, BOUND].float().contiguous()
    return tiles.starts, tiles.members, bodies.centres, bodies.rows, bounds, step


def _numbers(bodies: Bodies, gap: float) -> tuple[float, float]:
    return (bodies.limit**2 if gap > 0 else MOST), gap


@triton.jit
def _vote_tiles(
    starts, members, centres, rows, bounds, steps, names, out, first_z, first_y, first_x, n_z, n_y, n_x,
    tiles_y, tiles_x, most, gap, share, K: tl.constexpr, S: tl.constexpr, LABELS: tl.constexpr,
    DEGREE: tl.constexpr, GAP: tl.constexpr, Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    begin, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    if begin == end:
        return
    v, s = tl.arange(0, Z * Y * X)[None, :], tl.arange(0, S)[:, None]
    z, y, x = v // (Y * X), v // X % Y, v % X
    z, y, x = tile // (tiles_x * tiles_y) * Z + z, tile // tiles_x % tiles_y * Y + y, tile % tiles_x * X + x
    step_z, step_y, step_x = tl.load(steps), tl.load(steps + 1), tl.load(steps + 2)
    pz = (((first_z + z) * K + s // (K * K)).to(tl.float64) + 0.5) * step_z
    py = (((first_y + y) * K + s // K % K).to(tl.float64) + 0.5) * step_y
    px = (((first_x + x) * K + s % K).to(tl.float64) + 0.5) * step_x
    _, owner = own(members, begin, end, centres, rows, bounds, pz, py, px, most, gap, DEGREE, GAP)
    owner = tl.where(s < K * K * K, owner, -1)
    inside = tl.sum((owner >= 0).to(tl.int32), axis=0)[None, :]
    target = out + (z.to(tl.int64) * n_y + y) * n_x + x
    exists = (z < n_z) & (y < n_y) & (x < n_x)
    if LABELS:
        same = owner[:, None, :] == owner[None, :, :]
        votes = tl.sum(same.to(tl.int32), axis=1)
        # most votes, of equal ones the smallest place in the list
        ballot = tl.where(owner >= 0, (votes.to(tl.int64) << 32) + (0x7FFFFFFF - owner), 0)
        place = 0x7FFFFFFF - (tl.max(ballot, axis=0)[None, :] & 0xFFFFFFFF).to(tl.int32)
        enough = 2 * inside > K * K * K
        if K % 2 == 0:
            mz = ((first_z + z).to(tl.float64) + 0.5) * (step_z * K)
            my = ((first_y + y).to(tl.float64) + 0.5) * (step_y * K)
            mx = ((first_x + x).to(tl.float64) + 0.5) * (step_x * K)
            _, middle = own(members, begin, end, centres, rows, bounds, mz, my, mx, most, gap, DEGREE, GAP)
            enough = enough | ((2 * inside == K * K * K) & (middle >= 0))
        chosen = tl.load(members + begin + place, mask=enough, other=0)
        tl.store(target, tl.load(names + chosen, mask=enough, other=0), mask=exists)
    else:
        tl.store(target, inside.to(tl.float32) * share, mask=exists)
