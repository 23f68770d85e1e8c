"""The model of a cluster behind docs/scaling.md: graphs whose time can be said without it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "benchmarks" / "cluster_model.py"


@pytest.fixture(scope="module")
def model() -> Any:
    spec = importlib.util.spec_from_file_location("cluster_model", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["cluster_model"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["cluster_model"]


def cluster(model: Any, **given: Any) -> Any:
    """One node of one CPU, and a scheduler that takes no time."""
    instant = {"nodes": 1, "cpus": 1, "submit_s": 0.0, "start_s": 0.0, "notice_s": 0.0, "memory": 100.0}
    return model.Cluster(**{**instant, "disk": 1e9, "link": 1e9, **given})


def test_jobs_of_one_node_follow_each_other(model: Any) -> None:
    found = model.simulate([model.Group("a", 2, 10.0)], cluster(model))
    assert found.seconds == pytest.approx(20)
    assert found.cpu_s == pytest.approx(20)
    assert found.limits["nodes"] == pytest.approx(10)


def test_jobs_run_beside_each_other_where_there_is_room(model: Any) -> None:
    jobs = [model.Group("a", 4, 10.0, cpus=2, memory=30.0)]
    assert model.simulate(jobs, cluster(model, cpus=8)).seconds == pytest.approx(20)  # memory for three
    assert model.simulate(jobs, cluster(model, cpus=4, memory=200.0)).seconds == pytest.approx(20)
    assert model.simulate(jobs, cluster(model, nodes=2, cpus=4)).seconds == pytest.approx(10)


def test_group_waits_for_those_before_it(model: Any) -> None:
    chain = [model.Group("a", 3, 5.0), model.Group("b", 1, 7.0, after=(0,)), model.Group("c", 2, 1.0, after=(1,))]
    found = model.simulate(chain, cluster(model, cpus=3))
    assert found.seconds == pytest.approx(5 + 7 + 1)
    assert found.alone == pytest.approx({"b": 7})
    assert found.spans[2] == pytest.approx((12, 13))


def test_shared_disk_holds_back_what_reads_most(model: Any) -> None:
    jobs = [model.Group("a", 4, 1.0, n_bytes=100.0)]
    found = model.simulate(jobs, cluster(model, cpus=4, disk=40.0, link=20.0))
    assert found.seconds == pytest.approx(400 / 40)
    assert found.limits["disk"] == pytest.approx(9)
    # one alone is held back by its own link, and two of unlike sizes share until the smaller is done
    assert model.simulate([model.Group("a", 1, 1.0, n_bytes=100.0)], cluster(model, link=20.0)).seconds == 5
    unlike = [model.Group("a", 1, 0.0, n_bytes=10.0), model.Group("b", 1, 0.0, n_bytes=30.0)]
    found = model.simulate(unlike, cluster(model, cpus=2, disk=10.0, link=10.0))
    assert found.spans[0][1] == pytest.approx(2)
    assert found.seconds == pytest.approx(4)


def test_queue_holds_jobs_back_from_free_nodes(model: Any) -> None:
    found = model.simulate([model.Group("a", 10, 10.0)], cluster(model, nodes=10, queue=2))
    assert found.seconds == pytest.approx(50)
    assert found.limits["queue"] == pytest.approx(40)


def test_scheduler_takes_its_time_at_every_level(model: Any) -> None:
    chain = [model.Group("a", 1, 5.0), model.Group("b", 1, 5.0, after=(0,))]
    found = model.simulate(chain, cluster(model, start_s=20.0, notice_s=10.0))
    assert found.seconds == pytest.approx(2 * (20 + 5 + 10))
    assert found.limits["scheduler"] == pytest.approx(60)
    many = model.simulate([model.Group("a", 100, 0.0)], cluster(model, cpus=100, submit_s=0.5))
    assert many.seconds == pytest.approx(50)


def test_host_runs_its_own_jobs(model: Any) -> None:
    jobs = [model.Group("a", 4, 10.0, on_host=True), model.Group("b", 1, 10.0)]
    found = model.simulate(jobs, cluster(model, host_cpus=2, start_s=3.0))
    assert found.seconds == pytest.approx(20)
    assert found.cpu_s == pytest.approx(10)


def test_failed_jobs_are_done_again_and_not_for_ever(model: Any) -> None:
    jobs = [model.Group("a", 200, 3600.0)]
    found = model.simulate(jobs, cluster(model, cpus=200, queue=200, failures=0.2, retries=30))
    # a share of 1 - exp(-0.2) of all attempts, give or take five standard deviations
    assert found.failed == pytest.approx(200 * 0.18 / 0.82, abs=5 * 7.3)
    assert found.cpu_s == pytest.approx(3600 * (200 + found.failed))
    with pytest.raises(ValueError, match="a: failed 4 times"):
        model.simulate(jobs, cluster(model, failures=50.0))


def test_job_that_fits_nowhere_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="a: no node has"):
        model.simulate([model.Group("a", 1, 1.0, memory=101.0)], cluster(model))
