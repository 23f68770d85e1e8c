"""SerialEM .mdoc files: tilt angles, pixel size, tilt axis, dose and order of acquisition.

Format: SerialEM help, "File Formats and Other Documentation". Parsed by `mdocfile`, which is given only the lines that
are needed: it is strict about every key it knows, and about titles without brackets, as frame-set files have them.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.tilt_angles import read_text_lines

_KEYS = {"TiltAngle", "PixelSpacing", "RotationAngle", "ExposureDose", "DateTime", "ImageSize", "Binning"}
_TITLE = re.compile(r"^\[?\s*T\s*=")
_SECTION = re.compile(r"^\[\s*(ZValue|FrameSet|MontSection)\s*=\s*(-?\d+)\s*\]")
_AXIS = re.compile(r"tilt\s+axis\s+angle\s*=\s*([-+]?\d+(?:\.\d*)?)", re.IGNORECASE)
_MONTHS = {
    month: number
    for number, month in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], start=1
    )
}


@dataclass
class Mdoc:
    """What a .mdoc says about a tilt series; per-view arrays are in the order of the stack.

    Attributes
    ----------
    n_sections : number of views it describes
    tilt_deg, dose : (tilt,) float64 or None; dose in electrons per square angstrom
    acquisition_order : (tilt,) int64 or None
    pixel_size_nm, tilt_axis_deg : or None
    axis_origin : "title line" or "RotationAngle"
    image_shape : (y, x) of the images it was written for, or None
    notes : doubts
    """

    path: Path
    n_sections: int
    tilt_deg: NDArray[np.float64] | None = None
    dose: NDArray[np.float64] | None = None
    acquisition_order: NDArray[np.int64] | None = None
    pixel_size_nm: float | None = None
    tilt_axis_deg: float | None = None
    axis_origin: str = ""
    image_shape: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)


def title_axis_deg(text: str) -> float | None:
    """Tilt axis angle in a title line of SerialEM ("Tilt axis angle = 85.3, binning = 4 ..."), degrees, or None."""
    match = _AXIS.search(text)
    return float(match.group(1)) if match else None


def read_mdoc(path: str | Path) -> Mdoc:
    """Read a .mdoc.

    Raises
    ------
    UserError : unreadable, no sections, a montage, a value that is no number (with its line), sections that cannot be
        matched to images
    """
    path = Path(path)
    lines = read_text_lines(path)
    _refuse_montage(lines, path)
    parsed = _parse(_needed(lines), lines, path)
    sections, common = _views(parsed, path)
    mdoc = Mdoc(path, len(sections))
    mdoc.tilt_deg = _column(sections, "TiltAngle", mdoc)
    dose = _column(sections, "ExposureDose", mdoc)
    mdoc.dose = dose if dose is not None and (dose > 0).all() else None  # 0: the dose was not calibrated
    mdoc.acquisition_order = _order([section.DateTime for section in sections], mdoc)
    mdoc.pixel_size_nm = _pixel_size(sections, common, parsed.global_data.PixelSpacing, mdoc)
    size = parsed.global_data.ImageSize
    mdoc.image_shape = None if size is None else (size[1], size[0])
    _find_axis(parsed.titles, sections, common, mdoc)
    return mdoc


def _refuse_montage(lines: list[str], path: Path) -> None:
    for number, line in enumerate(lines, start=1):
        key, _, value = (part.strip() for part in line.partition("="))
        if key in {"[MontSection", "PieceCoordinates"} or (key == "Montage" and value not in {"", "0"}):
            raise UserError(
                f"line {number} ({line.strip()!r}) says that this is a montage, not a tilt series.",
                where=path,
                do="Give the .mdoc of the tilt series in inputs.mdoc, or move this file away.",
            )


def _needed(lines: list[str]) -> list[str]:
    needed = []
    for raw in lines:
        line = raw.strip()
        section = _SECTION.match(line)
        if section:
            needed.append(f"[{section.group(1)} = {section.group(2)}]")
        elif _TITLE.match(line):
            needed.append("[T = " + _TITLE.sub("", line).rstrip("] ").strip() + "]")
        elif line.partition("=")[0].strip() in _KEYS and line.partition("=")[2].strip():
            needed.append(line)
    return needed


def _parse(needed: list[str], lines: list[str], path: Path) -> Any:
    from mdocfile.data_models import Mdoc as Parsed  # brings in pandas, which costs 0.4 s
    from pydantic import ValidationError

    quiet = logging.getLogger("mdocfile")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        return Parsed.from_lines(needed)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        value = str(first["input"])
        written = [line.partition("=") for line in lines]
        number = next((n for n, (k, _, v) in enumerate(written, 1) if k.strip() == key and value in v), 0)
        raise UserError(
            f"line {number}: {key} = {value!r} cannot be read as a number.", where=path, do="Correct the line."
        ) from None
    finally:
        quiet.setLevel(level)


def _views(parsed: Any, path: Path) -> tuple[list[Any], Any]:
    """Sections in stack order, and the frame-set section that speaks for all of them (or None)."""
    by_image = [s for s in parsed.section_data if s.ZValue is not None]
    frame_sets = [s for s in parsed.section_data if s.FrameSet is not None]
    if not by_image and not frame_sets:
        raise UserError(
            "has no [ZValue = n] or [FrameSet = n] section.", where=path, do="Give the .mdoc that SerialEM wrote."
        )
    if not by_image:
        return frame_sets, None
    by_image.sort(key=lambda section: section.ZValue)
    numbers = [section.ZValue for section in by_image]
    if numbers != list(range(len(numbers))):
        wrong = next(i for i, n in enumerate(numbers) if n != i)
        problem = f"ZValue {numbers[wrong]} appears twice" if numbers[wrong] < wrong else f"ZValue {wrong} is missing"
        raise UserError(
            f"{problem}; section n belongs to image n of the stack.",
            where=path,
            do="Take the .mdoc that was written with this stack, or set ingest.tilt_deg and move the .mdoc away.",
        )
    return by_image, frame_sets[0] if len(frame_sets) == 1 else None


def _column(sections: list[Any], key: str, mdoc: Mdoc) -> NDArray[np.float64] | None:
    values = [getattr(section, key) for section in sections]
    if all(value is None for value in values):
        return None
    if any(value is None for value in values):
        # A dose of the whole set is not the dose of one view, an angle of it not the angle of one view.
        mdoc.notes.append(
            f"{mdoc.path.name}: {key} stands in {sum(v is not None for v in values)} of {len(values)} "
            f"sections only: not used"
        )
        return None
    array = np.array(values, dtype=np.float64)
    if not np.isfinite(array).all():
        mdoc.notes.append(f"{mdoc.path.name}: {key} is not finite in every section: not used")
        return None
    return array


def _pixel_size(sections: list[Any], common: Any, overall: float | None, mdoc: Mdoc) -> float | None:
    found = [s.PixelSpacing for s in (*sections, common) if s is not None and s.PixelSpacing is not None]
    if overall is not None:
        found.append(overall)
    found = [float(value) for value in found if np.isfinite(value) and value > 0]
    if not found:
        return None
    if max(found) > 1.01 * min(found):
        mdoc.notes.append(
            f"{mdoc.path.name}: PixelSpacing runs from {min(found):.4g} to {max(found):.4g} A over the views: not used"
        )
        return None
    return found[0] / 10


def _find_axis(titles: list[str], sections: list[Any], common: Any, mdoc: Mdoc) -> None:
    for title in titles:
        axis = title_axis_deg(title)
        if axis is not None:
            mdoc.tilt_axis_deg, mdoc.axis_origin = axis, "title line"
            return
    rotations = [s.RotationAngle for s in (*sections, common) if s is not None and s.RotationAngle is not None]
    if not rotations:
        return
    if max(rotations) - min(rotations) > 0.5:
        mdoc.notes.append(f"{mdoc.path.name}: RotationAngle differs between views: tilt axis not taken from it")
        return
    axis = rotations[0] % 180.0 - 90.0  # RotationAngle - 90, into [-90, 90)
    mdoc.tilt_axis_deg, mdoc.axis_origin = axis, "RotationAngle"
    mdoc.notes.append(
        f"tilt axis {axis:.2f} deg is RotationAngle {rotations[0]:.2f} - 90 of {mdoc.path.name} (mod 180): some "
        f"microscopes write wrong values, check it or set ingest.tilt_axis_deg"
    )


def _order(stamps: list[str | None], mdoc: Mdoc) -> NDArray[np.int64] | None:
    """Place of each section in time; sections of the same second keep their order."""
    times = [None if stamp is None else _time(stamp) for stamp in stamps]
    if any(time is None for time in times):
        if any(stamp is not None for stamp in stamps):
            mdoc.notes.append(f"{mdoc.path.name}: DateTime is not readable everywhere, order of acquisition unknown")
        return None
    order = np.argsort(np.array(times, dtype="datetime64[s]"), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _time(stamp: str) -> datetime | None:
    """Read "06-Jun-23  23:19:46", with two or four digits of year; months by name whatever the locale."""
    match = re.fullmatch(r"(\d{1,2})-([A-Za-z]{3})-(\d{4}|\d{2})\s+(\d{1,2}):(\d{2}):(\d{2})", stamp.strip())
    if not match or match.group(2).lower() not in _MONTHS:
        return None
    day, month, year, hour, minute, second = match.groups()
    try:
        return datetime(int(year) % 100 + 2000, _MONTHS[month.lower()], int(day), int(hour), int(minute), int(second))
    except ValueError:
        return None
