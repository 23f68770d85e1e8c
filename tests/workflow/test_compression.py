"""The compression chain under the real Snakemake: its graph, what runs again after a change, parts, kills."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from .checkout import COMPRESSION, TINY_VOLUME, Checkout, Job, compression_chain, configs
from .crates import check_crate, many

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ONE = "config/datasets/one.yaml"
STORES = ("volume", "gate", "gaussians", "decoded")


def changed(*stages: str) -> set[Job]:
    """The jobs that write the configs of stages of dataset one."""
    return configs("one", *stages, pipeline="compression")


def text(parts: int = 1, decode: str = "true") -> str:
    """The tiny dataset."""
    return TINY_VOLUME.format(name="one", parts=parts, decode=decode)


@pytest.fixture(scope="session")
def compressed_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A tiny volume, compressed to the end; not to be changed."""
    checkout = Checkout.make(tmp_path_factory.mktemp("compressed") / "repository", {"one": text()})
    checkout.snakemake()
    return checkout


@pytest.fixture
def compressed(compressed_once: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished run, to be changed."""
    return compressed_once.clone(tmp_path / "repository")


@pytest.fixture
def planned_only(tmp_path: Path) -> Checkout:
    """A copy of the repository with the tiny dataset, nothing run yet."""
    return Checkout.make(tmp_path / "repository", {"one": text()})


def test_new_volume_plans_every_stage_once(planned_only: Checkout) -> None:
    assert planned_only.planned() == changed(*COMPRESSION) | compression_chain("one", "ingest")


def test_finished_run_has_a_crate(compressed_once: Checkout, tmp_path: Path) -> None:
    found = check_crate(compressed_once, "one", tmp_path / "crate.zip")
    assert {data.id for data in many(found.run("compression.decode")["object"]) if data.type != "PropertyValue"} == {
        "gaussians.gmix", "config/compression.decode.json"
    }  # fmt: skip


def test_volume_that_is_not_to_be_decoded_has_no_such_job(planned_only: Checkout) -> None:
    planned_only.dataset("one").write_text(text(decode="false"))
    stages = [stage for stage in COMPRESSION if stage != "decode"]
    assert planned_only.planned() == changed(*stages) | compression_chain("one", "ingest", decode=False)


def test_fit_in_parts_has_a_job_for_each_part_of_each_round(planned_only: Checkout) -> None:
    planned_only.dataset("one").write_text(text(parts=3))
    rounds = 2  # without passes over the seams: every brick alone, and its finish
    parts = {Job("compression_fit_part", "one", round=str(r), part=str(p)) for r in range(rounds) for p in range(3)}
    between = {Job("scatter_round", "one", "compression.fit", round=str(r)) for r in range(rounds - 1)}
    opened = {Job("compression_fit_open", "one")}
    whole = changed(*COMPRESSION) | compression_chain("one", "ingest")
    assert planned_only.planned() == whole | opened | parts | between


def test_finished_run_plans_nothing(compressed: Checkout) -> None:
    assert compressed.planned() == set()


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [
        ("ingest", "phantom: {shape: [24, 64, 64]}", "phantom: {shape: [24, 64, 64], peak_electrons: 900}"),
        ("gate", "mode: intensity", "mode: intensity, intensity: 0.2"),
        ("fit", "iterations: 20", "iterations: 21"),
        ("decode", "enabled: true", "enabled: true, factor: [1, 2, 2]"),
        ("evaluate", "rates: 1", "rates: 2"),
        ("report", "rates: 1}", "rates: 1}\nreport: {picture_px: 256}"),
    ],
)
def test_parameter_of_a_stage_reruns_it_and_what_reads_its_results(
    compressed: Checkout, stage: str, old: str, new: str
) -> None:
    compressed.edit(ONE, old, new)
    assert compressed.planned() == changed(stage) | compression_chain("one", stage)


def test_decoding_switched_off_drops_out_of_the_graph(compressed: Checkout) -> None:
    compressed.edit(ONE, "enabled: true", "enabled: false")
    assert compressed.planned() == compression_chain("one", "evaluate", decode=False)


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("kernels/gaussians/op.py", ("fit", "decode", "evaluate", "report")),
        ("compression/gmix/entropy.py", ("fit", "decode", "evaluate", "report")),
        ("compression/fitting/density.py", ("fit",)),
        ("compression/peers/codecs.py", ("evaluate",)),
        ("compression/gating/gate_components.py", ("gate",)),
        ("report/compression_plots.py", ("report",)),
    ],
)
def test_edit_of_a_module_reruns_its_users_only(compressed: Checkout, module: str, stages: tuple[str, ...]) -> None:
    compressed.append(f"src/gigascope/{module}", "\n_edited = 1\n")
    assert compressed.planned() == changed(*stages) | compression_chain("one", stages[0])


def test_edits_of_other_chains_and_of_commands_rerun_nothing(compressed: Checkout) -> None:
    for module in ("kernels/tv/op.py", "tomography/joint.py", "compression/decoding/export_ply.py", "decode_cli.py"):
        compressed.append(f"src/gigascope/{module}", "\n_edited = 1\n")
    assert compressed.planned() == set()


def test_edit_of_one_stage_function_leaves_its_neighbours_alone(compressed: Checkout) -> None:
    title = '"""Decode the volume from the compressed file alone."""'
    compressed.edit("src/gigascope/compression/stages.py", title, title + "\n    edited = cfg")
    assert compressed.planned() == changed("decode") | compression_chain("one", "decode")


def test_lost_result_is_made_again(compressed: Checkout) -> None:
    compressed.result("one/curves.tsv").unlink()
    assert compressed.planned() == compression_chain("one", "evaluate")
    compressed.result("one/gaussians.gmix").unlink()
    assert compressed.planned() == compression_chain("one", "fit")


def test_compressed_file_is_compared_by_content_not_by_time(compressed: Checkout) -> None:
    file = compressed.result("one/gaussians.gmix")
    os.utime(file)
    assert compressed.planned() == set()
    # a file larger than what Snakemake compares by itself: 1 MB
    file.write_bytes(file.read_bytes() + bytes(2_000_000))
    compressed.snakemake("--touch")
    os.utime(file)
    assert compressed.planned() == set()


def test_summary_names_ratio_quality_and_report(compressed: Checkout) -> None:
    output = compressed.snakemake("--forcerun", "compression_report")
    assert "Ratio against the original's type: " in output
    assert "PSNR against the noise-free volume, foreground" in output
    assert f"report: {compressed.result('one/report.html')}" in output


def test_killed_at_random_points_in_parts_it_comes_to_the_same_file(
    compressed: Checkout, compressed_once: Checkout
) -> None:
    for made in ("results", ".snakemake"):
        shutil.rmtree(compressed.root / made)
    compressed.dataset("one").write_text(text(parts=2))
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(2):
        process = compressed.start("snakemake", "--profile", "local")
        deadline = time.monotonic() + chance.uniform(8, 40)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        compressed.snakemake("--unlock")
    compressed.snakemake()
    assert compressed.planned() == set()
    for store in STORES:
        digests = [c.attributes(f"one/{store}")["digest"] for c in (compressed, compressed_once)]
        assert digests[0] == digests[1], store
    files = [c.result("one/gaussians.gmix").read_bytes() for c in (compressed, compressed_once)]
    assert files[0] == files[1]
    assert not [path for path in compressed.result("scratch").rglob("*") if path.is_file()]
