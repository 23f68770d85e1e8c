"""The stage: every output is there, with and without real images, and each key acts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gigascope.config.dataset import parse_dataset
from gigascope.config.synthesis_evaluate import Downstream, Edge, Evaluate, Wasserstein
from gigascope.errors import UserError
from gigascope.runtime.rng import generator
from gigascope.runtime.run import run_stage
from gigascope.store.open import open_store
from gigascope.store.table import read_tsv
from gigascope.synthesis.adaptation.architecture import Architecture
from gigascope.synthesis.adaptation.mapping import Mapping
from gigascope.synthesis.adaptation.segmenter import Segmenter
from gigascope.synthesis.adaptation.stored import Adaptation
from gigascope.synthesis.evaluation import plan as estimates
from gigascope.synthesis.evaluation.downstream import Lesson, NetworkLearner, downstream
from gigascope.synthesis.evaluation.labels import LABELS, TABLES
from gigascope.synthesis.evaluation.stages import _plan
from gigascope.synthesis.evaluation.tiles import Grey

from .scenes import SMALL, VOXEL, make_set, outputs, write_config, write_stores


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    run_stage("synthesis.evaluate", write_config(folder), write_stores(folder), outputs(folder))
    return folder


def test_stage_writes_metrics_tables_and_pictures(evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert set(metrics) - {"warnings", "notes"} <= set(LABELS)
    for name, entry in metrics.items():
        if isinstance(entry, dict):
            assert set(entry) == {"value", "unit", "label"}, name
    assert metrics["det_naive"]["value"] > 0.9
    assert metrics["w1_real_naive"]["value"] > metrics["w1_real_adapted"]["value"]
    for name in TABLES:
        columns, _ = read_tsv(evaluated / f"{name}.tsv")
        assert columns, name
    store = open_store(evaluated / "evaluation.zarr")
    cultures = open_store(evaluated / "cultures.zarr").image("s0000")
    np.testing.assert_array_equal(store.side("naive_xy")[...], cultures.array()[12])
    np.testing.assert_array_equal(store.side("adapted_xz_labels")[...], cultures.label("nuclei")[:, 48])
    assert set(store.attrs["scales"]) == {"real", "naive", "adapted"}


def test_stage_runs_with_simulated_images_alone(tmp_path: Path) -> None:
    stores = write_stores(tmp_path, real=False, adapted=False, n=1)
    run_stage("synthesis.evaluate", write_config(tmp_path), stores, outputs(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["images_naive"]["value"] == 1
    assert "w1_real_naive" not in metrics
    assert metrics["det_naive"]["value"] > 0.9
    assert read_tsv(tmp_path / "alignment.tsv")[0]["image"].size == 0


def test_images_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    from gigascope.store.commit import finish
    from gigascope.store.ensemble import create_ensemble

    store = create_ensemble(tmp_path / "cultures.zarr")
    store.create_image("s0000", shape=(4, 16, 16), dtype=np.float32, spacing={"z": 1, "y": 1, "x": 1})[:] = np.zeros(
        (4, 16, 16), np.float32
    )
    finish(store, {"stage": "synthesis.simulate"})
    stores = {"cultures": tmp_path / "cultures.zarr"}
    with pytest.raises(UserError, match="unsigned integers"):
        run_stage("synthesis.evaluate", write_config(tmp_path), stores, outputs(tmp_path))
    assert not (tmp_path / "metrics.json").exists()


def test_every_key_reaches_the_plan() -> None:
    """What each part of the plan does is in test_evaluation.py; of `segmenter` see below."""
    before = _plan(Evaluate())
    changed: dict[str, Any] = {
        "tile": (8, 64, 64),
        "max_tiles": 7,
        "patches": 99,
        "bootstrap": 3,
        "scale": "real",
        "iou_thresholds": (0.5,),
        "nucleus_um": 5.0,
        "max_segmented": 1000,
        "parity": True,
    }
    nested: dict[str, tuple[type[Any], dict[str, Any]]] = {
        "edge": (
            Edge,
            {"sigma_um": 2.0, "tile_um": 20.0, "quantile": 0.9, "min_length_um": 5.0, "min_peak": 0.1},
        ),
        "wasserstein": (Wasserstein, {"closing_um": 5.0, "closing": 3, "erosion": 1}),
        "downstream": (Downstream, {"steps": 2, "seeds": 1}),
    }
    assert set(changed) | set(nested) | {"segmenter"} == set(Evaluate.model_fields)
    for key, value in changed.items():
        assert _plan(Evaluate(**{key: value})) != before, key
    for section, (model, keys) in nested.items():
        assert set(keys) | ({"crop"} if section == "downstream" else set()) == set(model.model_fields)
        for key, value in keys.items():
            assert _plan(Evaluate(**{section: {key: value}})) != before, (section, key)


def test_networks_learn_from_each_kind_and_from_both() -> None:
    """A few steps on tiny crops: what comes out need not be good, but must be of the right kind and repeatable."""
    lessons = [Lesson(make_set(k, [n], shape=(12, 48, 48)), Grey(100, 300)) for n, k in enumerate(("naive", "adapted"))]
    test = Lesson(make_set("real", [5], shape=(12, 48, 48)), Grey(100, 300))
    learner = NetworkLearner(2, (8, 16, 16), torch.device("cpu"), base=4)

    def run(lessons: list[Lesson]) -> list[Any]:
        return downstream(
            lessons,
            test,
            learner,
            seeds=1,
            most=10**9,
            thresholds=(0.5,),
            random=lambda *k: generator(0, *k),
        )

    found = run(lessons)
    assert [f.name for f in found] == ["naive", "adapted", "naive+adapted"]
    assert all(len(f.scores) == 1 for f in found)
    assert all(0 <= s.detection.det <= 1 for f in found for s in f.scores)
    assert run(lessons[:1])[0].scores[0].detection == found[0].scores[0].detection


def test_network_of_the_adaptation_segments_each_kind_on_its_scale(tmp_path: Path) -> None:
    from gigascope.synthesis.evaluation import opened

    volume = make_set("naive", [1], shape=(8, 32, 32)).volumes[0]
    found = Adaptation(Architecture(), None, Segmenter(2), Mapping(0, 9), Mapping(1, 8), VOXEL, False, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gigascope.synthesis.adaptation.stored.read_adaptation", lambda path: found)
        segmenter = opened.network_segmenter(tmp_path / "network.pt", torch.device("cpu"))
        assert [segmenter(key).grey for key in ("naive", "adapted", "real")] == [Mapping(1, 8)] + [Mapping(0, 9)] * 2
        assert segmenter("naive")(volume, volume.whole()).shape == volume.shape
        patch.setattr(
            "gigascope.synthesis.adaptation.stored.read_adaptation", lambda path: replace(found, segmenter=None)
        )
        with pytest.raises(UserError, match="holds no segmenter"):
            opened.network_segmenter(tmp_path / "network.pt", torch.device("cpu"))
    with pytest.raises(UserError, match="there is none"):
        opened.network_segmenter(None, torch.device("cpu"))


def test_stage_asks_for_the_network_that_its_key_names(tmp_path: Path) -> None:
    stores = write_stores(tmp_path, real=False, adapted=False, n=1)
    config = write_config(tmp_path, segmenter="network")
    with pytest.raises(UserError, match=r"evaluate.segmenter: asks for a network"):
        run_stage("synthesis.evaluate", config, stores, outputs(tmp_path))


def test_estimate_grows_with_what_is_measured() -> None:
    def estimate(evaluate: dict[str, Any], **more: Any) -> Any:
        dataset = parse_dataset({"pipeline": "synthesis", "name": "x", "evaluate": evaluate, **more})
        return estimates.estimate_evaluate(dataset, None)  # type: ignore[arg-type]

    small, large = estimate(SMALL), estimate({"downstream": {"steps": 100}}, inputs={"planted": {"images": 2}})
    assert large.seconds > small.seconds
    assert large.memory > small.memory
    huge = {"region": {"semi_axes_um": [500, 500, 500]}}
    assert estimate({}, phantoms=huge).memory < 4 * 2**30
