"""Open finished stores; one that is missing, unfinished or of an unknown version is refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError

if TYPE_CHECKING:
    import zarr

_AGAIN = "Run snakemake again: it runs the stage that makes this store."


class StoreReader:
    """A finished store, read-only.

    Attributes
    ----------
    path : folder of the store
    attributes : all root attributes, `ome` and `gigascope`
    digest : SHA-256 of the content, hexadecimal; see :mod:`gigascope.store.checksum`
    provenance : what the stage's run recorded
    attrs : JSON values that the stage kept
    statistics : min, max, mean of the finite values of the image and the count of others, empty without an image
    """

    def __init__(self, path: Path, attributes: dict[str, Any], root: Path | None = None) -> None:
        record = attributes["gigascope"]
        self.path = path
        self._root = root or path
        self.attributes = attributes
        self.digest: str = record["digest"]
        self.provenance: dict[str, Any] = record["provenance"]
        self.attrs: dict[str, Any] = record["stage_attrs"]
        self.statistics: dict[str, Any] = record["statistics"]
        self._image: dict[str, Any] | None = record["image"]
        self._members: dict[str, list[str]] = record["members"]
        self._images: list[str] = record.get("images", [])
        self._side_folder: str = record.get("side_folder", "arrays")

    # the image

    @property
    def has_image(self) -> bool:
        """Whether there is an image, or tables and side arrays only."""
        return self._image is not None

    @property
    def axes(self) -> tuple[str, ...]:
        """Name of each axis of the image."""
        return tuple(self._need_image()["axes"])

    @property
    def spacing(self) -> dict[str, float]:
        """Sample to sample of level 0 by axis name, for the axes where it is known, in `unit` (degrees along tilt)."""
        return dict(self._need_image()["spacing"])

    @property
    def unit(self) -> str:
        """Of the spatial axes, OME-Zarr's long form."""
        return self._need_image()["unit"]

    @property
    def name(self) -> str:
        """Of the image, for viewers."""
        return self._need_image()["name"]

    @property
    def window(self) -> tuple[float, float]:
        """Darkest and brightest value to show."""
        window = self.attributes["ome"]["omero"]["channels"][0]["window"]
        return window["start"], window["end"]

    @property
    def channels(self) -> list[dict[str, Any]]:
        """Label, colour (`color`) and window (`min`, `max`, `start`, `end`) of every channel, as OME-Zarr has them."""
        self._need_image()
        return list(self.attributes["ome"]["omero"]["channels"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples along each axis of level 0."""
        return tuple(self._need_image()["shape"])

    @property
    def dtype(self) -> np.dtype:
        """Of the image."""
        return np.dtype(self._need_image()["dtype"])

    @property
    def n_levels(self) -> int:
        """Levels of the pyramid, the full one included."""
        self._need_image()
        return len(self.attributes["ome"]["multiscales"][0]["datasets"])

    def array(self, level: int = 0) -> zarr.Array:
        """A level of the image, checked for missing shards (Zarr would read them as zeros).

        Raises
        ------
        UserError : a shard is missing, or there is no such level
        """
        return self._array(str(level), "levels", [str(n) for n in range(self.n_levels)])

    # beside the image

    def side(self, name: str) -> zarr.Array:
        """A side array."""
        folder = self._side_folder
        return self._array(f"{folder}/{name}", "side arrays", [f"{folder}/{n}" for n in self._members["arrays"]])

    def member(self, name: str) -> zarr.Array:
        """An array at a place of its own, of a store without an image; in a group of it by its path, `s0000/distance`.

        Raises
        ------
        UserError : there is none, or a shard is missing
        """
        from gigascope.store.checksum import TABLE

        own = ("arrays", "labels", "tables", TABLE)
        found = sorted(p.parent.name for p in self.path.glob("*/zarr.json") if p.parent.name not in own)
        if name.split("/")[0] in found and (self.path / name / "zarr.json").is_file():
            found.append(name)
        return self._array(name, "members", found)

    def label(self, name: str, level: int = 0) -> zarr.Array:
        """A level of a label image; it has as many levels as the image."""
        known = [f"labels/{n}/{k}" for n in self._members["labels"] for k in range(self.n_levels)]
        return self._array(f"labels/{name}/{level}", "label images", known)

    def table(self, name: str) -> dict[str, NDArray]:
        """The columns of a table, by name; numbers, bools, or strings as numpy's StringDType.

        Raises
        ------
        UserError : there is none, or a shard is missing
        """
        return self._columns(self._table(name))

    def columns(self, path: str, names: Sequence[str] | None = None) -> dict[str, NDArray]:
        """Columns of a table at a place of its own, all or some, as :meth:`member` is of arrays; raises as it."""
        import zarr

        return self._columns(zarr.open_group(self.path, mode="r", zarr_format=3)[path], names)  # type: ignore[arg-type]

    def units(self, name: str) -> dict[str, str]:
        """Units of a table's columns, for the columns that have one."""
        units: Any = self._table(name).attrs["units"]
        return dict(units)

    @property
    def tables(self) -> list[str]:
        """Names of the tables."""
        return list(self._members["tables"])

    @property
    def sides(self) -> list[str]:
        """Names of the side arrays."""
        return list(self._members["arrays"])

    @property
    def labels(self) -> list[str]:
        """Names of the label images."""
        return list(self._members["labels"])

    # an ensemble

    @property
    def images(self) -> list[str]:
        """Names of the images of an ensemble, in order; empty for any other store."""
        return list(self._images)

    def image(self, name: str) -> StoreReader:
        """An image of an ensemble, as a store of its own: with its arrays, labels, tables, attributes and statistics.

        Its digest and provenance are those of the ensemble.

        Raises
        ------
        UserError : there is none, or its metadata are damaged
        """
        self._check_member(name, "images", self._images)
        attributes = _root_attributes(self.path / name)
        record = attributes.get("gigascope")
        if not isinstance(record, dict) or record.get("complete") is not True:
            raise UserError("the metadata of this image are not those that were committed.",
                            where=self.path / name, do=_restore(self.path))  # fmt: skip
        of_all = {"digest": self.digest, "provenance": self.provenance}
        return StoreReader(self.path / name, {**attributes, "gigascope": {**record, **of_all}}, self.path)

    def _need_image(self) -> dict[str, Any]:
        if self._image is None:
            raise UserError("holds no image.", where=self.path)
        return self._image

    def _array(self, member: str, what: str, known: list[str]) -> zarr.Array:
        import zarr

        self._check_member(member, what, known)
        try:
            array = zarr.open_group(self.path, mode="r", zarr_format=3)[member]
        except (KeyError, ValueError) as error:
            raise UserError(f"{member} cannot be opened ({error}).", where=self.path, do=_AGAIN) from error
        self._check_whole(array)  # type: ignore[arg-type]
        return array  # type: ignore[return-value]

    def _check_whole(self, array: zarr.Array) -> None:
        """Zarr would read a missing shard as zeros."""
        from gigascope.store.checksum import missing_shards

        if missing := missing_shards(self.path, array):
            what = f"{len(missing)} shards of a finished store are missing, the first is {missing[0]}."
            raise UserError(what, where=self.path, do=_restore(self._root))

    def _columns(self, table: zarr.Group, names: Sequence[str] | None = None) -> dict[str, NDArray]:
        wanted: Any = table.attrs["columns"] if names is None else names
        found = {}
        for name in wanted:
            column: Any = table[name]
            self._check_whole(column)
            found[str(name)] = column[:]
        return found

    def _table(self, name: str) -> zarr.Group:
        import zarr

        self._check_member(name, "tables", self._members["tables"])
        try:
            return zarr.open_group(self.path, mode="r", zarr_format=3)[f"tables/{name}"]  # type: ignore[return-value]
        except (KeyError, ValueError, FileNotFoundError) as error:
            raise UserError(f"table {name} cannot be opened ({error}).", where=self.path, do=_AGAIN) from error

    def _check_member(self, member: str, what: str, known: list[str]) -> None:
        if member not in known:
            raise UserError(f"has no {member}; its {what}: {', '.join(known) or 'none'}.", where=self.path)


def open_store(path: Path | str) -> StoreReader:
    """Open a finished store by its folder or its root `zarr.json`; also one image of an ensemble, by its folder.

    Raises
    ------
    UserError : missing, not a Zarr store, not one of ours, unfinished, or of a version that this release does not know
    """
    path = Path(path)
    path = path.parent if path.name == "zarr.json" else path
    attributes = _root_attributes(path)
    record = attributes.get("gigascope")
    if not isinstance(record, dict):
        what = "is a Zarr store, but not one of gigascope."
        raise UserError(what, where=path, do="Foreign images come in through an ingest stage.")
    from gigascope.store.create import VERSION

    if record.get("version") != VERSION:
        what = f"has a record of version {record.get('version')}, this release reads version {VERSION}."
        raise UserError(what, where=path, do="Install the release that wrote it, or run snakemake again.")
    if isinstance(record.get("ensemble"), str):
        return open_store(path.parent).image(path.name)
    if record.get("complete") is not True or not record.get("digest"):
        raise UserError("is unfinished: it has no completion record.", where=path, do=_AGAIN)
    return StoreReader(path, attributes)


def is_complete(path: Path | str) -> bool:
    """Whether :func:`open_store` would open it."""
    try:
        open_store(path)
    except UserError:
        return False
    return True


def _root_attributes(path: Path) -> dict[str, Any]:
    root = path / "zarr.json"
    try:
        metadata = json.loads(root.read_text(encoding="utf-8"))
        if metadata["zarr_format"] == 3 and metadata["node_type"] == "group":
            return metadata.get("attributes", {})
        reason = f"its root is a Zarr v{metadata['zarr_format']} {metadata['node_type']}, a v3 group was expected"
    except FileNotFoundError:
        if not path.exists():
            raise UserError("there is no such store.", where=path, do=_AGAIN) from None
        what = "is unfinished or no Zarr store: it has no zarr.json."
        raise UserError(what, where=path, do=_AGAIN) from None
    except NotADirectoryError:
        reason = "it is a file"
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        reason = f"its zarr.json is damaged ({error})"
    raise UserError(f"is no store: {reason}.", where=path, do=_AGAIN)


def _restore(path: Path) -> str:
    return f"Remove {path / 'zarr.json'} and run snakemake again: it runs the stage that makes this store."
