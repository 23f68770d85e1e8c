"""Which points, views and crops a step has: a function of its number alone, uniform, complete."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.errors import ShapeError, UserError
from gigascope.topography.geometry.candidates import inside
from gigascope.topography.geometry.poses import to_view
from gigascope.topography.streaming.crops import canvas_side, choose_views, corners, crops_of_step
from gigascope.topography.streaming.sampler import Sampler, hilbert
from gigascope.topography.streaming.scene import cameras_of

from .stores import scene_of

ORDERS = ["uniform", "disk"]


@pytest.fixture
def scene(rng):
    return scene_of(rng, (2, 2), (2, 3), (200, 160), 5, missing=(4,))


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("point", "view", "rc"))


@pytest.mark.parametrize("order", ORDERS)
def test_positions_depend_on_seed_step_and_slot_alone(rng, scene, order):
    seed = int(rng.integers(2**63))
    first, second = (Sampler(scene, seed, 4, order=order, patch=96) for _ in range(2))
    places = [(int(s), int(k)) for s, k in zip(rng.integers(0, 10**6, 50), rng.integers(0, 4, 50))]
    found = [first.at(*place) for place in places]
    assert all(same(a, second.at(*place)) for a, place in reversed(list(zip(found, places))))
    other = Sampler(scene, seed + 1, 4, order=order, patch=96)
    assert not any(same(a, other.at(*place)) for a, place in zip(found, places))
    assert len({tuple(p.point) for p in found}) == len(set(places))


@pytest.mark.parametrize("order", ORDERS)
def test_every_view_that_sees_a_point_is_there_and_no_other(rng, scene, order):
    sampler = Sampler(scene, 3, 2, order=order, patch=96, edge_margin=8)
    for step in range(200):
        position = sampler.at(step, step % 2)
        rc = to_view(scene.poses, np.arange(scene.poses.n_views), position.point)
        seen = inside(rc, scene.poses.size, 8) & scene.present
        np.testing.assert_array_equal(position.view, np.flatnonzero(seen))
        np.testing.assert_allclose(position.rc, rc[seen], atol=1e-9)
        assert seen.sum() >= 2


@pytest.mark.parametrize("order", ORDERS)
def test_points_are_uniform_over_what_two_views_see(rng, scene, order):
    """Chi-square over squares of 40 pixels, against the share of each that is seen."""
    sampler = Sampler(scene, int(rng.integers(2**32)), 4, order=order, patch=96)
    n_steps = 10 * sampler.steps_per_epoch if order == "disk" else 500
    points = np.array([sampler.at(s, k).point for s in range(n_steps) for k in range(4)])
    grid = np.stack(np.meshgrid(*(np.arange(0, n, 4) for n in scene.candidates.shape), indexing="ij"), -1) + 2.0
    rc = to_view(scene.poses, np.arange(scene.poses.n_views)[:, None, None], grid[None])
    seen = (inside(rc, scene.poses.size, 16) & scene.present[:, None, None]).sum(axis=0) >= 2
    width = scene.candidates.shape[1] // 40 + 1

    def squares(at):
        return (at // 40).astype(int) @ [width, 1]

    n = (scene.candidates.shape[0] // 40 + 1) * width
    expected = np.bincount(squares(grid[seen]), minlength=n) * len(points) / seen.sum()
    found = np.bincount(squares(points), minlength=n)
    enough = expected > 5
    chi2 = ((found - expected)[enough] ** 2 / expected[enough]).sum() / enough.sum()
    print("chi2 per square", chi2, "squares", enough.sum())
    # the squares' seen shares are estimated to some percent too; stratified draws vary less
    assert chi2 < 1 + 5 * np.sqrt(2 / enough.sum())
    assert found[expected == 0].sum() < 0.02 * len(points)


def test_region_is_kept_to(scene):
    rows, cols = (100, 180), (90, 200)
    sampler = Sampler(scene, 1, 2, roi=(rows, cols))
    points = np.array([sampler.at(step, 0).point for step in range(100)])
    assert (points >= [rows[0], cols[0]]).all()
    assert (points <= [rows[1] - 1, cols[1] - 1]).all()


def test_no_overlap_is_said(rng, scene):
    with pytest.raises(UserError, match="no point that 2 views see"):
        Sampler(scene, 1, 2, roi=((0, 8), (0, 8))).at(0, 0)
    alone = scene_of(rng, (1, 1), (1, 1), (96, 96), 3)
    with pytest.raises(UserError, match="overlap"):
        Sampler(alone, 1)
    assert len(Sampler(alone, 1, min_views=1).at(0, 0).view) == 1


def test_processes_share_the_batch_of_one(scene):
    sampler = Sampler(scene, 1, 6)
    for ranks in (1, 2, 3, 6):
        assert [s for rank in range(ranks) for s in sampler.of_rank(rank, ranks)] == list(range(6))
    with pytest.raises(ShapeError, match="shared equally"):
        sampler.of_rank(0, 4)


def test_curve_visits_every_cell_and_steps_to_a_neighbour():
    cells = np.argwhere(np.ones((16, 16)))
    place = hilbert(cells)
    np.testing.assert_array_equal(np.sort(place), np.arange(256))
    walk = cells[np.argsort(place)]
    assert (np.abs(np.diff(walk, axis=0)).sum(axis=1) == 1).all()


def test_an_epoch_on_disk_covers_the_mosaic_and_reads_neighbours_together(rng):
    scene = scene_of(rng, (3, 3), (4, 4), (256, 256), 3)

    def chunks(order: str, steps: int) -> tuple[int, int]:
        """Chunks read, and different ones among those of 16 steps in a row."""
        sampler = Sampler(scene, 5, 2, order=order, patch=96)
        read, fresh = 0, 0
        for begin in range(0, steps, 16):
            window = set()
            for step in range(begin, min(begin + 16, steps)):
                crops = crops_of_step(sampler, step, range(2), (256, 256), 96, 32, 6)
                for view, (r, c) in zip(crops.view.tolist(), (crops.corner // 32).tolist()):
                    window |= {(view, r + i, c + j) for i in range(3) for j in range(3)}
                    read += 9
            fresh += len(window)
        return read, fresh

    steps = Sampler(scene, 5, 2, order="disk", patch=96).steps_per_epoch
    (all_disk, disk), (all_uniform, uniform) = chunks("disk", steps), chunks("uniform", steps)
    print("different of all:", disk / all_disk, uniform / all_uniform)
    assert disk / all_disk < 0.9 * uniform / all_uniform
    sampler = Sampler(scene, 5, 2, order="disk", patch=96)
    points = np.array([sampler.at(s, k).point for s in range(steps) for k in range(2)])
    middle = np.array(scene.candidates.shape) / 2
    quarter = ((points > middle) @ [2, 1]).astype(int)
    counts = np.bincount(quarter, minlength=4)
    assert counts.min() > 0.15 * len(points)


def test_subset_of_views_has_two_cameras_where_there_are_two(rng):
    for _ in range(300):
        camera = rng.integers(0, 3, rng.integers(1, 12))
        most = int(rng.integers(1, 8))
        taken = choose_views(camera, most, rng)
        assert len(taken) == min(len(camera), most)
        assert (np.diff(taken) > 0).all()
        if most > 1:
            assert (len(set(camera[taken])) > 1) == (len(set(camera)) > 1)


def test_views_number_cameras_as_the_grid_does():
    camera = cameras_of((4, 6), (2, 3)).reshape(4, 6)
    np.testing.assert_array_equal(camera[:, 0], [0, 0, 2, 2])
    np.testing.assert_array_equal(camera[0], [0, 0, 0, 1, 1, 1])
    with pytest.raises(ShapeError):
        cameras_of((4, 6), (3, 3))


@pytest.mark.parametrize("size", [(192, 192), (200, 232)])
@pytest.mark.parametrize("snap", [2, 32])
def test_crop_holds_its_point_within_the_view(rng, size, snap):
    rc = rng.uniform(0, 1, (5000, 2)) * (np.array(size) - 1)
    corner = corners(rc, size, 96, snap)
    assert (corner >= 0).all()
    assert (corner + 96 <= size).all()
    assert (rc >= corner - 0.5).all()
    assert (rc <= corner + 95.5).all()
    assert (corner % 2 == 0).all()
    free = ((rc > 48 + snap) & (rc < np.array(size) - 48 - snap)).all(axis=1)
    assert free.any()
    assert (corner[free] % snap == 0).all()
    assert np.abs(corner + 48 - rc)[free].max() <= snap / 2
    with pytest.raises(ShapeError, match="no patch"):
        corners(rc, size, 256, 2)


def test_no_crop_leaves_the_canvas(rng):
    assert canvas_side(576, 192) == 1664
    side = canvas_side(96, 32, edge_margin=16)
    rc = rng.uniform(16, 175, (5000, 2))
    far = np.abs(np.stack((corners(rc, (192, 192), 96, 32) - rc, corners(rc, (192, 192), 96, 32) + 95 - rc)))
    assert 2 * np.linalg.norm(far.max(axis=0), axis=1).max() < side
