"""Focus of a whole view in bounded memory, from two window sizes, with gaps filled from their surroundings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gigascope.errors import ShapeError
from gigascope.topography.focus.peak import METHODS, FocusPeak, Method, estimate_peak

Sharpness = Callable[[Tensor, float, float], Tensor]
LUMINANCE = (0.2126, 0.7152, 0.0722)
# Error of an index that is not noise (texture within the window, shape of the curve), slices: the RMSE left on
# noise-free simulated stacks of smooth relief.
SYSTEMATIC = 0.03


class Sliceable(Protocol):
    """A NumPy array, a tensor, a memory map, a Zarr array: what has a shape and gives blocks."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, key: tuple[slice, slice]) -> object: ...


def luminance(block: object, device: torch.device | str = "cpu") -> Tensor:
    """Grey values as float32: (z, r, c) as they are, (z, r, c, 3) weighted as in ITU-R BT.709."""
    if isinstance(block, np.ndarray) and min(block.strides) < 0:
        # a turned view, which torch does not know
        block = block.copy()
    values = torch.as_tensor(block, device=device)
    if values.dtype == torch.uint16:
        # torch computes little on uint16
        values = values.to(torch.int32)
    if values.ndim < 4:
        return values.float()
    if values.shape[-1] == 1:
        return values[..., 0].float()
    weights = torch.tensor(LUMINANCE, device=values.device)
    return values[..., :3].float() @ weights


def focus_peak(
    stack: Sliceable,
    *,
    method: Method | Literal["combined"] = "combined",
    sigmas: Sequence[float] = (8.0, 4.0),
    truncate: float = 2.0,
    working_bytes: int = 2**28,
    device: torch.device | str = "cpu",
    sharpness: Sharpness | None = None,
) -> FocusPeak:
    """Sub-slice focus of every pixel of a view, computed in row tiles with a halo.

    Parameters
    ----------
    stack : (z, r, c) or (z, r, c, 3), any integer or floating dtype; only blocks of rows of it are read
    method : combined, the lens estimator with every window of `sigmas`, see :func:`combine`; or one of
        :func:`gigascope.topography.focus.peak.estimate_peak` with the first of `sigmas`
    sigmas : radii of the windows of the sharpness, pixels, largest first
    truncate : windows end at this many sigma
    working_bytes : what a tile may take: two float32 copies of its rows of the stack, and its halo
    device : where it is computed; the result is there too
    sharpness : (stack float32 (z, r, c), sigma, truncate) -> S; none: the kernel `filters.sharpness`

    Returns
    -------
    FocusPeak of (r, c) maps; independent of `working_bytes` to rounding

    Raises
    ------
    ShapeError : not (z, r, c[, colour]), or fewer than three slices
    """
    shape = tuple(stack.shape)
    if len(shape) not in (3, 4) or shape[0] < 3:
        raise ShapeError(f"focus_peak: expected (z >= 3, r, c) or (z >= 3, r, c, colour), got {shape}")
    if method != "combined" and method not in METHODS:
        raise ValueError(f"method {method!r}: expected combined or one of {', '.join(METHODS)}")
    measure = sharpness or sharpness_kernel()
    used = list(sigmas) if method == "combined" else list(sigmas)[:1]
    n_z, rows, columns = shape[:3]
    halo = max(2 * math.ceil(truncate * sigma) + 1 for sigma in used)
    step = max(32, working_bytes // (8 * n_z * columns) - 2 * halo)
    tiles = []
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        low, high = max(0, start - halo), min(rows, stop + halo)
        peaks = []
        for sigma in used:
            volume = _tile_sharpness(stack, (low, high), (start - low, stop - low), sigma, truncate, device, measure)
            peaks.append(estimate_peak(volume, "lens" if method == "combined" else method, sigma=sigma))
            del volume
        tiles.append(combine(peaks) if len(peaks) > 1 else peaks[0])
    return FocusPeak(*(torch.cat([getattr(tile, name) for tile in tiles]) for name in _MAPS))


_MAPS = ("index", "sharpness", "curvature", "confidence")


def sharpness_kernel() -> Sharpness:
    """Imported when first needed: compiled kernels are slow to import."""
    from gigascope.kernels.filters import sharpness

    return sharpness


def _tile_sharpness(
    stack: Sliceable,
    rows: tuple[int, int],
    keep: tuple[int, int],
    sigma: float,
    truncate: float,
    device: torch.device | str,
    measure: Sharpness,
) -> Tensor:
    """S of some rows, a few slices at a time so that the temporaries of the filter stay small beside the volume."""
    n_z = stack.shape[0]
    volume = None
    for first in range(0, n_z, 8):
        block = luminance(stack[first : min(n_z, first + 8), rows[0] : rows[1]], device)
        part = measure(block, sigma, truncate)[:, keep[0] : keep[1]]
        if volume is None:
            volume = part.new_empty((n_z, *part.shape[1:]))
        volume[first : first + len(part)] = part
    assert volume is not None
    return volume


def combine(peaks: Sequence[FocusPeak]) -> FocusPeak:
    """One index from several window sizes: the mean with the inverse of each one's expected squared error.

    Parameters
    ----------
    peaks : largest window first, maps of one shape

    Returns
    -------
    FocusPeak; sharpness and curvature are those of the smallest window where it counts for more, else of the larger

    Notes
    -----
    A large window averages more noise and blurs more relief. Where a smaller one disagrees by more than its own
    expected error, the difference is charged to the larger: at an edge the smaller wins, in noise the larger.
    """
    result = peaks[0]
    for finer in peaks[1:]:
        error = [_variance(p.confidence) for p in (result, finer)]
        apart = ((finer.index - result.index).abs() - error[1].sqrt()).clamp_min(0.0)
        weights = [1.0 / (error[0] + SYSTEMATIC**2 + apart**2), 1.0 / (error[1] + SYSTEMATIC**2)]
        share = weights[1] / (weights[0] + weights[1])
        index = result.index + share * (finer.index - result.index)
        mine = share > 0.5
        result = FocusPeak(
            index,
            torch.where(mine, finer.sharpness, result.sharpness),
            torch.where(mine, finer.curvature, result.curvature),
            torch.where(mine, finer.confidence, result.confidence),
        )
    return result


def _variance(confidence: Tensor) -> Tensor:
    """Squared error in slices that a confidence stands for: c = 1 / (1 + (e / 0.25)^2)."""
    return 0.0625 * (1.0 / confidence.clamp_min(1e-4) - 1.0)


def settle(peak: FocusPeak, *, trust: float = 0.5) -> Tensor:
    """Index map whose doubtful pixels follow the trusted ones around them.

    Parameters
    ----------
    peak : of :func:`focus_peak`
    trust : confidence from which a pixel keeps its own index; below, it goes over to its surroundings linearly

    Returns
    -------
    (r, c) float32; no pixel leaves the range of the trusted ones. Without any trusted pixel, the plain mean

    Notes
    -----
    Pull-push (Gortler et al., The Lumigraph, SIGGRAPH 1996, 3.4.1): weighted means on coarser and coarser grids, and
    each level filled from the next coarser one by as much as its own weight lacks.

    Before that, leaks are taken out: in a blank area the only contrast is what defocus brings in from the edges around
    it, so its curve peaks, clearly and wrongly, far from focus. Such a peak is weak beside those of its surroundings
    and apart from them in index; weak peaks that agree, and strong ones that differ, stay.
    """
    return pull_push(peak.index, (without_leaks(peak) / trust).clamp(0.0, 1.0))


# Half-width of the surroundings of a pixel: the blur of edges at the ends of usual stacks reaches that far.
SURROUNDINGS_PX = 64
# A leak has less than this share of the strongest sharpness around it, and lies more slices than this from its index.
WEAK, APART = 0.3, 1.0


def without_leaks(peak: FocusPeak) -> Tensor:
    """Confidence (r, c) with 0 at weak peaks that disagree with the strong ones around them, see :func:`settle`."""
    strongest = _local_maximum(peak.sharpness, SURROUNDINGS_PX)
    share = peak.sharpness / strongest.clamp_min(1e-12)
    expected = pull_push(peak.index, peak.confidence * (share / (2.0 * WEAK)).clamp_max(1.0) ** 4)
    leak = (share < WEAK) & ((peak.index - expected).abs() > APART)
    return torch.where(leak, torch.zeros_like(share), peak.confidence)


def _local_maximum(values: Tensor, reach: int) -> Tensor:
    """Maximum over about +- reach: exact on blocks of an eighth of it, which is as fine as its use needs."""
    block = max(1, reach // 8)
    rows, columns = values.shape
    pooled = functional.max_pool2d(values[None, None], block, ceil_mode=True)
    side = 2 * (reach // block) + 1
    pooled = functional.max_pool2d(pooled, side, stride=1, padding=side // 2)
    wide = pooled.repeat_interleave(block, 2).repeat_interleave(block, 3)
    return wide[0, 0, :rows, :columns]


def pull_push(values: Tensor, weight: Tensor) -> Tensor:
    """(r, c) `values` where `weight` is 1, and where it is less the weighted means of what is around.

    Parameters
    ----------
    values, weight : (r, c) float32, weights 0..1
    """
    if float(weight.max()) <= 0.0:
        return torch.full_like(values, float(values.mean()))
    levels = [(values, weight)]
    while max(levels[-1][0].shape) > 1:
        value, known = levels[-1]
        grid = (value * known, known)
        pulled = [functional.avg_pool2d(g[None, None], 2, ceil_mode=True, count_include_pad=False)[0, 0] for g in grid]
        mean = pulled[0] / pulled[1].clamp_min(1e-12)
        # four pixels known by a quarter make one that is known
        levels.append((mean, (4.0 * pulled[1]).clamp_max(1.0)))
    filled = levels[-1][0]
    for value, known in reversed(levels[:-1]):
        # a stretch to 2 n and a crop keep the pixel centres of the pooling where an axis is odd
        wide = functional.interpolate(filled[None, None], scale_factor=2, mode="bilinear", align_corners=False)
        filled = known * value + (1.0 - known) * wide[0, 0, : value.shape[0], : value.shape[1]]
    return filled
