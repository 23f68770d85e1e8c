"""Names of units of length and of angle in image metadata, in nanometres and degrees."""

from __future__ import annotations

import math

# UDUNITS-2 names (OME-Zarr), symbols (OME-XML), and what ImageJ writes.
NANOMETRES: dict[str, float] = {
    "picometer": 1e-3,
    "pm": 1e-3,
    "angstrom": 0.1,
    "\u00c5": 0.1,  # the letter
    "\u212b": 0.1,  # the sign
    "A": 0.1,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "nm": 1.0,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "micron": 1e3,
    "microns": 1e3,
    "um": 1e3,
    "\u00b5m": 1e3,  # micro sign
    "\u03bcm": 1e3,  # Greek letter
    "millimeter": 1e6,
    "millimetre": 1e6,
    "mm": 1e6,
    "centimeter": 1e7,
    "cm": 1e7,
    "meter": 1e9,
    "metre": 1e9,
    "m": 1e9,
}

DEGREES: dict[str, float] = {
    "degree": 1.0,
    "degrees": 1.0,
    "deg": 1.0,
    "°": 1.0,
    "radian": 180 / math.pi,
    "radians": 180 / math.pi,
    "rad": 180 / math.pi,
}
