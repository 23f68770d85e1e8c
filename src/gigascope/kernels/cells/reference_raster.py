"""The definition of labels, brightness and volume fraction: plain torch in float64, nucleus by nucleus."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gigascope.kernels.cells.bodies import Grid, reach_of_gap
from gigascope.kernels.cells.packing import (
    AXES,
    COMPONENT_BITS,
    COMPONENT_MIDDLE,
    N_OCTAVE,
    NUCLEOLUS_DEPTH,
    NUCLEOLUS_EDGE_UM,
    OCTAVE,
    Looks,
    look_rows,
    mixed,
)
from gigascope.kernels.cells.shape import radius, rotation_matrices
from gigascope.kernels.cells.table import CROP, CROP_SPACING_UM, RIM_LENGTH_UM, NucleiTable

_MASK = 0xFFFFFFFF
_FAR = 1e9


class Owners(NamedTuple):
    """Of every sample, flat: smallest and second smallest ρ, radius of the owner in its direction, row or -1."""

    rho: Tensor
    second: Tensor
    radius: Tensor
    row: Tensor


def labels(table: NucleiTable, grid: Grid, gap: float, subsample: int) -> Tensor:
    """See :func:`gigascope.kernels.cells.labels`; `grid` is that of the sub-samples."""
    samples = by_voxel(owners(table, grid, gap).row.reshape(grid.shape), subsample).sort(dim=-1).values
    # how often each sample's owner owns a sample of the voxel; of equal numbers argmax takes the first, the smallest
    votes = (samples[..., None] == samples[..., None, :]).sum(-1) * (samples >= 0)
    winner = samples.gather(-1, votes.argmax(-1, keepdim=True))[..., 0]
    inside, n = (samples >= 0).sum(-1), samples.shape[-1]
    middle = owners(table, of_voxels(grid, subsample), gap).row.reshape(inside.shape) >= 0
    enough = (2 * inside > n) | ((2 * inside == n) & middle)
    return torch.where(enough, winner + 1, 0).to(torch.int32)


def fraction(table: NucleiTable, grid: Grid, gap: float, subsample: int) -> Tensor:
    """See :func:`gigascope.kernels.cells.fraction`; `grid` is that of the sub-samples."""
    inside = owners(table, grid, gap).row.reshape(grid.shape) >= 0
    return by_voxel(inside, subsample).double().mean(-1).float()


def density(table: NucleiTable, grid: Grid, gap: float) -> Tensor:
    """See :func:`gigascope.kernels.cells.density`."""
    found = owners(table, grid, gap)
    places, turned, looks = positions(grid, table.centre.device), rotation_matrices(table.rotation), look_rows(table)
    out = torch.zeros_like(found.rho)
    for i in found.row.unique().tolist():
        if i >= 0:
            mine = found.row == i
            b = (places[mine] - table.centre[i]) @ turned[i].T
            out[mine] = brightness(table, looks, i, b, found.rho[mine], found.radius[mine])
    return out.reshape(grid.shape).float()


def positions(grid: Grid, device: torch.device) -> Tensor:
    """(samples, 3) float64 µm."""
    lines = [
        (torch.arange(n, dtype=torch.float64, device=device) + first + 0.5) * step
        for first, n, step in zip(grid.first, grid.shape, grid.step)
    ]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).reshape(-1, 3)


def owners(table: NucleiTable, grid: Grid, gap: float) -> Owners:
    """Nearest nucleus by ρ of every sample, and whether it owns it."""
    places = positions(grid, table.centre.device)
    turned = rotation_matrices(table.rotation)
    best, second = places.new_full((len(places),), _FAR), places.new_full((len(places),), _FAR)
    size, row = torch.ones_like(best), torch.full_like(best, -1, dtype=torch.int64)
    limit = reach_of_gap(table, gap)
    for i in range(table.n):
        offset = places - table.centre[i]
        at = (offset.norm(dim=1) <= limit * table.reach[i]).nonzero()[:, 0]
        b = offset[at] @ turned[i].T
        away = b.norm(dim=1)
        u = b / away.clamp(min=1e-30)[:, None]
        r = radius(table.semi_axes[i : i + 1], table.exponent[i : i + 1], table.harmonics[i : i + 1], u)[0]
        rho = torch.where(away > 0, away / r, 0)  # the centre itself lies in no direction
        second[at] = torch.minimum(second[at], torch.maximum(best[at], rho))
        nearer = rho < best[at]
        best[at[nearer]], size[at[nearer]], row[at[nearer]] = rho[nearer], r[nearer], i
    kept = (best <= 1) & ((second - best) * size >= gap)
    return Owners(best, second, size, torch.where(kept, row, -1))


def brightness(table: NucleiTable, looks: Looks, i: int, b: Tensor, rho: Tensor, r: Tensor) -> Tensor:
    """Brightness of nucleus i at points b of its body frame, with their ρ and the radius in their direction."""
    value = table.intensity[i].double().expand(len(b))
    if table.texture[i] >= 0:
        value = value * library(table.crops[table.texture[i]], b).clamp(min=0) ** table.gamma[i].double()
    else:
        value = value * (1 + table.texture_sigma[i].double() * noise(looks, i, b)).clamp(min=0)
    value = value * (1 + table.rim[i].double() * torch.exp(-(1 - rho) * r / RIM_LENGTH_UM))
    for spot in table.nucleoli[i].double():
        if spot[3] > 0:
            t = ((spot[3] - (b - spot[:3]).norm(dim=1)) / NUCLEOLUS_EDGE_UM + 0.5).clamp(0, 1)
            value = value * (1 - NUCLEOLUS_DEPTH * t * t * (3 - 2 * t))
    return value


def noise(looks: Looks, i: int, b: Tensor) -> Tensor:
    """Gradient noise of nucleus i at points b: mean 0, variance 1."""
    total = torch.zeros(len(b), dtype=torch.float64, device=b.device)
    for octave in range(looks.keys.shape[1]):
        frequency, *start, amplitude = looks.rows[i, OCTAVE + N_OCTAVE * octave :][:N_OCTAVE].double()
        p = b * frequency + torch.stack(start)
        cell = p.floor()
        way = p - cell
        fade = way**3 * (way * (way * 6 - 15) + 10)
        for corner in range(8):
            step = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=b.device)
            weight = torch.where(step == 1, fade, 1 - fade).prod(1)
            point = cell.long() + step
            word = (point * torch.tensor(AXES, device=b.device)).sum(1) + int(looks.keys[i, octave])
            word = mixed(word & _MASK)
            bits = torch.stack([word >> COMPONENT_BITS * axis & 1023 for axis in range(3)], dim=1)
            total += amplitude * weight * ((bits - COMPONENT_MIDDLE) * (way - step)).sum(1)
    return total


def library(crop: Tensor, b: Tensor) -> Tensor:
    """Trilinear values of a crop (48, 48, 48); beyond its faces their values go on."""
    at = (b / CROP_SPACING_UM + (CROP - 1) / 2).clamp(0, CROP - 1)
    cell = at.floor().clamp(max=CROP - 2)
    way = at - cell
    total = torch.zeros(len(b), dtype=torch.float64, device=b.device)
    for corner in range(8):
        step = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=b.device)
        z, y, x = (cell.long() + step).unbind(1)
        total += torch.where(step == 1, way, 1 - way).prod(1) * crop[z, y, x].double()
    return total


def of_voxels(grid: Grid, subsample: int) -> Grid:
    """The grid of the voxels of which one has the sub-samples."""
    first, shape = ([n // subsample for n in numbers] for numbers in (grid.first, grid.shape))
    step = [s * subsample for s in grid.step]
    return Grid((first[0], first[1], first[2]), (shape[0], shape[1], shape[2]), (step[0], step[1], step[2]))


def by_voxel(samples: Tensor, subsample: int) -> Tensor:
    """(Z, Y, X, samples of a voxel)."""
    z, y, x = (n // subsample for n in samples.shape)
    split = samples.reshape(z, subsample, y, subsample, x, subsample)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(z, y, x, -1)
