"""Parts of a scattered stage as jobs of a real SLURM, one of which is cancelled half way."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from .. import toy
from ..workflow.checkout import Checkout
from .cluster import Cluster
from .test_profile import on

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1200)]

TARGET = "results/one/smooth.zarr/zarr.json"
N_BLOCKS = 24


def n_finished(checkout: Checkout, part: int) -> int:
    """Items that a part of the first round has finished."""
    found = checkout.result("scratch/one").glob(f"toy.smooth-*/round-0.part-{part}/items.jsonl")
    return sum(len(path.read_text().splitlines()) for path in found)


def test_cancelled_part_goes_on_in_its_next_job_to_the_same_result(cluster: Cluster, tmp_path: Path) -> None:
    text = toy.YAML.format(name="one", parts=2, sweeps=0).replace(
        "smooth: {parts: 2}", "smooth: {parts: 2, pause_s: 1}"
    )
    plain = toy.YAML.format(name="plain", parts=1, sweeps=0)
    checkout = Checkout.make(tmp_path / "repository", {"one": text, "plain": plain})
    toy.install(checkout.root)
    checkout.snakemake("--", "results/plain/smooth.zarr/zarr.json")

    process = checkout.start("snakemake", "--profile", "slurm", TARGET, **on(cluster, checkout))
    while n_finished(checkout, 1) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    (held,) = checkout.result("scratch/one").glob("toy.smooth-*/round-0.part-1/lock")
    cluster.ask("scancel", json.loads(held.read_text())["job"])
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output

    # ingest, open, two parts of two rounds, gather, and the part that was cancelled
    assert output.count("has been submitted with SLURM jobid") == 8, output
    log = checkout.result("one/logs/toy.smooth/round-0.part-1.log").read_text()
    went_on = re.search(r"going on: (\d+) of 12 blocks were finished before", log)
    assert went_on is not None, log
    assert int(went_on[1]) >= 3
    assert checkout.attributes("one/smooth")["digest"] == checkout.attributes("plain/smooth")["digest"]
    told = checkout.attributes("one/smooth")["provenance"]["scatter"]
    assert told["parts"] == 2
    assert told["items"] == [N_BLOCKS, N_BLOCKS]
    assert not [path for path in checkout.result("scratch").rglob("*") if path.is_file()]
    assert checkout.planned("--", TARGET) == set()
