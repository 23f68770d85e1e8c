"""A focus stack of one camera as a folder of pictures, one for each slice, ordered by the numbers in their names."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.tiff_file import natural_key
from gigascope.topography.capture.capture import FileCapture
from gigascope.topography.capture.grid import ViewGrid
from gigascope.topography.capture.image_file import SUFFIXES, ImageHeader, read_header, read_image
from gigascope.topography.capture.z_order import Missing

KEY = "inputs.images"
MIN_SLICES = 2
_SHOWN = 5
# Names of this many slices stand in full.
_LISTED = 4


@dataclass(frozen=True)
class Slices:
    """Pictures of one stack, in order.

    Attributes
    ----------
    files : one for each slice
    header : of all of them, but for the orientation
    orientations : EXIF's, of each
    numbers : (n_z,) int64, counted in usual steps from 0; has gaps where pictures are missing
    """

    files: tuple[Path, ...]
    header: ImageHeader
    orientations: tuple[int, ...]
    numbers: NDArray[np.int64]

    def read_one(self, key: str, z: int) -> NDArray:
        """(rows, cols), or (rows, cols, 3); raises as :func:`read_image` does."""
        return read_image(self.files[z], replace(self.header, orientation=self.orientations[z]), key)

    def read(self, key: str) -> NDArray:
        """(n_z, rows, cols), or (n_z, rows, cols, 3); raises as :func:`read_image` does."""
        of = self.header
        shape = (len(self.files), of.rows, of.cols, *([3] if of.colours == 3 else []))
        stack = np.empty(shape, of.dtype)
        for z, slice_ in enumerate(stack):
            slice_[...] = self.read_one(key, z)
        return stack


def open_images(
    path: str, *, pattern: str | None = None, dz_mm: float | None = None, missing: Missing = "refuse"
) -> FileCapture:
    """Open a folder, or the files that fit a glob, as the stack of one camera; no pixels are read.

    Parameters
    ----------
    path : folder, or a glob of files
    pattern : Bayer mosaic of grey pictures; None: they have none
    dz_mm : stage step from one number to the next; None: not known, slices are counted
    missing : "mask" goes on where a number is missing

    Raises
    ------
    UserError : no pictures, pictures of another size, colour or bit depth, names unlike the others, numbers missing
    """
    where = Path(path)
    files = picture_files(path)
    slices = open_slices(files, where, KEY, missing)
    of = slices.header
    if pattern is not None and (of.colours == 3 or set(slices.orientations) != {1}):
        why = "these pictures are in colour" if of.colours == 3 else "these pictures are turned (EXIF orientation)"
        raise UserError(f"ingest.bayer is {pattern}, but {why}.", where=where, do="Leave out ingest.bayer.")
    step = 1.0 if dz_mm is None else dz_mm
    names = [file.name for file in slices.files]
    shown = names if len(names) <= _LISTED else [*names[:2], "...", names[-1]]
    notes = [f"one file for each slice, in the order {', '.join(shown)}"]
    turned = sum(o != 1 for o in slices.orientations)
    if turned:
        notes.append(f"{turned} of {len(files)} pictures were turned upright (EXIF orientation)")
    return FileCapture(
        path=where,
        format=f"{len(files)} {slices.files[0].suffix.lstrip('.').upper()} files",
        grid=ViewGrid(),
        shape=(1, 1, len(files), of.rows, of.cols),
        dtype=of.dtype,
        pattern=pattern,
        colours=of.colours,
        z_stage_mm=np.asarray(slices.numbers * step, np.float64)[None, None, :],
        read_view=lambda row, col: slices.read(KEY),
        read_slice=lambda row, col, z: slices.read_one(KEY, z),
        present=np.ones((1, 1), bool),
        dz_known=dz_mm is not None,
        slice_of=lambda row, col, z: slices.files[z].name,
        notes=notes,
        files=list(slices.files),
    )


def picture_files(path: str) -> list[Path]:
    """Pictures in a folder, or those that fit a glob, in natural order of their names.

    Raises
    ------
    UserError : no such folder, or no pictures
    """
    folder = Path(path)
    if glob.has_magic(path) and not folder.exists():
        found = [Path(name) for name in glob.glob(path)]
    elif folder.is_dir():
        found = [p for p in folder.iterdir() if not p.name.startswith(".")]
    elif folder.exists():
        raise UserError("is a file.", where=path, do="Give its folder or a pattern, or use inputs.stacks.")
    else:
        raise UserError("no such folder.", where=path, do=f"Check {KEY} (a folder, or a pattern such as run1/*.png).")
    pictures = sorted((p for p in found if p.suffix.lower() in SUFFIXES and p.is_file()), key=natural_key)
    if not pictures:
        what = f"holds no pictures ({', '.join(sorted(SUFFIXES))})."
        raise UserError(what, where=path, do=f"Check {KEY}.")
    return pictures


def open_slices(files: Sequence[Path], where: Path, key: str, missing: Missing) -> Slices:
    """Look at every picture of a stack: they must be alike, and no number may be missing.

    Raises
    ------
    UserError : see :func:`open_images`
    """
    if len(files) < MIN_SLICES:
        what = f"holds {len(files)} picture; a stack has at least {MIN_SLICES} slices."
        raise UserError(what, where=where, do=f"Check {key}.")
    _refuse_foreign_names(files, where, key)
    headers = [read_header(file, key) for file in files]
    _refuse_mixed(files, headers, where)
    numbers = _numbers(files)
    lost = np.flatnonzero(np.diff(numbers) > 1)
    if lost.size and missing == "refuse":
        k = int(lost[0])
        n = int(np.diff(numbers).sum() - len(files) + 1)
        what = f"{n} slices are missing, the first between {files[k].name} and {files[k + 1].name}."
        do = "Give all slices, or set ingest.missing: mask to go on with those that are there."
        raise UserError(what, where=where, do=do)
    return Slices(tuple(files), headers[0], tuple(h.orientation for h in headers), numbers)


def _refuse_foreign_names(files: Sequence[Path], where: Path, key: str) -> None:
    """A result or a dark frame beside the stack is named otherwise."""
    kinds = [re.sub(r"\d+", "#", file.name.lower()) for file in files]
    count = Counter(kinds)
    common, n = count.most_common(1)[0]
    if len(count) == 1 or n == 1:
        return
    foreign = [file.name for file, kind in zip(files, kinds) if kind != common]
    example = files[kinds.index(common)].name
    what = f"{n} pictures are named like {example}, not {', '.join(foreign[:_SHOWN])}."
    pattern = re.sub(r"\d+(?=\D*$)", "*", example)
    raise UserError(what, where=where, do=f"Take out what is no slice, or give a pattern in {key}, such as {pattern}.")


def _refuse_mixed(files: Sequence[Path], headers: Sequence[ImageHeader], where: Path) -> None:
    kinds = [str(header) for header in headers]
    count = Counter(kinds)
    common, n = count.most_common(1)[0]
    if len(count) == 1:
        return
    wrong = [f"{file.name} ({kind})" for file, kind in zip(files, kinds) if kind != common]
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    what = f"{n} pictures are {common}, not {', '.join(wrong[:_SHOWN])}{more}."
    raise UserError(what, where=where, do="Take out or convert what does not belong to this stack.")


def _numbers(files: Sequence[Path]) -> NDArray[np.int64]:
    """Number of each slice in usual steps, where one number in the names counts them; else 0, 1, 2, ..."""
    counted = np.arange(len(files), dtype=np.int64)
    digits = [re.findall(r"\d+", file.stem) for file in files]
    if not digits[0] or len({len(d) for d in digits}) != 1:
        return counted
    columns = [np.array([int(n) for n in column], dtype=object) for column in zip(*digits)]
    varying = [c for c in columns if len(set(c)) > 1]
    if len(varying) != 1:
        return counted
    steps = np.diff(varying[0]).astype(object)
    usual = min(steps)
    # a clock in the names counts no slices
    if usual <= 0 or any(s % usual for s in steps) or sum(s != usual for s in steps) > len(steps) // 2:
        return counted
    return np.array([(n - varying[0][0]) // usual for n in varying[0]], dtype=np.int64)
