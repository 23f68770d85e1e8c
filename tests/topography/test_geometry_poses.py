"""Maps of a view to the mosaic and back, height lift and gauge, against the golden values of the specification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gigascope.errors import ShapeError
from gigascope.topography.geometry import poses as geometry
from gigascope.topography.geometry.poses import Poses

# one view: pixel, exact position, position by the second-order expansion, exact position of a point 0.1 mm high
GOLDEN = [
    ((0, 0), (8192.5646, 5373.8670), (8192.5643, 5373.8666), (8195.4309, 5376.6541)),
    ((1536, 1536), (9736.0000, 6936.0000), (9736.0000, 6936.0000), (9736.0454, 6935.9320)),
    ((0, 3071), (8154.7282, 8497.4566), (8154.7327, 8497.4515), (8157.6637, 8494.5346)),
    ((3071, 3071), (11284.8094, 8503.5721), (11284.8091, 8503.5716), (11282.0240, 8500.6389)),
    ((700, 2500), (8879.7699, 7911.4680), (8879.7711, 7911.4665), (8881.3802, 7909.6171)),
]
PIXEL, EXACT, EXPANDED, LIFTED = (np.array(column, dtype=float) for column in zip(*GOLDEN))
# the printed digits
GOLDEN_TOLERANCE = 1e-4


@pytest.fixture
def golden() -> Poses:
    return Poses((3072, 3072), 1.0, [1.01], [[0.012, -0.008, -1]], [0.006], [[8000, 5300]], [0.003], [200, 100])


@pytest.fixture
def random_poses(rng):
    """Views of any orientation within 3 degrees of tilt, distortion up to 0.01, rectangular too."""

    def draw(n_views=20, order=1):
        tilt, way = np.deg2rad(rng.uniform(0, 3, n_views)), rng.uniform(0, 2 * np.pi, n_views)
        normal = np.stack((np.sin(tilt) * np.cos(way), np.sin(tilt) * np.sin(way), -np.cos(tilt)), axis=1)
        return Poses(
            size=tuple(rng.integers(300, 3073, 2)),
            focal=rng.uniform(0.9, 1.1),
            height=rng.uniform(0.9, 1.1, n_views),
            normal=normal,
            angle=rng.uniform(-np.pi, np.pi, n_views),
            translation=rng.normal(0, 20_000, (n_views, 2)),
            distortion=rng.uniform(-0.01, 0.01, order) / order,
            offset=rng.normal(0, 1000, 2),
        )

    return draw


def random_pixels(rng, poses, n):
    return rng.integers(0, poses.n_views, n), rng.uniform(0, 1, (n, 2)) * (np.array(poses.size) - 1)


def test_maps_give_the_golden_values(golden):
    np.testing.assert_allclose(geometry.to_mosaic(golden, 0, PIXEL), EXACT, atol=GOLDEN_TOLERANCE)
    np.testing.assert_allclose(geometry.to_mosaic_expanded(golden, 0, PIXEL), EXPANDED, atol=GOLDEN_TOLERANCE)
    np.testing.assert_allclose(geometry.foot(golden), [[9760.8192, 6898.7712]], atol=GOLDEN_TOLERANCE)
    np.testing.assert_allclose(geometry.distance(golden), [3102.3974], atol=GOLDEN_TOLERANCE)


def test_height_lift_gives_the_golden_values(golden):
    distance_mm = geometry.metric_distance(golden, 25.05486, 0.8448)
    np.testing.assert_allclose(distance_mm, [54.712601], atol=1e-6)
    exact = geometry.to_mosaic(golden, 0, PIXEL)
    lifted = geometry.lift(exact, geometry.foot(golden)[0], distance_mm, 0.1)
    np.testing.assert_allclose(lifted, LIFTED, atol=GOLDEN_TOLERANCE)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_to_view_is_the_inverse_of_to_mosaic(rng, random_poses, order):
    poses = random_poses(order=order)
    view, pixel = random_pixels(rng, poses, 2000)
    back = geometry.to_view(poses, view, geometry.to_mosaic(poses, view, pixel))
    assert np.abs(back - pixel).max() < 1e-8


def test_a_level_view_at_its_nominal_height_only_translates(rng):
    poses = Poses((100, 80), 1.3, [1.3], [[0, 0, -2]], [0], [[7, -9]], [], [1, 2])
    pixel = rng.uniform(0, 80, (50, 2))
    np.testing.assert_allclose(geometry.to_mosaic(poses, 0, pixel), pixel + [8, -7], atol=1e-10)
    np.testing.assert_allclose(geometry.foot(poses), [[58, 33]], atol=1e-10)


def test_the_foot_sees_no_lift_and_others_move_toward_it(golden):
    foot = geometry.foot(golden)[0]
    np.testing.assert_array_equal(geometry.lift(foot, foot, 54.7, 3.0), foot)
    moved = geometry.lift(EXACT, foot, 54.7, 0.5)
    assert (np.linalg.norm(moved - foot, axis=1) < np.linalg.norm(EXACT - foot, axis=1)).all()


def test_expansion_differs_from_the_exact_map_by_the_third_order_of_the_tilt():
    pixel = np.stack(np.meshgrid(*2 * (np.linspace(0, 3071, 20),)), axis=-1)
    worst = []
    for degrees in (0.8, 2.3):
        tilt = np.deg2rad(degrees)
        across = np.sin(tilt) / np.sqrt(2)  # toward a corner, where the field reaches farthest
        poses = Poses((3072, 3072), 1, [1], [[across, across, -np.cos(tilt)]], [0], [[0, 0]], [], [0, 0])
        difference = geometry.to_mosaic(poses, 0, pixel) - geometry.to_mosaic_expanded(poses, 0, pixel)
        worst.append(np.abs(difference).max())
    assert worst[0] == pytest.approx(0.005, abs=0.002)
    assert worst[1] == pytest.approx(0.11, abs=0.02)


def test_levelling_takes_the_normal_to_the_axis(rng, random_poses):
    normal = random_poses().normal
    turn = geometry.levelling(normal)
    axis = np.broadcast_to([0.0, 0.0, -1.0], normal.shape)
    np.testing.assert_allclose(np.einsum("vij,vj->vi", turn, normal), axis, atol=1e-14)
    identity = np.broadcast_to(np.eye(3), turn.shape)
    np.testing.assert_allclose(turn @ np.swapaxes(turn, 1, 2), identity, atol=1e-14)


@pytest.mark.parametrize("level", [False, True])
def test_a_fixed_gauge_stays_fixed(random_poses, level):
    poses = random_poses()
    poses = geometry.fix_gauge(replace(poses, angle=poses.angle / 100), level)
    assert max(geometry.gauge_errors(poses).values()) < 1e-12
    if level:
        np.testing.assert_allclose(poses.normal.mean(axis=0)[:2], 0, atol=1e-12)
    again = geometry.fix_gauge(poses, level)
    np.testing.assert_allclose(again.height, poses.height)
    np.testing.assert_allclose(again.angle, poses.angle, atol=1e-14)


def test_the_same_scene_in_its_gauge_is_the_old_mosaic_moved_as_one(rng, random_poses):
    poses = random_poses()
    poses = replace(poses, angle=0.3 + poses.angle / 100)
    fixed, matrix = geometry.same_scene(poses)
    assert max(geometry.gauge_errors(fixed).values()) < 1e-12
    view, pixel = random_pixels(rng, poses, 500)
    moved = geometry.to_mosaic(poses, view, pixel) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(geometry.to_mosaic(fixed, view, pixel), moved, atol=1e-7)


def test_columns_give_the_poses_back(rng, random_poses):
    poses = geometry.fix_gauge(random_poses(order=2))
    columns, shared = geometry.to_columns(poses)
    back = geometry.from_columns(columns, shared)
    view, pixel = random_pixels(rng, poses, 100)
    np.testing.assert_array_equal(geometry.to_mosaic(back, view, pixel), geometry.to_mosaic(poses, view, pixel))
    assert {len(column) for column in columns.values()} == {poses.n_views}
    assert set(geometry.COLUMN_UNITS) <= set(columns)


def test_poses_without_their_gauge_are_refused_unless_wanted(random_poses):
    columns, shared = geometry.to_columns(random_poses())
    with pytest.raises(ShapeError, match=r"focal is .* from its gauge"):
        geometry.from_columns(columns, shared)
    assert geometry.from_columns(columns, shared, any_gauge=True).n_views == 20
    with pytest.raises(ShapeError, match="angle is missing"):
        geometry.from_columns({k: v for k, v in columns.items() if k != "angle"}, shared)
    with pytest.raises(ShapeError, match="view: expected the numbers 0, 1, 2"):
        geometry.from_columns({**columns, "view": columns["view"][::-1]}, shared)


def test_selected_views_keep_their_maps(rng, random_poses):
    poses = random_poses()
    some = geometry.select(poses, [7, 3])
    pixel = rng.uniform(0, 300, (10, 2))
    np.testing.assert_array_equal(geometry.to_mosaic(some, 1, pixel), geometry.to_mosaic(poses, 3, pixel))


def test_metric_pixel_scales_with_the_height_of_the_reference_view():
    poses = Poses((10, 10), 1.0, [1.0, 1.1], 2 * [[0, 0, -1]], [0, 0], [[0, 0], [0, 0]], [], [0, 0])
    assert geometry.mosaic_pixel_mm(poses, 1.1e-3, 0.8448) == pytest.approx(1.1e-3 / 0.8448)
    assert geometry.mosaic_pixel_mm(poses, 1.1e-3, 0.8448, 1) == pytest.approx(1.1e-3 / 0.8448 / 1.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normal": [[0, 0, 1]]}, "z below 0"),
        ({"height": [-1.0]}, "heights above 0"),
        ({"angle": [0, 1]}, r"angle: expected \(1,\)"),
        ({"translation": [[np.nan, 0]]}, "translation: expected finite"),
        ({"focal": 0.0}, "focal and heights above 0"),
        ({"size": (0, 5)}, "size: expected"),
    ],
)
def test_impossible_poses_are_refused(golden, change, message):
    with pytest.raises(ShapeError, match=message):
        replace(golden, **change)


@pytest.mark.parametrize("view", [-1, 1, 0.0])
def test_a_view_that_does_not_exist_is_refused(golden, view):
    with pytest.raises(ShapeError, match="view: expected integers of 0 to 0"):
        geometry.to_mosaic(golden, view, PIXEL)
