"""What `ctx.work` is in the functions of a scattered stage: shared arrays, saved arrays, what earlier rounds left.

Nothing is read here that is not compared with its checksum first: Zarr reads a missing shard as zeros, and the rounds
of a stage may be days and many machines apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gigascope.errors import ShapeError
from gigascope.runtime import opened as files
from gigascope.runtime.opened import Opened
from gigascope.runtime.records import AGAIN, ItemRecord, Saved, Unusable, Written, follows
from gigascope.store.checksum import file_digest, shard_file
from gigascope.store.commit import json_value
from gigascope.store.create import new_array, plan_of, writable_array
from gigascope.store.disk import disk_errors
from gigascope.store.plain_shard import is_plain, write_shard
from gigascope.store.plan import Access, Region, ShardPlan, shard_plan

if TYPE_CHECKING:
    import zarr


class History:
    """What was there when a round began: the work of the open job and of all rounds before.

    Attributes
    ----------
    folder : work folder
    opened : what the open job left
    follows : digest of it all for each round so far, that of the next one last
    """

    def __init__(self, folder: Path, opened: Opened, digest: str) -> None:
        self.folder = folder
        self.opened = opened
        self.follows = [digest]
        self.arrays = {name: files.load_arrays(folder, saved)[name] for name, saved in opened.saved.items()}
        self._rounds: list[dict[int, ItemRecord]] = []
        self._shards = {w.file: w for store in opened.stores.values() for w in store.files}
        self._checked: set[str] = set()

    @property
    def n_rounds(self) -> int:
        """Rounds that are known."""
        return len(self._rounds)

    def add(self, records: Iterable[ItemRecord]) -> None:
        """Take in the next round, whole.

        Raises
        ------
        RuntimeError : an item too many or too few, or two that wrote one shard
        """
        found = {record.item: record for record in records}
        number = len(self._rounds)
        if set(found) != set(self.opened.plan.rounds[number]):
            raise RuntimeError(
                f"round {number} is to do {len(self.opened.plan.rounds[number])} items, not {len(found)}"
            )
        for record in found.values():
            for shard in record.shards:
                if shard.file in self._shards:
                    raise RuntimeError(f"{shard.file} was written twice, the second time by item {record.item}")
                self._shards[shard.file] = shard
        self._rounds.append(found)
        self.follows.append(follows(self.follows[-1], found.values()))

    def records(self, round_: int) -> dict[int, ItemRecord]:
        """What the items of a round left."""
        return self._rounds[round_]

    def find(self, item: int, round_: int | None) -> ItemRecord | None:
        """Record of an item in a round; without one in the latest round in which it saved something."""
        if round_ is not None:
            return self._rounds[round_].get(item) if round_ < self.n_rounds else None
        latest = (records[item] for records in reversed(self._rounds) if item in records)
        return next((record for record in latest if record.saved is not None), None)

    def shard(self, file: str) -> Written | None:
        """Record of a shard that was there when the round began."""
        return self._shards.get(file)

    def check(self, file: str) -> None:
        """Compare a shard with its record, once in this process.

        Raises
        ------
        Unusable : never written, missing or altered
        """
        if file in self._checked:
            return
        written = self._shards.get(file)
        why = f"{file} was not written before this round" if written is None else files.altered(self.folder, written)
        if why is not None:
            raise Unusable(f"{why}.", where=self.folder, do=AGAIN)
        self._checked.add(file)


class SharedArray:
    """An array into which the items of a stage write, each its own whole shards.

    Attributes
    ----------
    plan : how it is cut into chunks and shards
    """

    def __init__(self, array: zarr.Array, root: Path, name: str, history: History, own: dict[str, Written] | None):
        self.plan: ShardPlan = plan_of(array)
        self._array = array
        self._root = root
        self._name = name
        self._history = history
        self._own = own
        self._plain = is_plain(array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples along each axis."""
        return self.plan.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the samples."""
        return self._array.dtype

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return self.plan.n_shards

    def region(self, shard: int) -> Region:
        """A shard as slices, clipped to the array; shards are numbered with the last axis fastest."""
        place = np.unravel_index(shard, self.plan.grid)
        cut = zip(place, self.plan.shards, self.shape)
        return tuple(slice(int(i) * size, min((int(i) + 1) * size, n)) for i, size, n in cut)

    def shard_regions(self) -> list[Region]:
        """Every shard as slices, in the order of their numbers."""
        return list(self.plan.regions())

    def __setitem__(self, region: Any, block: ArrayLike) -> None:
        block = np.asarray(block)
        slices = _slices(region, self.shape)
        if self._own is None:
            raise RuntimeError(f"{self._name} is written by the items of the stage, not by its gather")
        cut = zip(slices, self.plan.shards, self.shape)
        if not all(s.start % size == 0 and (s.stop % size == 0 or s.stop == n) for s, size, n in cut):
            raise ShapeError(f"{self._name}: {region} does not consist of whole shards {self.plan.shards}")
        if block.shape != tuple(s.stop - s.start for s in slices):
            raise ShapeError(f"{self._name}: a block of shape {block.shape} does not fill {region}")
        if not np.can_cast(block.dtype, self.dtype, "same_kind"):
            raise ShapeError(f"{self._name} holds {self.dtype}, got {block.dtype}: convert explicitly")
        touched = self._files(slices)
        if taken := [file for file in touched if self._history.shard(file) is not None]:
            raise RuntimeError(f"{taken[0]} was written in an earlier round; a shard has one writer")
        with disk_errors(self._root, block.nbytes):
            # At the end of an array Zarr would read the shard first, which a killed or altered attempt may have left.
            for file in touched:
                (self._history.folder / file).unlink(missing_ok=True)
            if self._plain:
                self._write_plain(slices, block)
                return
            self._array[slices] = block
        for file in touched:
            digest = file_digest(self._history.folder, file)
            self._own[file] = Written(file, digest.bytes, digest.sha256)

    def __getitem__(self, region: Any) -> NDArray:
        for file in self._files(_slices(region, self.shape)):
            if self._own is None or file not in self._own:
                self._history.check(file)
        return np.asarray(self._array[region])

    def _write_plain(self, slices: Sequence[slice], block: NDArray) -> None:
        """Shard by shard, digested on the way."""
        own = {} if self._own is None else self._own
        corner = [s.start for s in slices]
        for place in self._places(slices):
            cut = zip(place, self.plan.shards, corner)
            part = block[tuple(slice(i * size - c, (i + 1) * size - c) for i, size, c in cut)]
            digest = write_shard(self._root, self._array, place, part.astype(self.dtype, copy=False))
            own[f"{self._name}/{digest.file}"] = Written(f"{self._name}/{digest.file}", digest.bytes, digest.sha256)

    def _places(self, slices: Sequence[slice]) -> list[tuple[int, ...]]:
        """Places in the grid of the shards that a region touches."""
        cut = zip(slices, self.plan.shards)
        return list(itertools.product(*(range(s.start // size, -(-s.stop // size)) for s, size in cut)))

    def _files(self, slices: Sequence[slice]) -> list[str]:
        """Files below the work folder of the shards that a region touches."""
        return [f"{self._name}/{shard_file(self._array, place)}" for place in self._places(slices)]


class SharedWork:
    """What the items and the gather share.

    Attributes
    ----------
    round : number of the round, from 0; in the gather the number of rounds
    """

    def __init__(self, history: History, round_: int) -> None:
        self.round = round_
        self._history = history
        self._own: dict[str, Written] | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the open job decided."""
        return self._history.opened.plan.facts

    @property
    def opened(self) -> Mapping[str, NDArray]:
        """Arrays that the open job saved, by name."""
        return self._history.arrays

    def array(self, name: str, path: str = "0") -> SharedArray:
        """A shared array.

        Parameters
        ----------
        name : output store that the open job created, or array of `ctx.work.create_array`
        path : which array of the output store: the image, `arrays/<side array>`, `labels/<name>/0`

        Raises
        ------
        Unusable : it was removed or its metadata altered
        """
        import zarr

        stores = self._history.opened.stores
        store, path = (s, path) if (s := files.output_name(name)) in stores else (files.SHARED, f"arrays/{name}")
        metadata = f"{path}/zarr.json"
        if store not in stores or metadata not in stores[store].metadata:
            raise KeyError(f"the open job made no array {name!r}, {path!r}")
        root = self._history.folder / store
        try:
            found = (root / metadata).read_text(encoding="utf-8")
        except FileNotFoundError:
            found = None
        if found != stores[store].metadata[metadata]:
            raise Unusable("this array was removed or altered.", where=root / metadata, do=AGAIN)
        array = writable_array(zarr.open_group(root, mode="r+", zarr_format=3), path)
        return SharedArray(array, root, store, self._history, self._own)

    def has(self, item: int, round: int | None = None) -> bool:
        """Whether an item saved arrays in a round; without one, in any earlier round."""
        record = self._history.find(item, round)
        return record is not None and record.saved is not None

    def read(self, item: int, round: int | None = None) -> dict[str, NDArray]:
        """Arrays that an item saved in an earlier round, by default the latest; none if it saved nothing.

        Raises
        ------
        Unusable : they are missing or altered
        """
        record = self._history.find(item, round)
        if record is None or record.saved is None:
            return {}
        return files.load_arrays(self._history.folder, record.saved)

    def metrics_of(self, item: int, round: int | None = None) -> dict[str, Any]:
        """Metrics that an item left in an earlier round, by default the latest in which it was done."""
        rounds = range(self._history.n_rounds) if round is None else (round,)
        found = [r[item].metrics for r in map(self._history.records, rounds) if item in r]
        return dict(found[-1]) if found else {}


class ItemWork(SharedWork):
    """`ctx.work` in the `item` function.

    Attributes
    ----------
    item : its number
    metrics : numbers for people, kept in the record
    """

    def __init__(self, history: History, round_: int, item: int, file: str) -> None:
        super().__init__(history, round_)
        self.item = item
        self.metrics: dict[str, Any] = {}
        self._own = {}
        self._file = file
        self._saved: Saved | None = None

    def save(self, **arrays: ArrayLike) -> None:
        """Keep arrays of any length as what this item found in this round; once."""
        if self._saved is not None:
            raise RuntimeError(f"item {self.item} saved twice in round {self.round}")
        self._saved = files.append_arrays(self._history.folder, self._file, arrays)

    def record(self, warnings: Sequence[str], seconds: float) -> ItemRecord:
        """What the item left."""
        return ItemRecord(
            self.item,
            self._history.follows[self.round],
            tuple(sorted((self._own or {}).values(), key=lambda shard: shard.file)),
            self._saved,
            json_value(self.metrics),
            tuple(warnings),
            round(seconds, 3),
        )


class GatherWork(SharedWork):
    """`ctx.work` in the stage function."""

    @property
    def rounds(self) -> list[list[int]]:
        """Items of each round, by number."""
        return [sorted(items) for items in self._history.opened.plan.rounds]

    @property
    def items(self) -> list[int]:
        """All items of all rounds, by number."""
        return sorted({item for items in self._history.opened.plan.rounds for item in items})


class OpenWork:
    """`ctx.work` in the `open` function."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.saved: dict[str, Saved] = {}
        self.until: dict[str, int] = {}

    def create_array(
        self,
        name: str,
        shape: Sequence[int],
        dtype: DTypeLike,
        *,
        access: Access = "volume",
        plan: Any = None,
        compress: bool = True,
        until: int | None = None,
    ) -> zarr.Array:
        """A shared array that is no output.

        Parameters
        ----------
        plan : cuts it where `access` does not fit
        compress : False: plain bytes, for what does not get smaller
        until : the last round whose items read it; its shards are removed when a later round begins. None: it is kept
        """
        if until is not None:
            self.until[name] = until
        store = files.shared_store(self._folder)
        cut = plan or shard_plan(shape, dtype, access)
        with disk_errors(store.path):
            return new_array(store.group, f"arrays/{name}", cut, dtype, compress=compress)

    def save(self, **arrays: ArrayLike) -> None:
        """Keep arrays for all items; a name that was saved before gets its new value."""
        for name, array in arrays.items():
            self.saved[name] = files.append_arrays(self._folder, files.SAVED, {name: array})


def _slices(region: Any, shape: Sequence[int]) -> tuple[slice, ...]:
    """The region as one slice of positive step 1 per axis; an integer is a slice of one."""
    given = region if isinstance(region, tuple) else (region,)
    if Ellipsis in given:
        place = given.index(Ellipsis)
        given = (*given[:place], *[slice(None)] * (len(shape) - len(given) + 1), *given[place + 1 :])
    given = (*given, *[slice(None)] * (len(shape) - len(given)))
    slices = []
    for part, n in zip(given, shape, strict=True):
        if not isinstance(part, slice):
            part = slice(int(part), int(part) + 1 or None)
        start, stop, step = part.indices(n)
        if step != 1 or stop <= start:
            raise ShapeError(f"{region} is no region of an array of shape {tuple(shape)}")
        slices.append(slice(start, stop))
    return tuple(slices)
