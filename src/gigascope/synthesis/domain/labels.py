"""Labels as people make them, mended: holes filled, ids that stand for several objects split, specks removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import UserError

# Voxels that touch by a corner belong together: the definition of one object in the acceptance tests (L1).
TOUCHING = np.ones((3, 3, 3), bool)
_LARGEST_ID = 2**32 - 1
# Ids up to this are looked up in a table, larger ones sorted.
_TABLE = 1 << 24


@dataclass(frozen=True)
class MendedLabels:
    """Labels of which each id is one object without holes, and what was done to them.

    Attributes
    ----------
    labels : (z, y, x) uint32, 0 is background; ids are those of the file, but for new ones of pieces
    n : objects
    filled : objects whose holes were filled
    split : ids that stood for several objects; the largest keeps the id
    pieces : objects that got a new id
    specks : pieces that were too small, and were removed
    """

    labels: NDArray[np.uint32]
    n: int
    filled: int
    split: int
    pieces: int
    specks: int

    def remarks(self) -> list[str]:
        """What was mended, in words; empty if nothing."""
        lines = []
        if self.filled:
            lines.append(f"holes in {self.filled} labels were filled.")
        if self.split:
            lines.append(f"{self.split} ids stood for several objects each: {self.pieces} of these got new ids.")
        if self.specks:
            lines.append(f"{self.specks} specks of labels were removed.")
        return lines


def mend_labels(labels: NDArray, min_voxels: int, where: Path) -> MendedLabels:
    """Make every id one object (26-connected) without holes.

    Parameters
    ----------
    labels : (z, y, x) integers, or floats that are whole numbers; 0 is background
    min_voxels : smaller objects are removed
    where : the file, for messages

    Raises
    ------
    UserError : negative or broken ids, ids beyond 32 bits, no labelled voxel that is kept
    """
    compact, ids = _compact(labels, where)
    out = np.zeros(labels.shape, np.uint32)
    filled = split = pieces = specks = n = 0
    new_id = int(ids[-1]) + 1
    for number, box in enumerate(ndimage.find_objects(compact), start=1):
        assert box is not None  # compact ids are all there
        here = compact[box]
        found, n_found = ndimage.label(here == number, TOUCHING)
        sizes = np.bincount(found.ravel())[1:]
        order = np.argsort(-sizes, kind="stable")
        kept = [int(i) + 1 for i in order if sizes[i] >= min_voxels]
        specks += n_found - len(kept)
        split += len(kept) > 1
        pieces += max(0, len(kept) - 1)
        n += len(kept)
        for rank, piece in enumerate(kept):
            mask = found == piece
            whole = ndimage.binary_fill_holes(mask) & ((here == 0) | mask)
            filled += int(np.count_nonzero(whole) > np.count_nonzero(mask))
            out[box][whole] = ids[number - 1] if rank == 0 else new_id
            new_id += rank > 0
    if new_id - 1 > _LARGEST_ID:
        raise UserError("has ids so large that new ones go beyond 32 bits.", where=where, do="Number the labels anew.")
    if n == 0:
        what = f"has no label of {min_voxels} voxels or more."
        raise UserError(what, where=where, do="Name the right label image, or lower ingest.min_label_voxels.")
    return MendedLabels(out, n, filled, split, pieces, specks)


def label_table(
    labels: NDArray[np.uint32], voxel_um: tuple[float, float, float]
) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Columns and units of a table of the objects of a label image, in the order of their ids.

    `z`, `y`, `x` are centroids (voxel i covers [i, i + 1) voxel sizes), `volume_um3` the voxels' volume,
    `touching_border` says that the object reaches a face of the image.
    """
    ids = np.unique(labels)
    ids = ids[ids > 0]
    compact = np.searchsorted(ids, labels).astype(np.int32) + 1
    compact[labels == 0] = 0
    index = np.arange(1, len(ids) + 1)
    n_voxels = np.bincount(compact.ravel(), minlength=len(ids) + 1)[1:]
    centres = np.array(ndimage.center_of_mass(compact > 0, compact, index)).reshape(-1, 3)
    size = np.asarray(voxel_um)
    shape = labels.shape
    border = [any(s.start == 0 or s.stop == n for s, n in zip(box, shape)) for box in ndimage.find_objects(compact)]
    columns = {
        "label_id": ids.astype(np.uint32),
        **dict(zip(("z", "y", "x"), ((centres + 0.5) * size).T.copy())),
        "volume_um3": n_voxels * float(size.prod()),
        "n_voxels": n_voxels.astype(np.int64),
        "touching_border": np.array(border, bool),
    }
    return columns, {"z": "um", "y": "um", "x": "um", "volume_um3": "um^3"}


def _compact(labels: NDArray, where: Path) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Ids as 1, 2, ... in their order, and the ids."""
    advice = "Name a label image in labels: whole numbers, one for each nucleus, 0 for the background."
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
            raise UserError("holds values that are no whole numbers, and so no labels.", where=where, do=advice)
        if np.abs(labels).max() > 2**53:
            raise UserError("has ids beyond 32 bits.", where=where, do=advice)
        labels = labels.astype(np.int64)
    if labels.min() < 0:
        raise UserError(f"has a negative id ({labels.min()}).", where=where, do=advice)
    largest = int(labels.max())
    if largest > _LARGEST_ID:
        raise UserError(f"has an id of {largest}, beyond 32 bits.", where=where, do="Number the labels anew.")
    if largest == 0:
        raise UserError("has no labelled voxel: all are 0.", where=where, do=advice)
    if largest <= _TABLE:
        present = np.zeros(largest + 1, bool)
        present[labels.ravel()] = True
        present[0] = False
        ids = np.flatnonzero(present)
        table = np.zeros(largest + 1, np.int32)
        table[ids] = np.arange(1, len(ids) + 1)
        return table[labels], ids.astype(np.int64)
    ids = np.unique(labels)
    ids = ids[ids > 0]
    compact = np.searchsorted(ids, labels).astype(np.int32) + 1
    compact[labels == 0] = 0
    return compact, ids.astype(np.int64)
