"""What the measures say of a planted gap between domains, of no gap, and of labels that do not fit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gigascope.errors import UserError
from gigascope.runtime.rng import generator
from gigascope.synthesis.evaluation.evaluation import Evaluation, Plan, Results, picture_planes
from gigascope.synthesis.evaluation.labels import LABELS, TABLES
from gigascope.synthesis.evaluation.nuclei import classes, histograms
from gigascope.synthesis.evaluation.profiles import EdgeForm
from gigascope.synthesis.evaluation.scores import blobs, score, segment_set
from gigascope.synthesis.evaluation.segmenting import Classical
from gigascope.synthesis.evaluation.tables import all_tables
from gigascope.synthesis.evaluation.values import values
from gigascope.synthesis.evaluation.volumes import ImageSet, Volume
from gigascope.synthesis.evaluation.warnings import warnings

from .scenes import VOXEL, make_set, nuclei_table

PLAN = Plan(
    tile=(16, 32, 32), patches=2000, bootstrap=40, nucleus_um=9.0, edge=EdgeForm(tile=16, least=10), parity=True
)
# The other camera: blurred, half the light, twice the gain, haze.
OTHER = {"blur": 1.0, "photons": 100, "gain": 2.0, "haze": 0.3}


def test_a_single_small_real_image_has_a_floor():
    """Of one tile there are no halves: tiles get smaller until each kind of images has some."""
    sets = [make_set(key, [n], shape=(34, 66, 70)) for n, key in enumerate(("naive", "real"))]
    found = measured(*sets, plan=replace(PLAN, tile=(32, 128, 128), parity=False))
    assert found.tile == (32, 33, 35)
    assert len(found.measures["real"].tiles) == 4
    assert {d.measure for d in found.distances["real_real"]} == {d.measure for d in found.distances["real_naive"]}
    by_measure = {d.measure: d for d in found.distances["real_real"]}
    assert math.isfinite(by_measure["w1"].value)


def measured(naive, real=None, adapted=None, plan: Plan = PLAN, **options) -> Results:
    return Evaluation(naive, real, adapted, plan=plan, random=lambda *k: generator(0, *k), **options).measure()


@pytest.fixture(scope="module")
def naive():
    return make_set("naive", [0, 1])


@pytest.fixture(scope="module")
def out(naive):
    real = make_set("real", [10, 11], **OTHER)
    return measured(naive, real, make_set("adapted", [20, 21], phantoms=[0, 1], **OTHER))


def test_perfect_adaptation_is_at_the_floor_and_simulated_images_are_not(out):
    found = values(out)
    for measure in ("w1", "w1_nuclei", "spectrum", "edge"):
        assert found[f"{measure}_real_naive"] > 1.5 * found[f"{measure}_real_adapted"], measure
    assert found["patches_real_naive"] > found["patches_real_adapted"]
    assert found["kernel_real_naive"] > found["kernel_real_adapted"]
    assert found["w1_real_adapted"] < 4 * found["w1_real_real"]
    assert found["w1_gain"] == pytest.approx(found["w1_real_naive"] / found["w1_real_adapted"])


def test_intervals_hold_their_value_and_floors_are_small(out):
    for rows in out.distances.values():
        known = [d for d in rows if math.isfinite(d.low)]
        assert {d.measure for d in known} >= {"w1", "spectrum", "patches", "kernel"}
        for d in known:
            assert d.low <= d.value <= d.high, d
            assert d.low >= 0 or d.measure == "kernel"


def test_gain_of_each_camera_is_found_in_its_images(out):
    found = values(out)
    assert found["gain_naive"] == pytest.approx(1.0, rel=0.35)
    assert found["gain_real"] == pytest.approx(2.0, rel=0.35)
    assert abs(found["noise_axial_real"]) < 0.15


def test_labels_still_fit_perfectly_adapted_images(out):
    found = values(out)
    assert found["aligned"] == 100
    assert found["shift_median"] < 0.3
    assert found["auc_adapted"] > 0.9
    assert found["new_blobs"] <= 1
    assert found["det_naive"] > 0.95
    assert found["seg_adapted"] > 0.6
    assert not [w for w in warnings(found) if "labels have them" in w]


def test_moved_labels_and_made_up_nuclei_are_noticed(naive):
    volumes = [replace(v, image=np.roll(v.image, 3, axis=2)) for v in naive.volumes]
    wrong = ImageSet("adapted", tuple(volumes))
    found = values(measured(naive, None, wrong, replace(PLAN, parity=False)))
    assert found["aligned"] == 0
    assert found["shift_median"] == pytest.approx(3, abs=0.3)
    assert any("labels have them" in w for w in warnings(found))
    segment = Classical(9.0)
    before = segment_set(naive, segment, 10**9)[0]
    image = naive.volumes[0].image.copy()
    empty = np.argwhere(naive.volumes[0].labels[:1, 4:10, 4:10] == 0)[0]
    image[:4, empty[1] + 2 : empty[1] + 14, 2:14] = 400
    labels = np.where(image == 400, 0, naive.volumes[0].labels)
    fake = segment_set(ImageSet("adapted", (Volume("s0000", image, labels, VOXEL),)), segment, 10**9)[0]
    none_before = replace(before, labels=np.where(image == 400, 0, before.labels))
    assert blobs(fake, none_before) == 1
    assert blobs(before, before) == 0


def test_without_real_images_simulated_ones_are_measured_against_themselves(naive):
    found = measured(naive, plan=replace(PLAN, bootstrap=0))
    assert set(found.distances) == {"naive_naive"}
    numbers = values(found)
    assert "w1_naive_naive" in numbers
    assert numbers["det_naive"] > 0.95
    assert all(math.isnan(d.low) for d in found.distances["naive_naive"])
    assert "aligned" not in numbers
    assert warnings(numbers) == []


def test_real_images_without_labels_have_no_scores_but_distances(naive):
    real = make_set("real", [10, 11], labelled=False, **OTHER)
    found = measured(naive, real, plan=replace(PLAN, parity=False))
    assert "real" not in found.scores
    assert any("no labels" in note for note in found.notes)
    numbers = values(found)
    assert numbers["w1_nuclei_real_naive"] > 0.05


def test_every_table_has_rows_and_every_number_a_label(out, naive):
    nuclei = histograms([nuclei_table(v) for v in naive.volumes])
    tables = all_tables(out, nuclei)
    assert tuple(tables) == TABLES
    for name, (columns, units) in tables.items():
        sizes = {len(c) for c in columns.values()}
        assert len(sizes) == 1, name
        assert (sizes != {0}) == (name != "downstream"), name
        assert set(units) <= set(columns)
    assert set(values(out)) <= set(LABELS)
    assert set(nuclei[0]["quantity"]) == {"diameter", "depth", "neighbours", "clip"}
    total = sum(len(nuclei_table(v)["depth_um"]) for v in naive.volumes)
    assert nuclei[0]["nuclei"][nuclei[0]["quantity"] == "depth"].sum() == total


def test_parity_scores_prefer_the_adapted_images(out):
    naive, adapted = (np.nanmedian(out.parity[k].slices, axis=1) for k in ("naive", "adapted"))
    assert adapted[2] > naive[2]
    assert (adapted[np.isfinite(adapted)] <= 1).all()


def test_groups_are_thirds_and_classes(out, naive):
    known = {v.name: classes(nuclei_table(v)) for v in naive.volumes}
    found = score(segment_set(naive, Classical(9.0), 10**9), (0.5,), known)
    n = found.detection.n_reference
    assert set(found.depth) == {0, 1, 2}
    assert sum(g.tp + g.fn for g in found.depth.values()) == n
    assert set(found.classes) == {1, 4}
    assert sum(g.tp + g.fn for g in found.classes.values()) == n
    assert found.matchings[0].f1 > 0.9


def test_pictures_are_middle_slices_with_labels_and_what_was_found(out, naive):
    planes = picture_planes(naive, out.found["naive"], 64)
    assert planes["xy"].shape == planes["xy_labels"].shape == planes["xy_found"].shape == (64, 64)
    assert planes["xz"].shape == (24, 64)
    np.testing.assert_array_equal(planes["xy"], naive.volumes[0].image[12, 16:80, 16:80])
    assert planes["xy_found"].max() > 0


def test_result_does_not_depend_on_when_it_is_made(naive):
    found = [values(measured(naive, plan=replace(PLAN, patches=200, max_tiles=6))) for _ in range(2)]
    np.testing.assert_equal(*found)


def test_scale_of_the_real_images_shows_other_brightness_and_other_voxels_are_noticed():
    naive, real = make_set("naive", [0]), make_set("real", [10], **OTHER)
    plan = replace(PLAN, parity=False, bootstrap=0, patches=200, max_tiles=4)
    own, theirs = (measured(naive, real, plan=replace(plan, own_scale=s)) for s in (True, False))
    assert values(own)["w1_real_naive"] != values(theirs)["w1_real_naive"]
    assert own.warnings == []
    finer = ImageSet("real", tuple(replace(v, voxel_um=(1.0, 0.4, 0.4)) for v in real.volumes))
    said = measured(naive, finer, plan=plan).warnings
    assert len(said) == 1
    assert "1 x 0.4 x 0.4 µm" in said[0]


def test_images_too_small_to_say_anything_are_refused():
    tiny = make_set("naive", [0], shape=(3, 40, 40))
    with pytest.raises(UserError, match="at least 4 x 16 x 16"):
        measured(tiny)
