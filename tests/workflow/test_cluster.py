"""What is said of a cluster that a run cannot work on, without one."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gigascope.errors import UserError
from gigascope.workflow_cluster import (
    answer,
    earlier_jobs,
    keep_jobs_in_sight,
    require_queue,
    require_shared,
    unsaid,
)

RUN = "b6077598-4bf0-4319-b967-46b42eaf573e"


def test_jobs_of_earlier_starts_in_this_folder_are_found() -> None:
    queue = f"""\
7|{RUN}|/work/here
8|lab_{RUN}|/work/here
9|{RUN}|/work/elsewhere
10|bash|/work/here
11|{RUN}|/work/here
"""
    found = {RUN: ["7", "11"], f"lab_{RUN}": ["8"]}
    assert earlier_jobs(queue, Path("/work/here")) == found
    assert earlier_jobs("", Path("/work/here")) == {}


def command(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_start_beside_earlier_jobs_is_refused_with_what_ends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command(tmp_path, "squeue", f"echo '7|{RUN}|{tmp_path}'; echo '8|{RUN}|{tmp_path}'")
    with pytest.raises(UserError, match=rf"2 jobs of earlier starts are .*\(7, 8\).* scancel --name={RUN}\. "):
        require_queue(tmp_path)
    require_queue(tmp_path / "elsewhere")


def test_commands_that_fail_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command(tmp_path, "squeue", "echo Unable to contact slurm controller. >&2; exit 1")
    with pytest.raises(UserError, match=r"^squeue: Unable to contact slurm controller\. The controller may be down"):
        answer("squeue")
    command(tmp_path, "squeue", "exec sleep 5")
    monkeypatch.setattr("gigascope.workflow_cluster.ANSWER_S", 0.1)
    with pytest.raises(UserError, match=r"squeue did not answer within 0\.1 s"):
        answer("squeue")


def test_results_that_a_node_does_not_see_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is there of what Snakemake wrote"):
        require_shared(tmp_path, within_s=0)
    config = tmp_path / "one" / "config" / "toy.ingest.json"
    config.parent.mkdir(parents=True)
    config.touch()
    require_shared(tmp_path, within_s=0)


def test_reasons_that_snakemake_leaves_out_are_said_once(tmp_path: Path) -> None:
    logs = [tmp_path / f"{number}.log" for number in range(4)]
    said = "".join(f"Job 5 has been submitted with SLURM jobid {n} (log: {log}).\n" for n, log in enumerate(logs))
    failed = "message: SLURM-job '{}' failed, SLURM status is: '{}'. Detailed failure reason unavailable\n"
    assert unsaid(said) == []
    assert unsaid(said + failed.format(0, "TIMEOUT")) == []
    (told,) = unsaid(said + failed.format(1, "FAILED") + failed.format(2, "FAILED"))
    assert "could not even write the logs of the jobs that failed (1, 2)" in told
    for log in logs[1:3]:
        log.write_text("Building DAG\nerror: nothing is there.\n")
    assert unsaid(said + failed.format(1, "FAILED") + failed.format(2, "FAILED")) == ["nothing is there."]


def test_jobs_stay_in_sight_while_slurm_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Executor:
        logger = logging.getLogger("plugin")
        _status_query_calls = 0

        async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncIterator[Any]:
            if active_jobs != ["unknown"]:
                self._status_query_calls += 1
                yield active_jobs[0]

    monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", SimpleNamespace(Executor=Executor))

    def left(jobs: list[str]) -> list[str]:
        async def look() -> list[str]:
            return [job async for job in executor.check_active_jobs(jobs)]

        return asyncio.run(look())

    executor = Executor()
    assert left(["unknown"]) == []
    for _ in range(2):
        keep_jobs_in_sight()
        assert left(["unknown"]) == ["unknown"]
        assert left(["at work", "ended"]) == ["at work"]
    assert caplog.messages == ["SLURM does not answer: nothing is known of 1 jobs. Looking again."] * 2
    monkeypatch.delitem(sys.modules, "snakemake_executor_plugin_slurm")
    keep_jobs_in_sight()
