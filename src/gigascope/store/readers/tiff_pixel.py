"""Pixel size of a TIFF: OME metadata, ImageJ's unit, or the resolution tags where they can be meant."""

from __future__ import annotations

from typing import Any

from gigascope.store.readers.units import NANOMETRES

SMALLEST_NM, LARGEST_NM = 1e-3, 1e4  # beyond lies the resolution of a screen or a printer, not of a microscope
_TAG_UNITS = {2: 25.4e6, 3: 10e6}  # inch, centimetre


def pixel_size_nm(tiff: Any) -> tuple[float | None, str]:
    """Pixel size in nanometres and where it came from; or None and why.

    Parameters
    ----------
    tiff : an open `tifffile.TiffFile`
    """
    if tiff.is_ome:
        found, origin = _ome(tiff.ome_metadata), "the OME metadata"
    else:
        found, origin = _tags(tiff)
    if found is None:
        return None, f"{origin} say no pixel size"
    x, y = found
    if not (SMALLEST_NM <= x <= LARGEST_NM and SMALLEST_NM <= y <= LARGEST_NM):
        return None, f"{origin} say {x:.4g} nm, which is not the pixel of a microscope image"
    if abs(x - y) > 0.01 * max(x, y):
        return None, f"{origin} say {x:.4g} x {y:.4g} nm, and pixels must be square"
    return x, origin


def _ome(text: str) -> tuple[float, float] | None:
    import tifffile

    image = tifffile.xml2dict(text).get("OME", {}).get("Image", {})
    pixels = (image[0] if isinstance(image, list) else image).get("Pixels", {})
    sizes = []
    for axis in "XY":
        size = pixels.get(f"PhysicalSize{axis}")
        unit = NANOMETRES.get(str(pixels.get(f"PhysicalSize{axis}Unit", "µm")))  # OME's default
        if not isinstance(size, int | float) or unit is None:
            return None
        sizes.append(float(size) * unit)
    return sizes[0], sizes[1]


def _tags(tiff: Any) -> tuple[tuple[float, float] | None, str]:
    tags = tiff.pages[0].tags
    density = []
    for name in ("XResolution", "YResolution"):
        value = tags[name].value if name in tags else (0, 1)
        top, bottom = value if isinstance(value, tuple) else (value, 1)
        density.append(top / bottom if bottom else 0.0)
    origin = "the resolution tags"
    unit = _TAG_UNITS.get(int(tags["ResolutionUnit"].value)) if "ResolutionUnit" in tags else None
    if tiff.is_imagej and tiff.imagej_metadata:
        name = str(tiff.imagej_metadata.get("unit", "")).replace("\\u00B5", "µ")
        unit, origin = NANOMETRES.get(name), "ImageJ's calibration"
    if unit is None or min(density) <= 0:
        return None, origin
    return (unit / density[0], unit / density[1]), origin
