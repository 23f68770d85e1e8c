"""Poses as the rows of numbers that the kernels take."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels import ortho
from gigascope.topography.geometry.poses import Poses, select


def pack(
    poses: Poses,
    views: ArrayLike | None = None,
    distance_mm: ArrayLike | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Table and distortion of some views, the first two arguments of the ops of :mod:`gigascope.kernels.ortho`.

    Parameters
    ----------
    views : (n,) view numbers; none: all
    distance_mm : (V,) metric distance of every view of `poses`, where heights in mm are to be lifted

    Returns
    -------
    table : (n, 21) float64
    distortion : (order,) float64

    Raises
    ------
    ShapeError : a view that does not exist, distances that are not one per view
    """
    chosen = np.arange(poses.n_views) if views is None else np.asarray(views).reshape(-1)
    some = select(poses, chosen)
    far = None
    if distance_mm is not None:
        every = np.asarray(distance_mm, dtype=np.float64)
        if every.shape != (poses.n_views,):
            raise ShapeError(f"pack: distance_mm: expected ({poses.n_views},), one per view, got {every.shape}")
        far = torch.from_numpy(every[chosen])
    # copies: the arrays of poses are read-only, which torch does not know
    height, normal, angle = (torch.tensor(array) for array in (some.height, some.normal, some.angle))
    table = ortho.view_table(
        some.size, some.focal, height, normal, angle, torch.tensor(some.translation + some.offset), far
    )
    return table.to(device), torch.tensor(poses.distortion).to(device)
