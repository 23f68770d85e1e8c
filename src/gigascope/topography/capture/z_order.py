"""Slices in the order of ascending stage positions, and what is missing or uneven in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.topography.capture.capture import FileCapture

Missing = Literal["refuse", "mask"]

# A step this many times the usual one has lost a slice; one that differs by more than the share is worth a remark.
_LOST = 1.6
_UNEVEN = 0.25
_SHOWN = 3


@dataclass(frozen=True)
class Steps:
    """How the slices of one view follow each other.

    Attributes
    ----------
    order : slices in ascending order of their positions
    dz_mm : usual step, positive
    lost : slices (in ascending order) after which at least one is missing
    """

    order: NDArray[np.int64]
    dz_mm: float
    lost: tuple[int, ...]
    uneven: bool

    @property
    def backwards(self) -> bool:
        """The stage ran towards smaller positions."""
        return len(self.order) > 1 and bool((np.diff(self.order) == -1).all())

    @property
    def jumbled(self) -> bool:
        """The stage ran to and fro."""
        return not self.backwards and bool((np.diff(self.order) != 1).any())


def steps_of_stack(z_mm: NDArray[np.float64]) -> Steps:
    """Order and steps of the positions of one stack.

    Raises
    ------
    UserError : two slices at one position, or a position that is no number
    """
    if not np.isfinite(z_mm).all():
        raise UserError(f"slice {int((~np.isfinite(z_mm)).argmax())} has no stage position.")
    order = np.argsort(z_mm, kind="stable")
    gaps = np.diff(z_mm[order])
    if not gaps.size:
        return Steps(order, 0.0, (), False)
    usual = float(np.median(gaps))
    if gaps.min() <= 0.02 * usual or usual <= 0:
        k = int(gaps.argmin())
        raise UserError(
            f"slices {order[k]} and {order[k + 1]} were taken at one stage position ({z_mm[order[k]]:g} mm)."
        )
    lost = tuple(int(k) for k in np.flatnonzero(gaps > _LOST * usual))
    return Steps(order, usual, lost, bool((np.abs(gaps - usual) > _UNEVEN * usual).any()))


def ascending(capture: FileCapture, missing: Missing) -> FileCapture:
    """A capture whose slices ascend in every view, however the stage ran; what was turned round is said.

    Parameters
    ----------
    missing : "mask" goes on with stacks in which slices are missing, at the positions of those that are there

    Raises
    ------
    UserError : slices missing from a stack, or two at one position
    """
    z_mm, orders = np.empty_like(capture.z_stage_mm), dict[tuple[int, int], NDArray[np.int64]]()
    turned, jumbled, uneven = (list[tuple[int, int]]() for _ in range(3))
    lost: list[tuple[tuple[int, int], Steps]] = []
    for at in np.ndindex(*capture.shape[:2]):
        row, col = int(at[0]), int(at[1])
        z_mm[at] = capture.z_stage_mm[at]
        if not capture.present[at]:
            continue
        try:
            steps = steps_of_stack(capture.z_stage_mm[at])
        except UserError as error:
            do = "Repair the stage positions of the file."
            raise UserError(error.what, where=f"{capture.path}: {capture.name(row, col)}", do=do) from None
        z_mm[at] = capture.z_stage_mm[at][steps.order]
        for found, yes in ((turned, steps.backwards), (jumbled, steps.jumbled), (uneven, steps.uneven)):
            if yes:
                found.append((row, col))
        if steps.lost:
            lost.append(((row, col), steps))
        if steps.backwards or steps.jumbled:
            orders[row, col] = steps.order
    if lost and missing == "refuse":
        _refuse_lost(capture, z_mm, lost)
    n = int(capture.present.sum())
    notes, warnings = list(capture.notes), list(capture.warnings)
    if turned:
        notes.append(
            f"the stage ran downwards in {len(turned)} of {n} views: their slices were turned round, so that stage "
            "positions ascend everywhere"
        )
    if jumbled:
        warnings.append(
            f"the slices of {_names(capture, jumbled)} were not taken in the order of the stage: they were sorted."
        )
    if uneven:
        warnings.append(f"the steps of the stage are uneven in {_names(capture, uneven)}.")
    fill_absent(z_mm, capture.present)
    return replace(capture, z_stage_mm=z_mm, notes=notes, warnings=warnings, **_reading_in(orders, capture))


def _reading_in(orders: dict[tuple[int, int], NDArray[np.int64]], capture: FileCapture) -> dict[str, Any]:
    """Functions that read views and slices in another order, and the best slices in it, for views that have one."""
    read, one_slice, slice_of = capture.read, capture.one_slice, capture.slice_of
    best = None if capture.best_slice is None else capture.best_slice.copy()
    for view, order in orders.items():
        if best is not None and best[view] >= 0:
            best[view] = np.flatnonzero(order == best[view])[0]

    def read_ascending(row: int, col: int) -> NDArray:
        order = orders.get((row, col))
        stack = read(row, col)
        if order is None:
            return stack
        # turned round without a copy: a view may be as large as what else a job holds
        return stack[::-1] if (np.diff(order) == -1).all() else stack[order]

    def slice_ascending(row: int, col: int, z: int) -> NDArray:
        order = orders.get((row, col))
        return one_slice(row, col, z if order is None else int(order[z]))

    def name_ascending(row: int, col: int, z: int) -> str:
        order = orders.get((row, col))
        return slice_of(row, col, z if order is None else int(order[z]))

    return {
        "read_view": read_ascending,
        "read_slice": slice_ascending,
        "slice_of": name_ascending,
        "best_slice": best,
    }


def _refuse_lost(capture: FileCapture, z_mm: NDArray[np.float64], lost: list[tuple[tuple[int, int], Steps]]) -> None:
    (row, col), steps = lost[0]
    k, more = steps.lost[0], f", and {len(lost) - 1} more views have such gaps" if len(lost) > 1 else ""
    at = z_mm[row, col]
    raise UserError(
        f"{capture.name(row, col)}: slices are missing between {at[k]:g} and {at[k + 1]:g} mm, where the usual step is "
        f"{steps.dz_mm:g} mm{more}.",
        where=capture.path,
        do="Give all slices, or set ingest.missing: mask to go on with those that are there.",
    )


def fill_absent(z_mm: NDArray[np.float64], present: NDArray[np.bool_]) -> None:
    """Give views that are not there the mean positions of those that are, in place: no number may be missing."""
    if present.any() and not present.all():
        z_mm[~present] = z_mm[present].mean(axis=0)


def _names(capture: FileCapture, views: list[tuple[int, int]]) -> str:
    shown = "; ".join(capture.grid.name(*view) for view in views[:_SHOWN])
    return shown + (f" and {len(views) - _SHOWN} more views" if len(views) > _SHOWN else "")
