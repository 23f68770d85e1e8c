"""Records of a scattered stage: what each item left and its checksums, what each part has done.

Three kinds of file. A journal in the work folder grows by one line per finished item, so that a killed part goes on
where it was. A part's record repeats these lines when the part is complete; it is what the workflow waits for, what
the next round and the gather read, and is worth nothing without the files that it names. The open record names the
plan that all parts follow.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from gigascope.config.section import canonical_json
from gigascope.errors import UserError

VERSION = 1
# In the folder of the records: that the work folder is open. In the work folder: under which plan.
OPEN = "open.json"
PLAN = "plan.json"
AGAIN = "Start snakemake again: it does what is missing again."


def part_name(round_: int | str, part: int | str) -> str:
    """File name of a part's record; Snakemake's wildcards may stand for the numbers."""
    return f"round-{round_}.part-{part}.json"


def round_name(round_: int | str) -> str:
    """File name of the mark that all parts of a round are done."""
    return f"round-{round_}.sha256"


class Unusable(UserError):
    """A record that is missing, altered or of another run: what it stands for has to be done again."""


@dataclass(frozen=True)
class Written:
    """A whole file of the work folder: path below it, with slashes; size; SHA-256."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Saved:
    """Arrays that an item saved: a stretch of a file of the work folder."""

    file: str
    offset: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ItemRecord:
    """What one item left in one round.

    Attributes
    ----------
    item : its number
    follows : digest of all that was there before its round; the item is done again if that becomes something else
    shards : shards that it wrote
    saved : arrays that it saved
    metrics, warnings : for people
    seconds : time spent on it by the attempt that finished it
    """

    item: int
    follows: str
    shards: tuple[Written, ...] = ()
    saved: Saved | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def content(self) -> list[Any]:
        """What counts for those who read it: not where it lies, nor how long it took."""
        saved = None if self.saved is None else [self.saved.bytes, self.saved.sha256]
        return [self.item, [[s.file, s.bytes, s.sha256] for s in self.shards], saved]

    @classmethod
    def of(cls, values: dict[str, Any]) -> ItemRecord:
        """From JSON values."""
        values = dict(values)
        values["shards"] = tuple(Written(**shard) for shard in values["shards"])
        values["saved"] = None if values["saved"] is None else Saved(**values["saved"])
        values["warnings"] = tuple(values["warnings"])
        return cls(**values)

    def summary(self) -> str:
        """Its metrics, for the progress bar."""
        numbers = ((k, v) for k, v in self.metrics.items() if isinstance(v, int | float))
        return ", ".join(f"{name} {value:.4g}" for name, value in numbers)


def follows(before: str, records: Iterable[ItemRecord]) -> str:
    """Digest of all that is there after a round; the same for every number of parts and order of items."""
    contents = sorted((record.content for record in records), key=lambda content: content[0])
    return hashlib.sha256(canonical_json([before, contents]).encode()).hexdigest()


class Journal:
    """The finished items of a part, one line each, as they are finished."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[ItemRecord]:
        """All whole lines; of two for one item the later. A line that a kill cut short is left out."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found: dict[int, ItemRecord] = {}
        for line in lines:
            try:
                record = ItemRecord.of(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue
            found[record.item] = record
        return list(found.values())

    def replace(self, records: Iterable[ItemRecord]) -> None:
        """Write it anew."""
        write_atomically(self._path, "".join(f"{canonical_json(asdict(record))}\n" for record in records))

    def append(self, record: ItemRecord) -> None:
        """Add an item; what it names must be on disk already."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{canonical_json(asdict(record))}\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class PartRecord:
    """That a part is complete.

    Attributes
    ----------
    work : name of the work folder
    round, part, parts : which part of which round, of how many
    follows : digest of all that was there before the round
    items : what each item left
    about : host, device, times and memory of the attempt that completed it
    """

    work: str
    round: int
    part: int
    parts: int
    follows: str
    items: tuple[ItemRecord, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        values = asdict(self)
        values["items"] = sorted(values["items"], key=lambda item: item["item"])
        _write(path, values)

    @classmethod
    def read(cls, path: Path) -> PartRecord:
        """Read a record.

        Raises
        ------
        Unusable : missing, cut short or altered
        """
        values = _read(path, "part")
        values["items"] = tuple(ItemRecord.of(item) for item in values["items"])
        return cls(**values)


def write_open_record(path: Path, work: str, plan: str) -> None:
    """Write that the work folder `work` is open, under the plan of SHA-256 `plan`."""
    _write(path, {"work": work, "plan": plan})


def read_open_record(path: Path) -> tuple[str, str]:
    """Name of the work folder and digest of its plan.

    Raises
    ------
    Unusable : missing, cut short or altered
    """
    values = _read(path, "open job")
    return values["work"], values["plan"]


def forget_lost_work(folder: Path) -> None:
    """Remove records whose work folder is gone, so that the workflow does not build on them.

    Parameters
    ----------
    folder : of the records of a stage, beside its work folder
    """
    try:
        work, _ = read_open_record(folder / OPEN)
    except Unusable:
        return
    if not (folder.parent / work / PLAN).is_file():
        for record in folder.iterdir():
            record.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write beside and rename, so that there is the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, values: dict[str, Any]) -> None:
    body = canonical_json(values)
    digest = hashlib.sha256(body.encode()).hexdigest()
    write_atomically(path, canonical_json({"version": VERSION, "digest": digest, "record": values}) + "\n")


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        record: dict[str, Any] = values["record"]
        digest = hashlib.sha256(canonical_json(record).encode()).hexdigest()
        if values["version"] != VERSION or values["digest"] != digest:
            raise ValueError("its digest or version differs")
    except FileNotFoundError:
        raise Unusable(f"the record of this {what} is missing.", where=path, do=AGAIN) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(f"the record of this {what} was altered or cut short ({error}).", where=path, do=AGAIN) from None
    return record
