"""Nuclei of placed cells: surfaces, textures, nucleoli, as the table that the rasteriser draws from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import pdtr

from gigascope.kernels.cells import CROP, NucleiTable, harmonic_scales, nuclei_table, volume_factor
from gigascope.synthesis import seeds as numbers
from gigascope.synthesis.phantom import nuclei
from gigascope.synthesis.phantom.nuclei import F64, Cells
from gigascope.synthesis.phantom.recipe import NucleusRecipe
from gigascope.synthesis.prototypes.library import Library, draw_nuclei

N_SPOTS = 4
SPOT_RADIUS_UM = (0.6, 1.3)
SPOT_REACH = 0.6
# Pairs that share a position's cell of 16 µm are near in the order of labels.
CELL_UM = 16.0


@dataclass(frozen=True)
class Nuclei:
    """Nuclei in the order of their labels: label = row + 1.

    Attributes
    ----------
    table : what the rasteriser draws from
    population, cell_class : (n,) uint8
    partner : (n,) int64 row of the other plate of a pair, or -1
    volume : (n,) float64 µm³ as drawn, before any contact
    """

    table: NucleiTable
    population: NDArray[np.uint8]
    cell_class: NDArray[np.uint8]
    partner: NDArray[np.int64]
    volume: F64

    def __len__(self) -> int:
        return len(self.population)

    def take(self, rows: NDArray[np.int64]) -> Nuclei:
        """Some of them, in that order; a nucleus without its partner is one of its own."""
        to = np.full(len(self) + 1, -1, np.int64)
        to[rows] = np.arange(len(rows))
        return Nuclei(
            self.table.rows(torch.from_numpy(rows)),
            self.population[rows],
            self.cell_class[rows],
            to[self.partner[rows]],
            self.volume[rows],
        )

    @property
    def parent_id(self) -> NDArray[np.uint32]:
        """(n,) uint32: of a pair the smaller label, else 0."""
        rows = np.arange(len(self))
        return np.where(self.partner >= 0, np.minimum(rows, self.partner) + 1, 0).astype(np.uint32)


def nuclei_of(
    cells: Cells, centre: F64, recipes: tuple[NucleusRecipe, ...], libraries: Mapping[str, Library] | None = None
) -> Nuclei:
    """Nuclei of placed cells, sorted.

    Parameters
    ----------
    cells : n cells
    centre : (n, 3) µm
    recipes : of each population
    libraries : prototypes, by the name under which recipes ask for them
    """
    owner, side = _bodies(cells)
    seed = np.where(side > 0, numbers.hashed(cells.seed[owner], nuclei.SECOND), cells.seed[owner])
    shift = np.zeros((len(owner), 3))
    shift[:, 2] = side * cells.pair[owner] / 2
    at = centre[owner] + nuclei.rotate_back(cells.rotation[owner], shift)
    at = np.round(at * 1024) / 1024
    order = np.lexsort((seed, morton(at)))
    owner, seed, at = owner[order], seed[order], at[order]
    found, kind = cells.take(owner), cells.cell_class[owner]
    volume = found.volume / np.where(found.pair > 0, 2.0, 1.0)
    per = {name: np.empty(len(owner)) for name in ("exponent", "sigma", "scale", "rim", "intensity")}
    harmonics, spots = np.zeros((len(owner), 81)), np.zeros((len(owner), N_SPOTS, 4))
    for number, recipe in enumerate(recipes):
        rows = np.flatnonzero(found.population == number)
        per["exponent"][rows] = recipe.superellipse_e
        per["sigma"][rows], per["scale"][rows] = recipe.texture_sigma, recipe.texture_scale_um
        per["rim"][rows] = recipe.rim
        # both plates of a pair are of one cell, and alike bright
        per["intensity"][rows] = numbers.lognormal(found.seed[rows], nuclei.BRIGHT, 1.0, recipe.intensity_cv)
        harmonics[rows] = rough_surfaces(recipe, seed[rows])
        spots[rows] = nucleoli(recipe, seed[rows], found.semi_axes[rows])
    per["intensity"] *= nuclei.BRIGHTNESS[kind]
    # a recipe without texture has none in any class
    for value, sigma in nuclei.TEXTURE.items():
        per["sigma"] = np.where((kind == value) & (per["sigma"] > 0), sigma, per["sigma"])
    harmonics[kind == nuclei.PYKNOTIC] = 0
    spots[~np.isin(kind, (nuclei.INTERPHASE, nuclei.GHOST)) | found.prototype] = 0
    axes, exponent = torch.from_numpy(found.semi_axes), torch.from_numpy(per["exponent"])
    surfaces = volume_factor(axes, exponent, torch.from_numpy(harmonics), torch.from_numpy(volume))
    looks = _prototypes(found, recipes, libraries or {}, surfaces.numpy(), per)
    table = nuclei_table(
        torch.from_numpy(at),
        torch.from_numpy(found.rotation),
        axes,
        exponent,
        surfaces,
        intensity=torch.from_numpy(per["intensity"]),
        texture_sigma=torch.from_numpy(per["sigma"]),
        texture_scale=torch.from_numpy(per["scale"]),
        rim=torch.from_numpy(per["rim"]),
        nucleoli=torch.from_numpy(spots),
        seed=torch.from_numpy(seed.view(np.int64)),
        octaves=recipes[0].octaves,
        **looks,
    )
    return Nuclei(table, found.population, kind, _partners(owner), volume)


def all_crops(libraries: Mapping[str, Library]) -> NDArray[np.float16]:
    """(m, 48, 48, 48) float16: textures of all libraries, one after the other."""
    if not libraries:
        return np.zeros((0, CROP, CROP, CROP), np.float16)
    return np.concatenate([library.texture for library in libraries.values()])


def _prototypes(
    found: Cells,
    recipes: tuple[NucleusRecipe, ...],
    libraries: Mapping[str, Library],
    surfaces: NDArray[np.float32],
    per: dict[str, NDArray],
) -> dict[str, torch.Tensor]:
    """Put surfaces and brightness of prototypes in place; their textures and exponents, as columns of the table."""
    texture, gamma = np.full(len(found), -1, np.int32), np.ones(len(found), np.float32)
    first = dict(zip(libraries, np.cumsum([0, *(len(library.texture) for library in libraries.values())])))
    for number, recipe in enumerate(recipes):
        rows = np.flatnonzero(found.prototype & (found.population == number))
        if recipe.library is None or len(rows) == 0:
            continue
        drawn = draw_nuclei(libraries[recipe.library], found.seed[rows])
        surfaces[rows], per["intensity"][rows] = drawn.harmonics, drawn.intensity
        per["exponent"][rows], gamma[rows] = 2.0, drawn.gamma
        # what a texture shows is not drawn a second time
        textured = drawn.texture >= 0
        texture[rows] = np.where(textured, drawn.texture + first[recipe.library], -1)
        per["rim"][rows[textured]] = 0
    crops = torch.from_numpy(all_crops(libraries))
    return {"texture": torch.from_numpy(texture), "gamma": torch.from_numpy(gamma), "crops": crops}


def rough_surfaces(recipe: NucleusRecipe, seed: NDArray[np.uint64]) -> F64:
    """(n, 81) normal coefficients of the log radius, of an expected RMS of `shape_rms`."""
    scales = harmonic_scales(recipe.shape_rms, recipe.p, recipe.l_max).numpy()
    found = np.zeros((len(seed), len(scales)))
    for k in np.flatnonzero(scales):
        found[:, k] = scales[k] * numbers.normal(seed, nuclei.HARMONICS + int(k))
    return found


def nucleoli(recipe: NucleusRecipe, seed: NDArray[np.uint64], semi_axes: F64) -> F64:
    """(n, 4, 4) balls (z, y, x, radius) in the body frame, evenly over the inner 0.6 of the radius; radius 0: none.

    Their number is of a Poisson distribution; more than four are four.
    """
    ends = pdtr(np.arange(N_SPOTS), recipe.nucleoli_mean)
    count = np.searchsorted(ends, numbers.uniform(seed, nuclei.N_NUCLEOLI), side="right")
    found = np.zeros((len(seed), N_SPOTS, 4))
    for k in range(N_SPOTS):
        slot = nuclei.NUCLEOLI + 5 * k
        direction = np.stack([numbers.normal(seed, slot + i) for i in range(3)], axis=1)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        found[:, k, :3] = direction * semi_axes * (SPOT_REACH * np.cbrt(numbers.uniform(seed, slot + 3)))[:, None]
        low, high = SPOT_RADIUS_UM
        found[:, k, 3] = np.where(k < count, low + (high - low) * numbers.uniform(seed, slot + 4), 0.0)
    found[found[..., 3] == 0] = 0
    return found


def morton(points: F64) -> NDArray[np.uint64]:
    """(n,) uint64: order of points (n, 3) µm along a Z curve through cells of 16 µm."""
    cell = np.maximum(np.floor(points / CELL_UM), 0).astype(np.uint64)
    code = np.zeros(len(points), np.uint64)
    for axis in range(3):
        code |= _spread(cell[:, axis]) << np.uint64(2 - axis)
    return code


def _spread(n: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bits 0 to 20 three places apart."""
    n = n & np.uint64(0x1FFFFF)
    for shift, mask in (
        (32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3), (2, 0x1249249249249249),
    ):  # fmt: skip
        n = (n | (n << np.uint64(shift))) & np.uint64(mask)
    return n


def _bodies(cells: Cells) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of its cell and side (-1, +1, 0 of a single one) of every nucleus."""
    double = cells.pair > 0
    owner = np.repeat(np.arange(len(cells)), np.where(double, 2, 1))
    first = np.append(True, owner[1:] != owner[:-1]) if len(owner) else np.zeros(0, bool)
    return owner, np.where(double[owner], np.where(first, -1, 1), 0)


def _partners(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the other nucleus of the same cell, or -1."""
    order = np.argsort(owner, kind="stable")
    same = owner[order][1:] == owner[order][:-1]
    found = np.full(len(owner), -1, np.int64)
    found[order[:-1][same]], found[order[1:][same]] = order[1:][same], order[:-1][same]
    return found
