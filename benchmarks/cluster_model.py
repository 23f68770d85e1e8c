"""A cluster that works off a graph of jobs: nodes, one shared disk, a scheduler that takes its time. Arithmetic only.

Jobs of one stage are alike and stand as a group. A job is ready once all groups that it follows are done. Snakemake
holds a number of jobs in the queue at most and submits them one after the other; each starts some time later where a
node has room, and is done when its seconds of work and its bytes are, whichever takes longer: stages read ahead.
Running jobs share the disk evenly. What failed is noticed, and submitted again.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

GB = 1e9


@dataclass(frozen=True)
class Group:
    """Jobs that need the same.

    Attributes
    ----------
    name : of the stage and the kind of job
    jobs : how many
    seconds : of work, each
    n_bytes : read and written, each
    cpus, gpus, memory : taken of a node while it runs
    after : places of the groups, in the list, that have to be done before
    on_host : runs where Snakemake does, not on a node
    """

    name: str
    jobs: int
    seconds: float
    n_bytes: float = 0.0
    cpus: int = 1
    gpus: int = 0
    memory: float = 0.0
    after: tuple[int, ...] = ()
    on_host: bool = False


@dataclass(frozen=True)
class Cluster:
    """Where the jobs run.

    Attributes
    ----------
    nodes, cpus, gpus, memory : how many, and what each has
    disk : bytes a second of the shared file system; link: of one job at most
    queue : jobs that Snakemake has in the queue at most
    submit_s : to submit a job, one after the other
    start_s : from there until it runs, if a node has room
    notice_s : from its end until Snakemake knows
    failures : of a job in an hour, on average
    retries : after which the run ends
    host_cpus : of the machine that Snakemake runs on
    """

    nodes: int = 16
    cpus: int = 32
    gpus: int = 0
    memory: float = 128 * GB
    disk: float = 2 * GB
    link: float = 0.5 * GB
    queue: int = 100
    submit_s: float = 0.2
    start_s: float = 20.0
    notice_s: float = 20.0
    failures: float = 0.0
    retries: int = 3
    host_cpus: int = 4


@dataclass
class Outcome:
    """What came of it.

    Attributes
    ----------
    seconds : from the first submission until Snakemake knew of the last end
    cpu_s, gpu_s : taken of the nodes, failed attempts too
    limits : seconds by what the run waited for (see :meth:`_Run.limit`)
    alone : seconds in which one job of a stage was all that ran, by name
    spans : first start and last end of each group, by its place in the list
    failed : attempts
    """

    seconds: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    limits: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    alone: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    spans: dict[int, tuple[float, float]] = field(default_factory=dict)
    failed: int = 0


@dataclass
class _Job:
    group: int
    attempt: int = 0
    node: int = -1
    begun: float = 0.0
    owes: int = 2  # of its work and its bytes, what is not done yet


def simulate(groups: Sequence[Group], cluster: Cluster, seed: int = 0) -> Outcome:
    """Work off a graph.

    Raises
    ------
    ValueError : a job that no node has room for, a job that failed too often, groups that wait for each other
    """
    for group in groups:
        has = (cluster.host_cpus, 0, math.inf) if group.on_host else (cluster.cpus, cluster.gpus, cluster.memory)
        if any(need > one for need, one in zip((group.cpus, group.gpus, group.memory), has)):
            needs = f"{group.cpus} CPUs, {group.gpus} GPUs, {group.memory:.3g} bytes"
            raise ValueError(f"{group.name}: no node has {needs}")
    run = _Run(groups, cluster, random.Random(seed))
    run.to_the_end()
    return run.outcome


class _Run:
    """The state of a run, and what happens next."""

    def __init__(self, groups: Sequence[Group], cluster: Cluster, random_: random.Random) -> None:
        self.groups, self.cluster, self.random = groups, cluster, random_
        self.now, self.outcome = 0.0, Outcome()
        self.left = [group.jobs for group in groups]
        self.waits = [len(group.after) for group in groups]
        self.followers: dict[int, list[int]] = defaultdict(list)
        for place, group in enumerate(groups):
            for before in group.after:
                self.followers[before].append(place)
        # [CPUs, GPUs, bytes] that are free; the last one is the host
        self.free = [[cluster.cpus, cluster.gpus, cluster.memory] for _ in range(cluster.nodes)]
        self.free.append([cluster.host_cpus, 0, math.inf])
        self.ready: deque[_Job] = deque()
        self.pending: deque[_Job] = deque()
        self.queued, self.submitting_until = 0, 0.0
        self.running: dict[int, _Job] = {}
        self.events: list[tuple[float, int, str, _Job]] = []
        self.number = itertools.count()
        # The disk gives every transfer the same, so that one count of bytes says which is done next.
        self.given, self.transfers = 0.0, []  # type: ignore[var-annotated]
        for place, waits in enumerate(self.waits):
            if not waits:
                self._release(place)

    def to_the_end(self) -> None:
        """Until nothing is left."""
        self._submit()
        while self.events or self.transfers:
            rate = self._rate()
            moved = self.now + max(0.0, self.transfers[0][0] - self.given) / rate if self.transfers else math.inf
            due = self.events[0][0] if self.events else math.inf
            self._advance(min(moved, due), rate)
            if moved <= due:
                self._paid(heapq.heappop(self.transfers)[2])
            else:
                _, _, what, job = heapq.heappop(self.events)
                getattr(self, what)(job)
            self._place()
        if any(self.left):
            raise ValueError(f"never begun: {[g.name for g, left in zip(self.groups, self.left) if left]}")
        self.outcome.seconds = self.now

    # what happens

    def _release(self, place: int) -> None:
        if not self.groups[place].jobs:
            self._done(place)
        self.ready.extend(_Job(place) for _ in range(self.groups[place].jobs))

    def _submit(self) -> None:
        """Into the queue, as many as it takes."""
        while self.ready and self.queued < self.cluster.queue:
            job = self.ready.popleft()
            self.queued += 1
            on_host = self.groups[job.group].on_host
            self.submitting_until = max(self.now, self.submitting_until) + (0.0 if on_host else self.cluster.submit_s)
            self._at(self.submitting_until + (0.0 if on_host else self.cluster.start_s), "_startable", job)

    def _startable(self, job: _Job) -> None:
        self.pending.append(job)

    def _place(self) -> None:
        """Start what a node has room for, in order; of jobs with equal needs only one is tried where none has room."""
        kept: deque[_Job] = deque()
        full: set[tuple[float, ...]] = set()
        while self.pending:
            job = self.pending.popleft()
            group = self.groups[job.group]
            need = (group.cpus, group.gpus, group.memory)
            nodes = [self.cluster.nodes] if group.on_host else range(self.cluster.nodes)
            found = None
            if need not in full:
                found = next((n for n in nodes if all(f >= x for f, x in zip(self.free[n], need))), None)
            if found is None:
                full.add(need)
                kept.append(job)
                continue
            self.free[found] = [f - x for f, x in zip(self.free[found], need)]
            job.node, job.begun, job.owes = found, self.now, 2
            self.running[id(job)] = job
            first, last = self.outcome.spans.get(job.group, (self.now, self.now))
            self.outcome.spans[job.group] = (min(first, self.now), last)
            self._at(self.now + group.seconds, "_paid", job)
            heapq.heappush(self.transfers, (self.given + group.n_bytes, next(self.number), job))
        self.pending = kept

    def _paid(self, job: _Job) -> None:
        """Its work, or its bytes, are done."""
        job.owes -= 1
        if job.owes:
            return
        group, taken = self.groups[job.group], self.now - job.begun
        need = (group.cpus, group.gpus, group.memory)
        self.free[job.node] = [f + x for f, x in zip(self.free[job.node], need)]
        del self.running[id(job)]
        if not group.on_host:
            self.outcome.cpu_s += taken * group.cpus
            self.outcome.gpu_s += taken * group.gpus
        first, _ = self.outcome.spans[job.group]
        self.outcome.spans[job.group] = (first, self.now)
        fails = self.random.random() < 1 - math.exp(-self.cluster.failures * taken / 3600)
        wait = 0.0 if group.on_host else self.cluster.notice_s
        self._at(self.now + wait, "_failed" if fails else "_ended", job)

    def _failed(self, job: _Job) -> None:
        self.outcome.failed += 1
        if job.attempt >= self.cluster.retries:
            raise ValueError(f"{self.groups[job.group].name}: failed {job.attempt + 1} times")
        self.queued -= 1
        self.ready.appendleft(_Job(job.group, job.attempt + 1))
        self._submit()

    def _ended(self, job: _Job) -> None:
        self.queued -= 1
        self.left[job.group] -= 1
        if not self.left[job.group]:
            self._done(job.group)
        self._submit()

    def _done(self, place: int) -> None:
        for follower in self.followers[place]:
            self.waits[follower] -= 1
            if not self.waits[follower]:
                self._release(follower)

    # time

    def _at(self, when: float, what: str, job: _Job) -> None:
        heapq.heappush(self.events, (when, next(self.number), what, job))

    def _rate(self) -> float:
        """Bytes a second of each transfer."""
        return min(self.cluster.link, self.cluster.disk / max(1, len(self.transfers)))

    def _advance(self, until: float, rate: float) -> None:
        passed = until - self.now
        if passed > 0:
            self.outcome.limits[self.limit()] += passed
            if len(self.running) == 1:
                self.outcome.alone[self.groups[next(iter(self.running.values())).group].name] += passed
        self.given += passed * rate
        self.now = until

    def limit(self) -> str:
        """What the run waits for now: one of a few names."""
        if not self.running:
            return "scheduler"
        only_bytes = sum(job.owes == 1 for *_, job in self.transfers)
        if len(self.transfers) * self.cluster.link > self.cluster.disk and 2 * only_bytes >= len(self.running):
            return "disk"
        if self.pending:
            return "nodes"
        if self.ready:
            return "queue"
        return "one job" if len(self.running) == 1 else "too few jobs"
