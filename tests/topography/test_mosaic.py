"""The mosaic against the truth of the synthetic instrument: coverage, heights, colours, place, seams, other blends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import ShapeError, UserError
from gigascope.topography.geometry.candidates import crop_of_tile
from gigascope.topography.geometry.poses import to_view
from gigascope.topography.mosaic import tile as tiles
from gigascope.topography.mosaic.layout import MEASURES
from gigascope.topography.mosaic.tile import Blending, blend_tile
from gigascope.topography.mosaic.views import clarity_of

from .mosaics import MadeViews, made_views

F32 = NDArray[np.float32]


@pytest.fixture(scope="module")
def made() -> MadeViews:
    return made_views(np.random.default_rng(5))


def whole(made: MadeViews, **how: object) -> dict[str, F32]:
    """The mosaic in one tile, by name."""
    views = made.views()
    return by_name(blend_tile(views, (0, 0), views.shape, Blending(**{"feather": 8.0, **how})))  # type: ignore[arg-type]


def by_name(found: F32) -> dict[str, F32]:
    return {"colour": found[:-4], **dict(zip(MEASURES, found[-4:]))}


def psnr(found: F32, true: F32) -> float:
    return float(10 * np.log10(255.0**2 / np.mean((found.astype(np.float64) - true) ** 2)))


@pytest.fixture(scope="module")
def mosaic(made: MadeViews) -> dict[str, F32]:
    return whole(made)


def test_every_point_that_a_view_sees_is_there_and_no_other(made: MadeViews, mosaic: dict[str, F32]) -> None:
    """A4."""
    covered, seen = made.truth["coverage"] > 0, mosaic["n_views"] > 0
    print(f"covered {100 * seen[covered].mean():.3f} %")
    assert seen[covered].mean() >= 0.999
    # the truth counts pixel centres too
    assert seen[~covered].mean() < 1e-3
    assert np.isnan(mosaic["height"][~seen]).all()
    assert np.isnan(mosaic["colour"][:, ~seen]).all()
    assert (mosaic["weight"][~seen] == 0).all()
    assert np.isfinite(mosaic["height"][seen]).all()
    assert np.isnan(mosaic["height_std"][mosaic["n_views"] < 2]).all()


def test_heights_are_those_of_the_specimen(made: MadeViews, mosaic: dict[str, F32]) -> None:
    single = whole(made, mode="best")
    seen = (mosaic["n_views"] >= 3) & (made.truth["texture"] > 0.5)
    error = {n: (m["height"] - made.truth["height"])[seen] for n, m in (("mean", mosaic), ("best", single))}
    rms = {n: float(np.sqrt(np.mean(e**2))) for n, e in error.items()}
    print(rms)
    # noise of 0.1 steps of 40 um, averaged over at least three views
    assert rms["best"] == pytest.approx(4.0, rel=0.25)
    assert rms["mean"] < rms["best"] / np.sqrt(2)
    # H7: what views disagree by is that noise, of n views smaller by (1 - 1 / n)
    assert np.median(mosaic["height_std"][seen]) <= 0.10 * 40
    assert np.median(mosaic["height_std"][seen]) > 0.05 * 40


def test_place_is_right(made: MadeViews, mosaic: dict[str, F32]) -> None:
    """A3: blocks of the mosaic do not lie beside those of the truth."""
    shifts = []
    true, found = made.truth["colour"][1], mosaic["colour"][1]
    for row in range(16, true.shape[0] - 48, 32):
        for col in range(16, true.shape[1] - 48, 32):
            block = (slice(row, row + 32), slice(col, col + 32))
            if np.isfinite(found[block]).all() and true[block].std() > 5:
                shifts.append(displacement(found[block], true[block]))
    lengths = np.hypot(*np.array(shifts).T)
    print(f"{len(lengths)} blocks, median {np.median(lengths):.3f} px")
    assert len(lengths) > 20
    assert np.median(lengths) <= 0.15


def displacement(found: F32, true: F32) -> NDArray[np.float64]:
    """(row, col) by which one block lies beside another, from the gradients; below a pixel."""
    rows, cols = (g[2:-2, 2:-2].ravel() for g in np.gradient(ndimage.gaussian_filter(true.astype(np.float64), 0.7)))
    smooth = ndimage.gaussian_filter(found.astype(np.float64) - true, 0.7)[2:-2, 2:-2].ravel()
    columns = np.stack((rows, cols, np.ones_like(rows)), axis=1)
    return -np.linalg.lstsq(columns, smooth, rcond=None)[0][:2]


def test_colours_are_those_of_the_specimen(made: MadeViews, mosaic: dict[str, F32]) -> None:
    """A1, against the truth, one gain removed: sampling between the pixels costs less than three views gain."""
    three, found = mosaic["n_views"] >= 3, {}
    for mode, sampling in (("mean", "cubic"), ("best", "cubic"), ("mean", "linear")):
        colour, true = whole(made, mode=mode, sampling=sampling)["colour"][:, three], made.truth["colour"][:, three]
        found[mode, sampling] = psnr(colour * (colour * true).sum() / (colour * colour).sum(), true)
    light = np.array([made.calibration.correction_field(v) for v in range(8)]).reshape(2, 4, 192, 192, 1)
    single = psnr(made.aif * light, made.clean * light)
    print(found, "before sampling", single)
    assert found["mean", "cubic"] >= single + 2.0
    assert found["mean", "cubic"] >= found["best", "cubic"] + 2.0
    assert found["mean", "cubic"] >= found["mean", "linear"] + 1.0


def test_colours_come_from_views_that_are_in_focus(made: MadeViews) -> None:
    """Views whose colours are wrong by as much as their focus is away from a slice: sharp ones count more."""
    np.testing.assert_allclose(
        clarity_of(np.array([3.0, 3.2, 2.5, np.nan], np.float32), 0.2), [1, 1 / np.e, 0, 0], atol=3e-3
    )
    away = np.abs(made.index - np.rint(made.index))[..., None]
    rng = np.random.default_rng(4)
    wrong = (made.clean + 100 * away * rng.choice([-1, 1], made.clean.shape)).astype(np.float32)
    blurred = replace(made, aif=wrong)  # type: ignore[arg-type]
    exact, error = whole(replace(made, aif=made.clean), depth=None)["colour"], {}  # type: ignore[arg-type]
    for depth in (None, 0.2):
        found = whole(blurred, depth=depth)
        several = found["n_views"] >= 2
        error[depth] = float(np.sqrt(np.mean((found["colour"] - exact)[:, several] ** 2)))
        alone = found["n_views"] == 1
        assert np.isfinite(found["colour"][:, alone]).all()
    print(error)
    # half of these places have two views only
    assert error[0.2] < 0.9 * error[None]


def test_averaging_takes_away_noise(made: MadeViews, mosaic: dict[str, F32]) -> None:
    """A1, against what the same views without noise give: blending three views gains 2 dB or more."""
    clean = replace(made, aif=made.clean)  # type: ignore[arg-type]
    three = (mosaic["n_views"] >= 3) & (whole(made, mode="best")["n_views"] >= 3)
    gain = {}
    for mode in ("mean", "best"):
        found, exact = whole(made, mode=mode), whole(clean, mode=mode)
        gain[mode] = psnr(found["colour"][:, three], exact["colour"][:, three])
    print(gain)
    assert gain["mean"] >= gain["best"] + 2.0


def test_there_are_no_seams(made: MadeViews, mosaic: dict[str, F32]) -> None:
    """A2: gradients across the borders of views are those of the picture elsewhere."""
    poses, shape = made.calibration.poses, made.candidates.shape
    points = np.stack(np.indices(shape), axis=-1).astype(np.float64)
    border = np.zeros(shape, bool)
    for view in range(poses.n_views):
        rc = to_view(poses, view, points)
        away = np.minimum(rc, np.array(poses.size) - 1 - rc).min(axis=-1)
        border |= np.abs(away) < 1.0
    picture = mosaic["colour"].mean(axis=0)
    gradient = np.hypot(*np.gradient(picture))
    inside = ndimage.binary_erosion(mosaic["n_views"] > 1, iterations=3)
    ratio = gradient[border & inside].mean() / gradient[~border & inside].mean()
    print(f"seam energy {ratio:.3f}")
    assert ratio <= 1.05


def test_tiles_fit_together_whatever_their_size(
    made: MadeViews, mosaic: dict[str, F32], monkeypatch: pytest.MonkeyPatch
) -> None:
    views = made.views()
    for mode in ("mean", "best", "two_band", "splat_uniform"):
        how = Blending(mode=mode, feather=8.0, band=3.0)  # type: ignore[arg-type]
        found = blend_tile(views, (0, 0), views.shape, how)
        monkeypatch.setattr(tiles, "BLOCK", 50)
        for rows, cols in ((slice(0, 70), slice(100, 230)), (slice(131, 278), slice(300, 437))):
            part = blend_tile(views, (rows.start, cols.start), (rows.stop - rows.start, cols.stop - cols.start), how)
            again = blend_tile(views, (rows.start, cols.start), (rows.stop - rows.start, cols.stop - cols.start), how)
            np.testing.assert_array_equal(part, again)
            # 1e-6 of a colour, but where two views have nearly the same weight
            close = np.isclose(part, found[:, rows, cols], rtol=1e-5, atol=2e-3, equal_nan=True)
            assert close.mean() > 0.9999, mode
        monkeypatch.undo()


def test_two_bands_are_the_coarse_of_one_and_the_fine_of_the_other(rng: np.random.Generator) -> None:
    mean, best = (rng.normal(size=(3, 60, 70)).astype(np.float32) for _ in range(2))
    unseen = np.zeros((60, 70), bool)
    unseen[:9, 40:] = True
    mean[:, unseen] = best[:, unseen] = np.nan
    np.testing.assert_allclose(tiles.two_band(mean, mean, 3.0), mean, atol=1e-6)
    found = tiles.two_band(mean, best, 3.0)
    assert (np.isnan(found) == unseen).all()
    # a coarse difference comes through, a fine one does not
    np.testing.assert_allclose(tiles.two_band(best + 4, best, 3.0), best + 4, atol=1e-5)
    checks = np.where(np.indices((60, 70)).sum(axis=0) % 2, 1, -1).astype(np.float32)
    inner = (slice(None), slice(20, -9), slice(9, -9))
    np.testing.assert_allclose(tiles.two_band(best + checks, best, 3.0)[inner], best[inner], atol=1e-3)


def test_splat_weighs_all_views_alike(made: MadeViews) -> None:
    found, gathered = whole(made, mode="splat_uniform", margin=20), whole(made)
    seen = (found["n_views"] > 0) & (made.truth["texture"] > 0.5)
    error = (found["height"] - made.truth["height"])[seen]
    assert np.sqrt(np.mean(error**2)) < 5.0
    # the margin of 20 pixels goes off the bounding box of every view
    assert (found["n_views"] <= gathered["n_views"]).mean() > 0.99
    covered = (gathered["n_views"] > 0).mean() - (found["n_views"] > 0).mean()
    assert 0.1 < covered < 0.4


def test_absent_views_leave_a_gap_and_nothing_else(made: MadeViews, mosaic: dict[str, F32]) -> None:
    index, present = made.index.copy(), made.calibration.present.copy()
    index[0, 0], present[0] = np.nan, False
    gone = replace(made, index=index)
    # told by the mask, or by their index alone
    views = [gone.views(present=present), gone.views(), made.views(present=present)]
    found = [by_name(blend_tile(v, (0, 0), v.shape, Blending(feather=8.0))) for v in views]
    for one in found[1:]:
        np.testing.assert_array_equal(one["height"], found[0]["height"])
    alone = (mosaic["n_views"] == 1) & np.isnan(found[0]["height"])
    assert alone.any()
    far = np.ones(alone.shape, bool)
    far[:200, :200] = False
    np.testing.assert_array_equal(found[0]["height"][far], mosaic["height"][far])


def test_view_outside_the_mosaic_is_refused(made: MadeViews) -> None:
    rows, cols = made.candidates.shape
    for shape in ((rows - 40, cols), (rows, cols - 3)):
        small = replace(made.candidates, shape=shape)
        with pytest.raises(UserError, match=r"views lie outside the mosaic of \d+ x \d+ pixels, the first is view \("):
            made.views(candidates=small)
    moved = replace(made.calibration.poses, offset=made.calibration.poses.offset - 7)
    with pytest.raises(UserError, match="outside the mosaic"):
        made.views(calibration=replace(made.calibration, poses=moved))


def test_maps_of_another_shape_are_refused(made: MadeViews) -> None:
    with pytest.raises(ShapeError, match="confidence: expected"):
        replace(made, confidence=made.confidence[:, :, 1:]).views()
    with pytest.raises(ShapeError, match="offsets: expected"):
        made.views(offsets=np.zeros((3, 3)))


def test_heights_without_a_datum_are_relative(made: MadeViews) -> None:
    unknown = np.full_like(made.calibration.focus_plane, np.nan)
    views = made.views(calibration=replace(made.calibration, focus_plane=unknown))
    assert not views.datum_known
    found = by_name(blend_tile(views, (0, 0), views.shape, Blending(feather=8.0)))["height"]
    seen = np.isfinite(found)
    error = (found - made.truth["height"])[seen]
    # the instrument's surfaces of focus differ by some tens of micrometres
    assert np.abs(error - np.median(error)).mean() < 60


def test_only_what_a_tile_needs_is_read(made: MadeViews) -> None:
    class Counted:
        def __init__(self, array: NDArray) -> None:
            self.array, self.shape, self.dtype, self.pixels = array, array.shape, array.dtype, 0

        def __getitem__(self, key: tuple) -> NDArray:
            found = self.array[key]
            self.pixels += found.shape[0] * found.shape[1]
            return found

    counted = Counted(made.index)
    views = replace(made, index=counted).views()  # type: ignore[arg-type]
    start, shape = (100, 200), (64, 64)
    blend_tile(views, start, shape, Blending(feather=8.0))
    crops = [crop_of_tile(made.calibration.poses, int(v), start, shape) for v in views.of_tile(start, shape)]
    assert counted.pixels <= sum((a.stop - a.start) * (b.stop - b.start) for a, b in crops)
    assert counted.pixels < 0.2 * made.index.size


def test_a_single_view_becomes_itself(rng: np.random.Generator) -> None:
    """A bench microscope: one view, no calibration to speak of; all of its pixels are there, the last row too."""
    from gigascope.topography.calibration.result import InstrumentId, from_known_poses
    from gigascope.topography.geometry.candidates import find_candidates
    from gigascope.topography.geometry.poses import Poses
    from gigascope.topography.mosaic.views import Views

    size = (90, 130)
    poses = Poses(size, 1.0, np.ones(1), np.array([[0.0, 0.0, -1.0]]), np.zeros(1), np.zeros((1, 2)), [], np.zeros(2))  # type: ignore[arg-type]
    calibration = from_known_poses(poses, InstrumentId((0,), (0,), (1, 1), size))
    candidates = find_candidates(calibration.poses, calibration.mosaic_shape)
    index = rng.uniform(0, 4, (1, 1, *size)).astype(np.float32)
    aif = rng.integers(0, 4095, (1, 1, *size, 1)).astype(np.uint16)
    z = np.arange(5.0)[None]
    views = Views(index, np.ones_like(index), aif, calibration, candidates, z, np.ones(1, bool), per_mm=1.0)
    assert views.shape == size
    found = by_name(blend_tile(views, (0, 0), size, Blending(white=4095.0, feather=3.0)))
    np.testing.assert_allclose(found["colour"][0], aif[0, 0, ..., 0], atol=1e-6)
    np.testing.assert_allclose(found["height"], 2.0 - index[0, 0], atol=1e-5)
    assert (found["n_views"] == 1).all()


def test_devices_agree(made: MadeViews, mosaic: dict[str, F32]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU: run where torch.cuda.is_available()")
    views = made.views()
    found = by_name(blend_tile(views, (0, 0), views.shape, Blending(feather=8.0), "cuda"))
    for name, values in mosaic.items():
        assert np.isclose(found[name], values, rtol=1e-4, atol=1e-2, equal_nan=True).mean() > 0.9999


def test_tile_that_nobody_sees_is_empty(made: MadeViews) -> None:
    views = made.views(present=np.arange(8) == 0)
    found = by_name(blend_tile(views, (200, 300), (64, 80), Blending(feather=8.0)))
    assert np.isnan(found["height"]).all()
    assert found["colour"].shape == (3, 64, 80)
