"""No key of the evaluation is read and ignored: each, set to another value, changes what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigascope.config.dataset import merge
from gigascope.config.section import dump
from gigascope.config.synthesis_evaluate import Evaluate
from gigascope.runtime.rng import generator
from gigascope.runtime.run import run_stage
from gigascope.synthesis.evaluation.evaluation import Evaluation
from gigascope.synthesis.evaluation.nuclei import histograms
from gigascope.synthesis.evaluation.stages import _plan
from gigascope.synthesis.evaluation.tables import all_tables
from gigascope.synthesis.evaluation.values import values
from gigascope.synthesis.evaluation.volumes import ImageSet

from ..keys import leaves
from .scenes import OTHER_CAMERA, make_set, nuclei_table, outputs, write_config, write_stores

BASE: dict[str, Any] = {
    "tile": [8, 24, 24],
    "patches": 300,
    "bootstrap": 5,
    "nucleus_um": 9.0,
    "edge": {"tile_um": 8, "min_length_um": 4},
}
PARITY = {"parity": True}
# Key, another value, and what both have beside it.
CHANGES: list[tuple[str, Any, dict[str, Any]]] = [
    ("edge.sigma_um", 0.7, {}),
    ("edge.tile_um", 12, {}),
    ("edge.quantile", 0.8, {}),
    ("edge.min_length_um", 12.0, {}),
    ("edge.min_peak", 0.9, {}),
    ("wasserstein.closing_um", 1.0, {}),
    ("wasserstein.closing", 1, PARITY),
    ("wasserstein.erosion", 0, PARITY),
    ("tile", [6, 16, 16], {}),
    ("max_tiles", 2, {}),
    ("patches", 200, {}),
    ("bootstrap", 0, {}),
    ("scale", "real", {}),
    ("iou_thresholds", [0.5], {}),
    ("nucleus_um", 5.0, {}),
    ("max_segmented", 10_000, {}),
    ("parity", True, {}),
]
# See below, and test_stage.py.
ELSEWHERE = {"downstream.steps", "downstream.seeds", "downstream.crop", "segmenter"}


def nested(key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return dict(value)


def test_every_key_is_in_this_table() -> None:
    assert {key for key, _, _ in CHANGES} | ELSEWHERE == leaves(dump(Evaluate()))


@pytest.fixture(scope="module")
def sets() -> tuple[ImageSet, ImageSet, ImageSet]:
    shape = (16, 48, 48)
    naive, real = make_set("naive", [0], shape=shape), make_set("real", [10], shape=shape, **OTHER_CAMERA)
    return naive, real, make_set("adapted", [20], phantoms=[0], shape=shape, **OTHER_CAMERA)


def measured(sets: tuple[ImageSet, ImageSet, ImageSet], keys: dict[str, Any]) -> str:
    """Numbers and tables, as text."""
    plan = _plan(Evaluate.model_validate(merge(BASE, keys)))
    found = Evaluation(*sets, plan=plan, random=lambda *key: generator(0, *key)).measure()
    tables = all_tables(found, histograms([nuclei_table(sets[0].volumes[0])]))
    columns = {name: {n: np.asarray(c).tolist() for n, c in of.items()} for name, (of, _) in tables.items()}
    return repr((values(found), columns))


@pytest.mark.slow
def test_every_key_changes_what_is_measured(sets: tuple[ImageSet, ImageSet, ImageSet]) -> None:
    plain: dict[str, str] = {}
    for key, value, beside in CHANGES:
        if str(beside) not in plain:
            plain[str(beside)] = measured(sets, beside)
        assert measured(sets, merge(beside, nested(key, value))) != plain[str(beside)], key


class Seen(Exception):
    """What the stage would measure with."""


def test_learner_has_the_steps_and_crops_of_the_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(*_: Any, plan: Any, learner: Any, **__: Any) -> None:
        raise Seen(learner.steps, tuple(learner.crop), plan.downstream_steps, plan.downstream_seeds)

    monkeypatch.setattr("gigascope.synthesis.evaluation.evaluation.Evaluation", seen)
    config = write_config(tmp_path, downstream={"steps": 7, "seeds": 2, "crop": [8, 16, 16]})
    with pytest.raises(Seen) as found:
        run_stage("synthesis.evaluate", config, write_stores(tmp_path, n=1), outputs(tmp_path))
    assert found.value.args == (7, (8, 16, 16), 7, 2)
