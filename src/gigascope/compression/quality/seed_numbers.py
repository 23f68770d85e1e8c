"""The numbers of VolMicro by its own definitions, to stand beside the honest ones.

It counts 22 bytes for each Gaussian (eleven float16) and nothing else, and measures PSNR at 100,000 random voxels of
its gate only, at the parameters in memory, by the k nearest centres. No file of 22 bytes per Gaussian was ever decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.decoding.resolution import background_at
from gigascope.compression.mixture import Mixture
from gigascope.compression.quality.nearest import NearestGaussians
from gigascope.metrics.image import Voxels, boxes

BYTES = 22
SAMPLES = 100_000

# (P, 3) voxels (z, y, x) -> (P,) values in the unit of the file
PointValues = Callable[[Tensor], Tensor]


def seed_numbers(
    original: Voxels,
    decoded: Voxels,
    gate: Voxels,
    n_gaussians: int,
    scale: float,
    nearest: PointValues | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """VolMicro's ratio, size, rate and PSNR of this result.

    Parameters
    ----------
    original, decoded : (z, y, x), units of the file
    gate : voxels that its PSNR looks at; its own gate was trained to mark what is above 10 % of the range
    n_gaussians : N
    scale : max - min of the original, its peak
    nearest : its evaluator on this mixture (:func:`nearest_values`); none: only the decoded volume is measured
    seed : of the choice of voxels

    Returns
    -------
    name to {"value", "unit", "label"}; the value is none where it does not exist (an empty gate)
    """
    n_voxels = math.prod(original.shape)
    size = BYTES * n_gaussians
    found = {
        "seed_ratio": (2 * n_voxels / size if size else math.nan, "", "Ratio as VolMicro counts, 2 D H W / (22 N)"),
        "seed_bytes": (float(size), "byte", "Size as VolMicro counts, 22 bytes per Gaussian and nothing else"),
        "seed_bpp": (8 * size / n_voxels, "bit/voxel", "Rate as VolMicro counts"),
    }
    points, (truth, values) = random_voxels(gate, (original, decoded), np.random.default_rng(seed))
    about = f"at {len(points):,} random voxels of its gate"
    found["seed_psnr"] = (_psnr(truth, values, scale), "dB", f"PSNR as VolMicro samples it, {about}, decoded file")
    if nearest is not None:
        values = nearest(torch.from_numpy(points.astype(np.float32))).cpu().double().numpy()
        label = f"PSNR as VolMicro samples it, {about}, by the 32 nearest centres"
        found["seed_psnr_nearest"] = (_psnr(truth, values, scale), "dB", label)
    return {
        name: {"value": value if math.isfinite(value) else None, "unit": unit, "label": label}
        for name, (value, unit, label) in found.items()
    }


def nearest_values(
    mixture: Mixture,
    background: Tensor,
    cell: tuple[int, int, int],
    shape: tuple[int, int, int],
    window: tuple[float, float],
) -> PointValues:
    """VolMicro's evaluator on a mixture and its background, in the unit of the file.

    Parameters
    ----------
    mixture : all Gaussians of one frame, voxels of the volume
    background, cell : grid (nz, ny, nx) in units of the amplitudes and its cell, voxels
    shape : (z, y, x) of the volume
    window : (offset, scale): value = offset + scale * field
    """
    evaluator = NearestGaussians(mixture, shape)
    offset, scale = window

    def values(points: Tensor) -> Tensor:
        field = evaluator.query(points).cpu() + background_at(background.cpu(), cell, points.cpu())
        return offset + scale * field

    return values


def random_voxels(
    gate: Voxels, volumes: tuple[Voxels, ...], rng: np.random.Generator, n: int = SAMPLES
) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    """Draw voxels inside a mask, with replacement, and read volumes there, box by box.

    Returns
    -------
    (n, 3) int64 places (z, y, x), in the order of the array, and the (n,) float64 values of each volume; n is 0 where
    the mask is empty
    """
    counts = [int(np.count_nonzero(np.asarray(gate[box]))) for box in boxes(gate.shape)]
    total = sum(counts)
    ranks = np.sort(rng.integers(0, total, n)) if total else np.zeros(0, np.int64)
    places, values = [np.zeros((0, 3), np.int64)], [[np.zeros(0)] for _ in volumes]
    for box, before, count in zip(boxes(gate.shape), np.cumsum([0, *counts]), counts):
        mine = ranks[(ranks >= before) & (ranks < before + count)] - before
        if len(mine):
            inside = np.flatnonzero(np.asarray(gate[box]))[mine]
            local = np.unravel_index(inside, tuple(cut.stop - cut.start for cut in box))
            places.append(np.stack(local, 1) + [cut.start for cut in box])
            for kept, volume in zip(values, volumes):
                kept.append(np.asarray(volume[box])[local].astype(np.float64))
    return np.concatenate(places), [np.concatenate(kept) for kept in values]


def _psnr(truth: NDArray[np.float64], values: NDArray[np.float64], peak: float) -> float:
    if len(truth) == 0:
        return math.nan
    error = float(np.mean((truth - values) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)
