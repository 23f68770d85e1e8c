"""`gigascope explain` and `gigascope status` on a finished run: what would run again, and why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gigascope.errors import UserError
from gigascope.explain import print_explain
from gigascope.runtime import lock
from gigascope.status import print_status

from .checkout import Checkout, chain

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ONE = "config/datasets/one.yaml"
CONFIG = Path("config/config.yaml")


def explained(capsys: pytest.CaptureFixture[str], path: str = "results/one") -> dict[str, list[str]]:
    """Reasons of every stage, by its name."""
    print_explain(Path(path), CONFIG)
    found: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(("runs again", "as it is")):
            found[line.split()[-1]] = []
        elif line.startswith(" "):
            found[list(found)[-1]].append(line.strip())
    return found


def test_finished_run_stays_as_it_is(
    finished: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.root)
    found = explained(capsys)
    assert list(found) == [f"tomography.{job.rule.removeprefix('tomography_')}" for job in _chain_in_order()]
    assert not any(found.values()), found


def _chain_in_order() -> list:
    order = ("ingest", "prealign", "reconstruct", "halves", "evaluate", "report")
    return sorted(chain("one", "ingest"), key=lambda job: order.index(job.rule.partition("_")[2]))


def test_reasons_name_key_input_package_and_seed(
    finished: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.root)
    finished.edit(ONE, "enabled: true", "enabled: true\n  bin: 4")
    found = explained(capsys)
    assert found["tomography.halves"] == ["halves.bin: 2 -> 4"]
    assert found["tomography.evaluate"] == ["follows halves"]
    assert not found["tomography.reconstruct"]
    # the same stages that Snakemake plans
    planned = {job.rule.replace("_", ".", 1) for job in finished.planned() if job.rule.startswith("tomography")}
    assert planned == {name for name, reasons in found.items() if reasons}

    root = finished.result("one/prealigned.zarr/zarr.json")
    kept = json.loads(root.read_text())
    made = kept["attributes"]["gigascope"]["provenance"]
    made["packages"]["torch"] = "1.0"
    made["seed"] = 7
    made["inputs"]["tilt_series"]["digest"] = "0" * 64
    module = next(iter(made["modules"]))
    made["modules"][module] = made["code"] = "0" * 16
    root.write_text(json.dumps(kept))
    reasons = explained(capsys, "results/one/prealigned.zarr")
    assert list(reasons) == ["tomography.prealign"]
    text = "\n".join(reasons["tomography.prealign"])
    for words in ("package torch: 1.0 ->", "seed: 7 -> 0", "input tilt_series: ", f"code of {module}"):
        assert words in text


def test_lost_store_and_unknown_dataset_are_named(
    finished: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.root)
    finished.result("one/halves.zarr/zarr.json").unlink()
    (reason,) = explained(capsys)["tomography.halves"]
    assert reason.startswith("halves.zarr: ")
    finished.result("other").mkdir()
    with pytest.raises(UserError, match="no dataset is named 'other'"):
        print_explain(Path("results/other"), CONFIG)


def test_status_of_done_running_and_stopped_stages(
    finished: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.root)
    print_status(CONFIG, [], False, None)
    text = capsys.readouterr().out
    assert "11 stages: 11 done" in text, text
    # evaluation begins anew: another config, and a process at work
    later = finished.result("one/benchmarks/tomography.evaluate.tsv").stat().st_mtime + 10
    os.utime(finished.result("one/config/tomography.evaluate.json"), (later, later))
    folder = finished.result("scratch/one/tomography.evaluate-12ab")
    folder.mkdir(parents=True)
    entry = {"time": later, "what": "resolution", "unit": "shell", "done": 3, "total": 12, "seconds": 3.0, "note": ""}
    (folder / "progress.jsonl").write_text(json.dumps(entry) + "\n")
    with lock.held(folder):
        print_status(CONFIG, ["one"], True, None)
    text = capsys.readouterr().out
    running = next(line for line in text.splitlines() if " evaluate " in line)
    assert "running" in running
    assert "25 %" in running
    assert f"process {os.getpid()}" in running
    assert "resolution 3/12" in running
    assert "6 stages: 4 done, 1 running, 1 waiting" in text, text
    print_status(CONFIG, [], False, None)
    text = capsys.readouterr().out
    assert "stopped" in next(line for line in text.splitlines() if " evaluate " in line)
    with pytest.raises(UserError, match="there is no dataset 'three'"):
        print_status(CONFIG, ["three"], False, None)
