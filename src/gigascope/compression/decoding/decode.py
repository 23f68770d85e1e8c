"""From the compressed file to voxels: regions, coarser resolutions, points. Nothing but the file is needed.

A voxel is background plus the Gaussians that reach it, summed in the order of the bricks and of the rows in a brick, so
its value does not depend on the region it is decoded in.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from gigascope.compression.background import interpolate
from gigascope.compression.decoding import resolution
from gigascope.compression.decoding.grey_values import rounded, to_grey_values_
from gigascope.compression.decoding.indexing import Box
from gigascope.compression.decoding.resolution import Factor
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError
from gigascope.kernels import gaussians

if TYPE_CHECKING:
    from gigascope.compression.correction.corrected import CorrectedBricks
    from gigascope.compression.gmix.container import Gmix

BrickIndex = tuple[int, int, int]

# Gaussians kept of the bricks read last: 44 MiB. A brick of a neuron volume has about a thousand.
CACHED_GAUSSIANS = 1 << 20


def decode_region(
    gmix: Gmix, frame: int, roi: Box, *, factor: Factor = (1, 1, 1), device: torch.device | str = "cpu"
) -> Tensor:
    """Decode a box of one frame; see :meth:`Decoder.region`, which keeps bricks between calls."""
    return Decoder(gmix, device).region(frame, roi, factor)


def to_dtype(values: Tensor, dtype: DTypeLike) -> NDArray:
    """Decoded values in the dtype of the file: rounded half to even and clipped for integers."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return values.cpu().numpy().astype(dtype, copy=False)
    if dtype.itemsize <= 2 and values.device.type == "cpu" and values.dtype == torch.float32:
        return rounded(values, dtype)
    limits = np.iinfo(dtype)
    if dtype.itemsize > 2:  # the largest 32-bit integers are no float32
        values = values.double()
    whole = values.round().clamp_(limits.min, limits.max)
    return whole.to(getattr(torch, dtype.name)).cpu().numpy()


class Decoder:
    """Decodes parts of one compressed file on one device. Safe from several threads.

    Parameters
    ----------
    gmix : the open file
    device : where the sums are done
    least_energy : per frame, energy ``a^2 S`` below which Gaussians are left out; none: all are taken
    """

    def __init__(
        self, gmix: Gmix, device: torch.device | str = "cpu", least_energy: Sequence[float] | None = None
    ) -> None:
        self.gmix = gmix
        self.device = torch.device(device)
        self.least_energy = None if least_energy is None else tuple(least_energy)
        self._bricks: OrderedDict[tuple[int, BrickIndex, Factor], tuple[Mixture, Tensor]] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()
        # a part of the mixture is not what the residual layer corrects
        self._corrected: CorrectedBricks | None = None
        if gmix.residual is not None and least_energy is None:
            from gigascope.compression.correction.corrected import CorrectedBricks

            self._corrected = CorrectedBricks(self)

    @property
    def exact(self) -> bool:
        """Whether voxels at full resolution are corrected by a residual layer."""
        return self._corrected is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) of a frame."""
        z, y, x = self.gmix.header.shape[-3:]
        return z, y, x

    @property
    def voxel_size_um(self) -> tuple[float, float, float]:
        """(z, y, x), micrometres; 1 where the file does not know it."""
        return self.gmix.header.voxel_size_um or (1.0, 1.0, 1.0)

    def coarse_shape(self, factor: Factor = (1, 1, 1)) -> tuple[int, int, int]:
        """Samples (z, y, x) of a frame at a coarser resolution."""
        return resolution.coarse_shape(self.shape, factor)

    def region(self, frame: int, roi: Box, factor: Factor = (1, 1, 1)) -> Tensor:
        """Decode a box.

        Parameters
        ----------
        frame : ``t * n_c + c``
        roi : first and last + 1 sample along z, y and x, in samples of the resolution asked for
        factor : fine voxels per sample (z, y, x); a sample is the mean over its box, which may reach beyond the end

        Returns
        -------
        (z, y, x) float32 in the unit of the file, on the device; not rounded, unless the file bounds the error

        Raises
        ------
        ShapeError : a frame or region that does not exist
        """
        roi = self._checked(frame, roi, factor)
        if self._corrected is not None and factor == (1, 1, 1):
            return self._corrected.region(frame, roi)
        origin = resolution.coarse_centre([r.start for r in roi], factor)
        shape = [r.stop - r.start for r in roi]
        mixture, cuts = self.mixture(frame, roi, factor)
        spacing = tuple(float(f) for f in factor)
        sums = gaussians.evaluate(*mixture.tensors, cuts, shape, origin, spacing)
        if self.device.type != "cpu" or factor != (1, 1, 1):
            return self._in_file_units(frame, sums.add_(self.background(frame, roi, factor)))
        header, intensity = self.gmix.header, self.gmix.header.intensity[frame]
        corner = [r.start for r in roi]
        grid = self.gmix.background(frame)
        to_grey_values_(sums, grid, header.cell, corner, intensity.offset, intensity.scale)
        return sums

    def background(self, frame: int, roi: Box, factor: Factor = (1, 1, 1)) -> Tensor:
        """(z, y, x) float32 background in units of the scale."""
        grid = self.gmix.background(frame).to(self.device)
        if factor == (1, 1, 1):  # the fit's own
            first = [float(r.start) for r in roi]
            return interpolate(grid, self.gmix.header.cell, first, [r.stop - r.start for r in roi])
        corner = [r.start * f for r, f in zip(roi, factor)]
        shape = [r.stop - r.start for r in roi]
        return resolution.background_means(grid, self.gmix.header.cell, corner, shape, factor)

    def mixture(self, frame: int, roi: Box, factor: Factor = (1, 1, 1)) -> tuple[Mixture, Tensor]:
        """Gaussians that may reach into a region, and their cuts (N,), on the device.

        In the order in which they are summed; means in fine voxels relative to the volume's origin.
        """
        touched = self.touching(frame, roi, factor)
        if len(touched) > 1:
            # the entropy decoder is one chain of operations per brick: bricks are what several cores can share
            found = list(_pool().map(lambda index: self.brick(frame, index, factor), touched))
        else:
            found = [self.brick(frame, index, factor) for index in touched]
        cuts = torch.cat([c for _, c in found]) if found else torch.zeros(0)
        return Mixture.concatenate(m for m, _ in found).to(self.device), cuts.to(self.device)

    def touching(self, frame: int, roi: Box, factor: Factor = (1, 1, 1)) -> list[BrickIndex]:
        """Bricks with Gaussians that may reach into a region, in the order of their sums."""
        header = self.gmix.header
        fine = [(r.start * f, r.stop * f) for r, f in zip(roi, factor)]
        if factor != (1, 1, 1):
            # wider than the boxes of the index by the blur, and less faint ones end later
            widths = [header.halo + math.ceil(header.c_max * math.sqrt((f * f - 1) / 12)) for f in factor]
            fine = [(a - w, b + w) for (a, b), w in zip(fine, widths)]
        z, y, x = (slice(max(0, a), min(n, b)) for (a, b), n in zip(fine, self.shape))
        return sorted(self.gmix.touching(frame, (z, y, x)))

    def brick(self, frame: int, index: BrickIndex, factor: Factor = (1, 1, 1)) -> tuple[Mixture, Tensor]:
        """Gaussians of a brick, relative to the volume's origin, and their cuts, on the CPU.

        Those read last are kept. Whatever a function of the processor's may round by the place in an array (log, the
        eigenvectors) is computed here, over whole bricks, never over the bricks that a region happens to touch.
        """
        key = frame, index, factor
        with self._lock:
            if key in self._bricks:
                self._bricks.move_to_end(key)
                return self._bricks[key]
        header = self.gmix.header
        mixture = self._read(frame, index)
        if factor != (1, 1, 1):
            mixture = resolution.coarser(mixture, factor)
            mixture = mixture[resolution.worthwhile(mixture, header.eps[frame])]
        found = mixture, mixture.cuts(header.c_max, resolution.coarser_eps(header.eps[frame], factor))
        with self._lock:
            if key not in self._bricks:
                self._bricks[key] = found
                self._cached += len(mixture)
            while self._cached > CACHED_GAUSSIANS and len(self._bricks) > 1:
                self._cached -= len(self._bricks.popitem(last=False)[1][0])
        return found

    def _read(self, frame: int, index: BrickIndex) -> Mixture:
        mixture = self.gmix.read_brick(frame, index)
        if self.least_energy is None:
            return mixture
        return mixture[_energies(mixture) >= self.least_energy[frame]]

    def energies(self, frame: int) -> Tensor:
        """(N,) energies ``a^2 S`` of all Gaussians of a frame, in the order of :meth:`whole`."""
        found = [_energies(self._read(frame, index)) for index in sorted(self.gmix.bricks(frame))]
        return torch.cat(found) if found else torch.zeros(0)

    def whole(self, frame: int) -> Mixture:
        """All Gaussians of a frame, on the CPU; not kept."""
        return Mixture.concatenate(self._read(frame, index) for index in sorted(self.gmix.bricks(frame)))

    def points(self, frame: int, points: Tensor) -> Tensor:
        """Values at arbitrary positions, between voxels too, without rounding and without residual.

        Parameters
        ----------
        points : (P, 3) float, voxels (z, y, x), within half a voxel of the volume

        Returns
        -------
        (P,) float32 in the unit of the file, on the device

        Raises
        ------
        ShapeError : no such frame, not (P, 3), or a point outside the volume
        """
        self._checked(frame, (slice(0, 1),) * 3, (1, 1, 1))
        if points.ndim != 2 or points.shape[1] != 3:
            raise ShapeError(f"points are (P, 3) voxels (z, y, x), not {tuple(points.shape)}")
        points = points.to("cpu", torch.float32)
        size = torch.tensor(self.shape)
        outside = ((points < -0.5) | (points > size - 0.5) | points.isnan()).any(1)
        if outside.any():
            first = int(outside.nonzero()[0])
            raise ShapeError(f"point {first}, {points[first].tolist()}, is outside the volume of {self.shape} voxels")
        values = torch.empty(len(points))
        brick = torch.tensor(self.gmix.header.brick)
        homes, place = torch.unique(torch.round(points).clamp_min(0).long() // brick, dim=0, return_inverse=True)
        for k in range(len(homes)):
            rows = (place == k).nonzero()[:, 0]
            values[rows] = self._points_of_brick(frame, points[rows]).cpu()
        return self._in_file_units(frame, values.to(self.device))

    def _points_of_brick(self, frame: int, points: Tensor) -> Tensor:
        low, high = points.amin(0).floor().long().tolist(), points.amax(0).ceil().long().tolist()
        box = tuple(slice(max(0, a), min(n, b + 1)) for a, b, n in zip(low, high, self.shape))
        mixture, cuts = self.mixture(frame, box)  # type: ignore[arg-type]
        local = points.to(self.device)
        total = gaussians.evaluate_points(*mixture.tensors, cuts, local)
        grid = self.gmix.background(frame).to(self.device)
        return total + resolution.background_at(grid, self.gmix.header.cell, local)

    def _in_file_units(self, frame: int, values: Tensor) -> Tensor:
        intensity = self.gmix.header.intensity[frame]
        # two operations: one fused on some devices only would round otherwise
        return values.mul_(intensity.scale).add_(intensity.offset)

    def _checked(self, frame: int, roi: Sequence[slice], factor: Factor) -> Box:
        n_frames = math.prod(self.gmix.header.shape[:-3])
        if not 0 <= frame < n_frames:
            raise ShapeError(f"frame {frame} of {n_frames}")
        shape = self.coarse_shape(resolution.checked_factor(factor))
        if len(roi) != 3 or any(r.step not in (None, 1) or not 0 <= r.start < r.stop <= n for r, n in zip(roi, shape)):
            raise ShapeError(f"region {roi} does not lie within {shape} samples (z, y, x)")
        z, y, x = roi
        return z, y, x


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that decode bricks, shared by all decoders; their work never waits for another piece of it."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="bricks")


# a forked process has none of its parent's threads
os.register_at_fork(after_in_child=_pool.cache_clear)


def _energies(mixture: Mixture) -> Tensor:
    return mixture.amplitudes.square() * mixture.energies()
