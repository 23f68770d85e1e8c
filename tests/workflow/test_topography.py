"""The topography chain under the real Snakemake: its graph, what runs again after a change, parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gigascope.errors import UserError
from gigascope.workflow import Workflow

from .checkout import Checkout, Job, configs
from .crates import check_crate, many

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

SIMULATED = """\
pipeline: topography
name: simulated
inputs: {instrument: {preset: XS}}
synth: {parts: 1}
ingest: {chunk_px: 32, parts: 1}
train: {steps: 8, patch_px: 48}
infer: {parts: 1}
mosaic: {tile: 256, parts: 1}
evaluate: {estimators: [centroid]}
"""
PICTURES = """\
pipeline: topography
name: pictures
inputs:
  images: stack/s*.png
ingest: {parts: 1}
"""


def write_pictures(root: Path, seed: int = 0) -> None:
    (root / "stack").mkdir(exist_ok=True)
    images = np.random.default_rng(seed).integers(0, 255, (5, 40, 48, 3)).astype(np.uint8)
    for n, image in enumerate(images):
        Image.fromarray(image).save(root / "stack" / f"s{n}.png")


def changed(dataset: str, *stages: str) -> set[Job]:
    """Stages that run again, with the jobs that write their configs."""
    return configs(dataset, *stages, pipeline="topography") | runs(dataset, *stages)


def runs(dataset: str, *stages: str) -> set[Job]:
    return {Job(f"topography_{stage}", dataset) for stage in stages}


# In the order in which they run; the mesh depends on the mosaic alone.
ALL = ("synth", "ingest", "calibrate", "train", "infer", "mosaic", "mesh", "evaluate", "report")
OF_PICTURES = ("ingest", "register", *ALL[2:])


def chain(dataset: str, first: str) -> set[Job]:
    """The jobs from one stage to the end, in one part, without those that write configs."""
    stages = OF_PICTURES if dataset == "pictures" else ALL
    return runs(dataset, *stages[stages.index(first) :])


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A simulated instrument and a stack of pictures, run to the end; not to be changed."""
    datasets = {"simulated": SIMULATED, "pictures": PICTURES}
    checkout = Checkout.make(tmp_path_factory.mktemp("topography") / "repository", datasets)
    write_pictures(checkout.root)
    assert checkout.planned() == changed("simulated", *ALL) | changed("pictures", *OF_PICTURES)
    checkout.snakemake()
    return checkout


@pytest.fixture
def topography(finished_once: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished run, to be changed."""
    return finished_once.clone(tmp_path / "repository")


def test_finished_runs_have_crates(topography: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    check_crate(topography, "simulated", topography.root / "simulated.zip")
    monkeypatch.chdir(topography.root)
    found = check_crate(topography, "pictures", topography.root / "pictures.zip")
    raw = [data for data in many(found.run("topography.ingest")["object"]) if data.id.startswith("#input/")]
    assert [data["alternateName"] for data in raw] == [f"stack/s{n}.png" for n in range(5)]
    assert all(len(data["identifier"]["value"]) == 16 for data in raw)
    write_pictures(topography.root, seed=1)
    with pytest.raises(UserError, match=r"stack/s0\.png is another one than topography\.ingest was made from"):
        check_crate(topography, "pictures", topography.root / "again.zip")


def test_finished_run_plans_nothing(topography: Checkout) -> None:
    assert topography.planned() == set()
    for store in ("sample", "target", "truth", "raw", "calibration", "training", "views", "mosaic", "evaluation"):
        assert topography.attributes(f"simulated/{store}")["complete"]
    for store in ("raw", "registered", "calibration", "views", "mosaic"):
        assert topography.attributes(f"pictures/{store}")["complete"]


def test_run_ends_with_pages_and_headline_numbers(topography: Checkout) -> None:
    for dataset in ("simulated", "pictures"):
        assert topography.result(f"{dataset}/report.html").stat().st_size > 10_000
    output = topography.snakemake("--forcerun", "topography_report")
    assert "height error, RMSE: " in output
    assert f"report: {topography.result('simulated/report.html')}" in output
    metrics = json.loads(topography.result("simulated/metrics.json").read_text())
    # far below what the sharpest slice alone would give, 0.29
    assert metrics["height_rmse_dz"]["value"] < 0.1
    assert metrics["coverage"]["value"] > 99.9


def test_key_of_a_stage_runs_what_depends_on_it(topography: Checkout) -> None:
    topography.edit("config/datasets/simulated.yaml", "chunk_px: 32", "chunk_px: 64")
    assert topography.planned() == configs("simulated", "ingest", pipeline="topography") | chain("simulated", "ingest")
    topography.edit("config/datasets/simulated.yaml", "preset: XS", "preset: XS, snr: 30")
    both = configs("simulated", "synth", "ingest", pipeline="topography")
    assert topography.planned() == both | chain("simulated", "synth")


@pytest.mark.parametrize(
    ("stage", "old", "new", "first"),
    [
        ("train", "steps: 8", "steps: 9", {"train", "infer", "mosaic", "mesh", "evaluate", "report"}),
        ("evaluate", "estimators: [centroid]", "estimators: [argmax]", {"evaluate", "report"}),
        ("report", "evaluate: {", "report: {picture_px: 200}\nevaluate: {", {"report"}),
    ],
)
def test_key_of_a_later_stage_leaves_the_earlier_ones(
    topography: Checkout, stage: str, old: str, new: str, first: set[str]
) -> None:
    topography.edit("config/datasets/simulated.yaml", old, new)
    assert topography.planned() == configs("simulated", stage, pipeline="topography") | runs("simulated", *first)


def test_code_of_the_report_runs_reports_only(topography: Checkout) -> None:
    topography.edit("src/gigascope/report/topography_plots.py", "MOST_ARROWS = 250", "MOST_ARROWS = 240")
    expected = set[Job]()
    for dataset in ("simulated", "pictures"):
        expected |= changed(dataset, "report")
    assert topography.planned() == expected


def test_lost_mosaic_is_made_again(topography: Checkout) -> None:
    shutil.rmtree(topography.result("simulated/mosaic.zarr"))
    assert topography.planned() == runs("simulated", "mosaic", "mesh", "evaluate", "report")


def test_changed_picture_is_read_again_and_a_touched_one_is_not(topography: Checkout) -> None:
    for path in (topography.root / "stack").iterdir():
        path.touch()
    assert topography.planned() == set()
    write_pictures(topography.root, seed=1)
    assert topography.planned() == configs("pictures", "ingest", pipeline="topography") | chain("pictures", "ingest")


def test_code_of_the_instrument_is_not_that_of_ingest(topography: Checkout) -> None:
    old, new = "read_electrons: float = 2.0", "read_electrons: float = 3.0"
    topography.edit("src/gigascope/topography/instrument/sensor.py", old, new)
    planned = topography.planned()
    assert changed("simulated", "synth") | runs("simulated", "ingest") <= planned
    # it runs because its input is made again, not because its own code changed
    assert not configs("simulated", "ingest", pipeline="topography") & planned
    assert not {job for job in planned if job.dataset == "pictures"}


def test_parts_have_jobs_and_leave_the_result(topography: Checkout) -> None:
    digest = topography.attributes("simulated/raw")["digest"]
    topography.edit("config/datasets/simulated.yaml", "chunk_px: 32, parts: 1", "chunk_px: 32, parts: 3")
    opened = {Job("topography_ingest_open", "simulated")}
    parts = {Job("topography_ingest_part", "simulated", round="0", part=str(n)) for n in range(3)}
    assert changed("simulated", "ingest") | opened | parts <= topography.planned()
    topography.snakemake("--until", "topography_ingest")
    assert topography.attributes("simulated/raw")["digest"] == digest


@pytest.mark.parametrize(
    "inputs",
    [
        "stacks: 'none/cam{camera_row}_{camera_col}.tif'",
        "images: none/*.png",
        "captures: [stack, none]",
    ],
)
def test_optional_dataset_without_its_files_is_left_out(
    inputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path)
    Path("far.yaml").write_text(f"pipeline: topography\nname: far\noptional: true\ninputs: {{{inputs}}}\n")
    there = "stack/s{camera_col}.png" if "stacks" in inputs else "stack" if "captures" in inputs else "stack/s*.png"
    key = inputs.partition(":")[0]
    Path("near.yaml").write_text(f"pipeline: topography\nname: near\noptional: true\ninputs: {{{key}: '{there}'}}\n")
    found = Workflow.load({"datasets": ["far.yaml", "near.yaml"]})
    assert list(found.datasets) == ["near"]
    assert "far is left out: none" in found.notes[0]
