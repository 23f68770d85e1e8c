"""Extended headers of MRC files: tilt angles, dose and pixel size per view.

SERI (SerialEM) and the older Agard/FEI layout are read here, after IMOD's description of the format; FEI1 and FEI2
through `mrcfile`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Items of a SERI record in order of their flag: bytes of each (IMOD, mrc_format.txt).
_SERI_ITEMS = {1: 2, 2: 6, 4: 4, 8: 2, 16: 2, 32: 4, 64: 2, 128: 4, 256: 2, 512: 4, 1024: 2}
_TILT, _PIECES, _DOSE = 1, 2, 32
# FEI1/FEI2: bits of "Bitmask 1" that say which fields were filled in.
_FEI_DOSE, _FEI_TILT, _FEI_AXIS, _FEI_PIXEL = 1 << 6, 1 << 7, 1 << 12, 1 << 14


ByteOrder = Literal["<", ">"]


@dataclass
class ExtendedHeader:
    """What an extended header says; None where it is silent.

    Attributes
    ----------
    kind : "SERI", "FEI1", "FEI2" or "Agard"; empty: none, or one that is not understood
    tilt_deg, dose : (tilt,) float64, degrees and electrons per square angstrom
    pixel_size_nm : nanometres
    is_montage : pieces of several images, not a tilt series
    notes : doubts
    """

    kind: str = ""
    tilt_deg: NDArray[np.float64] | None = None
    dose: NDArray[np.float64] | None = None
    pixel_size_nm: float | None = None
    is_montage: bool = False
    notes: list[str] = field(default_factory=list)


def byte_order(header: Any) -> ByteOrder:
    """Byte order that `mrcfile` found for a file."""
    return ">" if header.mode.dtype.str[0] == ">" else "<"


def read_extended(mrc: Any, n_views: int) -> ExtendedHeader:
    """Read the extended header of an open `mrcfile` object (its header is enough)."""
    raw = b"" if mrc.extended_header is None else mrc.extended_header.tobytes()
    header = mrc.header
    if not raw:
        return ExtendedHeader()
    kind = bytes(header.exttyp).strip(b"\0 ")
    order = byte_order(header)
    layout = np.frombuffer(header.extra2.tobytes()[16:20], dtype=np.dtype("i2").newbyteorder(order))
    per_section, flags = int(layout[0]), int(layout[1])
    if kind in (b"FEI1", b"FEI2"):
        found = _fei(mrc, n_views)
    elif _is_seri(per_section, flags) and len(raw) >= per_section * n_views:
        found = _seri(raw, per_section, flags, n_views, order)
    elif kind in (b"AGAR", b"") and flags > 0 and per_section >= 0:
        found = _agard(raw, per_section, flags, n_views, order)
    else:
        found = ExtendedHeader()
    _drop_useless(found, n_views)
    return found


def _is_seri(per_section: int, flags: int) -> bool:
    """SerialEM's short items if the flags add up to the bytes per section, else ints and reals per section."""
    return flags > 0 and per_section > 0 and sum(n for bit, n in _SERI_ITEMS.items() if flags & bit) == per_section


def _seri(raw: bytes, per_section: int, flags: int, n_views: int, order: ByteOrder) -> ExtendedHeader:
    found = ExtendedHeader(kind="SERI")
    records = np.frombuffer(raw, dtype=np.uint8, count=per_section * n_views).reshape(n_views, per_section)

    def shorts(item: int, count: int) -> NDArray[np.int16]:
        start = sum(n for bit, n in _SERI_ITEMS.items() if bit < item and flags & bit)
        part = np.ascontiguousarray(records[:, start : start + 2 * count])
        return part.view(np.dtype("i2").newbyteorder(order)).astype(np.int16)

    if flags & _TILT:
        found.tilt_deg = shorts(_TILT, 1)[:, 0] / 100.0
    if flags & _PIECES:
        found.is_montage = bool(np.ptp(shorts(_PIECES, 3)[:, :2], axis=0).any())
    if flags & _DOSE:
        pair = shorts(_DOSE, 2).astype(np.float64)
        # A float as two shorts: sign(a) (|a| 256 + |b| mod 256) 2^(sign(b) |b| // 256)
        size = np.abs(pair[:, 0]) * 256 + np.abs(pair[:, 1]) % 256
        power = np.sign(pair[:, 1]) * (np.abs(pair[:, 1]) // 256)
        found.dose = np.sign(pair[:, 0]) * size * 2.0**power
    return found


def _fei(mrc: Any, n_views: int) -> ExtendedHeader:
    found = ExtendedHeader(kind=bytes(mrc.header.exttyp)[:4].decode("ascii"))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        table = mrc.indexed_extended_header
    if table is None or len(table) != n_views:
        found.notes.append(f"the extended header {found.kind} is shorter than the stack: not used")
        return found
    filled = table["Bitmask 1"]

    def column(name: str, bit: int) -> NDArray[np.float64] | None:
        # Some writers leave the mask at 0 and fill the fields all the same.
        said = (filled & bit).astype(bool) | (filled == 0)
        return table[name].astype(np.float64) if said.all() else None

    found.tilt_deg = column("Alpha tilt", _FEI_TILT)
    dose = column("Dose", _FEI_DOSE)
    found.dose = None if dose is None else dose * 1e-20  # electrons per square metre
    pixel = column("Pixel size X", _FEI_PIXEL)
    found.pixel_size_nm = None if pixel is None else float(pixel[0]) * 1e9
    axis = column("Tilt axis angle", _FEI_AXIS)
    if axis is not None and np.isfinite(axis[0]) and axis[0] != 0:
        found.notes.append(
            f"the extended header {found.kind} states a tilt axis of {axis[0]:.2f} deg, whose sign depends on the "
            f"software that wrote it: not used, set ingest.tilt_axis_deg"
        )
    return found


def _agard(raw: bytes, n_ints: int, n_reals: int, n_views: int, order: ByteOrder) -> ExtendedHeader:
    """Integers, then reals per section, the first the tilt angle; FEI's has 32 reals, the 12th the pixel size in m."""
    size = 4 * (n_ints + n_reals)
    if len(raw) < size * n_views:
        return ExtendedHeader()
    words = np.frombuffer(raw, dtype=np.dtype("f4").newbyteorder(order), count=size * n_views // 4)
    reals = words.reshape(n_views, -1)[:, n_ints:].astype(np.float64)
    found = ExtendedHeader(kind="Agard", tilt_deg=reals[:, 0])
    if n_reals >= 12 and 1e-12 < reals[0, 11] < 1e-5:
        found.pixel_size_nm = float(reals[0, 11]) * 1e9
    return found


def _drop_useless(found: ExtendedHeader, n_views: int) -> None:
    """Take back what cannot be meant: angles all equal or absurd, doses of 0, pixel sizes of 0."""
    tilt = found.tilt_deg
    if tilt is None:
        pass
    elif not np.isfinite(tilt).all() or np.abs(tilt).max() > 180 or (n_views > 2 and np.ptp(tilt) == 0):
        found.notes.append(f"the tilt angles of the extended header {found.kind} are all equal or impossible: not used")
        found.tilt_deg = None
    if found.dose is not None and not (np.isfinite(found.dose).all() and (found.dose > 0).all()):
        found.dose = None
    if found.pixel_size_nm is not None and not (np.isfinite(found.pixel_size_nm) and found.pixel_size_nm > 0):
        found.pixel_size_nm = None
