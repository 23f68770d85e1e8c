"""The stack of one moving camera on common ground: in the order of focus, registered, laid out like the raw store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.create import StoreWriter
from gigascope.store.disk import disk_errors
from gigascope.store.open import StoreReader
from gigascope.store.plain_shard import write_shard
from gigascope.store.plan import ShardPlan
from gigascope.topography.focus.order import FocusOrder, focus_order
from gigascope.topography.focus.registration import (
    LEAST_AGREEMENT,
    Model,
    StackRegistration,
    register_slice,
    register_stack,
)
from gigascope.topography.focus.slice_file import OrderedSlices, PatchesOfSlices, SliceFile
from gigascope.topography.ingest import BAYER, GREEN, MASK, RGB, Z_STAGE, view_plan
from gigascope.topography.slices import LOST, NAMES

Order = Literal["auto", "as_is"]
Progress = Callable[[Iterable[int], str, str], Iterable[int]]
VALID, SLICES = "valid", "slices"
# Share of the field that all slices show, below which a person should know.
MUCH_SHOWN = 0.85
# Slices without which there is no peak of focus.
LEAST_SLICES = 3


@dataclass(frozen=True, eq=False)
class Registered:
    """What was found of a stack.

    Attributes
    ----------
    kept : (z,) slices as taken that show something; the others were left out
    names : of all slices as taken
    order : of focus, of those that were kept; none: not looked for
    found : geometry and brightness of the slices, in that order
    shape : (rows, columns)
    inside : (rows, columns), within the field of every slice
    """

    kept: NDArray[np.int64]
    names: Sequence[str]
    order: FocusOrder | None
    found: StackRegistration
    shape: tuple[int, int]
    inside: NDArray[np.bool_]

    @property
    def places(self) -> NDArray[np.int64]:
        """(z,) slice as taken at each place."""
        return self.kept if self.order is None else self.kept[self.order.order]

    def warnings(self) -> list[str]:
        """What a person should know, in plain words."""
        lines = []
        gone = sorted(set(range(len(self.names))) - set(self.kept.tolist()))
        if gone:
            listed = ", ".join(self.names[k] for k in gone)
            lines.append(f"{len(gone)} of {len(self.names)} slices show nothing and were left out: {listed}.")
        if self.order is not None and not self.order.in_order:
            lines.append(self.order.sentence)
        weak = np.flatnonzero(self.found.agreement < LEAST_AGREEMENT)
        if len(weak):
            lines.append(
                f"{len(weak)} of {len(self.found.agreement)} slices look like none of their neighbours, and may be "
                f"registered wrongly: {', '.join(self.names[self.places[k]] for k in weak[:8])} (correlation down to "
                f"{self.found.agreement.min():.2f}). Look at them, or set register.enabled: false."
            )
        if self.inside.mean() < MUCH_SHOWN:
            reference = self.names[self.places[self.found.reference]]
            lines.append(
                f"the slices drift by up to {self.found.largest_px:.0f} px: all of them show {self.inside.mean():.0%} "
                f"of the field of {reference}, onto which they are put. Elsewhere nothing is known where the slices of "
                "its focus do not reach."
            )
        return lines

    def facts(self) -> dict[str, Any]:
        """For the store, as JSON values."""
        return {
            "reordered": bool((self.places != self.kept).any()),
            "left_out": len(self.names) - len(self.kept),
            "order": "as the files are numbered" if self.order is None else self.order.sentence,
            "summary": self.found.summary(self.shape, self.names[self.places[self.found.reference]]),
            "reference": self.found.reference,
            "largest_px": self.found.largest_px,
            "resampled": not self.found.identity,
            "inside_share": float(self.inside.mean()),
        }

    def table(self) -> tuple[dict[str, NDArray], dict[str, str]]:
        """Columns and units of the table of all slices, in the order of focus."""
        shift = self.found.shift(self.shape)
        columns: dict[str, NDArray] = {
            "taken_as": self.places,
            "scale": self.found.scale,
            "rotation": self.found.rotation,
            "shift_row": shift[:, 0],
            "shift_col": shift[:, 1],
        }
        columns |= {f"gain_{colour}": self.found.gain[:, colour] for colour in range(self.found.gain.shape[1])}
        columns["agreement"] = self.found.agreement
        return columns, {"rotation": "rad", "shift_row": "px", "shift_col": "px"}


def lay_out(store: StoreWriter, raw: StoreReader) -> None:
    """Create the arrays of the registered stack in the layout of the raw one, and write what is not pixels.

    Raises
    ------
    UserError : stacks of several views, which registration would spoil
    """
    green, facts = raw.member(GREEN), raw.attrs
    if green.shape[:2] != (1, 1):
        raise UserError(
            f"holds {green.shape[0] * green.shape[1]} views; only the stack of one camera is registered.",
            where=raw.path,
            do="Stacks of a camera array are calibrated instead: their changes of scale are perspective.",
        )
    packed = 1 if facts["bayer"] is None else 2
    kept = kept_slices(raw)
    n_z, rows, cols = len(kept), green.shape[3], green.shape[4] * packed
    chunk, size = (green.chunks[3], green.chunks[4] * packed), green.dtype.itemsize
    axes = ("view_row", "view_col", "z", "row", "col")
    plan = view_plan((1, 1, n_z, rows, cols), size, chunk)
    store.create_member(GREEN, plan, green.dtype, axes=axes, compress=False)
    coloured = packed == 2 or facts["colours"] == 3
    if coloured:
        plan = view_plan((1, 1, n_z, 3, rows, cols), size, chunk)
        store.create_member(RGB, plan, green.dtype, axes=(*axes[:3], "c", *axes[3:]), compress=False)
    for name, its_axes in ((Z_STAGE, axes[:3]), (MASK, axes[:2])):
        values = np.asarray(raw.member(name)[...])
        _put(store, name, values[..., kept] if name == Z_STAGE else values, its_axes)
    store.write_table("views", raw.table("views"), raw.units("views"))
    # pixels of the flat target stay in the raw store
    store.attrs |= {**facts, "bayer": None, "colours": 3 if coloured else 1, "flat": None}
    store.attrs |= {LOST: []} if LOST in facts else {}


def kept_slices(raw: StoreReader) -> NDArray[np.int64]:
    """(z,) slices of the stack of one camera that show something.

    Raises
    ------
    UserError : too few of them
    """
    n_z = raw.member(GREEN).shape[2]
    lost = {k for _, _, k, _ in raw.attrs.get(LOST, [])}
    kept = np.array([k for k in range(n_z) if k not in lost], np.int64)
    if lost and len(kept) < LEAST_SLICES:
        names = _names(raw)
        what = f"only {len(kept)} of its {n_z} slices show anything, not {', '.join(names[k] for k in sorted(lost))}."
        raise UserError(what, where=raw.path, do="Copy or take the others again.")
    return kept


def _names(raw: StoreReader) -> list[str]:
    """Of the slices as they were taken."""
    return raw.attrs.get(NAMES) or [f"slice {k}" for k in range(raw.member(GREEN).shape[2])]


def _put(store: StoreWriter, name: str, values: NDArray, axes: tuple[str, ...]) -> None:
    plan = ShardPlan(values.shape, values.dtype.itemsize, values.shape, values.shape)
    store.create_member(name, plan, values.dtype, axes=axes)[...] = values


def register(
    raw: StoreReader, store: StoreWriter, scratch: Path, *, model: Model, order: Order, progress: Progress
) -> Registered:
    """Order and register the stack in `raw`, and write it into `store`; one slice is held at a time.

    Parameters
    ----------
    store : laid out by :func:`lay_out`
    scratch : folder for two copies of the stack
    model, order : see :class:`gigascope.config.topography.Register`
    progress : wraps a loop; told what is done, and what to
    """
    name = RGB if raw.attrs["colours"] == 3 else BAYER if raw.attrs["bayer"] is not None else GREEN
    kept, names = kept_slices(raw), _names(raw)
    with disk_errors(scratch), _taken(raw, name, kept, scratch, progress) as taken:
        n_z, pattern = taken.shape[0], raw.attrs["bayer"]
        stack = OrderedSlices(taken, range(n_z), pattern)
        judged = focus_order(stack, names=[names[k] for k in kept]) if order == "auto" else None
        if judged is not None:
            stack = OrderedSlices(taken, judged.order.tolist(), pattern)
        found = register_stack(stack, model=model)
        inside = np.ones(stack.shape[1:3], bool)
        with SliceFile(scratch, stack.shape, stack.dtype) as moved:
            for k in progress(range(n_z), "registering", "slice"):
                image, here = register_slice(stack.image(k), found, k)
                moved.write(k, image)
                inside &= here
            _write(store, moved)
    result = Registered(kept, names, judged, found, (stack.shape[1], stack.shape[2]), inside)
    _put(store, VALID, inside.astype(np.uint8), ("row", "col"))
    store.write_table(SLICES, *result.table())
    store.attrs["registration"] = result.facts()
    return result


def _taken(raw: StoreReader, name: str, kept: NDArray[np.int64], scratch: Path, progress: Progress) -> SliceFile:
    """The stack as it was taken, slice by slice: the chunks of the store hold all slices of a patch."""
    array = raw.member(name)
    n_z, (rows, cols) = len(kept), array.shape[-2:]
    colours = array.shape[3:-2]
    file = SliceFile(scratch, (n_z, rows, cols, *colours), array.dtype)
    step = array.chunks[-2]
    for start in progress(range(0, rows, step), "reading", "band"):
        band = np.asarray(array[0, 0, ..., start : start + step, :])
        for k, n in enumerate(kept):
            file.write(k, np.moveaxis(band[n], 0, -1) if colours else band[n], start)
    return file


def _write(store: StoreWriter, moved: SliceFile) -> None:
    coloured = len(moved.shape) == 4
    blocks: dict[str, Any] = {GREEN: PatchesOfSlices(moved, 1 if coloured else None)}
    if coloured:
        blocks[RGB] = PatchesOfSlices(moved)
    for name, block in blocks.items():
        array: Any = store.group[name]
        write_shard(store.path, array, (0,) * array.ndim, block)
