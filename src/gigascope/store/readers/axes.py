"""Three-dimensional arrays with described axes (DM, HyperSpy, EMD, HDF5, MATLAB), taken as tilt series.

Which axis counts the views: the one in degrees, else the one that a list of angles fits, else the format's custom. The
other two are y and x in the order of the array, the top row first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.source import TiltSeriesSource, as_view
from gigascope.store.readers.tiff_file import real_dtype
from gigascope.store.readers.units import DEGREES, NANOMETRES

Get = Callable[[tuple[int | slice, ...]], np.ndarray]
# How programs call a list of tilt angles beside the images.
ANGLE_NAMES = {"theta", "tilt", "tilts", "tilt_deg", "tilt_angle", "tilt_angles", "tiltangles", "angle", "angles"}
ANGLE_NAMES |= {"rotation_angle"}  # NeXus


@dataclass(frozen=True)
class Axis:
    """One axis of an array; `values` where samples are listed, else offset + scale * index."""

    size: int
    name: str = ""
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    values: NDArray[np.float64] | None = None

    @property
    def plain_unit(self) -> str:
        """The unit without what programs wrap around it: `[n_m]` is nm."""
        return self.unit.strip(" []").replace("_", "")

    @property
    def degrees(self) -> NDArray[np.float64] | None:
        """(size,) positions in degrees, or None where the axis is no angle."""
        factor = DEGREES.get(self.plain_unit.lower())
        if factor is None:
            return None
        at = self.offset + self.scale * np.arange(self.size) if self.values is None else self.values
        return np.asarray(at, dtype=np.float64) * factor

    @property
    def step_nm(self) -> float:
        """Distance of two samples in nanometres, NaN where the axis is no length."""
        step = self.scale
        if self.values is not None and len(self.values) > 1:
            step = float(self.values[-1] - self.values[0]) / (len(self.values) - 1)
        return abs(step) * NANOMETRES.get(self.plain_unit, np.nan)


def series_of_array(
    path: Path,
    kind: str,
    dtype: np.dtype,
    axes: Sequence[Axis],
    get: Get,
    *,
    y_up: bool | None = None,
    views_last: bool = False,
    angles: tuple[NDArray[np.float64], str] | None = None,
) -> TiltSeriesSource:
    """A tilt series of an array with described axes.

    Parameters
    ----------
    kind : format, for people
    dtype : of the array
    axes : one per dimension; those of length 1 are dropped if more than three are left
    get : index with one number or slice for each axis -> block
    y_up : the first row is the bottom of the image; None: false
    views_last : the views are counted by the last axis, where nothing else tells
    angles : list of tilt angles in degrees, and where it is from

    Raises
    ------
    UserError : not three axes, or values that are not real numbers
    """
    kept = [i for i, axis in enumerate(axes) if axis.size != 1]
    if len(kept) == 2 and len(axes) == 3:
        kept = [0, 1, 2]
    if len(kept) != 3:
        layout = " x ".join(f"{axis.size} {axis.plain_unit or axis.name}".strip() for axis in axes)
        raise UserError(
            f"holds an array of {layout}; a tilt series has three axes: view, y, x.",
            where=path,
            do="Export the tilt series alone, as a stack of images.",
        )
    tilt = _tilt_axis([axes[i] for i in kept], angles, views_last)
    view, (row, column) = kept[tilt], [i for k, i in enumerate(kept) if k != tilt]
    stored = real_dtype(dtype, path)
    kind_of = np.dtype(np.float32) if stored == np.float64 else stored
    flip = not y_up

    def read(i: int) -> np.ndarray:
        index: list[int | slice] = [0] * len(axes)
        index[view], index[row], index[column] = i, slice(None), slice(None)
        return as_view(np.asarray(get(tuple(index))), kind_of, flip=flip)

    source = TiltSeriesSource(
        path=path,
        format=kind,
        shape=(axes[view].size, axes[row].size, axes[column].size),
        dtype=kind_of,
        read_view=read,
        files=[path],
    )
    if kind_of != stored:
        source.notes.append(f"values of {stored} are kept as {kind_of}")
    source.notes.append(f"{kind}: the {'bottom' if y_up else 'top'} row was taken to be stored first")
    _take_angles(source, axes[view], angles)
    _take_pixel_size(source, axes[row], axes[column])
    return source


def _tilt_axis(axes: Sequence[Axis], angles: tuple[NDArray[np.float64], str] | None, views_last: bool) -> int:
    for fits in (
        [k for k, axis in enumerate(axes) if axis.degrees is not None],
        [k for k, axis in enumerate(axes) if axis.name.lower() in ANGLE_NAMES],
        [k for k, axis in enumerate(axes) if angles is not None and axis.size == len(angles[0])],
    ):
        if len(fits) == 1:
            return fits[0]
    return 2 if views_last else 0


def _take_angles(source: TiltSeriesSource, axis: Axis, angles: tuple[NDArray[np.float64], str] | None) -> None:
    if axis.degrees is not None:
        source.tilt_deg, source.origin["tilt_deg"] = (
            axis.degrees,
            f"the axis in {axis.plain_unit} of the {source.format}",
        )
    elif angles is not None and len(angles[0]) == source.n_views:
        source.tilt_deg, source.origin["tilt_deg"] = angles


def _take_pixel_size(source: TiltSeriesSource, row: Axis, column: Axis) -> None:
    y, x = row.step_nm, column.step_nm
    if not np.isfinite([y, x]).all() or min(y, x) <= 0:
        source.missing["pixel_size_nm"] = f"the axes of the {source.format} are in no unit of length"
    elif abs(y - x) > 0.01 * max(y, x):
        source.missing["pixel_size_nm"] = f"the axes say {x:.4g} x {y:.4g} nm, and pixels must be square"
    else:
        source.pixel_size_nm, source.origin["pixel_size_nm"] = x, f"the axes of the {source.format}"
