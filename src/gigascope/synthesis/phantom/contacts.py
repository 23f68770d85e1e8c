"""Contacts settled once, so that drawing stays local: who loses too much to others is made smaller, or left out.

Measured with the rasteriser's own code on the grid of the image, so that the table says what the labels will hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gigascope.kernels.cells import NucleiTable, Owned, owned, scaled
from gigascope.synthesis.phantom.recipe import PlacementRecipe
from gigascope.synthesis.phantom.records import Nuclei

# Steps in which a nucleus is made smaller, and how far.
SHRINK_STEP, MOST_SHRUNK = 0.02, 0.10


@dataclass(frozen=True)
class Settled:
    """Nuclei after their contacts were settled.

    Attributes
    ----------
    nuclei : in the order of their labels; those that were left out are gone
    measured : what each owns
    scale : (n,) float64, by which its radius was multiplied
    n_shrunk, n_dropped : how many were made smaller, how many left out
    """

    nuclei: Nuclei
    measured: Owned
    scale: NDArray[np.float64]
    n_shrunk: int
    n_dropped: int

    @property
    def clip_fraction(self) -> NDArray[np.float64]:
        """(n,) float64: share of the volume that went to others."""
        return _clip(self.measured)


def settle_contacts(nuclei: Nuclei, placement: PlacementRecipe) -> Settled:
    """Make nuclei smaller that lose more than `max_clip` of their voxels or are in pieces; leave out who still does.

    In steps of 2 % to 10 %, all that need it at once. Of those that are left, the first of each neighbourhood goes; the
    others are measured again without it.

    Parameters
    ----------
    nuclei : as placed
    placement : `max_clip`, `gap_um` and `voxel_um` count
    """
    voxel, gap, most = placement.voxel_um, placement.gap_um, placement.max_clip
    first = owned(nuclei.table, voxel, gap=gap)
    bad = np.flatnonzero(_refused(first, most))
    if len(bad) == 0:
        return Settled(nuclei, first, np.ones(len(nuclei)), 0, 0)
    scale, given = np.ones(len(nuclei)), nuclei.table
    # a copy: rows of these two columns are changed in place
    table = given._replace(harmonics=given.harmonics.clone(), reach=given.reach.clone())
    for step in range(1, round(MOST_SHRUNK / SHRINK_STEP) + 1):
        scale[bad] = 1.0 - step * SHRINK_STEP
        _rescale(given, table, bad, scale)
        bad = _still_refused(table, scale, bad, placement)
    while len(bad):
        gone = _apart(table, bad)
        scale[gone] = 0.0
        bad = _still_refused(table, scale, np.setdiff1d(bad, gone), placement)
    kept = np.flatnonzero(scale > 0)
    settled = replace(nuclei, table=table).take(kept)
    measured = _measured_again(first, settled.table, nuclei.table, kept, np.flatnonzero(scale < 1), placement)
    n_shrunk = int(np.count_nonzero(scale[kept] < 1))
    return Settled(settled, measured, scale[kept], n_shrunk, len(nuclei) - len(kept))


def _measured_again(
    first: Owned,
    table: NucleiTable,
    given: NucleiTable,
    kept: NDArray[np.int64],
    changed: NDArray[np.int64],
    placement: PlacementRecipe,
) -> Owned:
    """What all that are left own: measured again where a neighbour, or they themselves, changed."""
    # nuclei further apart than this, with the gap, know nothing of each other
    far = 2.0 * float(given.reach.max()) + placement.gap_um
    distance, _ = cKDTree(given.centre.numpy()[changed]).query(table.centre.numpy(), distance_upper_bound=far)
    near = torch.from_numpy(np.flatnonzero(np.isfinite(distance)))
    found = Owned(*(column[torch.from_numpy(kept)] for column in first))
    for whole, part in zip(found, owned(table, placement.voxel_um, near, placement.gap_um)):
        whole[near] = part
    return found


def _still_refused(
    table: NucleiTable, scale: NDArray[np.float64], rows: NDArray[np.int64], placement: PlacementRecipe
) -> NDArray[np.int64]:
    """Those of these rows that still lose too much, among all that are not left out."""
    if len(rows) == 0:
        return rows
    there = np.flatnonzero(scale > 0)
    asked = torch.from_numpy(np.searchsorted(there, rows))
    measured = owned(table.rows(torch.from_numpy(there)), placement.voxel_um, asked, placement.gap_um)
    return rows[_refused(measured, placement.max_clip)]


def _apart(table: NucleiTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of these rows, in their order, those that touch none of those already taken."""
    centre, reach = table.centre.numpy()[rows], table.reach.numpy()[rows]
    pairs = cKDTree(centre).query_pairs(2.0 * float(reach.max()), output_type="ndarray")
    near: dict[int, list[int]] = {}
    for i, j in pairs[np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1) < reach[pairs].sum(axis=1)]:
        near.setdefault(int(max(i, j)), []).append(int(min(i, j)))
    taken = np.zeros(len(rows), bool)
    for k in range(len(rows)):
        taken[k] = not any(taken[other] for other in near.get(k, ()))
    return rows[taken]


def _rescale(given: NucleiTable, table: NucleiTable, rows: NDArray[np.int64], scale: NDArray[np.float64]) -> None:
    at = torch.from_numpy(rows)
    factor = torch.from_numpy(scale[rows])
    table.harmonics[at] = scaled(given.harmonics[at], factor)
    table.reach[at] = given.reach[at] * factor


def _refused(measured: Owned, max_clip: float) -> NDArray[np.bool_]:
    pieces, voxels = measured.fragments.numpy(), measured.voxels.numpy()
    return np.asarray((_clip(measured) > max_clip) | (pieces > 1) | (voxels == 0))


def _clip(measured: Owned) -> NDArray[np.float64]:
    alone = np.maximum(measured.alone.numpy(), 1)
    return np.asarray(1.0 - measured.voxels.numpy() / alone)
