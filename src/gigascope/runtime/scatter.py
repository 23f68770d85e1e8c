"""The jobs of a scattered stage: open, parts, gather; or all of them one after the other in one process.

All jobs share one work folder, named after config, code and inputs as the scratch folder of any stage is. Each part has
a folder in it with its lock, its journal of finished items and what these saved. The records, by which the jobs wait
for each other, lie beside the work folder: the workflow makes and removes them.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

from gigascope.errors import Checkpointed, UserError
from gigascope.parallel import Crew, Pool, choose_crew
from gigascope.runtime import lock, memory, records
from gigascope.runtime import opened as files
from gigascope.runtime.checkpoint import Checkpoints
from gigascope.runtime.device import choose_device, describe
from gigascope.runtime.gather import Gather, Provenance, problems, refusing_altered
from gigascope.runtime.items import Workplace, catch_up, hold, read_round, work_on
from gigascope.runtime.opened import Opened, output_name
from gigascope.runtime.parts import WorkPlan
from gigascope.runtime.plan import Plan
from gigascope.runtime.progress import Progress
from gigascope.runtime.records import ItemRecord, Journal, PartRecord, Unusable
from gigascope.runtime.shared_work import History, OpenWork
from gigascope.stage import JobKind, Scatter, Stage
from gigascope.store.disk import remove

_log = logging.getLogger("gigascope.run")


class ScatteredRun:
    """One run of a scattered stage, or of one of its jobs.

    Parameters
    ----------
    inputs : paths by name
    folder : work folder
    record_folder : folder of the records; none: in the work folder, for a run of all jobs in one process
    deadline : `time.monotonic()` at which the job's time is up
    workers : worker processes; none: one per GPU, or as the CPUs allow
    """

    def __init__(
        self,
        stage: Stage,
        plan: Plan,
        inputs: Mapping[str, Path],
        folder: Path,
        *,
        record_folder: Path | None = None,
        deadline: float | None = None,
        workers: int | None = None,
    ) -> None:
        self.stage = stage
        self.plan = plan
        self.section = plan.section(stage)
        self.folder = folder
        self.parts = stage.parts(self.section)
        self.rounds = stage.rounds(self.section)
        self.checkpoints = Checkpoints(folder, deadline=deadline)
        self.checkpoints.listen()
        self._workers = workers
        place = record_folder or folder / "records"
        self._place = Workplace(plan, dict(inputs), folder, place, self.parts, deadline, uuid4().hex)

    # the jobs

    def open(self) -> None:
        """Open the work folder, unless it is open already, and write the open record."""
        with lock.held(self.folder):
            self._open()

    def part(self, round_: int, part: int) -> None:
        """Do one part of a round and write its record.

        Raises
        ------
        Unusable : what it follows is missing or altered
        Checkpointed : the job has to stop; what is finished is kept
        """
        if not (0 <= round_ < self.rounds and 0 <= part < self.parts):
            what = f"there is no part {part} of round {round_}: {self.rounds} rounds of {self.parts} parts, from 0."
            raise UserError(what, where=self.stage.name)
        history = self._history()
        catch_up(history, self._place, round_)
        n_items = len(history.opened.plan.share(round_, part, self.parts))
        with self._refusing_altered(history), Pool(self._crew(n_items), self._stop) as pool:
            hold(self._place, history, self._stop)
            self._part(history, pool, round_, part)

    def gather(self, outputs: Mapping[str, Path], provenance: Provenance) -> None:
        """Check that every part of every round is there, call the stage function and commit; see :class:`Gather`."""
        with lock.held(self.folder):
            Gather(self._place, self.checkpoints, self._history()).run(outputs, provenance)

    def whole(self, outputs: Mapping[str, Path], provenance: Provenance) -> None:
        """All jobs of the stage, in this process; raises as they do."""
        with lock.held(self.folder):
            self._open()
            history = self._history()
            most = max((len(items) for items in history.opened.plan.rounds), default=0)
            with self._refusing_altered(history), Pool(self._crew(most), self._stop) as pool:
                hold(self._place, history, self._stop)
                for round_ in range(self.rounds):
                    done = [self._part(history, pool, round_, part) for part in range(self.parts)]
                    history.add(item for record in done for item in record.items)
            Gather(self._place, self.checkpoints, self._history()).run(outputs, provenance)

    # open

    def _open(self) -> None:
        digest = self._intact() or self._open_anew()
        records.write_open_record(self._place.records / records.OPEN, self.folder.name, digest)

    def _intact(self) -> str | None:
        """Digest of the plan, if the folder was opened before and nothing in it is lost."""
        try:
            opened, digest = Opened.read(self.folder)
        except Unusable:
            return None
        problem = opened.problem(self.folder)
        if problem is None:
            return digest
        _log.warning("opening again, and doing all parts again: %s", problem)
        return None

    def _open_anew(self) -> str:
        for home in self.folder.glob("round-*"):
            # An attempt of a part that outlived its job ends first.
            with lock.held(home):
                remove(home)
        for record in self._place.records.glob("round-*"):
            record.unlink()
        files.clear(self.folder)
        context = self._place.context("open")
        context.checkpoints = self.checkpoints
        context.work = OpenWork(self.folder)
        with context.blaming_inputs():
            plan = self._scatter.open(context, self.section)
        if not isinstance(plan, WorkPlan) or len(plan.rounds) != self.rounds:
            raise RuntimeError(f"{self.stage.name}: its open function planned {plan!r:.80}, not {self.rounds} rounds")
        stores = {output_name(n): writer.attrs for n, writer in context.writers.items()}
        if (self.folder / files.SHARED).is_dir():
            stores[files.SHARED] = {}
        found = {name: files.store_as_opened(self.folder, name, attrs) for name, attrs in stores.items()}
        opened = Opened(plan, context.work.saved, found, tuple(context.warnings), context.work.until)
        digest = opened.write(self.folder)
        _remove_checkpoints(self.folder)
        n_items = [len(items) for items in plan.rounds]
        _log.info("open: %s %ss in %d parts", " + ".join(map(str, n_items)), self._scatter.unit, self.parts)
        return digest

    # parts

    def _part(self, history: History, pool: Pool, round_: int, part: int) -> PartRecord:
        home = self._place.home(round_, part)
        begun = time.monotonic()
        with lock.held(home):
            share = history.opened.plan.share(round_, part, self.parts)
            journal = Journal(home / "items.jsonl")
            done = self._kept(journal, share, history, round_)
            rest = [item for item in share if item not in done]
            if rest and files.cannot_repeat(self.folder, history.opened, round_):
                self._give_up(round_, part)
            files.release(self.folder, history.opened, round_)
            results = pool.map(functools.partial(work_on, self._place, round_, part), rest)
            progress = Progress(home / "progress.jsonl")
            what = self._name(round_, part)
            for record in progress(results, what=what, unit=self._scatter.unit, total=len(share), done=len(done)):
                journal.append(record)
                done[record.item] = record
            if len(done) < len(share):
                raise Checkpointed(f"{what}: stopped after {len(done)} of {len(share)} items; start again to go on")
            about = {
                "host": socket.gethostname(),
                "job": os.environ.get("SLURM_JOB_ID"),
                "wall_s": round(time.monotonic() - begun, 3),
                "peak_memory_bytes": memory.peak_bytes(),
                "peak_gpu_memory_bytes": memory.peak_gpu_bytes(),
            }
            items = tuple(done[item] for item in sorted(done))
            record_ = PartRecord(self.folder.name, round_, part, self.parts, history.follows[round_], items, about)
            record_.write(self._place.record(round_, part))
        return record_

    def _give_up(self, round_: int, part: int) -> None:
        """A part has to be done again, and what it started from is gone: have the stage opened again."""
        (self.folder / records.PLAN).unlink(missing_ok=True)
        (self._place.records / records.OPEN).unlink(missing_ok=True)
        what = f"{self._name(round_, part)}: what it left is lost, and what it started from was released since."
        raise Unusable(what, where=self.folder, do=records.AGAIN)

    def _kept(self, journal: Journal, share: list[int], history: History, round_: int) -> dict[int, ItemRecord]:
        """Finished items of an earlier attempt that are as it left them, and still follow the same."""
        kept: dict[int, ItemRecord] = {}
        found, follows = journal.read(), history.follows[round_]
        mine = set(share)
        candidates = [r for r in found if r.follows == follows and r.item in mine]
        gone = files.released(self.folder, history.opened)
        for record, problem in zip(candidates, problems(self.folder, candidates, gone=gone), strict=True):
            if problem is None:
                kept[record.item] = record
            else:
                _log.warning("%s %d is done again: %s", self._scatter.unit, record.item, problem)
        # Written anew also where a kill cut its last line short, which the next one must not follow.
        journal.replace(kept.values())
        if kept:
            _log.info("going on: %d of %d %ss were finished before", len(kept), len(share), self._scatter.unit)
        return kept

    # what they share

    @property
    def _scatter(self) -> Scatter:
        if self.stage.scatter is None:
            raise RuntimeError(f"{self.stage.name} is not scattered")
        return self.stage.scatter

    def _refusing_altered(self, history: History) -> AbstractContextManager[None]:
        """Have the parts done again whose results an item could not use."""

        def parts() -> list[PartRecord]:
            return [record for r in range(history.n_rounds) for record in read_round(self._place, history, r)]

        return refusing_altered(self._place, history, parts, Unusable)

    def _stop(self) -> bool:
        return self.checkpoints.out_of_time

    def _name(self, round_: int, part: int) -> str:
        of_round = f"round {round_ + 1}/{self.rounds}" if self.rounds > 1 else ""
        of_part = f"part {part + 1}/{self.parts}" if self.parts > 1 else ""
        return ", ".join(filter(None, (of_round, of_part))) or self.stage.key

    def _history(self) -> History:
        """What the open job left, compared with its record."""
        path = self._place.records / records.OPEN
        try:
            work, digest = records.read_open_record(path)
            opened, found = Opened.read(self.folder)
            if (work, digest) != (self.folder.name, found):
                raise Unusable("this record and the work folder are of different runs.", where=path, do=records.AGAIN)
            return History(self.folder, opened, digest)
        except Unusable:
            path.unlink(missing_ok=True)
            raise

    def device(self, kind: JobKind | None) -> str:
        """What a job computes on, for people; `None`: all jobs in one process."""
        if not self.stage.gpu or (kind or "part") not in self._scatter.gpu:
            return "CPU"
        n_gpus = self._gpus()
        # To describe a GPU is to take some of its memory, which is for the workers.
        return f"{n_gpus} GPUs" if n_gpus > 1 else describe(choose_device(self.plan.device))

    def _crew(self, n_items: int) -> Crew:
        """Who works on the items of a job that has `n_items` of them."""
        n_gpus = self._gpus()
        at_once = self._scatter.at_once(self.section, "cuda" if n_gpus else "cpu")
        if self._workers is not None:
            return Crew(max(1, min(self._workers, n_items)), max(1, min(at_once, n_items)), gpus=n_gpus > 1)
        return choose_crew(n_gpus, n_items, threads=self._scatter.threads, at_once=at_once)

    def _gpus(self) -> int:
        """GPUs that the items of this job may use."""
        if not self.stage.gpu or "part" not in self._scatter.gpu or self.plan.device == "cpu":
            return 0
        import torch

        if not torch.cuda.is_available():
            return 0
        count = 1 if ":" in self.plan.device else torch.cuda.device_count()
        if count > 1 and importlib.util.find_spec("dask_cuda") is None:
            _log.warning("one of %d GPUs is used: install dask-cuda for the others", count)
            return 1
        return count


def _remove_checkpoints(folder: Path) -> None:
    for checkpoint in folder.glob("*.checkpoint"):
        checkpoint.unlink()
