"""OME-Zarr 0.4 and 0.5 (and plain 3-D Zarr arrays) as tilt series: first axis is the view.

Views count as stored top row first, like all OME-Zarr images, unless gigascope wrote the store or the caller says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.source import TiltSeriesSource, as_view
from gigascope.store.readers.units import DEGREES, NANOMETRES
from gigascope.store.readers.zarr_image import ZarrImage, open_image, read_part

KEY = "inputs.tilt_series"


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
    found = open_image(Path(path), KEY)
    path, array, attributes = found.path, found.array, found.attributes
    squeeze = _refuse_shape(found)
    shape = (int(array.shape[squeeze[0]]), int(array.shape[squeeze[1]]), int(array.shape[squeeze[2]]))
    dtype = np.dtype(array.dtype).newbyteorder("=")
    flip = not ("gigascope" in attributes if y_up is None else y_up)
    index: list[Any] = [0] * array.ndim
    index[squeeze[1]] = index[squeeze[2]] = slice(None)

    def read_view(i: int) -> np.ndarray:
        at = list(index)
        at[squeeze[0]] = i
        return as_view(read_part(array, tuple(at), f"view {i}", path), dtype, flip=flip)

    source = TiltSeriesSource(
        path=path, format=found.format, shape=shape, dtype=dtype, read_view=read_view, files=[found.metadata_file]
    )
    if y_up is None:
        source.notes.append(
            "OME-Zarr stores the top row first: flipped to y up (ingest.y_up: true leaves it)"
            if flip
            else "a store of gigascope: rows are y up already"
        )
    if (remark := found.missing_chunks()) is not None:
        source.notes.append(remark)
    _take_scale(source, found, squeeze)
    _take_angles(source, attributes, dict(array.attrs))
    return source


def _refuse_shape(found: ZarrImage) -> tuple[int, int, int]:
    """Positions of view, y and x in the array; axes of length 1 before them are dropped."""
    array, path = found.array, found.path
    names = [str(axis["name"]) for axis in found.axes]
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
    if found.image and (names[kept[1]].lower() != "y" or names[kept[2]].lower() != "x"):
        raise UserError(f"has the axes {layout}; the last must be y and x.", where=path, do="Export it in that order.")
    if np.dtype(array.dtype).kind not in "uif":
        raise UserError(f"holds values of type {array.dtype}.", where=path, do="Export integer or real grey values.")
    return kept[0], kept[1], kept[2]


def _take_scale(source: TiltSeriesSource, found: ZarrImage, kept: tuple[int, int, int]) -> None:
    axes = found.axes
    scale, shift = found.steps()
    units = [str(axis.get("unit")) if axis.get("unit") else None for axis in axes]
    size = [scale[i] * NANOMETRES.get(units[i] or "", np.nan) for i in kept[1:]]
    if not found.image:
        source.missing["pixel_size_nm"] = "a plain Zarr array carries no pixel size"
    elif not np.isfinite(size).all():
        source.missing["pixel_size_nm"] = f"the axes y and x have the unit {units[kept[1]]!r}"
    elif min(size) <= 0 or abs(size[0] - size[1]) > 0.01 * max(size):
        source.missing["pixel_size_nm"] = f"the scale says {size[1]:.4g} x {size[0]:.4g} nm, and pixels must be square"
    else:
        source.pixel_size_nm, source.origin["pixel_size_nm"] = float(size[1]), "the OME-Zarr scale"
    degrees = DEGREES.get((units[kept[0]] or "").lower())
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
