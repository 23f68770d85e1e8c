"""Captures as the synthetic instrument leaves them: a store of the stacks of all views, and what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.store.create import StoreWriter
from gigascope.store.open import StoreReader
from gigascope.store.plan import ShardPlan
from gigascope.topography.capture.capture import Capture, FileCapture
from gigascope.topography.capture.grid import ViewGrid

IMAGES, Z_STAGE, XY = "images", "z_stage_mm", "xy_mm"


def images_plan(capture: Capture) -> ShardPlan:
    """One chunk, and one shard, for each view."""
    view = (*capture.shape[2:], *([3] if capture.colours == 3 else []))
    whole = (1, 1, *view)
    return ShardPlan((*capture.shape[:2], *view), capture.dtype.itemsize, whole, whole)


def create_capture(store: StoreWriter, capture: Capture, facts: dict[str, Any], xy_mm: NDArray[np.float64]) -> None:
    """Lay out the store of a capture, with everything but the images, which are written view by view.

    Parameters
    ----------
    facts : JSON values, `scan`, `sign_y`, `sign_x` among them
    xy_mm : (n_scan_y, n_scan_x, 2), commanded stage positions (x, y)
    """
    axes = ("view_row", "view_col", "z", "row", "col", "c")
    plan = images_plan(capture)
    store.create_member(IMAGES, plan, capture.dtype, axes=axes[: len(plan.shape)], compress=False)
    z_mm = np.asarray(capture.z_stage_mm, np.float64)
    for name, values in ((Z_STAGE, z_mm), (XY, np.asarray(xy_mm, np.float64))):
        store.create_member(name, ShardPlan(values.shape, 8, values.shape, values.shape), np.float64)[...] = values
    store.attrs |= {**facts, "pattern": capture.pattern, "colours": capture.colours}


def open_stored(store: StoreReader) -> FileCapture:
    """The capture in a store that :func:`create_capture` laid out; views of cameras that are missing are not there."""
    images, facts = store.member(IMAGES), store.attrs
    rows, cols = images.shape[:2]
    n_y, n_x = facts["scan"]
    mask = np.asarray(facts["camera_mask"], bool)
    grid = ViewGrid(
        tuple(range(rows // n_y)),
        tuple(range(cols // n_x)),
        (n_y, n_x),
        (facts["sign_y"] < 0, facts["sign_x"] < 0),
    )
    n_z, height, width = images.shape[2:5]
    return FileCapture(
        path=Path(store.path.name),
        format="simulated instrument",
        grid=grid,
        shape=(rows, cols, n_z, height, width),
        dtype=images.dtype,
        pattern=facts["pattern"],
        colours=facts["colours"],
        z_stage_mm=np.asarray(store.member(Z_STAGE)[...]),
        read_view=lambda row, col: np.asarray(images[row, col]),
        present=np.kron(mask, np.ones((n_y, n_x), bool)),
        xy_mm=np.asarray(store.member(XY)[...]),
        facts=facts,
    )
