"""What makes a run on a cluster fail though no stage does: said in words, or put right.

Snakemake's SLURM plugin says of a controller that is away only what `sbatch` said of each job, after every retry; of a
folder that the nodes do not see, that a job failed. Of jobs that outlived their Snakemake it knows nothing: they would
work beside those that it starts. Of its own jobs it loses sight where the controller is away for some seconds.
"""

from __future__ import annotations

import functools
import getpass
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gigascope.errors import UserError

# The plugin names all jobs of a start of Snakemake after a UUID.
_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
ANSWER_S = 20
# A shared disk may show a new file to other nodes only after a while.
SEEN_S = 15


def bring_own_commands(on_cluster: bool) -> None:
    """Put this Python's folder first on PATH, so that jobs find `gigascope` where Snakemake runs from.

    Raises
    ------
    UserError : jobs of a cluster could not start this Python: Snakemake's SLURM plugin does not quote its path
    """
    own = str(Path(sys.executable).parent)
    if on_cluster and len(own.split()) > 1:
        raise UserError(
            f"cluster jobs cannot be started from {own}: Snakemake does not quote a space in this path.",
            do="Move the checkout to a folder without a space, and set it up again there.",
        )
    path = os.environ.get("PATH", "")
    if path.split(os.pathsep)[0] != own:
        os.environ["PATH"] = os.pathsep.join([own, path])


def require_queue(folder: Path) -> None:
    """Refuse to start where the controller does not answer, or jobs of an earlier start are in the queue.

    Parameters
    ----------
    folder : that Snakemake works in

    Raises
    ------
    UserError : with what to do about it
    """
    left = earlier_jobs(answer("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A|%j|%Z"), folder)
    if not left:
        return
    n_jobs = sum(map(len, left.values()))
    jobs = "1 job of an earlier start is" if n_jobs == 1 else f"{n_jobs} jobs of earlier starts are"
    numbers = ", ".join(number for found in left.values() for number in found)
    names = " ".join(f"--name={run}" for run in left)
    raise UserError(
        f"{jobs} still in the queue ({numbers}) and would work beside the new ones.",
        where=folder,
        do=f"Wait until they have ended, or end them: scancel {names}. What they have finished is kept.",
    )


def earlier_jobs(queue: str, folder: Path) -> dict[str, list[str]]:
    """Numbers of the jobs that Snakemake started from a folder, by the name of the start.

    Parameters
    ----------
    queue : lines of number, name and working directory, as of `squeue --format=%A|%j|%Z`
    """
    found: dict[str, list[str]] = {}
    for line in queue.splitlines():
        number, name, place = line.split("|", 2)
        if _RUN.search(name) and Path(place) == folder:
            found.setdefault(name, []).append(number)
    return found


def keep_jobs_in_sight() -> None:
    """Have Snakemake's SLURM plugin look again for its jobs where SLURM did not answer.

    Left alone, it asks a few times within a second, takes all jobs off its list and waits for none of them for ever
    (2.8.0; the controller away for 15 s is enough).
    """
    executor: Any = getattr(sys.modules.get("snakemake_executor_plugin_slurm"), "Executor", None)
    look = getattr(executor, "check_active_jobs", None)
    if look is None or hasattr(look, "__wrapped__"):
        return

    @functools.wraps(look)
    async def look_again(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        # private to the plugin: in a release without it, jobs are looked for as that release does it
        n_answers = getattr(self, "_status_query_calls", None)
        async for job in look(self, active_jobs):
            yield job
        if active_jobs and n_answers is not None and self._status_query_calls == n_answers:
            # Snakemake prints such a message as it is, without its arguments
            what = f"SLURM does not answer: nothing is known of {len(active_jobs)} jobs. Looking again."
            self.logger.warning(what)
            for job in active_jobs:
                yield job

    executor.check_active_jobs = look_again


def require_shared(results: Path, within_s: float = SEEN_S) -> None:
    """Refuse to do a job where the results folder is another one than Snakemake was started on.

    Parameters
    ----------
    results : as this node sees it; every job follows one that wrote the config of its stage

    Raises
    ------
    UserError : there is no config of any stage
    """
    end = time.monotonic() + within_s
    while next(results.glob("*/config/*.json"), None) is None:
        if time.monotonic() > end:
            raise UserError(
                f"on {socket.gethostname()} nothing is there of what Snakemake wrote.",
                where=results.absolute(),
                do="Put the results on a disk that all nodes see (key `results` in config/config.yaml).",
            )
        time.sleep(1)


def unsaid(said: str) -> list[str]:
    """Why jobs of SLURM failed before their stage began, where Snakemake does not say it: messages for a person.

    Parameters
    ----------
    said : Snakemake's own log of the run
    """
    logs = {job: Path(log) for job, log in re.findall(r"submitted with SLURM jobid (\d+) \(log: (.+)\)\.$", said, re.M)}
    failed = set(re.findall(r"SLURM-job '(\d+)' failed, SLURM status is: 'FAILED'", said)) & set(logs)
    found = [logs[job] for job in sorted(failed, key=int) if logs[job].exists()]
    if failed and not found:
        what = f"SLURM could not even write the logs of the jobs that failed ({', '.join(sorted(failed, key=int))})"
        do = "Move it to a disk that all nodes see; `gigascope doctor --slurm` says what it is on."
        return [f"{Path.cwd()}: {what}: the nodes may not see this folder. {do}"]
    # What Snakemake says in a job stands there; it shows this log only where the stage has written one too.
    texts = [log.read_text(encoding="utf-8", errors="replace") for log in found]
    return list(dict.fromkeys(line for text in texts for line in re.findall(r"^error: (.+)$", text, re.M)))


def answer(*command: str) -> str:
    """What a command prints.

    Raises
    ------
    UserError : it fails, or says nothing for a while
    """
    try:
        reply = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        what = f"{command[0]} did not answer within {ANSWER_S} s."
        raise UserError(what, do="The controller may be down: ask the site's administrators.") from None
    if reply.returncode:
        said = (reply.stderr.strip() or "it failed").splitlines()[-1]
        do = "The controller may be down: ask the site's administrators."
        raise UserError(f"{command[0]}: {said.rstrip('.')}.", do=do)
    return reply.stdout
