"""What every reader of tilt series hands over: views one at a time, y up, and what the file says about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError
from gigascope.store.writers.alignment import Alignment


@dataclass
class TiltSeriesSource:
    """A tilt series on disk, opened but not read.

    Attributes
    ----------
    path : file, folder or glob it comes from
    format : in words, for people ("MRC mode 1, extended header SERI")
    shape : (tilt, y, x)
    dtype : of the arrays `read` returns, native byte order
    read_view : view number -> (y, x) array, y up
    pixel_size_nm : nanometres, x and y alike; None when nothing says it
    tilt_deg : (tilt,) float64 degrees in stack order; None when nothing says it
    tilt_axis_deg : degrees, counter-clockwise from the image's upward vertical to the tilt axis; None when nothing says
    dose : (tilt,) float64, exposure of each view in electrons per square angstrom, or None
    acquisition_order : (tilt,) int64, place of each view in time counted from 0, or None
    alignment : made by another program for this series, in the frame of `tilt_axis_deg`, or None
    notes : choices made for the user and doubts worth showing, one sentence each
    origin : where a value came from, by attribute name
    missing : why a value is None, by attribute name
    files : every file that was looked into, for provenance
    """

    path: Path
    format: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    read_view: Callable[[int], np.ndarray] = field(repr=False)
    pixel_size_nm: float | None = None
    tilt_deg: NDArray[np.float64] | None = None
    tilt_axis_deg: float | None = None
    dose: NDArray[np.float64] | None = None
    acquisition_order: NDArray[np.int64] | None = None
    alignment: Alignment | None = None
    notes: list[str] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @property
    def n_views(self) -> int:
        """Number of views."""
        return self.shape[0]

    def read(self, i: int) -> np.ndarray:
        """View `i` in stack order, (y, x), y up, a fresh contiguous array of `dtype`.

        Raises
        ------
        IndexError : no such view
        UserError : the file cannot give it (damaged chunk, unreadable page)
        """
        if not 0 <= i < self.n_views:
            raise IndexError(f"{self.path} has views 0 to {self.n_views - 1}, not {i}")
        view = self.read_view(i)
        if view.shape != self.shape[1:] or view.dtype != self.dtype:
            expected = f"{self.shape[1:]} {self.dtype}"
            raise ShapeError(f"view {i} of {self.path} is {view.shape} {view.dtype}, expected {expected}")
        return view


def as_view(image: np.ndarray, dtype: np.dtype, *, flip: bool) -> np.ndarray:
    """A fresh (y, x) array of `dtype`, rows reversed where the file stores the top row first."""
    return np.array(image[::-1] if flip else image, dtype=dtype, order="C")


def describe(source: TiltSeriesSource) -> dict[str, object]:
    """What is known about a series, as plain values, with where each came from.

    Returns
    -------
    dict : keys path, format, shape, dtype, bytes, pixel_size_nm, tilt_axis_deg, n_angles, tilt_range_deg,
        tilt_step_deg, total_dose, acquisition ("in stack order", "not in stack order" or None), origin, missing, notes
    """
    tilt = source.tilt_deg
    order = source.acquisition_order
    sorted_tilt = None if tilt is None else np.sort(tilt)
    return {
        "path": str(source.path),
        "format": source.format,
        "shape": tuple(int(n) for n in source.shape),
        "dtype": str(source.dtype),
        "bytes": math.prod(source.shape) * source.dtype.itemsize,
        "pixel_size_nm": source.pixel_size_nm,
        "tilt_axis_deg": source.tilt_axis_deg,
        "n_angles": None if tilt is None else len(tilt),
        "tilt_range_deg": None if sorted_tilt is None else (float(sorted_tilt[0]), float(sorted_tilt[-1])),
        "tilt_step_deg": None
        if sorted_tilt is None or len(sorted_tilt) < 2
        else round(float(np.median(np.diff(sorted_tilt))), 4),
        "total_dose": None if source.dose is None else float(source.dose.sum()),
        "acquisition": None
        if order is None
        else ("in stack order" if np.array_equal(order, np.arange(len(order))) else "not in stack order"),
        "origin": dict(source.origin),
        "missing": dict(source.missing),
        "notes": list(source.notes),
    }


def describe_lines(source: TiltSeriesSource) -> list[str]:
    """:func:`describe` as lines for a terminal: file, shape, size, angles, pixel size, tilt axis, dose, notes."""
    found = describe(source)
    n, height, width = source.shape
    gib = math.prod(source.shape) * source.dtype.itemsize / 2**30
    size = f"{gib:.2f} GiB" if gib >= 0.1 else f"{gib * 1024:.1f} MiB"
    lines = [
        f"file        {source.path} ({source.format})",
        f"views       {n} of {width} x {height} px (x, y), {source.dtype}, {size}",
    ]
    if source.tilt_deg is None:
        lines.append(f"tilt angles missing{_because(source, 'tilt_deg')}")
    else:
        low, high = np.min(source.tilt_deg), np.max(source.tilt_deg)
        step = found["tilt_step_deg"]
        lines.append(f"tilt angles {low:.2f} to {high:.2f} deg, median step {step} deg{_from(source, 'tilt_deg')}")
    if source.pixel_size_nm is None:
        lines.append(f"pixel size  missing{_because(source, 'pixel_size_nm')}")
    else:
        lines.append(f"pixel size  {source.pixel_size_nm:.6g} nm{_from(source, 'pixel_size_nm')}")
    if source.tilt_axis_deg is None:
        lines.append(f"tilt axis   unknown{_because(source, 'tilt_axis_deg')}")
    else:
        lines.append(f"tilt axis   {source.tilt_axis_deg:.2f} deg{_from(source, 'tilt_axis_deg')}")
    if source.dose is not None:
        lines.append(f"dose        {source.dose.sum():.1f} e/A^2 in all{_from(source, 'dose')}")
    if found["acquisition"] is not None:
        lines.append(f"acquired    {found['acquisition']}{_from(source, 'acquisition_order')}")
    if source.alignment is not None:
        n_aligned = int((~source.alignment.excluded).sum())
        lines.append(f"alignment   shifts of {n_aligned} views{_from(source, 'alignment')}")
    return lines + [f"note        {note}" for note in source.notes]


def _from(source: TiltSeriesSource, name: str) -> str:
    return f", from {source.origin[name]}" if name in source.origin else ""


def _because(source: TiltSeriesSource, name: str) -> str:
    return f": {source.missing[name]}" if name in source.missing else ""
