"""Items spread over this process, its threads, and Dask worker processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gigascope import parallel
from gigascope.parallel import Crew, Pool, available_cpus, choose_crew

# What worker processes run must be importable there or stand in the main module: so it runs as a program of its own.
PROGRAM = """
import json, os, signal, sys, time

from gigascope.errors import UserError
from gigascope.parallel import Crew, Pool, stopping, worker_name


def who(item):
    time.sleep(0.1)
    return item, os.getpid(), worker_name(), os.environ["NUMBA_NUM_THREADS"], os.environ["OMP_NUM_THREADS"]


def patient(item):
    end = time.monotonic() + 60
    while time.monotonic() < end and not stopping():
        time.sleep(0.02)
    return stopping()


def bad(item):
    if item == 3:
        raise UserError("item 3 is bad.", where="here", do="Leave it.")
    return item


def suicidal(item):
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return item


def failure(pool, function):
    done = []
    try:
        for result in pool.map(function, range(6)):
            done.append(result)
    except UserError as error:
        return [done, str(error)]


if __name__ == "__main__":
    found = {"pid": os.getpid(), "before": os.environ.get("OMP_NUM_THREADS")}
    with Pool(Crew(2, threads=3)) as pool:
        found["who"] = list(pool.map(who, range(7)))
        found["again"] = list(pool.map(who, range(2)))
        found["bad"] = failure(pool, bad)
    with Pool(Crew(2, threads=1)) as pool:
        found["died"] = failure(pool, suicidal)
    begun = time.monotonic()
    with Pool(Crew(2, threads=1), lambda: time.monotonic() - begun > 15) as pool:
        found["stopped"] = list(pool.map(patient, range(50)))
    found["seconds"] = time.monotonic() - begun
    found["after"] = os.environ.get("OMP_NUM_THREADS")
    json.dump(found, sys.stdout)
"""


@pytest.mark.parametrize(
    ("n_gpus", "n_items", "cpus", "at_once", "crew"),
    [
        (0, 100, 2, 1, Crew()),
        (0, 100, 16, 1, Crew(4, threads=4)),
        (0, 3, 16, 1, Crew(3, threads=5)),
        (0, 100, 16, 2, Crew(2, 2, threads=8)),
        (1, 100, 16, 8, Crew(at_once=8)),
        (4, 100, 16, 1, Crew(4, threads=4, gpus=True)),
        (4, 100, 2, 3, Crew(4, 3, threads=1, gpus=True)),
        (4, 1, 16, 1, Crew()),
        (0, 0, 16, 1, Crew()),
    ],
)
def test_crew_fits_gpus_cpus_and_items(n_gpus: int, n_items: int, cpus: int, at_once: int, crew: Crew) -> None:
    assert choose_crew(n_gpus, n_items, threads=4, at_once=at_once, cpus=cpus) == crew


def test_no_more_items_at_once_than_there_are() -> None:
    assert choose_crew(0, 1, threads=2, at_once=4, cpus=2) == Crew()
    assert choose_crew(0, 3, threads=2, at_once=4, cpus=2) == Crew(at_once=3)
    assert choose_crew(0, 0, threads=2, at_once=4, cpus=2) == Crew()


def test_cpus_are_those_that_the_job_was_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    assert available_cpus() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    assert available_cpus() == 7
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert available_cpus() == 3


def test_one_process_works_item_by_item_and_stops_between_two() -> None:
    begun: list[float] = []
    with Pool(Crew(), lambda: len(begun) == 3) as pool:
        results = pool.map(lambda item: begun.append(item) or -item, [1.0, 2.0, 3.0, 4.0])
        assert next(results) == -1.0
        assert begun == [1.0]
        assert list(results) == [-2.0, -3.0]


BARRIER = threading.Barrier(3, timeout=120)


def meet(item: int) -> tuple[int, int]:
    """Returns when three items are at work."""
    BARRIER.wait()
    return item, os.getpid()


def test_threads_of_one_process_work_at_once() -> None:
    with Pool(Crew(at_once=3)) as pool:
        found = list(pool.map(meet, range(6)))
    assert sorted(found) == [(item, os.getpid()) for item in range(6)]


def test_error_in_a_thread_comes_up_as_it_is() -> None:
    with Pool(Crew(at_once=2)) as pool, pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(pool.map(math.sqrt, [1.0, -1.0]))


@pytest.mark.slow
def test_worker_processes(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)

    assert sorted(item for item, *_ in found["who"]) == list(range(7))
    pids = {pid for _, pid, *_ in found["who"]}
    assert len(pids) == 2
    assert found["pid"] not in pids
    assert {pid for _, pid, *_ in found["again"]} <= pids, "the workers stay for the next items"
    assert {(name, *threads) for _, _, name, *threads in found["who"]} == {("0", "3", "3"), ("1", "3", "3")}
    assert found["before"] == found["after"]

    done, message = found["bad"]
    assert message == "here: item 3 is bad. Leave it."
    assert {0, 1, 2} <= set(done) <= {0, 1, 2, 4, 5}
    done, message = found["died"]
    assert "a worker process was killed while it was at work" in message
    assert "give the job more" in message
    assert set(done) <= {0, 2}

    # two at work and one that waited for them; none began after that
    assert found["stopped"] == [True] * len(found["stopped"])
    assert 2 <= len(found["stopped"]) <= 3
    assert found["seconds"] < 50


def test_gpus_get_a_worker_each_through_dask_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    asked: dict[str, Any] = {}

    def cluster(**options: Any) -> LocalCluster:
        asked.update(options)
        devices = options.pop("CUDA_VISIBLE_DEVICES").split(",")
        return LocalCluster(len(devices), **{k: v for k, v in options.items() if k != "device_memory_limit"})

    module = ModuleType("dask_cuda")
    module.LocalCUDACluster = cluster  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    with Pool(Crew(2, gpus=True, threads=1)) as pool:
        assert sorted(pool.map(math.sqrt, [1.0, 4.0, 9.0])) == [1.0, 2.0, 3.0]
    assert asked["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert asked["threads_per_worker"] == 1
    assert asked["protocol"] == "tls://"
    assert asked["device_memory_limit"] is None


def test_worker_outside_a_cluster_has_a_name() -> None:
    assert parallel.worker_name() == "0"
