"""Properties of the quick backprojection that compares raw, pre-aligned and aligned views."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.report.preview import preview, ramp_filtered, view_weights
from gigascope.store.commit import finish
from gigascope.store.create import create_image
from gigascope.store.open import open_store

N_S, N_Y, PIXEL = 81, 40, 2.0
TILT = np.deg2rad(np.linspace(-60, 60, 41))


def views_of_a_point(x: float, y: float, z: float, shifts: np.ndarray) -> np.ndarray:
    """(tilt, y, s) views of a small ball at (x, y, z), each displaced by (f_s, f_y) pixels."""
    s = np.arange(N_S) - (N_S - 1) / 2
    rows = np.arange(N_Y) - (N_Y - 1) / 2
    at = x * np.cos(TILT) + z * np.sin(TILT) + shifts[:, 0]
    along = y + shifts[:, 1]
    return np.exp(
        -((s[None, None] - at[:, None, None]) ** 2 + (rows[None, :, None] - along[:, None, None]) ** 2) / 4
    ).astype(np.float32)


def stored(path, stack):
    writer = create_image(path, shape=stack.shape, dtype=np.float32, spacing={"y": PIXEL, "x": PIXEL}, access="views")
    writer[:] = stack
    finish(writer, {})
    return open_store(path)


def brightest(values: np.ndarray) -> tuple[float, float]:
    """(up, right) of the brightest pixel from the centre, pixels."""
    row, column = np.unravel_index(np.argmax(values), values.shape)
    return (values.shape[0] - 1) / 2 - row, column - (values.shape[1] - 1) / 2


def settings():
    return {"use": np.ones(len(TILT), bool), "depth_nm": 60.0, "max_px": 200}


def test_point_is_found_where_it_is(tmp_path):
    store = stored(tmp_path / "a.zarr", views_of_a_point(12, 0, 8, np.zeros((41, 2))))
    made = preview(store, np.arange(41), TILT, **settings())
    assert brightest(made.xz.values) == pytest.approx((8, 12), abs=1.0)
    flat = stored(tmp_path / "b.zarr", views_of_a_point(12, 9, 0, np.zeros((41, 2))))
    assert brightest(preview(flat, np.arange(41), TILT, **settings()).xy.values) == pytest.approx((9, 12), abs=1.0)


def test_undoing_shifts_gives_the_sinogram_of_the_raw_views(tmp_path, rng):
    shifts = np.stack([rng.normal(0, 3, 41), np.zeros(41)], axis=1)
    aligned = stored(tmp_path / "a.zarr", views_of_a_point(5, 0, 0, np.zeros((41, 2))))
    raw = stored(tmp_path / "r.zarr", views_of_a_point(5, 0, 0, shifts))
    undone = preview(aligned, np.arange(41), TILT, undo_nm=shifts * PIXEL, **settings()).sinogram
    expected = preview(raw, np.arange(41), TILT, **settings()).sinogram
    # linear interpolation of a ball of 1.4 px
    assert np.abs(undone - expected).max() < 0.1 * expected.max()


def test_views_in_any_order_give_the_same_picture(tmp_path, rng):
    stack = views_of_a_point(12, 0, 8, np.zeros((41, 2)))
    order = rng.permutation(41)
    sorted_ = preview(stored(tmp_path / "a.zarr", stack), np.arange(41), TILT, **settings())
    mixed = preview(stored(tmp_path / "b.zarr", stack[order]), np.argsort(order), TILT, **settings())
    np.testing.assert_array_equal(mixed.xz.values, sorted_.xz.values)


def test_view_left_out_does_not_show(tmp_path):
    stack = views_of_a_point(12, 0, 8, np.zeros((41, 2)))
    stack[7] = 1e6
    use = np.arange(41) != 7
    made = preview(stored(tmp_path / "a.zarr", stack), np.arange(41), TILT, **{**settings(), "use": use})
    assert brightest(made.xz.values) == pytest.approx((8, 12), abs=1.0)


def test_weights_are_the_angles_between_views():
    tilt = np.deg2rad([-30.0, -10.0, 0.0, 40.0])
    use = np.array([True, True, False, True])
    weights = view_weights(tilt, use)
    assert weights[2] == 0
    assert np.rad2deg(weights[1]) == pytest.approx(np.rad2deg(np.gradient(tilt[use])[1]))


def test_ramp_removes_a_constant(rng):
    assert np.abs(ramp_filtered(np.full((3, 64), 5.0))).max() < 1e-9
