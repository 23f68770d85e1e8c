"""Ingest keeps what the files say, value by value, and goes on where it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gigascope.cli import main
from gigascope.config.dataset import load_dataset
from gigascope.runtime.run import Job, run_stage
from gigascope.store.checksum import verify
from gigascope.store.open import StoreReader, open_store
from gigascope.topography.capture.bayer import pack_green
from gigascope.topography.plan import read_header
from gigascope.topography.raw import raw_files

from ..stage_runs import finish, lines_in, start
from .captures import COLOURS, Acquisition, acquisition, dataset


def ingest(folder: Path, inputs: str, out: str = "raw", **sections: str) -> StoreReader:
    """Run the stage in one job."""
    output = folder / f"{out}.zarr"
    run_stage("topography.ingest", dataset(folder, inputs, **sections), {}, {"raw": output})
    return open_store(output)


def assert_same_pixels(
    store: StoreReader, made: Acquisition, green: str = "green", colour: str | None = "bayer"
) -> None:
    """D1: every byte of every view, the packed green sites of each, and nothing else."""
    for row, col in np.ndindex(*made.views):
        view = made.view(row, col)
        np.testing.assert_array_equal(store.member(green)[row, col], pack_green(view, made.pattern))
        if colour is not None:
            np.testing.assert_array_equal(store.member(colour)[row, col], view)


@pytest.mark.parametrize("pattern", ["GBRG", "RGGB"])
def test_captures_come_out_byte_for_byte(tmp_path: Path, rng: np.random.Generator, pattern: str) -> None:
    made = acquisition(rng, size=(70, 100), pattern=pattern)
    made.write_captures(tmp_path / "a")
    flat = acquisition(rng, size=(70, 100), n_z=3, pattern=pattern)
    flat.write_captures(tmp_path / "flat")
    inputs = f"captures: {tmp_path}/a, flat: {{captures: {tmp_path}/flat}}"
    store = ingest(tmp_path, inputs, ingest="chunk_px: 32, verify: source")
    assert_same_pixels(store, made)
    assert_same_pixels(store, flat, "flat_green", None)
    assert store.member("bayer").shape == (*made.views, 5, 70, 100)
    assert store.member("bayer").chunks == (1, 1, 5, 32, 32)
    assert store.member("bayer").shards == (1, 1, 5, 96, 128)
    assert store.member("green").chunks == (1, 1, 5, 32, 16)
    # what every site of the packed array sees is green, in spite of the noise
    assert np.abs(store.member("green")[:].astype(int) - COLOURS["G"]).max() <= 20
    np.testing.assert_allclose(store.member("z_stage_mm")[:], np.broadcast_to(made.z_mm, (*made.views, 5)))
    assert store.member("view_mask")[:].all()
    assert (store.member("best_slice")[:] == 1).all()
    expected: dict[str, Any] = {
        "bayer": pattern,
        "colours": 1,
        "stage_up": True,
        "scan": [2, 3],
        "sign_x": -1,
        "sign_y": 1,
        "camera_mask": [[True, True], [True, True]],
        "camera_rows": [0, 1],
        "sensor_pitch_um": 1.1,
        "f_eff_mm": 25.05486,
        "m_ref": 0.8448,
        "camera_pitch_mm": 13.5,
        "ref_view": 0,
    }
    assert {key: store.attrs[key] for key in expected} == expected
    assert store.attrs["dz_mm"] == pytest.approx(0.04)
    assert [store.attrs[f"scan_step_{a}_mm"] for a in "yx"] == pytest.approx([2.2, 2.2])
    np.testing.assert_allclose(store.member("xy_mm")[0, :, 0], made.x_mm[::-1])
    assert verify(store.path) == []
    views = store.table("views")
    n = 4 * 6 - 1 - 7  # an arbitrary view
    row, col = divmod(n, made.views[1])
    assert (views["view_row"][n], views["view_col"][n]) == (row, col)
    assert (views["camera_row"][n], views["scan_y"][n]) == divmod(row, 2)
    assert (views["camera_col"][n], views["scan_x"][n]) == divmod(col, 3)
    assert views["mean"][n] == pytest.approx(made.view(row, col)[:, ::4, ::4].mean())


def test_tiff_stacks_give_the_same_store_as_captures(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng, dtype=np.uint16)
    made.write_captures(tmp_path / "a", best=False)
    stacks = made.write_stacks(tmp_path / "b")
    first = ingest(tmp_path, f"captures: {tmp_path}/a")
    assert any("GBRG was taken" in note for note in first.attrs["notes"])
    section = "bayer: GBRG, dz_mm: 0.04, scan_step_mm: 2.2"
    second = ingest(tmp_path, f"stacks: '{stacks}'", "other", ingest=section)
    for name in ("green", "bayer"):
        np.testing.assert_array_equal(first.member(name)[:], second.member(name)[:])
        assert second.member(name).dtype == np.uint16
    assert second.attrs["f_eff_mm"] is None
    assert second.attrs["scan_step_x_mm"] == pytest.approx(2.2)


def write_pictures(folder: Path, stack: NDArray) -> None:
    folder.mkdir()
    for n, image in enumerate(stack):
        Image.fromarray(image).save(folder / f"p{n}.png")


def test_pictures_in_colour_and_grey(tmp_path: Path, rng: np.random.Generator) -> None:
    stack = rng.integers(0, 255, (9, 50, 70, 3)).astype(np.uint8)
    write_pictures(tmp_path / "colour", stack)
    store = ingest(tmp_path, f"images: {tmp_path}/colour", ingest="chunk_px: 32, stage_up: false")
    np.testing.assert_array_equal(store.member("rgb")[0, 0], np.moveaxis(stack, -1, 1))
    np.testing.assert_array_equal(store.member("green")[0, 0], stack[..., 1])
    assert store.member("rgb").chunks == (1, 1, 9, 3, 32, 32)
    assert store.attrs["stage_up"] is False
    assert any("z-step is not known" in w for w in store.provenance["warnings"])
    np.testing.assert_array_equal(store.member("z_stage_mm")[0, 0], np.arange(9))
    write_pictures(tmp_path / "grey", stack[..., 1])
    grey = ingest(tmp_path, f"images: {tmp_path}/grey", "grey", ingest="dz_mm: 0.2")
    np.testing.assert_array_equal(grey.member("green")[:], store.member("green")[:])
    assert not grey.provenance["warnings"]
    assert sorted(p.parent.name for p in grey.path.glob("*/zarr.json")) == [
        "checksums",
        "green",
        "tables",
        "view_mask",
        "z_stage_mm",
    ]


def test_archive_codec_holds_the_same_values(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng)
    made.write_captures(tmp_path / "a")
    store = ingest(tmp_path, f"captures: {tmp_path}/a", ingest="codec: blosc")
    assert_same_pixels(store, made)
    assert "blosc" in str(store.member("bayer").compressors).lower() or "blosc" in str(store.member("bayer").metadata)


def test_crop_and_cameras(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng, cameras=(3, 2))
    made.write_captures(tmp_path / "a")
    made.write_captures(tmp_path / "flat")
    inputs = f"captures: {tmp_path}/a, flat: {{captures: {tmp_path}/flat}}"
    section = "camera_rows: [1, 2], camera_cols: [1], crop: [[4, 24], [8, 48]]"
    store = ingest(tmp_path, inputs, ingest=section)
    np.testing.assert_array_equal(store.member("bayer")[3, 2], made.view(5, 5)[:, 4:24, 8:48])
    np.testing.assert_array_equal(store.member("flat_green")[:], store.member("green")[:])
    assert store.attrs["camera_rows"] == [1, 2]
    assert store.attrs["flat"]["camera_cols"] == [1]
    assert store.attrs["sensor"] == [[4, 24], [8, 48]]


def test_stage_that_runs_downwards_gives_the_same_store(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng)
    made.write_captures(tmp_path / "up")
    down = Acquisition(made.images[:, :, :, :, ::-1], made.y_mm, made.x_mm, made.z_mm[::-1])
    down.write_captures(tmp_path / "down")
    up = ingest(tmp_path, f"captures: {tmp_path}/up")
    other = ingest(tmp_path, f"captures: {tmp_path}/down", "other")
    for name in ("green", "bayer", "z_stage_mm"):
        np.testing.assert_array_equal(up.member(name)[:], other.member(name)[:])
    assert any("ran downwards in 24 of 24 views" in note for note in other.attrs["notes"])
    # the autofocus chose the second slice that was taken
    assert (up.member("best_slice")[:] == 1).all()
    assert (other.member("best_slice")[:] == 3).all()


def test_holes_are_marked_where_that_is_wanted(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng)
    root = made.write_captures(tmp_path / "a")
    for path in (*made.folder(root, 1, 2).iterdir(), *made.folder(root, 0, 1).glob("z_stack*")):
        path.unlink()
    made.folder(root, 1, 2).rmdir()
    store = ingest(tmp_path, f"captures: {root}", ingest="missing: mask")
    mask = store.member("view_mask")[:]
    for row, col in np.ndindex(*made.views):
        gone = (row % 2, 2 - col % 3) in {(1, 2), (0, 1)}
        assert mask[row, col] == (not gone)
        expected = np.zeros_like(made.view(row, col)) if gone else made.view(row, col)
        np.testing.assert_array_equal(store.member("bayer")[row, col], expected)
    assert any("2 of 6 stage positions are not there" in w for w in store.provenance["warnings"])
    assert np.isfinite(store.member("z_stage_mm")[:]).all()


def test_saturated_and_dark_views_are_warned_of(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng)
    made.images[0, 0, 1, 1, 2, :10] = 255
    made.images[1, 2, 0, 0] = 2
    made.write_captures(tmp_path / "a")
    warnings = ingest(tmp_path, f"captures: {tmp_path}/a").provenance["warnings"]
    bright = next(w for w in warnings if "saturated" in w)
    # stage (0, 0) of camera (1, 1) is the last position along x
    assert "1 of 24 views are saturated (up to 25.00% of a slice's pixels)" in bright
    assert "camera (1, 1) at position (0, 2) (y_1.000_x_-3.000/z_stack_0001.nc)" in bright
    assert any("1 of 24 views are dark" in w and "camera (0, 0) at position (1, 0)" in w for w in warnings)


def parts_of(folder: Path, yaml: Path, parts: int) -> StoreReader:
    """Run the stage in jobs of its own, as the workflow does."""

    def run(**job: Any) -> None:
        outputs = {"raw": folder / "raw.zarr"} if job["kind"] == "gather" else {}
        records = folder / "records"
        run_stage("topography.ingest", yaml, {}, outputs, scratch=folder / "scratch", job=Job(records=records, **job))

    run(kind="open")
    for part in range(parts):
        run(kind="part", round=0, part=part)
    run(kind="gather")
    return open_store(folder / "raw.zarr")


def test_lost_slice_of_a_camera_is_named(rng: np.random.Generator, tmp_path: Path) -> None:
    made = acquisition(rng)
    made.images[0, 0, 1, 1, 2] = rng.integers(0, 3, made.images.shape[-2:])
    made.images[1, 1, 0, 0, 4] = made.images[1, 1, 0, 0, 1]
    made.write_captures(tmp_path / "a")
    store = ingest(tmp_path, f"captures: {tmp_path}/a")
    lost, twin = store.provenance["warnings"]
    assert "1 of 120 slices show nothing: slice 2 of view (2, 5): camera (1, 1) at position (0, 2)" in lost
    assert "(y_1.000_x_-3.000/z_stack_0001.nc) (black)" in lost
    assert "slice 4 of view (1, 1): camera (0, 0) at position (1, 1)" in twin
    assert store.attrs["lost_slices"] == [[2, 5, 2, "black"]]


def test_raw_mosaic_that_is_taken_as_grey_is_warned_of(rng: np.random.Generator, tmp_path: Path) -> None:
    pattern = acquisition(rng).write_stacks(tmp_path / "b")
    (warning,) = ingest(tmp_path, f"stacks: '{pattern}'", ingest="dz_mm: 0.04").provenance["warnings"]
    assert "24 of 24 views were taken as grey, but look like the raw Bayer mosaic of a colour sensor" in warning
    assert "set ingest.bayer to GBRG or GRBG" in warning


def test_result_does_not_depend_on_parts_and_readers(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng)
    made.write_captures(tmp_path / "a")
    made.write_captures(tmp_path / "flat")
    inputs = f"captures: {tmp_path}/a, flat: {{captures: {tmp_path}/flat}}"
    digests = {ingest(tmp_path, inputs, ingest="readers: 1").digest}
    for parts, readers in ((3, 2), (8, 3)):
        folder = tmp_path / str(parts)
        folder.mkdir()
        yaml = dataset(folder, inputs, ingest=f"parts: {parts}, readers: {readers}")
        digests.add(parts_of(folder, yaml, parts).digest)
    assert len(digests) == 1


@pytest.mark.slow
def test_killed_ingest_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng, scan=(4, 4), cameras=(2, 3), size=(256, 256))
    made.write_captures(tmp_path / "a")
    whole = ingest(tmp_path, f"captures: {tmp_path}/a")
    folder = tmp_path / "killed"
    folder.mkdir()
    yaml = dataset(folder, f"captures: {tmp_path}/a")
    words = ("run", "topography.ingest", "--config", str(yaml), "--output", f"raw={folder / 'raw.zarr'}")
    before = 0
    for first in (3, 20):
        wanted, process = first + int(rng.integers(0, 20)), start(folder, *words)
        process.wait_until(lambda wanted=wanted: lines_in(folder, "items.jsonl") >= wanted)
        code, before = process.kill(), lines_in(folder, "items.jsonl")
        print("killed after", before, "views")
        if code == 0:
            break
    said = finish(folder, *words)
    if before:
        assert f"going on: {before} of 96 views were finished before" in said
    store = open_store(folder / "raw.zarr")
    assert store.digest == whole.digest
    assert_same_pixels(store, made)
    assert verify(store.path) == []


def test_altered_shard_of_an_unfinished_run_is_made_again(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = acquisition(rng)
    made.write_captures(tmp_path / "a")
    monkeypatch.setattr("gigascope.topography.ingest.warnings", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ingest(tmp_path, f"captures: {tmp_path}/a")
    monkeypatch.undo()
    assert lines_in(tmp_path, "items.jsonl") == 24
    shard = next(p for p in tmp_path.rglob("bayer/c/1/2/*") if p.is_dir() or p.is_file())
    shard = shard if shard.is_file() else next(p for p in shard.rglob("*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[7] ^= 8
    shard.write_bytes(data)
    assert_same_pixels(ingest(tmp_path, f"captures: {tmp_path}/a"), made)


def test_second_reading_finds_a_source_that_does_not_give_the_same(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gigascope.topography.capture import netcdf

    made = acquisition(rng)
    made.write_captures(tmp_path / "a")
    read, reads = netcdf.read_stack, []

    def unsteady(position: Any, row: int, col: int, slices: slice = slice(None)) -> NDArray:
        stack = read(position, row, col, slices)
        if slices != slice(None):
            return stack
        reads.append((position.file, row, col))
        if reads.count((made.folder(tmp_path / "a", 1, 0) / "z_stack_0001.nc", 1, 1)) == 2:
            stack[3, 4, 5] ^= 1
        return stack

    monkeypatch.setattr(netcdf, "read_stack", unsteady)
    yaml = dataset(tmp_path, f"captures: {tmp_path}/a", ingest="verify: source, readers: 1")
    with pytest.raises(SystemExit) as exit_:
        main(["run", "topography.ingest", "--config", str(yaml), "--output", f"raw={tmp_path}/raw.zarr"])
    assert exit_.value.code == 2
    assert "differs from its file at (3, 4," in capsys.readouterr().err
    assert not (tmp_path / "raw.zarr").exists()


def test_simulated_instrument_comes_out_as_it_was_made(tmp_path: Path) -> None:
    yaml = dataset(tmp_path, "instrument: {preset: XS, stage_up: false}", ingest="chunk_px: 32")
    stores = {name: tmp_path / f"{name}.zarr" for name in ("sample", "target", "truth")}
    run_stage("topography.synth", yaml, {}, stores)
    captures = {name: stores[name] for name in ("sample", "target")}
    run_stage("topography.ingest", yaml, captures, {"raw": tmp_path / "raw.zarr"})
    raw, sample = open_store(tmp_path / "raw.zarr"), open_store(stores["sample"])
    images = sample.member("images")[:]
    np.testing.assert_array_equal(raw.member("bayer")[:], images)
    np.testing.assert_array_equal(raw.member("green")[:], pack_green(images, "GBRG"))
    target = open_store(stores["target"]).member("images")[:]
    np.testing.assert_array_equal(raw.member("flat_green")[:], pack_green(target, "GBRG"))
    assert raw.attrs["stage_up"] is False
    assert (np.diff(raw.member("z_stage_mm")[:], axis=2) > 0).all()
    assert raw.attrs["sign_x"] == -1
    header = read_header(load_dataset(yaml))
    assert header.shape == raw.member("bayer").shape
    assert header.flat_slices == raw.member("flat_green").shape[2]
    truth = open_store(stores["truth"])
    assert truth.member("height_mm").shape == tuple(truth.attrs["mosaic_shape"])
    assert truth.member("index").shape == (2, 4, 192, 192)
    assert set(truth.table("poses")) == {"height", "normal_x", "normal_y", "normal_z", "angle", "row", "col"}


def test_every_file_that_is_looked_into_counts_as_raw(tmp_path: Path, rng: np.random.Generator) -> None:
    made = acquisition(rng)
    made.write_captures(tmp_path / "a")
    made.write_captures(tmp_path / "flat")
    inputs = f"captures: {tmp_path}/a, flat: {{captures: {tmp_path}/flat}}"
    found = raw_files(load_dataset(dataset(tmp_path, inputs)))
    assert set(found) == set(tmp_path.rglob("*.nc"))


def test_check_and_init(tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    made = acquisition(rng)
    root = made.write_captures(tmp_path / "a")
    stacks = made.write_stacks(tmp_path / "b")
    write_pictures(tmp_path / "c", made.view(0, 0))
    for key, path, words in (
        ("captures", root, "4 x 6 views of 5 slices of 56 x 40 pixels"),
        ("stacks", stacks, "4 x 6 views of 5 slices of 56 x 40 pixels"),
        ("images", tmp_path / "c", "5 slices of 56 x 40 pixels"),
    ):
        folder = str(tmp_path / "datasets")
        # several views need something that places them
        more = [] if key == "images" else ["--set", f"inputs.flat.{key}={path}"]
        with pytest.raises(SystemExit) as exit_:
            main(["init", "topography", "--name", key, "--input", str(path), "--folder", folder, *more])
        assert exit_.value.code == 0, capsys.readouterr().err
        yaml = tmp_path / "datasets" / f"{key}.yaml"
        assert words in yaml.read_text()
        assert getattr(load_dataset(yaml).inputs, key) == str(path)
        with pytest.raises(SystemExit) as exit_:
            main(["check", str(yaml)])
        printed = capsys.readouterr()
        assert exit_.value.code == 0, printed.err
        assert "ingest" in printed.out
        assert "synth" not in printed.out
        assert ("z-step unknown" in printed.out) == (key != "captures")
