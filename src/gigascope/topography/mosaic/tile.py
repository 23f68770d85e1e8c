"""One tile of the mosaic from all views that see it: blended block by block, the next block being read meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.kernels import ortho
from gigascope.topography.geometry.packing import pack
from gigascope.topography.mosaic.layout import BLOCK, READERS, halo_of
from gigascope.topography.mosaic.splat import splat_block
from gigascope.topography.mosaic.views import Crops, Views

F32 = NDArray[np.float32]
Mode = Literal["mean", "best", "two_band", "splat_uniform"]


@dataclass(frozen=True)
class Blending:
    """How views become one picture.

    Attributes
    ----------
    mode : mean, weighted; best, the view of largest weight; two_band, what is coarse of the mean and what is fine of
        the best view; splat_uniform, every pixel of every view with the same weight, for comparison
    sampling : of the views' colours between their pixels, linear or cubic
    depth : distance from the nearest slice, in slices, at which a view's colours count less by a factor e; none: they
        count as its height does
    feather : pixels over which a view fades toward its border
    epsilon : weight of a pixel without confidence
    gate : robust deviations from the median of a pixel's heights beyond which a view does not count
    least_gate : least deviation, in steps between slices
    band : standard deviation of the low pass of `two_band`, pixels
    margin : pixels that `splat_uniform` leaves out along the sides of a view's bounding box
    white : largest colour
    """

    mode: Mode = "mean"
    sampling: Literal["linear", "cubic"] = "cubic"
    depth: float | None = 0.2
    feather: float = 128.0
    epsilon: float = 0.01
    gate: float = 3.0
    least_gate: float = 0.25
    band: float = 8.0
    margin: int = 35
    white: float = 255.0

    @property
    def halo(self) -> int:
        """Pixels around a block that it depends on."""
        return halo_of(self.band) if self.mode == "two_band" else 0


def blend_tile(
    views: Views, start: tuple[int, int], shape: tuple[int, int], how: Blending, device: torch.device | str = "cpu"
) -> F32:
    """All channels of a tile.

    Parameters
    ----------
    start, shape : (row, col) of its first pixel, and its (rows, cols)
    device : where it is computed

    Returns
    -------
    (channels, rows, cols) float32, as :func:`gigascope.topography.mosaic.layout.channel_names` has them: colours of 0
    to `how.white` and heights NaN where unseen, weight and n_views 0 there

    Notes
    -----
    Gather form: a pixel has the same value whichever tile it is part of, but for rounding; the same tile has the same
    bits in every run. Held are the tile, and what two blocks of it read.
    """
    place = torch.device(device)
    out = np.empty((views.n_colours + 4, *shape), np.float32)
    blocks = [
        (row, col, min(BLOCK, shape[0] - row), min(BLOCK, shape[1] - col))
        for row in range(0, shape[0], BLOCK)
        for col in range(0, shape[1], BLOCK)
    ]
    halo = how.halo
    wide = [((start[0] + r - halo, start[1] + c - halo), (h + 2 * halo, w + 2 * halo)) for r, c, h, w in blocks]
    for (row, col, h, w), (first, size), crops in zip(blocks, wide, read_ahead(views, wide, how.depth)):
        found = blend_block(views, crops.to(place), first, size, how)
        out[:, row : row + h, col : col + w] = found[:, halo : halo + h, halo : halo + w]
    return out


def read_ahead(
    views: Views, blocks: list[tuple[tuple[int, int], tuple[int, int]]], depth: float | None = None
) -> Iterator[Crops]:
    """What blocks of the mosaic need, in their order; one is read while the one before is worked on."""
    with ThreadPoolExecutor(READERS) as pool, ThreadPoolExecutor(1) as ahead:
        following = [ahead.submit(views.read, *block, pool, depth) for block in blocks[:1]]
        for block in [*blocks[1:], None]:
            crops = following.pop().result()
            if block is not None:
                following.append(ahead.submit(views.read, *block, pool, depth))
            yield crops


def blend_block(views: Views, crops: Crops, start: tuple[int, int], shape: tuple[int, int], how: Blending) -> F32:
    """All channels of a block whose crops were read; as :func:`blend_tile`."""
    if how.mode == "splat_uniform":
        found = splat_block(views, crops, start, shape, how.margin)
    else:
        found = _gather(views, crops, start, shape, how, "best" if how.mode == "best" else "mean")
        if how.mode == "two_band":
            best = _gather(views, crops, start, shape, how, "best")
            n = views.n_colours
            found[:n] = two_band(found[:n], best[:n], how.band)
    colours = found[: views.n_colours]
    np.clip(colours, 0.0, np.float32(how.white), out=colours)
    return found


def two_band(mean: F32, best: F32, sigma: float) -> F32:
    """What is coarse of one picture and what is fine of another.

    Parameters
    ----------
    mean, best : (c, rows, cols), NaN at the same places
    sigma : standard deviation of the low pass, pixels; what is beyond 3 of it has no effect
    """
    known = np.isfinite(mean[0])
    share = _low_pass(known.astype(np.float32), sigma)
    return np.stack([
        np.where(known, b + _low_pass(np.where(known, m - b, np.float32(0)), sigma) / np.maximum(share, 1e-6), np.nan)
        for m, b in zip(mean, best)
    ])  # fmt: skip


def _low_pass(values: F32, sigma: float) -> F32:
    found: F32 = ndimage.gaussian_filter(values, sigma, mode="constant", radius=halo_of(sigma))
    return found


def _gather(
    views: Views, crops: Crops, start: tuple[int, int], shape: tuple[int, int], how: Blending, mode: str
) -> F32:
    device = crops.heights.device
    table, distortion = pack(views.calibration.poses, crops.view, device=device)
    blended = ortho.blend(
        table,
        distortion,
        views.calibration.instrument.size,
        crops.heights,
        crops.colours,
        crops.corners,
        start,
        shape,
        how.least_gate * views.dz,
        confidence=crops.confidence,
        photometric=views.photometric(crops.view).to(device),
        gate=how.gate,
        feather=how.feather,
        epsilon=how.epsilon,
        mode=mode,
        sampling=how.sampling,
        clarity=crops.clarity,
    )
    measures = torch.stack((blended.height, blended.height_std, blended.weight, blended.n_views))
    return torch.cat((blended.colour, measures)).cpu().numpy()
