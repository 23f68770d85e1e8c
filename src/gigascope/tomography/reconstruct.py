"""Tomograms from aligned views with fixed shifts: total variation and weighted backprojection.

They use one projector and its exact adjoint, as do SIRT and CGLS in `algebraic`. Views are aligned beforehand in one
resampling; a sample counts by its weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gigascope.kernels import projector
from gigascope.tomography.algebraic import ReconstructUpdate, checked_angles
from gigascope.tomography.primal_dual import PrimalDual
from gigascope.tomography.residual import Residual, group_order, interleaved, residual_sums

# iterations between two looks at the objective, which costs one projection, and slices of a band that it is summed over
ROUND = 10
# benchmarks/regularization.py: near the best for objects and sections at a signal to noise of 1 and of 20
LAMBDA_PER_NOISE = 0.4


@dataclass(frozen=True)
class ReconstructParameters:
    """Tunables of a reconstruction with fixed shifts.

    Parameters
    ----------
    lam : weight of the total variation, for data of unit standard deviation at bin 1
    iterations : primal-dual iterations at most
    tol : ends when the objective changed less than this fraction over a round
    positivity : keep the tomogram at or above 0
    round : iterations between two looks at the objective
    """

    lam: float = 0.1
    iterations: int = 100
    tol: float = 1e-4
    positivity: bool = False
    round: int = ROUND


class Looks:
    """Objectives at the ends of the rounds, and what they say about going on; the same however they were summed up.

    Attributes
    ----------
    history : a row for each round so far
    """

    def __init__(self, parameters: ReconstructParameters) -> None:
        self._parameters = parameters
        self.history: list[ReconstructUpdate] = []

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self.history[-1].iteration if self.history else 0

    @property
    def next(self) -> int:
        """Iterations of the next round; 0: it is finished."""
        converged = bool(self.history) and self.history[-1].change < self._parameters.tol
        return 0 if converged else min(self._parameters.round, self._parameters.iterations - self.iteration)

    def add(self, bands: NDArray[np.float64]) -> ReconstructUpdate:
        """Take in a round, from the objectives of all bands, see :meth:`PrimalDual.band_objectives`."""
        objective = float(bands.sum())
        last = self.history[-1].objective if self.history else math.inf
        change = abs(last - objective) / max(abs(objective), math.ulp(0.0)) if math.isfinite(last) else math.inf
        self.history.append(ReconstructUpdate(self.iteration + self.next, objective, change))
        return self.history[-1]


def tomogram_lambda(noise_sigma: float, n_views: int) -> float:
    """Weight of the total variation that suits the noise, for a tomogram with fixed shifts.

    Parameters
    ----------
    noise_sigma : standard deviation of the noise per pixel at the bin of the tomogram, data of unit standard deviation
    n_views : views in the tomogram

    Notes
    -----
    The noise of the backprojection grows with sigma sqrt(n). On phantoms of 61 views at a signal to noise of 1 per
    pixel and bin 1, the correlation with the truth rises from 0.18 to 0.70 (object) and from 0.25 to 0.80 (section)
    between lambda 0.1 and 4 and is flat there; at 20 the optimum is 0.3 to 1; at bin 2, 1 to 2 and 0.2. The half-set
    residual has its minimum at the same places. The alignment wants less, see `AlignParameters`.
    benchmarks/regularization.py prints such a table.
    """
    return LAMBDA_PER_NOISE * noise_sigma * math.sqrt(n_views)


class TvSolver:
    """Total-variation tomogram of aligned views; stops after every round and can be continued elsewhere.

    Parameters
    ----------
    views, weights : (tilt, s, y) float32, aligned; ascending tilt
    tilt : (tilt,) radians
    shape : (z, x, y) of the tomogram
    constants : (tilt,) constants o_i of the views, for a section from the joint solve; none: solved here if `solve`
    solve : solve one constant per view (section)
    start : (z, x, y) to start from; none: zero
    hz : voxel size in z over voxel size in x
    parameters : tunables
    operator : see :class:`gigascope.tomography.primal_dual.PrimalDual`

    Raises
    ------
    ShapeError : shapes disagree
    """

    def __init__(
        self,
        views: Tensor,
        weights: Tensor,
        tilt: ArrayLike,
        *,
        shape: tuple[int, int, int],
        solve: bool,
        constants: ArrayLike | None = None,
        start: Tensor | None = None,
        hz: float = 1.0,
        parameters: ReconstructParameters | None = None,
        operator: Any = projector,
    ) -> None:
        self.parameters = parameters or ReconstructParameters()
        angles = checked_angles(tilt, views, weights, shape)
        self.problem = PrimalDual(
            angles,
            [len(angles)],
            shape,
            views.shape[1],
            hz=hz,
            lam=self.parameters.lam,
            constants=solve and constants is None,
            positivity=self.parameters.positivity,
            dtype=views.dtype,
            operator=operator,
        )
        if constants is not None:
            offsets = torch.as_tensor(np.asarray(constants), dtype=views.dtype, device=views.device)
            # A u + o - b = A u - (b - o)
            views = views - offsets[:, None, None]
        self.problem.set_data(views, weights)
        if start is not None:
            self.problem.u[0].copy_(start)
            self.problem.ubar.copy_(self.problem.u)
        self._looks = Looks(self.parameters)

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self._looks.iteration

    @property
    def history(self) -> list[ReconstructUpdate]:
        """A row for each round so far."""
        return self._looks.history

    @property
    def volume(self) -> Tensor:
        """(z, x, y) tomogram as it stands."""
        return self.problem.u[0]

    @property
    def offsets(self) -> Tensor:
        """(tilt,) float64 constants solved here."""
        return self.problem.o

    def run(self) -> Tensor:
        """All iterations that are left, then the tomogram."""
        for _ in self.updates():
            pass
        return self.volume

    def updates(self) -> Iterator[ReconstructUpdate]:
        """Go on to the end, one record per round."""
        n_y, step = self.problem.shape[2], self.parameters.round
        bands = [slice(a, min(a + step, n_y)) for a in range(0, n_y, step)]
        while n := self._looks.next:
            self.problem.iterate(n)
            yield self._looks.add(self.problem.band_objectives(bands))

    def state_dict(self) -> dict[str, Any]:
        """All that a solver of the same inputs needs to go on exactly from here."""
        return {"history": [asdict(row) for row in self.history], "volumes": self.problem.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self._looks.history = [ReconstructUpdate(**row) for row in saved["history"]]
        self.problem.load_state_dict(saved["volumes"])


def group_residual(
    views: Tensor,
    weights: Tensor,
    tilt: ArrayLike,
    *,
    shape: tuple[int, int, int],
    solve: bool,
    groups: int = 2,
    hz: float = 1.0,
    parameters: ReconstructParameters | None = None,
) -> Residual:
    """Leave-group-out residual rho of aligned views: every view against the tomogram of the other groups.

    Parameters
    ----------
    views, weights : (tilt, s, y) float32, aligned; ascending tilt
    tilt : (tilt,) radians
    shape : (z, x, y)
    solve : one constant per view (section)
    groups : interleaved groups, 2 for the half-set residual
    hz : voxel size in z over voxel size in x
    parameters : tunables; `tol` is not used
    """
    parameters = parameters or ReconstructParameters()
    angles = checked_angles(tilt, views, weights, shape)
    members = interleaved(len(angles), groups)
    order = torch.from_numpy(group_order(members)).to(views.device)
    problem = PrimalDual(
        angles[order],
        [len(group) for group in members],
        shape,
        views.shape[1],
        hz=hz,
        lam=parameters.lam,
        constants=solve,
        positivity=parameters.positivity,
        dtype=views.dtype,
    )
    problem.set_data(views[order], weights[order])
    problem.iterate(parameters.iterations)
    sums = torch.empty(len(angles), 2, dtype=torch.float64, device=views.device)
    sums[order] = residual_sums(problem.left_out_projections(), problem.views, problem.weights)
    misfit, power = sums.cpu().numpy().T
    return Residual(misfit.copy(), power.copy())


def weighted_backprojection(
    views: Tensor,
    weights: Tensor,
    tilt: ArrayLike,
    *,
    shape: tuple[int, int, int],
    means: ArrayLike | None = None,
    hz: float = 1.0,
    operator: Any = projector,
) -> Tensor:
    """Filtered backprojection: ramp with Hamming roll-off, angular spacing, adjoint; (z, x, y) float32.

    Parameters
    ----------
    views, weights : (tilt, s, y) float32, aligned; samples without weight count as the view's mean
    tilt : (tilt,) radians, ascending
    shape : (z, x, y)
    means : (tilt,) means of whole views, where `views` are some of their rows; NaN: the view is out of use
    hz : voxel size in z over voxel size in x
    """
    angles = checked_angles(tilt, views, weights, shape)
    n_s = views.shape[1]
    padded = 2 ** math.ceil(math.log2(2 * n_s))
    frequency = torch.fft.rfftfreq(padded, dtype=torch.float64, device=views.device)
    ramp = frequency * (0.54 + 0.46 * torch.cos(2 * math.pi * frequency))
    known = weights > 0
    mean = known_means(views, known) if means is None else torch.as_tensor(np.asarray(means)).to(views)
    used = ~mean.isnan()
    mean = mean.nan_to_num()
    data = torch.where(known, views - mean[:, None, None], torch.zeros_like(views))
    spectrum = torch.fft.rfft(data, n=padded, dim=1) * ramp.to(views.dtype)[None, :, None]
    filtered = torch.fft.irfft(spectrum, n=padded, dim=1)[:, :n_s]
    step = torch.gradient(angles)[0] if len(angles) > 1 else torch.full_like(angles, math.pi)
    filtered = filtered * (step.to(views.dtype) * used)[:, None, None]
    # the adjoint's weights over s add up to hz per voxel and view
    return operator.backproject(filtered.contiguous(), angles, shape[:2], hz) / hz


def known_means(views: Tensor, known: Tensor) -> Tensor:
    """Mean of each view (tilt, s, y) over its known samples, (tilt,) like `views`; NaN where there is none."""
    return (views * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2))
