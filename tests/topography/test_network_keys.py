"""No key of training and inference is read and ignored: each, set to another value, changes what comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigascope.config.dataset import TopographyDataset, merge, parse_dataset
from gigascope.config.section import Section
from gigascope.store.open import open_store
from gigascope.store.table import read_tsv
from gigascope.topography.inference import view_focus
from gigascope.topography.training.course import Shapes
from gigascope.topography.training.plan import course_of

from ..stage_runs import write_dataset
from .chain import RUNS, TINY
from .stores import raw_store

BASE: dict[str, Any] = {"train": {"steps": 2, "patch_px": 48}}
PARITY = {"train": {"mode": "parity", "levels": 2}}
# Key, another value, and what both runs have beside it: the losses or the weights come out different.
TRAIN: list[tuple[str, Any, dict[str, Any]]] = [
    ("method", "focus", {}),
    ("mode", "parity", {}),
    ("steps", 3, {}),
    ("positions", 4, {}),
    ("max_views", 3, {}),
    ("patch_px", 64, {}),
    ("crops", "free", {}),
    ("order", "uniform", {}),
    ("levels", 2, {}),
    ("lr", 0.01, {}),
    # young weights forget their start sooner than this
    ("average", 0.05, {}),
    ("thresholds", [2.0, 3.0], PARITY),
    ("evidence_mb", 0.0, {}),
    ("weights.agreement", 2.0, {}),
    ("weights.height", 2.0, {}),
    # it comes in after 30 % of the steps
    ("weights.photo", 1.0, {}),
    ("weights.sharp", 1.0, {}),
    ("weights.arg", 1.0, {}),
]
# What changes how the work is done, and nothing of the result.
SAME = {"recompute": True, "prefetch_mb": 1.0, "processes": 1}
INFER: list[tuple[str, Any]] = [("method", "focus"), ("colour", "linear"), ("fill", False)]
INFER_SAME = {"tile_px": 64, "parts": 3}


def nested(stage: str, key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return {stage: value}


def digest(*values: Any) -> str:
    total = hashlib.sha256()
    for value in values:
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def taught(folder: Path, posed: Path, *changes: Mapping[str, Any]) -> str:
    """Digest of losses and pictures."""
    changed = {"train": {"method": "focus"}} if changes[-1] == nested("train", "method", "focus") else None
    config = write_dataset(folder, TINY, *([changed] if changed else [BASE, *changes]))
    RUNS.run(config, folder, "train", posed)
    store = open_store(folder / "training.zarr")
    table = [np.asarray(values, float) for values in read_tsv(folder / "losses.tsv")[0].values()]
    pictures = [] if changed else [store.member("network")[:]]
    return digest(*table, *pictures)


@pytest.fixture(scope="module")
def plain(posed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests without any change, and in the published mode."""
    folders = {name: tmp_path_factory.mktemp("plain") for name in ("", "parity")}
    return {name: taught(folder, posed, PARITY if name else {}) for name, folder in folders.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("key", "value", "beside"), TRAIN, ids=[key for key, _, _ in TRAIN])
def test_key_changes_the_training(
    key: str, value: Any, beside: dict[str, Any], plain: dict[str, str], posed: Path, tmp_path: Path
) -> None:
    assert taught(tmp_path, posed, beside, nested("train", key, value)) != plain["parity" if beside else ""]


@pytest.mark.slow
@pytest.mark.parametrize("key", SAME)
def test_key_of_the_work_leaves_the_training(key: str, plain: dict[str, str], posed: Path, tmp_path: Path) -> None:
    assert taught(tmp_path, posed, nested("train", key, SAME[key])) == plain[""]


def test_key_of_the_work_changes_the_work(posed: Path) -> None:
    def course(changes: dict[str, Any]) -> Any:
        found = parse_dataset(merge(TINY, changes))
        assert isinstance(found, TopographyDataset)
        return course_of(found.train, Shapes((192, 192), 9, 32, (280, 440)), 0)

    assert course(nested("train", "recompute", True)).schedule.recompute
    assert not course({}).schedule.recompute
    assert course(nested("train", "prefetch_mb", 1.0)).loading.budget_bytes == 1_000_000


@pytest.mark.parametrize(("key", "value"), INFER, ids=[key for key, _ in INFER])
def test_key_changes_the_views(key: str, value: Any, trained: Path, rng: np.random.Generator, tmp_path: Path) -> None:
    stacks = trained
    if key == "fill":
        # of the instrument everything is in focus somewhere; of noise nothing is
        stacks = raw_store(rng, tmp_path, n_z=9).store.path.parent
        for name in ("calibration.zarr", "network.pt"):
            (tmp_path / name).symlink_to(trained / name)
    before = {"method": "network" if key == "method" else "focus"}
    found = [views(tmp_path / str(n), stacks, before | of) for n, of in enumerate(({}, {key: value}))]
    assert found[0] != found[1]


def views(folder: Path, trained: Path, section: dict[str, Any]) -> str:
    """Digest of index and picture."""
    RUNS.run(write_dataset(folder, TINY, {"infer": section}), folder, "infer", trained)
    store = open_store(folder / "views.zarr")
    return digest(*(store.member(name)[:] for name in ("index", "aif")))


def test_tiles_are_as_large_as_they_are_asked_to_be(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[int] = []
    find = view_focus.find_evidence
    monkeypatch.setattr(view_focus, "find_evidence", lambda stacks: sides.append(stacks.shape[-1]) or find(stacks))
    found = {}
    for tile in (1024, 64):
        sides.clear()
        views(tmp_path / str(tile), trained, {"method": "network", "tile_px": tile})
        found[tile] = max(sides), len(sides)
    # one for each view; nine, with their margins
    assert found[1024] == (192, 8)
    assert found[64][1] == 72


def keys(section: type[Section], before: str = "") -> Iterator[str]:
    """Dotted names of all keys."""
    for name, field in section.model_fields.items():
        inner = type(field.default) if isinstance(field.default, Section) else None
        yield from keys(inner, f"{before}{name}.") if inner else [f"{before}{name}"]


def test_every_key_is_in_these_tables() -> None:
    from gigascope.config.topography_network import Infer, Train

    assert set(keys(Train)) == {key for key, _, _ in TRAIN} | set(SAME)
    assert set(keys(Infer)) == {key for key, _ in INFER} | set(INFER_SAME)
