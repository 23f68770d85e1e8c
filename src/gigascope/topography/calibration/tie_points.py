"""Points that two views share, to a few hundredths of a pixel: blocks on a grid in each overlap, matched by phase.

A block of the first view is compared with the second view as it looks through the poses known so far, resampled onto
the block's pixels. What is left is a small displacement, and with better poses a smaller one: two rounds of tie points
and bundle adjustment leave nothing that depends on the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gigascope.topography.calibration.cubic import cubic
from gigascope.topography.calibration.phase import peaks, phase_correlation
from gigascope.topography.geometry.poses import Poses, to_mosaic, to_view

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
ReadImage = Callable[[int], NDArray]

# 128-pixel blocks on a grid of 12 x 12 for views of 3072 pixels.
FULL_SIZE, FULL_BLOCK_PX, FULL_GRID = 3072, 128, 12
# Below this a block holds too few texture elements for a sure match.
SMALLEST_BLOCK_PX = 32
# Tie points whose correlation peak is lower are chance.
LEAST_QUALITY = 0.3


@dataclass(frozen=True, eq=False)
class TiePoints:
    """Pixels of pairs of views that show the same point of the flat target.

    Attributes
    ----------
    view : (T, 2) int64, view numbers (a, b)
    first, second : (T, 2) float64, pixel (row, column) in a and in b
    quality : (T,) float64, height of the correlation peak, 1 for identical blocks
    light : (T, 2) float64, mean intensity of the block in a and in b
    """

    view: I64
    first: F64
    second: F64
    quality: F64
    light: F64

    def __len__(self) -> int:
        return len(self.view)


@dataclass(frozen=True)
class Blocks:
    """Size and number of the blocks of an overlap.

    Attributes
    ----------
    side : pixels
    grid : along each axis of the overlap, at most
    search_px : largest error of the poses known so far
    """

    side: int
    grid: int
    search_px: float = 3.0


def blocks_for(size: tuple[int, int], search_px: float = 3.0) -> Blocks:
    """Blocks for views of a size: 128 pixels on 12 x 12 at 3072, fewer and smaller ones below.

    Small views keep more blocks than their size says: what counts is how far into the corners the tie points reach,
    half a block from the border. With 48 instead of 32 pixels for views of 384 the poses were off by 0.04 px, not 0.03.
    """
    share = min(size) / FULL_SIZE
    side = int(np.clip(round(FULL_BLOCK_PX * share**0.7 / 16) * 16, SMALLEST_BLOCK_PX, FULL_BLOCK_PX))
    return Blocks(side, int(np.clip(round(FULL_GRID * share**0.2), 4, FULL_GRID)), search_px)


def join(parts: list[TiePoints]) -> TiePoints:
    """Tie points of several pairs, one after the other."""
    empty = TiePoints(np.empty((0, 2), np.int64), *(np.empty((0, 2)),) * 2, np.empty(0), np.empty((0, 2)))
    return TiePoints(*(np.concatenate([getattr(p, f.name) for p in [empty, *parts]]) for f in fields(TiePoints)))


def tie_points(
    image: ReadImage,
    pairs: ArrayLike,
    poses: Poses,
    blocks: Blocks,
    *,
    device: torch.device | str = "cpu",
    n_held: int = 6,
) -> Iterator[TiePoints]:
    """Tie points of pair after pair.

    Parameters
    ----------
    image : view -> (R, C) image in focus; at most `n_held` are held
    pairs : (P, 2) view numbers
    poses : known so far

    Yields
    ------
    TiePoints of one pair; may be empty
    """
    held: dict[int, torch.Tensor] = {}

    def view_image(view: int) -> torch.Tensor:
        if view in held:
            held[view] = held.pop(view)
        else:
            if len(held) >= n_held:
                held.pop(next(iter(held)))
            held[view] = torch.from_numpy(np.asarray(image(view), dtype=np.float32)).to(device)
        return held[view]

    for a, b in np.asarray(pairs, dtype=np.int64).reshape(-1, 2).tolist():
        yield pair_ties(view_image(a), view_image(b), poses, (a, b), blocks)


def pair_ties(
    first: torch.Tensor, second: torch.Tensor, poses: Poses, pair: tuple[int, int], blocks: Blocks
) -> TiePoints:
    """Tie points of one pair.

    Parameters
    ----------
    first, second : (R, C) float32 images of the views of the pair, on one device
    poses : known so far
    """
    a, b = pair
    centre = _grid(poses, a, b, blocks)
    if not len(centre):
        return join([])
    side, device = blocks.side, first.device
    steps = np.arange(side) - side // 2
    offset = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).astype(np.float64)
    middle, slope = _local_map(poses, a, b, centre, side)
    at = torch.as_tensor(centre, device=device).long()
    d = torch.as_tensor(steps, device=device)
    fixed = first[(at[:, :1] + d)[:, :, None], (at[:, 1:] + d)[:, None]]
    there = middle[:, None, None] + np.einsum("nij,yxj->nyxi", slope, offset)
    moving = cubic(second, torch.as_tensor(there, device=device))
    correlation = phase_correlation(fixed, moving)
    reach = blocks.search_px
    shift, height, _ = peaks(correlation, torch.zeros(len(centre), 2), (reach, reach))
    matched = middle + np.einsum("nij,nj->ni", slope, shift.cpu().numpy())
    quality = height.double().cpu().numpy()
    # a peak at the limit of the search is not one
    sure = (quality >= LEAST_QUALITY) & (np.abs(shift.cpu().numpy()).max(axis=1) < reach)
    light = torch.stack((fixed.mean((1, 2)), moving.mean((1, 2))), 1).double().cpu().numpy()
    views = np.tile(np.array([[a, b]], dtype=np.int64), (int(sure.sum()), 1))
    return TiePoints(views, centre[sure].astype(np.float64), matched[sure], quality[sure], light[sure])


def _grid(poses: Poses, a: int, b: int, blocks: Blocks) -> I64:
    """Centres (n, 2) of blocks of view a that both views hold, on a grid over their overlap."""
    margin = blocks.side // 2 + int(np.ceil(blocks.search_px)) + 2
    last = np.array(poses.size) - 1
    low, high = np.full(2, float(margin)), (last - margin).astype(np.float64)
    # where the usable part of b lies in a: its bounding box, points outside b are dropped below
    sides = [np.linspace(margin, n - margin, 5) for n in last]
    outline = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
    seen = to_view(poses, a, to_mosaic(poses, b, outline))
    low, high = np.maximum(low, seen.min(axis=0)), np.minimum(high, seen.max(axis=0))
    if (high < low).any():
        return np.empty((0, 2), np.int64)
    # not closer than half a block: closer ones say the same twice
    counts = np.minimum(blocks.grid, (2 * (high - low) / blocks.side).astype(int) + 1)
    axes = [np.linspace(p, q, n) if n > 1 else np.array([(p + q) / 2]) for p, q, n in zip(low, high, counts)]
    centre = np.rint(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)).astype(np.int64)
    there = to_view(poses, b, to_mosaic(poses, a, centre))
    inside = ((there >= margin) & (there <= last - margin)).all(axis=1)
    return np.asarray(centre[inside & ((centre >= margin - 1) & (centre <= last - margin + 1)).all(axis=1)])


def _local_map(poses: Poses, a: int, b: int, centre: I64, side: int) -> tuple[F64, F64]:
    """Pixels (n, 2) of b at block centres of a, and derivatives (n, 2, 2): a block's map is affine to 0.01 px."""
    reach = side / 4
    probes = np.array([[0, 0], [reach, 0], [-reach, 0], [0, reach], [0, -reach]])
    there = to_view(poses, b, to_mosaic(poses, a, centre[:, None] + probes))
    slope = np.stack((there[:, 1] - there[:, 2], there[:, 3] - there[:, 4]), axis=-1) / (2 * reach)
    return there[:, 0], slope
