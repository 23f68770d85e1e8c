"""Which views of a point are taken, and which square of each: whole chunks, or wherever the point is in the middle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError
from gigascope.topography.geometry.poses import F64
from gigascope.topography.streaming.sampler import Sampler

I64 = NDArray[np.int64]

# Mosaic pixels per pixel of a view differ from 1 by less than this: heights of the cameras, tilt, distortion.
STRETCH_OF_SCALE = 0.02
_CANVAS_STEP = 64


@dataclass(frozen=True, eq=False)
class Crops:
    """Squares of n views, those of one position together.

    Attributes
    ----------
    view : (n,) int64
    group : (n,) int64, 0 to n_groups - 1
    corner : (n, 2) int64 (row, column) of the first pixel
    point : (n_groups, 2) float64 (row, col) of the mosaic
    """

    view: I64
    group: I64
    corner: I64
    point: F64


def choose_views(camera: I64, most: int, numbers: np.random.Generator) -> I64:
    """A random subset of views, with two cameras among them where there are two.

    Parameters
    ----------
    camera : (k,) of each view
    most : views at most

    Returns
    -------
    (min(k, most),) places in `camera`, ascending
    """
    order = numbers.permutation(len(camera))
    taken, rest = order[:most], order[most:]
    others = rest[camera[rest] != camera[taken[0]]] if len(taken) else rest
    if most > 1 and len(others) and (camera[taken] == camera[taken[0]]).all():
        taken[-1] = others[0]
    return np.sort(taken)


def corners(rc: F64, size: tuple[int, int], patch: int, snap: int) -> I64:
    """First pixels of squares about points, at multiples of `snap` or at the far border.

    Parameters
    ----------
    rc : (n, 2) (row, column) of a view
    size : (rows, columns) of the view
    patch : side of a square, pixels
    snap : `patch` at most, so that the point is within

    Returns
    -------
    (n, 2) int64

    Raises
    ------
    ShapeError : the view is smaller than a patch, or `snap` is larger
    """
    last = np.array(size, dtype=np.int64) - patch
    if last.min() < 0:
        raise ShapeError(f"corners: a view of {size} pixels has no patch of {patch}")
    if not 1 <= snap <= patch:
        raise ShapeError(f"corners: snap: expected 1 to {patch}, the patch, got {snap}")
    nearest = np.round((rc - patch / 2) / snap) * snap
    return np.asarray(nearest.clip(0, last), dtype=np.int64)


def crops_of_step(
    sampler: Sampler, step: int, slots: range, size: tuple[int, int], patch: int, snap: int, max_views: int
) -> Crops:
    """The crops of some slots of a step, see :func:`choose_views` and :func:`corners`."""
    views, groups, places, points = [], [], [], []
    for group, slot in enumerate(slots):
        position = sampler.at(step, slot)
        taken = choose_views(sampler.scene.camera[position.view], max_views, sampler.subset(step, slot))
        views.append(position.view[taken])
        groups.append(np.full(len(taken), group, dtype=np.int64))
        places.append(corners(position.rc[taken], size, patch, snap))
        points.append(position.point)
    return Crops(np.concatenate(views), np.concatenate(groups), np.concatenate(places), np.stack(points))


def canvas_side(patch: int, snap: int, edge_margin: float = 16.0, dither: float = 1.0) -> int:
    """Side of a canvas about a point that holds all its crops whichever way it is turned, pixels.

    Notes
    -----
    Every crop holds the point. One at the border of its view may have it `edge_margin` from its own border, else it is
    at most `snap` / 2 off the middle: so nothing is farther than sqrt 2 times the larger reach. For 576, 192 and 16
    this is 1664; two views that see the point at opposite corners would fill 1536 and collide on it.
    """
    reach = max(patch - edge_margin, patch / 2 + snap / 2)
    side = 2 * (math.sqrt(2) * reach * (1 + STRETCH_OF_SCALE) + dither)
    return math.ceil(side / _CANVAS_STEP) * _CANVAS_STEP
