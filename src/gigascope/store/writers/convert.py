"""An alignment from one program's format into another's: .xf (with .tlt and .xtilt), .aln, .json."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.alignment import SUFFIXES, AlignmentFile
from gigascope.store.writers.aln import write_aln
from gigascope.store.writers.portal import write_portal_json
from gigascope.store.writers.xf import write_tlt, write_xf

_MADE_BY = {".xf": "IMOD", ".aln": "ARETOMO3", ".json": "ARETOMO3"}


def write_alignment(
    path: Path,
    file: AlignmentFile,
    *,
    tilt_deg: NDArray[np.float64] | None = None,
    raw_shape: tuple[int, int] | None = None,
    pixel_nm: float | None = None,
    force: bool = False,
) -> tuple[list[Path], list[str]]:
    """Write an alignment in the format that the suffix names.

    Parameters
    ----------
    tilt_deg : (tilt,) angles, in place of those of `file`
    raw_shape : (y, x) of the raw views, where `file` does not say it (.aln and .json)
    pixel_nm : pixel size of the raw views (.json, whose volume is in angstrom)
    force : replace what is there

    Returns
    -------
    files that were written, and what the format cannot hold, in words

    Raises
    ------
    UserError : another suffix, something that the format needs and nobody says, a file that is there already
    """
    suffix, found = path.suffix.lower(), file.alignment
    if suffix not in SUFFIXES:
        raise UserError("is no format that is written.", where=path, do=f"End it with {', '.join(SUFFIXES)}.")
    tilt = found.tilt_deg if tilt_deg is None else tilt_deg
    if len(tilt) != found.n_views:
        raise UserError(
            f"aligns {found.n_views} views, there are {len(tilt)} angles.", where=file.path, do="Correct --angles."
        )
    shape = raw_shape or file.raw_shape
    x_tilt = file.x_tilt_deg if file.x_tilt_deg is not None and file.x_tilt_deg.any() else None
    beside = _beside(path, tilt, x_tilt)
    files = [path, *beside]
    there = [each for each in files if each.exists()]
    if there and not force:
        raise UserError("exists already.", where=there[0], do="Give another name, or add --force.")
    if suffix == ".xf":
        write_xf(path, found.shifts, found.tilt_axis_deg, excluded=found.excluded, magnification=found.magnification)
        for each, angles in beside.items():
            write_tlt(each, angles)
        return files, [] if beside else ["tilt angles: not known, no .tlt is written"]
    if shape is None or np.isnan(tilt if suffix == ".aln" else tilt[~found.excluded]).any():
        raise UserError(
            f"does not say {'the size of the views' if shape is None else 'every tilt angle'}, which {suffix} holds.",
            where=file.path,
            do="Add --size WIDTH,HEIGHT." if shape is None else "Add --angles FILE (one per line, all sections).",
        )
    thickness, offset = file.thickness_px or 0, file.tilt_offset_deg or 0.0
    lost = [*file.notes, *(["thickness: not known, 0 is written"] if not thickness else [])]
    if suffix == ".aln":
        write_aln(
            path, found.shifts, tilt, found.tilt_axis_deg, raw_shape=shape, thickness_px=thickness,
            excluded=found.excluded, tilt_offset_deg=offset,
        )  # fmt: skip
        return files, lost + (["rotations about x: a .aln has none"] if x_tilt is not None else [])
    step = 10.0 * (pixel_nm or 0.0)
    write_portal_json(
        path, found.shifts, tilt, found.tilt_axis_deg, excluded=found.excluded, tilt_offset_deg=offset,
        volume_angstrom=(step * thickness, step * shape[0], step * shape[1]), x_tilt_deg=file.x_tilt_deg,
        made_by=_MADE_BY[file.path.suffix.lower()],
    )  # fmt: skip
    return files, lost + ([] if pixel_nm else ["size of the volume: without --pixel-nm it is 0"])


def _beside(
    path: Path, tilt: NDArray[np.float64], x_tilt: NDArray[np.float64] | None
) -> dict[Path, NDArray[np.float64]]:
    """Lists of angles that stand beside a .xf."""
    if path.suffix.lower() != ".xf" or np.isnan(tilt).any():
        return {}
    return {path.with_suffix(".tlt"): tilt} | ({} if x_tilt is None else {path.with_suffix(".xtilt"): x_tilt})
