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
    assert keys - READ_KEYS - of_files == set()


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


def test_alignment_is_better_than_the_prealignment_and_near_the_truth(results: Path) -> None:
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["alignment_error_px"]["value"] < 0.5
    assert metrics["alignment_error_px"]["value"] < metrics["prealign_error_px"]["value"]
    assert metrics["alignment_error_px"]["unit"] == "px"


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


def test_stopped_reconstruction_goes_on_to_the_same_stores(
    config: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after every single update, as SIGTERM does, and started again."""
    monkeypatch.setattr(checkpoint.Checkpoints, "out_of_time", property(lambda self: True))
    for _ in range(40):
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
