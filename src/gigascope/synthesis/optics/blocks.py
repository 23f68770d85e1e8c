"""Blur and sampling of one block after another: overlap-save, with a border as wide as light spreads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.errors import ShapeError, UserError
from gigascope.kernels import filters
from gigascope.kernels.filters.overlaps import reach
from gigascope.synthesis.optics.depth_psf import DepthPsf

F64 = NDArray[np.float64]
Whole = tuple[int, int, int]
Three = tuple[float, float, float]

# Kernels that are convolved together; each needs a spectrum of the size of the block.
AT_ONCE = 12
# Slabs of the threads, and planes on their way.
_SMALL_BYTES = 1 << 25


@dataclass(frozen=True)
class Window:
    """Voxels of the fine grid that a block of the coarse grid needs; axes (z, y, x).

    Attributes
    ----------
    start : first fine voxel, counted from the corner that both grids share; may be negative
    shape : fine voxels, with the border
    fft_shape : at least `shape`, of factors 2, 3 and 5
    ratio : size of a coarse voxel in fine voxels
    corner : of the first coarse voxel, in fine voxels from the corner of the window
    size : coarse voxels
    """

    start: Whole
    shape: Whole
    fft_shape: Whole
    ratio: Three
    corner: Three
    size: Whole

    def positions(self, voxel: float) -> F64:
        """(z,) of the middles of the planes, in the unit of `voxel`, from the corner that both grids share."""
        return voxel * (self.start[0] + np.arange(self.shape[0], dtype=np.float64) + 0.5)

    def bytes_of(self, n_kernels: int) -> int:
        """Memory of :class:`Blur` at its peak: the volume, its spectrum, those of the kernels, and what is small.

        Measured with 40 Mvoxel: 522 MB for one kernel and 1445 for six, where this says 558 and 1443.
        """
        spectrum = 8 * self.fft_shape[0] * self.fft_shape[1] * (self.fft_shape[2] // 2 + 1)
        large = 4 * math.prod(self.shape) + spectrum * (min(n_kernels, AT_ONCE) + 1)
        return round(1.05 * large) + _SMALL_BYTES


def window(start: Sequence[int], size: Sequence[int], ratio: Sequence[float], half: Sequence[int]) -> Window:
    """What the block of coarse voxels `start` to `start + size` needs.

    Parameters
    ----------
    ratio : size of a coarse voxel in fine voxels, need not be whole
    half : of the PSF, in fine voxels
    """
    spans = [reach(r, r * s, n) for r, s, n in zip(ratio, start, size)]
    first = [low - h for (low, _), h in zip(spans, half)]
    shape = [high - low + 2 * h for (low, high), h in zip(spans, half)]
    corner = [r * s - f for r, s, f in zip(ratio, start, first)]
    transform = [scipy.fft.next_fast_len(n, real=True) for n in shape]
    whole = (_whole(v) for v in (first, shape, transform, size))
    a, b, c, d = whole
    return Window(a, b, c, _floats(ratio), _floats(corner), d)


class Blur:
    """Expected light on the coarse grid, block by block; keeps the spectra of the last kind of block.

    Parameters
    ----------
    psf : on the voxels of the fine grid
    device : of the volumes
    """

    def __init__(self, psf: DepthPsf, device: torch.device | str = "cpu") -> None:
        self.psf, self.device = psf, torch.device(device)
        self._kept: tuple[tuple[Whole, bytes], Tensor] | None = None

    def __call__(self, volume: Tensor, window: Window, position_um: F64) -> Tensor:
        """Convolve and sample one block.

        Parameters
        ----------
        volume : `window.shape` float32, emitted light; zeros outside of the field
        position_um : (z,) apparent positions of its planes, from the cover glass, see `Window.positions`

        Returns
        -------
        `window.size` float32: mean over the fine voxels in each coarse voxel

        Raises
        ------
        ShapeError : volume, window and positions disagree
        """
        if tuple(volume.shape) != window.shape or len(position_um) != window.shape[0]:
            found = f"{tuple(volume.shape)} and {len(position_um)} positions"
            raise ShapeError(f"Blur: expected a volume of {window.shape} and a position for each plane, got {found}")
        sampling = window.ratio, window.corner, window.size
        if self.psf.method == "none":
            return filters.area_sample(volume, *sampling)
        used, weights = self.psf.weights(position_um)
        out = torch.zeros(window.size, device=self.device)
        for at in range(0, len(used), AT_ONCE):
            group = used[at : at + AT_ONCE]
            share = torch.from_numpy(weights[at : at + AT_ONCE]).to(self.device)
            spectra = self._spectra(window.fft_shape, group)
            out += filters.convolve_sampled(volume, share, spectra, window.fft_shape, *sampling)
        return out

    def _spectra(self, fft_shape: Whole, used: NDArray[np.int64]) -> Tensor:
        key = fft_shape, used.tobytes()
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # free it before its successor is made
            kernels = torch.from_numpy(self.psf.kernels[used]).to(self.device)
            self._kept = key, filters.spectra(kernels, fft_shape)
        return self._kept[1]


def refuse_larger(psf: DepthPsf, shape: Sequence[int]) -> None:
    """A PSF has to fit into the field of its phantom: one that does not is none of its microscope, or not in its units.

    Parameters
    ----------
    shape : (z, y, x) of the whole field, with its margin, fine voxels

    Raises
    ------
    UserError : it does not, along some axis
    """
    for axis, n, m in zip("zyx", psf.kernels.shape[1:], shape):
        if n > m:
            raise UserError(
                f"the PSF is {n} voxels of the finer grid long along {axis}, the whole volume only {m}.",
                where="simulate.optics",
                do="Lower simulate.optics.cap_um or psf_energy, or set a larger phantoms.region.margin_um.",
            )


def _whole(values: Sequence[int]) -> Whole:
    z, y, x = (int(v) for v in values)
    return z, y, x


def _floats(values: Sequence[float]) -> Three:
    z, y, x = (float(v) for v in values)
    return z, y, x
