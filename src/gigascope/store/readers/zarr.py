"""OME-Zarr 0.4 and 0.5 (and plain 3-D Zarr arrays) as tilt series: first axis is the view.

Views count as stored top row first, like all OME-Zarr images, unless gigascope wrote the store or the caller says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.source import TiltSeriesSource, as_view
from gigascope.store.readers.units import NANOMETRES

MARKERS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_VERSIONS = ("0.4", "0.5")
_DEGREES = {"degree": 1.0, "degrees": 1.0, "deg": 1.0, "°": 1.0, "radian": 180 / np.pi, "rad": 180 / np.pi}


def is_zarr(path: Path) -> bool:
    """A folder with Zarr metadata in it, or one that is named so."""
    return path.is_dir() and (path.suffix == ".zarr" or any((path / name).is_file() for name in MARKERS))


def open_zarr(path: str | Path, y_up: bool | None = None) -> TiltSeriesSource:
    """Open a 3-D image of a Zarr store as a tilt series.

    Parameters
    ----------
    path : the store: an OME-Zarr image group, or an array
    y_up : the first row is the bottom of the image; None: false, but true for a store that gigascope wrote

    Raises
    ------
    UserError : not Zarr, damaged or incomplete metadata, another version, a plate, not three axes, no such array
    """
    path = Path(path)
    node = _open(path)
    attributes = dict(node.attrs)
    _refuse_unfinished(attributes, path)
    if hasattr(node, "shape"):
        array, name = node, "Zarr array"
        image: dict[str, Any] = {}
    else:
        image, version = _multiscale(attributes, path)
        array = _full_resolution(node, image, path)
        name = f"OME-Zarr {version}"
    axes = _axes(image, array, path)
    squeeze = _refuse_shape(array, axes, path)
    shape = (int(array.shape[squeeze[0]]), int(array.shape[squeeze[1]]), int(array.shape[squeeze[2]]))
    dtype = np.dtype(array.dtype).newbyteorder("=")
    flip = not ("gigascope" in attributes if y_up is None else y_up)
    index: list[Any] = [0] * array.ndim
    index[squeeze[1]] = index[squeeze[2]] = slice(None)

    def read_view(i: int) -> np.ndarray:
        at = list(index)
        at[squeeze[0]] = i
        return as_view(_read(array, tuple(at), i, path), dtype, flip=flip)

    source = TiltSeriesSource(
        path=path, format=name, shape=shape, dtype=dtype, read_view=read_view, files=[_metadata_file(path)]
    )
    if y_up is None:
        source.notes.append(
            "OME-Zarr stores the top row first: flipped to y up (ingest.y_up: true leaves it)"
            if flip
            else "a store of gigascope: rows are y up already"
        )
    stored = array.nchunks_initialized
    if stored < array.nchunks:
        source.notes.append(
            f"{array.nchunks - stored} of {array.nchunks} chunks are not stored and read as {array.fill_value}"
        )
    _take_scale(source, image, axes, squeeze)
    _take_angles(source, attributes, dict(array.attrs))
    return source


def _refuse_unfinished(attributes: dict[str, Any], path: Path) -> None:
    record = attributes.get("gigascope")
    if isinstance(record, dict) and not record.get("complete", False):
        raise UserError(
            "was not finished: its completion record is missing.", where=path, do="Run the stage that writes it again."
        )


def _metadata_file(path: Path) -> Path:
    return next((path / name for name in MARKERS if (path / name).is_file()), path)


def _open(path: Path) -> Any:
    import zarr

    try:
        return zarr.open(str(path), mode="r")
    except (OSError, ValueError, KeyError, TypeError, zarr.errors.BaseZarrError) as error:
        raise UserError(
            f"is not a Zarr store, or its metadata are damaged ({_first_line(error)}).",
            where=path,
            do="Name the folder that holds zarr.json or .zattrs of the image in inputs.tilt_series.",
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _multiscale(attributes: dict[str, Any], path: Path) -> tuple[dict[str, Any], str]:
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
            do="Name the image group or the 3-D array itself in inputs.tilt_series.",
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
    if not image:
        return [{"name": f"axis {i}"} for i in range(array.ndim - 2)] + [{"name": "y"}, {"name": "x"}]
    axes = image.get("axes")
    if not isinstance(axes, list) or not all(isinstance(axis, dict) and "name" in axis for axis in axes):
        raise UserError("is broken: its `axes` are missing or have no names.", where=path, do="Export the image again.")
    if len(axes) != array.ndim:
        raise UserError(
            f"is broken: {len(axes)} axes are named, the array has {array.ndim}.", where=path, do="Export it again."
        )
    return axes


def _refuse_shape(array: Any, axes: list[dict[str, Any]], path: Path) -> tuple[int, int, int]:
    """Positions of view, y and x in the array; axes of length 1 before them are dropped."""
    names = [str(axis["name"]) for axis in axes]
    kept = [i for i, n in enumerate(array.shape) if n != 1 or i >= array.ndim - 2]
    layout = ", ".join(f"{name} {n}" for name, n in zip(names, array.shape, strict=True))
    if len(kept) == 2 and array.ndim >= 3:
        kept.insert(0, array.ndim - 3)
    if len(kept) != 3:
        raise UserError(
            f"has the axes {layout}; a tilt series has three: view, y, x.",
            where=path,
            do="Export one channel and one time point as a 3-D image." if len(kept) > 3 else "Give the whole series.",
        )
    if names[kept[1]].lower() != "y" or names[kept[2]].lower() != "x":
        raise UserError(f"has the axes {layout}; the last must be y and x.", where=path, do="Export it in that order.")
    if np.dtype(array.dtype).kind not in "uif":
        raise UserError(f"holds values of type {array.dtype}.", where=path, do="Export integer or real grey values.")
    return kept[0], kept[1], kept[2]


def _read(array: Any, at: tuple[Any, ...], view: int, path: Path) -> np.ndarray:
    try:
        return np.asarray(array[at])
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        what = f"view {view} cannot be read ({_first_line(error)})."
        raise UserError(what, where=path, do="Copy the store again.") from None


def _take_scale(
    source: TiltSeriesSource, image: dict[str, Any], axes: list[dict[str, Any]], kept: tuple[int, int, int]
) -> None:
    scale, shift = np.ones(len(axes)), np.zeros(len(axes))
    for holder in (image.get("datasets", [{}])[0], image):  # the level's own first, then the image's
        for step in holder.get("coordinateTransformations", []):
            if step.get("type") == "scale" and len(step.get("scale", [])) == len(axes):
                factor = np.array(step["scale"], dtype=np.float64)
                scale, shift = scale * factor, shift * factor
            elif step.get("type") == "translation" and len(step.get("translation", [])) == len(axes):
                shift = shift + np.array(step["translation"], dtype=np.float64)
    units = [str(axis.get("unit")) if axis.get("unit") else None for axis in axes]
    size = [scale[i] * NANOMETRES.get(units[i] or "", np.nan) for i in kept[1:]]
    if not image:
        source.missing["pixel_size_nm"] = "a plain Zarr array carries no pixel size"
    elif not np.isfinite(size).all():
        source.missing["pixel_size_nm"] = f"the axes y and x have the unit {units[kept[1]]!r}"
    elif min(size) <= 0 or abs(size[0] - size[1]) > 0.01 * max(size):
        source.missing["pixel_size_nm"] = f"the scale says {size[1]:.4g} x {size[0]:.4g} nm, and pixels must be square"
    else:
        source.pixel_size_nm, source.origin["pixel_size_nm"] = float(size[1]), "the OME-Zarr scale"
    degrees = _DEGREES.get((units[kept[0]] or "").lower())
    if degrees is not None:
        source.tilt_deg = (shift[kept[0]] + scale[kept[0]] * np.arange(source.n_views)) * degrees
        source.origin["tilt_deg"] = f"axis {axes[kept[0]]['name']!r} of the OME-Zarr"


def _take_angles(source: TiltSeriesSource, *attributes: dict[str, Any]) -> None:
    """`tilt_deg` and `tilt_axis_deg` in the attributes of the group, its `ome` or `gigascope` part, or the array."""
    places: list[dict[str, Any]] = []
    for root in attributes:
        nested = [root.get("ome"), root.get("gigascope")]
        nested += [part.get("stage_attrs") for part in nested if isinstance(part, dict)]
        places += [root, *(part for part in nested if isinstance(part, dict))]
    for name in ("tilt_deg", "tilt_axis_deg"):
        value = next((place[name] for place in places if name in place), None)
        if value is None:
            continue
        try:
            numbers = np.asarray(value, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        if not np.isfinite(numbers).all() or (name == "tilt_axis_deg" and numbers.size != 1):
            raise UserError(f"attribute {name} is not in degrees: {value!r}.", where=source.path, do="Correct it.")
        if name == "tilt_deg":
            source.tilt_deg = numbers
        else:
            source.tilt_axis_deg = float(numbers[0])
        source.origin[name] = f"attribute {name}"
