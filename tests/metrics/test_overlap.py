"""Sparse overlaps: whole against chunks in any order, and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.errors import ShapeError
from gigascope.metrics.overlap import OverlapCounter, count_overlaps, merge_overlaps


def blobs(rng: np.random.Generator, shape: tuple[int, int, int], n: int, ids: int = 2**32 - 1) -> np.ndarray:
    """Random boxes with random labels."""
    volume = np.zeros(shape, np.uint32)
    for label in rng.choice(ids, n, replace=False) + 1:
        low = [rng.integers(0, k - 1) for k in shape]
        high = [min(k, a + rng.integers(1, max(2, k // 2))) for a, k in zip(low, shape)]
        volume[tuple(slice(a, b) for a, b in zip(low, high))] = label
    return volume


def rows(o) -> list[tuple]:
    return list(zip(o.reference.tolist(), o.test.tolist(), o.voxels.tolist(), map(tuple, o.moments.tolist())))


def test_counts_are_those_of_the_voxels(rng):
    a, b = blobs(rng, (6, 9, 11), 5), blobs(rng, (6, 9, 11), 5)
    origin = (3, 5, 7)
    expected: dict[tuple[int, int], list] = {}
    for place in np.ndindex(a.shape):
        key = int(a[place]), int(b[place])
        if key != (0, 0):
            entry = expected.setdefault(key, [0, [0, 0, 0]])
            entry[0] += 1
            entry[1] = [s + p + o for s, p, o in zip(entry[1], place, origin)]
    found = count_overlaps(a, b, origin)
    assert rows(found) == [(*key, n, tuple(sums)) for key, (n, sums) in sorted(expected.items())]


def test_chunks_in_any_order_give_the_whole(rng):
    """S3, the sparse counts."""
    a, b = blobs(rng, (13, 17, 19), 30), blobs(rng, (13, 17, 19), 30)
    whole = count_overlaps(a, b)
    size = rng.integers(2, 9, 3)
    corners = [tuple(int(o) for o in o) for o in np.ndindex(*(-(-n // s) for n, s in zip(a.shape, size)))]
    rng.shuffle(corners)
    counter = OverlapCounter()
    counter._limit = 20
    for corner in corners:
        origin = tuple(int(c * s) for c, s in zip(corner, size))
        part = tuple(slice(o, o + s) for o, s in zip(origin, size))
        counter.add(a[part], b[part], origin)
    assert rows(counter.result()) == rows(whole)


def test_sizes_and_centroids(rng):
    a, b = blobs(rng, (8, 9, 10), 6), blobs(rng, (8, 9, 10), 6)
    found = count_overlaps(a, b)
    for sizes, volume in ((found.references, a), (found.tests, b)):
        ids = np.unique(volume[volume > 0])
        assert sizes.ids.tolist() == ids.tolist()
        for i, label in enumerate(ids):
            inside = np.argwhere(volume == label)
            assert sizes.voxels[i] == len(inside)
            np.testing.assert_allclose(sizes.centroids[i], inside.mean(axis=0), rtol=1e-12)
    assert rows(found.swapped()) == rows(count_overlaps(b, a))


def test_empty_volumes_have_no_rows():
    nothing = np.zeros((2, 3, 4), np.uint8)
    assert rows(count_overlaps(nothing, nothing)) == []
    assert rows(merge_overlaps([])) == []
    assert OverlapCounter().result().references.ids.size == 0


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int), "one shape"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), "one shape"),
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2), int), "integers"),
        (np.full((2, 2, 2), -1), np.zeros((2, 2, 2), int), "2\\^32"),
        (np.full((2, 2, 2), 2**32), np.zeros((2, 2, 2), int), "2\\^32"),
    ],
)
def test_what_is_no_pair_of_label_images_is_refused(a, b, words):
    with pytest.raises(ShapeError, match=words):
        count_overlaps(a, b)
