"""DM3 and DM4 files with any tags, written byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigascope.errors import UserError
from gigascope.store.readers.tilt_series import find_tilt_series, open_tilt_series

pytest.importorskip("rsciio", reason='rosettasciio is not installed: pip install "gigascope[dm]"')

SHORT, INT, FLOAT, UNSIGNED_SHORT = 2, 3, 7, 4
DATA_TYPES = {"int16": (1, SHORT), "uint16": (10, UNSIGNED_SHORT)}


def dm_bytes(tags: dict[str, Any], version: int) -> bytes:
    """A DM file, little-endian data; counts have four bytes in version 3 and eight in version 4."""
    count = ">q" if version == 4 else ">i"

    def group(items: dict[str, Any]) -> bytes:
        return b"\1\0" + struct.pack(count, len(items)) + b"".join(entry(*item) for item in items.items())

    def entry(name: str, value: Any) -> bytes:
        label = name.encode() if not name.startswith("#") else b""  # members of a list have no name
        body = group(value) if isinstance(value, dict) else data(value)
        size = struct.pack(">q", len(body)) if version == 4 else b""
        return bytes([20 if isinstance(value, dict) else 21]) + struct.pack(">H", len(label)) + label + size + body

    def data(value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            info, raw = [20, DATA_TYPES[str(value.dtype)][1], value.size], value.tobytes()
        elif isinstance(value, str):
            info, raw = [20, UNSIGNED_SHORT, len(value)], value.encode("utf-16-le")
        else:
            kind = FLOAT if isinstance(value, float) else INT
            info, raw = [kind], struct.pack("<d" if kind == FLOAT else "<i", value)
        return b"%%%%" + b"".join(struct.pack(count, n) for n in [len(info), *info]) + raw

    body = group(tags)
    return struct.pack(">i", version) + struct.pack(count, len(body)) + struct.pack(">i", 1) + body + bytes(8)


def write_dm(
    path: Path, stack: np.ndarray, units: tuple[str, str, str], scales: tuple[float, ...], **notes: Any
) -> Path:
    """A stack (view, y, x) with the units and steps of x, y, view."""
    image = {
        "ImageData": {
            "Calibrations": {
                "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
                "Dimension": {
                    f"#{k}": {"Origin": 3.0 if unit == "deg" else 0.0, "Scale": scale, "Units": unit}
                    for k, (unit, scale) in enumerate(zip(units, scales))
                },
            },
            "Data": stack.reshape(-1),
            "DataType": DATA_TYPES[str(stack.dtype)][0],
            "Dimensions": {f"#{k}": n for k, n in enumerate(stack.shape[::-1])},
            "PixelDepth": 2,
        },
        "ImageTags": notes,
        "Name": "series",
    }
    path.write_bytes(dm_bytes({"ImageList": {"#0": image}}, int(path.suffix[-1])))
    return path


@pytest.fixture
def stack(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 9999, (7, 5, 8)).astype(np.uint16)


@pytest.mark.parametrize("name", ["a.dm3", "a.dm4"])
def test_views_angles_and_pixel_size(name: str, stack: np.ndarray, tmp_path: Path) -> None:
    path = write_dm(tmp_path / name, stack, ("nm", "nm", "deg"), (0.25, 0.25, 10.0))
    found = open_tilt_series(path)
    assert found.format == name[2:].upper()
    assert found.pixel_size_nm == pytest.approx(0.25)
    np.testing.assert_allclose(found.tilt_deg, 10.0 * (np.arange(7) - 3))
    for i in range(7):
        np.testing.assert_array_equal(found.read(i), stack[i, ::-1])


def test_angles_from_the_notes_of_the_acquisition(stack: np.ndarray, tmp_path: Path) -> None:
    tilt = np.array([-31.0, -20, -9, 1, 11, 22, 30])
    notes = {"Tracking data": {f"#{k}": {"stage angle (degree)": float(t)} for k, t in enumerate(tilt)}}
    path = write_dm(tmp_path / "a.dm4", stack, ("nm", "nm", ""), (0.25, 0.25, 1.0), Tomography=notes)
    found = open_tilt_series(path)
    np.testing.assert_allclose(found.tilt_deg, tilt)
    assert found.origin["tilt_deg"] == "the acquisition notes of the DM4"
    # one angle too few: they are not this stack's
    del notes["Tracking data"]["#3"]
    write_dm(path, stack, ("nm", "nm", ""), (0.25, 0.25, 1.0), Tomography=notes)
    assert find_tilt_series(path).tilt_deg is None


def test_a_single_image_is_no_series(stack: np.ndarray, tmp_path: Path) -> None:
    path = write_dm(tmp_path / "a.dm3", stack[0], ("nm", "nm"), (1.0, 1.0))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="holds 0 stacks"):
        find_tilt_series(path)
