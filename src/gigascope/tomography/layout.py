"""Sizes of a reconstruction: frame of the views, volume, levels; from shapes and config alone.

Shared by the stages, which reconstruct with it, and by the estimates of memory and time, which only count with it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from gigascope.tomography import geometry

if TYPE_CHECKING:
    from gigascope.config.tomography import Reconstruct


# What a level of the joint alignment holds: u, ubar and p for each voxel of each group, A^T q and the sum of the groups
# for each voxel, and for each sample views, blurred views, masks, duals and projections.
LEVEL_VOXEL_BYTES = 20
LEVEL_BYTES = 12
LEVEL_SAMPLE_BYTES = 44


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
    groups : of views in the joint alignment
    reduced : fewer groups or levels than were asked for, because of the memory
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
    groups: int = 1
    reduced: bool = False

    def shape(self, bin: int = 1) -> tuple[int, int, int]:
        """(z, x, y) of the volume at a bin."""
        return self.n_z // bin, self.width // bin, self.frame[1] // bin

    def coarser(self, bin: int) -> int:
        """Bin above `bin` at which a whole volume is small: that of the alignment or twice `bin`, if it divides all."""
        found = max(2 * bin, self.bins[-1] if self.bins else 0)
        while found > bin and any(n % found for n in (*self.frame, self.n_z, self.width)):
            found //= 2
        return max(found, bin)


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
    guessed = not (cfg.thickness_nm or measured_nm)
    sizes = Layout(frame, n_z, width, tuple(bins), largest, cfg.hz, extent, thickness, guessed)
    return _fitting(sizes, cfg, np.size(tilt))


def joint_bytes(sizes: Layout, n_views: int) -> int:
    """Memory of the joint alignment: K volumes at one level, its views, and the views of all levels."""
    samples = n_views * math.prod(sizes.frame)
    kept = sum(5 * samples // bin**2 for bin in sizes.bins)
    volumes = (LEVEL_VOXEL_BYTES * sizes.groups + LEVEL_BYTES) * np.array(
        [math.prod(sizes.shape(b)) for b in sizes.bins]
    )
    views = LEVEL_SAMPLE_BYTES * np.array([samples // b**2 for b in sizes.bins])
    return kept + int(max(volumes + views, default=0))


def _fitting(sizes: Layout, cfg: Reconstruct, n_views: int) -> Layout:
    """Fewer groups in the joint alignment, or else no finest level, until it fits into the memory."""
    sizes = first = dataclasses.replace(sizes, groups=cfg.align.groups)
    while joint_bytes(sizes, n_views) > cfg.memory_gib * 2**30:
        if sizes.groups > 2:
            sizes = dataclasses.replace(sizes, groups=2)
        elif len(sizes.bins) > 1 and cfg.align.bins is None:
            sizes = dataclasses.replace(sizes, groups=cfg.align.groups, bins=sizes.bins[:-1])
        else:
            break
    return dataclasses.replace(sizes, reduced=sizes != first)


def prealign_bin(raw_shape: tuple[int, int], width: int) -> int:
    """Power of two that brings a view's longest side to at most `width`."""
    return int(max(1, 2 ** math.ceil(math.log2(max(raw_shape) / width))))


def residual_bin(sizes: Layout, bin: int) -> int:
    """Bin at which alignments are compared: the finest of the joint solve, never finer than the tomogram."""
    return max(bin, sizes.bins[-1] if sizes.bins else 2)
