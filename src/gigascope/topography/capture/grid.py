"""The grid of views: cameras by their ids, and the raster of stage positions inside each.

``view_row = camera_row * n_scan_y + scan_y`` and ``view_col = camera_col * n_scan_x + scan_x``, where camera_row and
camera_col count the cameras that are kept. Moving the stage towards +x slides a camera's field towards -x on the
sample, so the raster is mirrored along x: scan_x counts stage positions from the largest x. Whether an axis is mirrored
is stated, not assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Positions closer than this share of the largest step are one step: stages do not reach a position twice alike.
_SAME = 0.2


@dataclass(frozen=True)
class ViewGrid:
    """Which view is which camera at which stage position.

    Attributes
    ----------
    camera_rows, camera_cols : ids of the camera rows and columns that are kept, in the order of the views
    scan : (n_scan_y, n_scan_x) stage positions
    mirrored : along (y, x); whether scan index 0 is the largest stage position
    """

    camera_rows: tuple[int, ...] = (0,)
    camera_cols: tuple[int, ...] = (0,)
    scan: tuple[int, int] = (1, 1)
    mirrored: tuple[bool, bool] = (False, True)

    @property
    def shape(self) -> tuple[int, int]:
        """(view_rows, view_cols)."""
        return len(self.camera_rows) * self.scan[0], len(self.camera_cols) * self.scan[1]

    @property
    def signs(self) -> dict[str, int]:
        """Per axis, 1 where views follow ascending stage positions, -1 where they run against them."""
        return {axis: -1 if mirrored else 1 for axis, mirrored in zip("yx", self.mirrored)}

    def place(self, view_row: int, view_col: int) -> tuple[int, int, int, int]:
        """(camera row id, camera column id, scan_y, scan_x) of a view."""
        row, scan_y = divmod(view_row, self.scan[0])
        col, scan_x = divmod(view_col, self.scan[1])
        return self.camera_rows[row], self.camera_cols[col], scan_y, scan_x

    def view(self, camera_row: int, camera_col: int, scan_y: int, scan_x: int) -> tuple[int, int]:
        """(view_row, view_col) of a camera, by its ids, at a stage position.

        Raises
        ------
        ValueError : that camera is not kept
        """
        row, col = self.camera_rows.index(camera_row), self.camera_cols.index(camera_col)
        return row * self.scan[0] + scan_y, col * self.scan[1] + scan_x

    def stage_index(self, scan_y: int, scan_x: int) -> tuple[int, int]:
        """Which of the ascending stage positions along y and x a scan index is."""
        index = (scan_y, scan_x)
        y, x = (n - 1 - i if m else i for i, n, m in zip(index, self.scan, self.mirrored))
        return y, x

    def name(self, view_row: int, view_col: int) -> str:
        """A view in words."""
        row, col, scan_y, scan_x = self.place(view_row, view_col)
        return f"view ({view_row}, {view_col}): camera ({row}, {col}) at position ({scan_y}, {scan_x})"


def steps_of(positions: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Tell the steps of a raster from positions that jitter.

    Parameters
    ----------
    positions : (n,) along one axis

    Returns
    -------
    mean position of each step, ascending, and the step that each position belongs to
    """
    values = np.asarray(positions, np.float64)
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order])
    apart = gaps > _SAME * gaps.max(initial=0.0) if gaps.size else np.zeros(0, bool)
    of_sorted = np.concatenate([[0], np.cumsum(apart)]).astype(np.int64)
    step = np.empty(len(values), np.int64)
    step[order] = of_sorted
    means = np.bincount(step, values) / np.bincount(step)
    return means, step


def kept_ids(wanted: Sequence[int] | None, n: int) -> tuple[int, ...]:
    """Ids that are kept of `n` rows or columns of cameras; None: all."""
    return tuple(range(n)) if wanted is None else tuple(wanted)
