"""No key of the chain is read and ignored: each of them, set to another value, changes what its stage leaves."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.config.dataset import load_dataset
from gigascope.config.section import Section
from gigascope.errors import UserError
from gigascope.store.open import open_store
from gigascope.store.table import read_tsv
from gigascope.workflow import Workflow

from ..stage_runs import write_dataset
from .chain import ORDER, RUNS


@dataclass(frozen=True)
class Change:
    """Another value of a key.

    Attributes
    ----------
    value : of the key
    effect : what must come out different, as :func:`outcome` names it
    beside : sections that both runs have, so that the key has something to act on
    same : all that is not `effect` must come out the same
    """

    value: Any
    effect: str
    beside: Mapping[str, Any] | None = None
    same: bool = False


def stack(name: str) -> dict[str, Any]:
    """A volume of the fixture `files`."""
    return {"inputs": {"volume": name}}


INTENSITY = {"gate": {"mode": "intensity"}}
NETWORK = {"gate": {"mode": "network", "network": {"steps": 15, "batch": 512, "width": 16, "depth": 3}}}
SIMULATED = {"inputs": {"volume": None, "phantom": {"shape": [24, 64, 96]}}}
FIXED = {"fit": {"quantise": {"adaptive": False}}}
SEVERAL = stack("several.ome.tif")

# A key that acts on the header of a file only would change its bytes too: the Gaussians are what is looked at.
KEYS: dict[str, Change] = {
    "inputs.volume": Change("other.tif", "voxels", stack("plain.tif")),
    "inputs.phantom": Change({"shape": [24, 64, 96]}, "refused", {"inputs": {"volume": None}}),
    "inputs.phantom.shape": Change([24, 64, 80], "shape", SIMULATED),
    "inputs.phantom.crop": Change([[0, 24], [8, 40], [0, 96]], "shape", SIMULATED),
    "inputs.phantom.peak_electrons": Change(150.0, "voxels", SIMULATED),
    "ingest.axes": Change("yzx", "shape", stack("plain.tif")),
    "ingest.voxel_size_um": Change([2.0, 0.5, 0.5], "spacing", SEVERAL),
    "ingest.channels": Change([2, 0], "voxels", SEVERAL),
    "ingest.times": Change([1], "voxels", SEVERAL),
    "ingest.not_finite": Change("background", "refused", stack("broken.tif")),
    "gate.mode": Change("intensity", "voxels"),
    "gate.smooth": Change(2.0, "voxels"),
    "gate.seed_sd": Change(110.0, "voxels"),
    "gate.grow_sd": Change(2.0, "voxels"),
    "gate.min_voxels": Change(1000, "voxels"),
    "gate.dilate": Change([0, 0, 3], "voxels"),
    "gate.intensity": Change(0.25, "voxels", INTENSITY),
    "gate.parts": Change(3, "parts", same=True),
    "gate.network.steps": Change(25, "voxels", NETWORK),
    "gate.network.batch": Change(256, "voxels", NETWORK),
    "gate.network.width": Change(24, "voxels", NETWORK),
    "gate.network.depth": Change(4, "voxels", NETWORK),
    "gate.network.lr": Change(0.01, "voxels", NETWORK),
    "gate.network.tau": Change("f1", "voxels", NETWORK),
    "fit.ratio": Change(150.0, "gaussians"),
    "fit.bytes": Change(1000, "gaussians"),
    "fit.psnr": Change(22.0, "gaussians"),
    "fit.max_error": Change(40, "decoded"),
    "fit.lambda": Change(2.0, "gaussians"),
    "fit.weight": Change("ml", "gaussians"),
    "fit.robust": Change(True, "gaussians"),
    "fit.nonneg": Change(True, "gaussians"),
    "fit.iterations": Change(25, "gaussians"),
    "fit.brick": Change([24, 32, 48], "gaussians"),
    "fit.halo": Change(6, "gaussians"),
    "fit.c_max": Change(3.0, "gaussians"),
    "fit.sweeps": Change(0, "gaussians"),
    "fit.sweep_iterations": Change(8, "gaussians"),
    "fit.parts": Change(3, "parts", same=True),
    "fit.quantise.position_bits": Change(3, "gaussians", FIXED),
    "fit.quantise.scale_bits": Change(6, "gaussians", FIXED),
    "fit.quantise.rotation_bits": Change(6, "gaussians", FIXED),
    "fit.quantise.amplitude_bits": Change(8, "gaussians", FIXED),
    "fit.quantise.adaptive": Change(False, "gaussians"),
    "fit.quantise.iterations": Change(9, "gaussians"),
    "decode.enabled": Change(False, "asked for"),
    "decode.factor": Change([1, 2, 2], "shape"),
    "decode.parts": Change(3, "parts", same=True),
    "evaluate.codecs": Change(["jpeg2000", "sperr"], "codecs"),
    "evaluate.rates": Change(2, "points"),
    "evaluate.max_voxels": Change(40000, "box"),
    "report.picture_px": Change(128, "pictures"),
}


def sha(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _image(folder: Path, name: str) -> dict[str, Any]:
    store = open_store(folder / f"{name}.zarr")
    found = {"voxels": sha(store.array()[:]), "shape": (store.axes, store.shape), "spacing": store.spacing}
    return found | {"parts": store.provenance.get("scatter", {}).get("parts")}


def _fit(folder: Path) -> dict[str, Any]:
    volume = GaussianVolume(folder / "gaussians.gmix")
    whole = volume.decoder.whole(0)
    parts = open_store(folder / "gaussians.zarr").provenance["scatter"]["parts"]
    assert len(whole) > 20, "too few Gaussians for a key to act on"
    return {"gaussians": sha(torch.cat([t.reshape(-1) for t in whole.tensors]).numpy()),
            "decoded": sha(np.asarray(volume)), "parts": parts}  # fmt: skip


def _evaluate(folder: Path) -> dict[str, Any]:
    codecs, points = (read_tsv(folder / f"{name}.tsv")[0] for name in ("codecs", "curves"))
    found = {"codecs": codecs["method"].tolist(), "points": sum(points["method"] == "jpeg2000")}
    return found | {"box": open_store(folder / "codec_pictures.zarr").attrs["box"]}


def _report(folder: Path) -> dict[str, Any]:
    """Width and height of every picture in the page."""
    pictures = re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", (folder / "report.html").read_text())
    assert pictures
    return {"pictures": [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]}


LOOK: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ingest": lambda folder: _image(folder, "volume"),
    "gate": lambda folder: _image(folder, "gate"),
    "fit": _fit,
    "decode": lambda folder: _image(folder, "decoded"),
    "evaluate": _evaluate,
    "report": _report,
}


def asked_for(config: Path) -> list[str]:
    """Results that the workflow asks for of a rule that decodes."""
    output = SimpleNamespace(apply_wildcards=lambda wildcards: "decoded of {dataset}".format(**wildcards))
    rules = [SimpleNamespace(name="compression_decode", output=[output])]
    return Workflow.load({"datasets": str(config)}).targets(rules)


Outcome = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def outcome(tiny: dict[str, Any], results: Path) -> Outcome:
    """What a stage leaves with changes laid over the tiny dataset, by name; or with what words it refuses them."""

    def found(stage: str, folder: Path, *changes: Mapping[str, Any]) -> dict[str, Any]:
        config = write_dataset(folder, tiny, *changes)
        try:
            asked = asked_for(config)
            RUNS.run(config, folder, stage, results)
        except UserError as error:
            return {"refused": str(error)}
        return LOOK[stage](folder) | {"asked for": asked}

    return found


@pytest.fixture(scope="module")
def results(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset through all stages."""
    folder = tmp_path_factory.mktemp("results")
    config = write_dataset(folder, tiny)
    for stage in ORDER:
        RUNS.run(config, folder, stage)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes in files: one frame, another one, several times and channels, one with a value that is not finite."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    plain = rng.poisson(50, (6, 40, 48)).astype(np.uint16)
    several = rng.poisson(50, (2, 3, 6, 40, 48)).astype(np.uint16)
    broken = plain.astype(np.float32)
    broken[2, 3, 4] = np.nan
    for name, volume in (("plain", plain), ("other", plain[::-1]), ("broken", broken)):
        tifffile.imwrite(folder / f"{name}.tif", volume, photometric="minisblack")
    facts = {"axes": "TCZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 1.5}
    tifffile.imwrite(folder / "several.ome.tif", several, ome=True, photometric="minisblack", metadata=facts)
    return folder


@pytest.fixture(scope="module")
def before(outcome: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What a stage leaves before a key is changed; each run is made once."""
    known: dict[str, dict[str, Any]] = {}

    def look(stage: str, beside: Mapping[str, Any]) -> dict[str, Any]:
        name = json.dumps([stage, beside])
        if name not in known:
            known[name] = outcome(stage, tmp_path_factory.mktemp("before"), beside)
        return known[name]

    return look


def leaves(section: Section, path: str = "") -> Iterator[str]:
    """Keys of a section and of those in it, as they are written in YAML."""
    for name, field in type(section).model_fields.items():
        key, value = f"{path}{field.alias or name}", getattr(section, name)
        if isinstance(value, Section):
            yield from leaves(value, f"{key}.")
        elif path:
            yield key


def test_the_table_holds_every_key_of_every_section(tiny: dict[str, Any], tmp_path: Path) -> None:
    dataset = load_dataset(write_dataset(tmp_path, tiny, SIMULATED))
    # the simulation is a section, and is also the choice between it and a file
    assert set(KEYS) == {*leaves(dataset), "inputs.phantom"}


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_an_effect(
    key: str, before: Outcome, outcome: Outcome, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    change, path = KEYS[key], key.split(".")
    stage = "ingest" if path[0] == "inputs" else path[0]
    changed = change.value
    for name in reversed(path):
        changed = {name: changed}
    beside = change.beside or {}
    plain, other = before(stage, beside), outcome(stage, tmp_path, beside, changed)
    assert plain.get(change.effect) != other.get(change.effect)
    if change.effect != "refused":
        assert "refused" not in {**plain, **other}
    if change.same:
        assert {**plain, change.effect: 0} == {**other, change.effect: 0}


def test_bits_beside_adaptive_steps_are_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scale_bits has no effect on adaptive steps: set adaptive: false"):
        load_dataset(write_dataset(tmp_path, tiny, {"fit": {"quantise": {"scale_bits": 6}}}))


def test_no_value_of_the_table_is_the_one_before(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Else a run would be compared with itself, and differ only if it were not the same each time."""
    for key, change in KEYS.items():
        text = json.loads(write_dataset(tmp_path, tiny, change.beside or {}).read_text())
        for name in key.split("."):
            text = text.get(name) if isinstance(text, dict) else None
        assert text != change.value, key
