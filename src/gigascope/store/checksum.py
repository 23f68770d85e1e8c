"""Digests of every file of a store, and what is wrong with a store that was changed afterwards.

The table `checksums` (columns `file`, `bytes`, `sha256`) lists every file of the store but the root `zarr.json` and the
table itself; `sha256sum` gives the same digests. The record in the root attributes holds one digest over this list and
over all attributes but provenance and statistics, so equal content has an equal digest whenever it was made.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.plan import Region
from gigascope.store.table import read_table, write_table

if TYPE_CHECKING:
    import zarr

TABLE = "checksums"
ROOT = "zarr.json"
# hashlib lets other threads run while it works on a large block
_HASH_THREADS = 2
_ABSENT = np.uint64(2**64 - 1)
# Statistics follow from the data, but the order of numpy's sums, and so a last digit, depends on the processor.
_NOT_CONTENT = ("provenance", "digest", "statistics")


@dataclass(frozen=True)
class FileDigest:
    """Size and SHA-256 of one file of a store; `file` is its path below the root, with slashes."""

    file: str
    bytes: int
    sha256: str


class Digester:
    """Digests files of the store `root` in the background, each once, while the store is read for other reasons."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pool = ThreadPoolExecutor(_HASH_THREADS, thread_name_prefix="digest")
        self._digests: dict[str, Future[FileDigest]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, file: str) -> None:
        """Begin with a file that will not change any more."""
        if file not in self._digests:
            self._digests[file] = self._pool.submit(file_digest, self.root, file)

    def results(self) -> list[FileDigest]:
        """All digests, by name of file."""
        return [self._digests[file].result() for file in sorted(self._digests)]


def file_digest(root: Path, file: str) -> FileDigest:
    """Digest `file` below `root`."""
    with open(root / file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return FileDigest(file, opened.tell(), digest)


def store_files(root: Path) -> Iterator[str]:
    """Files that belong to a store, but the root and the table of checksums; hidden files are not ours."""
    for folder, names, files in os.walk(root):
        below = Path(folder).relative_to(root)
        if below == Path():
            names[:] = [name for name in names if name != TABLE]
            files = [name for name in files if name != ROOT]
        names[:] = [name for name in names if not name.startswith(".")]
        yield from ((below / name).as_posix() for name in files if not name.startswith("."))


def shard_files(array: zarr.Array) -> Iterator[str]:
    """Names of all data files that a complete `array` has (of its chunks, if it has no shards)."""
    shards = array.shards or array.chunks
    for index in itertools.product(*(range(-(-n // shard)) for n, shard in zip(array.shape, shards))):
        yield shard_file(array, index)


def shard_file(array: zarr.Array, index: tuple[int, ...]) -> str:
    """Name, below the root of the store, of the shard `index` of `array`."""
    return f"{array.path}/{array.metadata.encode_chunk_key(index)}"


def missing_shards(root: Path, array: zarr.Array) -> list[str]:
    """Names of data files that are not there. Zarr reads such a shard as zeros, without an error."""
    return [name for name in shard_files(array) if not (root / name).is_file()]


def read_block(root: Path, array: zarr.Array, region: Region) -> NDArray:
    """Read whole chunks of one shard, having checked that each was written; each is checked against its crc32c.

    Raises
    ------
    UserError : missing, a chunk never written, or unreadable
    """
    name = shard_file(array, shard_index(array, region))
    do = "Run the stage that makes it again."
    try:
        n_absent = _absent_chunks(root / name, array, region)
        if n_absent:
            raise UserError(f"{n_absent} chunks of this shard were never written.", where=root / name, do=do)
        return np.asarray(array[region])
    except FileNotFoundError:
        raise UserError("the shard is missing.", where=root / name, do=do) from None
    # What zarr and its codecs throw at damaged bytes: wrong crc32c or index, or a blosc frame that cannot be decoded.
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the shard cannot be read back ({error}).", where=root / name, do=do) from error


def shard_index(array: zarr.Array, region: Region) -> tuple[int, ...]:
    """Place in the grid of the shard in which `region` begins."""
    return tuple(r.start // shard for r, shard in zip(region, array.shards or array.chunks))


def content_digest(files: list[FileDigest], attributes: Mapping[str, Any]) -> str:
    """Digest of a store's content: all files and all attributes that are content; see the head of this module."""
    record = {k: v for k, v in attributes["gigascope"].items() if k not in _NOT_CONTENT}
    content = [[[f.file, f.bytes, f.sha256] for f in files], {**attributes, "gigascope": record}]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_checksums(group: zarr.Group, files: list[FileDigest]) -> None:
    """Write the table of checksums below the root `group`."""
    columns = {
        "file": np.array([f.file for f in files], dtype="T"),
        "bytes": np.array([f.bytes for f in files], dtype=np.int64),
        "sha256": np.array([f.sha256 for f in files], dtype="T"),
    }
    write_table(group, TABLE, columns, {"bytes": "byte"})


def read_checksums(group: zarr.Group) -> list[FileDigest]:
    """The table of checksums below the root `group`."""
    columns = read_table(group[TABLE])  # type: ignore[arg-type]
    rows = zip(columns["file"], columns["bytes"], columns["sha256"], strict=True)
    return [FileDigest(str(file), int(size), str(digest)) for file, size, digest in rows]


def verify(path: Path) -> list[str]:
    """Compare every file of a finished store with its record.

    Returns
    -------
    one line per problem, beginning with the file's name: missing, truncated, altered; empty if all is as it was

    Raises
    ------
    UserError : no store, or one without a completion record
    """
    import zarr

    from gigascope.store.open import open_store

    store = open_store(path)
    try:
        files = read_checksums(zarr.open_group(store.path, mode="r", zarr_format=3))
    except (KeyError, ValueError, RuntimeError, FileNotFoundError) as error:
        return [f"{TABLE}: the record of checksums cannot be read ({error})"]
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        problems = [problem for problem in pool.map(lambda f: _problem(store.path, f), files) if problem]
    if content_digest(files, store.attributes) != store.digest:
        problems.append(f"{ROOT}: altered: the attributes or the list of files are not those that were committed")
    return problems


def _problem(root: Path, expected: FileDigest) -> str | None:
    path = root / expected.file
    if not path.is_file():
        return f"{expected.file}: missing"
    size = path.stat().st_size
    if size != expected.bytes:
        word = "truncated" if size < expected.bytes else "altered"
        return f"{expected.file}: {word} ({size} bytes, {expected.bytes} were committed)"
    return None if file_digest(root, expected.file) == expected else f"{expected.file}: altered (its digest differs)"


def _absent_chunks(path: Path, array: zarr.Array, region: Region) -> int:
    """Chunks of `region` that the shard's index says were never written; the index is the last part of the file."""
    if array.shards is None:
        path.stat()  # one chunk per file: present is written
        return 0
    counts = tuple(shard // chunk for shard, chunk in zip(array.shards, array.chunks))
    n_bytes = 16 * math.prod(counts) + 4
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) < n_bytes:
            raise ValueError("it is shorter than its index")
        file.seek(-n_bytes, os.SEEK_END)
        index = np.frombuffer(file.read(n_bytes - 4), "<u8").reshape(*counts, 2)
    first = [r.start // chunk % count for r, chunk, count in zip(region, array.chunks, counts)]
    used = tuple(slice(f, f - (r.start - r.stop) // chunk) for f, r, chunk in zip(first, region, array.chunks))
    return int(np.count_nonzero(index[used][..., 0] == _ABSENT))
