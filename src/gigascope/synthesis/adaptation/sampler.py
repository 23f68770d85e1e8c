"""Where the crops of each step lie: a function of seed, domain, step and place in the batch, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gigascope.store.plan import Region
from gigascope.synthesis.adaptation.survey import Survey
from gigascope.synthesis.seeds import generator

# Of the voxels of a crop, to be one with foreground.
LEAST_FOREGROUND = 0.01
# Places that are looked at for a crop with foreground; where none has it, the best is taken.
TRIED = 64


@dataclass(frozen=True)
class Spot:
    """One crop.

    Attributes
    ----------
    volume : number of its image
    corner : (z, y, x) of its first voxel
    turn : quarter turns in the plane
    flip_y, flip_x : after turning
    """

    volume: int
    corner: tuple[int, int, int]
    turn: int = 0
    flip_y: bool = False
    flip_x: bool = False

    def region(self, crop: tuple[int, int, int]) -> Region:
        """Its voxels."""
        return tuple(slice(c, c + n) for c, n in zip(self.corner, crop))

    def turned(self, block: NDArray) -> NDArray:
        """(..., y, x), as the networks see it; contiguous."""
        block = np.rot90(block, self.turn, (-2, -1))
        block = block[..., :: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return np.ascontiguousarray(block)


class Sampler:
    """Crops of one domain.

    Parameters
    ----------
    shapes : (z, y, x) of each image
    survey : where there is foreground
    crop : (z, y, x)
    batch : crops of a step
    seed : of the training
    domain : a or b: real or simulated
    every : each image comes once before any comes again; else images are drawn
    foreground : share of the crops that hold foreground
    turns : all, one of eight ways in the plane; one, as published: with probability a half one of flip x, flip y and a
        quarter turn
    square : voxels are as long along y as along x: quarter turns of square crops
    """

    def __init__(
        self,
        shapes: list[tuple[int, int, int]],
        survey: Survey,
        crop: tuple[int, int, int],
        batch: int,
        seed: int,
        domain: Literal["a", "b"],
        *,
        every: bool,
        foreground: float,
        turns: Literal["all", "one"] = "all",
        square: bool = True,
    ) -> None:
        self.shapes, self.crop, self.batch, self.seed = shapes, crop, batch, seed
        self._domain, self._every, self._foreground, self._turns = domain, every, foreground, turns
        self._square = square and crop[1] == crop[2]
        self._cell, self._counts = survey.cell, survey.foreground
        # (cells + 1 along each axis): sums over all cells before
        self._sums = [np.pad(part, ((1, 0),) * 3).cumsum(0).cumsum(1).cumsum(2) for part in survey.foreground]

    def at(self, step: int) -> list[Spot]:
        """Crops of a step."""
        return [self._spot(step * self.batch + k) for k in range(self.batch)]

    def share(self, spot: Spot) -> float:
        """Of the crop that is foreground for sure: what whole cells inside of it hold."""
        corner = np.array([spot.corner])
        return float(self._inside(spot.volume, corner)[0]) / float(np.prod(self.crop))

    def _spot(self, index: int) -> Spot:
        random = generator(self.seed, "train", "crop", self._domain, index)
        volume = self._volume(index, random)
        wanted = random.random() < self._foreground
        room = np.array(self.shapes[volume]) - np.array(self.crop) + 1
        places = (random.random((TRIED, 3)) * room).astype(np.int64)
        place = 0
        if wanted:
            # those that lie anywhere come first: where there is much to see, all of it is seen alike
            places = np.concatenate([places, self._around(volume, room, random)])
            inside = self._inside(volume, places)
            enough = inside >= LEAST_FOREGROUND * np.prod(self.crop)
            place = int(np.argmax(enough if enough.any() else inside))
        z, y, x = places[place].tolist()
        return self._turned(volume, (z, y, x), random)

    def _around(self, volume: int, room: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """Corners of crops that hold a cell with foreground, cells with more of it more often; (TRIED, 3)."""
        counts = self._counts[volume]
        total = counts.sum()
        if not total:
            return np.zeros((0, 3), np.int64)
        flat = np.searchsorted(np.cumsum(counts.reshape(-1)), random.integers(total, size=TRIED), side="right")
        cells = np.stack(np.unravel_index(flat, counts.shape), axis=1) * np.array(self._cell)
        slack = np.maximum(1, np.array(self.crop) - np.array(self._cell) + 1)
        return np.clip(cells - (random.random((TRIED, 3)) * slack).astype(np.int64), 0, room - 1)

    def _volume(self, index: int, random: np.random.Generator) -> int:
        n = len(self.shapes)
        if not self._every:
            return int(random.integers(n))
        round_, place = divmod(index, n)
        return int(generator(self.seed, "train", "order", self._domain, round_).permutation(n)[place])

    def _turned(self, volume: int, corner: tuple[int, int, int], random: np.random.Generator) -> Spot:
        square = self._square
        if self._turns == "all":
            turn = int(random.integers(4)) if square else 2 * int(random.integers(2))
            return Spot(volume, corner, turn, False, bool(random.integers(2)))
        kind = int(random.integers(3 if square else 2)) if random.random() < 0.5 else -1
        return Spot(volume, corner, int(kind == 2), kind == 1, kind == 0)

    def _inside(self, volume: int, corners: NDArray[np.int64]) -> NDArray[np.int64]:
        """Voxels of the foreground in whole cells inside of crops."""
        cell, sums = np.array(self._cell), self._sums[volume]
        shape, whole = np.array(self.shapes[volume]), np.array(sums.shape) - 1
        stop = corners + np.array(self.crop)
        low = -(-corners // cell)
        # the last cell may be cut off by the end of the image, and is whole then
        high = np.maximum(low, np.where(stop == shape, whole, stop // cell))
        total = np.zeros(len(corners), np.int64)
        for pick in np.ndindex(2, 2, 2):
            at = tuple(np.where(p, h, lo) for p, h, lo in zip(pick, high.T, low.T))
            total += (-1) ** (3 - sum(pick)) * sums[at]
        return total
