"""A compressed volume as an array: the same as the decoded array under every index."""

from __future__ import annotations

import threading

import dask.array
import numpy as np
import pytest

from gigascope.compression.decoding.indexing import Selection, boxes, pieces
from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.errors import ShapeError

from .compressed import write_file


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> GaussianVolume:
    path = tmp_path_factory.mktemp("compressed") / "random.gmix"
    return GaussianVolume(write_file(path, np.random.default_rng(7)))


@pytest.fixture(scope="module")
def decoded(volume: GaussianVolume) -> np.ndarray:
    return np.asarray(volume)


def random_key(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[object, ...]:
    key: list[object] = []
    for n in shape:
        kind = rng.integers(4)
        if kind == 0:
            key.append(int(rng.integers(-n, n)))
        elif kind == 1:
            key.append(slice(None))
        else:
            a, b = (int(v) for v in rng.integers(-n - 3, n + 4, 2))
            step = int(rng.choice([-30, -9, -3, -1, 1, 2, 5, 8, 9, 40]))
            key.append(slice(a, b, step))
    cut = int(rng.integers(0, len(shape) + 1))
    return tuple(key[:cut]) + ((...,) if rng.integers(2) else ())


def test_every_index_picks_what_numpy_picks(
    rng: np.random.Generator, volume: GaussianVolume, decoded: np.ndarray
) -> None:
    assert (volume.shape, volume.dtype, volume.ndim) == (decoded.shape, decoded.dtype, decoded.ndim)
    for _ in range(60):
        key = random_key(rng, volume.shape)
        found, expected = volume[key], decoded[key]
        assert np.array_equal(found, expected), key
        assert found.dtype == expected.dtype
    assert volume[1, 2, 39, 49, 69] == decoded[-1, -1, -1, -1, -1]
    assert np.array_equal(volume[np.int64(1), ..., np.uint8(3)], decoded[1, ..., 3])
    assert volume[0:0].shape == (0, 3, 40, 50, 70)


@pytest.mark.parametrize(
    "key", [(2,), (0, 0, 0, 0, 0, 0), (..., 0, ...), ([0, 1],), (None,), (True,), ("z",), (0, 0, 40), (0, 0, -41)]
)
def test_other_indices_are_refused(volume: GaussianVolume, key: tuple[object, ...]) -> None:
    with pytest.raises(IndexError):
        volume[key]


def test_numpy_and_dask_take_it_for_an_array(volume: GaussianVolume, decoded: np.ndarray) -> None:
    assert np.asarray(volume, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.asarray(volume, copy=False)
    lazy = volume.dask()
    assert lazy.chunksize == volume.chunks == (1, 1, 32, 48, 64)
    assert (lazy.shape, lazy.dtype) == (volume.shape, volume.dtype)
    assert np.array_equal(lazy.compute(), decoded)
    assert np.array_equal(lazy[1, 0, ::-2, 5, 60:].compute(), decoded[1, 0, ::-2, 5, 60:])
    own = dask.array.from_array(volume, chunks=volume.chunks)
    assert int(own.max().compute()) == int(decoded.max())


def test_threads_share_it(volume: GaussianVolume, decoded: np.ndarray) -> None:
    wrong: list[int] = []

    def read(seed: int) -> None:
        keys = np.random.default_rng(seed)
        for _ in range(5):
            key = random_key(keys, volume.shape)
            if not np.array_equal(volume[key], decoded[key]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_levels_are_volumes_of_their_own(volume: GaussianVolume) -> None:
    coarse = volume.at_level((2, 4, 1))
    assert coarse.shape == (2, 3, 20, 13, 70)
    assert coarse.voxel_size_um == (1.0, 0.8, 0.2)
    assert coarse.chunks == (1, 1, 16, 12, 64)
    twice = volume.at_level(2).at_level((1, 2, 1))
    assert twice.shape == volume.at_level((2, 4, 2)).shape
    assert np.array_equal(twice[0, 1], volume.at_level((2, 4, 2))[0, 1])
    assert np.array_equal(coarse[1, 2, 5:9, ::3], np.asarray(coarse)[1, 2, 5:9, ::3])


def test_prefix_keeps_the_most_energetic_and_gets_better(volume: GaussianVolume, decoded: np.ndarray) -> None:
    counts, errors = [], []
    for fraction in (0.0, 0.1, 0.3, 0.6, 1.0):
        part = volume.prefix(fraction)
        counts.append(len(part.gaussians()))
        errors.append(float(np.mean((np.asarray(part[0, 0]).astype(float) - decoded[0, 0]) ** 2)))
    assert counts == pytest.approx([0, 15, 45, 90, 150], abs=1)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0
    kept = volume.prefix(0.2).gaussians()
    everything = volume.gaussians()
    least = (kept.amplitudes**2 * kept.energies()).min()
    assert int(((everything.amplitudes**2 * everything.energies()) >= least).sum()) == len(kept)
    with pytest.raises(ShapeError):
        volume.prefix(1.5)


def test_gaussians_of_a_region_are_those_that_matter_there(volume: GaussianVolume) -> None:
    from gigascope.kernels import gaussians

    roi = (slice(3, 20), slice(10, 30), slice(40, 60))
    found = volume.gaussians(roi, time=1, channel=2)
    everything = volume.gaussians(time=1, channel=2)
    assert 0 < len(found) < len(everything)
    fields = [
        gaussians.evaluate(*m.tensors, m.cuts(3.5, 1e-3), (17, 20, 20), (3.0, 10.0, 40.0)) for m in (found, everything)
    ]
    assert np.array_equal(fields[0].numpy(), fields[1].numpy())


def test_points_need_full_resolution_and_an_existing_frame(volume: GaussianVolume) -> None:
    assert volume.points(np.zeros((0, 3))).shape == (0,)
    assert volume.points([[1.5, 2.25, 3.0]], time=1, channel=1).shape == (1,)
    with pytest.raises(ShapeError, match="full resolution"):
        volume.at_level(2).points(np.zeros((1, 3)))
    with pytest.raises(ShapeError, match="channel 3 of 3"):
        volume.points(np.zeros((1, 3)), channel=3)


def test_pieces_cover_a_range_once_within_blocks(rng: np.random.Generator) -> None:
    for _ in range(200):
        n, block = int(rng.integers(1, 200)), int(rng.integers(1, 40))
        places = range(*slice(int(rng.integers(0, n)), None, int(rng.integers(1, 14))).indices(n))
        got = []
        for piece in pieces(places, block):
            inside = list(range(piece.stretch.start, piece.stretch.stop))[piece.source]
            assert inside == list(places[piece.target])
            assert piece.stretch.start // block == (piece.stretch.stop - 1) // block
            got += inside
        assert got == list(places)


def test_boxes_tile_a_region() -> None:
    count = np.zeros((20, 30, 40), int)
    for box in boxes((slice(3, 19), slice(0, 30), slice(7, 8)), (8, 16, 16)):
        count[box] += 1
    expected = np.zeros_like(count)
    expected[3:19, :, 7:8] = 1
    assert np.array_equal(count, expected)


def test_selection_of_nothing_is_everything() -> None:
    assert Selection.of((), (4, 5)).counts == (4, 5)
