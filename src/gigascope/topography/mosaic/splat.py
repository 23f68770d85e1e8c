"""The mosaic as the published release makes it: every pixel of every view splatted, all with the same weight."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.kernels import ortho
from gigascope.topography.geometry.candidates import extent
from gigascope.topography.geometry.packing import pack
from gigascope.topography.geometry.poses import select
from gigascope.topography.mosaic.views import Crops, Views

F32 = NDArray[np.float32]
# Added to the sum of weights that sums are divided by.
EPSILON = 1e-7


def splat_block(views: Views, crops: Crops, start: tuple[int, int], shape: tuple[int, int], margin: int) -> F32:
    """All channels of a block of the mosaic; see :func:`gigascope.topography.mosaic.tile.blend_block`.

    Parameters
    ----------
    margin : pixels along the sides of a view's bounding box on the mosaic that it leaves out

    Notes
    -----
    Each pixel goes to the four mosaic pixels around the place that flat calibration gives it; no feather, no
    confidence, no correction of the light, no gate. The release adds the views up in a canvas of the whole mosaic; what
    reaches a block does not depend on the rest, so here it is done block by block, in the same order of views.
    """
    n_channels = views.n_colours + 1
    device = crops.heights.device
    # float64 on a CPU: sums of a few thousand pixels, and coordinates of a wide mosaic
    exact = torch.float64 if device.type == "cpu" else torch.float32
    sums, weights = (torch.zeros(n, *shape, dtype=exact, device=device) for n in (n_channels, 1))
    squares, count = torch.zeros_like(weights[0]), torch.zeros_like(weights[0])
    poses = views.calibration.poses
    origin = torch.tensor([[1.0, 0.0, -start[0]], [0.0, 1.0, -start[1]]], dtype=torch.float64, device=device)
    n, h, w = crops.heights.shape
    for k in range(n):
        view = int(crops.view[k])
        inner = _inside_box(extent(select(poses, [view]))[0], start, shape, margin)
        if inner is None:
            continue
        table, distortion = pack(poses, [view], device=device)
        corner = crops.corners[k : k + 1].double()
        coords = ortho.coordinates(ortho.moved(table, origin), distortion, poses.size, corner, (h, w), dtype=exact)
        height = crops.heights[k].to(exact)
        values = torch.cat((crops.colours[k].movedim(2, 0).to(exact), height[None], height[None].square()))
        # what was not read is nowhere
        coords = torch.where(height.isnan()[None, None], -2.0 * max(h, w), coords)
        values = torch.where(height.isnan()[None], 0.0, values)
        group = torch.arange(len(values), dtype=torch.int64, device=device)
        found, weight = ortho.splat(
            values, coords.expand(len(values), -1, -1, -1).contiguous(), group, shape, len(values)
        )
        sums[(slice(None), *inner)] += found[(slice(0, n_channels), *inner)]
        squares[inner] += found[(n_channels, *inner)]
        weights[(0, *inner)] += weight[(0, *inner)]
        count[inner] += weight[(0, *inner)] > 0
    return _normalised(sums, squares, weights[0], count)


def _inside_box(
    bounds: NDArray[np.float64], start: tuple[int, int], shape: tuple[int, int], margin: int
) -> tuple[slice, slice] | None:
    """Rows and columns of a block that lie in the bounding box of a view, less a margin; none if there are none."""
    found = []
    for axis in (0, 1):
        first = int(np.floor(bounds[0, axis])) + margin - start[axis]
        last = int(np.ceil(bounds[1, axis])) + 1 - margin - start[axis]
        found.append(slice(max(first, 0), min(last, shape[axis])))
    return None if any(s.start >= s.stop for s in found) else (found[0], found[1])


def _normalised(sums: torch.Tensor, squares: torch.Tensor, weight: torch.Tensor, count: torch.Tensor) -> F32:
    mean = torch.where(weight > 0, sums / (weight + EPSILON), torch.nan)
    height = mean[-1]
    variance = (squares / (weight + EPSILON) - height.square()).clamp(min=0)
    std = torch.where(count > 1, variance.sqrt(), torch.nan)
    return torch.cat((mean, torch.stack((std, weight, count)))).float().cpu().numpy()
