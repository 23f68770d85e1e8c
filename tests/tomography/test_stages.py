"""The chain through its stages on a small simulated series: products, records, and what kills and stops leave."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from gigascope.config import tomography
from gigascope.config.section import Section
from gigascope.errors import Checkpointed
from gigascope.registry import get_stage
from gigascope.runtime import checkpoint
from gigascope.runtime.run import run_stage
from gigascope.stage import Kind
from gigascope.store.checksum import verify
from gigascope.store.open import open_store
from gigascope.store.readers.alignment import read_alignment
from gigascope.store.table import read_tsv

from ..stage_runs import chance, finish, start

YAML = """
pipeline: tomography
name: tiny
seed: 3
inputs:
  phantom: {kind: object, n_tilts: 21, size_px: 64, snr: 4, shift_sigma_px: 1.5, drift: false}
ingest:
  extent: object
reconstruct:
  thickness_nm: 48
  iterations: 30
  align: {bins: [2], outer: 10}
"""
ORDER = ("ingest", "prealign", "reconstruct", "halves", "evaluate")


def paths(folder: Path, stage: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Inputs and outputs of a stage in a results folder."""
    declared = get_stage(f"tomography.{stage}")
    endings = {"shifts": "prealign_shifts.tsv" if stage == "prealign" else "shifts.tsv", "metrics": "metrics.json"}
    first = "prealign" if stage == "prealign" else "shifts"
    endings |= {name: f"{first}.{name}" for name in ("xf", "tlt", "aln", "json")}
    endings |= {"newst": "newst.com", "tilt": "tilt.com"}

    def path(name: str, kind: Kind) -> Path:
        return folder / (f"{name}.zarr" if kind is Kind.STORE else endings.get(name, f"{name}.tsv"))

    inputs = {**declared.inputs, **declared.optional_inputs}
    return {n: path(n, k) for n, k in inputs.items()}, {n: path(n, k) for n, k in declared.outputs.items()}


def run(config: Path, folder: Path, stage: str, inputs_from: Path | None = None) -> None:
    inputs, _ = paths(inputs_from or folder, stage)
    _, outputs = paths(folder, stage)
    run_stage(f"tomography.{stage}", config, inputs, outputs, scratch=folder / "scratch")


def words(config: Path, folder: Path, stage: str, inputs_from: Path) -> list[str]:
    inputs, _ = paths(inputs_from, stage)
    _, outputs = paths(folder, stage)
    found = ["run", f"tomography.{stage}", "--config", str(config), "--scratch", str(folder / "scratch")]
    for option, named in (("--input", inputs), ("--output", outputs)):
        for name, path in named.items():
            found += [option, f"{name}={path}"]
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(YAML)
    return path


READ_KEYS: set[tuple[str, str]] = set()


def recording(self: Section, name: str) -> object:
    """Attribute access of a section that is remembered."""
    if name in type(self).model_fields:
        READ_KEYS.add((type(self).__name__, name))
    return object.__getattribute__(self, name)


@pytest.fixture(scope="module")
def results(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished, undisturbed chain; the config keys that its stages looked at are in READ_KEYS."""
    folder = tmp_path_factory.mktemp("results")
    previous = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Section, "__getattribute__", recording)
        for stage in ORDER:
            run(config, folder, stage)
    signal.signal(signal.SIGTERM, previous)
    return folder


def test_no_key_is_parsed_and_ignored(results: Path) -> None:
    """Every key of every section is looked at by the stage that it belongs to, or by what reads its files."""
    sections = (
        tomography.Ingest, tomography.PhantomSeries, tomography.Prealign, tomography.Reconstruct, tomography.Align,
        tomography.Halves, tomography.Evaluate,
    )  # fmt: skip
    keys = {(section.__name__, name) for section in sections for name in section.model_fields}
    # looked at only where a file is read; tests/cli/test_bad_input.py and tests/store/readers cover them
    of_files = {("Ingest", name) for name in ("pixel_size_nm", "tilt_deg", "tilt_axis_deg", "tilt_sign", "y_up")}
    # looked at only when the axis is searched; tests/tomography/test_geometry_search.py covers it
    of_search = {("Prealign", "axis_range_deg")}
    assert keys - READ_KEYS - of_files - of_search == set()


def test_every_store_is_complete_verified_and_knows_how_it_was_made(results: Path) -> None:
    for name in ("tilt_series", "prealigned", "tomogram", "aligned", "halves"):
        reader = open_store(results / f"{name}.zarr")
        assert verify(results / f"{name}.zarr") == []
        made = reader.provenance
        assert made["dataset"] == "tiny"
        assert made["seed"] == 3
        assert made["config"]
        assert made["packages"]["zarr"]
        assert all(len(item["digest"]) == 64 for item in made["inputs"].values())
        assert made["wall_s"] > 0
        assert made["peak_memory_bytes"] > 2**26


def test_shapes_axes_and_units(results: Path) -> None:
    tomogram = open_store(results / "tomogram.zarr")
    assert tomogram.axes == ("z", "y", "x")
    assert tomogram.shape == (48, 64, 80)
    assert tomogram.unit == "nanometer"
    assert open_store(results / "aligned.zarr").shape == (21, 64, 64)
    assert open_store(results / "halves.zarr").shape == (2, 24, 32, 40)


def test_tables_beside_the_store_say_what_the_store_says(results: Path) -> None:
    columns, units = read_tsv(results / "shifts.tsv")
    table = open_store(results / "tomogram.zarr").table("shifts")
    assert list(columns) == list(table)
    np.testing.assert_array_equal(columns["f_s_px"], table["f_s_px"])
    assert units["f_s_px"] == "pixel"
    assert units["tilt_deg"] == "degree"
    assert len((results / "shifts.xf").read_text().splitlines()) == 21
    assert len((results / "shifts.tlt").read_text().splitlines()) == 21


def test_imods_command_files_name_the_files_and_sizes_of_this_series(results: Path) -> None:
    newst = dict(line.split("\t") for line in (results / "newst.com").read_text().splitlines() if "\t" in line)
    tilt = dict(line.partition(" ")[::2] for line in (results / "tilt.com").read_text().splitlines())
    assert (results / newst["TransformFile"]).is_file()
    assert (results / tilt["TILTFILE"]).is_file()
    assert tilt["InputProjections"] == newst["OutputFile"]
    assert newst["SizeToOutputInXandY"] == "64,64"
    assert tilt["FULLIMAGE"] == "64 64"
    assert tilt["THICKNESS"] == "48"


def test_alignments_of_every_format_say_the_same(results: Path) -> None:
    table, _ = read_tsv(results / "shifts.tsv")
    kept = np.array([flag == "" for flag in table["flag"]])
    for name in ("xf", "aln", "json"):
        found = read_alignment(results / f"shifts.{name}", 21).alignment
        np.testing.assert_allclose(found.shifts[kept, 0], table["f_s_px"][kept], atol=1e-3)
        np.testing.assert_allclose(found.shifts[kept, 1], table["f_y_px"][kept], atol=1e-3)
        np.testing.assert_allclose(found.tilt_deg[kept], table["tilt_deg"][kept], atol=1e-3)


def test_alignment_is_near_the_truth(results: Path) -> None:
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["alignment_error_px"]["value"] < 0.5
    assert metrics["alignment_error_px"]["value"] < 0.2 * metrics["start_error_px"]["value"]
    assert metrics["alignment_error_px"]["unit"] == "px"


def test_every_alignment_that_was_tried_is_in_one_table(results: Path) -> None:
    metrics = json.loads((results / "metrics.json").read_text())
    rows = {row["method"]: row for row in metrics["methods"]}
    tried = {"correlation", "centre of mass, correlation", "centre of mass", "projection matching"}
    assert set(rows) == {"none (raw)", "joint (corrected)", *tried}
    assert sum(row["chosen"] for row in rows.values()) == 2
    residuals = [row["residual"] for row in metrics["methods"]]
    assert residuals == sorted(residuals)
    assert residuals[-1] == rows["none (raw)"]["residual"] == metrics["residual_raw"]["value"]
    joint = rows["joint (corrected)"]
    assert joint["distance_px"] == 0
    assert joint["error_px"] == metrics["alignment_error_px"]["value"]
    assert joint["residual"] == metrics["residual_aligned"]["value"]


def test_nothing_is_left_in_scratch(results: Path) -> None:
    assert not (results / "scratch").exists()


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """Every number of the stores of a folder, by path."""
    found = {}
    for store in sorted(folder.glob("*.zarr")):
        reader = open_store(store)
        found[store.name] = np.asarray(reader.array()[:])
        for name in reader.tables:
            for column, values in reader.table(name).items():
                found[f"{store.name}/{name}/{column}"] = np.asarray(values)
    return found


def assert_same(folder: Path, undisturbed: Path) -> None:
    mine, theirs = arrays(folder), arrays(undisturbed)
    assert mine, "no store was written"
    for name, values in mine.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


@pytest.mark.parametrize("method", ["sirt", "cgls"])
def test_other_reconstructors_and_the_published_alignment_run_through(
    config: Path, results: Path, tmp_path: Path, method: str
) -> None:
    """Both halves too; less like the truth than the corrected shifts, and said to be."""
    yaml = tmp_path / "other.yaml"
    changed = f"method: {method}\n  iterations: 30\n  align: {{mode: published, outer: 3, "
    yaml.write_text(YAML.replace("iterations: 30\n  align: {", changed).replace("outer: 10", ""))
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("tilt_series", "prealigned"):
        (folder / f"{name}.zarr").symlink_to(results / f"{name}.zarr")
    run(yaml, folder, "reconstruct")
    run(yaml, folder, "halves")
    tomogram = open_store(folder / "tomogram.zarr")
    assert any("published iteration" in message for message in tomogram.provenance["warnings"])
    history, _ = read_tsv(folder / "history.tsv")
    stage = np.array(history["stage"])
    assert (stage == "joint").sum() == 3
    objective = np.asarray(history["objective"])[stage == "tomogram"]
    assert 1 <= len(objective) <= 30
    assert (np.diff(objective) < 0).all()
    volume, halves = tomogram.array()[:], open_store(folder / "halves.zarr").array()[:]
    usual = open_store(results / "tomogram.zarr").array()[:]
    # noisier than the usual one, but the same specimen at the same place: mirrored or displaced it would be near 0
    assert np.corrcoef(volume.ravel(), usual.ravel())[0, 1] > 0.5
    assert np.corrcoef(halves[0].ravel(), halves[1].ravel())[0, 1] > 0.3


def test_stopped_reconstruction_goes_on_to_the_same_stores(
    config: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after about every other update, as SIGTERM does, and started again."""
    moments = chance()
    monkeypatch.setattr(checkpoint.Checkpoints, "out_of_time", property(lambda self: moments.random() < 0.5))
    for _ in range(200):
        try:
            run(config, tmp_path, "reconstruct", inputs_from=results)
            break
        except Checkpointed:
            assert not list(tmp_path.glob("*.zarr"))
    assert_same(tmp_path, results)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ingest", "prealign", "reconstruct"])
def test_killed_at_a_random_moment_and_started_again_equals_undisturbed(
    config: Path, results: Path, tmp_path: Path, stage: str
) -> None:
    moments, line = chance(), words(config, tmp_path, stage, results)
    for _ in range(2):
        process = start(tmp_path, *line)
        time.sleep(moments.uniform(0.0, 5.0))
        process.kill()
        for store in tmp_path.glob("*.zarr"):
            assert verify(store) == [], "a store in place is a whole one"
    finish(tmp_path, *line)
    assert_same(tmp_path, results)
    assert not (tmp_path / "scratch").exists()


def test_sigterm_saves_the_state_and_ends_with_75(config: Path, results: Path, tmp_path: Path) -> None:
    process, log = start(tmp_path, *words(config, tmp_path, "reconstruct", results)), tmp_path / "log"
    assert process.wait_until(lambda: "config:" in log.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75, log.read_text()
    assert list(tmp_path.rglob("*.checkpoint"))
    assert not list(tmp_path.rglob("*.zarr"))
    run(config, tmp_path, "reconstruct", inputs_from=results)
    assert_same(tmp_path, results)


def test_damaged_input_is_refused_by_name(config: Path, results: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    shard = max((copy / "tilt_series.zarr" / "0").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)
    assert start(tmp_path, *words(config, tmp_path, "prealign", copy)).wait() != 0
    assert "tilt_series.zarr" in (tmp_path / "log").read_text()
    assert not list(tmp_path.glob("*.zarr"))
