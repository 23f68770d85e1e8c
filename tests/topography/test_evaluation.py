"""The evaluation: perfect results score perfectly, each fault shows in its own measure, and is said in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.open import StoreReader
from gigascope.topography.calibration.compare import reprojection_errors
from gigascope.topography.calibration.stored import read_calibration
from gigascope.topography.evaluation import mosaic_scores, view_scores
from gigascope.topography.evaluation.evaluation import Evaluation
from gigascope.topography.evaluation.tiles import Tile, tiles_of
from gigascope.topography.evaluation.truth import Truth, near_steps
from gigascope.topography.geometry.poses import same_scene


@pytest.fixture(scope="module")
def evaluation(mosaicked: Any) -> Evaluation:
    """Of the simulated result."""
    return measured(mosaicked)


def measured(made: Any, **options: Any) -> Evaluation:
    names = ("raw", "calibration", "views", "mosaic", "truth")
    found = Evaluation(*(made.store(n) if n in made.paths() else None for n in names), **options)
    found.measure()
    return found


def values(evaluation: Evaluation) -> dict[str, float]:
    return {n: e["value"] for n, e in evaluation.metrics().items() if isinstance(e, dict)}


class Altered:
    """A store whose arrays are changed when they are read."""

    def __init__(self, store: StoreReader, change: Callable[[NDArray[Any]], NDArray[Any]], member: str | None) -> None:
        self._store, self._member, self.attrs = store, member, store.attrs
        self._changed = change(np.asarray(store.array()[...] if member is None else store.member(member)[...]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def array(self, level: int = 0) -> Any:
        return self._changed if self._member is None else self._store.array(level)

    def member(self, name: str) -> Any:
        return self._changed if name == self._member else self._store.member(name)


def altered(
    made: Any, which: str, change: Callable[[NDArray[Any]], NDArray[Any]], member: str | None = None
) -> Evaluation:
    """Evaluation of a result in which one store says something else."""
    stores = {n: made.store(n) for n in ("raw", "calibration", "views", "mosaic", "truth")}
    stores[which] = Altered(stores[which], change, member)  # type: ignore[assignment]
    # what is about views needs all of them
    most = 2**24 if which == "views" else 1
    found = Evaluation(*stores.values(), estimators=(), max_view_pixels=most)
    found.measure()
    return found


def perfect(made: Any, store: Any = None) -> NDArray[Any]:
    """The mosaic that the truth would give; `store`: another truth."""
    calibration, candidates = read_calibration(made.store("calibration"))
    block = np.asarray(made.store("mosaic").array()[...])
    whole = (slice(0, block.shape[1]), slice(0, block.shape[2]))
    tile = Tile(whole, calibration, candidates, Truth(store or made.store("truth"), calibration))
    seen = np.isfinite(block[3])
    block[:3], block[3], block[4] = 235 * tile.albedo, tile.surface.height_um, 0
    block[:4, ~seen] = np.nan
    return block


def test_true_heights_and_colours_score_perfectly(mosaicked: Any) -> None:
    made = perfect(mosaicked)
    found = altered(mosaicked, "mosaic", lambda _: made)
    scores = values(found)
    # the median that is taken off is found within a bin of 0.16 um
    assert scores["height_rmse"] < 0.16
    assert scores["height_rmse_steps"] < 0.16
    assert scores["all_in_focus_psnr"] is None or scores["all_in_focus_psnr"] > 100
    assert scores["lateral_error"] < 1e-3
    assert scores["coverage"] > 99.9
    assert scores["unseen_pixels"] == 0
    assert scores["view_agreement"] < 0.02
    assert found.metrics()["warnings"] == []


def test_noise_on_heights_is_found_and_a_common_offset_is_not(mosaicked: Any, rng: np.random.Generator) -> None:
    made = perfect(mosaicked)
    made[3] += 17.0 + rng.normal(0, 3.0, made[3].shape)
    scores = values(altered(mosaicked, "mosaic", lambda _: made))
    assert scores["height_offset"] == pytest.approx(17.0, abs=0.1)
    assert scores["height_rmse"] == pytest.approx(3.0, rel=0.02)
    # the steps that the stage says it made have a median of their own
    assert scores["height_rmse_dz"] == pytest.approx(scores["height_rmse"] / 40.0, rel=0.02)
    # of a normal distribution
    assert scores["height_p95"] == pytest.approx(1.96 * 3.0, rel=0.03)
    assert scores["height_decile_bias_dz"] < 0.01


def test_scale_error_of_heights_shows_in_the_bias_of_the_deciles(mosaicked: Any) -> None:
    made = perfect(mosaicked)
    made[3] *= 1.2
    found = altered(mosaicked, "mosaic", lambda _: made)
    columns, units = found.tables()["height_deciles"]
    middle = 0.5 * (columns["from"] + columns["to"])
    assert np.polyfit(middle, columns["bias"], 1)[0] == pytest.approx(0.2, rel=0.1)
    assert (columns["from"][1:] <= columns["to"][:-1] + 1e-6).all()
    assert units["bias"] == "um"


def test_displaced_mosaic_is_seen_and_said(mosaicked: Any) -> None:
    made = np.roll(perfect(mosaicked), 1, axis=2)
    found = altered(mosaicked, "mosaic", lambda _: made)
    assert values(found)["lateral_error"] == pytest.approx(1.0, abs=0.05)
    assert any("is displaced by" in text for text in found.metrics()["warnings"])


def test_lost_pixels_are_counted_and_said(mosaicked: Any) -> None:
    made = perfect(mosaicked)
    share = np.isfinite(made[3, 100:120, 100:200]).sum() / np.isfinite(made[3]).sum()
    made[:5, 100:120, 100:200] = np.nan
    found = altered(mosaicked, "mosaic", lambda _: made)
    assert values(found)["coverage"] == pytest.approx(100 * (1 - share), abs=0.05)
    assert "are lost" in found.metrics()["warnings"][0]
    made[3] = 0.0
    assert values(altered(mosaicked, "mosaic", lambda _: made))["unseen_pixels"] > 0


def test_seams_raise_their_energy_where_borders_are(mosaicked: Any, evaluation: Evaluation) -> None:
    calibration, candidates = read_calibration(mosaicked.store("calibration"))
    made = perfect(mosaicked)
    whole = (slice(0, made.shape[1]), slice(0, made.shape[2]))
    border = Tile(whole, calibration, candidates, None).border_px
    found = altered(mosaicked, "mosaic", lambda _: np.where(border < 1, made + 30, made))
    assert values(evaluation)["seam_energy"] == pytest.approx(1.0, abs=0.06)
    assert values(found)["seam_energy"] > 1.5
    assert any(text.startswith("Picture: borders of views can be seen") for text in found.metrics()["warnings"])


def test_view_agreement_is_the_median_scatter(mosaicked: Any) -> None:
    made = np.asarray(mosaicked.store("mosaic").array()[...]).copy()
    made[4] = 12.0
    found = altered(mosaicked, "mosaic", lambda _: made)
    assert values(found)["view_agreement"] == pytest.approx(12.0, abs=0.1)
    assert values(found)["view_agreement_dz"] == pytest.approx(0.3, abs=0.01)
    assert any("scatter by 0.30 z-steps" in text for text in found.metrics()["warnings"])


def test_confidence_is_judged_by_the_texture(mosaicked: Any, evaluation: Evaluation, rng: np.random.Generator) -> None:
    assert values(evaluation)["confidence_auc"] > 0.9
    random = altered(mosaicked, "views", lambda c: rng.uniform(0, 1, c.shape).astype(np.float32), "confidence")
    assert values(random)["confidence_auc"] == pytest.approx(0.5, abs=0.05)


def test_estimators_stand_in_the_order_that_section_12_found(evaluation: Evaluation) -> None:
    columns, _ = evaluation.tables()["estimators"]
    rmse = {(m, v): r for m, v, r in zip(columns["method"], columns["views"], columns["height_rmse"])}
    for views in ("single", "mean"):
        order = [rmse[m, views] for m in ("true_index", "centroid", "log_parabola", "parabola", "argmax")]
        assert order == sorted(order), views
    # a fraction of a slice that is picked at random: dz / sqrt(12)
    assert rmse["argmax", "single"] == pytest.approx(40 / math.sqrt(12), rel=0.2)
    assert rmse["argmax", "mean"] < rmse["argmax", "single"]
    scores = values(evaluation)
    assert scores["best_estimator_rmse"] == min(v for (m, k), v in rmse.items() if k == "mean" and m in LABELS_OF)
    psnr = {(m, v): r for m, v, r in zip(columns["method"], columns["views"], columns["psnr"])}
    # the views of the fixture are mixed of two slices
    assert scores["all_in_focus_psnr_view"] == pytest.approx(psnr["true_index", "single"], abs=0.3)
    assert scores["true_index_psnr_view"] == max(psnr["true_index", "single"], psnr["true_nearest", "single"])


LABELS_OF = ("argmax", "parabola", "log_parabola", "centroid")


def test_worse_heights_than_an_estimator_are_said(mosaicked: Any, rng: np.random.Generator) -> None:
    made = np.asarray(mosaicked.store("mosaic").array()[...]).copy()
    made[3] += rng.normal(0, 9.0, made[3].shape)
    stores = {n: mosaicked.store(n) for n in ("raw", "calibration", "views", "mosaic", "truth")}
    stores["mosaic"] = Altered(stores["mosaic"], lambda _: made, None)
    found = Evaluation(*stores.values(), estimators=("centroid",), max_view_pixels=4 * 192 * 192)
    found.measure()
    assert any("finds better heights on the same pixels" in text for text in found.metrics()["warnings"])


def test_calibration_is_judged_by_the_truth_up_to_a_similarity(mosaicked: Any, evaluation: Evaluation) -> None:
    scores = values(evaluation)
    assert scores["reprojection_p95"] < 1e-6
    assert scores["datum_rms_dz"] < 1e-4
    # the light was fitted with a parabola, its inverse is none
    assert scores["shading_rms"] < 1.0
    calibration, _ = read_calibration(mosaicked.store("calibration"))
    truth = Truth(mosaicked.store("truth"), calibration)
    turned = replace(calibration.poses, angle=calibration.poses.angle + 0.01, height=1.01 * calibration.poses.height)
    moved = replace(calibration, poses=same_scene(turned)[0])
    other = Truth(mosaicked.store("truth"), moved)
    corner = np.array([[[0.0, 0.0], [100.0, 80.0]]])
    assert np.allclose(other.on_mosaic(other.on_truth(corner)), corner)
    assert np.median(reprojection_errors(moved.poses, truth.poses)) < 1.0


def test_gauge_steps_are_measured(mosaicked: Any, rng: np.random.Generator) -> None:
    stores = {n: mosaicked.store(n) for n in ("raw", "calibration", "views", "mosaic", "truth")}
    levels = np.array([0.0, 10.0, 30.0, 80.0])

    def stairs(heights: NDArray[Any]) -> NDArray[Any]:
        columns = np.arange(heights.shape[1]) * len(levels) // heights.shape[1]
        return np.broadcast_to(levels[columns] / 1000, heights.shape).astype(np.float32)

    truth = Altered(stores["truth"], stairs, "height_mm")
    truth.attrs = {**truth.attrs, "specimen": "staircase"}
    stores["truth"] = truth
    made = perfect(mosaicked, truth)
    made[3] = np.where(made[3] > 50, made[3] + 3.0, made[3]) + rng.normal(0, 1.5, made[3].shape)
    stores["mosaic"] = Altered(stores["mosaic"], lambda _: made, None)
    found = Evaluation(*stores.values(), estimators=(), max_view_pixels=1)
    found.measure()
    columns, _ = found.tables()["gauge_planes"]
    assert columns["true"].tolist() == levels.tolist()
    assert np.allclose(np.diff(columns["found"]), [10, 20, 53], atol=0.2)
    assert values(found)["step_error"] == pytest.approx(3.0, abs=0.2)
    assert values(found)["step_plane_std"] == pytest.approx(1.5, rel=0.1)


def test_pictures_of_one_camera_are_measured_without_a_truth(focus_stack: Any) -> None:
    found = measured(focus_stack)
    scores = values(found)
    assert not found.has_truth
    assert scores["sharpness_gain"] > 1.5
    assert scores["views_per_pixel"] == 1
    assert not {"height_rmse", "seam_energy", "view_agreement"} & set(scores)
    assert all(len(next(iter(columns.values()))) == 0 for columns, _ in found.tables().values())


def test_fewer_pixels_are_measured_when_asked(mosaicked: Any, evaluation: Evaluation) -> None:
    few = measured(mosaicked, max_pixels=1, max_view_pixels=192 * 192, estimators=("argmax",))
    columns, _ = few.tables()["estimators"]
    everything, _ = evaluation.tables()["estimators"]
    assert 0 < columns["pixels"][0] < everything["pixels"][0] / 4
    assert sorted(set(columns["method"])) == ["argmax", "ours", "true_index", "true_nearest"]


def test_stage_up_and_stage_down_give_the_same_heights(
    mosaicked: Any, build_topography: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # acceptance test H6: the stage visits the same positions in reverse, noise is another
    down = build_topography(tmp_path_factory.mktemp("down") / "down", seed=10, stage_up=False)
    assert mosaicked.store("raw").attrs["stage_up"] is not down.store("raw").attrs["stage_up"]
    one, other = (np.asarray(made.store("mosaic").array()[...]) for made in (mosaicked, down))
    calibration, candidates = read_calibration(mosaicked.store("calibration"))
    whole = (slice(0, one.shape[1]), slice(0, one.shape[2]))
    tile = Tile(whole, calibration, candidates, Truth(mosaicked.store("truth"), calibration))
    good = np.isfinite(one[3]) & np.isfinite(other[3]) & tile.visible & tile.textured
    assert good.mean() > 0.5
    difference = (one[3] - other[3])[good]
    assert math.sqrt(np.mean(difference**2)) <= 0.05 * 40.0


def test_gauge_blocks_are_found_within_five_micrometres(build_topography: Any, tmp_path: Path) -> None:
    """H4, on XS and with the estimator: every step, and the scatter of every plane."""
    found = values(measured(build_topography(tmp_path / "gauge", specimen="staircase", seed=2)))
    print({name: round(value, 2) for name, value in found.items() if name.startswith("step")})
    assert found["step_error"] <= 5.0
    assert found["step_plane_std"] <= 5.0


def test_views_of_a_block_are_compact_and_central() -> None:
    present = np.ones(64, bool)
    assert view_scores.block_of_views((8, 8), present, (10, 10), 10**6) == list(range(64))
    block = view_scores.block_of_views((8, 8), present, (10, 10), 1600)
    assert block == [r * 8 + c for r in range(2, 6) for c in range(2, 6)]
    present[block[0]] = False
    assert view_scores.block_of_views((8, 8), present, (10, 10), 1600) == block[1:]
    assert len(view_scores.block_of_views((72, 48), np.ones(3456, bool), (3072, 3072), 2**24)) == 1


def test_tiles_cover_everything_once_or_are_spread() -> None:
    region = slice(3, 1500), slice(0, 1100)
    count = np.zeros((1500, 1100), int)
    for tile in tiles_of(region):
        count[tile] += 1
    assert (count[3:] == 1).all()
    assert len(tiles_of(region, 2 * 512**2)) == 2
    assert tiles_of(region, 2 * 512**2)[0] != tiles_of(region)[0]


def test_steps_are_seen_from_as_far_as_blur_and_window_reach() -> None:
    heights = np.zeros((40, 200))
    heights[:, 100:] = 80.0
    near = near_steps(heights, na=0.1, pixel_um=1.3)
    columns = np.flatnonzero(near[20])
    reach = 8 + 0.1 * 80 / 1.3
    assert reach <= 100 - columns[0] <= reach + 4.5
    assert not near_steps(np.linspace(0, 400, 200)[None].repeat(40, 0), na=0.1, pixel_um=1.3).any()


def test_gradient_is_that_of_a_slope_and_unknown_beside_what_is_unknown() -> None:
    plane = (3.0 * np.arange(8)[:, None] + 4.0 * np.arange(9)[None]).astype(np.float32)
    assert np.allclose(mosaic_scores.gradient(plane), 5.0)
    plane[4, 4] = np.nan
    assert np.isnan(mosaic_scores.gradient(plane)).sum() == 4


def test_stores_of_different_acquisitions_are_refused(mosaicked: Any, focus_stack: Any) -> None:
    stores = [mosaicked.store(n) for n in ("raw", "calibration", "views")]
    with pytest.raises(UserError, match="the calibration's mosaic of"):
        Evaluation(*stores, focus_stack.store("mosaic"))
