"""Naive images that were given, in the four folders of the published layout, from their files to the page."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet
import pytest
import tifffile

from gigascope.check import needs
from gigascope.config.dataset import load_dataset
from gigascope.culture_cli import cultures_in, export_cultures
from gigascope.errors import UserError
from gigascope.store.open import open_store
from gigascope.store.table import read_tsv
from gigascope.synthesis.adaptation.stored import read_adaptation
from gigascope.synthesis.plan import read_header

from ..stage_runs import StageRuns, write_dataset
from .adaptation.ensembles import nuclei, real, simulated

RUNS = StageRuns(
    "synthesis", {"network": "network.pt", "events": "events.out", "metrics": "metrics.json", "page": "report.html"}
)
SVG = {"svg": "http://www.w3.org/2000/svg"}
STAGES = ("ingest", "train", "infer", "evaluate", "report")
TINY: dict[str, Any] = {
    "pipeline": "synthesis",
    "name": "given",
    "device": "cpu",
    "ingest": {"voxel_size_um": [1.5, 0.5, 0.5]},
    "train": {
        "width": 4,
        "blocks": 0,
        "crop": [8, 16, 16],
        "discriminator": "pixel",
        "batch": 1,
        "steps": 2,
        "weights": {"label": 0},
    },
    "evaluate": {"bootstrap": 2, "max_tiles": 4, "patches": 100, "tile": [8, 16, 16]},
}


def write_folders(root: Path, *, labelled: bool = False) -> Path:
    """Two images in each of the folders of B, one in those of A."""
    rng = np.random.default_rng(5)
    for folder, look, n in (("trainA", real, 1), ("inferenceA", real, 1), ("trainB", simulated, 2)):
        (root / folder).mkdir(parents=True)
        for k in range(n):
            tifffile.imwrite(root / folder / f"{k}.tif", look(rng, nuclei(rng, (12, 32, 32), 8)))
    (root / "inferenceB").mkdir()
    for k, shape in enumerate([(12, 32, 32), (12, 32, 40)]):
        labels = nuclei(rng, shape, 8)
        tifffile.imwrite(root / "inferenceB" / f"{k}.tif", simulated(rng, labels))
        if labelled:
            tifffile.imwrite(root / "inferenceB" / f"{k}_label.tif", labels.astype(np.uint16))
    return root


@pytest.fixture(scope="module", params=[False, True], ids=["without labels", "with labels"])
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """Results, and whether inferenceB has labels."""
    folder = tmp_path_factory.mktemp("given")
    data = write_folders(tmp_path_factory.mktemp("data") / "set", labelled=request.param)
    config = write_dataset(folder, TINY, {"inputs": {"folders": str(data)}})
    dataset = load_dataset(config)
    assert [s for s in (*STAGES, "phantoms", "simulate", "prototypes") if dataset.runs(s)] == list(STAGES)
    for stage in STAGES:
        RUNS.run(config, folder, stage)
    return folder, request.param


def test_training_takes_the_naive_images_of_its_folder(given: tuple[Path, bool]) -> None:
    folder, _ = given
    store = open_store(folder / "real.zarr")
    values = np.concatenate([store.image(f"b000{k}").array()[:].ravel() for k in (0, 1)])
    network = read_adaptation(folder / "network.pt")
    assert network.cultures is not None
    # percentiles of trainB alone, which is brighter than all that is real
    low, high = np.percentile(values, [0.1, 99.9], method="inverted_cdf")
    assert (network.cultures.low, network.cultures.high) == (low, high)
    assert high > 2 * store.image("a0000").array()[:].max()


def test_what_is_for_inference_is_adapted_and_compared(given: tuple[Path, bool]) -> None:
    folder, labelled = given
    adapted, store = (open_store(folder / f"{name}.zarr") for name in ("adapted", "real"))
    assert adapted.images == ["b0002", "b0003"]
    assert [adapted.image(n).shape for n in adapted.images] == [store.image(n).shape for n in adapted.images]
    assert adapted.image("b0002").attrs["source"] == "real.zarr/b0002"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {k: metrics[f"images_{k}"]["value"] for k in ("real", "naive", "adapted")} == {
        "real": 2, "naive": 2, "adapted": 2
    }  # fmt: skip
    assert metrics["w1_real_naive"]["value"] > 0
    assert ("det_naive" in metrics, "auc_adapted" in metrics) == (labelled, labelled)
    assert any("have no labels" in note and "simulated" in note for note in metrics["notes"]) is not labelled
    quantities = set(map(str, read_tsv(folder / "nuclei.tsv")[0]["quantity"]))
    assert quantities == ({"diameter", "neighbours"} if labelled else set())


def test_page_says_that_nothing_was_simulated(given: tuple[Path, bool]) -> None:
    folder, _ = given
    page = (folder / "report.html").read_text()
    assert "2 naive images" in page
    assert "nothing was simulated here" in page
    assert "real.zarr" in page
    assert "cultures.zarr" not in page


def test_adapted_images_are_exported(given: tuple[Path, bool], tmp_path: Path) -> None:
    folder, labelled = given
    assert cultures_in(folder) == folder
    export_cultures(folder, tmp_path / "out")
    store = open_store(folder / "adapted.zarr")
    for name in store.images:
        image = tifffile.imread(tmp_path / "out" / "images" / f"{name}.tif")
        np.testing.assert_array_equal(image, store.image(name).array()[:])
        assert (tmp_path / "out" / "labels" / f"{name}.tif").exists() is labelled


def test_plots_and_tables_of_the_page_are_exported(given: tuple[Path, bool], tmp_path: Path) -> None:
    folder, _ = given
    export_cultures(folder, tmp_path / "out", layout="figures")
    figures = sorted((tmp_path / "out" / "figures").iterdir())
    titles = [ElementTree.parse(file).getroot().find("svg:text", SVG) for file in figures]
    said = [title.text for title in titles if title is not None]
    assert {"Mean brightness", "In the plane", "Along the optical axis"} <= set(said)
    assert len(said) == (folder / "report.html").read_text().count('class="plot"')
    assert all("var(" not in file.read_text() for file in figures)
    for name in ("distances", "spectra", "scores"):
        columns, units = read_tsv(folder / f"{name}.tsv")
        parquet = pyarrow.parquet.read_table(tmp_path / "out" / "tables" / f"{name}.parquet")
        assert parquet.column_names == list(columns)
        for column, values in columns.items():
            np.testing.assert_equal(np.asarray(parquet[column].to_pylist(), values.dtype), values)
            assert (parquet.schema.field(column).metadata or {}).get(b"unit", b"").decode() == units.get(column, "")
        rows = list(csv.reader((tmp_path / "out" / "tables" / f"{name}.csv").open(newline="")))
        assert rows[0] == list(columns)
        assert len(rows) == 1 + len(next(iter(columns.values())))


def test_check_says_what_is_left_out(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "set")
    dataset: Any = load_dataset(write_dataset(tmp_path, TINY, {"inputs": {"folders": str(data)}}))
    header: Any = read_header(dataset)
    said = header.describe()
    assert said[-2] == "nothing is simulated, trainB has naive images: phantoms, simulate and prototypes are left out"
    assert said[-1] == (
        "2 naive images of trainB are trained on, 2 of inferenceB are adapted and compared, without scores where there "
        "are no labels"
    )
    rows = {need.stage.partition(".")[2]: need.each for need in needs(dataset, header)}
    assert list(rows) == list(STAGES)
    assert rows["infer"].shape == "2 images of 40 x 32 x 12"
    shutil.rmtree(data / "inferenceB")
    assert "the same are adapted (no inferenceB)" in read_header(dataset).describe()[-1]


def test_folders_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "set")

    def header(**train: Any) -> Any:
        read_header(load_dataset(write_dataset(tmp_path, TINY, {"inputs": {"folders": str(data)}, "train": train})))

    with pytest.raises(UserError, match=r"needs labels of the naive images, and 0\.tif in trainB has none"):
        header(weights={"label": 0.3})
    with pytest.raises(UserError, match="the real images: holds 2 separate crops of 12 x 16 x 24 voxels; 4 are needed"):
        header(crop=[12, 16, 24])
    for file in (data / "trainB").iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(UserError, match="in inferenceB, and none in trainB"):
        header()
    shutil.rmtree(data / "inferenceB")
    with pytest.raises(UserError, match="files in trainB, none of which is an image"):
        header()
