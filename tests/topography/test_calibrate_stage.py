"""The stage that calibrates: from the flat target, known poses, another acquisition, or nothing; what it refuses."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from gigascope.cli import main
from gigascope.config.dataset import TopographyDataset, load_dataset, parse_dataset
from gigascope.config.topography import SyntheticInstrument
from gigascope.errors import UserError
from gigascope.store.checksum import verify
from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.open import StoreReader, open_store
from gigascope.store.table import write_tsv
from gigascope.topography import plan
from gigascope.topography.calibration.acquired import Acquired
from gigascope.topography.calibration.calibrating import Calibrating, doubts
from gigascope.topography.calibration.compare import reprojection_errors
from gigascope.topography.calibration.result import Calibration
from gigascope.topography.calibration.stored import read_calibration
from gigascope.topography.capture.stored import IMAGES, create_capture, open_stored
from gigascope.topography.geometry.candidates import find_candidates
from gigascope.topography.geometry.poses import to_columns
from gigascope.topography.instrument.instrument import Instrument
from gigascope.topography.instrument.world import Window
from gigascope.topography.synth import build_instrument

from ..stage_runs import chance, lines_in, write_dataset
from .captures import acquisition, dataset
from .chain import RUNS, TINY


def calibrated(folder: Path) -> tuple[StoreReader, Calibration]:
    store = open_store(folder / "calibration.zarr")
    return store, read_calibration(store)[0]


def calibrate(tiny: Path, folder: Path, **section: Any) -> tuple[StoreReader, Calibration]:
    """The stage on the raw store of the tiny instrument."""
    RUNS.run(write_dataset(folder, TINY, {"calibrate": section}), folder, "calibrate", tiny)
    return calibrated(folder)


@pytest.fixture(scope="session")
def flat(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder with the calibration of the tiny instrument from its flat target."""
    folder = tmp_path_factory.mktemp("flat")
    calibrate(tiny, folder)
    return folder


@pytest.fixture(scope="session")
def instrument() -> Instrument:
    """The tiny instrument with its truth."""
    return build_instrument(SyntheticInstrument(), TINY["seed"])


def test_flat_target_gives_poses_datum_and_light_of_the_instrument(flat: Path, instrument: Instrument) -> None:
    """C1, C2 and C3 through the stage; without start errors, which the science's own test has."""
    store, found = calibrated(flat)
    error = reprojection_errors(found.poses, instrument.truth.poses)
    assert np.median(error) <= 0.1
    assert np.percentile(error, 95) <= 0.3
    places = [divmod(v, instrument.size.views[1]) for v in range(found.poses.n_views)]
    capture = instrument.flat_capture
    apart = [found.focus_mm(v) - capture.z_flat_mm(*place) for v, place in enumerate(places)]
    assert np.sqrt(np.mean(np.square(apart))) <= 0.1 * capture.dz_mm
    n = instrument.size.size
    light = [
        instrument.sensor.shading(n, (0, c), instrument.seed, Window(0, 0, n, n)) * found.correction_field(2 * c)
        for c in (0, 1)
    ]
    assert np.std(light) <= 0.01 * np.mean(light)
    assert store.attrs["source"] == found.source == "flat target"
    assert store.attrs["datum_known"] is True
    assert store.provenance["warnings"] == []
    assert verify(store.path) == []
    _, candidates = read_calibration(store)
    again = find_candidates(found.poses, found.mosaic_shape)
    np.testing.assert_array_equal(candidates.view, again.view)
    np.testing.assert_array_equal(candidates.indptr, again.indptr)
    assert found.quiver.view.shape == (int(found.statistics["n_ties"]), 2)


@pytest.mark.parametrize("parts", [3, 8])
def test_number_of_parts_does_not_change_a_bit(tiny: Path, flat: Path, tmp_path: Path, parts: int) -> None:
    config = write_dataset(tmp_path, TINY, {"calibrate": {"parts": parts}})
    RUNS.run_in_parts(config, tmp_path, "calibrate", tiny, parts)
    RUNS.assert_same(tmp_path, flat, "calibrate")
    assert open_store(tmp_path / "calibration.zarr").provenance["scatter"]["parts"] == parts
    assert not [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_killed_calibration_goes_on_and_ends_as_an_undisturbed_one(tiny: Path, flat: Path, tmp_path: Path) -> None:
    config, luck = write_dataset(tmp_path, TINY), chance()
    words = (config, tmp_path, "calibrate", tiny)
    process, wanted = RUNS.start(*words), luck.randrange(9)
    process.wait_until(lambda: lines_in(tmp_path, "items.jsonl") >= wanted)
    time.sleep(luck.random() * 0.3)
    code, before = process.kill(), lines_in(tmp_path, "items.jsonl")
    print("killed after", before, "views, exit code", code)
    if code != 0:
        assert not (tmp_path / "calibration.zarr").exists()
        said = RUNS.finish(*words)
        if before:
            assert f"going on: {before} of 8 views were finished before" in said
    RUNS.assert_same(tmp_path, flat, "calibrate")


def test_one_slice_for_each_view_is_the_datum_of_the_published_release(tiny: Path, flat: Path, tmp_path: Path) -> None:
    _, smooth = calibrated(flat)
    _, found = calibrate(tiny, tmp_path, datum="integer")
    z = open_store(tiny / "raw.zarr").member("flat_z_stage_mm")[:].reshape(8, -1)
    assert (found.focus_plane[:, 1:] == 0).all()
    for v in range(8):
        assert found.focus_plane[v, 0] in z[v]
        assert abs(found.focus_plane[v, 0] - smooth.focus_mm(v).mean()) <= 0.5 * np.diff(z[v]).max()
    np.testing.assert_array_equal(found.poses.translation, smooth.poses.translation)


# known poses


def write_poses(path: Path, columns: dict[str, Any], how: str) -> Path:
    if how == "tsv":
        write_tsv(path.with_suffix(".tsv"), columns, {"angle": "rad", "translation_row": "px"})
    elif how == "csv":
        rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values()))]
        path.with_suffix(".csv").write_text("\n".join(rows) + "\n")
    elif how == "json columns":
        path = path.with_name("columns.x")
        path.with_suffix(".json").write_text(json.dumps({n: np.asarray(v).tolist() for n, v in columns.items()}))
    else:
        rows_ = [dict(zip(columns, map(float, row))) for row in zip(*columns.values())]
        path.with_suffix(".json").write_text(json.dumps(rows_))
    return path.with_suffix({"tsv": ".tsv", "csv": ".csv"}.get(how, ".json"))


def columns_of(instrument: Instrument) -> dict[str, Any]:
    """The true poses as a table."""
    poses = instrument.truth.poses
    columns, shared = to_columns(poses)
    columns |= {"focal": np.full(8, shared["focal"]), "distortion_1": np.full(8, shared["distortion"][0])}
    view = columns.pop("view")
    return {"view_row": view // 4, "view_col": view % 4, **columns}


@pytest.mark.parametrize("how", ["tsv", "csv", "json columns", "json rows"])
def test_known_poses_are_kept(tiny: Path, tmp_path: Path, instrument: Instrument, how: str) -> None:
    path = write_poses(tmp_path / "poses.x", columns_of(instrument), how)
    task = Calibrating(Acquired(open_store(tiny / "raw.zarr")), poses=path)
    assert reprojection_errors(task.known.poses, instrument.truth.poses).max() < 1e-6
    assert task.views == list(range(8))


def test_flat_target_beside_known_poses_gives_datum_and_light(
    tiny: Path, flat: Path, tmp_path: Path, instrument: Instrument
) -> None:
    path = write_poses(tmp_path / "poses.x", columns_of(instrument), "csv")
    store, found = calibrate(tiny, tmp_path / "known", poses=str(path))
    assert reprojection_errors(found.poses, instrument.truth.poses).max() < 1e-6
    _, own = calibrated(flat)
    np.testing.assert_array_equal(found.focus_plane, own.focus_plane)
    np.testing.assert_allclose(found.gain, own.gain, rtol=2e-3)
    # the poses are true: what is left is the error of the tie points
    assert found.statistics["median_px"] < 0.1
    assert store.attrs["source"] == "known poses"
    wrong = columns_of(instrument)
    wrong["translation_row"] = wrong["translation_row"] + np.array([0.0, 1.5] * 4)
    path = write_poses(tmp_path / "wrong.x", wrong, "csv")
    store, _ = calibrate(tiny, tmp_path / "off", poses=str(path))
    assert any("the poses do not describe the views well" in w for w in store.provenance["warnings"])


def test_known_poses_alone_give_heights_above_the_lowest_plane(
    tiny: Path, tmp_path: Path, instrument: Instrument
) -> None:
    raw = open_store(tiny / "raw.zarr")
    raw.attrs["flat"] = None
    path = write_poses(tmp_path / "poses.x", columns_of(instrument), "csv")
    task = Calibrating(Acquired(raw), poses=path)
    task.begin()
    assert not task.views
    found, facts = task.solve({}, {}.__getitem__)
    z = task.acquired.z_mm
    heights = np.stack([found.height_mm(v, np.full((192, 192), k), z[v]) for v in (0, 7) for k in (0, 4, 8)])
    assert heights.min() >= 0
    assert facts["datum_known"] is False
    with_focus = {**columns_of(instrument), "focus_mm": np.arange(8) / 100}
    path = write_poses(tmp_path / "focus.x", with_focus, "csv")
    found, facts = Calibrating(Acquired(raw), poses=path).solve({}, {}.__getitem__)
    np.testing.assert_allclose(found.focus_mm(5), 0.05)
    assert facts["datum_known"] is True


BAD_POSES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (lambda c: c.pop("translation_col"), "column translation_col is missing"),
    "unknown": (lambda c: c.update(tilt=c["angle"]), "column 'tilt' is unknown"),
    "twice": (lambda c: c.update(view_col=np.zeros(8, int)), r"view \(0, 0\) stands there twice"),
    "another grid": (lambda c: c.update(view_col=c["view_col"] + 1), "the acquisition has 2 x 4 views from 0"),
    "not a number": (lambda c: c.update(angle=["x"] * 8), "column angle holds something that is no number"),
    "empty": (lambda c: c.update(angle=[""] * 8), r"angle of view \(0, 0\) is nan"),
    "two focal lengths": (lambda c: c.update(focal=np.arange(8) + 1.0), "focal differs from view to view"),
    "no focal length": (lambda c: c.pop("focal"), "no column focal"),
    "half a normal": (lambda c: c.pop("normal_z"), "a normal has the columns"),
    "behind the camera": (lambda c: c.update(normal_z=-c["normal_z"]), "expected z below 0"),
    "no views": (lambda c: [c.pop("view_row"), c.pop("view_col")], "view_row and view_col, or view, are missing"),
}


@pytest.mark.parametrize("name", BAD_POSES)
def test_poses_that_cannot_be_are_refused(tiny: Path, tmp_path: Path, instrument: Instrument, name: str) -> None:
    edit, words = BAD_POSES[name]
    columns = columns_of(instrument)
    edit(columns)
    path = write_poses(tmp_path / "poses.x", columns, "csv")
    with pytest.raises(UserError, match=words):
        Calibrating(Acquired(open_store(tiny / "raw.zarr")), poses=path).begin()


# the calibration of another acquisition


def test_calibration_of_another_acquisition_is_taken_over(tiny: Path, flat: Path, tmp_path: Path) -> None:
    store, found = calibrate(tiny, tmp_path / "same", calibration=str(flat / "calibration.zarr"))
    _, own = calibrated(flat)
    np.testing.assert_array_equal(found.poses.translation, own.poses.translation)
    np.testing.assert_array_equal(found.focus_plane, own.focus_plane)
    assert store.attrs["source"] == "another acquisition"
    # of fewer cameras
    fewer = {"ingest": {"camera_cols": [1]}, "calibrate": {"calibration": str(flat / "calibration.zarr")}}
    config = write_dataset(tmp_path / "fewer", TINY, fewer)
    RUNS.run(config, tmp_path / "fewer", "ingest", tiny)
    RUNS.run(config, tmp_path / "fewer", "calibrate")
    _, some = calibrated(tmp_path / "fewer")
    assert some.instrument.camera_cols == (1,)
    np.testing.assert_array_equal(some.focus_plane, own.focus_plane[[2, 3, 6, 7]])


def refused(config: Path, folder: Path, inputs_from: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Message of the stage, which ends with exit code 2 and leaves no result."""
    with pytest.raises(SystemExit) as exit_:
        main(RUNS.arguments(config, folder, "calibrate", inputs_from))
    assert exit_.value.code == 2
    assert not (folder / "calibration.zarr").exists()
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return errors


def test_calibration_of_another_instrument_is_refused(
    tiny: Path, flat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"calibration": str(flat / "calibration.zarr")}
    config = write_dataset(tmp_path, TINY, {"ingest": {"crop": [[0, 128], [0, 192]]}, "calibrate": known})
    RUNS.run(config, tmp_path, "ingest", tiny)
    message = refused(config, tmp_path, tmp_path, capsys)
    assert "calibration.zarr: the calibration is of another instrument: views of 192 x 192 pixels calibrated" in message
    assert "of 192 x 128 pixels taken" in message
    (tmp_path / "none").mkdir()
    config = write_dataset(tmp_path / "none", TINY, {"calibrate": {"calibration": str(tiny / "raw.zarr")}})
    assert "holds no calibration" in refused(config, tmp_path / "none", tiny, capsys)
    config = write_dataset(tmp_path / "none", TINY, {"calibrate": {"calibration": str(tmp_path / "nowhere.zarr")}})
    assert "there is no such store" in refused(config, tmp_path / "none", tiny, capsys)


# without a flat target


def write_pictures(folder: Path, rng: np.random.Generator, n: int = 3) -> None:
    folder.mkdir()
    for k in range(n):
        Image.fromarray(rng.integers(0, 255, (40, 48), dtype=np.uint8)).save(folder / f"s{k}.png")


@pytest.mark.parametrize("stage_up", [True, False])
def test_one_camera_without_a_flat_target_has_relative_heights(
    tmp_path: Path, rng: np.random.Generator, stage_up: bool
) -> None:
    write_pictures(tmp_path / "p", rng)
    config = dataset(tmp_path, f"images: {tmp_path}/p", ingest=f"dz_mm: 0.2, stage_up: {str(stage_up).lower()}")
    RUNS.run(config, tmp_path, "ingest")
    RUNS.run(config, tmp_path, "calibrate")
    store, found = calibrated(tmp_path)
    assert found.mosaic_shape == (40, 48)
    assert (store.attrs["source"], store.attrs["datum_known"]) == ("single view", False)
    z = np.arange(3) * 0.2
    heights = [found.height_mm(0, np.full((40, 48), float(k)), z)[0, 0] for k in range(3)]
    np.testing.assert_allclose(heights, [0.4, 0.2, 0] if stage_up else [0, 0.2, 0.4], atol=1e-12)
    assert found.distances_mm() is None


def test_one_camera_takes_height_0_from_its_flat_target(tiny: Path, flat: Path, tmp_path: Path) -> None:
    """A view of the tiny instrument, by itself."""
    whole = open_store(tiny / "raw.zarr")
    sample, target = (open_stored(open_store(tiny / f"{name}.zarr")) for name in ("sample", "target"))
    for name, capture in (("sample", sample), ("target", target)):
        write_slices(tmp_path / name, capture.read(0, 0))
    dz = [float(np.diff(whole.member(f"{b}z_stage_mm")[0, 0]).mean()) for b in ("", "flat_")]
    inputs = f"images: {tmp_path}/sample, flat: {{images: {tmp_path}/target, dz_mm: {dz[1]}}}"
    config = dataset(tmp_path, inputs, ingest=f"bayer: GBRG, dz_mm: {dz[0]}, chunk_px: 32")
    RUNS.run(config, tmp_path, "ingest")
    RUNS.run(config, tmp_path, "calibrate")
    store, found = calibrated(tmp_path)
    assert store.attrs["datum_known"] is True
    assert any(
        "positions count from 0 in the stacks of the sample and of the flat" in w for w in store.provenance["warnings"]
    )
    # positions count from 0 here, and jitter on the stage
    expected = calibrated(flat)[1].focus_mm(0) - whole.member("flat_z_stage_mm")[0, 0, 0]
    np.testing.assert_allclose(found.focus_mm(0), expected, atol=0.1 * dz[1])


def write_slices(folder: Path, stack: NDArray) -> None:
    folder.mkdir()
    for k, image in enumerate(stack):
        Image.fromarray(image).save(folder / f"s{k}.png")


def test_several_views_and_nothing_that_places_them_are_refused(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    acquisition(rng).write_captures(tmp_path / "a")
    config = dataset(tmp_path, f"captures: {tmp_path}/a")
    RUNS.run(config, tmp_path, "ingest")
    message = refused(config, tmp_path, tmp_path, capsys)
    assert "nothing tells where the 24 views lie on the sample: there is no flat target" in message
    assert "inputs.flat" in message
    assert "calibrate.poses" in message
    with pytest.raises(SystemExit) as exit_:
        main(["check", str(config)])
    assert exit_.value.code == 2
    assert "nothing tells where the 24 views lie" in capsys.readouterr().err


def test_known_poses_that_are_not_there_are_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_dataset(tmp_path, TINY, {"calibrate": {"poses": str(tmp_path / "nowhere.csv")}})
    with pytest.raises(SystemExit) as exit_:
        main(["check", str(config)])
    assert exit_.value.code == 2
    assert "nowhere.csv: there is no such file. Check calibrate.poses." in capsys.readouterr().err


# flat targets that cannot be used


def with_target(tiny: Path, folder: Path, edit: Callable[[NDArray], NDArray], slices: slice = slice(None)) -> Path:
    """Results folder whose flat target was changed, up to the raw store; edit(images of all views, in some slices)."""
    old = open_store(tiny / "target.zarr")
    capture, images = open_stored(old), edit(np.asarray(old.member(IMAGES)[...]))[:, :, slices]
    store = create_store(folder / "target.zarr")
    facts = {name: value for name, value in old.attrs.items() if name not in ("pattern", "colours")}
    some = replace(capture, shape=images.shape, z_stage_mm=capture.z_stage_mm[:, :, slices])
    create_capture(store, some, facts, np.asarray(old.member("xy_mm")[...]))
    store.group[IMAGES][...] = images
    finish(store, {})
    shutil.copytree(tiny / "sample.zarr", folder / "sample.zarr")
    config = write_dataset(folder, TINY)
    RUNS.run(config, folder, "ingest")
    return config


def test_target_taken_in_focus_gives_poses(tiny: Path, tmp_path: Path, instrument: Instrument) -> None:
    RUNS.run(with_target(tiny, tmp_path, lambda images: images, slice(4, 5)), tmp_path, "calibrate")
    _, found = calibrated(tmp_path)
    # cameras are 10 um off focus, as in the test of the science
    assert np.median(reprojection_errors(found.poses, instrument.truth.poses)) <= 0.6
    assert (found.focus_plane[:, 1:] == 0).all()


def test_target_of_two_slices_is_refused(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = with_target(tiny, tmp_path, lambda images: images, slice(3, 5))
    assert "the flat target has two slices" in refused(config, tmp_path, tmp_path, capsys)


def darkened(images: NDArray) -> NDArray:
    images[1, 2] = np.random.default_rng(3).poisson(1.2, images[1, 2].shape)
    return images


def blank(images: NDArray) -> NDArray:
    noise = np.random.default_rng(3).normal(120, 2.0, images[0, 3].shape)
    images[0, 3] = noise.round().astype(np.uint8)
    return images


def never_in_focus(images: NDArray) -> NDArray:
    images[1, 0] = images[1, 0, :1]
    return images


def of_something_else(images: NDArray) -> NDArray:
    images[0, 1] = images[0, 1, :, ::-1, ::-1]
    return images


def all_apart(images: NDArray) -> NDArray:
    """No two views show the same."""
    noise = np.random.default_rng(3).standard_normal((8, *images.shape[3:]))
    for v, k in np.ndindex(8, images.shape[2]):
        texture = ndimage.gaussian_filter(noise[v], 1.0 + abs(k - 4))
        images[v // 4, v % 4, k] = 120 + np.clip(60 * texture / ndimage.gaussian_filter(noise[v], 1.0).std(), -110, 110)
    return images


TARGETS = {
    darkened: r"view (1, 2): the flat target is dark there: its mean is 0.6% of the brightest pixel",
    blank: "view (0, 3): the flat target has too little texture: 0 of 144 blocks",
    never_in_focus: "view (1, 0): the flat target has too little texture",
    of_something_else: "(0, 1) of 8 are apart from the rest",
    all_apart: "groups without a sure overlap between them",
}


@pytest.mark.parametrize("edit", TARGETS, ids=lambda edit: edit.__name__)
def test_flat_target_that_cannot_be_used_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: Callable[[NDArray], NDArray]
) -> None:
    config = with_target(tiny, tmp_path, edit)
    assert TARGETS[edit] in refused(config, tmp_path, tmp_path, capsys)


def test_unknown_distances_are_asked_for(tiny: Path) -> None:
    raw = open_store(tiny / "raw.zarr")
    raw.attrs.update(m_ref=None, camera_pitch_mm=None)
    with pytest.raises(UserError, match=r"Set ingest\.m_ref, ingest\.camera_pitch_mm"):
        Calibrating(Acquired(raw)).begin()


def test_doubts_are_said(tiny: Path, flat: Path) -> None:
    _, found = calibrated(flat)
    acquired = Acquired(open_store(tiny / "raw.zarr"))
    assert doubts(found, acquired) == []
    bad = {"departure": 3.0, "p95_px": 2.0, "median_px": 0.7, "rejected": 0.4, "focus_error_mm": 0.02}
    present = found.present.copy()
    present[5] = False
    moved = found.focus_plane + np.array([1.0, 0, 0, 0, 0, 0])
    lines = doubts(replace(found, statistics=bad, present=present, focus_plane=moved), acquired)
    for words in (
        "1 views are not calibrated, and left out: (1, 1).",
        "calibrate.independent: true",
        "miss each other by 0.70 px",
        "40% of the tie points",
        "known to 0.66 of its steps",
        "outside the stack of 7 views, such as (0, 0)",
    ):
        assert any(words in line for line in lines), words


# keys

KEYS: dict[str, Any] = {
    "search_share": 0.01,
    "rounds": 1,
    "independent": True,
}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_an_effect(tiny: Path, flat: Path, tmp_path: Path, key: str) -> None:
    if key == "search_share":
        # a stage that is off by more than is searched
        with pytest.raises(UserError, match="overlap"):
            calibrate(tiny, tmp_path, search_share=KEYS[key])
        return
    store, _ = calibrate(tiny, tmp_path, **{key: KEYS[key]})
    assert store.digest != open_store(flat / "calibration.zarr").digest


def test_the_tables_hold_every_key() -> None:
    elsewhere = {"poses", "calibration", "datum", "parts"}
    assert set(TopographyDataset.model_fields["calibrate"].annotation.model_fields) == {*KEYS, *elsewhere}  # type: ignore[union-attr]


def test_keys_that_would_have_no_effect_are_refused() -> None:
    def parse(**section: Any) -> Any:
        return parse_dataset({**TINY, "calibrate": section})

    with pytest.raises(UserError, match="poses and calibration cannot both be given"):
        parse(poses="a.csv", calibration="b.zarr")
    with pytest.raises(UserError, match="rounds has no effect beside poses"):
        parse(poses="a.csv", rounds=3)
    with pytest.raises(UserError, match="datum has no effect beside calibration"):
        parse(calibration="b.zarr", datum="integer")


def test_estimate_follows_the_origin_and_parts(tiny: Path, tmp_path: Path) -> None:
    of = load_dataset(write_dataset(tmp_path / "a", TINY))
    assert isinstance(of, TopographyDataset)
    header = plan.read_header(of)
    whole = plan.estimate_calibrate(of, header)
    known = load_dataset(write_dataset(tmp_path / "b", TINY, {"calibrate": {"calibration": "x.zarr"}}))
    assert plan.estimate_calibrate(known, header).disk < whole.disk  # type: ignore[arg-type]
    parted = load_dataset(write_dataset(tmp_path / "c", TINY, {"calibrate": {"parts": 4}}))
    part, gather = (plan.estimate_calibrate_job(parted, header, job) for job in ("part", "gather"))  # type: ignore[arg-type]
    assert part.seconds == plan.estimate_calibrate_job(of, header, "part").seconds / 4
    assert max(part.memory, gather.memory) == whole.memory
    with pytest.raises(UserError, match=r"nowhere\.csv: there is no such file"):
        plan.calibrate_files(parse_dataset({**TINY, "calibrate": {"poses": "nowhere.csv"}}).calibrate)  # type: ignore[union-attr]
