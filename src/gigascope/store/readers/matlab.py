"""MATLAB files: version 7.3 is HDF5, older ones are read by SciPy, the variable whole.

An array is (row, column, view) as `imshow(stack(:, :, k))` shows it: the top row first, views last.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.axes import ANGLE_NAMES, Axis, series_of_array
from gigascope.store.readers.source import TiltSeriesSource
from gigascope.store.readers.tilt_hdf5 import KEY, open_hdf5_series

SUFFIXES = (".mat",)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512  # MATLAB's own header stands before the HDF5 file


def open_matlab(file: Path, name: str = "", y_up: bool | None = None) -> TiltSeriesSource:
    """Open a variable as a tilt series.

    Parameters
    ----------
    name : of the variable; empty: the only one of three axes
    y_up : the first row is the bottom of the image; None: false

    Raises
    ------
    UserError : no MATLAB file, no such variable, several of three axes, values that are not real numbers
    """
    if not file.exists():
        raise UserError("no such file or folder.", where=file, do=f"Check {KEY}.")
    try:
        with file.open("rb") as opened:
            start = opened.read(_USER_BLOCK + len(_HDF5))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}).", where=file, do=f"Check {KEY}.") from None
    if _HDF5 in (start[: len(_HDF5)], start[_USER_BLOCK:]):
        return open_hdf5_series(file, name, y_up)
    variables = _variables(file)
    stacks = [each for each, shape in variables.items() if len(shape) >= 3]
    chosen = name or (stacks[0] if len(stacks) == 1 else "")
    if chosen not in stacks:
        what = f"has no variable {name} of three axes" if name else f"has {len(stacks)} variables of three axes"
        raise UserError(
            f"{what}: {', '.join(stacks) or 'none'}.", where=file, do=f"Name one in {KEY}, as in {file.name}/stack."
        )
    listed = [
        each
        for each, shape in variables.items()
        if each.lower() in ANGLE_NAMES and max(shape, default=0) in variables[chosen] and np.prod(shape) == max(shape)
    ]
    loaded = _load(file, [chosen, *listed[:1]])
    array = loaded[chosen]
    angles: tuple[NDArray[np.float64], str] | None = None
    if listed:
        angles = np.asarray(loaded[listed[0]], dtype=np.float64).reshape(-1), f"the variable {listed[0]}"
    axes = [Axis(int(n)) for n in array.shape]
    source = series_of_array(
        file, "MATLAB file", array.dtype, axes, lambda index: array[index], y_up=y_up, views_last=True, angles=angles
    )
    source.format += f", variable {chosen}"
    return source


def _variables(file: Path) -> dict[str, tuple[int, ...]]:
    from scipy.io import whosmat

    return {str(name): tuple(shape) for name, shape, _ in _guarded(whosmat, file)}


def _load(file: Path, names: list[str]) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    found: dict[str, np.ndarray] = _guarded(lambda path: loadmat(path, variable_names=names), file)
    return found


def _guarded(read: Any, file: Path) -> Any:
    from scipy.io.matlab import MatReadError

    broken = (MatReadError, OSError, ValueError, TypeError, LookupError, NotImplementedError, EOFError, zlib.error)
    try:
        return read(str(file))
    except (*broken, MemoryError, OverflowError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"is no MATLAB file, or it is damaged ({why}).",
            where=file,
            do="Copy it again, or save it with -v7.3.",
        ) from None
