"""Spread the items of a job over workers: this process, threads, Dask worker processes, with dask-cuda one per GPU.

What a worker returns goes through the scheduler, so it has to be small: data is left in files. Workers live on the
job's own node; jobs on several nodes are the workflow's business.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self, TypeVar

from gigascope.errors import UserError

# How soon a request to stop is passed on to worker processes.
POLL_S = 0.5
# Libraries that would otherwise start a thread per core in each worker process.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Item = TypeVar("Item")
Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_stop = threading.Event()


@dataclass(frozen=True)
class Crew:
    """Who works in a job.

    Attributes
    ----------
    processes : worker processes; with one the work is done in the job's own process
    at_once : items that each works on at the same time, in threads
    threads : CPU threads of each worker process; none: as many as it finds
    gpus : each worker process has a GPU of its own
    """

    processes: int = 1
    at_once: int = 1
    threads: int | None = None
    gpus: bool = False

    def __str__(self) -> str:
        kind = "GPUs" if self.gpus else "worker processes"
        who = f"{self.processes} {kind}" if self.processes > 1 else "one process"
        return who + (f", {self.at_once} items at once in each" if self.at_once > 1 else "")


def choose_crew(n_gpus: int, n_items: int, *, threads: int, at_once: int = 1, cpus: int | None = None) -> Crew:
    """A worker process per GPU; without a GPU as many as the CPUs feed.

    Parameters
    ----------
    n_gpus : GPUs that the job was given and may use
    n_items : items that there are to do
    threads : CPU threads of which one item makes good use
    at_once : items that a process works on at the same time
    cpus : CPUs that the job was given; none: see :func:`available_cpus`
    """
    cpus = available_cpus() if cpus is None else cpus
    at_once = max(1, min(at_once, n_items))
    processes = min(n_gpus or cpus // (threads * at_once), -(-n_items // at_once))
    if processes < 2:
        return Crew(at_once=at_once)
    return Crew(processes, at_once, max(1, cpus // processes), gpus=bool(n_gpus))


def available_cpus() -> int:
    """CPUs that this job may use: what Snakemake or SLURM granted, else what the system lets this process use."""
    for variable in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0))


def stopping() -> bool:
    """Whether this worker process was asked to save and stop."""
    return _stop.is_set()


def worker_name() -> str:
    """Name of this worker, different in each process of a job."""
    if "distributed" not in sys.modules:
        return "0"
    from distributed import get_worker

    try:
        return str(get_worker().name)
    except ValueError:
        return "0"


class Pool:
    """The workers of a job; Dask starts when the first items come and not at all where this process does all.

    Parameters
    ----------
    crew : who works
    should_stop : asked now and then; once it says yes, no further item begins and those at work are told
    """

    def __init__(self, crew: Crew, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.crew = crew
        self._should_stop = should_stop
        self._client: Any = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._client = None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results of `function` for each item, as they come; fewer when the job has to stop.

        Raises
        ------
        UserError : a worker process died
        Exception : what `function` raised first; items at work meanwhile are finished, or stopped and saved, before
        """
        if self.crew.processes == 1 and self.crew.at_once == 1:
            for item in items:
                if self._should_stop():
                    return
                yield function(item)
            return
        if self._client is None:
            self._client = self._open.enter_context(_client(self.crew))
        yield from self._spread(function, iter(items))

    def _spread(self, function: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
        from distributed import wait
        from distributed.scheduler import KilledWorker

        # One more than can be worked on, so that no worker waits for the next; more would only have to be taken back.
        limit = self.crew.processes * self.crew.at_once + 1
        at_work: set[Any] = set()
        failure: BaseException | None = None
        told = False
        while True:
            told = told or self._tell(failure is not None or self._should_stop())
            while not told and len(at_work) < limit and (item := next(items, None)) is not None:
                at_work.add(self._client.submit(function, item, pure=False))
            if not at_work:
                break
            with contextlib.suppress(TimeoutError):
                wait(at_work, timeout=POLL_S, return_when="FIRST_COMPLETED")
            done = {future for future in at_work if future.done()}
            at_work -= done
            for future in done:
                try:
                    result = future.result()
                except KilledWorker as error:
                    failure = failure or _died(error)
                except Exception as error:
                    failure = failure or error
                else:
                    yield result
        if failure is not None:
            raise failure

    def _tell(self, stop: bool) -> bool:
        """Pass a request to stop on to the worker processes."""
        if stop and self.crew.processes > 1:
            for pid in self._client.run(os.getpid, on_error="ignore").values():
                with contextlib.suppress(ProcessLookupError, TypeError):
                    os.kill(pid, signal.SIGTERM)
        return stop


@contextlib.contextmanager
def _client(crew: Crew) -> Iterator[Any]:
    """A Dask cluster on this machine, and a client of it."""
    import dask
    from distributed import Client, LocalCluster

    settings: dict[str, Any] = {
        # A dead worker is reported at once: what killed it would kill the next one too.
        "distributed.scheduler.allowed-failures": 0,
        # The scheduler must not take a worker for dead that holds the GIL for long.
        "distributed.scheduler.worker-ttl": None,
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    # Its import set a level of its own.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    # Dask changes the environment of this process too, each time that it starts a worker.
    environment = _environment(crew.threads if crew.processes > 1 else None)
    with tempfile.TemporaryDirectory(prefix="gigascope-dask-") as folder, dask.config.set(settings), environment:
        common = {
            "threads_per_worker": crew.at_once,
            "dashboard_address": "127.0.0.1:0",
            "scheduler_kwargs": {"dashboard": False},
            "local_directory": folder,
            "memory_limit": None,
            "silence_logs": logging.ERROR,
        }
        if crew.processes == 1:
            cluster = LocalCluster(n_workers=1, processes=False, **common)
        else:
            from distributed.security import Security

            # Whoever reaches the scheduler can run code as this user, and a node of a cluster has other users.
            common |= {"host": "127.0.0.1", "protocol": "tls://", "security": Security.temporary()}
            cluster = _gpu_cluster(crew, common) if crew.gpus else LocalCluster(crew.processes, **common)
        with cluster, Client(cluster) as client:
            if crew.processes > 1:
                client.run(_prepare, logging.getLogger().level)
            _log.info("%s at work", crew)
            yield client


def _gpu_cluster(crew: Crew, common: dict[str, Any]) -> Any:
    from dask_cuda import LocalCUDACluster

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = visible.split(",")[: crew.processes] if visible else [str(i) for i in range(crew.processes)]
    # Nothing on a GPU goes through Dask, so there is nothing for it to spill; torch has an allocator of its own.
    return LocalCUDACluster(CUDA_VISIBLE_DEVICES=",".join(devices), device_memory_limit=None, **common)


def _prepare(log_level: int) -> None:
    """In a worker process: log as the job does, and take SIGTERM, which SLURM sends to all, as a request to stop."""
    logging.basicConfig(level=log_level, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    for noisy in ("numba", "matplotlib", "distributed", "fsspec", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    _stop.set()


def _died(error: BaseException) -> UserError:
    return UserError(
        f"a worker process was killed while it was at work ({error}).",
        do="Most often memory ran out: give the job more of it, or fewer CPUs. What was finished is kept.",
    )


@contextlib.contextmanager
def _environment(threads: int | None) -> Iterator[None]:
    """Limit the threads of the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    if threads is not None:
        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
