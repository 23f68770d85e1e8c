"""A calibration comes back from its store as it was written, and the scene of an acquisition is built of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gigascope.errors import ShapeError, UserError
from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.open import open_store
from gigascope.topography.calibration.result import InstrumentId, Quiver, from_known_poses
from gigascope.topography.calibration.stored import CANDIDATES, read_calibration, write_calibration
from gigascope.topography.geometry.candidates import find_candidates
from gigascope.topography.geometry.poses import gauge_errors, to_mosaic
from gigascope.topography.streaming.stored import scene_of

from .stores import raster, raw_store

CAMERAS, SCAN, SIZE = (1, 2), (2, 2), (192, 192)


def random_calibration(rng, *, optics=True, n_arrows=17, absent=()):
    grid = CAMERAS[0] * SCAN[0], CAMERAS[1] * SCAN[1]
    n = grid[0] * grid[1]
    numbers = {"sensor_pitch_um": 1.1, "f_eff_mm": 25.05, "magnification": 0.84} if optics else {}
    instrument = InstrumentId((0,), (3, 4), SCAN, SIZE, **numbers)
    planes = rng.normal(0, 0.05, (n, 6)) + np.array([12.0, 0, 0, 0, 0, 0])
    present = ~np.isin(np.arange(n), absent)
    planes[~present] = np.nan
    found = from_known_poses(
        raster(rng, grid, SIZE)[0],
        instrument,
        focus_plane=planes,
        illumination=rng.normal(0, 0.1, (2, 6)),
        gain=rng.uniform(0.9, 1.1, 2),
        present=present,
    )
    arrows = Quiver(
        rng.integers(0, n, (n_arrows, 2)), rng.normal(0, 99, (n_arrows, 2)), rng.normal(0, 0.1, (n_arrows, 2))
    )
    found = replace(found, quiver=arrows, statistics={"n_ties": 812.0, "median_px": float(rng.random())})
    return found, find_candidates(found.poses, found.mosaic_shape, present)


def kept(folder, calibration, candidates):
    store = create_store(folder / "calibration.zarr")
    write_calibration(store, calibration, candidates)
    store.attrs["more"] = 7
    finish(store, {})
    return open_store(store.path)


@pytest.mark.parametrize(("optics", "n_arrows"), [(True, 17), (False, 0)])
def test_calibration_comes_back_from_its_store(rng, tmp_path, optics, n_arrows):
    written, lists = random_calibration(rng, optics=optics, n_arrows=n_arrows, absent=(5,))
    found, candidates = read_calibration(kept(tmp_path, written, lists))
    assert found.instrument == written.instrument
    assert found.mosaic_shape == written.mosaic_shape
    assert found.statistics == written.statistics
    assert found.source == written.source
    for name in ("present", "focus_plane", "illumination", "gain"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))
    for name in ("view", "at", "residual"):
        np.testing.assert_array_equal(getattr(found.quiver, name), getattr(written.quiver, name))
    for name in ("height", "angle", "translation", "offset", "distortion", "focal"):
        np.testing.assert_array_equal(getattr(found.poses, name), getattr(written.poses, name))
    # a length of 1 is a length of 1 to rounding
    np.testing.assert_allclose(found.poses.normal, written.poses.normal, rtol=0, atol=1e-15)
    assert max(gauge_errors(found.poses).values()) < 1e-12
    assert candidates.shape == lists.shape
    for name, (dtype, _) in CANDIDATES.items():
        assert getattr(candidates, name).dtype == dtype
        np.testing.assert_array_equal(getattr(candidates, name), getattr(lists, name))


def test_absent_views_are_no_candidates(rng):
    _, lists = random_calibration(rng, absent=(5,))
    assert 5 not in lists.view
    with pytest.raises(ShapeError, match="at least one view"):
        find_candidates(random_calibration(rng)[0].poses, (100, 100), np.zeros(8, bool))


def test_poses_that_lost_their_gauge_are_refused(rng, tmp_path):
    written, lists = random_calibration(rng)
    moved = replace(written, poses=replace(written.poses, angle=written.poses.angle + 0.01))
    store = kept(tmp_path, moved, lists)
    with pytest.raises(ShapeError, match=r"angle is 0\.01 from its gauge"):
        read_calibration(store)


def test_store_of_something_else_is_refused(rng, tmp_path):
    raw = raw_store(rng, tmp_path)
    with pytest.raises(UserError, match="holds no calibration"):
        read_calibration(raw.store)


@pytest.mark.parametrize("optics", [True, False])
def test_scene_is_built_of_what_the_stores_say(rng, tmp_path, optics):
    raw = raw_store(rng, tmp_path, missing=(2,))
    raw.store.attrs.update({"dz_mm": -0.04, "stage_up": False})
    calibration, candidates = random_calibration(rng, optics=optics, absent=(5,))
    scene = scene_of(raw.store, calibration, candidates)
    assert scene.grid == (2, 4)
    assert (scene.dz_mm, scene.stage_up) == (0.04, False)
    np.testing.assert_array_equal(np.flatnonzero(~scene.present), [2, 5])
    np.testing.assert_array_equal(scene.z_mm, raw.scene.z_mm)
    np.testing.assert_array_equal(scene.camera, raw.scene.camera)
    np.testing.assert_array_equal(scene.datum_mm[scene.present], calibration.focus_plane[scene.present])
    assert np.isfinite(scene.datum_mm).all()
    for v in np.flatnonzero(scene.present):
        assert scene.nominal[v] == pytest.approx(calibration.nominal_slices(v, scene.z_mm[v])[96, 96])
    if optics:
        np.testing.assert_array_equal(scene.distance_mm, calibration.distances_mm())
    else:
        # nothing is known of the parallax: none
        assert np.isinf(scene.distance_mm).all()
    assert to_mosaic(scene.poses, 3, [96.0, 96.0]).shape == (2,)


def test_scene_of_other_views_is_refused(rng, tmp_path):
    raw = raw_store(rng, tmp_path, cameras=(1, 1))
    raw.store.attrs.update({"dz_mm": 0.04, "stage_up": True})
    with pytest.raises(UserError, match="holds 2 x 2 views, the calibration is of 2 x 4"):
        scene_of(raw.store, *random_calibration(rng))
