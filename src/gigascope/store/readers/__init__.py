"""Readers: tilt series of MRC, TIFF and OME-Zarr, and the text files that belong to them."""

from __future__ import annotations

from gigascope.store.readers.mdoc import Mdoc, read_mdoc
from gigascope.store.readers.source import TiltSeriesSource, describe, describe_lines
from gigascope.store.readers.tilt_angles import read_tilt_angles
from gigascope.store.readers.tilt_series import find_tilt_series, open_tilt_series, series_problems

__all__ = [
    "Mdoc",
    "TiltSeriesSource",
    "describe",
    "describe_lines",
    "find_tilt_series",
    "open_tilt_series",
    "read_mdoc",
    "read_tilt_angles",
    "series_problems",
]
