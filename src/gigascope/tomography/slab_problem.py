"""A reconstruction whose shifts, weights and constants are fixed, to be done on some of its slices at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels import projector
from gigascope.tomography import masks
from gigascope.tomography.algebraic import AlgebraicParameters, CglsSolver, SirtSolver
from gigascope.tomography.layout import Layout
from gigascope.tomography.reconstruct import ReconstructParameters, TvSolver, weighted_backprojection

# Iterations that can stop and go on.
TomogramSolver = TvSolver | SirtSolver | CglsSolver
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class SlabProblem:
    """One reconstruction.

    Attributes
    ----------
    tilt : (tilt,) radians, ascending
    precision : (tilt,) weights of the views; 0: out of use
    constants : (tilt,) constants of a section's views, in units of the data; none: there are none
    means : (tilt,) mean of each view, for a backprojection; NaN: the view is out of use
    layout, bin : sizes
    parameters : of the iteration
    method : `tv`, `sirt`, `cgls` or `wbp`
    noise : standard deviation of a sample of weight 1, at which `sirt` and `cgls` end
    device : to compute on
    operator : see :class:`gigascope.tomography.primal_dual.PrimalDual`
    """

    tilt: F64
    precision: F64
    constants: F64 | None
    means: F64 | None
    layout: Layout
    bin: int
    parameters: ReconstructParameters
    method: str
    noise: float
    device: torch.device
    operator: Any = projector

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, x, y) of the volume."""
        return self.layout.shape(self.bin)

    @property
    def samples(self) -> tuple[int, int, int]:
        """(tilt, s, y) of the views."""
        return len(self.tilt), self.layout.frame[0] // self.bin, self.shape[2]

    def weights(self, mask: Tensor) -> Tensor:
        """Weights (tilt, s, y) of all views from their masks."""
        return masks.weights(mask.to(torch.float32), self._full_rays(), self._precision())

    def view_mean(self, index: int, view: Tensor, mask: Tensor) -> float:
        """Mean of one view (s, y) over the samples that count; NaN where none does."""
        known = (mask > 0) & (self._full_rays()[index] > 0)[:, None] & bool(self.precision[index] > 0)
        return float((view * known).sum() / known.sum())

    def solver(self, views: Tensor, mask: Tensor, start: Tensor | None = None) -> TvSolver:
        """The total-variation reconstruction of some rows of all views and masks, (tilt, s, y)."""
        return TvSolver(
            views.to(self.device),
            self.weights(mask.to(self.device)),
            self.tilt,
            shape=(*self.shape[:2], views.shape[2]),
            solve=False,
            constants=self.constants,
            start=start,
            hz=self.layout.hz,
            parameters=self.parameters,
            operator=self.operator,
        )

    def algebraic_solver(self, views: Tensor, mask: Tensor) -> SirtSolver | CglsSolver:
        """SIRT or CGLS of all rows of all views and masks, (tilt, s, y): when to end is seen from all of them."""
        kind = SirtSolver if self.method == "sirt" else CglsSolver
        return kind(
            views.to(self.device),
            self.weights(mask.to(self.device)),
            self.tilt,
            shape=self.shape,
            solve=False,
            constants=self.constants,
            hz=self.layout.hz,
            parameters=AlgebraicParameters(self.parameters.iterations, self.noise, self.parameters.positivity),
            operator=self.operator,
        )

    def backprojection(self, views: Tensor, mask: Tensor) -> Tensor:
        """The weighted backprojection of some rows of all views and masks, (tilt, s, y)."""
        return weighted_backprojection(
            views.to(self.device),
            self.weights(mask.to(self.device)),
            self.tilt,
            shape=(*self.shape[:2], views.shape[2]),
            means=self.means,
            hz=self.layout.hz,
            operator=self.operator,
        )

    def _full_rays(self) -> Tensor:
        angles = torch.as_tensor(self.tilt, dtype=torch.float64, device=self.device)
        return masks.full_rays(angles, self.samples[1], self.shape[:2], self.layout.hz, self.layout.extent)

    def _precision(self) -> Tensor:
        return torch.as_tensor(self.precision, dtype=torch.float32, device=self.device)
