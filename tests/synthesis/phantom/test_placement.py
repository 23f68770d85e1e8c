"""Placement: densities, overlaps, threads, sequential addition, contacts, densities that cannot be reached."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
from scipy.spatial import cKDTree

from gigascope.errors import UserError
from gigascope.kernels.cells import labels, owned
from gigascope.synthesis.phantom.contacts import settle_contacts
from gigascope.synthesis.phantom.phantom import place_phantom
from gigascope.synthesis.phantom.recipe import (
    NucleusRecipe,
    PlacementRecipe,
    PlaceRecipe,
    PopulationRecipe,
    Recipe,
    RegionRecipe,
)
from gigascope.synthesis.phantom.spheroid import build_spheroid

BALL = RegionRecipe(semi_axes_um=(60, 60, 60), surface_rms=0.0)
SMALL = RegionRecipe(semi_axes_um=(25, 25, 25))
SPHERES = NucleusRecipe(
    diameter_cv=0.1, axis_ratio_b=(1, 1), axis_ratio_c=(1, 1), shape_rms=0, metaphase=0, anaphase=0, pyknotic=0, ghost=0
)


def facts(arrays: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(arrays["facts"]))
    return found


def too_close(table: Any, partner: np.ndarray) -> int:
    """Pairs of centres nearer than the sum of their smallest semi-axes, plates of one cell apart."""
    centre, least = table.centre.numpy(), table.semi_axes.numpy().min(axis=1)
    pairs = cKDTree(centre).query_pairs(2 * float(least.max()), output_type="ndarray")
    near = np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1) < least[pairs].sum(axis=1) - 0.02
    return int(np.count_nonzero(near & (partner[pairs[:, 0]] != pairs[:, 1])))


@pytest.mark.parametrize("fraction", [0.30, 0.40, 0.45])
def test_density_is_reached_without_overlap(fraction: float) -> None:
    """P1 and P3."""
    phantom = place_phantom(Recipe(BALL, placement=PlacementRecipe(volume_fraction=fraction)), 3)
    assert phantom.overlap_um <= 0.02
    assert too_close(phantom.nuclei.table, phantom.nuclei.partner) == 0
    placement = PlacementRecipe(volume_fraction=fraction)
    settled = settle_contacts(phantom.nuclei, placement)
    assert settled.clip_fraction.mean() <= 0.01
    assert settled.clip_fraction.max() <= placement.max_clip
    kept = float((settled.nuclei.volume * settled.scale**3) @ (1 - settled.clip_fraction))
    assert abs(kept / phantom.region.volume_um3 / fraction - 1) <= 0.01


def test_sequential_addition_reaches_what_is_known() -> None:
    """P2: 0.276 for spheres of CV 0.1 in a ball of 80 µm after 1000 failures in a row."""
    region = RegionRecipe(semi_axes_um=(80, 80, 80), surface_rms=0.0)
    recipe = Recipe(region, SPHERES, PlacementRecipe(method="rsa", volume_fraction=0.5))
    phantom = place_phantom(recipe, 1)
    fill = phantom.nuclei.volume.sum() / phantom.region.volume_um3
    assert abs(fill - 0.276) <= 0.015
    # balls that were placed one after the other overlap nowhere
    centre, r = phantom.nuclei.table.centre.numpy(), phantom.nuclei.table.semi_axes.numpy()[:, 0]
    pairs = cKDTree(centre).query_pairs(2 * float(r.max()), output_type="ndarray")
    assert np.all(np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1) >= r[pairs].sum(axis=1) - 2e-3)
    assert np.all(phantom.region.grid.distance(centre) <= -r + 2e-3)


def test_places_outside_count_as_failures_where_they_are_to() -> None:
    """As published: what is placed is the beginning of what is placed where they do not count."""
    region = RegionRecipe(semi_axes_um=(30, 30, 30), surface_rms=0.0)
    placement = PlacementRecipe(method="rsa", volume_fraction=0.5, rsa_max_failures=100)
    recipes = [Recipe(region, SPHERES, replace(placement, rsa_count_outside=count)) for count in (False, True)]
    every, fewer = (
        {tuple(at) for at in place_phantom(recipe, 5).nuclei.table.centre.numpy().tolist()} for recipe in recipes
    )
    assert fewer < every
    # nearly half of the box of a ball lies outside of it
    assert len(fewer) > 0.6 * len(every)


def test_sequential_addition_ends_at_the_wanted_volume() -> None:
    recipe = Recipe(SMALL, placement=PlacementRecipe(method="rsa", volume_fraction=0.1))
    phantom = place_phantom(recipe, 1)
    fill = phantom.nuclei.volume.sum() / phantom.region.volume_um3
    assert 0.1 <= fill < 0.1 + 1.5 * phantom.nuclei.volume.max() / phantom.region.volume_um3


def test_placement_does_not_depend_on_threads() -> None:
    # large enough that the kernels use all threads they may
    recipe = Recipe(replace(BALL, surface_rms=0.04), placement=PlacementRecipe(volume_fraction=0.4, max_iter=25))
    found = []
    before = numba.get_num_threads()
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            table = place_phantom(recipe, 5).nuclei.table
            found.append([column.numpy() for column in table[:-1]])
    finally:
        numba.set_num_threads(before)
    for one, many in zip(*found):
        assert np.array_equal(one, many)


@pytest.mark.parametrize(("gap", "margin"), [(0.0, 0.0), (1.0, 5.0)])
def test_the_table_says_what_the_labels_hold(gap: float, margin: float) -> None:
    """L3."""
    recipe = Recipe(replace(SMALL, margin_um=margin), placement=PlacementRecipe(volume_fraction=0.35, gap_um=gap))
    arrays, _ = build_spheroid(recipe, 2, {})
    phantom = place_phantom(recipe, 2)
    settled = settle_contacts(phantom.nuclei, recipe.placement)
    shape = [int(np.ceil(n / v)) for n, v in zip(phantom.region.field_um, (1.5, 0.5, 0.5))]
    drawn = labels(settled.nuclei.table, (0, 0, 0), shape, (1.5, 0.5, 0.5), gap).numpy()
    ids = arrays["nuclei.label_id"]
    assert np.array_equal(ids, np.arange(1, len(ids) + 1))
    counts = np.bincount(drawn.ravel(), minlength=len(ids) + 1)[1:]
    assert np.allclose(counts * 0.375, arrays["nuclei.volume_um3"])
    place = np.argwhere(drawn == 3)
    low = [arrays[f"nuclei.low_{axis}"][2] for axis in "zyx"]
    high = [arrays[f"nuclei.high_{axis}"][2] for axis in "zyx"]
    assert np.allclose(place.min(axis=0) * (1.5, 0.5, 0.5), low)
    assert np.allclose((place.max(axis=0) + 1) * (1.5, 0.5, 0.5), high)
    at_border = [drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1], drawn[:, :, 0], drawn[:, :, -1]]
    touching = np.isin(ids, np.concatenate([np.unique(face) for face in at_border]))
    assert np.array_equal(arrays["nuclei.touching_border"], touching)
    assert touching.any() == (margin == 0)
    centroid = [arrays[f"nuclei.centroid_{axis}"][2] for axis in "zyx"]
    assert np.allclose((place.mean(axis=0) + 0.5) * (1.5, 0.5, 0.5), centroid)


def test_nuclei_that_lose_too_much_are_made_smaller_or_left_out() -> None:
    # none are pushed apart: they overlap as they start. Two iterations leave nothing to do, so even is the start.
    recipe = Recipe(SMALL, placement=PlacementRecipe(volume_fraction=0.4, max_iter=0))
    phantom = place_phantom(recipe, 4)
    assert phantom.overlap_um > 0.02
    given = recipe.placement
    settled = settle_contacts(phantom.nuclei, given)
    assert settled.n_shrunk > 3
    assert settled.n_dropped > 3
    assert settled.clip_fraction.max() <= given.max_clip
    assert settled.measured.fragments.max() <= 1
    # those far from all that changed were not measured again, and need not be
    for kept, again in zip(settled.measured, owned(settled.nuclei.table, given.voxel_um)):
        assert np.array_equal(kept, again)
    # some need one step, some all five
    assert {1.0, 0.98, 0.9} < set(np.round(settled.scale, 2)) <= {1.0, 0.98, 0.96, 0.94, 0.92, 0.9}
    assert len(settled.nuclei) + settled.n_dropped == len(phantom.nuclei)
    # who may lose everything is let be
    lenient = settle_contacts(phantom.nuclei, replace(given, max_clip=0.9))
    assert lenient.n_dropped < settled.n_dropped
    assert lenient.n_shrunk < settled.n_shrunk


def test_a_density_that_cannot_be_reached_is_said() -> None:
    placement = PlacementRecipe(volume_fraction=0.5, gap_um=2.5, max_iter=40)
    arrays, warnings = build_spheroid(Recipe(replace(SMALL, semi_axes_um=(18, 18, 18)), placement=placement), 4, {})
    reached = facts(arrays)["volume_fraction"]
    assert reached < 0.45
    assert any("0.5 was asked for" in text and f"{reached:.3g} was reached" in text for text in warnings)
    rsa = replace(PlacementRecipe(), method="rsa", rsa_max_failures=20)
    _, warnings = build_spheroid(Recipe(SMALL, placement=rsa), 4, {})
    assert any("rsa ended after 20 failures" in text for text in warnings)


def test_a_gap_keeps_nuclei_apart() -> None:
    def nearest(gap: float) -> float:
        recipe = Recipe(SMALL, SPHERES, PlacementRecipe(volume_fraction=0.2, gap_um=gap))
        table = place_phantom(recipe, 6).nuclei.table
        centre, r = table.centre.numpy(), table.semi_axes.numpy()[:, 0]
        pairs = cKDTree(centre).query_pairs(25.0, output_type="ndarray")
        return float((np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1) - r[pairs].sum(axis=1)).min())

    assert nearest(1.5) >= 1.5 - 0.03
    assert nearest(0.0) < 1.0


def test_populations_have_nuclei_of_their_own_where_they_are() -> None:
    large = NucleusRecipe(diameter_um=14, diameter_cv=0.02, pyknotic=0, metaphase=0, anaphase=0, ghost=0)
    layer = PopulationRecipe(PlaceRecipe(kind="layer", between=(0.5, 1.0)), 1.0, large)
    recipe = Recipe(replace(SMALL, semi_axes_um=(35, 35, 35)), populations=(layer,))
    phantom = place_phantom(recipe, 7)
    other = phantom.nuclei.population == 1
    assert abs(phantom.nuclei.volume[other].mean() / (np.pi / 6 * 14**3) - 1) < 0.03
    z = phantom.nuclei.table.centre.numpy()[:, 0]
    middle = (phantom.region.low[0] + phantom.region.high[0]) / 2
    # they may have moved a little
    assert z[other].min() > middle - 6
    assert z[~other].max() < middle + 6
    assert abs(phantom.nuclei.volume.sum() / phantom.region.volume_um3 - 0.35) < 0.02


def test_a_region_without_room_is_refused() -> None:
    recipe = Recipe(replace(SMALL, semi_axes_um=(3, 3, 3)), placement=PlacementRecipe(method="rsa"))
    with pytest.raises(UserError, match="finds room"):
        place_phantom(recipe, 1)
