"""Whether the slices of a stack come in the order of focus, and which order that is.

Moving through focus, every place of the specimen grows sharper until it is in focus and blurs again after: in the right
order its sharpness rises once and falls once. Slices whose files were numbered otherwise break that almost everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gigascope.errors import ShapeError
from gigascope.kernels.filters import gaussian
from gigascope.topography.focus.stream import Sharpness, Sliceable, luminance, sharpness_kernel

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

# An order is right when no other has less than this share of its cost (detours and length): noise far out of focus
# makes 0.96 to 1 in real and simulated stacks that are in order, two exchanged neighbours near focus 0.4 to 0.86.
BETTER = 0.9
# Cost of the best order over the mean cost of random ones, above which there is no pass through focus at all: 0.03 to
# 0.3 in stacks of a focused specimen, 0.6 in noise.
NO_PASS = 0.45
# Contrast that is left far out of focus, relative to the sharpest slice: differences below are noise.
TAIL = 0.03
# What a detour may cost in length: slices far out of focus on either side are told apart by little else.
PER_LENGTH = 0.03
# How much two pictures without any likeness count in that length, in units of ln S.
PER_PICTURE = 2.0


@dataclass(frozen=True)
class FocusOrder:
    """Order of focus of a stack.

    Parameters
    ----------
    order : (z,) int64, slices as given in the order of focus; the given order where that is right or cannot be judged
    in_order : the given order is an order of focus
    judged : enough of the specimen comes into focus at different slices to tell
    detours : (given, found), share of the rises and falls of sharpness that go the wrong way, 0..1
    sentence : what was found, for a person
    """

    order: I64
    in_order: bool
    judged: bool
    detours: tuple[float, float]
    sentence: str


def focus_order(
    stack: Sliceable,
    *,
    blocks: int = 24,
    sigma: float = 4.0,
    sharpness: Sharpness | None = None,
    names: Sequence[str] | None = None,
) -> FocusOrder:
    """Find the order of focus from how sharp each part of each slice is.

    Parameters
    ----------
    stack : (z, r, c) or (z, r, c, colours); not registered, whole slices are read one after another
    blocks : the picture is judged in about blocks x blocks parts
    sigma : window of the sharpness, pixels of the picture reduced to about 800 columns
    sharpness : as in :func:`gigascope.topography.focus.stream.focus_peak`
    names : of the slices, for the sentence; none: their numbers

    Returns
    -------
    FocusOrder. Which end is nearer to the camera cannot be seen: of the two directions the one nearer to the order
    given is returned, and the sentence says so

    Raises
    ------
    ShapeError : not (z >= 2, r, c[, colours])
    """
    shape = tuple(stack.shape)
    if len(shape) not in (3, 4) or shape[0] < 2:
        raise ShapeError(f"focus_order: expected (z >= 2, r, c) or (z >= 2, r, c, colours), got {shape}")
    return order_of_curves(*_describe(stack, blocks, sigma, sharpness or sharpness_kernel()), names)


def order_of_curves(curves: F64, unlike: F64 | None = None, names: Sequence[str] | None = None) -> FocusOrder:
    """The same from the sharpness (z, blocks) of parts of the picture, each relative to its largest.

    `unlike` (z, z) says how different the pictures of two slices are, 0 to about 1: slices blurred on either side of
    focus may be equally sharp, but a change of magnification or perspective tells them apart.
    """
    n_z = len(curves)
    given = np.arange(n_z)
    start = detours(curves)
    why = _unjudged(curves)
    if why:
        return FocusOrder(given, True, False, (start, start), f"order of focus not judged: {why}; files' order kept.")
    found, ratio, share = _straightest(curves, unlike)
    left = detours(curves[found])
    if ratio > BETTER and share <= NO_PASS:
        text = "the slices are in the order of focus (towards or away from the camera cannot be seen)."
        return FocusOrder(given, True, True, (start, start), text)
    if share > NO_PASS:
        text = (
            f"the slices do not look like one pass through focus ({100 * start:.0f} % of the changes in sharpness go "
            "the wrong way), and no other order is clearly better: files' order kept."
        )
        return FocusOrder(given, False, False, (start, left), text)
    # the direction that moves fewer slices
    if np.abs(found - given).sum() > np.abs(found[::-1] - given).sum():
        found = found[::-1].copy()
    moved = int((found != given).sum())
    listed = ", ".join(str(k) if names is None else names[k] for k in found)
    text = (
        f"the files' order is not the order of focus: {moved} of {n_z} slices were put elsewhere (order {listed}); "
        "which end is nearer to the camera cannot be seen, so the direction may be the reverse."
    )
    return FocusOrder(found, False, True, (start, left), text)


def detours(curves: F64) -> float:
    """Share of all rises and falls of ln S along z that go the wrong way: down before the peak or up after it.

    Parameters
    ----------
    curves : (z, blocks) sharpness, each block's largest being 1; none where sharpness changes nowhere
    """
    if not curves.shape[1]:
        return 0.0
    levels, weights = _levels(curves)
    walked = float(np.abs(np.diff(levels, axis=0)).sum(axis=0) @ weights)
    return float(_wrong(levels[None], weights)[0]) / max(walked, 1e-30)


def _levels(curves: F64) -> tuple[F64, F64]:
    """(z, depths) ln S, one curve per slice in which something is sharpest, noise levelled out; and their weights.

    Blocks that are sharpest in one slice are averaged, which takes noise off the flanks; the root of their number
    is the weight, so that every depth of the specimen counts, however small its area.
    """
    peaks = curves.argmax(axis=0)
    depths, counts = np.unique(peaks, return_counts=True)
    means = np.stack([curves[:, peaks == k].mean(axis=1) for k in depths], axis=1)
    least, largest = means.min(axis=0), means.max(axis=0)
    # the least sharpness is mostly noise, and fluctuates by a few per cent of itself
    levels = np.log((means - least) / largest + TAIL + 0.3 * least / largest)
    weights = np.sqrt(counts)
    return levels, weights / weights.sum()


def _wrong(levels: F64, weights: F64) -> F64:
    """(n,) for orders (n, z, blocks): the way of each curve beyond the rise to its peak and the fall to its end."""
    walked = np.abs(np.diff(levels, axis=1)).sum(axis=1)
    needed = 2.0 * levels.max(axis=1) - levels[:, 0] - levels[:, -1]
    return (walked - needed) @ weights / 2.0


def _unjudged(curves: F64) -> str:
    """Why the order cannot be told; empty if it can."""
    if len(curves) < 4:
        return "too few slices"
    if curves.shape[1] < 4:
        return "too little texture that grows sharper or blurs"
    # a level specimen: both sides of its one focus look alike
    counts = np.bincount(curves.argmax(axis=0), minlength=len(curves))
    if (counts >= 0.05 * curves.shape[1]).sum() < 2:
        return "everything is sharp in one slice, and both sides of it look alike"
    return ""


def _describe(stack: Sliceable, blocks: int, sigma: float, measure: Sharpness) -> tuple[F64, F64]:
    """(z, blocks) sharpness over its largest, of the half of the blocks that change most; (z, z) unlikeness."""
    n_z, rows, columns = tuple(stack.shape)[:3]
    reduce = max(1, round(max(rows, columns) / 800))
    curves, pictures = [], []
    for k in range(n_z):
        image = luminance(stack[k : k + 1, 0:rows])
        if reduce > 1:
            image = functional.avg_pool2d(image[None], reduce)[0]
        sharp = measure(image.contiguous(), sigma, 2.0)
        down, across = (max(1, min(blocks, n // 8)) for n in sharp.shape[1:])
        curves.append(functional.adaptive_avg_pool2d(sharp[None], (down, across))[0].flatten())
        pictures.append(_coarse(image))
    values = torch.stack(curves).double().numpy()
    largest, least = values.max(axis=0), values.min(axis=0)
    contrast = np.where(largest > 0, (largest - least) / np.maximum(largest, 1e-30), 0.0)
    kept = (contrast >= np.median(contrast)) & (contrast > 0.1)
    likeness = torch.stack(pictures).double().numpy()
    unlike = np.sqrt(np.maximum(1.0 - likeness @ likeness.T, 0.0))
    return values[:, kept] / largest[kept], unlike


def _coarse(image: Tensor) -> Tensor:
    """(n,) coarse contrast of a slice (1, r, c), which survives its blur; of length 1."""
    small = functional.avg_pool2d(image[None], max(1, min(image.shape[1:]) // 100))[0]
    contrast = gaussian(small.contiguous(), 2.0) / gaussian(small.contiguous(), 10.0).clamp_min(1.0) - 1.0
    return (contrast / contrast.norm().clamp_min(1e-12)).flatten()


def _straightest(curves: F64, unlike: F64 | None) -> tuple[I64, float, float]:
    """The order with the least cost, that cost over the given order's, and over that of random ones."""
    levels, weights = _levels(curves)
    distance2 = ((levels[:, None] - levels[None]) ** 2 * weights).sum(axis=2)
    distance = np.sqrt(distance2 if unlike is None else distance2 + (PER_PICTURE * unlike) ** 2)

    def cost(path: I64) -> float:
        return float(_cost(path[None], levels, weights, distance)[0])

    rng = np.random.default_rng(len(curves))
    by_chance = float(np.mean([cost(rng.permutation(len(curves))) for _ in range(32)]))
    given = np.arange(len(curves))
    near = _improve(given, levels, weights, distance)
    tried = [near]
    # where moves from the given order gain little it is at the bottom, and nothing else need be tried
    if cost(near) <= BETTER * cost(given) or cost(near) > NO_PASS * by_chance:
        tried += [_improve(start, levels, weights, distance) for start in _starts(distance)]
    best = min(tried, key=cost)
    return best, cost(best) / max(cost(given), 1e-30), cost(best) / max(by_chance, 1e-30)


def _starts(distance: F64) -> list[I64]:
    """The order along the Fiedler vector (Atkins et al., SIAM J. Comput. 28, 297 (1998)), and some greedy chains."""
    n = len(distance)
    scale = np.median(np.sort(distance, axis=1)[:, 1:3]) + 1e-12
    affinity = np.exp(-((distance / scale) ** 2) / 2.0) + 1e-9
    _, vectors = np.linalg.eigh(np.diag(affinity.sum(axis=1)) - affinity)
    starts = [np.argsort(vectors[:, 1])]
    # the ends of a stack are far from most slices
    for first in np.argsort(-distance.sum(axis=1))[:3]:
        chain, left = [int(first)], set(range(n)) - {int(first)}
        while left:
            nearest = min(left, key=lambda j, last=chain[-1]: distance[last, j])  # type: ignore[misc]
            chain.append(nearest)
            left.remove(nearest)
        starts.append(np.array(chain))
    return starts


def _improve(path: I64, levels: F64, weights: F64, distance: F64) -> I64:
    """Moves of one slice and reversals of runs (Croes, Oper. Res. 6, 791 (1958)) until none lessens the cost."""
    path, n = path.copy(), len(path)
    current = float(_cost(path[None], levels, weights, distance)[0])
    improved = True
    while improved:
        improved = False
        for i in range(n):
            rest = np.delete(path, i)
            moves = [np.insert(rest, j, path[i]) for j in range(n) if j != i]
            moves += [np.concatenate((path[:i], path[i : j + 1][::-1], path[j + 1 :])) for j in range(i + 2, n)]
            candidates = np.stack(moves)
            costs = _cost(candidates, levels, weights, distance)
            k = int(costs.argmin())
            if costs[k] < current - 1e-9:
                path, current, improved = candidates[k], float(costs[k]), True
    return path


def _cost(paths: I64, levels: F64, weights: F64, distance: F64) -> F64:
    """(n,) detours of the orders (n, z), and a little of their length, which decides among almost equals."""
    length: F64 = distance[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    return _wrong(levels[paths], weights) + PER_LENGTH * length
