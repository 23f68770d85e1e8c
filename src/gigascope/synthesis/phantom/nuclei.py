"""Cells as they are drawn: size, axes, orientation, class, brightness. A cell is one nucleus, or a pair in anaphase.

Everything of a cell follows from its own seed and from where it is put first (the necrotic core has other classes, the
outer layer other orientations). Columns here are small, one row per cell; :mod:`gigascope.synthesis.phantom.records`
makes nuclei of them, with surfaces and nucleoli.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.kernels.cells import radius, sphere_rule
from gigascope.synthesis import seeds as numbers
from gigascope.synthesis.phantom.recipe import NucleusRecipe, Pair
from gigascope.synthesis.prototypes.library import Library, draw_nuclei

F64 = NDArray[np.float64]

INTERPHASE, METAPHASE, ANAPHASE, PYKNOTIC, GHOST = 1, 2, 3, 4, 5
CLASS_NAMES = {
    INTERPHASE: "interphase",
    METAPHASE: "metaphase",
    ANAPHASE: "anaphase",
    PYKNOTIC: "pyknotic",
    GHOST: "ghost",
}
# Relative to interphase: brightness, and the standard deviation of the texture where it has one of its own.
BRIGHTNESS = np.array([1.0, 1.0, 1.8, 1.8, 2.5, 0.25])
TEXTURE = {METAPHASE: 0.1, ANAPHASE: 0.1, PYKNOTIC: 0.05, GHOST: 0.4}
# Axes of the bodies in units of the diameter.
PLATE, HALF_PLATE = np.array([1.0, 0.9, 0.28]) * 0.9, np.array([0.8, 0.7, 0.22]) * 0.9
PYKNOTIC_SIZE, GHOST_SIZE = 0.55, 1.1
PLATE_DISTANCE = (0.6, 1.2)

# What each number of a nucleus is for; harmonics and nucleoli have ranges of their own.
DIAMETER, RATIO_B, RATIO_C, CLASS, BRIGHT, DISTANCE = 0, 1, 2, 3, 4, 5
TURN = 6
POPULATION = 10
N_NUCLEOLI, NUCLEOLI = 11, 12
HARMONICS = 100
SECOND = 400
LIBRARY = 500


@dataclass(frozen=True)
class Cells:
    """n cells.

    Attributes
    ----------
    seed : (n,) uint64
    population : (n,) uint8
    cell_class : (n,) uint8, see CLASS_NAMES
    diameter : (n,) float64 µm, of the sphere of the volume that it would have in interphase
    semi_axes : (n, 3) float64 µm; of a pair: of one plate
    extent : (n, 3) float64 µm, falling: semi-axes of the ellipsoid that a body fills most nearly
    frame : (n, 3, 3) float64, rows are the directions of `extent` in the body frame
    volume : (n,) float64 µm³ of all bodies of the cell
    prototype : (n,) bool, taken from the library of its population
    pair : (n,) float64 µm, distance of the plates of a pair along the third axis; 0: one body
    rotation : (n, 4) float64, see :mod:`gigascope.kernels.cells.table`
    """

    seed: NDArray[np.uint64]
    population: NDArray[np.uint8]
    cell_class: NDArray[np.uint8]
    diameter: F64
    semi_axes: F64
    extent: F64
    frame: F64
    volume: F64
    prototype: NDArray[np.bool_]
    pair: F64
    rotation: F64

    def __len__(self) -> int:
        return len(self.seed)

    def take(self, index: NDArray) -> Cells:
        """Some of them."""
        return Cells(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def join(parts: list[Cells]) -> Cells:
    """One after the other."""
    return Cells(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Cells)})


def draw_cells(
    recipes: tuple[NucleusRecipe, ...],
    seed: NDArray[np.uint64],
    population: NDArray[np.uint8],
    core: NDArray[np.bool_],
    depth: F64,
    outward: F64,
    libraries: Mapping[str, Library] | None = None,
) -> Cells:
    """Cells by their seeds.

    Parameters
    ----------
    recipes : of each population
    seed : (n,) of each cell
    population : (n,) row of `recipes`
    core : (n,) bool, in the necrotic core
    depth : (n,) µm inside the surface
    outward : (n, 3) unit vectors away from the inside
    libraries : prototypes, by the name under which recipes ask for them
    """
    n = len(seed)
    cells = Cells(
        seed,
        population,
        np.ones(n, np.uint8),
        np.empty(n),
        np.empty((n, 3)),
        np.empty((n, 3)),
        np.tile(np.eye(3), (n, 1, 1)),
        np.empty(n),
        np.zeros(n, bool),
        np.zeros(n),
        random_rotations(seed),
    )
    for number, recipe in enumerate(recipes):
        of = np.flatnonzero(population == number)
        _draw(cells, of, recipe, core[of])
        if recipe.library is not None and libraries is not None:
            _take_prototypes(cells, of[cells.cell_class[of] == INTERPHASE], libraries[recipe.library])
        near = of[(depth[of] < recipe.alignment_um)]
        cells.rotation[near] = aligned(cells.rotation[near], outward[near], recipe.alignment)
    return cells


def _draw(cells: Cells, of: NDArray, recipe: NucleusRecipe, core: NDArray[np.bool_]) -> None:
    seed = cells.seed[of]
    diameter = numbers.lognormal(seed, DIAMETER, recipe.diameter_um, recipe.diameter_cv)
    kind = classes(recipe, numbers.uniform(seed, CLASS), core)
    ratios = np.stack(
        [np.ones(len(of)), _between(seed, RATIO_B, recipe.axis_ratio_b), _between(seed, RATIO_C, recipe.axis_ratio_c)],
        1,
    )
    ratios = -np.sort(-ratios, axis=1)
    axes = ratios / np.cbrt(ratios.prod(axis=1))[:, None]
    axes[kind == METAPHASE] = PLATE
    axes[kind == ANAPHASE] = HALF_PLATE
    axes[kind == PYKNOTIC] = PYKNOTIC_SIZE
    axes[kind == GHOST] *= GHOST_SIZE
    cells.cell_class[of] = kind
    cells.diameter[of] = diameter
    cells.semi_axes[of] = cells.extent[of] = axes * (diameter / 2)[:, None]
    cells.pair[of] = np.where(kind == ANAPHASE, _between(seed, DISTANCE, PLATE_DISTANCE) * diameter, 0.0)
    bodies = np.where(kind == ANAPHASE, 2.0, 1.0)
    cells.volume[of] = 4 / 3 * np.pi * cells.semi_axes[of].prod(axis=1) * bodies


def _take_prototypes(cells: Cells, of: NDArray, library: Library) -> None:
    """Shapes of a library instead of those that were drawn."""
    found = draw_nuclei(library, cells.seed[of])
    volume, extent, frame = moments(found.semi_axes, found.harmonics)
    cells.semi_axes[of], cells.volume[of] = found.semi_axes, volume
    cells.extent[of], cells.frame[of] = extent, frame
    cells.diameter[of] = np.cbrt(6 / np.pi * volume)
    cells.prototype[of] = True


def moments(semi_axes: F64, harmonics: NDArray[np.float32]) -> tuple[F64, F64, F64]:
    """Volume (n,), and semi-axes (n, 3) and directions (n, 3, 3) of the ellipsoid with the same second moments."""
    directions, weights = sphere_rule(12)
    u, w = directions.numpy(), weights.numpy()
    two = torch.full((len(semi_axes),), 2.0, dtype=torch.float64)
    r = radius(torch.from_numpy(semi_axes), two, torch.from_numpy(harmonics), directions).numpy()
    volume = r**3 @ w / 3
    second = np.einsum("nk,ki,kj->nij", r**5 * (w / 5), u, u) / volume[:, None, None]
    squares, axes = np.linalg.eigh(second)
    extent = np.sqrt(5 * squares)[:, ::-1]
    # of the same volume: a rough surface has larger moments than it has volume
    extent = extent * np.cbrt(volume / (4 / 3 * np.pi * extent.prod(axis=1)))[:, None]
    return volume, extent, np.ascontiguousarray(axes[:, :, ::-1].transpose(0, 2, 1))


def classes(recipe: NucleusRecipe, u: F64, core: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(n,) uint8: the class that each number in (0, 1) chooses; pyknotic and ghost have other shares in the core."""
    pyknotic = np.where(core, recipe.core_pyknotic, recipe.pyknotic)
    ghost = np.where(core, recipe.core_ghost, recipe.ghost)
    ends = np.cumsum([pyknotic, ghost, np.full(len(u), recipe.metaphase), np.full(len(u), recipe.anaphase)], axis=0)
    found = np.full(len(u), INTERPHASE, np.uint8)
    for end, kind in list(zip(ends, (PYKNOTIC, GHOST, METAPHASE, ANAPHASE)))[::-1]:
        found[u < end] = kind
    return found


def random_rotations(seed: NDArray[np.uint64]) -> F64:
    """(n, 4) unit quaternions, uniform over all rotations: the directions of four normal numbers."""
    q = np.stack([numbers.normal(seed, TURN + k) for k in range(4)], axis=1)
    return np.asarray(q / np.linalg.norm(q, axis=1, keepdims=True))


def aligned(rotation: F64, outward: F64, bias: float) -> F64:
    """Rotations turned so that the third (shortest) axis comes nearer to `outward`, by the share `bias` of the angle.

    0 leaves them isotropic; with 1 all nuclei lie flat along the surface.
    """
    if bias == 0 or len(rotation) == 0:
        return rotation
    short = rotate_back(rotation, np.broadcast_to([0.0, 0.0, 1.0], (len(rotation), 3)))
    goal = outward * np.where(np.sum(short * outward, axis=1) < 0, -1.0, 1.0)[:, None]
    axis = np.cross(short, goal)
    sine = np.linalg.norm(axis, axis=1)
    angle = bias * np.arctan2(sine, np.sum(short * goal, axis=1))
    axis /= np.maximum(sine, 1e-12)[:, None]
    # the body turns by +angle about `axis` in space: b = R(q) x, so q is multiplied by the inverse from the right
    turn = np.concatenate([np.cos(angle / 2)[:, None], -np.sin(angle / 2)[:, None] * axis], axis=1)
    return product(rotation, turn)


def product(a: F64, b: F64) -> F64:
    """Hamilton product of quaternions (n, 4): the rotation b, then a. Components in the order (w, z, y, x)."""
    w1, x1, y1, z1 = a.T
    w2, x2, y2, z2 = b.T
    return np.stack(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ],
        axis=1,
    )


def rotate_back(rotation: F64, body: F64) -> F64:
    """Vectors (n, 3) of the body frame in space: R(q)ᵀ b."""
    w, v = rotation[:, :1], -rotation[:, 1:]
    return np.asarray(body + 2.0 * np.cross(v, np.cross(v, body) + w * body))


def _between(seed: NDArray[np.uint64], slot: int, ends: Pair) -> F64:
    return ends[0] + (ends[1] - ends[0]) * numbers.uniform(seed, slot)
