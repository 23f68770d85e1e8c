"""What was read from the source of modules, kept between processes: to read it anew takes seconds of every start.

It lies beside what numba compiled, in the folder of a module's compiled form. An entry counts only for the very text
that it was made from, so an old, damaged or missing file costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any


class SourceCache:
    """Entries by name, each with the digest of the text that it was made from.

    Parameters
    ----------
    path : JSON file that they are kept in
    maker : source of what makes them; entries that were made by another one do not count
    """

    def __init__(self, path: Path, maker: str) -> None:
        self._path = path
        self._maker = hashlib.sha256(maker.encode()).hexdigest()
        self._entries = self._read()
        self._new: dict[str, list[Any]] = {}

    def get(self, name: str, text: str) -> Any:
        """What was found in a text under this name; none: it is to be found again."""
        entry = self._entries.get(name)
        return entry[1] if entry is not None and entry[0] == _digest(text) else None

    def put(self, name: str, text: str, found: Any) -> None:
        """Remember what was found, a JSON value; see :meth:`save`."""
        self._entries[name] = self._new[name] = [_digest(text), found]

    def save(self) -> None:
        """Write what is new, where that is possible; what another process wrote meanwhile stays."""
        if not self._new:
            return
        content = json.dumps({"maker": self._maker, "entries": self._read() | self._new})
        self._new = {}
        part = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            part.write_text(content, encoding="utf-8")
            os.replace(part, self._path)

    def _read(self) -> dict[str, list[Any]]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            entries: dict[str, list[Any]] = found["entries"] if found["maker"] == self._maker else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return entries


def beside(source: Path) -> Path:
    """The file for what is kept for a module, in the folder of its compiled form."""
    return Path(importlib.util.cache_from_source(str(source))).with_suffix(".json")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
