"""Random views, pixels and maps for the tests of the ortho ops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gigascope.kernels import ortho


class Maps(NamedTuple):
    """What a blend takes: views with their maps, and a tile that some of them see."""

    views: tuple[Tensor, Tensor, tuple[int, int]]
    heights: Tensor
    colours: Tensor
    confidence: Tensor
    photometric: Tensor
    plain: Tensor
    corners: Tensor
    tile: tuple[tuple[int, int], tuple[int, int]]


def views(
    rng: np.random.Generator, n: int, size: tuple[int, int], order: int = 1, spread: float = 40.0
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Table, distortion and size of tilted, turned views around (100, 100), at distances of 50 to 60."""
    normal = np.concatenate((rng.normal(0, 0.02, (n, 2)), np.full((n, 1), -1.0)), axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    table = ortho.view_table(
        size,
        1.02,
        torch.from_numpy(rng.uniform(0.97, 1.05, n)),
        torch.from_numpy(normal),
        torch.from_numpy(rng.normal(0, 0.1, n)),
        torch.from_numpy(rng.normal(0, spread, (n, 2)) + 100),
        torch.from_numpy(rng.uniform(50, 60, n)),
    )
    return table, torch.from_numpy(rng.uniform(-0.01, 0.01, order)), size


def pixels(rng: np.random.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
    """Values, coordinates on and beside two canvases (some whole, some no numbers), groups, shape of a canvas."""
    coords = torch.from_numpy(rng.uniform(-4, 26, (5, 2, 7, 70))).to(dtype)
    coords[:, 0, 0] = coords[:, 0, 0].round()
    coords[0, 1, 1, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    values = torch.from_numpy(rng.standard_normal((5, 7, 70))).to(dtype)
    return values, coords, torch.tensor([0, 1, 1, 0, 1]), (20, 22)


def maps(rng: np.random.Generator, dtype: torch.dtype) -> Maps:
    """Nine views with heights that agree but for some outliers and holes, on a tile that none sees whole."""
    n, crop = 9, (120, 130)
    heights = rng.normal(0, 0.2, (n, *crop))
    heights[rng.random(heights.shape) < 0.02] += 5
    heights[rng.random(heights.shape) < 0.001] = np.nan
    photometric = rng.normal(0, 0.1, (n, 8))
    photometric[:, 0] += 1
    plain = torch.zeros(n, 8, dtype=torch.float64)
    plain[:, 0] = 1
    return Maps(
        views(rng, n, (140, 150)),
        torch.from_numpy(heights).float(),
        torch.from_numpy(rng.uniform(0, 250, (n, *crop, 3))).to(dtype),
        torch.from_numpy(rng.uniform(0, 1, (n, *crop))).float(),
        torch.from_numpy(photometric),
        plain,
        torch.from_numpy(rng.integers(0, 20, (n, 2))),
        ((110, 95), (90, 101)),
    )
