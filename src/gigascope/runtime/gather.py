"""The last job of a scattered stage: check that everything is there and as its record says, complete it, commit it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gigascope.errors import Checkpointed
from gigascope.runtime import lock
from gigascope.runtime.checkpoint import Checkpoints
from gigascope.runtime.context import Context
from gigascope.runtime.items import Workplace, read_round
from gigascope.runtime.opened import OUTPUTS, altered, lost, released, restore
from gigascope.runtime.records import AGAIN, ItemRecord, PartRecord, Unusable
from gigascope.runtime.shared_work import GatherWork, History
from gigascope.store.checksum import read_checksums, shard_files
from gigascope.store.create import StoreWriter
from gigascope.store.disk import remove

# Makes the provenance of a run, given what is to stand in it beside the usual.
Provenance = Callable[[Mapping[str, Any]], dict[str, Any]]

# Hashing lets other threads run; more of them would wait for the disk.
_HASH_THREADS = 2
_log = logging.getLogger("gigascope.run")


class Gather:
    """The gather of a scattered stage.

    Parameters
    ----------
    place : where the work was done
    checkpoints : those of the job
    history : what the open job left; the rounds are read and added here
    """

    def __init__(self, place: Workplace, checkpoints: Checkpoints, history: History) -> None:
        self._place = place
        self._checkpoints = checkpoints
        self._history = history
        self._parts: list[PartRecord] = []

    def run(self, outputs: Mapping[str, Path], provenance: Provenance) -> None:
        """Check, call the stage function, finish the stores, compare their shards with the records, move them in place.

        Raises
        ------
        Unusable : something is missing or altered; the record of its part is removed, so that the part is done again
        """
        self._read_parts()
        self._wait_for_parts()
        refuse_altered(self._place, self._history, self._parts, by_size=True)
        stage, folder = self._place.stage, self._place.folder
        context = self._place.context("gather", outputs)
        context.checkpoints = self._checkpoints
        context.work = GatherWork(self._history, len(self._history.opened.plan.rounds))
        context.warnings += self._warnings()
        self._restore(context)
        with refusing_altered(self._place, self._history, lambda: self._parts), context.blaming_inputs():
            stage.function(context, self._place.plan.section(stage))
            if context.missing_outputs():
                raise RuntimeError(f"{stage.name} did not write {', '.join(context.missing_outputs())}")
            record = provenance({"scatter": self._summary()})
            context.finish(record, check=lambda: self._compare(context.writers))
        for entry in folder.iterdir():
            if entry.name != "lock":
                remove(entry)

    def _warnings(self) -> list[str]:
        """Of the open job and of all items, in an order that does not depend on the parts; each once."""
        rounds = [self._history.records(number) for number in range(self._history.n_rounds)]
        of_items = [w for items in rounds for number in sorted(items) for w in items[number].warnings]
        return list(dict.fromkeys([*self._history.opened.warnings, *of_items]))

    def _read_parts(self) -> None:
        for number in range(len(self._history.opened.plan.rounds)):
            found = read_round(self._place, self._history, number)
            self._history.add(item for record in found for item in record.items)
            self._parts += found

    def _wait_for_parts(self) -> None:
        """An attempt of a part that outlived its job ends before its shards are moved."""
        for held in self._place.folder.glob("round-*/lock"):
            with lock.held(held.parent):
                pass

    def _restore(self, context: Context) -> None:
        """The stores that the open job created, with what the items wrote and nothing of a gather that was killed."""
        outputs = self._place.folder / OUTPUTS
        outputs.mkdir(exist_ok=True)
        for entry in outputs.iterdir():
            if f"{OUTPUTS}/{entry.name}" not in self._history.opened.stores:
                remove(entry)
        for folder, store in self._history.opened.stores.items():
            if not folder.startswith(f"{OUTPUTS}/"):
                continue
            writer = restore(self._place.folder, folder, store)
            for array in _arrays(writer, store.metadata):
                for name in (f"{folder}/{file}" for file in shard_files(array)):
                    if self._history.shard(name) is None:
                        (self._place.folder / name).unlink(missing_ok=True)
            context.adopt(Path(folder).stem, writer)

    def _compare(self, writers: Mapping[str, StoreWriter]) -> None:
        """Compare the shards in the finished stores with the records: their checksums are known now anyway."""
        found: dict[str, str] = {}
        for writer in writers.values():
            below = writer.path.relative_to(self._place.folder).as_posix()
            found |= {f"{below}/{file.file}": file.sha256 for file in read_checksums(writer.group)}
        wrong = [
            (part, f"{shard.file} was altered: its checksum differs")
            for part in self._parts
            for item in part.items
            for shard in item.shards
            if found.get(shard.file, shard.sha256) != shard.sha256
        ]
        _refuse(self._place, wrong)

    def _summary(self) -> dict[str, Any]:
        """For the provenance: how the work was shared out and what it took."""
        return {
            "parts": self._place.parts,
            "items": [len(items) for items in self._history.opened.plan.rounds],
            "item_seconds": round(sum(item.seconds for part in self._parts for item in part.items), 3),
            "wall_s": round(sum(part.about["wall_s"] for part in self._parts), 3),
            "peak_memory_bytes": max((part.about["peak_memory_bytes"] for part in self._parts), default=0),
            "peak_gpu_memory_bytes": max((part.about["peak_gpu_memory_bytes"] for part in self._parts), default=0),
        }


def problems(
    folder: Path, items: Sequence[ItemRecord], *, by_size: bool = False, gone: tuple[str, ...] = ()
) -> list[str | None]:
    """What is wrong with the files of each item, if anything.

    Parameters
    ----------
    by_size : leaves the checksums of shards to others
    gone : beginnings of the paths of shards that were released
    """

    def problem(item: ItemRecord) -> str | None:
        found = [lost(folder, item.saved)] if item.saved is not None else []
        kept = (shard for shard in item.shards if not shard.file.startswith(gone))
        found += [altered(folder, shard, by_size=by_size) for shard in kept]
        return next(filter(None, found), None)

    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        return list(pool.map(problem, items))


@contextmanager
def refusing_altered(
    place: Workplace, history: History, parts: Callable[[], Sequence[PartRecord]], errors: type[Exception] = Exception
) -> Iterator[None]:
    """Where one of `errors` comes up: look whether all is as the parts left it, and say so if not."""
    try:
        yield
    except Checkpointed:
        raise
    except errors:
        refuse_altered(place, history, parts())
        raise


def refuse_altered(place: Workplace, history: History, parts: Sequence[PartRecord], *, by_size: bool = False) -> None:
    """Compare all that parts left with their records.

    Raises
    ------
    Unusable : something is missing or altered; the record of its part was removed
    """
    items = [(part, item) for part in parts for item in part.items]
    gone = released(place.folder, history.opened)
    found = problems(place.folder, [item for _, item in items], by_size=by_size, gone=gone)
    _refuse(place, [(part, problem) for (part, _), problem in zip(items, found, strict=True) if problem])


def _refuse(place: Workplace, wrong: Sequence[tuple[PartRecord, str]]) -> None:
    for part, _ in wrong:
        place.record(part.round, part.part).unlink(missing_ok=True)
    if wrong:
        part, problem = wrong[0]
        more = f", and {len(wrong) - 1} more of the like" if len(wrong) > 1 else ""
        what = f"{problem} (part {part.part} of round {part.round}){more}."
        raise Unusable(what, where=place.folder, do=AGAIN)


def _arrays(writer: StoreWriter, metadata: Mapping[str, str]) -> list[Any]:
    names = [file.rpartition("/")[0] for file, text in metadata.items() if '"node_type": "array"' in text]
    return [writer.group[name] for name in names]
