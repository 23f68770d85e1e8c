"""The stage that puts views together: its store, parts, faults, keys, and the offsets that it refines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v05
import pytest
import zarr

from gigascope.config.topography import Mosaic
from gigascope.errors import UserError
from gigascope.runtime.run import Job, run_stage
from gigascope.store.checksum import verify
from gigascope.store.open import StoreReader, open_store
from gigascope.topography.mosaic.layout import channels, mosaic_plan, sensor_white, tile_work
from gigascope.topography.mosaic.tile import Blending, blend_tile

from ..stage_runs import finish, lines_in, start
from .mosaics import MadeViews, made_views

TILE = 128
STAGE = "topography.mosaic"


@pytest.fixture(scope="module")
def made() -> MadeViews:
    return made_views(np.random.default_rng(7))


@pytest.fixture(scope="module")
def stores(made: MadeViews, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made.write(tmp_path_factory.mktemp("views"))


def dataset(folder: Path, **keys: Any) -> Path:
    """A dataset YAML whose mosaic has these keys."""
    path = folder / "data.yaml"
    values = {"pipeline": "topography", "name": "data", "inputs": {"instrument": {"preset": "XS"}}, "device": "cpu"}
    path.write_text(json.dumps({**values, "mosaic": {"tile": TILE, **keys}}))
    return path


def run(folder: Path, stores: dict[str, Path], **keys: Any) -> StoreReader:
    folder.mkdir(exist_ok=True)
    run_stage(STAGE, dataset(folder, **keys), stores, {"mosaic": folder / "mosaic.zarr"})
    return open_store(folder / "mosaic.zarr")


@pytest.fixture(scope="module")
def store(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> StoreReader:
    return run(tmp_path_factory.mktemp("mosaic"), stores)


def test_store_holds_what_the_tiles_are(made: MadeViews, store: StoreReader) -> None:
    assert store.axes == ("c", "y", "x")
    assert store.attrs["channels"] == ["red", "green", "blue", "height", "height_std", "weight", "n_views"]
    assert [c["label"] for c in store.channels] == store.attrs["channels"]
    assert [c["color"] for c in store.channels[:4]] == ["FF0000", "00FF00", "0000FF", "FFFFFF"]
    assert store.window == (0.0, 255.0)
    pixel_um = 1.1 / 0.8448
    assert store.spacing == {"y": pytest.approx(pixel_um, rel=1e-3), "x": pytest.approx(pixel_um, rel=1e-3)}
    assert store.unit == store.attrs["height_unit"] == "micrometer"
    assert (store.attrs["white"], store.attrs["height_datum"]) == (255.0, "flat target")
    assert store.attrs["dz"] == pytest.approx(40, rel=0.02)
    views, found = made.views(), store.array()
    for region in mosaic_plan(views.shape, 3, TILE).regions():
        _, rows, cols = region
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        expected = blend_tile(views, (rows.start, cols.start), shape, Blending(feather=8.0))
        np.testing.assert_array_equal(found[region], expected)
    n_views = np.asarray(found[6])
    assert store.attrs["covered"] == pytest.approx((n_views > 0).mean())
    assert store.attrs["views_per_pixel"] == pytest.approx(n_views[n_views > 0].mean(), rel=1e-3)


def test_levels_are_the_mean_of_what_is_known(store: StoreReader) -> None:
    fine, coarse = store.array(0)[3], store.array(1)[3]
    padded = np.pad(fine, [(0, n % 2) for n in fine.shape], mode="edge")
    blocks = padded.reshape(coarse.shape[0], 2, coarse.shape[1], 2)
    known = np.isfinite(blocks).any(axis=(1, 3))
    assert (np.isfinite(coarse) == known).all()
    assert (~known).any()
    mean = np.nanmean(np.where(known[:, None, :, None], blocks, 0), axis=(1, 3))
    np.testing.assert_allclose(coarse[known], mean[known], rtol=1e-5)


def test_others_can_read_it(store: StoreReader) -> None:
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(store.path, mode="r"))
    assert [axis.name for axis in image.attributes.ome.multiscales[0].axes] == ["c", "y", "x"]
    assert verify(store.path) == []


@pytest.mark.parametrize("keys", [{}, {"refine": "tilt"}], ids=["plain", "refined"])
def test_result_does_not_depend_on_parts(
    tmp_path: Path, stores: dict[str, Path], store: StoreReader, keys: dict[str, Any]
) -> None:
    digests = {store.digest if not keys else run(tmp_path / "one", stores, **keys).digest}
    for parts in (3, 8):
        folder = tmp_path / str(parts)
        folder.mkdir()
        yaml = dataset(folder, parts=parts, **keys)

        def job(folder: Path = folder, yaml: Path = yaml, **what: Any) -> None:
            outputs = {"mosaic": folder / "mosaic.zarr"} if what["kind"] == "gather" else {}
            of = Job(records=folder / "records", **what)
            run_stage(STAGE, yaml, stores, outputs, scratch=folder / "scratch", job=of)

        job(kind="open")
        for round_ in range(3 if keys else 1):
            for part in reversed(range(parts)):
                job(kind="part", round=round_, part=part)
        job(kind="gather")
        digests.add(open_store(folder / "mosaic.zarr").digest)
    assert len(digests) == 1


@pytest.mark.slow
def test_killed_mosaic_goes_on_and_ends_as_an_undisturbed_one(
    tmp_path: Path, stores: dict[str, Path], rng: np.random.Generator
) -> None:
    whole = run(tmp_path / "whole", stores, tile=64, refine="offset")
    folder = tmp_path / "killed"
    folder.mkdir()
    yaml = dataset(folder, tile=64, refine="offset")
    words = ["run", STAGE, "--config", str(yaml), "--output", f"mosaic={folder / 'mosaic.zarr'}"]
    words += [word for name, path in stores.items() for word in ("--input", f"{name}={path}")]
    process, wanted = start(folder, *words), int(rng.integers(2, 60))
    process.wait_until(lambda: lines_in(folder, "items.jsonl") >= wanted)
    code = process.kill()
    print("killed after", lines_in(folder, "items.jsonl"), "items, exit code", code)
    finish(folder, *words)
    assert open_store(folder / "mosaic.zarr").digest == whole.digest


KEYS: list[tuple[str, Any, dict[str, Any]]] = [
    ("blend", "best", {}),
    ("sampling", "linear", {}),
    ("clear_dz", None, {}),
    ("feather_px", 30.0, {}),
    ("epsilon", 0.5, {"feather_px": 40.0}),
    ("gate", 1.0, {}),
    ("gate_floor_dz", 0.0, {"gate": 1.0}),
    ("band_px", 3.0, {"blend": "two_band"}),
    ("margin_px", 20, {"blend": "splat_uniform"}),
    ("refine", "offset", {}),
    ("tile", 64, {}),
]


@pytest.mark.parametrize(("key", "value", "beside"), KEYS, ids=[key for key, _, _ in KEYS])
def test_every_key_has_an_effect(
    tmp_path: Path,
    made: MadeViews,
    stores: dict[str, Path],
    store: StoreReader,
    key: str,
    value: Any,
    beside: dict[str, Any],
) -> None:
    if key == "epsilon":
        # it is added to confidences that differ
        rng, folder = np.random.default_rng(3), tmp_path / "views"
        folder.mkdir()
        confidence = rng.uniform(0, 1, made.confidence.shape).astype(np.float32)
        stores = replace(made, confidence=confidence).write(folder)
    plain = run(tmp_path / "0", stores, **beside) if beside else store
    other = run(tmp_path / "1", stores, **{**beside, key: value})
    if key == "tile":
        assert plain.array().shards != other.array().shards
        np.testing.assert_allclose(plain.array()[3], other.array()[3], atol=1e-3)
        return
    assert not np.array_equal(plain.array()[:], other.array()[:], equal_nan=True)


def test_every_key_is_in_this_table() -> None:
    assert {key for key, _, _ in KEYS} | {"parts"} == set(Mosaic.model_fields)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"band_px": 3.0}, "band_px has no effect on blend mean"),
        ({"margin_px": 3}, "margin_px has no effect on blend mean"),
        ({"blend": "splat_uniform", "gate": 2.0}, "gate has no effect on blend splat_uniform"),
        ({"blend": "average"}, "blend"),
    ],
)
def test_keys_without_effect_are_refused(tmp_path: Path, stores: dict[str, Path], keys: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        run(tmp_path, stores, **keys)


def test_absent_view_is_left_out(tmp_path: Path, made: MadeViews, store: StoreReader) -> None:
    (tmp_path / "views").mkdir()
    found = run(tmp_path / "mosaic", made.write(tmp_path / "views", missing=(0,)))
    assert found.attrs["n_views_present"] == 7
    assert found.attrs["covered"] < store.attrs["covered"]
    n_views = found.array()[6], store.array()[6]
    assert ((n_views[1] - n_views[0]) >= 0).mean() > 0.99
    assert np.isnan(found.array()[3][n_views[0] == 0]).all()


def test_views_of_another_acquisition_are_refused(tmp_path: Path, made: MadeViews, stores: dict[str, Path]) -> None:
    (tmp_path / "views").mkdir()
    cut = {name: getattr(made, name)[:, :, :100] for name in ("index", "confidence", "aif")}
    other = replace(made, **cut).write(tmp_path / "views")["views"]
    with pytest.raises(UserError, match=r"holds views of \(2, 4, 100, 192\), the calibration is of"):
        run(tmp_path / "out", {**stores, "views": other})
    moved = replace(made.calibration, poses=replace(made.calibration.poses, offset=np.array([0.0, 300.0])))
    (tmp_path / "moved").mkdir()
    wrong = replace(made, calibration=moved).write(tmp_path / "moved")["calibration"]
    with pytest.raises(UserError, match="views lie outside the mosaic"):
        run(tmp_path / "out", {**stores, "calibration": wrong})
    assert not (tmp_path / "out" / "mosaic.zarr").exists()


def test_refinement_brings_views_together(tmp_path: Path) -> None:
    """Surfaces of focus that are off by a constant and a slope are found again, but for what all views share."""
    rng = np.random.default_rng(11)
    bias = rng.normal(0, 0.3, (8, 3))
    biased = made_views(rng, bias_dz=bias, noise_dz=0.05)
    (tmp_path / "views").mkdir()
    stores = biased.write(tmp_path / "views")
    spread, error = {}, {}
    for refine in ("none", "offset", "tilt"):
        found = run(tmp_path / refine, stores, refine=refine)
        several = found.array()[6] >= 2
        spread[refine] = float(np.median(found.array()[4][several]))
        wrong = found.array()[3] - biased.truth["height"]
        error[refine] = float(np.std(wrong[several]))
        if refine != "none":
            facts = found.attrs["refined"]
            assert facts["after"] < facts["before"]
            assert facts["overlaps"] >= 10
            assert found.table("offsets")["offset"].shape == (8,)
    print(spread, error)
    assert spread["tilt"] < 0.7 * spread["offset"] < 0.7 * 0.5 * spread["none"]
    assert error["tilt"] < 0.6 * error["offset"] < 0.6 * 0.6 * error["none"]


def test_white_is_that_of_the_sensor() -> None:
    assert sensor_white(31, np.dtype(np.uint8)) == 255
    assert [sensor_white(v, np.dtype(np.uint16)) for v in (900, 1023, 1024, 4095, 40000)] == [
        1023,
        1023,
        4095,
        4095,
        65535,
    ]
    assert [c.window for c in channels(("grey", "height"), 4095.0)] == [(0.0, 4095.0), None]


def test_tiles_are_whole_chunks_and_cost_what_is_seen() -> None:
    for shape, tile in (((278, 437), 128), ((278, 437), 320), ((100, 9000), 4096), ((70, 60), 4096), ((300, 20), 64)):
        plan = mosaic_plan(shape, 3, tile)
        assert plan.shape == (7, *shape)
        assert all(s <= max(tile, c) for s, c in zip(plan.shards[1:], plan.chunks[1:]))
        assert len(list(plan.regions())) == plan.n_shards
    coverage = np.zeros((5, 7), np.uint8)
    coverage[0, 0] = 9
    work = tile_work(mosaic_plan((300, 430), 1, 128), coverage, 64)
    assert len(work) == 12
    assert work[0] == 9 + 4
    assert work[1] == 4
