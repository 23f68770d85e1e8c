"""The stage that registers a stack of one camera: as the science has it, in the raw layout, in whatever order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gigascope.config.dataset import TopographyDataset, load_dataset, parse_dataset
from gigascope.errors import UserError
from gigascope.store.checksum import verify
from gigascope.store.create import create_store
from gigascope.store.open import StoreReader, open_store
from gigascope.topography.capture.bayer import demosaic
from gigascope.topography.focus.order import focus_order
from gigascope.topography.focus.registered import lay_out
from gigascope.topography.focus.registration import apply_registration, register_stack
from gigascope.topography.plan import estimate_register, read_header

from ..stage_runs import chance, write_dataset
from .chain import RUNS, TINY
from .test_focus_registration import moved_stack, true_matrices

N_Z = 6
PICTURES: dict[str, Any] = {
    "pipeline": "topography",
    "name": "pictures",
    "device": "cpu",
    "inputs": {"images": "pictures"},
    "ingest": {"chunk_px": 64, "dz_mm": 0.1},
}


@pytest.fixture(scope="module")
def stack() -> NDArray[np.uint8]:
    """(6, 240, 320, 3) slices of a tilted plane that breathe, drift and get brighter."""
    rng = np.random.default_rng(7)
    grey = moved_stack(rng, true_matrices(rng, N_Z), 0.8)
    return np.stack((grey, 255 - grey // 2, grey // 3), axis=-1)


def prepared(folder: Path, stack: NDArray, *changes: dict[str, Any], order: list[int] | None = None) -> Path:
    """Dataset of a stack as pictures, up to its raw store; picture n shows slice order[n]."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for n, k in enumerate(order or range(len(stack))):
        Image.fromarray(stack[k]).save(pictures / f"s{n}.png", compress_level=1)
    config = write_dataset(folder, PICTURES, {"inputs": {"images": str(pictures)}}, *changes)
    RUNS.run(config, folder, "ingest")
    return config


@pytest.fixture(scope="module")
def done(stack: NDArray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of the stack, registered."""
    folder = tmp_path_factory.mktemp("done")
    RUNS.run(prepared(folder, stack), folder, "register")
    return folder


def registered(folder: Path) -> StoreReader:
    return open_store(folder / "registered.zarr")


def test_store_holds_what_registration_gives(stack: NDArray, done: Path) -> None:
    store, raw = registered(done), open_store(done / "raw.zarr")
    found = register_stack(stack)
    expected, valid = apply_registration(stack, found)
    assert not found.identity
    np.testing.assert_array_equal(store.member("rgb")[0, 0], np.moveaxis(expected, -1, 1))
    np.testing.assert_array_equal(store.member("green")[0, 0], expected[..., 1])
    np.testing.assert_array_equal(store.member("valid")[:] > 0, valid)
    for name in ("green", "rgb"):
        mine, theirs = store.member(name), raw.member(name)
        assert (mine.shape, mine.chunks, mine.shards, mine.dtype) == (
            theirs.shape,
            theirs.chunks,
            theirs.shards,
            theirs.dtype,
        )
        assert mine.metadata.dimension_names == theirs.metadata.dimension_names  # type: ignore[union-attr]
    for name in ("z_stage_mm", "view_mask"):
        np.testing.assert_array_equal(store.member(name)[:], raw.member(name)[:])
    same = {key: value for key, value in raw.attrs.items() if key not in ("flat", "notes")}
    assert {key: store.attrs[key] for key in same} == same
    assert store.provenance["warnings"] == []
    assert verify(store.path) == []
    facts = store.attrs["registration"]
    assert facts["resampled"]
    assert not facts["reordered"]
    assert facts["inside_share"] == pytest.approx(valid.mean())
    slices = store.table("slices")
    np.testing.assert_array_equal(slices["taken_as"], range(N_Z))
    np.testing.assert_allclose(slices["scale"], found.scale)
    np.testing.assert_allclose(slices["gain_1"], found.gain[:, 1])


def test_order_of_files_that_is_not_that_of_focus_is_found_and_said(stack: NDArray, done: Path, tmp_path: Path) -> None:
    order = [2, 0, 4, 1, 5, 3]
    config = prepared(tmp_path, stack, order=order)
    RUNS.run(config, tmp_path, "register")
    store = registered(tmp_path)
    (warning,) = store.provenance["warnings"]
    assert "the files' order is not the order of focus" in warning
    assert f"(order {', '.join(f's{k}.png' for k in focus_order(stack[order]).order)})" in warning
    places = store.table("slices")["taken_as"]
    np.testing.assert_array_equal(places, focus_order(stack[order]).order)
    shown = np.array(order)[places].tolist()
    assert shown in (list(range(N_Z)), list(range(N_Z))[::-1])
    assert (np.diff(store.member("z_stage_mm")[0, 0]) > 0).all()
    # the keys by which it is left as it is
    config = write_dataset(
        tmp_path, PICTURES, {"inputs": {"images": str(tmp_path / "pictures")}, "register": {"order": "as_is"}}
    )
    (tmp_path / "as_is").mkdir()
    RUNS.run(config, tmp_path / "as_is", "register", tmp_path)
    kept = registered(tmp_path / "as_is")
    assert not kept.attrs["registration"]["reordered"]
    assert kept.digest != store.digest


def test_model_has_an_effect(stack: NDArray, done: Path, tmp_path: Path) -> None:
    digests = {registered(done).digest}
    for model in ("shift", "scale"):
        config = write_dataset(tmp_path / model, PICTURES, {"register": {"model": model}})
        RUNS.run(config, tmp_path / model, "register", done)
        digests.add(registered(tmp_path / model).digest)
    assert len(digests) == 3


def test_mosaic_becomes_colour(stack: NDArray, tmp_path: Path) -> None:
    grey = stack[..., 0]
    config = prepared(tmp_path, grey, {"ingest": {"bayer": "RGGB"}})
    RUNS.run(config, tmp_path, "register")
    store = registered(tmp_path)
    assert (store.attrs["bayer"], store.attrs["colours"]) == (None, 3)
    colour = np.stack([np.clip(np.rint(demosaic(s, "RGGB")), 0, 255) for s in grey]).astype(np.uint8)
    expected, _ = apply_registration(colour, register_stack(colour))
    np.testing.assert_array_equal(store.member("rgb")[0, 0], np.moveaxis(expected, -1, 1))
    assert store.member("green").shape == (1, 1, N_Z, 240, 320)


def test_grey_pictures_of_16_bits_stay_grey(stack: NDArray, tmp_path: Path) -> None:
    deep = stack[..., 0].astype(np.uint16) * 200
    config = prepared(tmp_path, deep)
    RUNS.run(config, tmp_path, "register")
    expected, _ = apply_registration(deep, register_stack(deep))
    store = registered(tmp_path)
    np.testing.assert_array_equal(store.member("green")[0, 0], expected)
    with pytest.raises(UserError, match="has no rgb"):
        store.member("rgb")


def test_slices_of_something_else_are_warned_of(rng: np.random.Generator, tmp_path: Path) -> None:
    config = prepared(tmp_path, rng.integers(0, 255, (4, 200, 200), dtype=np.uint8))
    RUNS.run(config, tmp_path, "register")
    warnings = registered(tmp_path).provenance["warnings"]
    assert any("look like none of their neighbours" in w for w in warnings)


@pytest.mark.parametrize(("kind", "low", "high"), [("black", 0, 3), ("white", 255, 256), ("blank", 90, 91)])
def test_slice_that_shows_nothing_is_named_and_left_out(
    stack: NDArray, rng: np.random.Generator, tmp_path: Path, kind: str, low: int, high: int
) -> None:
    spoilt = stack.copy()
    spoilt[3] = rng.integers(low, high, stack.shape[1:], dtype=np.uint16).astype(np.uint8)
    config = prepared(tmp_path, spoilt)
    raw = open_store(tmp_path / "raw.zarr")
    assert any(f"1 of 6 slices show nothing: s3.png ({kind})" in w for w in raw.provenance["warnings"])
    assert raw.attrs["lost_slices"] == [[0, 0, 3, kind]]
    RUNS.run(config, tmp_path, "register")
    store = registered(tmp_path)
    assert store.provenance["warnings"] == ["1 of 6 slices show nothing and were left out: s3.png."]
    others = np.delete(stack, 3, axis=0)
    expected, valid = apply_registration(others, register_stack(others))
    np.testing.assert_array_equal(store.member("rgb")[0, 0], np.moveaxis(expected, -1, 1))
    np.testing.assert_array_equal(store.member("valid")[:] > 0, valid)
    np.testing.assert_array_equal(store.table("slices")["taken_as"], [0, 1, 2, 4, 5])
    np.testing.assert_allclose(store.member("z_stage_mm")[0, 0], [0, 0.1, 0.2, 0.4, 0.5])


def test_too_few_slices_that_show_anything_are_refused(stack: NDArray, tmp_path: Path) -> None:
    spoilt = stack.copy()
    spoilt[1:5] = 0
    prepared(tmp_path, spoilt)
    with pytest.raises(
        UserError, match=r"only 2 of its 6 slices show anything, not s1\.png, s2\.png, s3\.png, s4\.png"
    ):
        lay_out(create_store(tmp_path / "x.zarr"), open_store(tmp_path / "raw.zarr"))


def test_slice_given_twice_is_named(stack: NDArray, tmp_path: Path) -> None:
    twice = stack.copy()
    twice[4] = twice[2]
    prepared(tmp_path, twice)
    (warning,) = open_store(tmp_path / "raw.zarr").provenance["warnings"]
    assert "1 of 6 slices have the same pixels as another one: s4.png as s2.png." in warning


@pytest.mark.slow
def test_killed_registration_begins_again_and_ends_as_an_undisturbed_one(done: Path, tmp_path: Path) -> None:
    words, luck, scratch = (done / "data.yaml", tmp_path, "register", done), chance(), tmp_path / "scratch"
    process = RUNS.start(*words)
    process.wait_until(lambda: bool(list(scratch.glob("*/*/outputs"))))
    time.sleep(luck.uniform(0, 4))
    code = process.kill()
    print("exit code", code)
    if code != 0:
        if (tmp_path / "registered.zarr").exists():
            # killed after its commit and before its end: what is there is whole
            RUNS.assert_same(tmp_path, done, "register")
        RUNS.finish(*words)
    RUNS.assert_same(tmp_path, done, "register")
    assert not [path for path in scratch.rglob("*") if path.is_file()]


def test_stacks_of_a_camera_array_are_not_registered(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 8 views; only the stack of one camera is registered"):
        lay_out(create_store(tmp_path / "x.zarr"), open_store(tiny / "raw.zarr"))


def test_stage_is_part_of_the_run_where_it_has_an_effect() -> None:
    def parse(values: dict[str, Any]) -> TopographyDataset:
        found = parse_dataset(values)
        assert isinstance(found, TopographyDataset)
        return found

    assert parse(PICTURES).runs("register")
    assert not parse({**PICTURES, "register": {"enabled": False}}).runs("register")
    assert not parse(TINY).runs("register")
    with pytest.raises(UserError, match=r"register has an effect on inputs\.images only"):
        parse({**TINY, "register": {"model": "shift"}})
    with pytest.raises(UserError, match="have no effect where enabled is false"):
        parse({**PICTURES, "register": {"enabled": False, "model": "shift"}})
    assert set(TopographyDataset.model_fields["register"].annotation.model_fields) == {"enabled", "order", "model"}  # type: ignore[union-attr]


def test_estimate_holds_one_slice_and_a_band(stack: NDArray, done: Path) -> None:
    config = write_dataset(done / "estimate", PICTURES, {"inputs": {"images": str(done / "pictures")}})
    dataset = load_dataset(config)
    assert isinstance(dataset, TopographyDataset)
    header = read_header(dataset)
    needs = estimate_register(dataset, header)
    stored = sum(p.stat().st_size for p in (done / "registered.zarr").rglob("*") if p.is_file())
    assert stored <= needs.disk
    assert sum(p.is_file() for p in (done / "registered.zarr").rglob("*")) <= needs.files
