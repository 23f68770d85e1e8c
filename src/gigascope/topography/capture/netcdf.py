"""Captures in the layout of the released instrument: one folder per stage position, netCDF-4 files in it.

A folder is named ``y_<float>_x_<float>`` and holds ``z_stack*`` (``[z, camera row, camera column, row, column]``, in
the variable ``mcam_data`` or ``images``, with ``z_stage`` in metres) and ``best_images*`` (the slice that the
instrument's autofocus chose for each camera, with the Bayer pattern). Data set layout of STARCAM, J. Big Data 11:62
(2024). netCDF-4 files are HDF5 files and are read as such.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.topography.capture.bayer import PATTERNS
from gigascope.topography.capture.capture import FileCapture
from gigascope.topography.capture.grid import ViewGrid, kept_ids, steps_of
from gigascope.topography.capture.z_order import Missing

KEY = "inputs.captures"
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_FOLDER = re.compile(rf"y_({_NUMBER})_x_({_NUMBER})$")
_IMAGES = ("mcam_data", "images")
_SHOWN = 5


@dataclass(frozen=True)
class Position:
    """One file of stacks: all cameras at one stage position.

    Attributes
    ----------
    y_mm, x_mm : from the folder's name
    file, variable : where the stacks are
    shape : (z, camera rows, camera columns, rows, columns)
    z_mm : (n_z,) stage positions, or (camera rows, camera columns, 1) of single slices; None where the file has none
    pattern : Bayer pattern that is recorded
    best_mm : (camera rows, camera columns) stage position that the autofocus chose
    files : all that was looked into
    """

    y_mm: float
    x_mm: float
    file: Path
    variable: str
    shape: tuple[int, ...]
    dtype: np.dtype
    z_mm: NDArray[np.float64] | None
    pattern: str | None
    best_mm: NDArray[np.float64] | None
    files: tuple[Path, ...]


def open_captures(
    folders: Sequence[Path],
    *,
    pattern: str | None = None,
    missing: Missing = "refuse",
    camera_rows: Sequence[int] | None = None,
    camera_cols: Sequence[int] | None = None,
    mirrored: tuple[bool, bool] = (False, True),
) -> FileCapture:
    """Open all stage positions of an acquisition; no pixels are read.

    Parameters
    ----------
    folders : each holds folders of stage positions, or is one
    pattern : Bayer pattern to be used whatever the files say
    missing : "mask": a raster with holes is taken, with views that are marked as not there
    camera_rows, camera_cols : ids of those that are kept; None: all
    mirrored : along (y, x); see :class:`gigascope.topography.capture.grid.ViewGrid`

    Raises
    ------
    UserError : no such folders, files missing, damaged or of different shapes or types, holes in the raster
    """
    where = folders[0] if len(folders) == 1 else Path(f"{folders[0]} and {len(folders) - 1} more")
    found = _position_folders(folders, where)
    stacks = {folder: _file_in(folder, "z_stack") for folder in found}
    single = not any(stacks.values())
    opened = {folder: _open_position(folder, at, stacks[folder], single, pattern) for folder, at in found.items()}
    positions = {folder: p for folder, p in opened.items() if p is not None}
    without = [folder.name for folder, p in opened.items() if p is None]
    if without and (missing == "refuse" or not positions):
        what = f"no z_stack file in {', '.join(without[:_SHOWN])}."
        raise UserError(what, where=where, do=f"{_COMPLETE}, or set ingest.missing: mask.")
    _refuse_mixed(positions, where)
    example = next(iter(positions.values()))
    rows, cols = _cameras(example, camera_rows, camera_cols, where)
    y_mm, y_step = steps_of([at[0] for at in found.values()])
    x_mm, x_step = steps_of([at[1] for at in found.values()])
    grid = ViewGrid(rows, cols, (len(y_mm), len(x_mm)), mirrored)
    raster = {(int(y), int(x)): folder for folder, y, x in zip(found, y_step, x_step)}
    if len(raster) < len(found):
        twice = next(f.name for f, y, x in zip(found, y_step, x_step) if raster[int(y), int(x)] != f)
        raise UserError(f"{twice} is the stage position of another folder too.", where=where, do=f"Check {KEY}.")
    holes = [(y, x) for y in range(len(y_mm)) for x in range(len(x_mm)) if (y, x) not in raster]
    if holes and missing == "refuse":
        names = ", ".join(f"y_{y_mm[y]:g}_x_{x_mm[x]:g}" for y, x in holes[:_SHOWN])
        what = f"the raster of {len(y_mm)} x {len(x_mm)} stage positions lacks {len(holes)}: {names}."
        raise UserError(what, where=where, do=f"{_COMPLETE}, or set ingest.missing: mask.")
    there = {at: positions[folder] for at, folder in raster.items() if folder in positions}
    capture = _Raster(grid, there).capture(where, single)
    capture.xy_mm = np.array(
        [[(x_mm[x], y_mm[y]) for y, x in (grid.stage_index(i, j) for j in range(len(x_mm)))] for i in range(len(y_mm))]
    )
    if len(found) - len(positions) or holes:
        gone = len(found) - len(positions) + len(holes)
        capture.warnings.append(f"{gone} of {len(y_mm) * len(x_mm)} stage positions are not there.")
    return capture


_COMPLETE = "Copy what is missing"


@dataclass(frozen=True)
class _Raster:
    """The stage positions that are there, by index along ascending (y, x)."""

    grid: ViewGrid
    positions: dict[tuple[int, int], Position]

    def at(self, view_row: int, view_col: int) -> tuple[Position | None, int, int]:
        """The file of a view, and the camera in it."""
        row, col, scan_y, scan_x = self.grid.place(view_row, view_col)
        return self.positions.get(self.grid.stage_index(scan_y, scan_x)), row, col

    def read(self, view_row: int, view_col: int) -> NDArray:
        position, row, col = self.at(view_row, view_col)
        if position is None:
            raise ValueError("a view that is not there")
        return read_stack(position, row, col)

    def read_slice(self, view_row: int, view_col: int, z: int) -> NDArray:
        position, row, col = self.at(view_row, view_col)
        if position is None:
            raise ValueError("a view that is not there")
        return read_stack(position, row, col, slice(z, z + 1))[0]

    def source(self, view_row: int, view_col: int) -> str:
        position = self.at(view_row, view_col)[0]
        return "" if position is None else f"{position.file.parent.name}/{position.file.name}"

    def capture(self, where: Path, single: bool) -> FileCapture:
        example = next(iter(self.positions.values()))
        n_z = example.shape[0]
        z_mm = np.full((*self.grid.shape, n_z), np.nan)
        best = np.full(self.grid.shape, -1, np.int16)
        present = np.zeros(self.grid.shape, bool)
        known = all(p.z_mm is not None for p in self.positions.values())
        for view in np.ndindex(*self.grid.shape):
            position, row, col = self.at(int(view[0]), int(view[1]))
            if position is None:
                continue
            present[view] = True
            z = position.z_mm if known and position.z_mm is not None else np.arange(n_z, dtype=np.float64)
            z_mm[view] = z[row, col] if z.ndim == 3 else z
            if position.best_mm is not None and known:
                best[view] = np.abs(z_mm[view] - position.best_mm[row, col]).argmin()
        z_mm[~present] = 0.0
        patterns = {p.pattern for p in self.positions.values() if p.pattern is not None}
        notes = ["single slices that the autofocus chose: there are no z_stack files"] if single else []
        return FileCapture(
            path=where,
            format=f"{len(self.positions)} stage positions in netCDF-4",
            grid=self.grid,
            shape=(*self.grid.shape, n_z, example.shape[3], example.shape[4]),
            dtype=example.dtype,
            pattern=patterns.pop() if patterns else None,
            colours=1,
            z_stage_mm=z_mm,
            read_view=self.read,
            read_slice=self.read_slice,
            present=present,
            dz_known=known,
            best_slice=None if (best < 0).all() else best,
            source_of=self.source,
            notes=notes,
            files=[file for p in self.positions.values() for file in p.files],
        )


def read_stack(position: Position, row: int, col: int, slices: slice = slice(None)) -> NDArray:
    """Slices of one camera, by default all, (n_z, rows, cols).

    Raises
    ------
    UserError : the file is damaged
    """
    import h5py

    chosen = range(position.shape[0])[slices]
    stack = np.empty((len(chosen), *position.shape[3:]), position.dtype)
    try:
        with h5py.File(position.file, "r", locking=False) as file:
            images = file[position.variable]
            start = images.id.get_offset() if _is_plain(images) else None
            if start is None:
                if images.ndim == 4:
                    images.read_direct(stack, np.s_[row : row + 1, col : col + 1], np.s_[:])
                else:
                    images.read_direct(stack, np.s_[slices, row, col])
                return stack
        # HDF5 lets one thread read at a time and holds on to Python meanwhile; the frames lie in the file as they are.
        _read_frames(position, row, col, start, chosen, stack)
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise UserError(f"cannot be read ({error}).", where=position.file, do="Copy the file again.") from None
    return stack


def _read_frames(position: Position, row: int, col: int, start: int, chosen: range, stack: NDArray) -> None:
    n_rows, n_cols = position.shape[1:3]
    frame = stack[0].nbytes
    with position.file.open("rb", buffering=0) as file:
        for slice_, z in zip(stack, chosen):
            at = start + frame * ((z * n_rows + row) * n_cols + col)
            view = memoryview(slice_).cast("B")
            done = 0
            while done < frame:
                read = os.preadv(file.fileno(), [view[done:]], at + done)
                if read == 0:
                    raise EOFError(f"it ends within slice {z}")
                done += read


def _is_plain(images: Any) -> bool:
    """The values lie in the file one after the other, in this machine's byte order."""
    contiguous = images.chunks is None and images.external is None and not images.is_virtual
    return bool(contiguous and images.id.get_offset() is not None and images.dtype.isnative)


def _position_folders(folders: Sequence[Path], where: Path) -> dict[Path, tuple[float, float]]:
    """Folders of stage positions with (y, x), in the order of 1000 y + x."""
    found: dict[Path, tuple[float, float]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError("no such folder.", where=folder, do=f"Check {KEY}.")
        own = _FOLDER.search(folder.name)
        for candidate in [folder] if own else sorted(folder.iterdir()):
            match = _FOLDER.fullmatch(candidate.name)
            if match and candidate.is_dir():
                found[candidate] = float(match[1]), float(match[2])
    if not found:
        what = "holds no folder named y_<number>_x_<number>."
        raise UserError(what, where=where, do=f"Check {KEY}: one folder for each lateral stage position is expected.")
    return dict(sorted(found.items(), key=lambda item: 1000 * item[1][0] + item[1][1]))


def _file_in(folder: Path, kind: str) -> Path | None:
    files = sorted(p for p in folder.glob(f"{kind}*") if p.is_file() and not p.name.endswith((".tmp", ".part")))
    if len(files) > 1:
        names = ", ".join(f.name for f in files)
        raise UserError(f"holds {len(files)} {kind} files: {names}.", where=folder, do="Leave the one that is meant.")
    return files[0] if files else None


def _open_position(
    folder: Path, at: tuple[float, float], stack: Path | None, single: bool, given: str | None
) -> Position | None:
    best = _file_in(folder, "best_images")
    file = best if single else stack
    if file is None:
        return None
    pattern, best_mm = given, None
    if best is not None:
        pattern, best_mm = _with_file(best, lambda f: (given or _pattern(f, best), _metres(f, best)))

    def read(opened: Any) -> Position:
        name = next((n for n in _IMAGES if n in opened), None)
        n_axes = 4 if single else 5
        if name is None or opened[name].ndim != n_axes:
            there = ", ".join(f"{n} {opened[n].shape}" for n in opened if hasattr(opened[n], "shape"))
            what = f"has no images of {n_axes} axes named {' or '.join(_IMAGES)}; it has {there or 'nothing'}."
            raise UserError(what, where=file, do=f"Check {KEY}.")
        images = opened[name]
        if images.dtype not in (np.uint8, np.uint16):
            raise UserError(f"holds {images.dtype} values, 8 or 16 bits were expected.", where=file)
        z_mm = _metres(opened, file)
        shape = (1, *images.shape) if single else tuple(images.shape)
        if single:
            z_mm = None if z_mm is None else z_mm.reshape(*shape[1:3], 1)
        elif z_mm is not None and z_mm.shape != (shape[0],):
            what = f"has {shape[0]} slices and {z_mm.size} stage positions (z_stage)."
            raise UserError(what, where=file, do="Repair the file: one position for each slice.")
        dtype = images.dtype.newbyteorder("=")
        recorded = pattern or _pattern(opened, file)
        files = tuple(dict.fromkeys(filter(None, (file, best))))
        return Position(*at, file, name, shape, dtype, z_mm, recorded, None if single else best_mm, files)

    return _with_file(file, read)


def _with_file(path: Path, read: Any) -> Any:
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return read(file)
    except (OSError, KeyError, RuntimeError) as error:
        what = f"is no netCDF-4 file, or is damaged ({error})."
        raise UserError(what, where=path, do="Copy the file again.") from None


def _metres(file: Any, path: Path) -> NDArray[np.float64] | None:
    """`z_stage` in millimetres."""
    if "z_stage" not in file:
        return None
    return 1000.0 * np.asarray(file["z_stage"][()], np.float64)


def _pattern(file: Any, path: Path) -> str | None:
    """The Bayer pattern that is recorded, which all cameras must share."""
    if "bayer_pattern" not in file:
        return None
    cells = np.asarray(file["bayer_pattern"][()], dtype=object).ravel()
    words = [(c.decode() if isinstance(c, bytes) else str(c)).strip().upper() for c in cells]
    found = Counter(words)
    if len(found) > 1:
        what = f"the cameras have different Bayer patterns: {', '.join(sorted(found))}."
        raise UserError(what, where=path, do="Set ingest.bayer if one of them is right for all.")
    word = next(iter(found), "")
    if word and word not in PATTERNS:
        what = f"the Bayer pattern {word!r} is none of {', '.join(PATTERNS)}."
        raise UserError(what, where=path, do="Set ingest.bayer.")
    return word or None


def _refuse_mixed(positions: dict[Path, Position], where: Path) -> None:
    """Slices, cameras, size and type must be those of all, and so must the pattern."""
    kinds: list[tuple[str, Any, str]] = [
        ("slices", lambda p: p.shape[0], ""),
        ("cameras", lambda p: "x".join(map(str, p.shape[1:3])), ""),
        ("pixels", lambda p: "x".join(map(str, p.shape[3:])), ""),
        ("values", lambda p: str(p.dtype), ""),
        ("Bayer pattern", lambda p: str(p.pattern), ""),
    ]
    for word, kind, _ in kinds:
        count = Counter(map(kind, positions.values()))
        if len(count) > 1:
            common, n = count.most_common(1)[0]
            wrong = [(folder.name, kind(p)) for folder, p in positions.items() if kind(p) != common]
            names = ", ".join(f"{name} ({value})" for name, value in wrong[:_SHOWN])
            what = f"{word} differ: {n} stage positions have {common}, not {names}."
            raise UserError(what, where=where, do="Take out or repair what does not belong to this acquisition.")


def _cameras(
    example: Position, rows: Sequence[int] | None, cols: Sequence[int] | None, where: Path
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    kept = []
    for key, wanted, n in (("camera_rows", rows, example.shape[1]), ("camera_cols", cols, example.shape[2])):
        beyond = [i for i in wanted or () if i >= n]
        if beyond:
            what = f"has {key.replace('_', ' ').replace('cols', 'columns')} 0 to {n - 1}, not {beyond[0]}."
            raise UserError(what, where=where, do=f"Correct ingest.{key}.")
        kept.append(kept_ids(wanted, n))
    return kept[0], kept[1]
