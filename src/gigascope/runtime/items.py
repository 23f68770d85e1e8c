"""The work on one item, where it is done: in the job's process, or in a worker process that was handed a workplace."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigascope.errors import Checkpointed
from gigascope.parallel import stopping, worker_name
from gigascope.registry import get_stage
from gigascope.runtime.checkpoint import Checkpoints
from gigascope.runtime.context import Context
from gigascope.runtime.opened import Opened
from gigascope.runtime.plan import Plan
from gigascope.runtime.records import AGAIN, ItemRecord, PartRecord, Unusable, part_name
from gigascope.runtime.shared_work import History, ItemWork
from gigascope.stage import JobKind, Stage


@dataclass(frozen=True)
class Workplace:
    """All that a process has to know to work on the items of a job.

    Attributes
    ----------
    plan : of the stage
    inputs : paths by name
    folder : work folder
    records : folder of the records
    parts : number of parts
    deadline : `time.monotonic()` at which the job's time is up
    token : names the job, so that a process knows what it holds for it already
    """

    plan: Plan
    inputs: Mapping[str, Path]
    folder: Path
    records: Path
    parts: int
    deadline: float | None
    token: str

    @property
    def stage(self) -> Stage:
        """The declaration."""
        return get_stage(self.plan.stage)

    def context(self, kind: JobKind, outputs: Mapping[str, Path] | None = None) -> Context:
        """Surroundings of a job's function."""
        stage = self.stage
        on_gpu = stage.gpu and stage.scatter is not None and kind in stage.scatter.gpu
        return Context(
            stage,
            dataset=self.plan.dataset,
            inputs=self.inputs,
            outputs=outputs or {},
            scratch=self.folder,
            device=self.plan.device if on_gpu else "cpu",
            seed=self.plan.seed,
            inputs_section=self.plan.inputs_section(),
            deadline=self.deadline,
        )

    def home(self, round_: int, part: int) -> Path:
        """Folder of a part: its lock, its journal and what its items saved."""
        return self.folder / f"round-{round_}.part-{part}"

    def record(self, round_: int, part: int) -> Path:
        """Record of a part."""
        return self.records / part_name(round_, part)


class Held:
    """What a process keeps while it works on the items of a job."""

    def __init__(self, place: Workplace, history: History, stop: Callable[[], bool]) -> None:
        self.history = history
        self.section = place.plan.section(place.stage)
        self.context = place.context("part")
        self.context.checkpoints = Checkpoints(place.folder, deadline=place.deadline, stop=stop)
        self.lock = threading.Lock()


# By the job's token; a worker process lives as long as its job.
_held: dict[str, Held] = {}
_holding = threading.Lock()


def hold(place: Workplace, history: History, stop: Callable[[], bool]) -> None:
    """Let this process work with what the job knows already; `stop` says when it has to."""
    with _holding:
        _held.clear()
        _held[place.token] = Held(place, history, stop)


def _keep(place: Workplace) -> Held:
    with _holding:
        if place.token not in _held:
            _held[place.token] = Held(place, History(place.folder, *Opened.read(place.folder)), stopping)
        return _held[place.token]


def work_on(place: Workplace, round_: int, part: int, item: int) -> ItemRecord:
    """Do one item of a round, from its checkpoint if there is one.

    Raises
    ------
    Checkpointed : the job has to stop; what can be saved was
    """
    held = _keep(place)
    with held.lock:
        catch_up(held.history, place, round_)
    home = place.home(round_, part)
    folder = home / f"item-{item}"
    file = f"{home.name}/saved-{worker_name()}.bin"
    context = held.context.inside(folder, work := ItemWork(held.history, round_, item, file))
    if context.checkpoints.out_of_time:
        raise Checkpointed(f"item {item}: not begun; start again to go on")
    begun = time.monotonic()
    scatter = place.stage.scatter
    if scatter is None:
        raise RuntimeError(f"{place.plan.stage} is not scattered")
    with context.blaming_inputs():
        scatter.item(context, held.section, item)
    record = work.record(context.warnings, time.monotonic() - begun)
    shutil.rmtree(folder, ignore_errors=True)
    return record


def catch_up(history: History, place: Workplace, rounds: int) -> None:
    """Read the records of all rounds before `rounds` that are not known yet.

    Raises
    ------
    Unusable : a record is missing, altered or of another run; such a record is removed, so that Snakemake has its part
        done again
    """
    while history.n_rounds < rounds:
        history.add(item for record in read_round(place, history, history.n_rounds) for item in record.items)


def read_round(place: Workplace, history: History, round_: int) -> list[PartRecord]:
    """Records of all parts of a round, compared with what they have to be; raises as :func:`catch_up` does."""
    return [read_part(place, history.follows[round_], round_, part) for part in range(place.parts)]


def read_part(place: Workplace, follows: str, round_: int, part: int) -> PartRecord:
    """Record of a part, compared with what it has to be; raises as :func:`catch_up` does."""
    path = place.record(round_, part)
    try:
        record = PartRecord.read(path)
        found: list[Any] = [record.work, record.round, record.part, record.parts]
        if found != [place.folder.name, round_, part, place.parts]:
            raise Unusable("is the record of another run.", where=path, do=AGAIN)
        if record.follows != follows:
            raise Unusable("the rounds before this part were done again meanwhile.", where=path, do=AGAIN)
    except Unusable:
        path.unlink(missing_ok=True)
        raise
    return record
