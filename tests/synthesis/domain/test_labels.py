"""Labels are mended by rule, masks divided among their marks, and images moved to another grid without bias."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from gigascope.synthesis.domain.instances import divide_mask
from gigascope.synthesis.domain.labels import TOUCHING, label_table, mend_labels
from gigascope.synthesis.domain.resample import axis_weights, resample_image, resample_labels, resampled_length

from .conftest import balls

WHERE = Path("labels.tif")


def test_every_id_is_one_object_without_holes(rng):
    """L1: whatever ids a label image has, afterwards each is one 26-connected object, and holes are filled."""
    noise = ndimage.gaussian_filter(rng.standard_normal((20, 40, 44)), 2)
    regions = rng.integers(0, 5, (2, 4, 4)).repeat(10, 0).repeat(10, 1).repeat(11, 2)
    labels = np.where(noise > 0, regions * 1000 + 7, 0)
    mended = mend_labels(labels, 8, WHERE)
    ids = np.unique(mended.labels)[1:]
    assert len(ids) == mended.n
    for number in ids:
        mask = mended.labels == number
        assert ndimage.label(mask, TOUCHING)[1] == 1
        assert np.count_nonzero(mask) >= 8
        holes = ndimage.binary_fill_holes(mask) & ~mask
        assert (mended.labels[holes] > 0).all()
    assert set(np.unique(labels)) <= {0, 7, 1007, 2007, 3007, 4007}
    kept = mended.labels[(labels > 0) & (mended.labels > 0)]
    assert np.isin(kept, [*np.unique(labels)[1:], *range(4008, 4008 + mended.pieces)]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, np.float32])
def test_good_labels_come_back_as_they_are(dtype):
    labels = np.minimum(balls(), 200)
    mended = mend_labels(labels.astype(dtype), 8, WHERE)
    np.testing.assert_array_equal(mended.labels, labels)
    assert mended.labels.dtype == np.uint32
    assert mended.remarks() == []


def test_ids_of_32_bits_are_kept():
    labels = balls().astype(np.uint32)
    labels[labels == 900] = 2**32 - 1
    assert np.unique(mend_labels(labels, 8, WHERE).labels).tolist() == [0, 1, 2, 3, 2**32 - 1]


def test_table_of_a_box():
    labels = np.zeros((6, 8, 9), np.uint32)
    labels[1:3, 2:6, 3:4] = 5
    labels[0, 0, 0:2] = 9
    columns, units = label_table(labels, (2.0, 1.0, 0.5))
    assert columns["label_id"].tolist() == [5, 9]
    assert [columns[axis][0] for axis in "zyx"] == [4.0, 4.0, 1.75]
    assert columns["volume_um3"].tolist() == [8.0, 2.0]
    assert columns["touching_border"].tolist() == [False, True]
    assert units["volume_um3"] == "um^3"


def test_two_balls_that_touch_are_divided_between_their_marks():
    z, y, x = np.indices((20, 24, 40))
    first = (z - 10) ** 2 + (y - 12) ** 2 + (x - 12) ** 2 <= 81
    second = (z - 10) ** 2 + (y - 12) ** 2 + (x - 27) ** 2 <= 81
    marks = np.zeros(first.shape, np.uint8)
    marks[10, 12, 13] = marks[9, 11, 26] = 255
    found, remarks = divide_mask(first | second, marks, (1.0, 1.0, 1.0), WHERE)
    assert remarks == []
    np.testing.assert_array_equal(found > 0, first | second)
    a, b = found[10, 12, 13], found[9, 11, 26]
    assert a != b
    # the neck lies in the middle: all but the voxels of the plane between the two is where it belongs
    assert np.mean(found[(first | second) & (x < 19)] == a) == 1
    assert np.mean(found[(first | second) & (x > 20)] == b) == 1


@pytest.mark.parametrize(("n", "size", "target"), [(50, 0.3, 0.5), (50, 0.3, 1.0), (20, 1.5, 0.4), (7, 1.0, 1.7)])
def test_constants_and_ramps_stay_what_they_are(n, size, target):
    """Also for ratios that are no whole numbers: a ramp keeps its physical values away from the two ends.

    A voxel that is cut in two gives its one value to both parts, f and 1 - f, which is off by f (1 - f) / 2 voxels.
    """
    weights = axis_weights(n, size, target)
    m = resampled_length(n, size, target)
    assert weights.shape == (m, n)
    assert m * target <= n * size * (1 + 1e-9)
    assert (m + 1) * target > n * size
    np.testing.assert_allclose(weights @ np.ones(n), 1, rtol=1e-12)
    places = (np.arange(m) + 0.5) * target
    inside = (places > size / 2) & (places < (n - 0.5) * size)
    bound = 1e-9 if target < size else size**2 / (8 * target) + 1e-9
    np.testing.assert_allclose((weights @ ((np.arange(n) + 0.5) * size))[inside], places[inside], rtol=0, atol=bound)


def test_shrinking_keeps_the_sum_and_whole_ratios_are_means(rng):
    image = rng.integers(0, 4000, (8, 12, 20)).astype(np.float64)
    small = resample_image(image, (1.0, 0.5, 0.5), (2.0, 1.0, 2.0))
    np.testing.assert_allclose(small, image.reshape(4, 2, 6, 2, 5, 4).mean(axis=(1, 3, 5)))
    fractional = resample_image(image, (1.0, 1.0, 1.0), (1.6, 1.0, 1.0))
    assert fractional.shape == (5, 12, 20)
    np.testing.assert_allclose(fractional.sum() * 1.6, image.sum(), rtol=1e-12)
    whole = resample_image(image.astype(np.uint16), (1.0, 0.5, 0.5), (2.0, 1.0, 2.0))
    np.testing.assert_array_equal(whole, np.rint(small))


def test_labels_take_the_id_at_the_centre():
    labels = np.arange(12, dtype=np.uint32).reshape(1, 1, 12)
    assert resample_labels(labels, (1, 1, 1.0), (1, 1, 3.0)).ravel().tolist() == [1, 4, 7, 10]
    assert resample_labels(labels[..., :3], (1, 1, 1.0), (1, 1, 0.5)).ravel().tolist() == [0, 0, 1, 1, 2, 2]


def test_embryo_is_divided_into_its_sixteen_nuclei(shared_data):
    """Real mask and centres: as many nuclei as marks, each one object."""
    folder = shared_data / "nuclei"
    paths = [folder / f"mouse_embryo_16cell_{part}.tif" for part in ("mask", "centres")]
    if not all(path.exists() for path in paths):
        pytest.skip(f"no embryo in {folder}")
    mask, centres = (tifffile.imread(path) for path in paths)
    found, remarks = divide_mask(mask, centres, (2.18, 1.0, 1.0), paths[1])
    mended = mend_labels(found, 8, paths[0])
    print(mended.n, remarks, mended.remarks())
    assert mended.n == 16
