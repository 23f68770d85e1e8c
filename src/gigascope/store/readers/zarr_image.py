"""What every reader of Zarr shares: opening with plain words, the first image of an OME-Zarr group, its axes.

OME-Zarr 0.4 and 0.5, and arrays that are no OME-Zarr.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.errors import UserError

MARKERS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_VERSIONS = ("0.4", "0.5")


@dataclass(frozen=True)
class ZarrImage:
    """An array and what is said about it.

    Attributes
    ----------
    path : of the store
    format : in words, for people
    array : at full resolution
    image : its entry in `multiscales`, empty for an array that is no OME-Zarr
    axes : one dictionary with a `name` for each axis; no names are made up for the leading axes of a plain array
    attributes : of the store's root
    """

    path: Path
    format: str
    array: Any
    image: dict[str, Any]
    axes: list[dict[str, Any]]
    attributes: dict[str, Any]

    @property
    def metadata_file(self) -> Path:
        """The file that makes the folder a store."""
        return next((self.path / name for name in MARKERS if (self.path / name).is_file()), self.path)

    @property
    def array_folder(self) -> Path:
        """Where the chunks are."""
        return self.path / str(self.array.path) if self.image else self.path

    def missing_chunks(self) -> str | None:
        """A remark where chunks are not stored."""
        stored, total = self.array.nchunks_initialized, self.array.nchunks
        if stored >= total:
            return None
        return f"{total - stored} of {total} chunks are not stored and read as {self.array.fill_value}"

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and translation of each axis at full resolution, in the units of the axes."""
        scale, shift = np.ones(len(self.axes)), np.zeros(len(self.axes))
        for holder in (self.image.get("datasets", [{}])[0], self.image):  # the level's own first, then the image's
            for step in holder.get("coordinateTransformations", []):
                if step.get("type") == "scale" and len(step.get("scale", [])) == len(self.axes):
                    factor = np.array(step["scale"], dtype=np.float64)
                    scale, shift = scale * factor, shift * factor
                elif step.get("type") == "translation" and len(step.get("translation", [])) == len(self.axes):
                    shift = shift + np.array(step["translation"], dtype=np.float64)
        return scale, shift


def is_zarr(path: Path) -> bool:
    """A folder with Zarr metadata in it, or one that is named so."""
    return path.is_dir() and (path.suffix == ".zarr" or any((path / name).is_file() for name in MARKERS))


def open_image(path: Path, key: str) -> ZarrImage:
    """Open a store: an OME-Zarr image group, or an array.

    Parameters
    ----------
    key : of the config that names the store, for messages

    Raises
    ------
    UserError : not Zarr, damaged or incomplete metadata, another version, a plate, no such array
    """
    node = _open(path, key)
    attributes = dict(node.attrs)
    _refuse_unfinished(attributes, path)
    if hasattr(node, "shape"):
        return ZarrImage(path, "Zarr array", node, {}, _plain_axes(node), attributes)
    image, version = _multiscale(attributes, path, key)
    array = _full_resolution(node, image, path)
    return ZarrImage(path, f"OME-Zarr {version}", array, image, _axes(image, array, path), attributes)


def _refuse_unfinished(attributes: dict[str, Any], path: Path) -> None:
    record = attributes.get("gigascope")
    if isinstance(record, dict) and not record.get("complete", False):
        raise UserError(
            "was not finished: its completion record is missing.", where=path, do="Run the stage that writes it again."
        )


def _open(path: Path, key: str) -> Any:
    import zarr

    try:
        return zarr.open(str(path), mode="r")
    except (OSError, ValueError, KeyError, TypeError, zarr.errors.BaseZarrError) as error:
        raise UserError(
            f"is not a Zarr store, or its metadata are damaged ({first_line(error)}).",
            where=path,
            do=f"Name the folder that holds zarr.json or .zattrs of the image in {key}.",
        ) from None


def first_line(error: BaseException) -> str:
    """Of an error's text, or its name."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _multiscale(attributes: dict[str, Any], path: Path, key: str) -> tuple[dict[str, Any], str]:
    """The first image of a group, and the version of its metadata."""
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, dict) or "plate" in ome or "well" in ome:
        raise UserError(
            "is a plate of many images.", where=path, do=f"Name one image in it, such as {path.name}/A/1/0."
        )
    if "bioformats2raw.layout" in ome and "multiscales" not in ome:
        raise UserError("is a collection of images.", where=path, do=f"Name one of them, for example {path.name}/0.")
    images = ome.get("multiscales")
    if images is None:
        raise UserError(
            "holds no OME-Zarr image (no `multiscales` in its attributes).",
            where=path,
            do=f"Name the image group or the array itself in {key}.",
        )
    if not isinstance(images, list) or not images or not isinstance(images[0], dict):
        raise UserError(
            "is broken: `multiscales` is empty, so no image is described.", where=path, do="Export the image again."
        )
    image = images[0]
    version = str(ome.get("version", image.get("version", "0.5" if "ome" in attributes else "0.4")))
    if "coordinateSystems" in image or version not in _VERSIONS:
        stated = version if version not in _VERSIONS else "later than 0.5"
        raise UserError(
            f"is OME-Zarr {stated}, versions {' and '.join(_VERSIONS)} are read.", where=path, do="Export it again."
        )
    return image, version


def _full_resolution(group: Any, image: dict[str, Any], path: Path) -> Any:
    import zarr

    datasets = image.get("datasets")
    if not isinstance(datasets, list) or not datasets or "path" not in datasets[0]:
        raise UserError("is broken: `multiscales` names no `datasets`.", where=path, do="Export the image again.")
    name = str(datasets[0]["path"])
    try:
        array = group[name]
    except (KeyError, OSError, ValueError, TypeError, zarr.errors.BaseZarrError):
        array = None
    if array is None or not hasattr(array, "shape"):
        raise UserError(
            f"is broken: its metadata name the array {name!r}, which is not there.", where=path, do="Copy it again."
        )
    return array


def _axes(image: dict[str, Any], array: Any, path: Path) -> list[dict[str, Any]]:
    axes = image.get("axes")
    if not isinstance(axes, list) or not all(isinstance(axis, dict) and "name" in axis for axis in axes):
        raise UserError("is broken: its `axes` are missing or have no names.", where=path, do="Export the image again.")
    if len(axes) != array.ndim:
        raise UserError(
            f"is broken: {len(axes)} axes are named, the array has {array.ndim}.", where=path, do="Export it again."
        )
    return axes


def _plain_axes(array: Any) -> list[dict[str, Any]]:
    """Names of a plain array's axes: Zarr 3 may have them, else the last two are taken for y and x."""
    names = getattr(array.metadata, "dimension_names", None) or [None] * array.ndim
    last = dict(enumerate(("y", "x"), start=array.ndim - 2))
    return [{"name": name or last.get(i, f"axis {i}")} for i, name in enumerate(names)]


def read_part(array: Any, at: tuple[Any, ...], what: str, path: Path) -> np.ndarray:
    """`array[at]`, with what a damaged chunk throws in plain words.

    Parameters
    ----------
    what : is read, for the message

    Raises
    ------
    UserError : it cannot be read
    """
    try:
        return np.asarray(array[at])
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        found = f"{what} cannot be read ({first_line(error)})."
        raise UserError(found, where=path, do="Copy the store again.") from None
