"""Quick digests of raw input files, so that the workflow notices changed data without reading terabytes.

Snakemake compares files above 1 MB by their time, which a copy or a `touch` changes and a careful replacement does not.
Instead the size and evenly spaced blocks of every file are hashed, and remembered by path, size and time: a file that
looks untouched is not opened again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

BLOCK = 64 * 1024
# With the block this is 2 MiB read of a large file; a stack whose views were replaced differs in every block.
N_BLOCKS = 32
MAX_LISTED = 32


def raw_digests(files: Iterable[Path], cache: Path) -> dict[str, str]:
    """Digests of raw files; a folder with many of them is one entry, so that the stage's config stays short.

    Parameters
    ----------
    files : files, or folders (an OME-Zarr store), of which every file counts
    cache : JSON file of digests known from before; rewritten when something changed, left alone where it cannot be

    Returns
    -------
    path of the file, or of a folder that holds more than 32 of the files -> hexadecimal digest
    """
    known = _read_cache(cache)
    fresh: dict[str, list[object]] = {}
    groups: dict[str, list[tuple[str, str]]] = {}
    for given in files:
        members = sorted(p for p in given.rglob("*") if p.is_file()) if given.is_dir() else [given]
        top = given if given.is_dir() else given.parent
        for member in members:
            entry = (str(member.relative_to(top)), _cached(member, known, fresh))
            groups.setdefault(str(top), []).append(entry)
    if fresh != known:
        _write_cache(cache, fresh)
    digests: dict[str, str] = {}
    for folder, entries in sorted(groups.items()):
        if len(entries) <= MAX_LISTED:
            digests.update({str(Path(folder, name)): digest for name, digest in sorted(entries)})
        else:
            text = "".join(f"{name}={digest}\n" for name, digest in sorted(entries))
            digests[folder] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return digests


def quick_digest(path: Path) -> str:
    """SHA-256 over the size and up to 32 evenly spaced blocks of 64 KiB; the whole of a file up to 2 MiB."""
    size = path.stat().st_size
    total = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        if size <= BLOCK * N_BLOCKS:
            total.update(file.read())
        else:
            for index in range(N_BLOCKS):
                file.seek((size - BLOCK) * index // (N_BLOCKS - 1))
                total.update(file.read(BLOCK))
    return total.hexdigest()[:16]


def _cached(path: Path, known: dict[str, list[object]], fresh: dict[str, list[object]]) -> str:
    status = path.stat()
    key = str(path)
    entry = known.get(key)
    if entry is None or entry[:2] != [status.st_size, status.st_mtime_ns]:
        entry = [status.st_size, status.st_mtime_ns, quick_digest(path)]
    fresh[key] = entry
    return str(entry[2])


def _read_cache(cache: Path) -> dict[str, list[object]]:
    try:
        values = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write_cache(cache: Path, entries: dict[str, list[object]]) -> None:
    """Beside and renamed, since several planners may run; a results folder that cannot be written is no matter here."""
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=cache.parent, prefix=f".{cache.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(entries, file)
        os.replace(partial, cache)
