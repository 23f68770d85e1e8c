"""Volumes in TIFF: one file of any kind, or a stack of files of one plane or one stack each.

Rows stay in the order of the file: a volume has no upright position that a stage would have to know.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.errors import UserError
from gigascope.store.readers.tiff_check import refuse_missing_pixels
from gigascope.store.readers.tiff_file import flavour, guarded, open_file, refuse_mixed, separate_images
from gigascope.store.readers.tiff_pixel import voxel_size_um
from gigascope.store.readers.volume import (
    AXES,
    KEYS,
    UNKNOWN,
    Keys,
    Planes,
    VolumeSource,
    grey_dtype,
    name_axes,
    note_dtype,
    plane_reader,
    shape_of,
)

# What tifffile calls an axis of which the file does not say what it is: a sequence of pages, or of anything.
_UNNAMED = {"q", "i"}
# Time, channel and plane in the names of a microscope's files: `_t0003`, `-C1`, `.z012`.
_COUNTER = re.compile(r"(?:^|[_.\- ])([tczTCZ])(\d+)(?![a-zA-Z])")
_SHOWN = 3


def open_tiff_volume(path: Path, axes: str | None = None, keys: Keys = KEYS) -> VolumeSource:
    """Open one TIFF file; see :func:`gigascope.store.readers.volume.open_volume_file`.

    Raises
    ------
    UserError : not a TIFF, truncated, colour, images of different shapes, axes that are not clear
    """
    tiff = open_file(path, keys.path)
    names, shape, stored, get = _array(tiff, path)
    letters, notes = name_axes(names, shape, axes, path, keys)
    size, origin = voxel_size_um(tiff)
    source = VolumeSource(
        path=path,
        format=flavour(tiff),
        shape=shape_of(letters, shape),
        dtype=grey_dtype(stored, path, keys),
        read_planes=plane_reader(letters, lambda index: guarded(get, index, path)),
        voxel_size_um=size,
        origin=origin,
        notes=notes,
        files=_files(tiff, path),
    )
    note_dtype(source, stored)
    return source


def open_tiff_stack(files: list[Path], where: Path, axes: str | None = None, keys: Keys = KEYS) -> VolumeSource:
    """Open a stack of TIFF files, in the order given: the files are planes, or times where each is a stack itself.

    Names such as `a_t003_c1_z012.tif` say which time, channel and plane a file is, if all have such numbers and no
    combination of them is missing.

    Raises
    ------
    UserError : no files, a file that is no TIFF or truncated, files of different shapes or types (by name)
    """
    if not files:
        raise UserError("holds no TIFF files.", where=where, do=f"Check {keys.path} (a folder or a glob).")
    if len(files) == 1:
        return open_tiff_volume(files[0], axes, keys)
    with open_file(files[0], keys.path) as tiff:
        together = {file.name for file in _files(tiff, files[0])}
    if together >= {file.name for file in files}:  # an OME-TIFF of several files, of which each describes all
        return open_tiff_volume(files[0], axes, keys)
    found = []
    for file in files:
        with open_file(file, keys.path) as tiff:
            names, shape, stored, _ = _array(tiff, file)
            found.append((tuple(shape), stored))
    refuse_mixed(files, found, where)
    own_given = axes[1:] if axes is not None else None
    own, notes = name_axes(names, shape, own_given, files[0], keys)
    leading, order = _order_of(files, own, axes, keys)
    sizes = {axis: len(values) for axis, values in leading.items()}
    with open_file(files[0], keys.path) as tiff:
        size, origin = voxel_size_um(tiff)
        kind = flavour(tiff)
    all_sizes = (*sizes.values(), *shape)
    source = VolumeSource(
        path=where,
        format=f"{len(files)} {kind} files",
        shape=shape_of("".join(sizes) + own, all_sizes),
        dtype=grey_dtype(stored, files[0], keys),
        read_planes=_stack_reader(order, "".join(sizes), own, keys),
        voxel_size_um=size,
        origin=origin,
        notes=[*notes, _order_note(files, sizes)],
        files=list(files),
    )
    note_dtype(source, stored)
    return source


def _array(tiff: Any, path: Path) -> tuple[list[str], tuple[int, ...], np.dtype, Callable[[Any], np.ndarray]]:
    """Names of the axes, shape, type, and a function from an index to a block."""
    import zarr

    refuse_missing_pixels(tiff, path)
    series = list(tiff.series)
    if len(series) > 1:
        pages, dtype, read = separate_images(series, path)

        def get_pages(index: Any) -> np.ndarray:
            planes, y, x = index
            chosen = range(pages[0])[planes]
            if isinstance(chosen, int):
                return read(chosen)[y, x]
            return np.stack([read(i)[y, x] for i in chosen])

        return ["?", "y", "x"], pages, dtype, get_pages
    names = [name.lower() for name in series[0].get_axes(False)]
    shape = tuple(int(n) for n in series[0].get_shape(False))
    array: Any = zarr.open(series[0].aszarr(squeeze=False), mode="r")
    if hasattr(array, "keys"):  # a pyramid: its first level is the image
        array = array["0"]
    return [UNKNOWN if n in _UNNAMED else n for n in names], shape, np.dtype(series[0].dtype), lambda at: array[at]


def _files(tiff: Any, path: Path) -> list[Path]:
    """The file, and those that an OME-TIFF of several files names."""
    pages = (page for series in tiff.series for page in series.pages if page is not None)
    others = (Path(page.parent.filehandle.path) for page in pages if page.parent is not None)
    return list(dict.fromkeys([path, *(other for other in others if other.name != path.name)]))


def _order_of(
    files: list[Path], own: str, given: str | None, keys: Keys
) -> tuple[dict[str, list[int]], dict[tuple[int, ...], Path]]:
    """Axes that the files run along, with their numbers, and the file at each place."""
    if given is None:
        counters = [{axis.lower(): int(n) for axis, n in _COUNTER.findall(file.stem)} for file in files]
        axes = [a for a in AXES if a in counters[0] and a not in own and len({c.get(a) for c in counters}) > 1]
        if axes and all(a in c for c in counters for a in axes):
            values = {axis: sorted({c[axis] for c in counters}) for axis in axes}
            order = {tuple(values[a].index(c[a]) for a in axes): file for c, file in zip(counters, files, strict=True)}
            if len(order) == len(files) == math.prod(len(v) for v in values.values()):
                return values, order
    axis = given[0] if given is not None else "z" if "z" not in own else "t" if "t" not in own else "c"
    if axis in own:
        raise UserError(
            f"{keys.axes} {given} names {axis} twice: for the files and within them." if given else
            f"the files have all of the axes {own} themselves.",
            where=files[0].parent,
            do="Give one letter for the files, then one for each axis within a file, such as tzyx.",
        )  # fmt: skip
    return {axis: list(range(len(files)))}, {(i,): file for i, file in enumerate(files)}


def _stack_reader(order: dict[tuple[int, ...], Path], leading: str, own: str, keys: Keys) -> Planes:
    def one(file: Path, at: tuple[int, int, int, int]) -> np.ndarray:
        with open_file(file, keys.path) as tiff:
            get = _array(tiff, file)[3]
            return plane_reader(own, lambda index: guarded(get, index, file))(*at)

    def read(t: int, c: int, z0: int, z1: int) -> np.ndarray:
        place = {"t": t, "c": c}
        if "z" not in leading:
            return one(order[tuple(place[a] for a in leading)], (t, c, z0, z1))
        planes = (order[tuple({**place, "z": z}[a] for a in leading)] for z in range(z0, z1))
        return np.concatenate([one(file, (t, c, 0, 1)) for file in planes])

    return read


def _order_note(files: list[Path], sizes: dict[str, int]) -> str:
    shown = ", ".join(file.name for file in itertools.islice(files, _SHOWN - 1))
    what = {"t": "time", "c": "channel", "z": "plane"}
    runs = " and ".join(what[axis] for axis in sizes)
    return f"one file for each {runs}, in the order of {shown} ... {files[-1].name}"
