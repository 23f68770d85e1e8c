"""Which voxels of a volume hold signal: evidence against the noise of the background, and thresholds.

Evidence is the blurred excess over the background in standard deviations of the blurred background, made even for shot
noise. It is computed for any box of the volume alone, with a margin for the blur, and a voxel gets the same bits
whatever box it is part of.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.compression.background import (
    CELL,
    background_level,
    filled_cells,
    grid_shape,
    interpolate,
    without_objects,
)
from gigascope.compression.noise import ROUNDING, NoiseModel
from gigascope.store.plan import Region

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

F32 = NDArray[np.float32]
Read = Callable[[Region], NDArray]

# The blur ends at this many standard deviations, where it has fallen to 0.03 %.
TRUNCATE = 4.0
# What evidence is computed for at once, whole chunks of a store: the margin of the blur adds a quarter.
PIECE = (64, 128, 256)
# Pieces from which centre and spread of the background are taken; 16 hold 33 million voxels.
SAMPLED_PIECES = 16


@dataclass(frozen=True)
class Evidence:
    """How strongly a voxel of one frame stands out of its background.

    Attributes
    ----------
    levels : (nz, ny, nx) background of the cells, grey values
    noise : of the frame
    sigmas : (z, y, x) standard deviation of the blur, voxels
    shape : (z, y, x) of the frame
    integer : its values are integers
    centre, spread : of the background's blurred excess, in standard deviations of the noise of single voxels
    """

    levels: F32
    noise: NoiseModel
    sigmas: tuple[float, float, float]
    shape: tuple[int, int, int]
    integer: bool
    centre: float = 0.0
    spread: float = 1.0

    @property
    def margin(self) -> tuple[int, int, int]:
        """Voxels around a box that the blur reaches."""
        z, y, x = (len(kernel(sigma)) // 2 for sigma in self.sigmas)
        return z, y, x

    def of(self, read: Read, box: Region) -> F32:
        """Evidence of the voxels of a box, (z, y, x).

        Parameters
        ----------
        read : box -> grey values
        box : slices along z, y and x
        """
        out = np.empty([b.stop - b.start for b in box], np.float32)
        for piece in pieces(box):
            wide = widened(piece, self.margin, self.shape)
            excess, noise = (found[inside(piece, wide)] for found in self._blurred(read, wide))
            # Rounding to integers is the same error for all voxels of a dark, quiet place: no blur averages it away.
            scale = np.maximum(self.spread * noise, math.sqrt(ROUNDING)) if self.integer else self.spread * noise
            out[inside(piece, box)] = (excess - self.centre * noise) / scale
        return out

    def _blurred(self, read: Read, box: Region) -> tuple[F32, F32]:
        """Blurred excess over the background, and standard deviation of a voxel's noise, of a box as if it were alone.

        The deviation is the mean of that of the background and that of the blurred value: a difference over it is the
        difference of the roots that make shot noise even (Anscombe). Few photons scatter further up than down, and what
        is 6 deviations of the background above it can be chance where there is less than a photon in a voxel.
        """
        origin, shape = [float(b.start) for b in box], [b.stop - b.start for b in box]
        background = interpolate(torch.from_numpy(self.levels), CELL, origin, shape).numpy()
        excess = blurred(read(box).astype(np.float32) - background, self.sigmas)
        noise = (self.noise.sd(background) + self.noise.sd(background + excess)) / 2
        return excess, noise.astype(np.float32)

    def sample(self, read: Read) -> F32:
        """Blurred excess in standard deviations of the noise, of an eighth of the voxels of some pieces, sorted."""
        whole = pieces(tuple(slice(0, n) for n in self.shape))
        found = [np.zeros(0, np.float32)]
        for box in whole[:: -(-len(whole) // SAMPLED_PIECES)]:
            excess, noise = self._blurred(read, box)
            # without what the missing voxels around the piece would have changed
            within = [
                slice(m if b.start else 0, b.stop - b.start - (m if b.stop < n else 0))
                for b, m, n in zip(box, self.margin, self.shape)
            ]
            found.append((excess / noise)[tuple(within)][::2, ::2, ::2].ravel())
        return np.sort(np.concatenate(found))


def measured(frame: Evidence, read: Read) -> Evidence:
    """With the centre and spread of the frame's background."""
    level = background_level(frame.sample(read))
    # A background that is less noisy than the model says is cut off at zero or was cleaned: white noise is the least.
    least = math.sqrt(math.prod(float(np.square(kernel(sigma)).sum()) for sigma in frame.sigmas))
    return replace(frame, centre=level.centre, spread=max(level.spread, least))


def evidence_of_frames(
    volume: StoreReader, smooth: float, levels: F32 | None = None, scatter: NDArray[np.float64] | None = None
) -> list[Evidence]:
    """Evidence of every frame of an ingested volume.

    Parameters
    ----------
    volume : as the stage `ingest` leaves it
    smooth : standard deviation of the blur, voxels along x; as long along the other axes
    levels, scatter : (frames, nz, ny, nx) levels, and (frames, 2) centre and spread, known from before; None: measured
    """
    n_frames, shape = len(volume.attrs["noise"]), (volume.shape[-3], volume.shape[-2], volume.shape[-1])
    size = [volume.spacing[axis] for axis in "zyx"]
    sigmas = (smooth * size[2] / size[0], smooth * size[2] / size[1], smooth)
    noise = [NoiseModel(**model) for model in volume.attrs["noise"]]
    if levels is None:
        cells, grid = volume.table("cells"), (n_frames, *grid_shape(shape))
        found, spreads = cells["background"].reshape(grid), cells["spread"].reshape(grid)
        alone = [without_objects(a, filled_cells(a, b, m.sd(a))) for a, b, m in zip(found, spreads, noise)]
        levels = np.stack(alone).astype(np.float32)
    integer = volume.dtype.kind in "iu"
    frames = [Evidence(np.ascontiguousarray(a), model, sigmas, shape, integer) for a, model in zip(levels, noise)]
    if scatter is not None:
        return [replace(frame, centre=float(c), spread=float(s)) for frame, (c, s) in zip(frames, scatter)]
    array, leading = volume.array(), volume.shape[:-3]
    places = [tuple(int(i) for i in np.unravel_index(number, leading)) if leading else () for number in range(n_frames)]
    return [measured(frame, reader(array, place)) for frame, place in zip(frames, places)]


def reader(array: Any, place: tuple[int, ...]) -> Read:
    """Box -> grey values of one frame of an array of ([t,] [c,] z, y, x)."""
    return lambda box: np.asarray(array[(*place, *box)])


def kernel(sigma: float) -> NDArray[np.float64]:
    """Normalised Gaussian, (2 n + 1,), of which 4 standard deviations are kept; one tap for sigma 0."""
    reach = math.ceil(TRUNCATE * sigma)
    if reach == 0:
        return np.ones(1)
    taps = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    return taps / taps.sum()


def blurred(values: F32, sigmas: Sequence[float]) -> F32:
    """Separable Gaussian blur; beyond the ends the outermost values hold."""
    for axis, sigma in enumerate(sigmas):
        taps = kernel(sigma)
        if len(taps) > 1 and values.shape[axis] > 1:
            values = ndimage.correlate1d(values, taps, axis=axis, mode="nearest")
    return values


def widened(box: Region, margin: Sequence[int], shape: Sequence[int]) -> Region:
    """A box with a margin around it, within the volume."""
    return tuple(slice(max(0, b.start - m), min(n, b.stop + m)) for b, m, n in zip(box, margin, shape, strict=True))


def inside(box: Region, outer: Region) -> Region:
    """A box as seen from the corner of one around it."""
    return tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, outer, strict=True))


def pieces(box: Region) -> list[Region]:
    """A box in pieces."""
    cuts = [[slice(a, min(a + p, b.stop)) for a in range(b.start, b.stop, p)] for b, p in zip(box, PIECE)]
    return list(itertools.product(*cuts))


def dilated(mask: NDArray[np.uint8], margin: Sequence[int]) -> NDArray[np.uint8]:
    """With `margin` voxels (z, y, x) added around every set voxel: a box, not a ball."""
    size = [2 * m + 1 for m in margin]
    return ndimage.maximum_filter(mask, size=size, mode="constant") if max(size) > 1 else mask
