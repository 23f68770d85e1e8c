"""No key of what reads the stacks is read and ignored: each, set to another value, changes what comes out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gigascope.config.dataset import TopographyDataset, parse_dataset
from gigascope.config.section import Section
from gigascope.runtime.run import run_stage
from gigascope.store.open import open_store
from gigascope.topography import plan
from gigascope.topography.synth import build_instrument

from .captures import acquisition

BASE = {"inputs": {"captures": "a"}}
STACKS = {"inputs": {"stacks": "b/cam{camera_row}_{camera_col}_y{scan_y}_x{scan_x}.tif"}}
FLAT = {"inputs": {"captures": "a", "flat": {"captures": "a"}}}

# Key, another value, and what both runs have beside it.
INGEST: list[tuple[str, Any, dict[str, Any]]] = [
    ("inputs.captures", "d", BASE),
    ("inputs.stacks", "e/cam{camera_row}_{camera_col}_y{scan_y}_x{scan_x}.tif", STACKS),
    ("inputs.images", "f/s*.png", {"inputs": {"images": "c/s*.png"}}),
    ("inputs.flat.captures", "d", FLAT),
    ("inputs.flat.stacks", STACKS["inputs"]["stacks"], {**BASE, "ingest": {"bayer": "GBRG"}}),
    ("inputs.flat.images", "f/s*.png", {"inputs": {"images": "c/s*.png"}}),
    ("inputs.flat.dz_mm", 0.07, FLAT),
    ("ingest.bayer", "GRBG", BASE),
    ("ingest.dz_mm", 0.05, BASE),
    ("ingest.stage_up", False, BASE),
    ("ingest.sensor_pitch_um", 2.0, BASE),
    ("ingest.f_eff_mm", 20.0, BASE),
    ("ingest.m_ref", 0.5, BASE),
    ("ingest.ref_view", 3, BASE),
    ("ingest.camera_pitch_mm", 9.0, BASE),
    ("ingest.scan_step_mm", 1.5, STACKS),
    ("ingest.mirror_x", False, BASE),
    ("ingest.mirror_y", True, BASE),
    ("ingest.camera_rows", [1], BASE),
    ("ingest.camera_cols", [1, 0], BASE),
    ("ingest.crop", [[0, 20], [2, 40]], BASE),
    ("ingest.chunk_px", 16, BASE),
    ("ingest.codec", "blosc", BASE),
]
# What changes how the work is done, and nothing of the result.
SAME = {"ingest.parts": 3, "ingest.readers": 4, "ingest.verify": "source", "synth.parts": 2}
INSTRUMENT: dict[str, Any] = {
    "preset": "S",
    "cameras": (1, 1),
    "scan": (2, 1),
    "specimen": "pins",
    "dz_um": 20.0,
    "na": 0.06,
    "overlap": 0.4,
    "snr": 20.0,
    "stage_up": False,
    "renderer": "reference",
    "flat_dz_um": 20.0,
    "flat_wedge_deg": 0.5,
}
ELSEWHERE = {"inputs.instrument", "ingest.missing"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captures (a, d), TIFF stacks (b, e) and pictures (c, f)."""
    root = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(11)
    for captures, stacks, pictures in (("a", "b", "c"), ("d", "e", "f")):
        made = acquisition(rng)
        made.write_captures(root / captures)
        made.write_stacks(root / stacks)
        (root / pictures).mkdir()
        for n, image in enumerate(made.view(0, 0)):
            Image.fromarray(image).save(root / pictures / f"s{n}.png")
    return root


def nested(key: str, value: Any, base: dict[str, Any]) -> dict[str, Any]:
    """`base` with one dotted key set."""
    values = json.loads(json.dumps({"pipeline": "topography", "name": "data", **base}))
    *path, last = key.split(".")
    place = values
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    return dict(values)


def outcome(folder: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, files: Path) -> str:
    """Digest of what ingest leaves, without the names of the files it came from."""
    monkeypatch.chdir(files)
    folder.mkdir()
    (folder / "data.yaml").write_text(json.dumps(values))
    run_stage("topography.ingest", folder / "data.yaml", {}, {"raw": folder / "raw.zarr"})
    store = open_store(folder / "raw.zarr")
    total = hashlib.sha256()
    for file in sorted(p for p in store.path.rglob("*") if p.is_file() and p.name != "zarr.json"):
        if not str(file.relative_to(store.path)).startswith("checksums"):
            total.update(str(file.relative_to(store.path)).encode() + file.read_bytes())
    attrs = dict(store.attrs)
    for of in filter(None, (attrs, attrs["flat"])):
        for name in ("source", "notes"):
            of.pop(name)
    return total.hexdigest() + json.dumps(attrs, sort_keys=True)


@pytest.mark.parametrize(("key", "value", "base"), INGEST, ids=[key for key, _, _ in INGEST])
def test_key_changes_the_result(
    key: str, value: Any, base: dict[str, Any], tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = outcome(tmp_path / "0", {"pipeline": "topography", "name": "data", **base}, monkeypatch, files)
    assert outcome(tmp_path / "1", nested(key, value, base), monkeypatch, files) != plain


@pytest.mark.parametrize("key", [key for key in SAME if key.startswith("ingest")])
def test_key_of_the_work_leaves_the_result(
    key: str, tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = outcome(tmp_path / "0", {"pipeline": "topography", "name": "data", **BASE}, monkeypatch, files)
    assert outcome(tmp_path / "1", nested(key, SAME[key], BASE), monkeypatch, files) == plain


def test_key_of_the_work_changes_the_plan() -> None:
    simulated = {"inputs": {"instrument": {}}}
    for key, value in SAME.items():
        before, after = (
            parse_dataset(values) for values in (nested("name", "x", simulated), nested(key, value, simulated))
        )
        assert isinstance(before, TopographyDataset)
        assert isinstance(after, TopographyDataset)
        header = plan.read_header(before)
        found = []
        for of in (before, after):
            jobs = plan.estimate_ingest_job(of, header, "part"), plan.estimate_synth_job(of, header, "part")
            found.append([(job.memory, job.seconds) for job in jobs])
        assert found[0] != found[1], key


@pytest.mark.parametrize("name", INSTRUMENT)
def test_key_of_the_instrument_changes_what_is_simulated(name: str) -> None:
    def simulated(values: dict[str, Any]) -> Any:
        found = parse_dataset({"pipeline": "topography", "name": "x", "inputs": {"instrument": values}})
        assert isinstance(found, TopographyDataset)
        assert found.inputs.instrument is not None
        return build_instrument(found.inputs.instrument, 3)

    before, after = simulated({}), simulated({name: INSTRUMENT[name]})
    if name == "renderer":
        assert after.capture.renderer != before.capture.renderer
        return
    same = [
        made.shape == other.shape
        and np.array_equal(made.z_stage_mm, other.z_stage_mm)
        and np.array_equal(made.read(0, 1), other.read(0, 1))
        for made, other in ((before.capture, after.capture), (before.flat_capture, after.flat_capture))
    ]
    assert not all(same)


def keys(section: type[Section], before: str) -> Iterator[str]:
    """Dotted names of all keys."""
    for name, field in section.model_fields.items():
        inner = type(field.default) if isinstance(field.default, Section) else None
        yield from keys(inner, f"{before}.{name}") if inner else [f"{before}.{name}"]


def test_every_key_is_in_these_tables() -> None:
    fields = TopographyDataset.model_fields
    found = {key for name in ("inputs", "synth", "ingest") for key in keys(fields[name].annotation, name)}  # type: ignore[arg-type]
    assert found == {key for key, _, _ in INGEST} | set(SAME) | ELSEWHERE
    from gigascope.config.topography import SyntheticInstrument

    assert set(SyntheticInstrument.model_fields) == set(INSTRUMENT)
