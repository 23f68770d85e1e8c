"""`gigascope crate`: the RO-Crate of a finished dataset, read back; and results of which none is written."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from gigascope.cli import main

from .checkout import Checkout
from .crates import METADATA, Crate, many, without_network

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

STORES = ("tilt_series", "prealigned", "tomogram", "aligned", "halves")
STAGES = ("ingest", "prealign", "reconstruct", "halves", "evaluate", "report")
AGENT = "Ada Lovelace <https://orcid.org/0000-0001-2345-6789>"


@pytest.fixture
def here(finished: Checkout, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A copy of the finished run, to be changed, as the working folder."""
    monkeypatch.chdir(finished.root)
    return finished


def crate(*words: str) -> None:
    """Run `gigascope crate`, which has to succeed."""
    with pytest.raises(SystemExit) as exit_:
        main(["crate", *words])
    assert exit_.value.code == 0


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The message with which `gigascope crate` ends, with the exit code of a user's mistake."""
    with pytest.raises(SystemExit) as exit_:
        main(["crate", *words])
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_result_becomes_a_crate_that_names_every_store_with_its_digest(
    here: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in here.result("one").rglob("*")}
    crate("results/one", "--agent", AGENT, "--license", "https://creativecommons.org/licenses/by/4.0/")
    assert "6 stages" in capsys.readouterr().out
    found = Crate(here.result("one"))
    found.check()
    found.check_links()
    for store in STORES:
        assert found.digest(f"{store}.zarr/") == here.attributes(f"one/{store}")["digest"]
        files = [path for path in here.result(f"one/{store}.zarr").rglob("*") if path.is_file()]
        checksums = [path for path in files if "checksums" in path.parts]
        size = sum(path.stat().st_size for path in files if path not in checksums)
        assert int(found.crate.get(f"{store}.zarr/")["contentSize"]) == size, "all but the table of checksums itself"
    # the data are described where they are
    assert all(path.stat().st_mtime_ns == at for path, at in before.items() if path.is_file())
    assert not [path.name for path in here.result("one").glob(".crate-*")]
    root = found.crate.root_dataset
    assert root["license"].id == "https://creativecommons.org/licenses/by/4.0/"
    agents = {action["agent"]["name"] for action in found.of_type("CreateAction")}
    assert agents == {"Ada Lovelace"}
    # nothing of it makes Snakemake run again, and it can be written again
    assert here.planned() == set()
    crate("results/one")
    assert all("agent" not in action for action in Crate(here.result("one")).of_type("CreateAction"))


def test_runs_say_what_they_were_made_with(here: Checkout) -> None:
    crate("results/one")
    found = Crate(here.result("one"))
    made = here.attributes("one/tomogram")["provenance"]
    run, tool = found.run("tomography.reconstruct"), found.crate.get("#tomography.reconstruct")
    assert run["endTime"] == made["finished"]
    assert " ".join(made["command"][1:]) in run["description"]
    assert made["host"] in run["description"]
    assert made["device"] in run["description"]
    assert tool["identifier"]["value"] == made["code"]
    packages = {software["name"]: software["softwareVersion"] for software in tool["softwareRequirements"]}
    assert packages == {**made["packages"], "Python": made["python"]}
    used = {value["name"]: value["value"] for value in many(run["resourceUsage"])}
    assert used["realTime"] == str(round(1000 * made["wall_s"]))
    assert used["peakRSS"] == str(made["peak_memory_bytes"])
    told = {value["name"]: value["value"] for value in many(run["object"]) if value.type == "PropertyValue"}
    assert told["reconstruct.iterations"] == "10"
    assert told["reconstruct.align.groups"] == "2"
    assert told["seed"] == "0"
    assert {data.id for data in many(run["object"]) if data.type != "PropertyValue"} == {
        "tilt_series.zarr/", "prealigned.zarr/", "config/tomography.reconstruct.json"
    }  # fmt: skip
    assert {"tomogram.zarr/", "aligned.zarr/", "shifts.tsv", "history.tsv", "shifts.xf"} <= {
        data.id for data in many(run["result"])
    }
    # of a stage without a store: its files, log and benchmark
    page = found.run("tomography.report")
    assert page["result"].id == "report.html"
    assert found.run("tomography.evaluate")["endTime"] <= page["endTime"]
    assert found.crate.get("logs/tomography.report.log")["about"] is page
    assert found.crate.get("metrics.json")["exampleOfWork"]
    assert "Device: CPU" in page["description"]


@pytest.mark.parametrize("out", ["one.crate.zip", "out/one"])
def test_light_crate_holds_the_workflow_and_the_tables_but_no_store(here: Checkout, out: str, tmp_path: Path) -> None:
    crate("results/one", out)
    shutil.move(here.root / out, tmp_path / "moved")
    found = Crate(tmp_path / "moved")
    found.check()
    found.check_links()
    names = {path.relative_to(found.folder).as_posix() for path in found.folder.rglob("*") if path.is_file()}
    assert not [name for name in names if ".zarr" in name]
    own = ("report.html", "metrics.json", "shifts.tsv", "config/tomography.halves.json", "logs/tomography.halves.log")
    kit = (
        "Snakefile",
        "workflow/rules/tomography.smk",
        "config/datasets/one.yaml",
        "config/config.yaml",
        "envs/cpu.yaml",
    )
    assert {*own, *(f"workflow/{name}" for name in kit)} <= names
    for store in STORES:
        assert found.digest(f"#{store}.zarr") == here.attributes(f"one/{store}")["digest"]
        assert int(found.crate.get(f"#{store}.zarr")["contentSize"]) > 1000
    page = (found.folder / "ro-crate-preview.html").read_text()
    assert all(f"tomography.{stage}" in page for stage in STAGES)
    if out.endswith(".zip"):
        return
    # what it holds of the workflow runs as it is
    work = Checkout(found.folder / "workflow")
    shutil.copytree(here.root / "src", work.root / "src")
    shutil.copytree(here.root / "profiles", work.root / "profiles")
    shutil.copy(here.root / "README.md", work.root)
    (work.root / "local").symlink_to("profiles/local")
    assert {job.rule for job in work.planned()} == {"stage_config", *(f"tomography_{stage}" for stage in STAGES)}


def test_crate_of_an_unfinished_result_is_refused_with_what_is_missing(
    here: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    here.result("one/halves.zarr/zarr.json").unlink()
    here.result("one/report.html").unlink()
    text = refused(capsys, "results/one")
    assert "2 of 6 stages are missing" in text
    assert "tomography.halves (halves.zarr: is unfinished" in text
    assert "tomography.report (report.html: there is no such file)" in text
    assert not here.result(f"one/{METADATA}").exists()
    shutil.rmtree(here.result("one/config"))
    assert "6 of 6 stages are missing" in refused(capsys, "results/one")


def test_crate_of_a_changed_result_is_refused(here: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = here.dataset("one")
    text = yaml.read_text()
    yaml.write_text(text.replace("enabled: true", "enabled: true\n  bin: 4"))
    assert "tomography.halves has other settings in the YAML than" in refused(capsys, "results/one")
    yaml.write_text(text + "seed: 3\n")
    assert "tomography.ingest has other settings in the YAML than" in refused(capsys, "results/one")
    yaml.write_text(text + "# a remark\n")
    crate("results/one", "remark.zip")
    # a store that is not the one the next stage was made from
    root = here.result("one/prealigned.zarr/zarr.json")
    kept = root.read_text()
    values = json.loads(kept)
    values["attributes"]["gigascope"]["digest"] = "0" * 64
    root.write_text(json.dumps(values))
    assert "prealigned.zarr is another one than tomography.reconstruct was made from" in refused(capsys, "results/one")
    root.write_text(kept)
    # a store that was made after the tables that tell of it
    values = json.loads(kept)
    values["attributes"]["gigascope"]["provenance"]["finished"] = "2999-01-01T00:00:00+00:00"
    root.write_text(json.dumps(values))
    assert "prealigned.zarr is newer than what tomography.evaluate made of it" in refused(capsys, "results/one")
    root.write_text(kept)
    # a plan that was not carried out
    plan = here.result("one/config/tomography.evaluate.json")
    kept = plan.read_text()
    plan.write_text(json.dumps({**json.loads(kept), "code": "0" * 16}))
    assert "tomography.evaluate was planned anew and not run since" in refused(capsys, "results/one")
    plan.write_text(kept)
    crate("results/one", "again.zip")


def test_crate_of_nothing_and_into_something_is_refused(
    here: Checkout, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "there is no such result" in refused(capsys, "results/other")
    here.result("other").mkdir()
    text = refused(capsys, "results/other")
    assert "no dataset is known that this is the result of" in text
    assert "--dataset FILE" in text
    assert "is the dataset one, not other" in refused(capsys, "results/other", "--dataset", "config/datasets/one.yaml")
    (here.root / "there.zip").touch()
    assert "there.zip: is there already" in refused(capsys, "results/one", "there.zip")
    assert "is not NAME <ADDRESS>" in refused(capsys, "results/one", "--agent", "Ada")
    elsewhere = tmp_path / "config" / "config.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text("datasets: config/datasets/*.yaml\n")
    words = ("--config", str(elsewhere), "--dataset", "config/datasets/one.yaml")
    assert "there is no Snakefile here" in refused(capsys, "results/one", *words)
    assert "no such file" in refused(capsys, "results/one", "--config", str(tmp_path / "config.yaml"))


@pytest.mark.parametrize("out", [None, "light"])
def test_crate_passes_an_independent_validator(here: Checkout, out: str | None) -> None:
    validator = shutil.which("rocrate-validator")
    if validator is None:
        pytest.skip("no rocrate-validator on PATH: its rich is another one, so `pip install roc-validator` elsewhere")
    crate("results/one", *([out] if out else []))
    metadata = here.root / (out or "results/one") / METADATA
    metadata.write_text(json.dumps(without_network(json.loads(metadata.read_text()))))
    words = ["validate", "--no-paging", "--profile-identifier", "provenance-run-crate-0.5", str(metadata.parent)]
    run = subprocess.run([validator, "--no-interactive", *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
