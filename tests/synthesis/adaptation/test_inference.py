"""Inference: windows that add up, any piece the same, identity, frozen statistics, what is rejected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from gigascope.synthesis.adaptation.adapted import Limits
from gigascope.synthesis.adaptation.alignment import Alignment, block_shifts
from gigascope.synthesis.adaptation.architecture import Architecture, small
from gigascope.synthesis.adaptation.inference import Adapter, windows_for
from gigascope.synthesis.adaptation.mapping import Mapping
from gigascope.synthesis.adaptation.windows import axis_windows, lattice

from .ensembles import nuclei, simulated
from .untrained import untrained

TINY = Architecture(width=4, blocks=1)
SHAPE = (8, 54, 46)


def whole(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


def adapter(a: Architecture = TINY) -> Adapter:
    torch.manual_seed(1)
    generator = untrained(a).eval().requires_grad_(False)
    return Adapter(generator, Mapping(0, 1200), Mapping(0, 300))


@pytest.mark.parametrize("blend", ["cosine", "half_cut"])
def test_weights_of_all_windows_sum_to_one(blend: str, rng: np.random.Generator) -> None:
    for _ in range(30):
        n, window, overlap = int(rng.integers(1, 200)), int(rng.integers(1, 90)), float(rng.uniform(0, 0.9))
        axis = axis_windows(n, window, overlap, blend)
        total = np.zeros(n)
        for start, weights in zip(axis.starts, axis.weights):
            total[start : start + axis.size] += weights
        np.testing.assert_allclose(total, 1, atol=1e-5)
        assert axis.starts[0] == 0
        assert axis.starts[-1] + axis.size == n


def test_windows_lie_and_are_cut_as_published() -> None:
    axis = axis_windows(72, 32, 0.5, "half_cut")
    assert axis.starts.tolist() == [0, 16, 32, 40]
    kept = [(s + np.flatnonzero(w)[[0, -1]]).tolist() for s, w in zip(axis.starts, axis.weights)]
    # overlaps of 16, 16 and 24 voxels
    assert kept == [[0, 23], [24, 39], [40, 51], [52, 71]]
    odd = axis_windows(9, 6, 0.5, "half_cut")
    assert odd.starts.tolist() == [0, 3]
    # of an overlap of 3 the smaller half is cut below, the larger above
    assert [np.flatnonzero(w).tolist() for w in odd.weights] == [[0, 1, 2, 3], [1, 2, 3, 4, 5]]
    assert axis_windows(100, 30, 0.3, "cosine").starts.tolist() == [0, 21, 42, 63, 70]


def test_windows_that_give_nothing_are_left_out() -> None:
    windows = lattice((40, 40, 40), (20, 20, 20), (0.5, 0.5, 0.5), "half_cut")
    assert windows.touching((slice(0, 15), slice(0, 40), slice(14, 16))) == [
        (0, j, k) for j in range(3) for k in (0, 1)
    ]


@pytest.mark.parametrize("blend", ["cosine", "half_cut"])
def test_identity_gives_the_image_back(blend: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 65536, SHAPE).astype(np.uint16)
    same = Adapter(None, None, None)
    windows = windows_for(None, SHAPE, (8, 32, 32), (0.5, 0.3, 0.6), blend, (0, 0, 0))
    np.testing.assert_array_equal(same.region(image.__getitem__, windows, whole(SHAPE)), image)


@pytest.mark.parametrize("kind", ["cyclegan3d", "cyclegan2d"])
def test_pieces_are_those_of_the_whole(kind: str, rng: np.random.Generator) -> None:
    """Bit for bit, wherever a job's blocks end."""
    image = simulated(rng, nuclei(rng, SHAPE, 20))
    found = adapter(replace(small(kind), width=4, blocks=1))
    windows = windows_for(found.generator, SHAPE, (8, 24, 24), (0.5, 0.5, 0.5), "cosine", (0, 0, 0))
    at_once = found.region(image.__getitem__, windows, whole(SHAPE))
    assert at_once.std() > 0
    for cut in ((4, 33, 20), (8, 64, 40)):
        pieces = np.zeros_like(at_once)
        for corner in np.ndindex(*(-(-n // c) for n, c in zip(SHAPE, cut))):
            region = tuple(slice(k * c, min((k + 1) * c, n)) for k, c, n in zip(corner, cut, SHAPE))
            pieces[region] = found.region(image.__getitem__, windows, region)
        np.testing.assert_array_equal(pieces, at_once)


def test_one_window_is_the_whole_image(rng: np.random.Generator) -> None:
    image = simulated(rng, nuclei(rng, SHAPE, 20))
    found = adapter()
    windows = windows_for(found.generator, SHAPE, SHAPE, (0.5, 0.5, 0.5), "cosine", (0, 0, 0))
    direct = found._made(image, slice(0, 8), 8)
    wanted = ((direct + 1) * 150).round().clamp(0, 65535).numpy().astype(np.uint16)
    np.testing.assert_array_equal(found.region(image.__getitem__, windows, whole(SHAPE)), wanted)


def test_halo_of_the_reach_makes_windows_invisible(rng: np.random.Generator) -> None:
    """G5 through the windows: what they overlap by, or how they blend, is then not seen."""
    image = simulated(rng, nuclei(rng, SHAPE, 20))
    found = adapter()
    reach = found.generator.architecture.reach
    at_once = found.region(image.__getitem__, lattice(SHAPE, SHAPE, (0, 0, 0), "half_cut"), whole(SHAPE))
    for overlap in (0.1, 0.5):
        for halo, most in ((reach, 1), ((0, 0, 0), None)):
            # of 27 voxels, which is no multiple of anything
            windows = windows_for(found.generator, SHAPE, (8, 27, 27), (0, overlap, overlap), "cosine", halo)
            tiled = found.region(image.__getitem__, windows, whole(SHAPE)).astype(int)
            error = np.abs(tiled - at_once).max()
            print(overlap, halo, error)
            # rounding to grey values
            assert (error <= 1) == (most is not None)


def test_slices_take_no_overlap_along_z_but_their_neighbours() -> None:
    found = adapter(replace(small("cyclegan2d"), width=4, blocks=1))
    windows = windows_for(found.generator, SHAPE, (4, 32, 32), (0.5, 0.5, 0.5), "cosine", (0, 0, 0))
    assert windows.axes[0].starts.tolist() == [0, 4]
    assert windows.halo == (2, 0, 0)
    assert windows.seen((1, 0, 0))[0][0] == slice(2, 8)


def test_statistics_of_the_whole_volume_make_windows_alike(rng: np.random.Generator) -> None:
    """Half of the image is empty: with statistics of its own an empty window is made to look like a full one."""
    shape = (8, 48, 96)
    labels = nuclei(rng, shape, 40)
    labels[..., 48:] = 0
    image = simulated(rng, labels)
    found = adapter(replace(TINY, norm="instance"))
    windows = lattice(shape, (8, 48, 48), (0, 0, 0), "half_cut")
    once = lattice(shape, shape, (0, 0, 0), "half_cut")
    errors = {}
    for statistics in ("own", "frozen"):
        if statistics == "frozen":
            found.freeze(found.measure(image.__getitem__, once))
        made = [found.region(image.__getitem__, w, whole(shape)).astype(float) for w in (windows, once)]
        inner = np.abs(made[0] - made[1])[:, 12:36, 64:84]
        errors[statistics] = float(inner.mean() / made[1].std())
    print(errors)
    assert errors["frozen"] < 0.1 * errors["own"]
    # measured in windows, and kept, they are numbers of the right size
    sums = found.measure(image.__getitem__, windows)
    assert sums.shape == (7, 3, 16)
    assert (sums[:, 0, 0] > 0).all()


# alignment


def test_shift_is_found_through_another_look(rng: np.random.Generator) -> None:
    labels = nuclei(rng, (16, 80, 64), 20)
    before = simulated(rng, labels)
    for shift in ((0, 0, 0), (0, 2.5, -1.5)):
        moved = ndimage.shift((labels > 0).astype(float), shift, order=1)
        after = rng.poisson(20 + 200 * ndimage.gaussian_filter(moved, (1, 1.5, 1.5))).astype(np.uint16)
        found = block_shifts(before, after)
        assert found.shape == (1, 3)
        np.testing.assert_allclose(found[0], shift, atol=0.25)


def test_blocks_without_contrast_say_nothing(rng: np.random.Generator) -> None:
    empty = np.full((32, 128, 128), 100, np.uint16)
    assert block_shifts(empty, empty).shape == (0, 3)
    assert block_shifts(np.zeros((2, 9, 9)), np.ones((2, 9, 9))).shape == (0, 3)
    assert Alignment.of(np.zeros((0, 3))) == Alignment(0.0, 0.0, 0)


def test_image_whose_structures_moved_is_rejected() -> None:
    limits = Limits(0.5, 1.0)
    shifts = np.zeros((100, 3))
    assert limits.why_rejected(Alignment.of(shifts)) is None
    shifts[:10, 1] = 3
    assert "by 3.00 in 95 %" in limits.why_rejected(Alignment.of(shifts))
    shifts[:, 1] = 0.6
    assert "moved by 0.60 voxels in the median of 100 blocks" in limits.why_rejected(Alignment.of(shifts))
