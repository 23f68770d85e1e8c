"""What a test sees of a run on a cluster from outside: states of jobs, finished items of parts."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from .cluster import Cluster

EVERY_S = 0.3


@dataclass
class SeenJob:
    """A job of the cluster.

    Attributes
    ----------
    what : rule and wildcards, as Snakemake's plugin writes them
    memory_mb : that it asked for
    states : that it was seen in, in order
    """

    what: str
    memory_mb: int
    states: list[str] = field(default_factory=list)


class Watch(threading.Thread):
    """Looks at the queue and at the journals below a scratch folder until it is stopped.

    Attributes
    ----------
    jobs : by number
    items : dataset, stage, part and item to the times that its making took: two of them if it was made twice
    """

    def __init__(self, cluster: Cluster, scratch: Path) -> None:
        super().__init__(daemon=True)
        self.jobs: dict[str, SeenJob] = {}
        self.items: dict[tuple[str, str, str, int], set[float]] = defaultdict(set)
        self._cluster = cluster
        self._scratch = scratch
        self._ended = threading.Event()

    def run(self) -> None:
        """Look, and look again."""
        while not self._ended.wait(EVERY_S):
            self._look_at_jobs()
            self._look_at_items()

    def stop(self) -> None:
        """A last look."""
        self._ended.set()
        self.join()
        self._look_at_jobs()

    def of(self, what: str) -> list[SeenJob]:
        """Jobs of a rule and wildcards, the first one first."""
        return [job for _, job in sorted(self.jobs.items(), key=lambda pair: int(pair[0])) if job.what == what]

    def _look_at_jobs(self) -> None:
        for line in self._cluster.ask("squeue", "-h", "-t", "all", "-o", "%A|%T|%m|%k").splitlines():
            number, state, memory, what = line.split("|", 3)
            job = self.jobs.setdefault(number, SeenJob(what, _megabytes(memory)))
            if job.states[-1:] != [state]:
                job.states.append(state)

    def _look_at_items(self) -> None:
        for journal in self._scratch.glob("*/*/round-*/items.jsonl"):
            try:
                lines = journal.read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                continue
            part = journal.parent
            stage = part.parent.name.rpartition("-")[0]
            for line in lines:
                try:
                    item = json.loads(line)
                except ValueError:
                    continue  # is being written
                self.items[part.parent.parent.name, stage, part.name, item["item"]].add(item["seconds"])


def _megabytes(text: str) -> int:
    return round(float(text[:-1]) * {"M": 1, "G": 1024}[text[-1]])
