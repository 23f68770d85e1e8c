"""Sizes of a reconstruction: frame of the views, volume, levels; from shapes and config alone.

Shared by the stages, which reconstruct with it, and by the estimates of memory and time, which only count with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from gigascope.tomography import geometry

if TYPE_CHECKING:
    from gigascope.config.tomography import Reconstruct


@dataclass(frozen=True)
class Layout:
    """Sizes at the pixel size of the views (bin 1).

    Attributes
    ----------
    frame : (n_s, n_y), samples of a view across and along the tilt axis
    n_z : planes
    width : samples of the volume across the axis
    bins : levels of the joint alignment, coarse to fine; empty without it
    largest_bin : divides every size
    hz : voxel size in z over that in x
    extent : `section`, `object` or `crop`
    thickness_nm : of the volume
    guessed : the thickness was neither given nor measured
    """

    frame: tuple[int, int]
    n_z: int
    width: int
    bins: tuple[int, ...]
    largest_bin: int
    hz: float
    extent: str
    thickness_nm: float
    guessed: bool

    def shape(self, bin: int = 1) -> tuple[int, int, int]:
        """(z, x, y) of the volume at a bin."""
        return self.n_z // bin, self.width // bin, self.frame[1] // bin


def lay_out(
    raw_shape: tuple[int, int],
    tilt: ArrayLike,
    *,
    tilt_axis: float,
    pixel_nm: float,
    extent: str,
    cfg: Reconstruct,
    further_bin: int = 1,
    measured_nm: float | None = None,
) -> Layout:
    """Decide all sizes of a reconstruction.

    Parameters
    ----------
    raw_shape : (height, width) of the raw views
    tilt : (tilt,) radians
    tilt_axis : phi, radians
    pixel_nm : pixel size of the raw views
    further_bin : sizes are made multiples of this too
    measured_nm : thickness from the data, for a config that gives none; at most the guess, which memory was planned for
    """
    full = geometry.frame_shape(raw_shape, tilt_axis)
    guess = geometry.guessed_thickness(full[0] * pixel_nm, extent)
    thickness = cfg.thickness_nm or min(measured_nm or guess, guess)
    planes = geometry.volume_thickness(thickness, pixel_nm, cfg.hz)
    bins: tuple[int, ...] = ()
    if cfg.align.enabled:
        bins = cfg.align.bins or geometry.alignment_bins(*full, planes, cfg.align.width)
    largest = max(*bins, cfg.bin, further_bin, 1)
    frame = geometry.frame_shape(raw_shape, tilt_axis, largest)
    n_z = geometry.volume_thickness(thickness, pixel_nm, cfg.hz, largest)
    width = geometry.volume_width(frame[0], n_z, np.asarray(tilt), extent, cfg.hz, largest)
    return Layout(
        frame, n_z, width, tuple(bins), largest, cfg.hz, extent, thickness, not (cfg.thickness_nm or measured_nm)
    )


def prealign_bin(raw_shape: tuple[int, int], width: int) -> int:
    """Power of two that brings a view's longest side to at most `width`."""
    return int(max(1, 2 ** math.ceil(math.log2(max(raw_shape) / width))))


def residual_bin(sizes: Layout, bin: int) -> int:
    """Bin at which alignments are compared: the finest of the joint solve, never finer than the tomogram."""
    return max(bin, sizes.bins[-1] if sizes.bins else 2)
