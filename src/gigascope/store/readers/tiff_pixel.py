"""Pixel and voxel size of a TIFF: OME metadata, ImageJ's unit, or the resolution tags where they can be meant."""

from __future__ import annotations

from typing import Any

from gigascope.store.readers.units import NANOMETRES

SMALLEST_NM, LARGEST_NM = 1e-3, 1e4  # beyond lies the resolution of a screen or a printer, not of a microscope
LARGEST_VOLUME_NM = 1e7  # a centimetre, where the file says that it means the object
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
    x, y = _ome_length(text, "X"), _ome_length(text, "Y")
    return None if x is None or y is None else (x, y)


def _ome_length(text: str, axis: str) -> float | None:
    """Physical size of a pixel along an axis, nanometres."""
    import tifffile

    image = tifffile.xml2dict(text).get("OME", {}).get("Image", {})
    pixels = (image[0] if isinstance(image, list) else image).get("Pixels", {})
    size = pixels.get(f"PhysicalSize{axis}")
    unit = NANOMETRES.get(str(pixels.get(f"PhysicalSize{axis}Unit", "µm")))  # OME's default
    return float(size) * unit if isinstance(size, int | float) and unit is not None else None


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
        unit, origin = _imagej_unit(tiff.imagej_metadata), "ImageJ's calibration"
    if unit is None or min(density) <= 0:
        return None, origin
    return (unit / density[0], unit / density[1]), origin


def voxel_size_um(tiff: Any) -> tuple[tuple[float | None, float | None, float | None], str]:
    """Voxel size (z, y, x) in micrometres, None where it is not said; and where it came from, or why there is none.

    Parameters
    ----------
    tiff : an open `tifffile.TiffFile`
    """
    if tiff.is_ome:
        lateral, origin = _ome(tiff.ome_metadata), "the OME metadata"
        depth = _ome_length(tiff.ome_metadata, "Z")
    else:
        lateral, origin = _tags(tiff)
        depth = _imagej_spacing(tiff)
    # resolution tags that no microscope's program wrote are often those of a screen or a printer
    largest = LARGEST_VOLUME_NM if tiff.is_ome or tiff.is_imagej else LARGEST_NM
    x, y = lateral or (None, None)
    size = [None if s is None or not SMALLEST_NM <= s <= largest else s / 1e3 for s in (depth, y, x)]
    return (size[0], size[1], size[2]), origin if any(size) else f"{origin} say no voxel size"


def _imagej_spacing(tiff: Any) -> float | None:
    """ImageJ's distance of planes, nanometres."""
    facts = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    unit, spacing = _imagej_unit(facts), facts.get("spacing")
    return float(spacing) * unit if unit is not None and isinstance(spacing, int | float) else None


def _imagej_unit(facts: dict[str, Any]) -> float | None:
    """Of length, in nanometres."""
    return NANOMETRES.get(str(facts.get("unit", "")).replace("\\u00B5", "µ"))
