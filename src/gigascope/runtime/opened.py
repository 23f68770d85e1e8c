"""What the open job of a scattered stage leaves in the work folder, written down so that parts and gather can trust it.

`outputs/<name>.zarr` are output stores to be, `shared.zarr` holds arrays that are no output, `open.bin` what was saved
for all items. `plan.json` comes last and names all of them; a work folder without it was never opened.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.config.section import canonical_json
from gigascope.errors import ShapeError
from gigascope.runtime.parts import WorkPlan
from gigascope.runtime.records import AGAIN, PLAN, Saved, Unusable, Written, write_atomically
from gigascope.store.checksum import file_digest, store_files
from gigascope.store.commit import json_value
from gigascope.store.create import StoreWriter, create_store, open_writer
from gigascope.store.disk import disk_errors, remove

SAVED = "open.bin"
OUTPUTS = "outputs"
SHARED = "shared.zarr"
BEGUN = "begun-"
_METADATA = "zarr.json"
_append_lock = threading.Lock()


@dataclass(frozen=True)
class OpenedStore:
    """A store as the open job left it: text of every `zarr.json`, every other file, and the attributes to be."""

    metadata: Mapping[str, str]
    files: tuple[Written, ...]
    attrs: Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """What the open job decided and made; see the module's description.

    Attributes
    ----------
    plan : items and rounds
    saved : arrays for all items, by name
    stores : by the path of their folders below the work folder
    warnings : for the report
    until : the last round that needs it, of each shared array that is not kept to the end
    """

    plan: WorkPlan
    saved: Mapping[str, Saved] = field(default_factory=dict)
    stores: Mapping[str, OpenedStore] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    until: Mapping[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> str:
        """Write `plan.json`; returns its SHA-256."""
        values = {
            "plan": self.plan.values(),
            "saved": {name: asdict(saved) for name, saved in self.saved.items()},
            "stores": {name: asdict(store) for name, store in self.stores.items()},
            "warnings": list(self.warnings),
            "until": dict(self.until),
        }
        text = canonical_json(json_value(values))
        write_atomically(folder / PLAN, text)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def read(cls, folder: Path) -> tuple[Opened, str]:
        """The plan of a work folder and its SHA-256.

        Raises
        ------
        Unusable : the folder was not opened, or its plan is damaged
        """
        try:
            text = (folder / PLAN).read_text(encoding="utf-8")
            values = json.loads(text)
            stores = {
                name: OpenedStore(s["metadata"], tuple(Written(**w) for w in s["files"]), s["attrs"])
                for name, s in values["stores"].items()
            }
            saved = {name: Saved(**s) for name, s in values["saved"].items()}
            opened = cls(WorkPlan.of(values["plan"]), saved, stores, tuple(values["warnings"]), values["until"])
        except FileNotFoundError:
            raise Unusable("this work folder is not open.", where=folder, do=AGAIN) from None
        except (ValueError, KeyError, TypeError) as error:
            what = f"the plan of this work folder is damaged ({error})."
            raise Unusable(what, where=folder / PLAN, do=AGAIN) from None
        return opened, hashlib.sha256(text.encode()).hexdigest()

    def problem(self, folder: Path) -> str | None:
        """What is missing or altered of the things that the plan names, shards of the items apart."""
        gone = released(folder, self)
        for name, store in self.stores.items():
            if missing := [file for file in store.metadata if not (folder / name / file).is_file()]:
                return f"{name}/{missing[0]} is missing"
            kept = (file for file in store.files if not file.file.startswith(gone))
            if problems := list(filter(None, (altered(folder, file) for file in kept))):
                return problems[0]
        return next(filter(None, (lost(folder, saved) for saved in self.saved.values())), None)


def store_as_opened(folder: Path, name: str, attrs: Mapping[str, Any]) -> OpenedStore:
    """What a store of the work folder consists of now."""
    root = folder / name
    files = [*sorted(store_files(root)), _METADATA]
    metadata = {f: (root / f).read_text(encoding="utf-8") for f in files if Path(f).name == _METADATA}
    data = [file_digest(root, f) for f in files if f not in metadata]
    written = tuple(Written(f"{name}/{d.file}", d.bytes, d.sha256) for d in data)
    return OpenedStore(metadata, written, json_value(attrs))


def restore(folder: Path, name: str, store: OpenedStore) -> StoreWriter:
    """An output store for the gather, as the open job left it but for the shards: an attempt that was killed may have
    completed its metadata already, and added groups and arrays.
    """
    root = folder / name
    for added in list(_added(root, store.metadata)):
        remove(added)
    for file, text in store.metadata.items():
        write_atomically(root / file, text)
    writer = open_writer(root)
    writer.attrs = dict(store.attrs)
    return writer


def _added(root: Path, metadata: Mapping[str, str], node: str = "") -> Iterator[Path]:
    """Folders below a node of a store that hold nothing which the open job made."""
    for child in sorted((root / node).iterdir()):
        path = f"{node}{child.name}"
        if not child.is_dir():
            continue
        if not any(file.startswith(f"{path}/") for file in metadata):
            yield child
        elif json.loads(metadata.get(f"{path}/{_METADATA}", "{}")).get("node_type") != "array":
            yield from _added(root, metadata, f"{path}/")


def output_name(name: str) -> str:
    """Path of an output store below the work folder."""
    return f"{OUTPUTS}/{name}.zarr"


def shared_store(folder: Path) -> StoreWriter:
    """The store of shared arrays that are no output, made if it is not there."""
    path = folder / SHARED
    return open_writer(path) if path.is_dir() else create_store(path)


def clear(folder: Path) -> None:
    """Remove all that an open job made or began, and its plan first of all."""
    for path in (*(folder / name for name in (PLAN, SAVED, OUTPUTS, SHARED)), *folder.glob(f"{BEGUN}*")):
        remove(path)


# shared arrays that only some rounds need


def release(folder: Path, opened: Opened, round_: int) -> None:
    """Remove the shards of shared arrays that no item needs any more, now that a round begins."""
    names = [name for name, until in opened.until.items() if until < round_]
    if names and begun(folder) < round_:
        # first, so that nobody takes what is removed for lost
        write_atomically(folder / f"{BEGUN}{round_}", "")
    for name in names:
        remove(folder / _shards_of(name))


def released(folder: Path, opened: Opened) -> tuple[str, ...]:
    """Beginnings of the paths, below the work folder, of shards that may be gone."""
    now = begun(folder)
    return tuple(f"{_shards_of(name)}/" for name, until in opened.until.items() if until < now)


def cannot_repeat(folder: Path, opened: Opened, round_: int) -> bool:
    """Whether arrays that items of a round may need were released since."""
    now = begun(folder)
    return any(round_ <= until < now for until in opened.until.values())


def begun(folder: Path) -> int:
    """The latest round for which arrays were released; -1: none."""
    return max((int(path.name.removeprefix(BEGUN)) for path in folder.glob(f"{BEGUN}*[0-9]")), default=-1)


def _shards_of(name: str) -> str:
    return f"{SHARED}/arrays/{name}/c"


# arrays of any length, one after the other in few files: a file of its own for each would be millions of them


def append_arrays(folder: Path, file: str, arrays: Mapping[str, ArrayLike]) -> Saved:
    """Add arrays at the end of a file of the work folder, and return where they lie.

    Raises
    ------
    ShapeError : an array of Python objects
    UserError : the disk is full or may not be written
    """
    held = {name: np.asarray(array) for name, array in arrays.items()}
    if bad := [name for name, array in held.items() if array.dtype.hasobject]:
        raise ShapeError(f"array {bad[0]!r} holds Python objects; numbers, bools and text of fixed length can be saved")
    buffer = io.BytesIO()
    # As np.savez does it, which takes some names for its own.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in held.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    data = buffer.getbuffer()
    path = folder / file
    with disk_errors(path, len(data)), _append_lock:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as opened:
            offset = opened.seek(0, os.SEEK_END)
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
    return Saved(file, offset, len(data), hashlib.sha256(data).hexdigest())


def load_arrays(folder: Path, saved: Saved) -> dict[str, NDArray]:
    """Saved arrays by name.

    Raises
    ------
    Unusable : missing, cut short or altered
    """
    data, why = _read(folder, saved)
    if why is not None:
        raise Unusable(f"{why}.", where=folder, do=AGAIN)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def lost(folder: Path, saved: Saved) -> str | None:
    """What is wrong with saved arrays, if anything."""
    return _read(folder, saved)[1]


def _read(folder: Path, saved: Saved) -> tuple[bytes, str | None]:
    try:
        with (folder / saved.file).open("rb") as file:
            file.seek(saved.offset)
            data = file.read(saved.bytes)
    except FileNotFoundError:
        return b"", f"{saved.file} is missing"
    if hashlib.sha256(data).hexdigest() == saved.sha256:
        return data, None
    word = "cut short" if len(data) < saved.bytes else "altered"
    return data, f"{saved.file} was {word} (bytes {saved.offset} to {saved.offset + saved.bytes})"


def altered(folder: Path, written: Written, *, by_size: bool = False) -> str | None:
    """What is wrong with a file of the work folder, if anything; `by_size` leaves its checksum to somebody else."""
    path = folder / written.file
    if not path.is_file():
        return f"{written.file} is missing"
    size = path.stat().st_size
    if size != written.bytes:
        return f"{written.file} was altered: it has {size} bytes, {written.bytes} were written"
    if not by_size and file_digest(folder, written.file).sha256 != written.sha256:
        return f"{written.file} was altered: its checksum differs"
    return None
