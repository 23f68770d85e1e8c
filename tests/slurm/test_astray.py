"""`snakemake --profile slurm` where it cannot work: each time it ends soon, and says what is wrong."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import time
from pathlib import Path

import pytest

from .. import toy
from ..workflow.checkout import Checkout
from .cluster import Cluster, running_cluster
from .test_profile import on, quick

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

TARGET = "results/one/volume.zarr/zarr.json"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A toy dataset, nothing run yet."""
    made = Checkout.make(tmp_path / "repository", {"one": toy.YAML.format(name="one", parts=1, sweeps=0)})
    toy.install(made.root)
    return made


def test_controller_that_is_away(installed: None, checkout: Checkout) -> None:
    with running_cluster(n_nodes=1, patience_s=3) as cluster:
        cluster.stop_controller()
        environment = on(cluster, checkout)
        begun = time.monotonic()
        code, output = checkout.run("snakemake", "--profile", "slurm", "--", TARGET, **environment)
        print(output, f"{time.monotonic() - begun:.0f} s")
        assert code == 2, output
        assert "error: squeue: " in output
        assert "The controller may be down: ask the site's administrators." in output
        assert "Traceback" not in output
        assert not list(checkout.root.glob(".snakemake/locks/*"))
        code, output = checkout.run("gigascope", "doctor", "--slurm", **environment)
        print(output)
        assert code == 2, output
        assert "The controller may be down" in output
        assert "Traceback" not in output


def test_partition_that_there_is_not(cluster: Cluster, checkout: Checkout) -> None:
    words = ("--retries", "0", "--default-resources", "slurm_partition=nonsense", "--", TARGET)
    code, output = checkout.run(*quick(cluster), "--profile", "slurm", *words, **on(cluster, checkout))
    print(output)
    assert code == 1, output
    assert "invalid partition specified: nonsense" in output
    assert "Traceback" not in output


def unseen(checkout: Checkout, cluster: Cluster, folder: Path, *words: str) -> tuple[int, str]:
    """Run Snakemake where a folder is another one than the nodes have there."""
    folder.mkdir(exist_ok=True)
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("no file system can be mounted here: run this test as root")
    command = [*quick(cluster), "--profile", "slurm", "--retries", "0", "--latency-wait", "5", *words]
    script = f"mount -t tmpfs tmpfs {shlex.quote(str(folder))} && exec {shlex.join(command)}"
    begun = time.monotonic()
    code, output = checkout.run("unshare", "--mount", "sh", "-c", script, **on(cluster, checkout))
    print(output, f"{time.monotonic() - begun:.0f} s")
    return code, output


def test_results_and_logs_that_the_nodes_do_not_see(cluster: Cluster, checkout: Checkout) -> None:
    code, output = unseen(checkout, cluster, checkout.root / "results", "--", TARGET)
    assert code == 1, output
    assert f"error: {checkout.root}: SLURM could not even write the logs of the jobs that failed" in output
    assert "the nodes may not see this folder. Move it to a disk that all nodes see" in output


def test_results_elsewhere_that_the_nodes_do_not_see(cluster: Cluster, checkout: Checkout, tmp_path: Path) -> None:
    results = tmp_path / "elsewhere"
    words = ("--config", f"results={results}", "--", f"{results}/one/volume.zarr/zarr.json")
    code, output = unseen(checkout, cluster, results, *words)
    assert code == 1, output
    assert f"error: {results}: on {socket.gethostname()} nothing is there of what Snakemake wrote. Put" in output
    assert not list(results.iterdir())
