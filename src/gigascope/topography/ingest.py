"""z-stacks into the arrays that every later stage reads, view by view, and what is wrong with them.

One view is one shard. Green alone is what sharpness and training need, so it stands apart: packed without gaps where
there is a mosaic, half of the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.create import StoreWriter
from gigascope.store.plan import ShardPlan
from gigascope.topography.capture.bayer import pack_green
from gigascope.topography.capture.capture import FileCapture
from gigascope.topography.slices import LOST, NAMES, names_of

GREEN, BAYER, RGB = "green", "bayer", "rgb"
Z_STAGE, MASK, BEST, XY = "z_stage_mm", "view_mask", "best_slice", "xy_mm"
# Before the names of the arrays of the flat target, of which only green is kept: it is a grey print.
FLAT = "flat_"
# Rounds over the views: reading, and reading again where that is asked for.
ROUNDS = {"checksums": 1, "source": 2}
# Share of saturated pixels, and mean as a share of the sensor's range, beyond which a view is worth a warning.
SATURATED, DARK = 1e-3, 0.02
# Largest values of a 16-bit word from a sensor of 8, 10, 12, 14 or 16 bits, as they are or shifted to the top.
_CEILINGS = {2**n - 1 for n in (8, 10, 12, 14, 16)} | {2**16 - 2**n for n in (2, 4, 6, 8)}
_STATISTICS_STEP = 4
_SHOWN = 5

Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class Member:
    """An array of the store: one shard for each view.

    Attributes
    ----------
    plan : how it is cut
    axes : names
    """

    plan: ShardPlan
    axes: tuple[str, ...]


def members(capture: FileCapture, chunk: int) -> dict[str, Member]:
    """The arrays that hold the pixels of a capture, by name.

    Parameters
    ----------
    chunk : side of a chunk, pixels
    """
    n_rows, n_cols, n_z, height, width = capture.shape
    size, views = capture.dtype.itemsize, (n_rows, n_cols)
    axes = ("view_row", "view_col", "z", "row", "col")
    packed = 2 if capture.pattern is not None else 1
    found = {GREEN: Member(view_plan((*views, n_z, height, width // packed), size, (chunk, chunk // packed)), axes)}
    if capture.pattern is not None:
        found[BAYER] = Member(view_plan((*views, n_z, height, width), size, (chunk, chunk)), axes)
    elif capture.colours == 3:
        colour_axes = (*axes[:3], "c", *axes[3:])
        found[RGB] = Member(view_plan((*views, n_z, 3, height, width), size, (chunk, chunk)), colour_axes)
    return found


def view_plan(shape: tuple[int, ...], itemsize: int, chunk: tuple[int, int]) -> ShardPlan:
    """All slices of a square of pixels in a chunk, a view in a shard, rounded up to whole chunks."""
    edges = tuple(min(c, n) for c, n in zip(chunk, shape[-2:]))
    sides = tuple(-(-n // edge) * edge for n, edge in zip(shape[-2:], edges))
    between = shape[2:-2]
    return ShardPlan(shape, itemsize, (1, 1, *between, *edges), (1, 1, *between, *sides))


def arrays_of(stack: NDArray, capture: FileCapture, *, colour: bool = True) -> Arrays:
    """The arrays of one view, without the two axes of the view, by name; not copied where they need not be.

    Parameters
    ----------
    stack : as :meth:`FileCapture.read` gives it
    colour : False: green alone
    """
    if capture.pattern is not None:
        return {GREEN: pack_green(stack, capture.pattern), **({BAYER: stack} if colour else {})}
    if capture.colours == 3:
        return {GREEN: stack[..., 1], **({RGB: np.moveaxis(stack, -1, 1)} if colour else {})}
    return {GREEN: stack}


def lay_out(store: StoreWriter, capture: FileCapture, chunk: int, codec: str, *, flat: bool = False) -> None:
    """Create the arrays of a capture; the pixels are written later, view by view, everything else now."""
    before = FLAT if flat else ""
    for name, member in members(capture, chunk).items():
        if not flat or name == GREEN:
            plan, axes = member.plan, member.axes
            store.create_member(before + name, plan, capture.dtype, axes=axes, compress=codec != "plain")
    views = ("view_row", "view_col")
    _put(store, before + Z_STAGE, capture.z_stage_mm, np.float64, (*views, "z"))
    _put(store, before + MASK, capture.present, np.uint8, views)
    if not flat:
        if capture.best_slice is not None:
            _put(store, BEST, capture.best_slice, np.int16, views)
        if capture.xy_mm is not None:
            _put(store, XY, capture.xy_mm, np.float64, ("scan_y", "scan_x", "xy"))


def _put(store: StoreWriter, name: str, values: NDArray, dtype: Any, axes: tuple[str, ...]) -> None:
    values = np.asarray(values, dtype)
    plan = ShardPlan(values.shape, values.dtype.itemsize, values.shape, values.shape)
    store.create_member(name, plan, dtype, axes=axes)[...] = values


@dataclass(frozen=True)
class ViewFacts:
    """What is worth knowing of the pixels of a view.

    Attributes
    ----------
    lowest, highest, mean : values, over every fourth row and column
    saturated : share of the pixels of the slice that has most of them at the sensor's largest value
    """

    lowest: float
    highest: float
    mean: float
    saturated: float


def view_facts(stack: NDArray) -> ViewFacts:
    """Statistics of a view.

    Parameters
    ----------
    stack : (n_z, rows, cols[, 3])
    """
    some = stack[:, ::_STATISTICS_STEP, ::_STATISTICS_STEP]
    top = int(stack.max())
    limit = top if top in _CEILINGS and stack.dtype == np.uint16 else np.iinfo(stack.dtype).max
    worst = 0.0
    if top == limit:
        worst = max(float(np.count_nonzero(slice_ == limit)) / slice_.size for slice_ in stack)
    return ViewFacts(float(some.min()), float(top), float(some.mean(dtype=np.float64)), worst)


def facts_table(
    capture: FileCapture, found: Mapping[tuple[int, int], Mapping[str, float]]
) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Columns and units of the table of all views: camera, stage position, whether it is there, statistics."""
    views = [(int(r), int(c)) for r, c in np.ndindex(*capture.shape[:2])]
    places = np.array([capture.grid.place(*view) for view in views], np.int32)
    columns: dict[str, NDArray] = dict(zip(("view_row", "view_col"), np.array(views, np.int32).T))
    columns |= dict(zip(("camera_row", "camera_col", "scan_y", "scan_x"), places.T))
    columns["present"] = np.array([capture.present[view] for view in views])
    for name in ViewFacts.__dataclass_fields__:
        columns[name] = np.array([found[view][name] if view in found else 0.0 for view in views])
    return columns, dict.fromkeys(("lowest", "highest", "mean"), "counts")


def metrics_of(facts: ViewFacts) -> dict[str, float]:
    """As JSON values."""
    return asdict(facts)


def warnings(capture: FileCapture, found: Mapping[tuple[int, int], Mapping[str, float]], what: str) -> list[str]:
    """What a person should know of the pixels, in plain words.

    Parameters
    ----------
    found : statistics of the views that are there
    what : "views", or "views of the flat target"

    Raises
    ------
    UserError : no view shows anything
    """
    constant = [view for view, f in found.items() if f["lowest"] == f["highest"]]
    if len(constant) == len(found):
        value = next(iter(found.values()))["highest"]
        do = "Was the lamp on, and was the acquisition complete when it was copied?"
        raise UserError(f"every pixel of all {what} is {value:g}.", where=capture.path, do=do)
    top = max(f["highest"] for f in found.values())
    reach = 255.0 if capture.dtype == np.uint8 else 2.0 ** max(8, math.ceil(math.log2(top + 1))) - 1
    dark = [view for view, f in found.items() if f["mean"] < DARK * reach]
    bright = [view for view, f in found.items() if f["saturated"] > SATURATED]
    lines = []
    if dark:
        lines.append(f"{len(dark)} of {len(found)} {what} are dark (mean below {DARK:.0%}): {_list(capture, dark)}.")
    if bright:
        worst = max(found[view]["saturated"] for view in bright)
        lines.append(
            f"{len(bright)} of {len(found)} {what} are saturated (up to {worst:.2%} of a slice's pixels), where focus "
            f"cannot be measured: {_list(capture, bright)}."
        )
    return lines


def _list(capture: FileCapture, views: Sequence[tuple[int, int]]) -> str:
    shown = "; ".join(capture.name(*view) for view in views[:_SHOWN])
    return shown + (f" and {len(views) - _SHOWN} more" if len(views) > _SHOWN else "")


def refuse_difference(stored: Any, view: tuple[int, int], read: NDArray, where: str) -> None:
    """What was stored must be what the files say when they are read again.

    Parameters
    ----------
    stored : array of the store, compared band by band
    view : (view_row, view_col)
    read : what was read of that view now
    where : the array and the view, for the message

    Raises
    ------
    UserError : it is not
    """
    step = stored.plan.chunks[-2]
    for top in range(0, read.shape[-2], step):
        rows = slice(top, min(top + step, read.shape[-2]))
        found, band = stored[(*view, ..., rows, slice(None))], read[..., rows, :]
        found = found.reshape(band.shape)
        if not np.array_equal(found, band):
            at = tuple(int(i) for i in np.argwhere(found != band)[0])
            place = (*at[:-2], at[-2] + top, at[-1])
            what = f"{where} differs from its file at {place}: {found[at]} was stored, {band[at]} is read now."
            raise UserError(what, do="The files change while they are read, or the disk does not give the same twice.")


def attributes(capture: FileCapture, *, stage_up: bool, optics: Mapping[str, Any]) -> dict[str, Any]:
    """What the store says of a capture, as JSON values with units in their names.

    Parameters
    ----------
    optics : sensor_pitch_um, f_eff_mm, m_ref, ref_view, camera_pitch_mm, as far as they are known
    """
    grid, n_y, n_x = capture.grid, *capture.grid.scan
    cameras = capture.present.reshape(len(grid.camera_rows), n_y, len(grid.camera_cols), n_x)
    steps = np.diff(capture.z_stage_mm[capture.present], axis=1)
    return {
        "dz_mm": float(np.median(steps)) if steps.size else 0.0,
        "dz_known": capture.dz_known,
        "stage_up": stage_up,
        "bayer": capture.pattern,
        "colours": capture.colours,
        **optics,
        "scan": [n_y, n_x],
        **_scan_steps(capture.xy_mm),
        "sign_y": grid.signs["y"],
        "sign_x": grid.signs["x"],
        "camera_rows": list(grid.camera_rows),
        "camera_cols": list(grid.camera_cols),
        "camera_mask": cameras.any(axis=(1, 3)).tolist(),
        "source": str(capture.path),
        "format": capture.format,
        NAMES: names_of(capture),
        LOST: [],
        "notes": list(capture.notes),
    }


def _scan_steps(xy_mm: NDArray[np.float64] | None) -> dict[str, float | None]:
    """Mean distances of neighbouring stage positions; 0 along an axis with one position."""
    if xy_mm is None:
        return {"scan_step_y_mm": None, "scan_step_x_mm": None}
    along = {"y": np.abs(np.diff(xy_mm[..., 1], axis=0)), "x": np.abs(np.diff(xy_mm[..., 0], axis=1))}
    return {f"scan_step_{axis}_mm": float(steps.mean()) if steps.size else 0.0 for axis, steps in along.items()}


def refuse_other_instrument(sample: FileCapture, flat: FileCapture) -> None:
    """The flat target must show the same views with the same sensor.

    Raises
    ------
    UserError : it does not
    """
    facts = [
        ("cameras", lambda c: (len(c.grid.camera_rows), len(c.grid.camera_cols))),
        ("stage positions", lambda c: c.grid.scan),
        ("pixels", lambda c: c.shape[3:]),
        ("Bayer pattern", lambda c: c.pattern),
    ]
    for word, of in facts:
        if of(sample) != of(flat):
            found, wanted = (" x ".join(map(str, v)) if isinstance(v := of(c), tuple) else v for c in (flat, sample))
            what = f"the flat target has other {word} ({found}) than the sample ({wanted})."
            do = "Give the flat target that was taken with the same instrument and raster."
            raise UserError(what, where=flat.path, do=do)
