"""A calibration as a store: tables of views, cameras and residuals, and the views of every cell of the mosaic.

Tables `views` (one row per view: pose, presence, surface of focus), `cameras` (light) and `arrows` (residuals for the
report's picture); members `cand_indptr`, `cand_view`, `cand_rc` and `cand_coverage`; what all views share is in the
attribute `calibration`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gigascope.errors import UserError
from gigascope.store.create import StoreWriter
from gigascope.store.open import StoreReader
from gigascope.store.plan import shard_plan
from gigascope.topography.calibration.result import Calibration, Quiver, from_tables, to_tables
from gigascope.topography.geometry.candidates import Candidates
from gigascope.topography.geometry.poses import COLUMN_UNITS

VIEWS, CAMERAS, ARROWS = "views", "cameras", "arrows"
CALIBRATION = "calibration"
# Members of the lists of candidates: their types and the names of their axes.
CANDIDATES: dict[str, tuple[DTypeLike, tuple[str, ...]]] = {
    "indptr": (np.int64, ("cell",)),
    "view": (np.int32, ("entry",)),
    "rc": (np.float32, ("entry", "rc")),
    "coverage": (np.uint8, ("cell_row", "cell_col")),
}
_UNITS = COLUMN_UNITS | {f"focus_q{k}_mm": "mm" for k in range(6)}
_ARROW_UNITS = dict.fromkeys(("row", "col", "residual_row", "residual_col"), "px")


def write_calibration(store: StoreWriter, calibration: Calibration, candidates: Candidates) -> None:
    """Put a calibration into a store that is being written.

    Parameters
    ----------
    candidates : of the calibration's poses and mosaic, see
        :func:`gigascope.topography.geometry.candidates.find_candidates`

    Raises
    ------
    UserError : the disk is full or may not be written
    """
    views, cameras, shared = to_tables(calibration)
    store.write_table(VIEWS, views, _UNITS)
    store.write_table(CAMERAS, cameras)
    quiver = calibration.quiver
    arrows: dict[str, NDArray] = {}
    for names, values in (
        (("view_a", "view_b"), quiver.view),
        (("row", "col"), quiver.at),
        (("residual_row", "residual_col"), quiver.residual),
    ):
        arrows |= dict(zip(names, values.T))
    store.write_table(ARROWS, arrows, _ARROW_UNITS)
    for name, (dtype, axes) in CANDIDATES.items():
        values = np.asarray(getattr(candidates, name), dtype)
        store.create_member(f"cand_{name}", shard_plan(values.shape, dtype), dtype, axes=axes)[...] = values
    store.attrs[CALIBRATION] = shared | {"candidates_shape": list(candidates.shape)}


def read_calibration(store: StoreReader) -> tuple[Calibration, Candidates]:
    """The calibration in a store, and the views of every cell of its mosaic.

    Returns
    -------
    calibration : its poses in the gauge in which they were found
    candidates : the very lists that were written

    Raises
    ------
    UserError : no store of a calibration, or a damaged one
    ShapeError : poses whose gauge is not fixed
    """
    shared = store.attrs.get(CALIBRATION)
    if not isinstance(shared, dict):
        raise UserError("holds no calibration.", where=store.path, do="Give the calibration.zarr of a dataset.")
    calibration = from_tables(store.table(VIEWS), store.table(CAMERAS), shared)
    columns = store.table(ARROWS)

    def pairs(*names: str) -> NDArray:
        return np.stack([columns[name] for name in names], axis=1)

    quiver = Quiver(
        pairs("view_a", "view_b").astype(np.int64), pairs("row", "col"), pairs("residual_row", "residual_col")
    )
    lists = {name: np.asarray(store.member(f"cand_{name}")[...]) for name in CANDIDATES}
    rows, cols = shared["candidates_shape"]
    return replace(calibration, quiver=quiver), Candidates((int(rows), int(cols)), **lists)
