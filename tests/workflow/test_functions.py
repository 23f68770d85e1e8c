"""What the rules ask for, without Snakemake: commands, resources, GPUs, and the words at the end of a run."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from gigascope.errors import UserError
from gigascope.workflow import GATHER_THREADS, MAX_THREADS, Workflow, gpus_asked
from gigascope.workflow_cluster import bring_own_commands

from .checkout import TINY, TINY_VOLUME


@pytest.fixture
def flow(tmp_path: Path) -> Workflow:
    """One tiny dataset, results in a folder with a space and a brace."""
    path = tmp_path / "one.yaml"
    path.write_text(TINY.format(name="one", halves="false"))
    return Workflow.load({"datasets": str(path), "results": str(tmp_path / "my {results}")})


@pytest.mark.parametrize(
    ("device", "gpus", "asked"),
    [("auto", 0, 0), ("auto", 2, 2), ("cpu", 2, 0), ("cuda", 0, 1), ("cuda:1", 0, 1), ("cuda", 2, 2)],
)
def test_gpus_are_asked_for_only_where_config_or_dataset_says_so(device: str, gpus: int, asked: int) -> None:
    assert gpus_asked(device, gpus) == asked


def test_cluster_jobs_from_a_folder_with_a_space_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/data/my programs/.venv/bin/python")
    monkeypatch.setenv("PATH", "/usr/bin")
    with pytest.raises(UserError, match=re.escape("cannot be started from /data/my programs/.venv/bin")):
        bring_own_commands(on_cluster=True)
    bring_own_commands(on_cluster=False)
    assert os.environ["PATH"] == "/data/my programs/.venv/bin:/usr/bin"


def test_memory_and_time_grow_with_each_attempt(flow: Workflow) -> None:
    wildcards = SimpleNamespace(dataset="one")
    resources = flow.resources("tomography.reconstruct")
    memory = [resources["mem_mb"](wildcards, attempt=n) for n in (1, 2, 3)]
    minutes = [resources["runtime"](wildcards, attempt=n) for n in (1, 2, 3)]
    assert memory[1] == pytest.approx(1.5 * memory[0], abs=1)
    assert memory[2] == pytest.approx(2.25 * memory[0], abs=2)
    assert minutes == [minutes[0], 2 * minutes[0], 3 * minutes[0]]


@pytest.mark.parametrize("halves", [[], ["/data/my {halves}/zarr.json"]])
@pytest.mark.parametrize("in_slurm", [False, True])
def test_command_survives_the_shell(flow: Workflow, tmp_path: Path, halves: list[str], in_slurm: bool) -> None:
    """Formatted as Snakemake does it, and run by bash with a `gigascope` that prints its arguments."""
    from snakemake.utils import format as snakemake_format

    (tmp_path / "gigascope").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "gigascope").chmod(0o755)
    names = ("config", "tilt_series", "prealigned", "tomogram")
    files = SimpleNamespace(**{name: f"in put/{name}.json" for name in names}, halves=halves)
    outputs = SimpleNamespace(metrics="o/metrics.json", fsc="o/f'sc.tsv", frc_views="o/frc_views.tsv")
    log = tmp_path / "a log"
    text = snakemake_format(
        flow.run("tomography.evaluate"),
        input=files,
        output=outputs,
        log=str(log),
        resources=SimpleNamespace(runtime=17),
    )
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **({"SLURM_JOB_ID": "1"} if in_slurm else {})}
    subprocess.run(["bash", "-euo", "pipefail", "-c", text], env=environment, check=True)
    words = ["run", "tomography.evaluate", "--config", "in put/config.json"]
    words += [w for name in names[1:] for w in ("--input", f"{name}=in put/{name}.json")]
    words += [f"--input=halves={path}" for path in halves]
    for name, path in vars(outputs).items():
        words += ["--output", f"{name}={path}"]
    words += ["--scratch", f"{tmp_path}/my {{results}}/scratch"]
    words += ["--time-limit-min", "17"] if in_slurm else []
    assert log.read_text().splitlines() == words


def test_summary_names_error_warnings_and_report(flow: Workflow) -> None:
    assert flow.summary() == []
    folder = Path(flow.results) / "one"
    folder.mkdir(parents=True)
    page = folder / "report.html"
    page.write_text("")
    metrics = {"alignment_error_px": {"value": 0.12345, "unit": "px", "label": "Error"}, "warnings": ["look here"]}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert flow.summary() == ["one:", "  Error: 0.123 px", "  warning: look here", f"  report: {page}"]


def test_summary_of_a_volume_names_ratio_and_quality_and_leaves_out_what_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "volume.yaml"
    path.write_text(TINY_VOLUME.format(name="volume", parts=1, decode="true"))
    flow = Workflow.load({"datasets": str(path), "results": str(tmp_path)})
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "report.html").write_text("")
    metrics = {
        "ratio": {"value": 274.83, "unit": "", "label": "Ratio"},
        "bytes": {"value": 11449.0, "unit": "byte", "label": "Size"},
        "psnr_fg": {"value": None, "unit": "dB", "label": "PSNR"},
        "warnings": [],
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    report = f"  report: {folder / 'report.html'}"
    assert flow.summary() == ["volume:", "  Ratio: 275", "  Size: 11,449 byte", report]


def test_stage_that_computes_on_many_cores_asks_for_them(tmp_path: Path) -> None:
    path = tmp_path / "volume.yaml"
    path.write_text(TINY_VOLUME.format(name="volume", parts=2, decode="true"))
    flow = Workflow.load({"datasets": str(path), "results": str(tmp_path)})
    wildcards = SimpleNamespace(dataset="volume")
    assert flow.threads("compression.evaluate") == MAX_THREADS
    assert flow.threads("compression.ingest") == flow.threads("compression.report") == 1
    gather = flow.threads("compression.fit")
    assert callable(gather)
    assert gather(wildcards) == GATHER_THREADS


def test_jobs_go_to_the_partition_of_the_example_that_they_fit(tmp_path: Path, repository: Path) -> None:
    """With the plugin's own choice: GPUs where they are asked for, else the smallest, and none where none is enough."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="needs the extra slurm")
    from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file

    path = tmp_path / "one.yaml"
    path.write_text(TINY.format(name="one", halves="false"))
    partitions = read_partition_file(repository / "profiles/slurm/partitions.yaml")

    def chosen(gpus: int, stage: str, **more: object) -> str | None:
        values = {"datasets": str(path), "results": str(tmp_path / "results"), "gpus": gpus}
        asked = Workflow.load(values).resources(stage)
        wildcards = SimpleNamespace(dataset="one")
        needs: dict[str, object] = {name: asked[name](wildcards, attempt=1) for name in ("mem_mb", "runtime")}
        resources = needs | {"gpu": asked["gpu"](wildcards)} | more
        job = SimpleNamespace(name=stage, threads=2, resources=resources)
        found: str | None = get_best_partition(partitions, job, logging.getLogger())
        return found

    assert chosen(0, "tomography.reconstruct") == "cpu"
    assert chosen(1, "tomography.reconstruct") == "gpu"
    assert chosen(1, "tomography.ingest") == "cpu"
    assert chosen(0, "tomography.reconstruct", mem_mb=400_000) == "gpu"
    assert chosen(0, "tomography.reconstruct", mem_mb=400_000, runtime=2000) is None
    assert chosen(1, "tomography.reconstruct", gpu_model="v100") is None
