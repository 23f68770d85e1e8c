"""What the views of a mosaic position say of each other: heights brought from all other views to each pixel of one."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from gigascope.kernels import ortho


def canvas(coords: Tensor, group: Tensor, n_groups: int) -> tuple[Tensor, tuple[int, int]]:
    """Coordinates moved so that every group starts at (0, 0), and the shape of a canvas that holds any of them.

    Parameters
    ----------
    coords : (n, 2, h, w) float32
    group : (n,) int64

    Returns
    -------
    (n, 2, h, w) on the canvas, and (rows, cols)
    """
    ends = [coords.amin(dim=(2, 3)), coords.amax(dim=(2, 3))]
    wide = group[:, None].expand(-1, 2)
    start = coords.new_full((n_groups, 2), math.inf).scatter_reduce(0, wide, ends[0].floor(), "amin")
    last = coords.new_full((n_groups, 2), -math.inf).scatter_reduce(0, wide, ends[1], "amax")
    # a group without views has no extent
    size = torch.where(last >= start, last - start, 0.0).amax(dim=0).ceil().long() + 2
    return coords - start[group][:, :, None, None], (int(size[0]), int(size[1]))


@torch.no_grad()
def from_others(
    values: Tensor, weight: Tensor, coords: Tensor, group: Tensor, n_groups: int, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Weighted mean at every pixel of what all other views of its group have there; no gradient.

    Parameters
    ----------
    values, weight : (n, h, w) float32, weights from 0
    coords : (n, 2, h, w) float32 on a canvas of `shape`

    Returns
    -------
    mean : (n, h, w), 0 where no other view has any weight
    total : (n, h, w), sum of the weights of the others there, each view's at about its own density of one pixel a pixel

    Notes
    -----
    A view's own value stays out, so that its noise is not in what it is compared with: a network that is trained on
    it learns the expectation and not the noise (Lehtinen et al., Noise2Noise, ICML 2018).
    """
    n = len(values)
    own = torch.arange(n, device=values.device)
    # one canvas per view, twice: n is 5 to 20
    sums = ortho.splat((values * weight).contiguous(), coords, own, shape, n)[0]
    parts, density = ortho.splat(weight.contiguous(), coords, own, shape, n)
    # weights per pixel of the view, whatever the splat's kernel sums to
    scale = density.clamp_min(1e-3)
    sums, parts = sums / scale, parts / scale
    belongs = functional.one_hot(group, n_groups).T.to(values.dtype)
    others = [torch.einsum("gn,nrc->grc", belongs, x)[group] - x for x in (sums, parts)]
    row, col = coords[:, 0], coords[:, 1]
    place = torch.stack([2 * col / (shape[1] - 1) - 1, 2 * row / (shape[0] - 1) - 1], dim=-1)
    read = functional.grid_sample(torch.stack(others, dim=1), place, align_corners=True, padding_mode="zeros")
    # what is left of a sum after its only term was taken away is rounding
    total = torch.where(read[:, 1] > 1e-4, read[:, 1], 0.0)
    return torch.where(total > 0, read[:, 0] / total.clamp_min(1e-4), 0.0), total
