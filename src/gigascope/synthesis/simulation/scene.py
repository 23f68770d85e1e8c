"""One phantom under one microscope: what a block of its image is made from, and how.

A block is drawn on the finer grid with the reach of the PSF around it, dimmed by the optical depth and blurred with the
PSF of each plane. The voxels of the image collect its light. Nothing is normalised to what a block holds, so blocks fit
together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels import cells
from gigascope.kernels.cells.light import attenuate_, read_out
from gigascope.kernels.cells.noise import Sensor, camera
from gigascope.synthesis.optics.blocks import Blur, Window, window
from gigascope.synthesis.optics.depth_psf import DepthPsf
from gigascope.synthesis.simulation.cells import CellGrid
from gigascope.synthesis.simulation.geometry import ImageGrid, Region, Three

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Light:
    """Values on the coarse grid, of all of it or of the cells around what is simulated.

    Attributes
    ----------
    grid : the cells
    tau : (z, y, x) float32, effective optical depth
    haze : (z, y, x) float32, scattered light in the units of the density
    distance : (z, y, x) float32 µm, signed distance to the region's surface, negative inside
    """

    grid: CellGrid
    tau: Tensor
    haze: Tensor
    distance: Tensor

    @classmethod
    def of_arrays(cls, grid: CellGrid, arrays: Sequence[NDArray[np.float32]], device: torch.device) -> Light:
        """From tau, haze and distance."""
        tau, haze, distance = (torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays)
        return cls(grid, tau, haze, distance)


@dataclass(frozen=True)
class Exposure:
    """From density to electrons to grey values.

    Attributes
    ----------
    electrons : of one unit of density
    background : electrons of even light and of the dark detector
    sensor : the camera
    key : seed of this image's noise, 64 bits
    """

    electrons: float
    background: float
    sensor: Sensor
    key: int


@dataclass
class Scene:
    """See the module.

    Attributes
    ----------
    image : its voxels
    nuclei : table of the phantom, on the device that computes
    gap_um : distance that nuclei keep
    light : see :class:`Light`; positions are those of the phantom
    psf : kernels and their weights by depth
    exposure : see :class:`Exposure`
    ids : (n,) int32 labels of the nuclei, rising, where the table has only some of the phantom's; none: rows from 1
    """

    image: ImageGrid
    nuclei: cells.NucleiTable
    gap_um: float
    light: Light
    psf: DepthPsf
    exposure: Exposure
    ids: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """That computes."""
        return self.nuclei.centre.device

    @cached_property
    def blur(self) -> Blur:
        """By the PSF."""
        return Blur(self.psf, self.device)

    def real_um(self, voxel_um: tuple[float, float, float]) -> tuple[float, float, float]:
        """Size in the phantom of a voxel of the image: its height where optics stretch the image along z."""
        return voxel_um[0] / self.psf.axial_stretch, voxel_um[1], voxel_um[2]

    def density(self, low: Three, shape: Three) -> Tensor:
        """Fluorophores on the finer grid, from global index `low`."""
        return cells.density(self.nuclei, low, shape, self.real_um(self.image.fine_um), self.gap_um)

    def labels(self, region: Region, subsample: int = 2) -> Tensor:
        """(z, y, x) int32 labels of a region of the image; a region may begin before the image."""
        shape = tuple(s.stop - s.start for s in region)
        voxel = self.real_um(self.image.voxel_um)
        found = cells.labels(self.nuclei, self.image.origin(region), shape, voxel, self.gap_um, subsample)
        if self.ids is None:
            return found
        return torch.cat([self.ids.new_zeros(1), self.ids])[found.long()]

    def inside(self, region: Region) -> Tensor:
        """(z, y, x) bool: voxels in the spheroid."""
        return self._on_image(self.light.distance, region) <= 0

    def expected(self, region: Region, keep: Callable[[Tensor], None] | None = None) -> Tensor:
        """Electrons that a block of the image expects, before noise.

        Parameters
        ----------
        region : of the image
        keep : is given the density under the region, without the surroundings that the PSF needs

        Returns
        -------
        (z, y, x) float32
        """
        view = window_of(self.image, self.psf, region)
        density = self.density(view.start, view.shape)
        if keep is not None:
            keep(density[tuple(slice(h, n - h) for h, n in zip(self.psf.half, view.shape))])
        attenuate_(density, self.light.tau, view.start, *self.light.grid.places(self.real_um(self.image.fine_um)))
        arrived = self.blur(density, view, view.positions(self.image.fine_um[0]))
        # transforms of float32, and eigen-PSFs, leave a little below nothing
        arrived.clamp_(min=0)
        arrived += self._on_image(self.light.haze, region)
        return arrived.mul_(self.exposure.electrons).add_(self.exposure.background)

    def photograph(self, expected: Tensor, region: Region) -> Tensor:
        """(z, y, x) uint16 grey values of a region of the image, from its expected electrons."""
        corner = [s.start for s in region]
        return camera(expected, self.exposure.sensor, self.exposure.key, corner, self.image.shape)

    def _on_image(self, values: Tensor, region: Region) -> Tensor:
        shape = [s.stop - s.start for s in region]
        places = self.light.grid.places(self.real_um(self.image.voxel_um))
        return read_out(values, shape, self.image.origin(region), *places)


def window_of(image: ImageGrid, psf: DepthPsf, region: Region) -> Window:
    """Voxels of the finer grid that a region of the image needs."""
    size = [s.stop - s.start for s in region]
    return window(image.origin(region), size, image.ratio, psf.half)


def reach_um(image: ImageGrid, psf: DepthPsf, region: Region) -> tuple[list[float], list[float]]:
    """Corners, in the phantom, of all voxels that a region of the image needs light for."""
    view = window_of(image, psf, region)
    fine = (image.fine_um[0] / psf.axial_stretch, *image.fine_um[1:])
    low = [a * v for a, v in zip(view.start, fine)]
    return low, [a + n * v for a, n, v in zip(low, view.shape, fine)]
