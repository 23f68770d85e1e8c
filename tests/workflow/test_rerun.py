"""Which jobs run again after a change: real Snakemake, dry runs over a finished result of two datasets."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gigascope.config.tomography import Prealign

from .checkout import Checkout, Job, chain, configs

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ONE = "config/datasets/one.yaml"
TOMOGRAPHY = "src/gigascope/tomography"


def rules(jobs: set[Job]) -> set[str]:
    """Names of the rules among the jobs."""
    return {job.rule for job in jobs}


def test_finished_run_plans_nothing(finished: Checkout) -> None:
    assert finished.planned() == set()


def test_parameter_of_a_stage_reruns_it_and_what_reads_its_results(finished: Checkout) -> None:
    finished.edit(ONE, "iterations: 10", "iterations: 11")
    assert finished.planned() == configs("one", "reconstruct") | chain("one", "reconstruct")


def test_parameter_of_a_late_stage_leaves_the_early_ones_alone(finished: Checkout) -> None:
    finished.append(ONE, "evaluate: {fsc_box: 0.7}\n")
    assert finished.planned() == configs("one", "evaluate") | chain("one", "evaluate")


def test_input_parameter_reruns_the_whole_chain(finished: Checkout) -> None:
    finished.edit(ONE, "snr: 4.0", "snr: 5.0")
    assert finished.planned() == configs("one", "ingest") | chain("one", "ingest")


def test_default_written_out_or_keys_in_another_order_rerun_nothing(finished: Checkout) -> None:
    finished.append(ONE, f"prealign: {{passes: {Prealign().passes}}}\n")
    finished.edit(ONE, "  thickness_nm: 24\n  iterations: 10\n", "  iterations: 10\n  thickness_nm: 24.0\n")
    assert finished.planned() == set()


def test_two_values_swapped_are_noticed(finished: Checkout) -> None:
    finished.edit(ONE, "n_tilts: 9, size_px: 48", "n_tilts: 48, size_px: 9")
    code, output = finished.dry_run()
    assert code == 2, output
    finished.edit(ONE, "n_tilts: 48, size_px: 9", "n_tilts: 48, size_px: 48")
    assert configs("one", "ingest") <= finished.planned()


def test_file_of_another_dataset_reruns_only_that_dataset(finished: Checkout) -> None:
    finished.edit("config/datasets/two.yaml", "iterations: 10", "iterations: 11")
    assert finished.planned() == configs("two", "reconstruct") | chain("two", "reconstruct", halves=False)


def test_seed_reruns_what_has_one(finished: Checkout) -> None:
    finished.append(ONE, "seed: 1\n")
    assert configs("one", "ingest") | chain("one", "ingest") <= finished.planned()


def test_halves_switched_off_drop_out_of_the_graph(finished: Checkout) -> None:
    finished.edit(ONE, "enabled: true", "enabled: false")
    planned = finished.planned()
    assert Job("tomography_halves", "one") not in planned
    assert {Job("tomography_evaluate", "one"), Job("tomography_report", "one")} <= planned
    assert "tomography_reconstruct" not in rules(planned)


def test_comments_in_yaml_and_readme_rerun_nothing(finished: Checkout) -> None:
    finished.append(ONE, "# a remark\n")
    finished.append("README.md", "\nA remark.\n")
    finished.append("config/config.yaml", "# a remark\n")
    finished.append("workflow/rules/tomography.smk", "# a remark\n")
    assert finished.planned() == set()


def test_kernel_edit_reruns_its_users_only(finished: Checkout) -> None:
    finished.append("src/gigascope/kernels/tv/op.py", "\n_edited = 1\n")
    planned = finished.planned("--config", "datasets=" + ONE)
    assert chain("one", "reconstruct") <= planned
    assert configs("one", "reconstruct", "halves") <= planned
    assert rules(planned).isdisjoint({"tomography_ingest", "tomography_prealign"})
    assert not planned & configs("one", "ingest", "prealign", "report")


def test_edit_of_one_stage_function_leaves_its_neighbours_alone(finished: Checkout) -> None:
    source = (finished.root / TOMOGRAPHY / "stages.py").read_text()
    title = '"""Measure residuals, FRC and FSC, and with known truth the error of the shifts in pixels."""'
    assert title in source
    finished.edit(f"{TOMOGRAPHY}/stages.py", title, title + "\n    edited = cfg")
    assert finished.planned("--config", "datasets=" + ONE) == configs("one", "evaluate") | chain("one", "evaluate")


def test_module_that_every_stage_uses_reruns_everything(finished: Checkout) -> None:
    finished.append("src/gigascope/runtime/context.py", "\n_edited = 1\n")
    stages = ("ingest", "prealign", "reconstruct", "halves", "evaluate", "report")
    assert finished.planned("--config", "datasets=" + ONE) == configs("one", *stages) | chain("one", "ingest")


def test_module_that_no_stage_uses_reruns_nothing(finished: Checkout) -> None:
    for module in ("cli.py", "workflow.py", "check.py", "runtime/raw_digest.py"):
        finished.append(f"src/gigascope/{module}", "\n_edited = 1\n")
    assert finished.planned() == set()


def test_comment_docstring_and_formatting_of_code_rerun_nothing(finished: Checkout) -> None:
    finished.append("src/gigascope/kernels/tv/op.py", "\n\n# a remark\n")
    module = finished.root / "src/gigascope/errors.py"
    module.write_text('"""Another docstring."""\n' + module.read_text().split('"""', 2)[2].replace("\n\n\n", "\n\n"))
    assert finished.planned() == set()


def test_another_package_version_reruns_what_imports_it(finished: Checkout, tmp_path: Path) -> None:
    pretended = tmp_path / "site" / "mdocfile-99.0.dist-info"
    pretended.mkdir(parents=True)
    (pretended / "METADATA").write_text("Metadata-Version: 2.1\nName: mdocfile\nVersion: 99.0\n")
    (pretended / "top_level.txt").write_text("mdocfile\n")
    path = os.pathsep.join([str(tmp_path / "site"), finished.environment["PYTHONPATH"]])
    planned = finished.planned("--config", "datasets=" + ONE, PYTHONPATH=path)
    assert planned == configs("one", "ingest") | chain("one", "ingest")


def test_file_times_do_not_matter(finished: Checkout) -> None:
    for path in finished.root.rglob("*"):
        if ".snakemake" not in path.parts:
            os.utime(path, follow_symlinks=False)
    assert finished.planned() == set()


def test_copied_repository_and_results_rerun_nothing(finished: Checkout, tmp_path: Path) -> None:
    # As `cp -r` does: new times everywhere, in another order.
    copy = tmp_path / "copy"
    shutil.copytree(finished.root, copy, symlinks=True, copy_function=shutil.copy)
    assert Checkout(copy).planned() == set()


def test_lost_result_is_made_again(finished: Checkout) -> None:
    finished.result("one/report.html").unlink()
    assert finished.planned() == chain("one", "report")
    finished.result("one/metrics.json").unlink()
    assert finished.planned() == chain("one", "evaluate")
    shutil.rmtree(finished.result("one/tomogram.zarr"))
    assert finished.planned() == chain("one", "reconstruct")


def test_raw_file_is_compared_by_content_not_by_time(finished: Checkout) -> None:
    import mrcfile
    import numpy as np

    views = np.random.default_rng(1).poisson(1000, (9, 48, 48)).astype(np.int16)
    raw = finished.root / "raw.mrc"
    with mrcfile.new(raw, data=views) as file:
        file.voxel_size = 10.0
    angles = raw.with_suffix(".rawtlt")
    angles.write_text("\n".join(map(str, range(-40, 50, 10))) + "\n")
    text = "pipeline: tomography\nname: real\ninputs: {tilt_series: raw.mrc}\n"
    finished.dataset("real").write_text(text)
    only = ("--config", "datasets=config/datasets/real.yaml", "--", "results/real/tilt_series.zarr/zarr.json")
    finished.snakemake(*only)
    assert finished.planned(*only) == set()

    os.utime(raw, (0, 0))
    os.utime(angles)
    assert finished.planned(*only) == set()

    again = configs("real", "ingest") | {Job("tomography_ingest", "real")}
    angles.write_text("\n".join(map(str, range(-41, 49, 10))) + "\n")
    assert finished.planned(*only) == again
    angles.write_text("\n".join(map(str, range(-40, 50, 10))) + "\n")
    assert finished.planned(*only) == set()

    with mrcfile.open(raw, "r+") as file:
        file.data[4, 20, 20] += 1
    assert finished.planned(*only) == again
