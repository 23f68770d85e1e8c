"""Small MRC files with any header, written field by field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

TYPES = {0: "i1", 1: "i2", 2: "f4", 3: "i4", 4: "c8", 6: "u2", 12: "f2", 16: "u1", 101: "u1"}
IMOD_STAMP = 1146047817


def mrc_bytes(
    data: np.ndarray,
    mode: int,
    *,
    pixel_angstrom: float | tuple[float, float] = 5.0,
    order: str = "<",
    extended: bytes = b"",
    exttyp: bytes = b"",
    layout: tuple[int, int] = (0, 0),
    imod_flags: int | None = None,
    titles: tuple[str, ...] = (),
    **fields: object,
) -> bytes:
    """An MRC file of `data` (view, y, x); `layout` are nint and nreal, `fields` overwrite header fields."""
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder(order))
    n, ny, nx = data.shape
    header["nx"], header["ny"], header["nz"], header["mode"] = nx, ny, n, mode
    header["mx"], header["my"], header["mz"] = nx, ny, n
    px, py = pixel_angstrom if isinstance(pixel_angstrom, tuple) else (pixel_angstrom, pixel_angstrom)
    header["cella"] = (px * nx, py * ny, px * n)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["nsymbt"], header["exttyp"], header["map"], header["nversion"] = len(extended), exttyp, b"MAP ", 20141
    header["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
    extra = bytearray(84)
    extra[16:20] = np.array(layout, dtype=np.dtype("i2").newbyteorder(order)).tobytes()
    if imod_flags is not None:
        extra[40:48] = np.array([IMOD_STAMP, imod_flags], dtype=np.dtype("i4").newbyteorder(order)).tobytes()
    header["extra2"] = np.void(bytes(extra))
    for i, title in enumerate(titles):
        header["label"][i] = title.encode()
    for name, value in fields.items():
        header[name] = value
    return header.tobytes() + extended + data.astype(np.dtype(TYPES.get(mode, "i2")).newbyteorder(order)).tobytes()


@pytest.fixture
def make_mrc(tmp_path: Path) -> Callable[..., Path]:
    """Writes :func:`mrc_bytes` into a file; mode 1, 9 views of 6 x 8 px unless said otherwise."""

    def make(name: str = "cell.mrc", data: np.ndarray | None = None, mode: int = 1, **header: object) -> Path:
        if data is None:
            data = np.arange(9 * 6 * 8).reshape(9, 6, 8) % 100
        path = tmp_path / name
        path.write_bytes(mrc_bytes(data, mode, **header))
        return path

    return make


@pytest.fixture
def angles() -> np.ndarray:
    """Nine tilt angles, in a dose-symmetric order."""
    return np.array([0.0, 3.0, -3.0, -6.0, 6.0, 9.0, -9.0, -12.0, 12.0])


def write_tlt(path: Path, values: np.ndarray) -> Path:
    """One angle per line."""
    path.write_text("".join(f"{value:8.2f}\n" for value in values))
    return path


@pytest.fixture(name="write_tlt")
def _write_tlt() -> Callable[[Path, np.ndarray], Path]:
    return write_tlt


def mdoc_text(values: np.ndarray, *, title: str = "Tilt axis angle = 85.3, binning = 4", **keys: object) -> str:
    """A .mdoc as SerialEM writes it; `keys` are put into every section."""
    size = keys.pop("ImageSize", None)
    lines = ["PixelSpacing = 5.4", "ImageFile = cell.mrc"] + ([f"ImageSize = {size}"] if size else [])
    lines += ["", "[T = SerialEM: somewhere]", "", *([f"[T =     {title}]"] if title else []), ""]
    for i, value in enumerate(values):
        lines += [f"[ZValue = {i}]", f"TiltAngle = {value}", "PixelSpacing = 5.4", "RotationAngle = 175.3"]
        lines += [f"DateTime = 06-Jun-23  23:{i:02d}:00", *(f"{key} = {word}" for key, word in keys.items()), ""]
    return "\n".join(lines)


@pytest.fixture(name="mdoc_text")
def _mdoc_text() -> Callable[..., str]:
    return mdoc_text
