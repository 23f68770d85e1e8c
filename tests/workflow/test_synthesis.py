"""The synthesis chain under the real Snakemake: graphs with and without real images, what runs again after a change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from .checkout import TINY_CULTURES, Checkout, Job, configs
from .crates import check_crate, many

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

PLANTED = TINY_CULTURES.format(name="planted", inputs="inputs: {planted: {images: 2}}", parts=1)
ALONE = TINY_CULTURES.format(name="alone", inputs="", parts=1)
# Whose results a stage reads.
READS = {
    "ingest": (),
    "phantoms": (),
    "simulate": ("phantoms",),
    "train": ("ingest", "simulate"),
    "infer": ("simulate", "train"),
    "evaluate": ("ingest", "simulate", "train", "infer"),
    "report": ("ingest", "phantoms", "simulate", "train", "infer", "evaluate"),
}
WITHOUT_REAL = ("phantoms", "simulate", "evaluate", "report")


def runs(dataset: str, *first: str, of: tuple[str, ...] = tuple(READS)) -> set[Job]:
    """Jobs of these stages and of all that follow from them."""
    found = set(first)
    for stage, sources in READS.items():
        if stage in of and found & set(sources):
            found.add(stage)
    return {Job(f"synthesis_{stage}", dataset) for stage in found}


def changed(dataset: str, *stages: str) -> set[Job]:
    """The jobs that write the configs of stages."""
    return configs(dataset, *stages, pipeline="synthesis")


@pytest.fixture(scope="session")
def cultures_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Tiny cultures with a planted domain, to the end; not to be changed."""
    checkout = Checkout.make(tmp_path_factory.mktemp("cultures") / "repository", {"planted": PLANTED})
    checkout.snakemake()
    return checkout


@pytest.fixture
def cultures(cultures_once: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished run, to be changed."""
    return cultures_once.clone(tmp_path / "repository")


def test_finished_run_plans_nothing(cultures: Checkout) -> None:
    assert cultures.planned() == set()


def test_finished_run_has_a_crate(cultures_once: Checkout, tmp_path: Path) -> None:
    found = check_crate(cultures_once, "planted", tmp_path / "crate.zip")
    assert found.crate.get("network.pt") in many(found.run("synthesis.infer")["object"])


def test_cultures_alone_have_no_real_images_and_no_training(tmp_path: Path) -> None:
    checkout = Checkout.make(tmp_path / "repository", {"alone": ALONE})
    planned = checkout.planned()
    assert planned == changed("alone", *WITHOUT_REAL) | runs("alone", "phantoms", of=WITHOUT_REAL)


def test_given_naive_images_take_the_place_of_simulated_ones(tmp_path: Path) -> None:
    """Rules that simulate are no part of the graph, and stages that read cultures read the given images instead."""
    for n, folder in enumerate(("trainA", "trainB", "inferenceB")):
        (tmp_path / "set" / folder).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "set" / folder / "a.tif", np.full((16, 32, 32), n + 1, np.uint8))
    keys = f"inputs: {{folders: {tmp_path}/set}}\ningest: {{voxel_size_um: [1.5, 1, 1]}}"
    dataset = TINY_CULTURES.format(name="given", inputs=keys, parts=1)
    dataset = dataset.replace("steps: 2", "steps: 2, weights: {label: 0}")
    checkout = Checkout.make(tmp_path / "repository", {"given": dataset})
    expected = tuple(stage for stage in READS if stage not in ("phantoms", "simulate"))
    assert checkout.planned() == changed("given", *expected) | runs("given", "ingest", of=expected)
    (tmp_path / "set" / "trainB" / "a.tif").unlink()
    (tmp_path / "set" / "inferenceB" / "a.tif").unlink()
    assert checkout.planned() == changed("given", *READS) | runs("given", "ingest", "phantoms")


@pytest.mark.parametrize(
    ("old", "new", "stages"),
    [
        # a planted domain has the phantoms and the microscope of its dataset
        ("semi_axes_um: [14]", "semi_axes_um: [14.5]", ("ingest", "phantoms")),
        ("preset: fast", "preset: fast, camera: {peak_electrons: 150}", ("ingest", "simulate")),
        # but not as many spheroids
        ("n_spheroids: 2", "n_spheroids: 3", ("phantoms",)),
        ("images: 2", "images: 2, haze_fraction: 0.3", ("ingest",)),
        ("steps: 2", "steps: 3", ("train",)),
        ("steps: 2}", "steps: 2}\ninfer: {overlap: 0.25}", ("infer",)),
        ("bootstrap: 5", "bootstrap: 6", ("evaluate",)),
        ("steps: 2}", "steps: 2}\nreport: {picture_px: 256}", ("report",)),
    ],
)
def test_parameter_of_a_stage_reruns_it_and_what_reads_its_results(
    cultures: Checkout, old: str, new: str, stages: tuple[str, ...]
) -> None:
    cultures.edit("config/datasets/planted.yaml", old, new)
    assert cultures.planned() == changed("planted", *stages) | runs("planted", *stages)


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("kernels/cells/cpu_raster.py", ("ingest", "phantoms", "simulate")),
        ("synthesis/adaptation/losses.py", ("train",)),
        ("metrics/spectrum.py", ("evaluate",)),
        ("report/synthesis.py", ("report",)),
    ],
)
def test_edit_of_a_module_reruns_its_users_only(cultures: Checkout, module: str, stages: tuple[str, ...]) -> None:
    cultures.append(f"src/gigascope/{module}", "\n_edited = 1\n")
    planned = cultures.planned()
    assert {job for job in planned if job.rule != "stage_config"} == runs("planted", *stages)


def test_edits_of_other_chains_rerun_nothing(cultures: Checkout) -> None:
    for module in ("kernels/tv/op.py", "compression/mixture.py", "topography/mosaic/mesh.py", "culture_cli.py"):
        cultures.append(f"src/gigascope/{module}", "\n_edited = 1\n")
    assert cultures.planned() == set()


def test_lost_result_is_made_again(cultures: Checkout) -> None:
    cultures.result("planted/spectra.tsv").unlink()
    assert cultures.planned() == runs("planted", "evaluate")
    cultures.result("planted/network.pt").unlink()
    assert cultures.planned() == runs("planted", "train")
