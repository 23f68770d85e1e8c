"""`snakemake --profile slurm`, literally, on a real SLURM."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from gigascope.config.tomography import Halves

from ..workflow.checkout import BIN, TINY, TINY_CULTURES, TINY_STACKS, TINY_VOLUME, Checkout, Job, chain, configs
from .cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(2400)]

ONE = "config/datasets/one.yaml"


@pytest.fixture(scope="session")
def run_on_cluster(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """A tiny dataset of each chain run by the literal command, three in parts, and what it printed."""
    volume = TINY_VOLUME.format(name="volume", parts=2, decode="true")
    datasets = {"one": TINY.format(name="one", halves="true"), "volume": volume}
    datasets["stacks"] = TINY_STACKS.format(name="stacks", parts=2)
    datasets["cultures"] = TINY_CULTURES.format(name="cultures", inputs="inputs: {planted: {images: 2}}", parts=2)
    checkout = Checkout.make(tmp_path_factory.mktemp("slurm") / "my repository", datasets)
    code, output = checkout.run("snakemake", "--profile", "slurm", **on(cluster, checkout))
    assert code == 0, output
    return checkout, output


def on(cluster: Cluster, checkout: Checkout) -> dict[str, str]:
    """Environment in which SLURM's commands reach the cluster and `snakemake` is ours."""
    script = cluster.folder / "bin" / "snakemake"
    if " " in str(BIN) and not script.exists():
        script.write_text(f'#!/bin/sh\nexec {programs(cluster)}/python -m snakemake "$@"\n')
        script.chmod(0o755)
    return {**cluster.environment, "PATH": f"{cluster.folder / 'bin'}:{checkout.environment['PATH']}"}


def quick(cluster: Cluster) -> tuple[str, str]:
    """Snakemake that looks at its jobs often: for tests of what the literal command is not part of."""
    return str(programs(cluster) / "python"), str(Path(__file__).with_name("quick_snakemake.py"))


def programs(cluster: Cluster) -> Path:
    """Where Python is, by a path without a space: Snakemake does not quote it in its jobs."""
    if " " not in str(BIN):
        return BIN
    link = cluster.folder / "venv"
    if not link.exists():
        link.symlink_to(BIN.parent)
    return link / "bin"


def test_literal_command_runs_the_chains_to_their_end(run_on_cluster: tuple[Checkout, str], cluster: Cluster) -> None:
    checkout, output = run_on_cluster
    submitted = re.findall(r"Job (\d+) has been submitted with SLURM jobid", output)
    # Five stages of the tilt series; of the volume ingest, gate, decode and evaluate, and the fit: open, two parts in
    # each of two rounds, gather. Of the stacks synth, ingest, calibrate, train, mosaic, mesh and evaluate, and infer:
    # open, two parts, gather. Of the cultures ingest, phantoms, train, infer and evaluate, and simulate: open, two
    # parts, gather. Reports and configs are made on the submitting host.
    assert len(set(submitted)) == 5 + 4 + 6 + 7 + 4 + 5 + 4, output
    assert len(set(submitted)) == len(submitted), "a job was submitted again:\n" + "\n".join(_accidents(output))
    for dataset in ("one", "volume", "stacks", "cultures"):
        assert checkout.result(f"{dataset}/report.html").stat().st_size > 1000
    assert checkout.attributes("volume/gaussians")["provenance"]["scatter"]["parts"] == 2
    assert checkout.attributes("stacks/views")["provenance"]["scatter"]["parts"] == 2
    assert checkout.attributes("cultures/cultures")["provenance"]["scatter"]["parts"] == 2
    assert not [path for path in checkout.result("scratch").rglob("*") if path.is_file()]
    assert cluster.ask("squeue", "-h", "-t", "PD,R") == ""
    benchmark = checkout.result("one/benchmarks/tomography.reconstruct.tsv").read_text().splitlines()
    assert len(benchmark) == 2


def test_this_machine_has_nothing_left_to_do_after_the_cluster(run_on_cluster: tuple[Checkout, str]) -> None:
    checkout, _ = run_on_cluster
    assert checkout.planned() == set()


def test_queued_job_runs_as_planned_whatever_the_yaml_says_then(
    run_on_cluster: tuple[Checkout, str], cluster: Cluster, tmp_path: Path
) -> None:
    checkout = run_on_cluster[0].clone(tmp_path / "repository")
    environment = {**checkout.environment, **on(cluster, checkout)}
    blockers = [
        subprocess.run(
            ["sbatch", "--parsable", "--exclusive", "--output=/dev/null", "--wrap", "sleep 600"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        ).stdout.strip()
        for _ in cluster.nodes
    ]
    original = checkout.dataset("one").read_text()
    checkout.edit(ONE, "enabled: true", "enabled: true\n  bin: 1")
    process = checkout.start(*quick(cluster), "--profile", "slurm", "results/one/report.html", **on(cluster, checkout))
    while set(cluster.ask("squeue", "-h", "-o", "%A").split()) <= set(blockers):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    assert "PENDING" in cluster.ask("squeue", "-h", "-o", "%T")
    planned = checkout.dataset("one").read_text()
    checkout.edit(ONE, "bin: 1", "bin: 4")
    cluster.ask("scancel", *blockers)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output

    ran = {"halves": Halves(bin=1).model_dump(mode="json")}
    assert checkout.attributes("one/halves")["provenance"]["config"] == ran
    halves = configs("one", "halves") | {Job("tomography_halves", "one")} | chain("one", "evaluate")
    assert checkout.planned() == halves
    checkout.dataset("one").write_text(planned)
    assert checkout.planned() == set()
    checkout.dataset("one").write_text(original)
    assert checkout.planned() == halves


def _accidents(output: str) -> list[str]:
    """What Snakemake said of the jobs that failed, each with its log."""
    return re.findall(r"(?:Error in rule|SLURM job |SLURM status).*?(?=\n\[|\Z)", output, flags=re.DOTALL)
