"""Gaussian mixtures at points on the GPU: points sorted into cells, each cell with the Gaussians that reach it.

Positions and cuts in float64: whether a point is inside a cut is decided as on a grid.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gaussians.cuda_bins import FRAME, Bins, bin_boxes, make_frames
from gigascope.kernels.gpu import on_device_of

# least edge of a cell, voxels, and points of a program
CELL = 8
BLOCK = 128
# cells and pairs that are worth their memory, per Gaussian and point
ENTRIES = 32

_FRAME = tl.constexpr(FRAME)
_LOG2E_2 = tl.constexpr(0.5 * math.log2(math.e))


def evaluate_points(
    means: Tensor, log_scales: Tensor, quaternions: Tensor, amplitudes: Tensor, cuts: Tensor, points: Tensor
) -> Tensor:
    """See :func:`gigascope.kernels.gaussians.evaluate_points`; all contiguous."""
    known = points.isfinite().all(dim=1)
    nothing = torch.where(known, points.new_zeros(()), torch.nan)
    if not len(points) or not len(means):
        return nothing
    frames = make_frames((means, log_scales, quaternions, cuts), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    positions = torch.where(known[:, None], points, 0.0)
    low = positions.amin(dim=0).double()
    extent = positions.amax(dim=0).double() - low
    half, edge = frames.halves * (1 + 1e-9) + 1e-9, float(CELL)
    while True:
        n_cells = (extent / edge).long() + 1
        first = torch.nan_to_num((frames.frames[:, :3] - half - low) / edge).floor().clamp(min=0).minimum(n_cells)
        last = torch.nan_to_num((frames.frames[:, :3] + half - low) / edge).floor().clamp(min=-1).minimum(n_cells - 1)
        empty = (last < first).any(dim=1) | (cuts <= 0)
        # Gaussians of unknown place reach every cell, so that they stay visible
        first = torch.where(frames.unknown[:, None], 0, first.long())
        last = torch.where(frames.unknown[:, None], n_cells, torch.where(empty[:, None], first, last.long() + 1))
        entries = float((last - first).double().prod(dim=1).sum() + n_cells.double().prod())
        # unknown ones are few, or all is lost anyway
        if entries <= ENTRIES * (len(means) + len(points)) + 4096 or int(n_cells.max()) == 1:
            break
        edge *= 2
    n = tuple(n_cells.tolist())
    bins = bin_boxes(frames, first, last, (n[0], n[1], n[2]), reject=False)
    place = ((positions.double() - low) / edge).long()
    cells, order = torch.sort((place[:, 0] * n[1] + place[:, 1]) * n[2] + place[:, 2], stable=True)
    values = _evaluated(bins, amplitudes, positions[order], cells)
    result = torch.empty_like(values)
    result[order] = values
    return torch.where(known, result, torch.nan)


def _evaluated(bins: Bins, amplitudes: Tensor, positions: Tensor, cells: Tensor) -> Tensor:
    """Values at points that are sorted by their cell."""
    occupied, counts = torch.unique_consecutive(cells, return_counts=True)
    blocks = (counts + BLOCK - 1) // BLOCK
    owner = torch.repeat_interleave(torch.arange(len(occupied), device=cells.device), blocks)
    number = torch.arange(len(owner), device=cells.device) - (blocks.cumsum(0) - blocks)[owner]
    begin = (counts.cumsum(0) - counts)[owner] + BLOCK * number
    end = torch.minimum(begin + BLOCK, counts.cumsum(0)[owner])
    values = positions.new_empty(len(positions))
    lists = bins.frames.frames, bins.starts, bins.gaussians, amplitudes
    with on_device_of(positions):
        _evaluate_points[(len(owner),)](
            *lists, occupied[owner], begin, end, positions, values, P=BLOCK, num_warps=4, enable_fp_fusion=True
        )
    return values


@triton.jit
def _evaluate_points(
    frames, starts, gaussians, amplitudes, cells, begins, ends, positions, values, P: tl.constexpr
):  # fmt: skip
    cell, end = tl.load(cells + tl.program_id(0)), tl.load(ends + tl.program_id(0))
    p = tl.load(begins + tl.program_id(0)) + tl.arange(0, P)
    ok = p < end
    z = tl.load(positions + 3 * p, mask=ok, other=0.0).to(tl.float64)
    y = tl.load(positions + 3 * p + 1, mask=ok, other=0.0).to(tl.float64)
    x = tl.load(positions + 3 * p + 2, mask=ok, other=0.0).to(tl.float64)
    total = tl.zeros((P,), tl.float32)
    for k in range(tl.load(starts + cell), tl.load(starts + cell + 1)):
        i = tl.load(gaussians + k)
        f = frames + i * _FRAME
        d_z, d_y, d_x = z - tl.load(f), y - tl.load(f + 1), x - tl.load(f + 2)
        c_z, c_y = tl.load(f + 3) * d_z, tl.load(f + 4) * (d_y + tl.load(f + 6) * d_z)
        c_x = tl.load(f + 5) * (d_x + tl.load(f + 7) * d_y + tl.load(f + 8) * d_z)
        m = (c_z * c_z + c_y * c_y) + c_x * c_x
        phi = tl.exp2((m * -_LOG2E_2).to(tl.float32))
        total += tl.load(amplitudes + i) * tl.where(m >= tl.load(f + 9), 0.0, phi)
    tl.store(values + p, total, mask=ok)
