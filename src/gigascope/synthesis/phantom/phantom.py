"""One spheroid: region, cells, placement, nuclei, contacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gigascope.errors import UserError
from gigascope.synthesis.phantom import populations
from gigascope.synthesis.phantom.bodies import bodies_of
from gigascope.synthesis.phantom.nuclei import F64, Cells, draw_cells
from gigascope.synthesis.phantom.recipe import Recipe
from gigascope.synthesis.phantom.records import Nuclei, nuclei_of
from gigascope.synthesis.phantom.region import DistanceGrid, Region, build_region
from gigascope.synthesis.phantom.relax import relax
from gigascope.synthesis.phantom.rsa import add_sequentially
from gigascope.synthesis.phantom.start import stratified
from gigascope.synthesis.prototypes.library import Library
from gigascope.synthesis.seeds import seed_of, seeds_of

# How near to the wanted volume the number of cells is brought, and how often it is corrected.
VOLUME_TOLERANCE, CORRECTIONS = 0.002, 8


@dataclass(frozen=True)
class Placed:
    """Cells at rest.

    Attributes
    ----------
    cells : n cells, with their rotations at rest
    centre : (n, 3) float64 µm
    overlap_um : largest overlap that is left
    iterations : of the relaxation; 0 for rsa
    """

    cells: Cells
    centre: F64
    overlap_um: float
    iterations: int


@dataclass(frozen=True)
class Phantom:
    """A spheroid before contacts are settled.

    Attributes
    ----------
    region : its shape
    nuclei : in the order of their labels
    overlap_um, iterations : of the placement, see :class:`Placed`
    """

    region: Region
    nuclei: Nuclei
    overlap_um: float
    iterations: int


def place_phantom(
    recipe: Recipe, seed: int, mask: DistanceGrid | None = None, libraries: Mapping[str, Library] | None = None
) -> Phantom:
    """Build a region and place nuclei in it.

    Parameters
    ----------
    recipe : settings of this spheroid
    seed : of this spheroid
    mask : distances of a region of kind `mask`
    libraries : prototypes, by the name under which the recipe asks for them

    Raises
    ------
    UserError : the region is too small for a nucleus
    """
    region = build_region(recipe.region, seed, mask)
    placed = place_cells(recipe, region, seed, libraries)
    nuclei = nuclei_of(placed.cells, placed.centre, recipe.kinds, libraries)
    return Phantom(region, nuclei, placed.overlap_um, placed.iterations)


def place_cells(recipe: Recipe, region: Region, seed: int, libraries: Mapping[str, Library] | None = None) -> Placed:
    """Cells in a region, by the method of the recipe.

    Raises
    ------
    UserError : the region is too small for a nucleus
    """
    root, placement = seed_of(seed, "nuclei"), recipe.placement
    wanted = placement.volume_fraction * region.volume_um3

    def draw(seeds: np.ndarray, points: F64) -> Cells:
        of = populations.assign(points, seeds, region, recipe.populations, seed)
        depth, outward = surface(region.grid, points)
        return draw_cells(recipe.kinds, seeds, of, region.in_core(points), depth, outward, libraries)

    if placement.method == "rsa":
        box = (region.low, region.high)
        most, outside = placement.rsa_max_failures, placement.rsa_count_outside
        cells, centre = add_sequentially(draw, region.grid, box, wanted, most, placement.gap_um, root, outside)
        placed = Placed(cells, centre, 0.0, 0)
    else:
        cells, start = enough_cells(draw, region, wanted, recipe, root)
        bodies = bodies_of(cells, placement.gap_um)
        tol, most = placement.tol_um, placement.max_iter
        rest = relax(start, cells.rotation, bodies, region.grid, tol_um=tol, max_iter=most)
        turned = Cells(**{**vars(cells), "rotation": rest.rotation})
        placed = Placed(turned, rest.centre, rest.overlap_um, rest.iterations)
    if len(placed.cells) == 0:
        size = " x ".join(f"{n:.3g}" for n in region.high - region.low)
        what = f"no nucleus of {recipe.nuclei.diameter_um:.3g} µm finds room in a region of {size} µm."
        raise UserError(what, do="Make phantoms.region larger, or phantoms.nuclei.diameter_um.mean smaller.")
    return placed


def enough_cells(
    draw: Callable[[np.ndarray, F64], Cells], region: Region, wanted: float, recipe: Recipe, seed: int
) -> tuple[Cells, F64]:
    """Cells with a wanted volume, and where they start.

    A cell's size follows from its number, and its class from where it starts, which follows from how many there are: so
    the number is corrected until the volume fits.
    """
    radius = recipe.nuclei.diameter_um / 2
    n = max(1, round(wanted / (4 / 3 * np.pi * radius**3)))
    for _ in range(CORRECTIONS):
        points = stratified(region.grid, n, radius, seed)
        cells = draw(seeds_of(seed, np.arange(n)), points)
        volume = float(cells.volume.sum())
        better = max(1, round(n * wanted / volume))
        if better == n or abs(volume / wanted - 1) < VOLUME_TOLERANCE:
            break
        n = better
    return cells, points


def surface(grid: DistanceGrid, points: F64) -> tuple[F64, F64]:
    """Depth (n,) µm inside the surface and unit vectors (n, 3) outwards, by differences over a cell of the grid."""
    step = float(grid.spacing.min())
    slope = np.empty((len(points), 3))
    for axis in range(3):
        shift = np.zeros(3)
        shift[axis] = step
        slope[:, axis] = grid.distance(points + shift) - grid.distance(points - shift)
    size = np.linalg.norm(slope, axis=1, keepdims=True)
    # where the distance has no slope, as in the middle of a ball, any direction is as good
    outward = np.where(size > 1e-9, slope / np.maximum(size, 1e-9), [1.0, 0.0, 0.0])
    return -grid.distance(points), outward


def tissue_above(grid: DistanceGrid, points: F64) -> F64:
    """(n,) float64 µm: length of the way from each point along -z that lies in the region."""
    step = float(grid.spacing[0])
    total = np.zeros(len(points))
    n_steps = int(np.ceil((float(points[:, 0].max(initial=0.0)) - float(grid.low[0])) / step)) if len(points) else 0
    for k in range(max(0, n_steps)):
        at = points - ((k + 0.5) * step, 0.0, 0.0)
        alive = at[:, 0] > grid.low[0]
        # a step that the surface cuts counts by its share
        total[alive] += step * np.clip(0.5 - grid.distance(at[alive]) / step, 0.0, 1.0)
    return total
