"""The job graph as it is planned: what is in it, how quickly, and what a mistake in the config says."""

from __future__ import annotations

import os
import subprocess

import pytest

from .checkout import REPOSITORY, TINY, Checkout, chain, configs

pytestmark = pytest.mark.workflow

STAGES = ("ingest", "prealign", "reconstruct", "halves", "evaluate", "report")


def failure(checkout: Checkout, *arguments: str) -> str:
    """What a dry run that has to fail for the user's mistake says, without Snakemake's own lines."""
    code, output = checkout.dry_run(*arguments)
    assert code == 2, output
    assert "Traceback" not in output
    assert "Exception" not in output
    return output[output.index("error: ") :].strip()


def test_new_dataset_plans_every_stage_once(fresh: Checkout) -> None:
    assert fresh.planned() == configs("one", *STAGES) | chain("one", "ingest")


def test_dataset_without_halves_has_no_such_job(fresh: Checkout) -> None:
    fresh.dataset("one").write_text(TINY.format(name="one", halves="false"))
    stages = [stage for stage in STAGES if stage != "halves"]
    assert fresh.planned() == configs("one", *stages) | chain("one", "ingest", halves=False)


def test_repository_config_and_its_datasets_are_valid() -> None:
    environment = {**os.environ, "PATH": f"{REPOSITORY / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"}
    command = ["snakemake", "--dry-run", "--quiet", "--profile", "local", "--nolock"]
    run = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_optional_dataset_without_its_input_is_left_out_with_a_note(fresh: Checkout) -> None:
    text = "pipeline: tomography\nname: far\noptional: true\ninputs: {tilt_series: nowhere/far.mrc}\n"
    fresh.dataset("far").write_text(text)
    _, output = fresh.dry_run()
    assert "far is left out: nowhere/far.mrc is not there (config/datasets/far.yaml is optional)" in output
    assert fresh.planned() == configs("one", *STAGES) | chain("one", "ingest")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reconstrct: {}\n", "one.yaml:11: reconstrct: unknown key. Did you mean reconstruct?"),
        ("device: gpu\n", "one.yaml:11: device:"),
        ("evaluate: {fsc_box: 2}\n", "one.yaml:11: evaluate.fsc_box: should be less than or equal to 1, found 2."),
        ("x: [\n", "not valid YAML"),
    ],
)
def test_mistake_in_a_dataset_is_one_message_with_its_line(fresh: Checkout, text: str, message: str) -> None:
    fresh.append("config/datasets/one.yaml", text)
    said = failure(fresh)
    assert message in said
    assert "config/datasets/one.yaml" in said
    assert said.count("\n") == 0


def test_missing_raw_file_is_one_message_and_leaves_no_lock(fresh: Checkout) -> None:
    text = "pipeline: tomography\nname: far\ninputs: {tilt_series: nowhere/far.mrc}\n"
    fresh.dataset("far").write_text(text)
    said = failure(fresh)
    assert said == "error: nowhere/far.mrc: no such file or folder. Check inputs.tilt_series."
    code, _ = fresh.run("snakemake", "--profile", "local")
    assert code == 2
    fresh.dataset("far").unlink()
    assert fresh.planned() == configs("one", *STAGES) | chain("one", "ingest")


def test_mistakes_in_config_yaml_are_named(fresh: Checkout) -> None:
    said = failure(fresh, "--config", "reslts=x")
    assert said == "error: config/config.yaml: reslts: unknown key. Did you mean results?"
    assert "no file fits config/nothing/*.yaml" in failure(fresh, "--config", "datasets=config/nothing/*.yaml")
    assert "config/none.yaml: no such file" in failure(fresh, "--config", "datasets=config/none.yaml")


def test_two_datasets_of_one_name_are_refused(fresh: Checkout) -> None:
    fresh.dataset("other").write_text(TINY.format(name="one", halves="true"))
    said = failure(fresh)
    assert "two datasets are named one: config/datasets/one.yaml and config/datasets/other.yaml" in said


def test_lint_finds_nothing(fresh: Checkout) -> None:
    code, output = fresh.run("snakemake", "--lint")
    assert code == 0, output
    code, output = fresh.run("snakefmt", "--check", "Snakefile", "workflow")
    assert code == 0, output


def test_results_go_where_the_config_says_even_with_a_space(fresh: Checkout) -> None:
    _, output = fresh.dry_run("--config", "results=my results")
    assert "my results/one/report.html" in output
