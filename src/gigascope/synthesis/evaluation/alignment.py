"""Whether an adapted image still shows the nuclei where the labels have them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.metrics.distribution import Separation
from gigascope.metrics.shift import GlobalShift, block_shift
from gigascope.synthesis.evaluation.volumes import Region, Volume, lattice

F64 = NDArray[np.float64]
Progress = Callable[..., Iterable[Any]]
# Background that is compared with nuclei lies within this distance of one.
NEAR_UM = 3.0
BLOCK = (32, 128, 128)
# Blocks are compared with this share of nuclei.
LEAST_SHARE = 0.01
# An image is taken for aligned below these, voxels.
MEDIAN, P95 = 0.5, 1.0


@dataclass(frozen=True)
class Alignment:
    """Of one adapted image.

    Attributes
    ----------
    name : of the image
    auc, auc_naive : chance that a voxel of a nucleus is brighter than one beside it, here and in the simulated image
    shift : (3,) of the whole image, voxels (z, y, x)
    blocks : (n, 6) float64: middle (z, y, x) in micrometres and shift (z, y, x) in voxels of each block
    """

    name: str
    auc: float
    auc_naive: float
    shift: F64
    blocks: F64

    @property
    def lengths(self) -> F64:
        """(n,) voxels by which each block has moved."""
        return np.linalg.norm(self.blocks[:, 3:], axis=1)

    @property
    def median(self) -> float:
        """Of the blocks; NaN without any."""
        return float(np.median(self.lengths)) if len(self.blocks) else math.nan

    @property
    def p95(self) -> float:
        """95th percentile of the blocks."""
        return float(np.quantile(self.lengths, 0.95)) if len(self.blocks) else math.nan

    @property
    def passed(self) -> bool:
        """Median and 95th percentile are below their limits."""
        return self.median < MEDIAN and self.p95 < P95


def alignment(
    adapted: Volume,
    naive: Volume,
    most: int,
    size: Sequence[int] = BLOCK,
    progress: Progress = lambda items, **_: items,
) -> Alignment:
    """Compare an adapted image with the simulated one and its labels, block by block.

    Parameters
    ----------
    most : blocks
    size : of a block, voxels (z, y, x)
    """
    boxes = lattice(naive.shape, [min(s, n) for s, n in zip(size, naive.shape)])
    if len(boxes) > most:
        boxes = [boxes[int(k)] for k in np.linspace(0, len(boxes) - 1, most).round()]
    together, rows = GlobalShift(), []
    scales = [_scale(v, boxes) for v in (adapted, naive)]
    separations = [Separation(), Separation()]
    for box in progress(boxes, what=f"comparing {naive.name} with its labels", unit="block"):
        labels = naive.read_labels(box) > 0
        if labels.mean() < LEAST_SHARE:
            continue
        images = [v.read(box) for v in (adapted, naive)]
        near = labels | (ndimage.distance_transform_edt(~labels, sampling=naive.voxel_um) <= NEAR_UM)
        for image, (low, high), separation in zip(images, scales, separations):
            separation.add(np.clip((image[near].astype(np.float64) - low) / (high - low), 0, 1), labels[near])
        if min(box[k].stop - box[k].start for k in range(3)) < 4:
            continue
        shift, spectrum = block_shift(images[1], images[0])
        together.add(spectrum)
        centre = [(r.start + r.stop) / 2 * v for r, v in zip(box, naive.voxel_um)]
        rows.append([*centre, *shift])
    blocks = np.array(rows, np.float64).reshape(-1, 6)
    return Alignment(naive.name, separations[0].auc, separations[1].auc, together.value, blocks)


def _scale(volume: Volume, boxes: Sequence[Region]) -> tuple[float, float]:
    """Least and largest grey value of the blocks, for ranks that are counted in bins."""
    low, high = math.inf, -math.inf
    for box in boxes:
        image = volume.read(box)
        low, high = min(low, float(image.min())), max(high, float(image.max()))
    return low, max(high, low + 1)
