"""Nuclei as they are drawn: classes, volumes, orientation, nucleoli, pairs, ids."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from gigascope.kernels.cells import volume
from gigascope.synthesis.phantom import nuclei
from gigascope.synthesis.phantom.nuclei import ANAPHASE, GHOST, INTERPHASE, METAPHASE, PYKNOTIC, Cells, draw_cells
from gigascope.synthesis.phantom.populations import inside, patches
from gigascope.synthesis.phantom.recipe import NucleusRecipe, PlaceRecipe, RegionRecipe
from gigascope.synthesis.phantom.records import morton, nuclei_of
from gigascope.synthesis.phantom.region import build_region
from gigascope.synthesis.seeds import seeds_of

RECIPE = NucleusRecipe()


def cells(n: int, recipe: NucleusRecipe = RECIPE, *, core: bool = False, depth: float = 50.0, root: int = 9) -> Cells:
    up = np.tile([1.0, 0.0, 0.0], (n, 1))
    none = np.zeros(n, np.uint8)
    return draw_cells((recipe,), seeds_of(root, np.arange(n)), none, np.full(n, core), np.full(n, depth), up)


@pytest.mark.parametrize(
    ("core", "shares"),
    [
        (False, {METAPHASE: 0.015, ANAPHASE: 0.01, PYKNOTIC: 0.02, GHOST: 0.005}),
        (True, {METAPHASE: 0.015, ANAPHASE: 0.01, PYKNOTIC: 0.5, GHOST: 0.3}),
    ],
)
def test_classes_have_their_shares(core: bool, shares: dict[int, float]) -> None:
    n = 40_000
    kind = cells(n, core=core).cell_class
    for value, share in {**shares, INTERPHASE: 1 - sum(shares.values())}.items():
        # five standard errors
        assert abs(np.mean(kind == value) - share) < 5 * (share * (1 - share) / n) ** 0.5, value


def test_sizes_and_brightness_have_their_moments() -> None:
    n = 40_000
    drawn = cells(n)
    assert abs(drawn.diameter.mean() / 9.5 - 1) < 5 * 0.12 / n**0.5
    assert abs(drawn.diameter.std() / 9.5 - 0.12) < 0.002
    plain = drawn.take(np.flatnonzero(drawn.cell_class == INTERPHASE))
    assert np.allclose(plain.volume, np.pi / 6 * plain.diameter**3)
    assert np.all(np.diff(plain.semi_axes, axis=1) <= 0)
    table = nuclei_of(plain.take(np.arange(3000)), np.zeros((3000, 3)), (RECIPE,)).table
    assert abs(float(table.intensity.mean()) - 1) < 5 * 0.25 / 3000**0.5
    # Poisson of mean 1.8, at most 4
    counts = (table.nucleoli[..., 3] > 0).sum(dim=1).numpy()
    assert abs(np.mean(counts == 0) - np.exp(-1.8)) < 0.04
    assert abs(np.mean(counts == 1) - 1.8 * np.exp(-1.8)) < 0.04


@pytest.mark.parametrize("e", [1.8, 2.0, 3.0])
def test_rough_nuclei_have_the_volume_that_was_drawn(e: float) -> None:
    recipe = NucleusRecipe(superellipse_e=e, shape_rms=0.1, l_max=8)
    found = nuclei_of(cells(200, recipe), np.zeros((200, 3)), (recipe,))
    table = found.table
    again = volume(table.semi_axes, table.exponent, table.harmonics).numpy()
    # harmonics are kept in float32
    assert np.abs(again / found.volume - 1).max() < 1e-5


def test_orientation_is_isotropic_inside_and_flat_along_the_surface_with_full_bias() -> None:
    def short(drawn: Cells) -> np.ndarray:
        third = np.tile([0.0, 0.0, 1.0], (len(drawn), 1))
        return np.abs(nuclei.rotate_back(drawn.rotation, third)[:, 0])

    # the component of an isotropic direction along any axis is uniform
    assert kstest(short(cells(4000)), "uniform").pvalue > 1e-4
    near = cells(4000, NucleusRecipe(alignment=0.5), depth=3.0)
    assert short(near).mean() > 0.75
    assert np.allclose(short(cells(500, NucleusRecipe(alignment=1.0), depth=3.0)), 1)


def test_pairs_are_two_nuclei_of_one_parent_and_ids_are_sorted(rng: np.random.Generator) -> None:
    recipe = NucleusRecipe(anaphase=0.5)
    drawn = cells(400, recipe)
    centre = rng.uniform(20, 180, (400, 3))
    found = nuclei_of(drawn, centre, (recipe,))
    assert len(found) == 400 + np.count_nonzero(drawn.cell_class == ANAPHASE)
    code = morton(found.table.centre.numpy())
    seed = found.table.seed.numpy().view(np.uint64)
    assert np.array_equal(np.lexsort((seed, code)), np.arange(len(found)))
    assert len(np.unique(seed)) == len(found)
    pair = np.flatnonzero(found.cell_class == ANAPHASE)
    other = found.partner[pair]
    assert np.array_equal(found.partner[other], pair)
    assert np.array_equal(found.parent_id[pair], np.minimum(pair, other) + 1)
    assert np.all(found.parent_id[found.cell_class != ANAPHASE] == 0)
    apart = np.linalg.norm(found.table.centre.numpy()[pair] - found.table.centre.numpy()[other], axis=1)
    assert 0.6 * drawn.diameter.min() < apart.min() < apart.max() < 1.2 * drawn.diameter.max()
    # what a nucleus is does not depend on which others there are
    alone = nuclei_of(drawn.take(np.arange(7, 8)), centre[7:8], (recipe,)).table
    row = int(np.flatnonzero(seed == alone.seed.numpy().view(np.uint64)[0])[0])
    assert np.array_equal(alone.harmonics[0], found.table.harmonics[row])
    # rows that are left out take their partner's parent with them
    less = found.take(np.setdiff1d(np.arange(len(found)), other[:1]))
    assert np.count_nonzero(less.parent_id) == np.count_nonzero(found.parent_id) - 2


def test_rotations_compose(rng: np.random.Generator) -> None:
    import torch

    from gigascope.kernels.cells import rotation_matrices

    a, b = (q / np.linalg.norm(q, axis=1, keepdims=True) for q in rng.standard_normal((2, 50, 4)))
    matrices = [rotation_matrices(torch.from_numpy(q)).numpy() for q in (a, b, nuclei.product(a, b))]
    assert np.allclose(matrices[0] @ matrices[1], matrices[2])
    v = rng.standard_normal((50, 3))
    assert np.allclose(nuclei.rotate_back(a, v), np.einsum("nji,nj->ni", matrices[0], v))


def test_places_of_populations(rng: np.random.Generator) -> None:
    region = build_region(RegionRecipe(semi_axes_um=(50, 50, 50), surface_rms=0), 1)
    points = rng.uniform(region.low, region.high, (20_000, 3))
    points = points[region.distance(points) < 0]
    middle = region.centres[0]
    away = np.linalg.norm(points - middle, axis=1) / 50
    ball = PlaceRecipe(kind="ball", centre=(0, 0.5, 0), radius_um=12)
    assert np.array_equal(
        inside(points, region, ball, 1, 1), np.linalg.norm(points - middle - (0, 25, 0), axis=1) <= 12
    )
    shell = PlaceRecipe(kind="shell", between=(0.4, 0.8))
    assert np.array_equal(inside(points, region, shell, 1, 1), (away >= 0.4) & (away < 0.8))
    layer = PlaceRecipe(kind="layer", between=(0.5, 1.0))
    assert np.array_equal(inside(points, region, layer, 1, 1), points[:, 0] >= middle[0])
    shares = [
        np.mean(inside(points, region, PlaceRecipe(kind="noise", share=0.3, scale_um=12), s, 1)) for s in range(9)
    ]
    assert abs(np.mean(shares) - 0.3) < 0.05
    field = patches(points, 12.0, 1, 1)
    # nearby points are alike, distant ones are not
    assert np.corrcoef(field, patches(points + (0.5, 0, 0), 12.0, 1, 1))[0, 1] > 0.98
    assert abs(np.corrcoef(field, patches(points + (60, 0, 0), 12.0, 1, 1))[0, 1]) < 0.25
