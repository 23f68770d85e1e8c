"""Entities of a crate: stores and files by name, digest and size, and things that are no files.

Nothing is copied, and nothing of a store is opened or walked: the library is used for the metadata alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from gigascope.crate.runs import Data

OME_ZARR = "https://ngff.openmicroscopy.org/0.5/"
# Media types by the ending of a file; others are plain bytes.
ENCODING = {
    ".cff": "application/yaml",
    ".gmix": "application/zip",
    ".html": "text/html",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".tif": "image/tiff",
    ".tsv": "text/tab-separated-values",
    ".yaml": "application/yaml",
    **dict.fromkeys(("", ".aln", ".com", ".lock", ".log", ".rst", ".smk", ".tlt", ".xf"), "text/plain"),
}


class Entities:
    """The entities of a crate.

    Parameters
    ----------
    held : what of the result is in the crate, by its path there
    """

    def __init__(self, held: Mapping[str, Path]) -> None:
        self.crate = ROCrate(version="1.1")
        self.held = held

    def add(self, id_: str, type_: str, **properties: Any) -> str:
        """An entity that is no file of the crate; empty lists are left out."""
        kept = {key: value for key, value in properties.items() if value != []}
        return str(self.crate.add(ContextEntity(self.crate, id_, properties={"@type": type_, **kept})).id)

    def value(self, id_: str, name: str, value: str, what: str) -> dict[str, str]:
        """Reference to a value that says what it is."""
        return ref(self.add(id_, "PropertyValue", name=name, value=value, propertyID=what))

    def file(self, path: str, source: Path, **told: Any) -> str:
        """A small file that is in the crate."""
        return self._file(path, {**measured(source), **told})

    def beside(self, path: str, name: str, **told: Any) -> list[str]:
        """A small file beside the results, where it is there."""
        return [self.file(path, self.held[path], name=name, **told)] if path in self.held else []

    def data(self, data: Data) -> str:
        """Id of a store or file, which is described when it is first asked for.

        What is not in the crate has a local name (`#...`): a path would promise that it is there.
        """
        if data.file is None:
            return self._outside(data)
        here = data.file in self.held
        id_ = (quote(data.file) if here else f"#{quote(data.file)}") + ("/" if here and data.store else "")
        if self.crate.dereference(id_) is not None:
            return id_
        told: dict[str, Any] = {"name": data.file, "contentSize": str(data.n_bytes)}
        told |= {} if here else {"alternateName": str(data.path)}
        if data.store:
            self._store(id_, data, here, told)
        elif here:
            self._file(data.file, {**told, "sha256": data.digest})
        else:
            self.add(id_, "File", **told, **encoding(data.file), sha256=data.digest)
        return id_

    def _store(self, id_: str, data: Data, here: bool, told: dict[str, Any]) -> None:
        told["description"] = f"{'OME-Zarr' if data.image else 'Zarr'} store of {data.n_files} files"
        told["identifier"] = self._digest(data)
        if data.image:
            told["conformsTo"] = ref(self.add(OME_ZARR, "CreativeWork", name="OME-Zarr", version="0.5"))
        if here:
            self.crate.add_dataset(dest_path=data.file, properties=told)
        else:
            self.add(id_, "Dataset", **told)

    def _outside(self, data: Data) -> str:
        """Id of data that came from outside, by the name under which it was read."""
        id_ = f"#input/{quote(str(data.path).lstrip('/'))}"
        if self.crate.dereference(id_) is None:
            size = {"contentSize": str(data.path.stat().st_size)} if data.path.is_file() else {}
            kind = "Dataset" if data.store or data.path.is_dir() else "File"
            name = data.path.name
            self.add(id_, kind, name=name, alternateName=str(data.path), identifier=self._digest(data), **size)
        return id_

    def _digest(self, data: Data) -> dict[str, str]:
        """Digest of a store or of raw data, which is not simply that of one file."""
        what = "content" if data.store else "quick"
        name = quote(data.file if data.file is not None else str(data.path).lstrip("/"))
        return self.value(f"#digest/{name}", f"{what} digest", data.digest, f"gigascope:{what}_digest")

    def _file(self, path: str, told: Mapping[str, Any]) -> str:
        return str(self.crate.add_file(dest_path=path, properties={**encoding(path), **told}).id)


def ref(id_: str) -> dict[str, str]:
    """Reference to an entity."""
    return {"@id": id_}


def refs(ids: Iterable[str]) -> Any:
    """References to entities, each once; to a single one without a list, as RO-Crate asks for."""
    found = [ref(id_) for id_ in dict.fromkeys(ids)]
    return found[0] if len(found) == 1 else found


def measured(path: Path) -> dict[str, str]:
    """Size and digest of a file."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "contentSize": str(file.tell())}


def encoding(path: str) -> dict[str, str]:
    """Media type of a file, by its ending."""
    return {"encodingFormat": ENCODING.get(Path(path).suffix, "application/octet-stream")}
