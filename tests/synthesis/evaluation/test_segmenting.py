"""The classical segmenter, thresholds and spheroids, on balls whose places are known."""

from __future__ import annotations

import math

import numpy as np

from gigascope.metrics.detection import detection
from gigascope.metrics.overlap import count_overlaps
from gigascope.synthesis.evaluation.segmenting import Classical, otsu, peaks, split, without_specks
from gigascope.synthesis.evaluation.surroundings import surroundings
from gigascope.synthesis.evaluation.volumes import Volume, lattice, middle, slabs

from .scenes import VOXEL, balls, make_set, seen


def test_balls_are_found_one_by_one():
    volume = make_set("naive", [3]).volumes[0]
    found = Classical(9.0)(volume, volume.whole())
    scores = detection(count_overlaps(volume.labels, found))
    assert scores.det >= 0.98
    assert scores.seg >= 0.85


def test_touching_balls_are_split():
    labels, _ = balls(5, gap=-1.5)
    found = split(labels > 0, VOXEL, 9.0)
    assert detection(count_overlaps(labels, found)).det >= 0.95


def test_threshold_parts_two_classes_and_noise_has_none(rng):
    dark, bright = rng.normal(10, 1, 4000), rng.normal(30, 2, 800)
    assert 13 < otsu(np.concatenate([dark, bright])) < 25
    assert math.isinf(otsu(dark))
    assert math.isinf(otsu(np.full(10, 3.0)))


def test_dark_image_holds_no_nuclei(rng):
    volume = Volume("dark", rng.poisson(100, (6, 40, 40)).astype(np.uint16), None, VOXEL)
    assert Classical()(volume, volume.whole()).max() == 0


def test_peaks_lie_apart_and_specks_go():
    height = np.zeros((5, 20, 20))
    height[2, 5, 5], height[2, 5, 8], height[2, 15, 15] = 3, 2, 1
    found = peaks(height, height > 0, (1, 1, 1), 4.0)
    assert found.max() == 2
    assert found[2, 5, 8] == 0
    labels = np.zeros((3, 6, 6), np.int32)
    labels[:, :3, :3], labels[0, 5, 5] = 4, 2
    assert np.unique(without_specks(labels, 3)).tolist() == [0, 1]


def test_region_is_segmented_by_its_own_slices():
    volume = make_set("naive", [4]).volumes[0]
    region = (slice(4, 20), slice(10, 80), slice(20, 90))
    part = Volume("part", volume.image[4:20, 10:80, 20:90], None, VOXEL)
    np.testing.assert_array_equal(Classical(9.0)(volume, region), Classical(9.0)(part, part.whole()))


def test_spheroid_and_depth_of_a_ball_with_and_without_labels():
    labels, _ = balls(7, (40, 120, 120), radius=24, gap=-1.0)
    truth_z, truth_y, truth_x = (n * v / 2 for n, v in zip(labels.shape, VOXEL))
    for given in (labels, None):
        volume = Volume("ball", seen(labels, 1, haze=0.4), given, VOXEL)
        around = surroundings(volume, 15.0)
        inside, depth = around.of(volume.whole())
        assert inside.shape == labels.shape
        covered = inside[labels > 0].mean()
        assert covered > 0.9
        ideal = 4 / 3 * math.pi * 27**3 / math.prod(VOXEL)
        assert 0.6 * ideal < inside.sum() < 1.25 * ideal
        z, y, x = (round(t / v) for t, v in zip((truth_z, truth_y, truth_x), VOXEL))
        assert abs(depth[z, y, x] - 27) < 7
        start, stop = around.column(slice(y - 10, y + 10), slice(x - 10, x + 10))
        assert start is not None
        assert stop is not None
        assert abs((stop - start) * VOXEL[0] - 50) < 14
        assert around.column(slice(0, 8), slice(0, 8)) == (None, None)
        assert around.share(volume.whole()) < around.share((slice(14, 26), slice(40, 80), slice(40, 80)))


def test_streaming_of_the_spheroid_does_not_depend_on_slabs(monkeypatch):
    from gigascope.synthesis.evaluation import surroundings as module

    volume = make_set("naive", [8]).volumes[0]
    whole = surroundings(volume, 12.0)
    monkeypatch.setattr(module, "slabs", lambda v, depth: slabs(v, max(1, depth // 8)))
    again = surroundings(volume, 12.0)
    np.testing.assert_array_equal(again.inside, whole.inside)
    np.testing.assert_array_equal(again.depth_um, whole.depth_um)


def test_windows_lie_in_the_middle():
    assert lattice((10, 70, 40), (16, 32, 32)) == [
        (slice(0, 10), slice(3, 35), slice(4, 36)),
        (slice(0, 10), slice(35, 67), slice(4, 36)),
    ]
    volume = make_set("naive", [1]).volumes[0]
    assert middle(volume, 10**9) == volume.whole()
    part = middle(volume, 24 * 48 * 48)
    assert [s.stop - s.start for s in part] == [24, 48, 48]
    assert part[1].start == 24
