"""Nuclei that a block can touch, ready for the rasterisers: rows, the ellipsoid around each, its box in samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gigascope.kernels.cells.packing import degree_of, shape_rows
from gigascope.kernels.cells.shape import log_bounds, rotation_matrices
from gigascope.kernels.cells.table import NucleiTable

# columns of the quadratic form Σ_i (b_i / a_i)² of (x - centre), and the value within which a body may matter
FORM, BOUND = slice(0, 6), 6
# what is left out must be out for float32 too, whose ρ² is good to 1e-6
_SLACK = 1 + 1e-4


class Grid(NamedTuple):
    """Samples of a block: sample i of an axis is at (first + i + 1/2) step, in µm."""

    first: tuple[int, int, int]
    shape: tuple[int, int, int]
    step: tuple[float, float, float]


class Bodies(NamedTuple):
    """k nuclei near a block, in the order of their labels.

    Attributes
    ----------
    number : (k,) int64, rows of the table
    centres : (k, 3) float64 µm
    rows : (k, 95) float32, see :mod:`gigascope.kernels.cells.packing`
    forms : (k, 7) float64
    boxes : (k, 6) int64, first and one past the last sample along z, y, x, from the block's first and within it
    degree : largest degree of their harmonics
    limit : largest ρ that matters
    """

    number: Tensor
    centres: Tensor
    rows: Tensor
    forms: Tensor
    boxes: Tensor
    degree: int
    limit: float


def bodies_near(table: NucleiTable, grid: Grid, gap: float) -> Bodies:
    """Nuclei whose ellipsoid of bounds has a sample of the block inside its box."""
    low = table.centre.new_tensor([f * s for f, s in zip(grid.first, grid.step)])
    high = low + table.centre.new_tensor([n * s for n, s in zip(grid.shape, grid.step)])
    limit = reach_of_gap(table, gap)
    span = (table.reach * (limit * _SLACK))[:, None]
    near = ((table.centre + span >= low) & (table.centre - span <= high)).all(dim=1).nonzero()[:, 0]
    some = table.rows(near)
    forms, half = _ellipsoids(some, limit)
    size = torch.tensor(grid.shape, device=half.device).repeat_interleave(2)
    boxes = torch.minimum(sample_boxes(some.centre, half, grid).clamp(min=0), size)
    kept = (boxes[:, 1::2] > boxes[:, ::2]).all(dim=1)
    some = some.rows(kept)
    return Bodies(near[kept], some.centre, shape_rows(some), forms[kept], boxes[kept], degree_of(table), limit)


def all_bodies(table: NucleiTable, grid: Grid, gap: float) -> Bodies:
    """All nuclei, with their boxes as samples of an endless grid."""
    limit = reach_of_gap(table, gap)
    forms, half = _ellipsoids(table, limit)
    boxes = sample_boxes(table.centre, half, grid)
    everyone = torch.arange(table.n, device=table.centre.device)
    return Bodies(everyone, table.centre, shape_rows(table), forms, boxes, degree_of(table), limit)


def reach_of_gap(table: NucleiTable, gap: float) -> float:
    """Largest ρ of a second nucleus that can be within `gap` of an owner: 1 + gap / smallest radius."""
    if gap == 0 or table.n == 0:
        return 1.0
    # e below 2 cuts the corners of the ellipsoid
    inner = (3.0 ** (0.5 - 1 / table.exponent)).clamp(max=1)
    smallest = table.semi_axes.min(dim=1).values * inner * log_bounds(table.harmonics)[:, 0].exp()
    return 1 + gap / float(smallest.min()) * _SLACK


def sample_boxes(centres: Tensor, half: Tensor, grid: Grid) -> Tensor:
    """(k, 6) samples within `half` of the centres, counted from the block's first, also outside it."""
    step, first = centres.new_tensor(grid.step), centres.new_tensor(grid.first)
    low = ((centres - half) / step - 0.5).floor() - first
    high = ((centres + half) / step - 0.5).ceil() + 1 - first
    return torch.stack((low, high), dim=2).flatten(1).to(torch.int64).contiguous()


def _ellipsoids(table: NucleiTable, limit: float) -> tuple[Tensor, Tensor]:
    """Forms (k, 7), and half the size of the boxes around them (k, 3) µm."""
    turned = rotation_matrices(table.rotation)
    scaled = turned / table.semi_axes[:, :, None]
    form = scaled.transpose(1, 2) @ scaled
    bound = (table.reach / table.semi_axes.max(dim=1).values * limit).square() * _SLACK
    upper = form[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    half = (turned * table.semi_axes[:, :, None]).square().sum(1).mul(bound[:, None]).sqrt()
    return torch.cat((upper, bound[:, None]), dim=1).contiguous(), half
