"""Which population a cell belongs to, by where it is put first."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from gigascope.synthesis import seeds as numbers
from gigascope.synthesis.phantom.nuclei import F64, POPULATION
from gigascope.synthesis.phantom.recipe import PlaceRecipe, PopulationRecipe
from gigascope.synthesis.phantom.region import Region

# Waves that patches are made of: enough that no direction shows.
N_WAVES = 64


def assign(
    points: F64, seed: NDArray[np.uint64], region: Region, populations: tuple[PopulationRecipe, ...], spheroid_seed: int
) -> NDArray[np.uint8]:
    """(n,) uint8: 0, or 1 + the number of the population; where several are in one place, the later one goes first.

    Parameters
    ----------
    points : (n, 3) µm
    seed : (n,) of the cells
    spheroid_seed : of the spheroid, for the patches
    """
    found = np.zeros(len(points), np.uint8)
    for number, population in enumerate(populations, start=1):
        there = inside(points, region, population.place, spheroid_seed, number)
        # one number for each population: shares in the same place are independent of each other
        drawn = numbers.uniform(numbers.hashed(seed, POPULATION), number)
        found[there & (drawn < population.fraction)] = number
    return found


def inside(points: F64, region: Region, place: PlaceRecipe, seed: int, number: int) -> NDArray[np.bool_]:
    """(n,) bool: which points are where a population is."""
    if place.kind == "ball":
        middle, half = (region.low + region.high) / 2, (region.high - region.low) / 2
        centre = middle + half * np.array(place.centre)
        return np.asarray(np.sum((points - centre) ** 2, axis=1) <= place.radius_um**2)
    first, last = place.between
    if place.kind == "shell":
        at = region.radial(points)
        # what noise of the surface puts slightly outside is of the outermost shell
        return np.asarray((at >= first) & ((at < last) | (last >= 1)))
    if place.kind == "layer":
        at = (points[:, 0] - region.low[0]) / (region.high[0] - region.low[0])
        return np.asarray((at >= first) & ((at < last) | (last >= 1)))
    return np.asarray(patches(points, place.scale_um, seed, number) > _quantile(1.0 - place.share))


def patches(points: F64, scale_um: float, seed: int, number: int) -> F64:
    """(n,) float64: a Gaussian random field of unit variance, with patches of `scale_um`, as a sum of plane waves."""
    rng = numbers.generator(seed, "population", number)
    waves = rng.standard_normal((3, N_WAVES)) * (math.pi / scale_um)
    phases = rng.uniform(0.0, 2.0 * math.pi, N_WAVES)
    total = np.zeros(len(points))
    for k in range(N_WAVES):
        total += np.cos(points @ waves[:, k] + phases[k])
    return np.asarray(total * math.sqrt(2.0 / N_WAVES))


def _quantile(share: float) -> float:
    return float(ndtri(share))
