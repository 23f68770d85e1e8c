"""`gigascope doctor --slurm` on a real cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .cluster import Cluster

pytestmark = pytest.mark.slurm


def test_doctor_says_what_the_cluster_is_and_what_fits_it(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    profile = (repository / "profiles/slurm/config.yaml").read_text(encoding="utf-8")
    other = tmp_path / "config.yaml"
    other.write_text(profile.replace("# slurm_partition: cpu", "slurm_partition: cpu"))

    def say(*options: str) -> str:
        command = [str(Path(sys.executable).with_name("gigascope")), "doctor", "--slurm", *options]
        environment = {**os.environ, **cluster.environment}
        run = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=True)
        print(run.stdout)
        return run.stdout

    found = say()
    assert "3 nodes of 2 CPUs and 4 GB, no GPU" in found
    assert "max-threads: 2, as a node of" in found
    assert "bad" not in found
    found = say("--profile", str(other))
    assert "there is no partition cpu" in found
