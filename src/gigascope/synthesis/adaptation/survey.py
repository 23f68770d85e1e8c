"""What all images of a domain hold: a histogram of their grey values, and where there is something to see."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.store.create import plan_of
from gigascope.store.plan import Region
from gigascope.synthesis.adaptation.domain import Domain, Volume

LEVELS = 1 << 16
# Of a cell, in crops: what is counted inside of whole cells is nearly what a crop holds.
CELLS_PER_CROP = 4


@dataclass(frozen=True, eq=False)
class Survey:
    """Of one domain.

    Attributes
    ----------
    histogram : (65536,) int64, voxels of each grey value
    threshold : grey values above it are no background; of labelled images none
    cell : (z, y, x) voxels in which foreground was counted
    foreground : of each image (z, y, x) int64, voxels of nuclei, or above background, in each cell
    """

    histogram: NDArray[np.int64]
    threshold: int | None
    cell: tuple[int, int, int]
    foreground: tuple[NDArray[np.int64], ...]

    def percentile(self, percent: float) -> int:
        """Smallest grey value up to which that share of all voxels lies."""
        sums = np.cumsum(self.histogram)
        return int(np.searchsorted(sums, percent / 100 * sums[-1]).clip(0, LEVELS - 1))

    def to_dict(self) -> dict[str, Any]:
        """Arrays and plain values."""
        return {"histogram": self.histogram, "threshold": self.threshold, "cell": self.cell,
                "foreground": list(self.foreground)}  # fmt: skip

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Survey:
        """From :meth:`to_dict`."""
        return Survey(values["histogram"], values["threshold"], tuple(values["cell"]), tuple(values["foreground"]))


def survey(domain: Domain, crop: tuple[int, int, int], *, by_labels: bool, threads: int = 4) -> Survey:
    """Look through all images once, chunk by chunk; without labels a second time.

    Parameters
    ----------
    crop : (z, y, x), of the size of which cells are a quarter
    by_labels : foreground is what is labelled, else what is above :func:`background_threshold`
    threads : that read
    """
    z, y, x = (max(1, c // CELLS_PER_CROP) for c in crop)
    cell = (z, y, x)
    with ThreadPoolExecutor(threads, thread_name_prefix="survey") as pool:

        def over(volume: Volume, look: Callable[[Volume, Region], NDArray]) -> list[tuple[Region, NDArray]]:
            regions = [region[-3:] for region in plan_of(volume.image).blocks()]
            return list(zip(regions, pool.map(lambda region: look(volume, region), regions)))

        def grey(volume: Volume, region: Region) -> NDArray:
            return np.bincount(volume.read(region).reshape(-1), minlength=LEVELS)

        histogram = np.zeros(LEVELS, np.int64)
        for volume in domain.volumes:
            for _, part in over(volume, grey):
                histogram += part
        threshold = None if by_labels else background_threshold(histogram)

        def seen(volume: Volume, region: Region) -> NDArray:
            there = volume.read_labels(region) > 0 if threshold is None else volume.read(region) > threshold
            return _by_cells(there, region, cell)

        found = []
        for volume in domain.volumes:
            counts = np.zeros([-(-n // c) for n, c in zip(volume.shape, cell)], np.int64)
            for region, part in over(volume, seen):
                at = tuple(slice(r.start // c, r.start // c + n) for r, c, n in zip(region, cell, part.shape))
                counts[at] += part
            found.append(counts)
    return Survey(histogram, threshold, cell, tuple(found))


def background_threshold(histogram: NDArray[np.int64]) -> int:
    """Grey value that parts background from the rest best: Otsu (IEEE Trans. SMC 9, 1979) on the logarithm."""
    weight = histogram.astype(np.float64)
    value = np.log1p(np.arange(len(weight)))
    below = np.cumsum(weight)
    total, sums = below[-1], np.cumsum(weight * value)
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / total - sums) ** 2 / (below * above)
    return int(np.nanargmax(np.where((below > 0) & (above > 0), between, -1.0)))


def _by_cells(there: NDArray[np.bool_], region: Region, cell: tuple[int, int, int]) -> NDArray[np.int64]:
    """Voxels in each cell that a region touches."""
    counts: NDArray = there.astype(np.int32)
    for axis, (r, c) in enumerate(zip(region, cell)):
        inner = np.arange(-(-(r.start + 1) // c) * c, r.stop, c) - r.start
        counts = np.add.reduceat(counts, np.concatenate([[0], inner]), axis=axis)
    return counts.astype(np.int64)
