"""TIFF stacks, one for each camera and stage position, named by a pattern such as
``run1/cam_{camera_row}_{camera_col}/y{scan_y}_x{scan_x}.tif``; with ``{z}`` one file for each slice.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.tiff_file import guarded, open_file, size_text
from gigascope.store.readers.tiff_pixel import voxel_size_um
from gigascope.topography.capture.capture import FileCapture
from gigascope.topography.capture.grid import ViewGrid, steps_of
from gigascope.topography.capture.images import Slices, open_slices
from gigascope.topography.capture.z_order import Missing

KEY = "inputs.stacks"
FIELDS = ("camera_row", "camera_col", "scan_y", "scan_x", "z")
_FIELD = re.compile(r"\{([^{}]*)\}")
_WHOLE, _REAL = r"\d+", r"[-+]?\d+(?:\.\d+)?"
_SHOWN = 5

# camera row and column ids, indices of ascending stage positions along y and x
Key = tuple[int, int, int, int]


@dataclass(frozen=True)
class Stack:
    """One view.

    Attributes
    ----------
    files : one file of many pages, or one for each slice
    shape : (z, rows, cols)
    slices : where there is a file for each slice
    """

    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    colours: int
    dtype: np.dtype
    dz_mm: float | None
    slices: Slices | None = None

    def __str__(self) -> str:
        kind = "colour" if self.colours == 3 else "grey"
        return f"{size_text(self.shape)} {kind} {self.dtype}"

    def read(self) -> NDArray:
        """(n_z, rows, cols), or (n_z, rows, cols, 3).

        Raises
        ------
        UserError : damaged
        """
        if self.slices is not None:
            return self.slices.read(KEY)
        with open_file(self.files[0], KEY) as tiff:
            pages = guarded(lambda _: _stack_pixels(tiff), None, self.files[0])
        shape = self.shape if self.colours == 1 else (*self.shape, 3)
        return np.ascontiguousarray(pages.reshape(shape), self.dtype)


def open_stacks(
    pattern: str,
    *,
    bayer: str | None = None,
    dz_mm: float | None = None,
    scan_step_mm: float | None = None,
    missing: Missing = "refuse",
    camera_rows: Sequence[int] | None = None,
    camera_cols: Sequence[int] | None = None,
    mirrored: tuple[bool, bool] = (False, True),
) -> FileCapture:
    """Open TIFF stacks; no pixels are read.

    Parameters
    ----------
    pattern : path with the fields {camera_row}, {camera_col}, {scan_y}, {scan_x}, {z}, each where it is needed; cameras
        and slices are whole numbers, stage positions any numbers (millimetres, unless `scan_step_mm` counts them)
    bayer : mosaic of grey stacks
    dz_mm : stage step between slices; None: as the files say, else slices are counted
    scan_step_mm : millimetres from one number of {scan_y}, {scan_x} to the next
    missing : "mask" takes a grid with holes, and stacks in which slices are missing
    camera_rows, camera_cols : ids of those that are kept; None: all
    mirrored : along (y, x); see :class:`gigascope.topography.capture.grid.ViewGrid`

    Raises
    ------
    UserError : a pattern that fits no file, a view or slice missing, views of different sizes, colours or bit depths
    """
    where = Path(pattern)
    named = _matching(pattern)
    kept = [
        (at, file)
        for at, file in named
        if (camera_rows is None or at["camera_row"] in camera_rows)
        and (camera_cols is None or at["camera_col"] in camera_cols)
    ]
    if not kept:
        raise UserError("none of the files is of a camera that is kept.", where=where, do="Check ingest.camera_rows.")
    y_mm, y_step = steps_of([at["scan_y"] for at, _ in kept])
    x_mm, x_step = steps_of([at["scan_x"] for at, _ in kept])
    views: dict[Key, list[tuple[int, Path]]] = {}
    for (at, file), y, x in zip(kept, y_step, x_step):
        views.setdefault((int(at["camera_row"]), int(at["camera_col"]), int(y), int(x)), []).append((at["z"], file))
    rows, cols = (tuple(sorted({key[i] for key in views})) for i in (0, 1))
    rows = tuple(camera_rows) if camera_rows is not None else rows
    cols = tuple(camera_cols) if camera_cols is not None else cols
    grid = ViewGrid(rows, cols, (len(y_mm), len(x_mm)), mirrored)
    by_slices = "{z}" in pattern
    stacks = {key: _open_view(sorted(files), by_slices, missing) for key, files in sorted(views.items())}
    _refuse_mixed(stacks, where)
    capture = _capture(grid, stacks, where, bayer, dz_mm)
    holes = [grid.name(int(v[0]), int(v[1])) for v in np.ndindex(*grid.shape) if not capture.present[v]]
    if holes and missing == "refuse":
        what = f"{len(holes)} of {capture.present.size} views are missing: {'; '.join(holes[:_SHOWN])}."
        raise UserError(what, where=where, do="Copy what is missing, or set ingest.missing: mask.")
    if holes:
        capture.warnings.append(f"{len(holes)} of {capture.present.size} views are not there.")
    positions = any("." in str(at[k]) for at, _ in named for k in ("scan_y", "scan_x"))
    if (positions or scan_step_mm is not None) and max(grid.scan) > 1:
        scale = 1.0 if scan_step_mm is None else scan_step_mm
        at_index = [[grid.stage_index(i, j) for j in range(len(x_mm))] for i in range(len(y_mm))]
        capture.xy_mm = np.array([[(scale * x_mm[x], scale * y_mm[y]) for y, x in line] for line in at_index])
    return capture


def _capture(grid: ViewGrid, stacks: dict[Key, Stack], where: Path, bayer: str | None, dz_mm: float | None) -> Any:
    example = next(iter(stacks.values()))
    if bayer is not None and example.colours == 3:
        raise UserError(f"ingest.bayer is {bayer}, but these stacks are in colour.", where=where, do="Leave it out.")

    def stack_of(view_row: int, view_col: int) -> Stack | None:
        row, col, scan_y, scan_x = grid.place(view_row, view_col)
        return stacks.get((row, col, *grid.stage_index(scan_y, scan_x)))

    def read(view_row: int, view_col: int) -> NDArray:
        stack = stack_of(view_row, view_col)
        if stack is None:
            raise ValueError("a view that is not there")
        return stack.read()

    def source(view_row: int, view_col: int) -> str:
        stack = stack_of(view_row, view_col)
        return "" if stack is None else stack.files[0].name

    def slice_of(view_row: int, view_col: int, z: int) -> str:
        stack = stack_of(view_row, view_col)
        return f"slice {z}" if stack is None or stack.slices is None else stack.slices.files[z].name

    known = dz_mm if dz_mm is not None else example.dz_mm
    step = 1.0 if known is None else known
    z_mm = np.zeros((*grid.shape, example.shape[0]))
    present = np.zeros(grid.shape, bool)
    for at in np.ndindex(*grid.shape):
        stack = stack_of(int(at[0]), int(at[1]))
        if stack is not None:
            present[at] = True
            numbers = np.arange(stack.shape[0]) if stack.slices is None else stack.slices.numbers
            z_mm[at] = step * numbers
    notes = [] if dz_mm is not None or known is None else [f"z-step of {known:g} mm from the files"]
    return FileCapture(
        path=where,
        format=f"{len(stacks)} TIFF stacks",
        grid=grid,
        shape=(*grid.shape, *example.shape),
        dtype=example.dtype,
        pattern=bayer,
        colours=example.colours,
        z_stage_mm=z_mm,
        read_view=read,
        present=present,
        dz_known=known is not None,
        source_of=source,
        slice_of=slice_of,
        notes=notes,
        files=[file for stack in stacks.values() for file in stack.files],
    )


def _matching(pattern: str) -> list[tuple[dict[str, Any], Path]]:
    """The numbers in the names of the files that fit a pattern, 0 for fields that it does not have."""
    fields = _FIELD.findall(pattern)
    unknown = [f for f in fields if f not in FIELDS]
    if unknown or len(set(fields)) != len(fields):
        bad = unknown[0] if unknown else next(f for f in fields if fields.count(f) > 1)
        why = "no field of it" if unknown else "there twice"
        known = ", ".join(f"{{{f}}}" for f in FIELDS)
        raise UserError(f"{{{bad}}} is {why}.", where=pattern, do=f"{KEY} has the fields {known}, each at most once.")
    parts = _FIELD.split(pattern)
    regex = "".join(
        f"(?P<{part}>{_REAL if part.startswith('scan') else _WHOLE})" if i % 2 else _literal(part)
        for i, part in enumerate(parts)
    )
    wide = "".join("*" if i % 2 else part for i, part in enumerate(parts))
    found = []
    for name in sorted(glob.glob(wide)):
        match = re.fullmatch(regex, name)
        if match and Path(name).is_file():
            numbers = {k: (float(v) if k.startswith("scan") else int(v)) for k, v in match.groupdict().items()}
            found.append(({**dict.fromkeys(FIELDS, 0), **numbers}, Path(name)))
    if not found:
        raise UserError("no file fits this pattern.", where=pattern, do=f"Check {KEY}.")
    return found


def _literal(text: str) -> str:
    return "".join("[^/]*" if c == "*" else "[^/]" if c == "?" else re.escape(c) for c in text)


def _open_view(files: list[tuple[int, Path]], by_slices: bool, missing: Missing) -> Stack:
    paths = tuple(path for _, path in files)
    if by_slices:
        slices = open_slices(paths, paths[0].parent, KEY, missing)
        of = slices.header
        return Stack(paths, (len(paths), of.rows, of.cols), of.colours, of.dtype, None, slices)
    if len(paths) > 1:
        what = f"{paths[0].name} and {paths[1].name} are both of one view."
        raise UserError(what, where=paths[0].parent, do=f"Give a field for what tells them apart in {KEY}.")
    with open_file(paths[0], KEY) as tiff:
        shape, dtype = _stack_shape(tiff, paths[0])
        depth = voxel_size_um(tiff)[0][0]
    colours = 3 if len(shape) == 4 else 1
    return Stack(paths, shape[:3], colours, dtype, None if depth is None else depth / 1000)


def _stack_shape(tiff: Any, path: Path) -> tuple[Any, np.dtype]:
    """(z, rows, cols), and 3 in colour, and the type in native byte order."""
    pages = list(tiff.series)
    if len(pages) > 1:
        kinds = Counter((tuple(s.get_shape(True)), str(s.dtype)) for s in pages)
        if len(kinds) > 1:
            names = "; ".join(f"{n} of {' x '.join(map(str, shape))} {dtype}" for (shape, dtype), n in kinds.items())
            what = f"its slices are not alike: {names}."
            raise UserError(what, where=path, do="Take out what does not belong to this stack.")
        shape = (len(pages), *(int(n) for n in pages[0].get_shape(True)))
    else:
        shape = tuple(int(n) for n in pages[0].get_shape(True))
    dtype = np.dtype(pages[0].dtype).newbyteorder("=")
    if dtype not in (np.uint8, np.uint16):
        raise UserError(f"holds {dtype} values.", where=path, do="Save it with 8 or 16 bits.")
    colour = pages[0].keyframe.samplesperpixel > 1
    if len(shape) == (3 if colour else 2):
        shape = (1, *shape)
    if len(shape) != (4 if colour else 3) or (colour and shape[3] != 3):
        what = f"is no stack of grey or RGB slices: it has {' x '.join(map(str, shape))} values."
        raise UserError(what, where=path, do="Save one z-stack for each file.")
    return shape, dtype


def _stack_pixels(tiff: Any) -> NDArray:
    series = list(tiff.series)
    return np.stack([s.asarray() for s in series]) if len(series) > 1 else series[0].asarray()


def _refuse_mixed(stacks: dict[Key, Stack], where: Path) -> None:
    kinds = Counter(map(str, stacks.values()))
    if len(kinds) == 1:
        return
    common, n = kinds.most_common(1)[0]
    wrong = [(key, stack) for key, stack in stacks.items() if str(stack) != common]
    names = ", ".join(f"{s.files[0].name} ({s})" for _, s in wrong[:_SHOWN])
    cameras = {key[:2] for key, _ in wrong}
    only = f" All of them are of camera {next(iter(cameras))}." if len(cameras) == 1 and len(wrong) > 1 else ""
    what = f"{n} views are {common}, {len(wrong)} are not: {names}.{only}"
    raise UserError(what, where=where, do="Take out or convert what does not belong to this acquisition.")
