"""Single-view measures that stand before any statistics: hot pixels, noise, unusable values.

Everything here sees one view at a time, so a series never has to be in memory whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gigascope.errors import UserError

# median absolute deviation of a normal distribution times this is its standard deviation
MAD_TO_SIGMA = 1.4826
SAMPLES_PER_VIEW = 1 << 18
LEVELS = 8
BAND_ROWS = 64
RANK_PIXELS = 1 << 16  # nine of these bands stay in the cache of one core
MAX_TYPICAL = 1 << 20

# 25 compare-exchanges that sort nine values; found optimal by Floyd, Knuth, The Art of Computer Programming 3, 5.3.4
SORT_NINE = (
    ((0, 3), (1, 7), (2, 5), (4, 8)),
    ((0, 7), (2, 4), (3, 8), (5, 6)),
    ((0, 2), (1, 3), (4, 5), (7, 8)),
    ((1, 4), (3, 6), (5, 7)),
    ((0, 1), (2, 4), (3, 5), (6, 8)),
    ((2, 3), (4, 5), (6, 7)),
    ((1, 2), (3, 4), (5, 6)),
)


class ViewSource(Protocol):
    """A stack of images read one at a time: an array, a memory map, or a Zarr array of shape (tilt, y, x)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: int, /) -> object: ...


def as_view(source: ViewSource, index: int, device: torch.device | str = "cpu") -> Tensor:
    """One view as (y, x) float32 on `device`."""
    # a copy: the view may lie in a read-only memory map
    return torch.from_numpy(np.array(source[index], dtype=np.float32, order="C")).to(device)


def as_mask(source: ViewSource | None, index: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """One validity mask as (y, x) bool; all true without a source."""
    if source is None:
        return torch.ones(tuple(shape), dtype=torch.bool, device=device)
    return torch.from_numpy(np.ascontiguousarray(np.asarray(source[index]) != 0)).to(device)


def sample(values: Tensor, n: int = SAMPLES_PER_VIEW) -> Tensor:
    """About n values at a fixed stride: quantiles of a 4k view to 0.2 %, and the same ones every time."""
    flat = values.reshape(-1)
    # a stride that is coprime to the common image widths walks over all columns
    stride = max(1, flat.numel() // n)
    return flat[:: stride + (stride > 1 and stride % 2 == 0)]


def median(values: Tensor) -> float:
    """Median as a number; 0 for nothing."""
    return float(values.median()) if values.numel() else 0.0


def robust_sigma(values: Tensor) -> float:
    """1.4826 MAD; the standard deviation where half of the values are equal (counters with few levels)."""
    centre = median(values)
    spread = MAD_TO_SIGMA * median((values - centre).abs())
    if spread > 0 or values.numel() < 2:
        return spread
    return float(values.double().std())


def fault(values: Tensor) -> str:
    """ "not finite", "constant" or "" for the usable values of a view."""
    if not bool(torch.isfinite(values).all()):
        return "not finite"
    return "constant" if values.numel() == 0 or bool(values.max() == values.min()) else ""


def raise_unusable(not_finite: Sequence[int], constant: Sequence[int]) -> None:
    """Refuse a series with views that cannot be used, naming all of them; nothing happens when both lists are empty.

    Raises
    ------
    UserError : views with NaN or infinite values, or constant views, by index
    """
    if not not_finite and not constant:
        return
    kinds = {"NaN or infinite pixels": not_finite, "the same value everywhere": constant}
    found = [f"{what} in view{'s' * (len(bad) > 1)} {listed(bad)}" for what, bad in kinds.items() if bad]
    raise UserError(
        "; ".join(found) + " (counted from 0 in file order).",
        where="tilt series",
        do=f"Leave them out with ingest.exclude: {sorted([*not_finite, *constant])}, or replace the images.",
    )


def listed(indices: Sequence[int], most: int = 20) -> str:
    """View numbers for a message, cut after `most`."""
    shown = ", ".join(str(i) for i in indices[:most])
    return shown if len(indices) <= most else f"{shown} and {len(indices) - most} more"


def noise_sigma(view: Tensor, valid: Tensor | None = None) -> float:
    """Standard deviation of pixel-to-pixel noise, from mixed second differences that cancel smooth structure.

    The kernel (1, -2, 1) x (1, -2, 1) / 6 has unit norm and does not see anything linear in either axis (Immerkaer,
    Comput. Vis. Image Underst. 64 (1996) 300). Noise that depends on the signal is averaged over groups of equal
    brightness.

    Parameters
    ----------
    view : (y, x) float
    valid : (y, x) bool
    """
    if min(view.shape) < 3:
        return 0.0
    parts = [
        _second_differences(view[rows], None if valid is None else valid[rows]) for rows in spread_rows(view.shape)
    ]
    difference, brightness = (sample(torch.cat(columns)) for columns in zip(*parts))
    if difference.numel() < 16:
        return 0.0
    order = torch.argsort(brightness)
    groups = torch.tensor_split(difference[order], min(LEVELS, difference.numel() // 16))
    return float(np.sqrt(np.mean([robust_sigma(group) ** 2 for group in groups])))


def _second_differences(view: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mixed second differences, and the mean brightness around each, where the whole neighbourhood is valid; flat."""
    rows = view[:-2] - 2.0 * view[1:-1] + view[2:]
    difference = (rows[:, :-2] - 2.0 * rows[:, 1:-1] + rows[:, 2:]) / 6.0
    brightness = _box3(view)
    if valid is None or bool(valid.all()):
        return difference.reshape(-1), brightness.reshape(-1)
    inside = _box3(valid.to(view.dtype)) > 1.0 - 1e-3
    return difference[inside], brightness[inside]


def ranks(view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Third lowest, median and third highest of every 3 x 3 neighbourhood (mirrored at the border), each (y, x)."""
    padded = torch.nn.functional.pad(view[None, None], (1, 1, 1, 1), mode="reflect")[0, 0]
    out = [torch.empty_like(view) for _ in range(3)]
    height, width = view.shape
    step = max(1, RANK_PIXELS // width)
    for top in range(0, height, step):
        rows = min(step, height - top)
        nine = [padded[top + i : top + i + rows, j : j + width] for i in range(3) for j in range(3)]
        for layer in SORT_NINE:
            for a, b in layer:
                nine[a], nine[b] = torch.minimum(nine[a], nine[b]), torch.maximum(nine[a], nine[b])
        for target, rank in zip(out, (2, 4, 6)):
            target[top : top + rows] = nine[rank]
    return out[0], out[1], out[2]


def replace_spikes(view: Tensor, threshold: float, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Replace X-ray hits and hot or dead pixels by the median of their 3 x 3 neighbourhood.

    A spike stands out of all but one of its neighbours by more than `threshold` robust sigma of |v - median|: a line or
    a corner of the specimen does not. Sigma is taken among pixels of similar brightness, so that the bright parts of a
    dark-field image, which are noisier than its background, are not mistaken for spikes.

    Parameters
    ----------
    view : (y, x) float32
    threshold : in robust sigma; 0 or infinity: nothing is replaced
    valid : (y, x) bool, pixels that may be looked at

    Returns
    -------
    (y, x) float32 cleaned, the median where not valid; (y, x) bool true where replaced
    """
    nothing = torch.zeros_like(view, dtype=torch.bool)
    if min(view.shape) < 3 or not 0 < threshold < float("inf"):
        return view, nothing
    if valid is not None and not bool(valid.all()):
        # the median keeps the ranks at the border of the usable area from seeing a step, or NaN
        view = torch.where(valid, view, view.new_tensor(median(sample(view[valid]))))
    low, middle, high = ranks(view)
    excess = torch.maximum(view - high, low - view)
    edges, sigma = _sigma_by_level(view, middle, valid)
    # few pixels pass the lowest limit, and only they need a look at their own level's
    spikes = (excess > threshold * float(sigma.min())) & (excess > 0)
    if valid is not None:
        spikes &= valid
    suspects = spikes.nonzero(as_tuple=True)
    if len(suspects[0]):
        limit = threshold * sigma[torch.bucketize(middle[suspects], edges, right=True)]
        spikes[suspects] = excess[suspects] > limit
    return torch.where(spikes, middle, view), spikes


def typical_values(view: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
    """Values of a view without its spikes, as a flat array: all of them, or of evenly spread rows of a large view."""
    parts = []
    for rows in spread_rows(view.shape):
        band = view[rows]
        inside = None if valid is None else valid[rows]
        if inside is not None and not bool(inside.any()):
            continue
        cleaned, _ = replace_spikes(band, threshold, inside)
        parts.append(cleaned.reshape(-1) if inside is None else cleaned[inside])
    return torch.cat(parts) if parts else view.new_empty(0)


def spread_rows(shape: Sequence[int]) -> list[slice]:
    """Bands of rows, evenly spread, that hold about a million pixels; all rows of a smaller view."""
    n_bands = max(1, MAX_TYPICAL // (BAND_ROWS * shape[1]))
    if n_bands * BAND_ROWS >= shape[0]:
        return [slice(0, shape[0])]
    tops = np.linspace(0, shape[0] - BAND_ROWS, n_bands).astype(int).tolist()
    return [slice(top, top + BAND_ROWS) for top in tops]


def _sigma_by_level(view: Tensor, middle: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Robust sigma of view - median among pixels of similar median, never below that of the whole view.

    Returns
    -------
    edges : (groups - 1,) medians between the groups
    sigma : (groups,)
    """
    some, level = sample(view), sample(middle)
    if valid is not None:
        inside = sample(valid)
        some, level = some[inside], level[inside]
    residual = some - level
    floor = robust_sigma(residual)
    if len(level) < 2 * LEVELS:
        return view.new_empty(0), view.new_tensor([floor])
    groups = torch.tensor_split(torch.argsort(level), LEVELS)
    edges = torch.stack([level[group[0]] for group in groups[1:]])
    return edges, view.new_tensor([max(robust_sigma(residual[group]), floor) for group in groups])


def _box3(view: Tensor) -> Tensor:
    rows = view[:-2] + view[1:-1] + view[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9.0
