"""Batches out of the raw store: the right pixels, the same in every run, within their memory, refused where damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError, UserError
from gigascope.topography.calibration.field import evaluate
from gigascope.topography.capture.bayer import green_offset, pack_green, unpack_green
from gigascope.topography.geometry.poses import foot, to_mosaic
from gigascope.topography.network.batch import Batch
from gigascope.topography.streaming.loader import Loader, Loading
from gigascope.topography.streaming.ring import Ring
from gigascope.topography.streaming.sampler import Sampler
from gigascope.topography.streaming.unpack import join_chunks, unpack_square
from gigascope.topography.streaming.unpack import unpack_green as unpack_tensor

from .stores import raw_store

SMALL = Loading(patch=96, max_views=4, ahead=3, threads=4, budget_bytes=50_000_000)


@pytest.fixture
def raw(rng, tmp_path):
    return raw_store(rng, tmp_path)


def loader(raw, loading=SMALL, *, order="uniform", positions=2, seed=7, **more) -> Loader:
    sampler = Sampler(raw.scene, seed, positions, order=order, patch=loading.patch)
    return Loader(raw.store.path, raw.store.member("green"), sampler, loading, pattern=raw.pattern, **more)


def with_(**changes) -> Loading:
    return Loading(**{**SMALL.__dict__, **changes})


def assert_same(a: Batch, b: Batch) -> None:
    for name in Batch.__dataclass_fields__:
        first, second = getattr(a, name), getattr(b, name)
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second, name


def assert_right_pixels(raw, loading, steps=3) -> None:
    with loader(raw, loading) as batches:
        for step in range(steps):
            batch, crops = batches(step), batches.crops(step)
            for stack, view, (r, c) in zip(batch.stacks, crops.view.tolist(), crops.corner.tolist()):
                whole = raw.stacks[divmod(view, raw.scene.grid[1])]
                crop = whole[:, r : r + loading.patch, c : c + loading.patch]
                if raw.pattern is None:
                    np.testing.assert_array_equal(stack.numpy(), crop)
                    continue
                expected = unpack_green(pack_green(crop, raw.pattern), raw.pattern)
                np.testing.assert_array_equal(stack.numpy(), expected)
                # the sites themselves, whatever is between them
                green = (np.indices(crop.shape[1:]).sum(axis=0) + green_offset(raw.pattern)) % 2 == 0
                np.testing.assert_array_equal(stack.numpy()[:, green], crop[:, green])


@pytest.mark.parametrize("snap", [None, 2])
@pytest.mark.parametrize("pattern", ["GBRG", "RGGB", None])
def test_crops_are_slices_of_the_stacks(rng, tmp_path, pattern, snap):
    assert_right_pixels(raw_store(rng, tmp_path, pattern=pattern), with_(snap=snap))


@pytest.mark.parametrize("codec", ["plain", "blosc"])
def test_crops_of_views_that_are_no_whole_number_of_chunks(rng, tmp_path, codec):
    raw = raw_store(rng, tmp_path, size=(170, 202), codec=codec, dtype=np.uint16)
    assert_right_pixels(raw, with_(snap=2))
    assert_right_pixels(raw, SMALL)


def test_view_smaller_than_a_chunk_is_read_whole(rng, tmp_path):
    assert_right_pixels(raw_store(rng, tmp_path, size=(100, 104), chunk=192), SMALL)


def test_numbers_of_a_batch_are_those_of_its_views(raw):
    scene = raw.scene
    with loader(raw) as batches:
        for step in range(3):
            batch, crops = batches(step), batches.crops(step)
            assert batch.n_groups == 2
            assert (torch.bincount(batch.group) >= 2).all()
            for k, (view, corner) in enumerate(zip(crops.view.tolist(), crops.corner)):
                point = crops.point[batch.group[k]]
                pixels = np.moveaxis(np.indices((96, 96)), 0, -1) + corner
                at = to_mosaic(scene.poses, view, pixels) - point
                np.testing.assert_allclose(np.moveaxis(batch.coords[k].numpy(), 0, -1), at, atol=1e-4)
                np.testing.assert_allclose(batch.foot[k], foot(scene.poses)[view] - point, atol=1e-4)
                datum = evaluate(scene.datum_mm[view], pixels, scene.poses.size)
                # both relative to one origin: height is their difference
                found = batch.datum_mm[k].numpy()[None] - batch.z_mm[k].numpy()[:, None, None]
                np.testing.assert_allclose(found, datum[None] - scene.z_mm[view][:, None, None], atol=1e-6)
                assert batch.nominal[k] == np.float32(scene.nominal[view])
                assert batch.distance_mm[k] == np.float32(scene.distance_mm[view])
            assert batch.dz_mm == scene.dz_mm
            assert batch.weight.eq(1).all()


def test_point_is_in_all_its_crops_and_in_their_middle_where_there_is_room(raw):
    n_middle = 0
    with loader(raw, with_(snap=2)) as batches:
        for step in range(12):
            batch, crops = batches(step), batches.crops(step)
            # coordinates count from the point: some pixel of each crop is nearer than a pixel's diagonal
            assert torch.linalg.norm(batch.coords, dim=1).amin(dim=(1, 2)).max() < 1.5
            room = ((crops.corner > 0) & (crops.corner < 96)).all(axis=1)
            n_middle += int(room.sum())
            for k in np.flatnonzero(room):
                assert batch.coords[int(k), :, 47:49, 47:49].mean(dim=(1, 2)).abs().max() < 2.0
    assert n_middle > 0


@pytest.mark.parametrize("order", ["uniform", "disk"])
def test_training_resumed_at_any_step_gets_the_same_batches(raw, order):
    with loader(raw, order=order) as batches:
        through = [batches(step) for step in range(7)]
    for start in (0, 3, 6):
        with loader(raw, with_(ahead=2, threads=1), order=order, last=7) as batches:
            again = list(batches.batches(start))
        assert len(again) == 7 - start
        for a, b in zip(through[start:], again):
            assert_same(a, b)
    with loader(raw, order=order) as batches:
        for step in (5, 1, 2, 6):
            assert_same(batches(step), through[step])


@pytest.mark.parametrize("order", ["uniform", "disk"])
def test_two_processes_load_the_batch_of_one(raw, order):
    with loader(raw, positions=4, order=order) as whole:
        parts = [loader(raw, positions=4, order=order, rank=rank, ranks=2) for rank in range(2)]
        for step in range(3):
            batch = whole(step)
            for rank, part in enumerate(parts):
                assert_same(part(step), batch.part(2 * rank, 2 * rank + 2))
        for part in parts:
            part.close()


@pytest.mark.parametrize(("snap", "most"), [(None, 1.05), (2, 1.85)])
def test_bytes_read_over_bytes_used(rng, tmp_path, snap, most):
    """D3, at the spec's ratio of patch to chunk."""
    raw = raw_store(rng, tmp_path, size=(384, 384), scan=(2, 2), n_z=9)
    with loader(raw, with_(snap=snap)) as batches:
        for step in range(20):
            batches(step)
        stats = batches.stats
    print(stats.summary())
    assert 1.0 <= stats.amplification <= most
    assert stats.amplification > (1.2 if snap else 0.99)


@pytest.mark.parametrize("batches_that_fit", [1.0, 2.5])
def test_queue_stays_within_its_memory(raw, batches_that_fit):
    with loader(raw, with_(ahead=8)) as batches:
        largest = max(len(batches.crops(step).view) for step in range(12)) * 9 * 5 * 32 * 16
        expected = [batches(step) for step in range(12)]
    budget = int(largest * batches_that_fit) + 64
    with loader(raw, with_(ahead=8, budget_bytes=budget)) as batches:
        for step, batch in enumerate(expected):
            assert_same(batches(step), batch)
            assert batches._ring.used <= budget
        assert batches._ring.buffer.numel() <= budget
        assert 0 < batches.stats.peak_bytes <= budget


def test_batch_that_is_larger_than_the_memory_is_refused(raw):
    with loader(raw, with_(budget_bytes=10_000)) as batches, pytest.raises(UserError, match=r"a batch takes .* MB"):
        batches(0)


def test_ring_never_overlaps(rng):
    ring, held, mark = Ring(4096), [], 0
    for _ in range(3000):
        block = ring.take(int(rng.integers(1, 1500))) if rng.random() < 0.6 else None
        if block is not None:
            mark = mark % 255 + 1
            block.fill_(mark)
            held.append((block, mark))
        elif held:
            ring.give_back()
            oldest, value = held.pop(0)
            assert (oldest == value).all()
        assert ring.used <= 4096
    assert ring.peak <= 4096
    while held:
        ring.give_back()
        held.pop(0)
    assert ring.take(4096) is not None
    assert ring.take(1) is None


def test_statistics_add_up(raw):
    with loader(raw, last=4) as batches:
        views = sum(batch.n_views for batch in batches.batches())
        stats = batches.stats
    n = views * 9 * (5 * 32 * 16 + 4)
    assert sum(b.bytes_read for b in stats.batches) == n
    assert sum(b.bytes_used for b in stats.batches) == views * 96 * 48 * 5
    metrics = stats.metrics()
    assert metrics["loader_read_MB"] == pytest.approx(n / 1e6)
    assert 0 <= metrics["loader_wait_share"] <= 1
    assert metrics["loader_read_MB_s"] > 0
    columns, units = stats.table()
    assert columns["step"].tolist() == [0, 1, 2, 3]
    assert set(units) < set(columns)
    assert "4 batches" in stats.summary()
    assert "MB read" in stats.batches[0].summary()


def cut(path, n):
    path.write_bytes(path.read_bytes()[:n])


def flip(path, n):
    data = bytearray(path.read_bytes())
    data[n] ^= 4
    path.write_bytes(data)


DAMAGE = {
    "cut off": lambda path: cut(path, 10_000),
    "empty": lambda path: cut(path, 0),
    "a bit": lambda path: flip(path, path.stat().st_size // 2),
    "index": lambda path: flip(path, path.stat().st_size - 40),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("codec", ["plain", "blosc"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_shard_is_refused_by_name(rng, tmp_path, codec, damage):
    raw = raw_store(rng, tmp_path, codec=codec)
    # opened before: Zarr would read a missing shard as zeros
    batches = loader(raw, last=200)
    view = 3
    DAMAGE[damage](raw.shard(view))
    with batches, pytest.raises(UserError) as error:
        list(batches.batches())
    assert "/green/c/0/3/0/0/0" in str(error.value)
    assert "again" in str(error.value)


def test_views_that_were_not_taken_are_never_read(rng, tmp_path):
    raw = raw_store(rng, tmp_path, missing=(2,))
    raw.shard(2).unlink()
    array = raw.store.path
    import zarr

    green = zarr.open_group(array, mode="r")["green"]
    sampler = Sampler(raw.scene, 1, 2, patch=96)
    with Loader(array, green, sampler, SMALL, pattern="GBRG") as batches:
        for step in range(20):
            batches(step)
            assert 2 not in batches.crops(step).view


def test_what_does_not_go_together_is_refused(rng, raw):
    with pytest.raises(UserError, match="does not fit into views of 192"):
        loader(raw, with_(patch=256))
    with pytest.raises(ShapeError, match="even patch"):
        loader(raw, with_(snap=3))
    sampler = Sampler(raw.scene, 1)
    with pytest.raises(ShapeError, match="expected an array of"):
        Loader(raw.store.path, raw.store.member("bayer"), sampler, SMALL, pattern="GBRG")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("offset", [0, 1])
def test_unpacking_on_the_device_is_that_on_arrays(rng, dtype, offset):
    top = torch.iinfo(dtype).max
    packed = rng.integers(0, top, (7, 10, 6), dtype=np.uint8 if top == 255 else np.uint16, endpoint=True)
    found = unpack_tensor(torch.from_numpy(packed), offset)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.numpy(), unpack_green(packed, "GBRG" if offset == 0 else "RGGB"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("offset", [0, 1])
def test_unpacking_in_one_pass_is_joining_and_unpacking(rng, dtype, offset):
    chunks = torch.from_numpy(rng.integers(0, np.iinfo(dtype).max, (3, 2, 4, 6, 5), dtype=dtype, endpoint=True))
    for r, c in np.ndindex(9, 6):
        shape = (int(rng.integers(2, 19 - r)), int(rng.integers(2, 11 - c)))
        out = chunks.new_empty((4, shape[0], 2 * shape[1]))
        unpack_square(chunks, (r, c), offset, out)
        assert torch.equal(out, unpack_tensor(join_chunks(chunks, (r, c), shape), offset))
    with pytest.raises(ShapeError, match="not within"):
        unpack_square(chunks, (18, 0), offset, out)


def test_joined_chunks_are_the_square(rng):
    whole = torch.from_numpy(rng.integers(0, 255, (3, 12, 20), dtype=np.uint8))
    chunks = whole.reshape(3, 3, 4, 4, 5).permute(1, 3, 0, 2, 4)
    for r, c in rng.integers(0, 6, (20, 2)):
        assert torch.equal(join_chunks(chunks, (int(r), int(c)), (6, 9)), whole[:, r : r + 6, c : c + 9])
    with pytest.raises(ShapeError, match="not within"):
        join_chunks(chunks, (8, 0), (6, 9))
