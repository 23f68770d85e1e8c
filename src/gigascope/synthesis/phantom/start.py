"""Where nuclei start: one in each cell of a lattice with as many cells in the region as there are nuclei."""

from __future__ import annotations

import numpy as np

from gigascope.synthesis.phantom.nuclei import F64
from gigascope.synthesis.phantom.region import DistanceGrid
from gigascope.synthesis.seeds import generator, seeds_of, uniform

# Centres keep this share of the mean radius from the surface, where the region leaves room for it.
INSET = 0.6
# How far within its cell a nucleus starts off the middle, in units of the cell.
JITTER = 0.4


def stratified(region: DistanceGrid, n: int, radius_um: float, seed: int) -> F64:
    """(n, 3) float64 µm: jittered points, evenly over the region.

    Parameters
    ----------
    region : signed distance, negative inside
    n : how many
    radius_um : mean radius of what is placed
    seed : of the spheroid
    """
    if n == 0:
        return np.zeros((0, 3))
    inset = INSET * radius_um
    if float(region.values.min()) > -inset:
        inset = 0.0
    inside = float((region.values < -inset).mean()) * region.values.size * float(np.prod(region.spacing))
    high = region.low + (np.array(region.values.shape) - 1) * region.spacing
    offset = generator(seed, "placement", "lattice").random(3)
    # the spacing that leaves enough cells; fewer are then taken out than a layer has
    spacing = np.cbrt(inside / n)
    points = _cells(region, spacing, offset, high, inset)
    while len(points) < n:
        spacing *= 0.99
        points = _cells(region, spacing, offset, high, inset)
    order = np.argsort(uniform(seeds_of(seed, np.arange(len(points))), 0), kind="stable")
    points = points[np.sort(order[:n])]
    seeds = seeds_of(seed, np.arange(n))
    jitter = np.stack([uniform(seeds, 1 + axis) - 0.5 for axis in range(3)], axis=1)
    moved = points + 2 * JITTER * spacing * jitter
    outside = region.distance(moved) > 0
    moved[outside] = points[outside]
    return np.asarray(np.round(moved * 1024) / 1024)


def _cells(region: DistanceGrid, spacing: float, offset: F64, high: F64, inset: float) -> F64:
    """Middles of the lattice's cells that are inside, plane by plane."""
    axes = [np.arange(low + o * spacing, top, spacing) for low, o, top in zip(region.low, offset, high)]
    plane = np.stack(np.meshgrid(*axes[1:], indexing="ij"), axis=-1).reshape(-1, 2)
    found = [np.zeros((0, 3))]
    for z in axes[0]:
        points = np.concatenate([np.full((len(plane), 1), z), plane], axis=1)
        found.append(points[region.distance(points) < -inset])
    return np.concatenate(found)
