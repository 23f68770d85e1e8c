"""An alignment that another program made: IMOD's .xf, AreTomo's .aln or the CryoET data portal's JSON, for one series.

Angles belong to it: the .tlt beside a .xf, the TILT column of a .aln. They carry the program's tilt offset, and tell an
alignment of another stack, or of the same views in another order, from the right one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.source import TiltSeriesSource
from gigascope.store.readers.tilt_angles import CONFLICT_DEG, in_common, read_tilt_angles
from gigascope.store.writers.alignment import Alignment, aligned_shifts, raw_shifts
from gigascope.store.writers.aln import read_aln
from gigascope.store.writers.portal import read_portal_json
from gigascope.store.writers.xf import read_xf, read_xf_matrices

SUFFIXES = (".xf", ".aln", ".json")
KEY = "inputs.alignment"
_SAME_AXIS_DEG = 0.01
_SAME_SIZE = 1e-3  # magnifications are written with seven digits; this one moves the edge of 4096 px by 2
_PROBABLE_SHIFT = 0.5  # of the image: further than this, hardly anything of a view is left in the field


@dataclass(frozen=True)
class AlignmentFile:
    """What an alignment's file says, and the files beside it.

    Attributes
    ----------
    alignment : of every section of the stack it was made for, in stack order
    raw_shape : (y, x) of that stack's images; None where the file does not say it
    tilt_offset_deg : that the program added to the angles; None where the file does not say it
    thickness_px : of the specimen; None where the file does not say it
    x_tilt_deg : (tilt,) rotation of the specimen about x, degrees, or None
    files : all that was read
    notes : what is left aside
    """

    path: Path
    alignment: Alignment
    raw_shape: tuple[int, int] | None = None
    tilt_offset_deg: float | None = None
    thickness_px: int | None = None
    x_tilt_deg: NDArray[np.float64] | None = None
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = field(default=())


def read_alignment(path: str | Path, n_views: int | None = None) -> AlignmentFile:
    """Read an alignment by its suffix.

    Parameters
    ----------
    path : .xf (angles from the .tlt, rotations about x from the .xtilt beside it), .aln or .json
    n_views : sections of the stack; a JSON does not say it: None takes the highest that it names

    Raises
    ------
    UserError : no such file, another kind of file, a broken one, or files beside it that do not belong to it
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            "is no alignment that is read.",
            where=path,
            do="Give IMOD's .xf, AreTomo's .aln, or the .json of the CryoET data portal.",
        )
    if not path.is_file():
        raise UserError("no such file.", where=path, do=f"Check {KEY}.")
    if path.suffix.lower() == ".xf":
        return _imod(path)
    if path.suffix.lower() == ".json":
        found, x_tilt = read_portal_json(path, n_views)
        return AlignmentFile(path, found, x_tilt_deg=x_tilt, files=(path,))
    aln = read_aln(path)
    return AlignmentFile(
        path,
        aln.alignment,
        raw_shape=aln.raw_shape,
        tilt_offset_deg=aln.alpha_offset_deg,
        thickness_px=aln.thickness_px or None,
        files=(path,),
    )


def _imod(path: Path) -> AlignmentFile:
    found, files = read_xf(path), [path]
    beside = {}
    for suffix in (".tlt", ".xtilt"):
        if path.with_suffix(suffix).is_file():
            files.append(path.with_suffix(suffix))
            beside[suffix] = read_tilt_angles(files[-1])
            if len(beside[suffix]) != found.n_views:
                raise UserError(
                    f"has {found.n_views} sections, {files[-1].name} beside it {len(beside[suffix])} angles.",
                    where=path,
                    do="Put the files of one alignment together.",
                )
    if ".tlt" in beside:
        found = dataclasses.replace(found, tilt_deg=beside[".tlt"])
    return AlignmentFile(
        path, found, x_tilt_deg=beside.get(".xtilt"), files=tuple(files), notes=tuple(_stretched(path))
    )


def _stretched(path: Path) -> list[str]:
    """What a .xf does besides rotating and shifting."""
    sizes = np.linalg.svd(read_xf_matrices(path)[0], compute_uv=False)
    most = float(np.abs(sizes - 1.0).max())
    if most < _SAME_SIZE:
        return []
    return [f"{path.name} magnifies or stretches views by up to {100 * most:.2f} %, which is not applied"]


def apply_alignment(source: TiltSeriesSource, file: AlignmentFile, *, angles_by_hand: bool, axis_by_hand: bool) -> None:
    """Take an alignment over into a series: shifts, exclusions, and unless given by hand its angles and tilt axis.

    Shifts are kept in the frame of one axis for all views (the series' own, or the median of the file's): the
    translation of each view's centre is exact, what is left of a rotation per view is said.

    Raises
    ------
    UserError : it was made for another number of views, another size of image, or other angles
    """
    found = file.alignment
    if found.n_views != source.n_views:
        raise UserError(
            f"aligns {found.n_views} views, {source.path.name} has {source.n_views}.",
            where=file.path,
            do="Give the alignment of this stack, with one entry per section of the raw stack.",
        )
    if found.excluded.all():
        raise UserError("excludes every view.", where=file.path, do="Give the alignment of this stack.")
    scale = _scale(source, file)
    if not np.isnan(found.tilt_deg[~found.excluded]).any():
        _take_angles(source, file, angles_by_hand)
    axis = _take_axis(source, file, axis_by_hand)
    shifts = aligned_shifts(raw_shifts(found) * scale, np.full(found.n_views, axis))
    alignment = Alignment.of(shifts, axis, source.tilt_deg, found.excluded)
    source.alignment = alignment
    source.files += file.files
    source.origin["alignment"] = file.path.name
    source.notes += [f"shifts from {file.path.name}", *file.notes, *_doubts(source, file, alignment)]


def _scale(source: TiltSeriesSource, file: AlignmentFile) -> float:
    """Pixels of this series per pixel of the one that was aligned."""
    if file.raw_shape is None or file.raw_shape == source.shape[1:]:
        return 1.0
    (height, width), (_, own_height, own_width) = file.raw_shape, source.shape
    scale = own_width / width
    if abs(own_height / height - scale) > 0.01 * scale:
        raise UserError(
            f"aligns images of {width} x {height} px, {source.path.name} has {own_width} x {own_height}.",
            where=file.path,
            do="Give the alignment of this stack.",
        )
    source.notes.append(
        f"{file.path.name} aligns images of {width} x {height} px, these are {own_width} x {own_height}: its shifts "
        f"were multiplied by {scale:.4g}"
    )
    return scale


def _take_angles(source: TiltSeriesSource, file: AlignmentFile, by_hand: bool) -> None:
    stated, keep = file.alignment.tilt_deg, ~file.alignment.excluded
    name = file.path.name if file.path.suffix != ".xf" else file.path.with_suffix(".tlt").name
    if source.tilt_deg is not None:
        difference = (stated - source.tilt_deg)[keep]
        offset = float(np.median(difference))
        apart = np.abs(difference - offset)
        own = source.origin.get("tilt_deg", "the series")
        if apart.max() > CONFLICT_DEG:
            view = int(np.flatnonzero(keep)[apart.argmax()])
            raise UserError(
                f"is for other angles: view {view} is {stated[view]:.2f} in {name} and {source.tilt_deg[view]:.2f} in "
                f"{own}{in_common(stated[keep], source.tilt_deg[keep])}.",
                where=file.path,
                do="Give the alignment of this stack, in its order of views, or set ingest.tilt_deg.",
            )
        said = file.tilt_offset_deg
        if said is not None and min(abs(offset - said), abs(offset)) > CONFLICT_DEG:
            raise UserError(
                f"its angles are those of {own} plus {offset:.2f} deg, but its AlphaOffset is {said:.2f}: its sections "
                f"are counted differently, or it is of another series.",
                where=file.path,
                do="Give the alignment of this stack.",
            )
        if abs(offset) > 0.005:
            which = f"{own} is kept" if by_hand else f"the angles of {name} are used"
            source.notes.append(f"{name} adds a tilt offset of {offset:.2f} deg to {own}; {which}")
        if by_hand:
            return
        stated = np.where(np.isnan(stated) | ~keep, source.tilt_deg + offset, stated)
    if np.isnan(stated).any():
        source.missing["tilt_deg"] = f"{name} does not state those of views it leaves out"
        return
    source.tilt_deg, source.origin["tilt_deg"] = stated, name


def _take_axis(source: TiltSeriesSource, file: AlignmentFile, by_hand: bool) -> float:
    """The axis, degrees, that the shifts are put in the frame of."""
    found = file.alignment
    stated = found.tilt_axis_deg[~found.excluded]
    # the median of directions: of 179.9 and -179.9 it is 180
    turned = (stated - stated[0] + 180.0) % 360.0 - 180.0
    middle = float((stated[0] + np.median(turned) + 180.0) % 360.0 - 180.0)
    if by_hand and source.tilt_axis_deg is not None:
        apart = abs((source.tilt_axis_deg - middle + 180.0) % 360.0 - 180.0)
        if apart > _SAME_AXIS_DEG:
            source.notes.append(
                f"{file.path.name} has the tilt axis at {middle:.2f} deg; ingest.tilt_axis_deg "
                f"{source.tilt_axis_deg:.2f} is kept, and its shifts are turned into that frame"
            )
        return source.tilt_axis_deg
    source.tilt_axis_deg, source.origin["tilt_axis_deg"] = middle, file.path.name
    return middle


def _doubts(source: TiltSeriesSource, file: AlignmentFile, alignment: Alignment) -> list[str]:
    found, notes = file.alignment, []
    keep = ~found.excluded
    if found.excluded.any():
        listed = ", ".join(str(view) for view in np.flatnonzero(found.excluded).tolist())
        notes.append(f"{file.path.name} leaves out views {listed}: they are excluded here too")
    turned = (found.tilt_axis_deg[keep] - alignment.tilt_axis_deg[keep] + 180.0) % 360.0 - 180.0
    spread = float(np.ptp(turned))
    if spread > _SAME_AXIS_DEG:
        radius = max(source.shape[1:]) / 2
        notes.append(
            f"{file.path.name} rotates every view on its own, over {spread:.2f} deg: their median is used, which "
            f"leaves up to {np.radians(np.abs(turned - np.median(turned)).max()) * radius:.1f} px at the edge of a view"
        )
    if file.x_tilt_deg is not None and np.abs(file.x_tilt_deg).max() > 0.005:
        notes.append(
            f"{file.path.name} comes with rotations about x of up to {np.abs(file.x_tilt_deg).max():.2f} deg, which "
            f"are not applied"
        )
    largest = float(np.abs(alignment.shifts).max())
    if largest > _PROBABLE_SHIFT * min(source.shape[1:]):
        notes.append(
            f"{file.path.name} moves a view by {largest:.0f} px in images of {source.shape[2]} x {source.shape[1]} px: "
            f"was it made for a stack of another binning?"
        )
    return notes
