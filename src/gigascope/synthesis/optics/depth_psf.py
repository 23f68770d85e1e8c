"""The PSF of a microscope at every depth, ready for convolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class DepthPsf:
    """Kernels, and their shares by depth: h_d = sum_k shares[d, k] kernels[k], the sum of every h_d is 1.

    Attributes
    ----------
    kernels : (K, z, y, x) float32, odd sizes, offset 0 in the middle; their own sums are arbitrary
    shares : (depth, K) float64
    depths_um : (depth,) float64, ascending; between them shares are interpolated, beyond them constant
    efficiency : (depth,) float64, light that is collected of an emitter, relative to that at depth 0
    focus_um : (depth,) float64, where an emitter is brightest with the optics as they are, relative to depth 0
    axial_stretch : apparent over real depth; 1 where the shift of focus is undone
    method : eigen (kernels are eigen-PSFs), blended (kernels are PSFs of the depths), none (no blur)
    error : largest relative L2 error of a PSF at the depths
    warnings : what a person should know, one sentence each
    """

    kernels: F32
    shares: F64
    depths_um: F64
    efficiency: F64
    focus_um: F64
    axial_stretch: float = 1.0
    method: str = "eigen"
    error: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def half(self) -> tuple[int, int, int]:
        """(z, y, x) half size in voxels: how far light spreads."""
        z, y, x = (n // 2 for n in self.kernels.shape[1:])
        return z, y, x

    def depth_of(self, position_um: F64) -> F64:
        """Real depth of what appears at a position along z (both from the cover glass)."""
        return position_um / self.axial_stretch

    def light_of(self, position_um: F64) -> F64:
        """Efficiency at apparent positions along z."""
        return np.interp(self.depth_of(position_um), self.depths_um, self.efficiency)

    def weights(self, position_um: F64) -> tuple[NDArray[np.int64], F32]:
        """What the planes of a volume are multiplied by before they are convolved with each kernel.

        Parameters
        ----------
        position_um : (plane,) apparent positions along z

        Returns
        -------
        used : (k,) int64, kernels of which these planes have any
        weights : (k, plane) float32, with the efficiency
        """
        depth = self.depth_of(position_um)
        shares = np.array([np.interp(depth, self.depths_um, column) for column in self.shares.T])
        used = np.flatnonzero((shares != 0).any(1))
        return used, (shares[used] * self.light_of(position_um)).astype(np.float32)

    def at(self, depth_um: float) -> F32:
        """(z, y, x) float32: the PSF of a depth as it is composed."""
        shares = [np.interp(depth_um, self.depths_um, column) for column in self.shares.T]
        return np.tensordot(np.array(shares, np.float32), self.kernels, axes=1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays, for a file."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> DepthPsf:
        """The reverse of :meth:`arrays`."""
        values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        values |= {"axial_stretch": float(values["axial_stretch"]), "error": float(values["error"])}
        return cls(**{**values, "method": str(values["method"]), "warnings": tuple(map(str, values["warnings"]))})
