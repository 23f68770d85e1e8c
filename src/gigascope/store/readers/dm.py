"""Gatan DigitalMicrograph files (.dm3, .dm4), through RosettaSciIO: an optional package, the extra `dm`."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.axes import Axis, series_of_array
from gigascope.store.readers.source import TiltSeriesSource

SUFFIXES = {".dm3", ".dm4"}
# The angle of every view among the notes of Gatan's tomography software.
_ANGLE = "stage angle (degree)"
# What the parser of the tags throws at a file that is cut or damaged.
_BROKEN = (OSError, ValueError, LookupError, struct.error, EOFError, NotImplementedError, AttributeError, TypeError)
_TOO_LARGE = (MemoryError, OverflowError, RecursionError)


def open_dm(path: str | Path, y_up: bool | None = None) -> TiltSeriesSource:
    """Open a DM3 or DM4 stack as a tilt series; angles from an axis in degrees or from the notes of the acquisition.

    Parameters
    ----------
    y_up : the first row is the bottom of the image; None: false

    Raises
    ------
    UserError : the package is not installed, the file is damaged, or it holds no single stack of images
    """
    path = Path(path)
    _refuse_others(path)
    found = [each for each in _read(path) if len(each["axes"]) >= 3]
    if len(found) != 1:
        raise UserError(
            f"holds {len(found)} stacks of images.", where=path, do="Export the tilt series alone (MRC, TIFF or DM4)."
        )
    data = found[0]["data"]
    axes = [
        Axis(int(axis["size"]), str(axis["name"] or ""), str(axis["units"] or ""), axis["scale"], axis["offset"])
        for axis in found[0]["axes"]
    ]
    noted = np.array(list(_angles(found[0]["original_metadata"])))
    kind = "DM" + path.suffix[-1:] if path.suffix.lower() in SUFFIXES else "DM file"
    angles = (noted, f"the acquisition notes of the {kind}") if len(noted) else None

    def get(index: tuple[int | slice, ...]) -> np.ndarray:
        return np.asarray(data[index].compute(scheduler="synchronous"))

    return series_of_array(path, kind, data.dtype, axes, get, y_up=y_up, angles=angles)


def _refuse_others(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}).", where=path, do="Check inputs.tilt_series.") from None
    if start not in (b"\0\0\0\3", b"\0\0\0\4"):
        raise UserError("is no DM3 or DM4 file.", where=path, do="Copy it again, or check inputs.tilt_series.")


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        from rsciio.digitalmicrograph import file_reader
        from rsciio.exceptions import DM3DataTypeError, DM3FileVersionError, DM3TagError, DM3TagIDError, DM3TagTypeError
    except ImportError:
        raise UserError(
            "is a DigitalMicrograph file, which the package rosettasciio reads, and that is not installed.",
            where=path,
            do='Install it (pip install "gigascope[dm]"), or convert the file to MRC (IMOD: dm2mrc).',
        ) from None
    tags = (DM3DataTypeError, DM3FileVersionError, DM3TagError, DM3TagIDError, DM3TagTypeError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return list(file_reader(str(path), lazy=True))
        except (*_BROKEN, *_TOO_LARGE, *tags) as error:
            raise UserError(
                f"is damaged, or of a kind that is not read ({type(error).__name__}: {error}).",
                where=path,
                do="Copy it again, or convert it to MRC.",
            ) from None


def _angles(tags: Any) -> Iterator[float]:
    """Every stage angle in the notes, in their order."""
    for key, value in tags.items():
        if key == _ANGLE and isinstance(value, int | float):
            yield float(value)
        elif isinstance(value, dict):
            yield from _angles(value)
