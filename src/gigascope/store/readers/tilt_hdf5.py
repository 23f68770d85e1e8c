"""Tilt series in HDF5: HyperSpy (.hspy), Berkeley's EMD, Data Exchange, MATLAB 7.3, or a dataset named after its file.

`series.h5/entry/images` is the dataset `entry/images` of series.h5. Angles are an axis in degrees, or a list of one
number per view called theta, tilt_angles or alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.axes import ANGLE_NAMES, Axis, series_of_array
from gigascope.store.readers.source import TiltSeriesSource
from gigascope.store.readers.units import DEGREES
from gigascope.store.readers.volume_hdf5 import choose_dataset, open_hdf5, voxel_size

SUFFIXES = (".h5", ".hdf5", ".hdf", ".hspy", ".emd", ".nxs")
# The image where a file has flats and darks beside it (Data Exchange).
_IMAGES = ("exchange/data",)
KEY = "inputs.tilt_series"


def open_hdf5_series(file: Path, name: str = "", y_up: bool | None = None) -> TiltSeriesSource:
    """Open a dataset as a tilt series.

    Parameters
    ----------
    name : of the dataset; empty: the only one of three axes
    y_up : the first row is the bottom of the image; None: false

    Raises
    ------
    UserError : no HDF5, no such dataset, several of three axes, values that are not real numbers
    """
    with open_hdf5(file, KEY) as opened:
        chosen = choose_dataset(opened, name, file, KEY, least=3, preferred=_IMAGES)
        found = opened[chosen]
        matlab = "MATLAB_class" in found.attrs
        kind, axes = _axes(found)
        size = found.shape[::-1] if matlab else found.shape
        dtype, angles = np.dtype(found.dtype), _angles(found, size)
    # MATLAB counts the first index fastest: its array is the transpose of the dataset
    axes = axes[::-1] if matlab else axes

    def get(index: tuple[int | slice, ...]) -> np.ndarray:
        with open_hdf5(file, KEY) as again:
            try:
                return again[chosen][index[::-1]].T if matlab else again[chosen][index]
            except OSError as error:
                what = f"{chosen} cannot be read ({str(error).splitlines()[0]})."
                raise UserError(what, where=file, do="Copy the file again.") from None

    kind = "MATLAB 7.3" if matlab else kind
    source = series_of_array(file, kind, dtype, axes, get, y_up=y_up, views_last=matlab, angles=angles)
    source.format += f", dataset {chosen}"
    return source


def _axes(found: Any) -> tuple[str, list[Axis]]:
    """Format in words, and the axes of a dataset in its order."""
    group, sizes = found.parent, [int(n) for n in found.shape]
    if "axis-0" in group:
        return "HyperSpy file", [_hyperspy_axis(group[f"axis-{k}"], n) for k, n in enumerate(sizes)]
    first = next((k for k in (1, 0) if all(f"dim{k + i}" in group for i in range(len(sizes)))), None)
    if first is not None:
        return "EMD file", [_emd_axis(group[f"dim{first + k}"], n) for k, n in enumerate(sizes)]
    names = _text(found.attrs.get("axes", "")).split(":")
    names = names if len(names) == len(sizes) else [""] * len(sizes)
    axes = [Axis(n, name) for n, name in zip(sizes, names)]
    steps = voxel_size(found)[0][1:]
    for k, step in zip((-2, -1), steps):
        if step is not None:
            axes[k] = Axis(sizes[k], names[k], "um", step)
    return "HDF5 file", axes


def _hyperspy_axis(group: Any, size: int) -> Axis:
    values = np.asarray(group["axis"], dtype=np.float64) if "axis" in group else None
    said = {name: _text(group.attrs.get(name, "")) for name in ("name", "units")}
    unit = "" if said["units"].startswith("<") or said["units"] == "_None_" else said["units"]
    scale, offset = (float(group.attrs.get(name, default)) for name, default in (("scale", 1.0), ("offset", 0.0)))
    return Axis(size, said["name"], unit, scale, offset, values)


def _emd_axis(found: Any, size: int) -> Axis:
    values = np.asarray(found, dtype=np.float64).reshape(-1)
    name, unit = (_text(found.attrs.get(key, "")) for key in ("name", "units"))
    if len(values) == 2 != size:  # the first two, as later versions of the format write
        return Axis(size, name, unit, float(values[1] - values[0]), float(values[0]))
    return Axis(size, name, unit, values=values if len(values) == size else None)


def _angles(found: Any, sizes: tuple[int, ...]) -> tuple[NDArray[np.float64], str] | None:
    """A list of angles for one of the axes: beside the images, else anywhere in the file."""
    import h5py

    there: list[Any] = []

    def take(name: str, item: Any) -> None:
        named = {part.lower().removeprefix("_sig_") for part in name.split("/")[-2:]}
        if isinstance(item, h5py.Dataset) and named & ANGLE_NAMES and item.dtype.kind in "uif" and item.size in sizes:
            there.append(item)

    found.file.visititems(take)
    there.sort(key=lambda item: item.parent != found.parent)
    if not there:
        return None
    factor = DEGREES.get(_text(there[0].attrs.get("units", "deg")).strip(" []").lower(), 1.0)
    values = np.asarray(there[0], dtype=np.float64).reshape(-1) * factor
    return values, f"the dataset {there[0].name.lstrip('/')}"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
