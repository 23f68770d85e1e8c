"""Which views see which part of the mosaic: a list per cell of 64 mosaic pixels, and exact answers for points.

Everything goes through the exact inverse map. The list of a cell holds every view that sees any part of it, so the
answer for a point is the few views of its cell, each asked for the pixel that sees the point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError
from gigascope.topography.geometry.poses import F64, Poses, to_mosaic, to_view

CELL = 64
# distortion bends the sides of a cell and of a view: by less than this for |distortion| <= 0.05, pixels
BEND = 1.0
# samples along each side of a view that bound it in the mosaic
OUTLINE = 65


@dataclass(frozen=True, eq=False)
class Candidates:
    """Views per cell of the mosaic in CSR form; cell (i, j) covers rows 64 i .. 64 i + 63 and columns alike.

    Parameters
    ----------
    shape : (rows, cols) of the mosaic, pixels
    indptr : (cells + 1,) int64; cell (i, j) has the entries indptr[i n_cols + j] to indptr[i n_cols + j + 1]
    view : (entries,) int32, views that see a part of the cell, ascending
    rc : (entries, 2) float32, (row, column) of the view at the centre of the cell; may lie outside the image
    coverage : (cell rows, cell cols) uint8, views that see the centre of the cell, at most 255
    """

    shape: tuple[int, int]
    indptr: NDArray[np.int64]
    view: NDArray[np.int32]
    rc: NDArray[np.float32]
    coverage: NDArray[np.uint8]


def extent(poses: Poses) -> NDArray[np.float64]:
    """(V, 2, 2) first and last (row, col) of the mosaic that each view reaches."""
    rows, columns = poses.size
    r, c = np.linspace(0, rows - 1, OUTLINE), np.linspace(0, columns - 1, OUTLINE)
    outline = np.concatenate(
        [
            np.stack((np.zeros(OUTLINE), c), 1),
            np.stack((np.full(OUTLINE, rows - 1.0), c), 1),
            np.stack((r, np.zeros(OUTLINE)), 1),
            np.stack((r, np.full(OUTLINE, columns - 1.0)), 1),
        ]
    )
    at = to_mosaic(poses, np.arange(poses.n_views)[:, None], outline[None])
    return np.stack((at.min(axis=1), at.max(axis=1)), axis=1)


def fit_mosaic(poses: Poses, margin: int = 0) -> tuple[Poses, tuple[int, int]]:
    """Poses with the offset that puts all views into a mosaic that starts at (0, 0), and the shape of it.

    Parameters
    ----------
    margin : pixels left free on every side
    """
    bounds = extent(poses)
    first = np.floor(bounds[:, 0].min(axis=0)) - margin
    last = np.ceil(bounds[:, 1].max(axis=0)) + margin
    rows, cols = (int(n) for n in last - first + 1)
    return replace(poses, offset=poses.offset - first), (rows, cols)


def find_candidates(poses: Poses, shape: tuple[int, int], present: ArrayLike | None = None) -> Candidates:
    """Lists of all cells of a mosaic.

    Parameters
    ----------
    poses : offset such that the views lie in the mosaic, see :func:`fit_mosaic`; what lies outside has no cells
    shape : (rows, cols) of the mosaic
    present : (V,) bool, views that are there, the only ones that are listed; none: all

    Raises
    ------
    ShapeError : an empty mosaic, or no view
    """
    if min(shape) < 1:
        raise ShapeError(f"find_candidates: shape: expected (rows, cols) above 0, got {shape}")
    n_cells = np.array([-(-n // CELL) for n in shape])
    bounds = extent(poses)
    first = np.clip(np.floor((bounds[:, 0] - BEND) / CELL).astype(np.int64), 0, n_cells)
    last = np.clip(np.floor((bounds[:, 1] + BEND) / CELL).astype(np.int64) + 1, first, n_cells)
    there = np.arange(poses.n_views) if present is None else np.flatnonzero(np.asarray(present, dtype=np.bool_))
    found = [_cells_of(poses, int(v), first[v], last[v], int(n_cells[1])) for v in there]
    if not found:
        raise ShapeError("find_candidates: present: expected at least one view")
    cell, view, rc, central = (np.concatenate(parts) for parts in zip(*found))
    order = np.argsort(cell, kind="stable")
    size = int(n_cells.prod())
    indptr = np.concatenate(([0], np.bincount(cell, minlength=size).cumsum()))
    coverage = np.bincount(cell[central], minlength=size).reshape(n_cells)
    return Candidates(
        (int(shape[0]), int(shape[1])), indptr, view[order], rc[order], np.minimum(coverage, 255).astype(np.uint8)
    )


def views_of_points(
    candidates: Candidates, poses: Poses, points: ArrayLike, edge_margin: float = 16.0
) -> tuple[NDArray[np.int64], NDArray[np.int32], F64]:
    """Views that see mosaic points, each with the pixel that does.

    Parameters
    ----------
    points : (P, 2) (row, col) of the mosaic; a point outside the mosaic is seen by nobody
    edge_margin : pixels from the border of a view that do not count; 0 takes the outermost pixel centres

    Returns
    -------
    indptr : (P + 1,) int64, entries of each point
    view : (entries,) int32, ascending for each point
    rc : (entries, 2) float64, (row, column) of the view
    """
    at = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    cell = np.floor(at / CELL).astype(np.int64)
    n_cells = np.array(candidates.coverage.shape)
    # half a pixel beyond the last centre is still in the last cell or past it
    on = ((cell >= 0) & (cell < n_cells)).all(axis=1)
    flat = np.where(on, cell[:, 0] * n_cells[1] + cell[:, 1], 0)
    start = candidates.indptr[flat]
    count = np.where(on, candidates.indptr[flat + 1] - start, 0)
    owner = np.repeat(np.arange(len(at)), count)
    entry = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + start[owner]
    view = candidates.view[entry]
    rc = to_view(poses, view, at[owner])
    seen = inside(rc, poses.size, edge_margin)
    indptr = np.concatenate(([0], np.bincount(owner[seen], minlength=len(at)).cumsum()))
    return indptr, view[seen], rc[seen]


def views_of_tile(candidates: Candidates, start: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.int32]:
    """(n,) int32, ascending: all views in the lists of the cells that a tile of the mosaic touches."""
    n_cells = candidates.coverage.shape
    rows = range(max(0, start[0] // CELL), min(n_cells[0], -(-(start[0] + shape[0]) // CELL)))
    low, high = max(0, start[1] // CELL), min(n_cells[1], -(-(start[1] + shape[1]) // CELL))
    parts = [np.empty(0, dtype=np.int32)]
    if low < high:
        starts = [(candidates.indptr[i * n_cells[1] + low], candidates.indptr[i * n_cells[1] + high]) for i in rows]
        parts += [np.unique(candidates.view[a:b]) for a, b in starts]
    return np.unique(np.concatenate(parts))


def crop_of_tile(
    poses: Poses, view: int, start: tuple[int, int], shape: tuple[int, int], margin: int = 2
) -> tuple[slice, slice]:
    """Rows and columns of a view that a tile of the mosaic reads, with a margin for interpolation; empty if none."""
    line = np.linspace(0, 1, OUTLINE)
    ends = np.array(shape) - 1
    sides = [(line, np.zeros(OUTLINE)), (line, np.ones(OUTLINE)), (np.zeros(OUTLINE), line), (np.ones(OUTLINE), line)]
    outline = np.concatenate([np.stack(side, axis=1) for side in sides]) * ends + np.array(start)
    rc = to_view(poses, view, outline)
    low = np.clip(np.floor(rc.min(axis=0)).astype(int) - margin, 0, poses.size)
    high = np.clip(np.ceil(rc.max(axis=0)).astype(int) + margin + 1, low, poses.size)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def inside(rc: ArrayLike, size: tuple[int, int], edge_margin: float = 0.0) -> NDArray[np.bool_]:
    """(...) whether pixels (..., 2) lie between the outermost pixel centres of a view, `edge_margin` from them."""
    at = np.asarray(rc)
    last = np.array(size) - 1 - edge_margin
    return np.all((at >= edge_margin) & (at <= last), axis=-1)


def _cells_of(
    poses: Poses, view: int, first: NDArray[np.int64], last: NDArray[np.int64], n_cols: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
    """Cells of a box that a view sees: cell, view, pixel at the cell's centre, and whether that is in the image."""
    r, c = np.arange(first[0], last[0] + 1), np.arange(first[1], last[1] + 1)
    # a corner is shared by four cells
    corners = to_view(poses, view, np.stack(np.meshgrid(r, c, indexing="ij"), axis=-1) * float(CELL))
    four = corners[:-1, :-1], corners[1:, :-1], corners[:-1, 1:], corners[1:, 1:]
    low, high = np.minimum.reduce(four), np.maximum.reduce(four)
    seen = ((high >= -BEND) & (low <= np.array(poses.size) - 1 + BEND)).all(axis=-1)
    i, j = np.nonzero(seen)
    rc = to_view(poses, view, np.stack((r[i], c[j]), axis=1) * CELL + (CELL - 1) / 2)
    cell = r[i] * n_cols + c[j]
    return cell, np.full(i.size, view, dtype=np.int32), rc.astype(np.float32), inside(rc, poses.size)
