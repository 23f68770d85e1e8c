"""Where the bricks of a file are, how many Gaussians they have and how far these reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.compression.gmix import entropy
from gigascope.compression.gmix.header import Header
from gigascope.compression.mixture import Mixture

I64 = NDArray[np.int64]
Index = tuple[int, int, int]

# Boxes of the compact form end at multiples of this from the faces of the brick, voxels.
BOX_STEP = 8


@dataclass(frozen=True)
class BrickIndex:
    """Rows by frame, then in the Morton order of the bricks.

    Attributes
    ----------
    counts : (n,) Gaussians
    lengths : (n,) bytes of the payload
    boxes : (n, 6) first voxel (z, y, x) that Gaussians of the brick reach, and the one after the last, relative to the
        brick's first voxel; 0 for a brick without Gaussians
    residuals : (n,) bytes of the residual layer
    """

    counts: I64
    lengths: I64
    boxes: I64
    residuals: I64

    @property
    def offsets(self) -> I64:
        """(n + 1,) where payloads begin; the last is where they end."""
        return np.concatenate(([0], np.cumsum(self.lengths)))

    @property
    def residual_offsets(self) -> I64:
        """(n + 1,) where residuals begin; the last is where they end."""
        return np.concatenate(([0], np.cumsum(self.residuals)))

    def columns(self, brick: Sequence[int], *, residual: bool) -> list[I64]:
        """What the compact form keeps, for :func:`entropy.encode_integers`; boxes are widened to whole steps."""
        some = self.counts > 0
        per_byte = _rate(self.counts, self.lengths)
        expected = self.counts[some] * per_byte >> 8
        low, high = self.boxes[some, :3], self.boxes[some, 3:] - np.asarray(brick)
        reach = np.concatenate((low // BOX_STEP, -(-high // BOX_STEP)), axis=1)
        columns = [self.counts, np.array([per_byte]), self.lengths[some] - expected, reach.ravel()]
        return [*columns, self.residuals] if residual else columns

    @staticmethod
    def read(decoder: entropy.Decoder, n: int, brick: Sequence[int], *, residual: bool) -> BrickIndex:
        """From the columns in a stream.

        Raises
        ------
        entropy.Damaged : numbers that cannot be
        """
        counts = entropy.integers(decoder, n)
        some = counts > 0
        n_some = int(some.sum())
        per_byte = int(entropy.integers(decoder, 1)[0])
        lengths, boxes = np.zeros(n, np.int64), np.zeros((n, 6), np.int64)
        lengths[some] = entropy.integers(decoder, n_some) + (counts[some] * per_byte >> 8)
        reach = entropy.integers(decoder, 6 * n_some).reshape(n_some, 6) * BOX_STEP
        boxes[some] = reach + np.array([0, 0, 0, *brick])
        residuals = entropy.integers(decoder, n) if residual else np.zeros(n, np.int64)
        if min(counts.min(initial=0), lengths.min(initial=0), residuals.min(initial=0)) < 0:
            raise entropy.Damaged("a number of Gaussians or bytes is negative")
        return BrickIndex(counts, lengths, boxes, residuals)


class BrickPlaces:
    """Numbers of the rows of a :class:`BrickIndex`, for bricks by frame and place."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.grid = header.grid
        self.order = self.grid.indices()
        self._rank = {index: rank for rank, index in enumerate(self.order)}

    def __len__(self) -> int:
        return self.header.n_frames * len(self.order)

    def row(self, frame: int, index: Index) -> int:
        """Number of the row.

        Raises
        ------
        KeyError : no such brick
        """
        if not 0 <= frame < self.header.n_frames:
            raise KeyError(frame)
        return frame * len(self.order) + self._rank[index]

    def key(self, row: int) -> tuple[int, int, int, int]:
        """(frame, bz, by, bx) of a row."""
        frame, rank = divmod(row, len(self.order))
        return frame, *self.order[rank]

    def corners(self) -> I64:
        """(bricks of a frame, 3) first voxel of each brick, in order."""
        return np.array(self.order, np.int64).reshape(-1, 3) * np.array(self.header.brick)


def box_of(mixture: Mixture, c_max: float, eps: float) -> I64:
    """(6,) first voxel that Gaussians reach, and the one after the last; 0 for none."""
    if len(mixture) == 0:
        return np.zeros(6, np.int64)
    extents = mixture.extents(mixture.cuts(c_max, eps)).to(torch.float64)
    means = mixture.means.to(torch.float64)
    # a hundredth of a voxel for float32 coordinates of large volumes
    low, high = (means - extents - 0.01).amin(0), (means + extents + 0.01).amax(0)
    return np.concatenate((torch.ceil(low).numpy(), torch.floor(high).numpy() + 1)).astype(np.int64)


def _rate(counts: I64, lengths: I64) -> int:
    """Bytes of 256 Gaussians on average."""
    return int(256 * lengths.sum() // max(1, counts.sum()))
