"""Regions: their volumes, their distances, what is kept of them, masks and where a spheroid is found in an image."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from gigascope.errors import UserError
from gigascope.kernels.cells import radius
from gigascope.synthesis.phantom.mask import distance_of_mask, mask_of_image, otsu
from gigascope.synthesis.phantom.phantom import tissue_above
from gigascope.synthesis.phantom.recipe import RegionRecipe
from gigascope.synthesis.phantom.region import build_region, region_from

SMOOTH = RegionRecipe(semi_axes_um=(30, 40, 50), surface_rms=0.0)


def directions(rng: np.random.Generator, n: int) -> np.ndarray:
    u = rng.standard_normal((n, 3))
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def test_volume_of_smooth_ellipsoids_with_and_without_a_flat_bottom() -> None:
    whole = 4 / 3 * math.pi * 30 * 40 * 50
    assert abs(build_region(SMOOTH, 1).volume_um3 / whole - 1) < 1e-3
    # a cap of the height h = 0.1 * 60 of an ellipsoid is that of a ball, stretched along two axes
    h = 6.0
    cap = math.pi * h * h * (3 * 30 - h) / 3 * (40 / 30) * (50 / 30)
    flat = build_region(replace(SMOOTH, flat_bottom=0.1), 1)
    assert abs(flat.volume_um3 / (whole - cap) - 1) < 2e-3
    # it is the side of the objective, at small z, that is flat
    assert flat.distance(np.array([[12.0, 50.0, 60.0], [68.0, 50.0, 60.0]])).tolist() == pytest.approx([4, -2], abs=0.1)


def test_rough_surface_is_that_of_the_harmonics(rng: np.random.Generator) -> None:
    region = build_region(RegionRecipe(surface_rms=0.06), 5)
    u = directions(rng, 500)
    columns = torch.from_numpy(region.axes), torch.full((1,), 2.0).double(), torch.from_numpy(region.rough)
    reach = radius(*columns, torch.from_numpy(u))[0].numpy()
    points = region.centres[0] + u * reach[:, None]
    assert np.abs(region.distance(points)).max() < 1e-9
    assert np.abs(region.grid.distance(points)).max() < 0.1
    assert np.all((points >= region.low - 1e-6) & (points <= region.high + 1e-6))
    assert math.isclose(float(np.sqrt(np.sum(region.rough**2) / (4 * math.pi))), 0.06, rel_tol=1e-9)
    # another spheroid is another shape
    assert not np.allclose(region.rough, build_region(RegionRecipe(surface_rms=0.06), 6).rough)


def test_clusters_are_one_body_within_the_bounds(rng: np.random.Generator) -> None:
    region = build_region(RegionRecipe(kind="clusters", semi_axes_um=(60, 60, 60), cluster_number=6), 2)
    inside = region.grid.values < 0
    assert ndimage.label(inside)[1] == 1
    box = np.argwhere(inside) * region.grid.spacing + region.grid.low
    assert np.all(box.min(axis=0) >= region.low)
    assert np.all(box.max(axis=0) <= region.high)
    # distances have slope 1 outside the smooth seams, never much more
    points = rng.uniform(region.low, region.high, (400, 3))
    step = 0.01 * directions(rng, 400)
    assert np.abs(region.distance(points + step) - region.distance(points)).max() < 0.0105 * 1.1


def test_what_is_kept_of_a_region_is_the_region(rng: np.random.Generator) -> None:
    mask = np.zeros((20, 30, 40), bool)
    mask[3:15, 5:25, 8:30] = True
    regions = [
        build_region(RegionRecipe(flat_bottom=0.05, core_fraction=0.5), 3),
        build_region(RegionRecipe(kind="clusters"), 3),
        build_region(RegionRecipe(kind="mask", flat_bottom=0.2), 3, distance_of_mask(mask, (2.0, 1.0, 1.0))),
    ]
    for region in regions:
        values = None if region.mask is None else region.mask.values
        again = region_from(json.loads(json.dumps(region.descriptor())), values)
        points = rng.uniform(region.low, region.high, (300, 3))
        assert np.array_equal(again.distance(points), region.distance(points))
        assert np.array_equal(again.in_core(points), region.in_core(points))


def test_distances_of_a_mask_are_those_of_its_faces_in_physical_units() -> None:
    z, y, x = np.mgrid[:24, :60, :60]
    voxel = np.array([2.0, 0.8, 0.8])
    centre = np.array([24.0, 24.0, 24.0])
    away = np.sqrt(sum(((i + 0.5) * v - c) ** 2 for i, v, c in zip((z, y, x), voxel, centre)))
    grid = distance_of_mask(away < 18, (2.0, 0.8, 0.8))
    region = build_region(RegionRecipe(kind="mask", margin_um=5.0), 0, grid)
    # voxels of 2 µm: half of one off at most at a point, and nothing on average
    assert abs(region.volume_um3 / (4 / 3 * math.pi * 18**3) - 1) < 0.03
    assert region.low.tolist() == [5, 5, 5]
    middle = (region.low + region.high) / 2
    u = directions(np.random.default_rng(1), 300)
    found = region.distance(middle + 16 * u)
    assert abs(found.mean() + 2) < 0.4
    assert np.abs(found + 2).max() < 1.6


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(UserError, match=r"no voxel is inside.*phantoms\.region\.mask"):
        distance_of_mask(np.zeros((4, 5, 6), bool), (1, 1, 1), "mask.tif")


VOXEL = (2.0, 1.0, 1.0)
Z, Y, X = np.mgrid[:36, :72, :72] * np.array(VOXEL)[:, None, None, None]


def away_from(z: float, y: float, x: float) -> np.ndarray:
    return np.sqrt((Z - z) ** 2 + (Y - y) ** 2 + (X - x) ** 2)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sum(one & other) / np.sum(one | other))


def test_a_spheroid_is_found_in_an_image_of_its_nuclei(rng: np.random.Generator) -> None:
    centres = rng.uniform(-24, 24, (400, 3))
    centres = centres[np.linalg.norm(centres, axis=1) < 22] + 36
    image, nuclei = np.full(Z.shape, 100.0), np.zeros(Z.shape, bool)
    for c in centres:
        away = away_from(*c)
        image += 200 * np.exp(-(away**2) / (2 * 2.5**2))
        # half of the height of a nucleus after the Gaussian that comes first
        nuclei |= away < 2.5 * np.sqrt(2) * 1.177
    # debris of its own in a corner, and noise
    image[2:5, 3:9, 3:9] += 400
    image = rng.poisson(image).astype(np.float32)
    found = mask_of_image(image, VOXEL, 2.5, 8.0)
    # what is between nuclei belongs to the spheroid: all that no ball of 8 µm outside of them reaches
    reached = ndimage.distance_transform_edt(~nuclei, sampling=VOXEL) <= 8
    truth = ndimage.distance_transform_edt(np.pad(reached, 6, mode="edge"), sampling=VOXEL)[6:-6, 6:-6, 6:-6] > 8
    assert overlap(found, truth | nuclei) > 0.85
    assert ndimage.label(found)[1] == 1
    with pytest.raises(UserError, match="one value"):
        mask_of_image(np.full((4, 9, 9), 7, np.float32), VOXEL)


@pytest.mark.parametrize("fading_um", [1e9, 30.0])
def test_a_spheroid_in_an_image_is_as_large_as_it_is(fading_um: float, rng: np.random.Generator) -> None:
    """The Gaussian before the threshold makes it no larger, nor does light that fades with depth make it smaller."""
    ball = away_from(36, 36, 36) < 25
    image = rng.poisson(100 + 80 * np.exp(-Z / fading_um) * ball).astype(np.float32)
    found = mask_of_image(image, VOXEL, 2.5, 8.0)
    assert abs(np.cbrt(found.sum() / ball.sum()) - 1) < 0.04
    assert overlap(found, ball) > 0.9


def test_otsu_parts_two_levels() -> None:
    values = np.concatenate([np.full(500, 1.0), np.full(300, 5.0)])
    assert 1.5 < otsu(values) < 4.5


def test_tissue_above_is_the_way_to_the_objective() -> None:
    region = build_region(SMOOTH, 1)
    z = region.low[0] + np.array([5.0, 20.0, 55.0])
    points = np.stack([z, np.full(3, region.centres[0, 1]), np.full(3, region.centres[0, 2])], axis=1)
    assert tissue_above(region.grid, points) == pytest.approx([5, 20, 55], abs=0.15)
