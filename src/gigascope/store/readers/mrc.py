"""MRC stacks (.mrc, .st, .ali, .rec ...), memory-mapped: a view is read when it is asked for, the file never whole.

Format: MRC2014 with IMOD's additions (mrc_format.txt). `mrcfile` reads the header and the data; the flag for unsigned
bytes, SerialEM's extended header and titles, and all refusals are ours.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.mdoc import title_axis_deg
from gigascope.store.readers.mrc_extended import ExtendedHeader, byte_order, read_extended
from gigascope.store.readers.source import TiltSeriesSource, as_view

SUFFIXES = {".mrc", ".st", ".ali", ".rec", ".mrcs", ".preali", ".map"}
_HEADER_BYTES = 1024
_LONGEST_EXTENDED = 64 * 2**20
_IMOD_STAMP = 1146047817
_SIGNED_BYTES = 1
_TYPES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}
_REFUSED = {
    3: ("complex 16-bit integers", "Give the images, not their Fourier transforms."),
    4: ("complex 32-bit floats", "Give the images, not their Fourier transforms."),
    16: ("RGB colours", "Convert it to grey values first (IMOD: newstack -mode 1)."),
    101: ("packed 4-bit integers", "Unpack it first (IMOD: newstack -mode 6 in.mrc out.mrc)."),
}


@dataclass(frozen=True)
class _Header:
    """What is needed of the 1024 bytes and the extended header."""

    shape: tuple[int, int, int]
    mode: int
    dtype: np.dtype
    offset: int
    pixel_angstrom: tuple[float, float]
    axis_deg: float | None
    top_first: bool
    extended: ExtendedHeader
    notes: tuple[str, ...]


def open_mrc(path: str | Path, y_up: bool | None = None) -> TiltSeriesSource:
    """Open an MRC stack as a tilt series.

    Parameters
    ----------
    path : MRC file; modes 0 (signed, or unsigned by IMOD's flag), 1, 2, 6 and 12, either byte order
    y_up : the first row is the bottom of the image; None: true, as the format says (but false for FEI's first version)

    Raises
    ------
    UserError : not an MRC file, truncated (bytes expected and found), a mode that is not read (by name), a montage,
        sizes that make no sense
    """
    path = Path(path)
    found = _file_size(path)
    header = _read_header(path)
    expected = header.offset + math.prod(header.shape) * header.dtype.itemsize
    if found < expected:
        n, height, width = header.shape
        complete = max(0, found - header.offset) // (height * width * header.dtype.itemsize)
        raise UserError(
            f"is truncated: {n} images of {width} x {height} px in mode {header.mode} need {expected} bytes, found "
            f"{found} ({complete} images are whole).",
            where=path,
            do="Copy or download it again; was it still being written?",
        )
    notes = list(header.notes)
    if found > expected:
        notes.append(f"{path.name} is {found - expected} bytes longer than its header says: the rest is ignored")
    data = _map(path, header)
    flip = header.top_first if y_up is None else not y_up
    dtype = header.dtype.newbyteorder("=")
    source = TiltSeriesSource(
        path=path,
        format=", extended header ".join(part for part in (f"MRC mode {header.mode}", header.extended.kind) if part),
        shape=header.shape,
        dtype=dtype,
        read_view=lambda i: as_view(data[i], dtype, flip=flip),
        notes=notes,
        files=[path],
    )
    _take_metadata(source, header)
    return source


def _file_size(path: Path) -> int:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_HEADER_BYTES)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}).", where=path, do="Check inputs.tilt_series.") from None
    if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh":
        raise UserError("is compressed.", where=path, do=f"Unpack it first ({_unpack_command(path)}).")
    if size < _HEADER_BYTES:
        raise UserError(
            f"is not an MRC file: it has {size} bytes, the header alone has {_HEADER_BYTES}.",
            where=path,
            do="Copy or download it again, or check inputs.tilt_series.",
        )
    order: Literal["little", "big"] = "big" if start[212] == 0x11 else "little"
    if int.from_bytes(start[12:16], order, signed=True) not in {
        *_TYPES,
        *_REFUSED,
    }:  # then mrcfile tries the other order
        order = "little" if order == "big" else "big"
    if not -1 < int.from_bytes(start[92:96], order, signed=True) <= max(size, _LONGEST_EXTENDED):
        # mrcfile would set aside memory for it before it looks at the file.
        raise UserError("is not an MRC file, or its header is damaged.", where=path, do="Copy it again.")
    return size


def _unpack_command(path: Path) -> str:
    return f"bunzip2 {path.name}" if path.suffix == ".bz2" else f"gunzip {path.name}"


def _read_header(path: Path) -> _Header:
    import mrcfile

    with warnings.catch_warnings(record=True):  # permissive: what is wrong is said in our words
        warnings.simplefilter("always")
        try:
            mrc = mrcfile.open(path, permissive=True, header_only=True)
        except (ValueError, OverflowError, MemoryError):
            raise UserError("is not an MRC file, or its header is damaged.", where=path, do="Copy it again.") from None
        with mrc:
            header = mrc.header
            shape = (int(header.nz), int(header.ny), int(header.nx))
            _refuse(header, shape, path)
            extended = read_extended(mrc, shape[0])
            titles = [bytes(label).decode("latin-1") for label in header.label]
            return _Header(
                shape=shape,
                mode=int(header.mode),
                dtype=_dtype(header),
                offset=_HEADER_BYTES + int(header.nsymbt),
                pixel_angstrom=_pixel(header),
                axis_deg=next((a for a in map(title_axis_deg, titles) if a is not None), None),
                top_first=_is_top_first(header),
                extended=extended,
                notes=tuple(_doubts(header, path) + [f"{path.name}: {note}" for note in extended.notes]),
            )


def _refuse(header: Any, shape: tuple[int, int, int], path: Path) -> None:
    mode = int(header.mode)
    if mode in _REFUSED:
        name, hint = _REFUSED[mode]
        raise UserError(f"is in mode {mode} ({name}), which is not read.", where=path, do=hint)
    if mode not in _TYPES or min(shape) < 1 or int(header.nsymbt) < 0:
        what = "is not an MRC file."
        if bytes(header.map)[:3] == b"MAP":
            size = f"{shape[2]} x {shape[1]} x {shape[0]} values in mode {mode}"
            what = f"has a damaged header: {size}, {int(header.nsymbt)} bytes of extended header."
        raise UserError(what, where=path, do=f"Copy it again; modes {', '.join(map(str, _TYPES))} are read.")
    if int(header.ispg) == 401:
        raise UserError("is a stack of volumes, not of images.", where=path, do="Give the raw tilt series.")
    if (int(header.mapc), abs(int(header.mapr)), int(header.maps)) not in {(1, 2, 3), (0, 0, 0)}:
        order = f"{int(header.mapc)}, {int(header.mapr)}, {int(header.maps)}"
        raise UserError(
            f"stores its axes in the order {order}, a tilt series has 1, 2, 3 (x, y, view).",
            where=path,
            do="Reorder the axes first (IMOD: clip rotx or trimvol).",
        )


def _doubts(header: Any, path: Path) -> list[str]:
    notes = []
    if bytes(header.map)[:3] != b"MAP":
        notes.append(f"{path.name} lacks the MRC stamp: read as an old MRC file")
    if _is_top_first(header):
        notes.append(f"{path.name} stores the top row first, as its header says: flipped")
    return notes


def _imod_flags(header: Any) -> int | None:
    """IMOD's bit flags, or None where the file was not written by software that sets them."""
    stamp, flags = np.frombuffer(header.extra2.tobytes()[40:48], dtype=np.dtype("i4").newbyteorder(byte_order(header)))
    return int(flags) if int(stamp) == _IMOD_STAMP else None


def _dtype(header: Any) -> np.dtype:
    mode = int(header.mode)
    flags = _imod_flags(header)
    if mode == 0 and flags is not None and not flags & _SIGNED_BYTES:
        return np.dtype(np.uint8)
    return np.dtype(_TYPES[mode]).newbyteorder(byte_order(header))


def _is_top_first(header: Any) -> bool:
    # As IMOD decides: FEI's files of the first version, unless IMOD rewrote them, and axis row -2.
    fei = bytes(header.exttyp)[:3] == b"FEI" and int(header.nversion) == 20140 and _imod_flags(header) is None
    return fei or int(header.mapr) == -2


def _pixel(header: Any) -> tuple[float, float]:
    """Pixel size in x and y, angstrom; 0 where the header says nothing."""
    size = []
    for cell, n in ((header.cella.x, header.mx), (header.cella.y, header.my)):
        value = float(cell) / int(n) if int(n) > 0 else 0.0
        size.append(value if np.isfinite(value) else 0.0)
    return size[0], size[1]


def _map(path: Path, header: _Header) -> np.ndarray:
    import mrcfile

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        mrc = mrcfile.mmap(path, mode="r", permissive=True)
        data = mrc.data
        mrc.close()  # the mapping stays, the file handle goes
    if data is None:
        raise UserError("cannot be memory-mapped.", where=path, do="Copy it to a local disk.")
    return data.view(header.dtype).reshape(header.shape)


def _take_metadata(source: TiltSeriesSource, header: _Header) -> None:
    x, y = header.pixel_angstrom
    extended = header.extended
    if x < 0 or y < 0:
        source.missing["pixel_size_nm"] = f"the header says {x:.4g} x {y:.4g} A, which is negative"
    elif x == 0 or y == 0:
        source.missing["pixel_size_nm"] = "the header says 0"
    elif abs(x - y) > 0.01 * max(x, y):
        source.missing["pixel_size_nm"] = f"the header says {x:.4g} x {y:.4g} A, and pixels must be square"
    elif abs(x - 1) < 1e-6:
        source.missing["pixel_size_nm"] = "the header says exactly 1 A, as programs write that do not know it"
    else:
        source.pixel_size_nm = x / 10
        source.origin["pixel_size_nm"] = "the MRC header"
    if source.pixel_size_nm is None and extended.pixel_size_nm is not None:
        source.pixel_size_nm = extended.pixel_size_nm
        source.origin["pixel_size_nm"] = f"the extended header ({extended.kind})"
    source.tilt_axis_deg = header.axis_deg
    if header.axis_deg is not None:
        source.origin["tilt_axis_deg"] = "a title of the MRC header"
    source.tilt_deg, source.dose = extended.tilt_deg, extended.dose
    for name in ("tilt_deg", "dose"):
        if getattr(source, name) is not None:
            source.origin[name] = f"the extended header ({extended.kind})"
    if extended.is_montage:
        raise UserError(
            "is a montage: its extended header places each image in a mosaic.",
            where=source.path,
            do="Give the tilt series, or blend the montage first (IMOD: blendmont).",
        )
