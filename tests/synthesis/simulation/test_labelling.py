"""Products of labels and what is measured of them (L3)."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.synthesis.simulation import measured
from gigascope.synthesis.simulation.labelling import blurred, boundary, centre_distance
from gigascope.synthesis.simulation.measured import label_sums, label_table, merged


@pytest.mark.parametrize("slab", [1, 1 << 20])
def test_sums_do_not_depend_on_how_the_image_is_cut(rng, slab, monkeypatch):
    """L3: volume, centroid and box of every label are those of its voxels."""
    monkeypatch.setattr(measured, "SLAB_VOXELS", slab)
    shape, voxel = (9, 14, 17), (1.5, 0.5, 0.25)
    labels = rng.integers(0, 6, shape).astype(np.uint32)
    labels[labels == 4] = 0
    cut = [int(rng.integers(1, n)) for n in shape]
    parts = []
    for z in ((0, cut[0]), (cut[0], shape[0])):
        for y in ((0, cut[1]), (cut[1], shape[1])):
            parts.append(label_sums(labels[slice(*z), slice(*y)], (z[0], y[0], 0)))
    rows = merged(parts, 6)
    assert (rows == merged([label_sums(labels, (0, 0, 0))], 6)).all()
    columns, units = label_table(rows, shape, voxel)
    assert set(units) < set(columns)
    for row in range(6):
        place = np.argwhere(labels == row + 1)
        assert columns["n_voxels"][row] == len(place)
        if not len(place):
            assert np.isnan(columns["centroid_z"][row])
            continue
        assert columns["volume_um3"][row] == pytest.approx(len(place) * 1.5 * 0.5 * 0.25)
        for axis in range(3):
            name = "zyx"[axis]
            assert columns[f"centroid_{name}"][row] == pytest.approx((place[:, axis].mean() + 0.5) * voxel[axis])
            assert columns[f"low_{name}"][row] == place[:, axis].min() * voxel[axis]
            assert columns[f"high_{name}"][row] == (place[:, axis].max() + 1) * voxel[axis]
        touches = (place == 0).any() or (place == np.array(shape) - 1).any()
        assert columns["touching_border"][row] == touches


def test_boundary_is_where_faces_meet_another_label(rng):
    labels = rng.integers(0, 3, (7, 8, 9))
    found = boundary(labels)
    for z, y, x in np.ndindex(5, 6, 7):
        here = labels[z + 1, y + 1, x + 1]
        around = [labels[z + 1 + a, y + 1 + b, x + 1 + c] for a, b, c in
                  ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))]  # fmt: skip
        assert found[z, y, x] == (here != 0 and any(other != here for other in around))


def test_distance_is_one_in_the_centre_and_none_outside():
    labels, centre, voxel = np.zeros((9, 9, 9), int), np.array([[9.0, 5.0, 4.5]]), (1.0, 0.5, 0.5)
    labels[3:6, 2:7, 2:7] = 1
    found = centre_distance(labels, (4, 5, 4), voxel, centre, np.array([4 / 3 * np.pi * 3.0**3]))
    assert (found[labels == 0] == 0).all()
    assert found[3:6, 2:7, 2:7].min() > 0
    at = (4 + 4 + 0.5, (4 + 5 + 0.5) * 0.5, (4 + 4 + 0.5) * 0.5)
    away = np.sqrt(sum((a - c) ** 2 for a, c in zip(at, centre[0], strict=True)))
    assert found[4, 4, 4] == pytest.approx(1 - away / 3.0)


def test_blurred_labels_are_masks_above_the_threshold(rng):
    labels = np.zeros((14, 16, 18), int)
    labels[4:8, 5:9, 4:9] = 2
    labels[4:8, 9:12, 6:12] = 7
    psf = rng.random((3, 5, 5)).astype(np.float32)
    psf /= psf.sum()
    found = blurred(labels, psf, 0.25)
    assert found.shape == (12, 12, 14)
    light = {}
    for value in (2, 7):
        mask, total = (labels == value).astype(float), np.zeros(found.shape)
        for z, y, x in np.ndindex(psf.shape):
            # true convolution: weight at +offset moves light by +offset
            total += psf[z, y, x] * mask[2 - z : 14 - z, 4 - y : 16 - y, 4 - x : 18 - x]
        light[value] = total
    best = np.maximum(light[2], light[7])
    clear = (np.abs(light[2] - light[7]) > 1e-4) & (np.abs(best - 0.25) > 1e-4)
    expected = np.where(best > 0.25, np.where(light[2] > light[7], 2, 7), 0)
    assert clear.mean() > 0.2
    assert (found == expected)[clear | (best == 0)].all()
    # larger than before
    assert (found > 0).sum() > (labels > 0).sum()


def test_no_label_has_no_sums():
    assert label_sums(np.zeros((3, 4, 5), np.uint32), (0, 0, 0)).shape == (0, 11)
    assert (merged([], 3)[:, 1] == 0).all()
