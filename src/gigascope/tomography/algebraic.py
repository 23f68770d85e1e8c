"""Tomograms from aligned views without a regulariser: SIRT and CGLS, stopped when the misfit is down to the noise.

Both minimise 1/2 sum_i || sqrt(w_i) (A_i u + o_i - b_i) ||^2 from zero with one projection and one backprojection per
iteration. Neither converges to anything useful on noisy views: the number of iterations is what regularises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels import projector
from gigascope.tomography.masks import weighted_mean


@dataclass(frozen=True)
class ReconstructUpdate:
    """A row of the history: `iteration` done so far, `objective`, and its relative `change` since the row before."""

    iteration: int
    objective: float
    change: float


@dataclass(frozen=True)
class AlgebraicParameters:
    """When an iteration without a regulariser ends.

    Parameters
    ----------
    iterations : at most
    noise : standard deviation of a sample of weight 1; ends when the weighted mean square of the misfit is below its
        square (discrepancy principle). None: only `iterations` ends it
    positivity : keep the tomogram at or above 0 (SIRT only)
    """

    iterations: int = 30
    noise: float | None = None
    positivity: bool = False


class AlgebraicSolver:
    """What SIRT and CGLS share: data, misfit, when to stop, and state; can stop after every iteration.

    Parameters
    ----------
    views, weights : (tilt, s, y) float32, aligned; ascending tilt
    tilt : (tilt,) radians
    shape : (z, x, y) of the tomogram
    solve : one unknown constant per view (section)
    constants : (tilt,) known constants o_i; then none is solved
    hz : voxel size in z over voxel size in x
    parameters : when to stop
    operator : stands in for `kernels.projector`, with the same calls

    Raises
    ------
    ShapeError : shapes disagree
    """

    _state: tuple[str, ...] = ("u", "misfit")

    def __init__(
        self,
        views: Tensor,
        weights: Tensor,
        tilt: ArrayLike,
        *,
        shape: tuple[int, int, int],
        solve: bool,
        constants: ArrayLike | None = None,
        hz: float = 1.0,
        parameters: AlgebraicParameters | None = None,
        operator: Any = projector,
    ) -> None:
        self.parameters = parameters or AlgebraicParameters()
        self.angles = checked_angles(tilt, views, weights, shape)
        self.shape, self.hz, self._operator = shape, hz, operator
        self.solve = solve and constants is None
        if constants is not None:
            views = views - torch.as_tensor(np.asarray(constants)).to(views)[:, None, None]
        self.weights = weights
        self.u = torch.zeros(shape, dtype=views.dtype, device=views.device)
        # b - A u - o; samples without weight may hold anything, NaN included
        self.misfit = torch.where(weights > 0, views, torch.zeros_like(views))
        self.history: list[ReconstructUpdate] = []
        self._target = self._square_target()

    @property
    def volume(self) -> Tensor:
        """(z, x, y) tomogram as it stands."""
        return self.u

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.history)

    def run(self) -> Tensor:
        """All iterations that are left, then the tomogram."""
        for _ in self.updates():
            pass
        return self.volume

    def updates(self) -> Iterator[ReconstructUpdate]:
        """Go on to the end, one record per iteration."""
        while not self._finished():
            last = self.history[-1].objective if self.history else math.inf
            self._iterate()
            objective = 0.5 * self._square(self.misfit)
            change = abs(last - objective) / max(objective, math.ulp(0.0)) if math.isfinite(last) else math.inf
            self.history.append(ReconstructUpdate(self.iteration + 1, objective, change))
            yield self.history[-1]

    def state_dict(self) -> dict[str, Any]:
        """All that a solver of the same inputs needs to go on exactly from here."""
        tensors = {name: getattr(self, name).clone() for name in self._state}
        return {"history": [asdict(row) for row in self.history], "tensors": tensors}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`; tensors may come from another device."""
        self.history = [ReconstructUpdate(**row) for row in saved["history"]]
        for name in self._state:
            getattr(self, name).copy_(saved["tensors"][name])

    def _finished(self) -> bool:
        at_noise = bool(self.history) and 2 * self.history[-1].objective <= self._target
        return at_noise or self.iteration >= self.parameters.iterations

    def _square_target(self) -> float:
        """Weighted square of the misfit at which only noise is left; noise of weight w has variance noise^2 / w."""
        if self.parameters.noise is None:
            return -math.inf
        return self.parameters.noise**2 * float((self.weights > 0).sum())

    def _square(self, data: Tensor) -> float:
        return float((self.weights * data * data).sum(dtype=torch.float64))

    def _project(self, volume: Tensor) -> Tensor:
        return self._operator.project(volume, self.angles, self.weights.shape[1], self.hz)

    def _backproject(self, data: Tensor) -> Tensor:
        return self._operator.backproject(data.contiguous(), self.angles, self.shape[:2], self.hz)

    def _iterate(self) -> None:
        raise NotImplementedError


class SirtSolver(AlgebraicSolver):
    """Simultaneous iterative reconstruction: u <- u + C^-1 A^T w R^-1 (b - A u - o), from zero.

    R are the row sums of A, C = A^T w the weighted column sums: the iteration matrix then has rows that add up to 1
    whatever the weights are, so it converges. A view's constant is one more column of A with entries as large as the
    mean row sum, which moves it at the pace of the volume.

    Notes
    -----
    Gilbert, J. Theor. Biol. 36, 105 (1972); Gregor, Benson, IEEE Trans. Med. Imaging 27, 918 (2008).
    """

    _state = ("u", "misfit", "o")

    def __init__(self, views: Tensor, weights: Tensor, tilt: ArrayLike, **further: Any) -> None:
        super().__init__(views, weights, tilt, **further)
        rows = projector.row_sums(self.angles, views.shape[1], self.shape[:2], self.hz).to(views.dtype)
        self._pace = float(rows.mean()) if self.solve else 0.0
        self._per_row = (weights * (1 / (rows + self._pace).clamp_min(1e-6))[:, :, None]) * (rows > 0)[:, :, None]
        columns = self._backproject(weights)
        self._step = torch.where(columns > 0, 1 / columns.clamp_min(1e-6), torch.zeros_like(columns))
        self.o = torch.zeros(len(views), dtype=torch.float64, device=views.device)
        if self.solve:
            self.o = weighted_mean(self.misfit, weights)
            self.misfit -= self.o.to(views.dtype)[:, None, None]

    def _iterate(self) -> None:
        scaled = self._per_row * self.misfit
        before = self.u.clone()
        self.u += self._step * self._backproject(scaled)
        if self.parameters.positivity:
            self.u.clamp_min_(0.0)
        self.misfit -= self._project(self.u - before)
        if self.solve:
            weight = self.weights.sum(dim=(1, 2), dtype=torch.float64)
            moved = self._pace * scaled.sum(dim=(1, 2), dtype=torch.float64) / weight.clamp_min(1e-12)
            self.o += moved
            self.misfit -= moved.to(self.misfit.dtype)[:, None, None]


class CglsSolver(AlgebraicSolver):
    """Conjugate gradients on the weighted normal equations from zero; constants per view are eliminated exactly.

    The unknown constants are projected out: d - mean_w(d) of the misfit d is orthogonal to them under w.

    Notes
    -----
    Björck, Numerical Methods for Least Squares Problems (SIAM 1996), algorithm 7.4.1; stopping by discrepancy: Hansen,
    Discrete Inverse Problems (SIAM 2010), 5.2 and 6.3.
    """

    _state = ("u", "misfit", "direction", "power")

    def __init__(self, views: Tensor, weights: Tensor, tilt: ArrayLike, **further: Any) -> None:
        super().__init__(views, weights, tilt, **further)
        self.misfit = self._centred(self.misfit)
        self.direction = self._backproject(self.weights * self.misfit)
        self.power = (self.direction * self.direction).sum(dtype=torch.float64)

    def _iterate(self) -> None:
        image = self._centred(self._project(self.direction))
        curvature = (self.weights * image * image).sum(dtype=torch.float64)
        step = torch.where(curvature > 0, self.power / curvature, torch.zeros_like(curvature)).to(self.u.dtype)
        self.u += step * self.direction
        self.misfit -= step * image
        gradient = self._backproject(self.weights * self.misfit)
        power = (gradient * gradient).sum(dtype=torch.float64)
        ratio = torch.where(self.power > 0, power / self.power, torch.zeros_like(power)).to(self.u.dtype)
        self.direction = gradient + ratio * self.direction
        self.power = power

    def _centred(self, data: Tensor) -> Tensor:
        if not self.solve:
            return data
        return data - weighted_mean(data, self.weights).to(data.dtype)[:, None, None]


def checked_angles(tilt: ArrayLike, views: Tensor, weights: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Angles (tilt,) float64 on the device of the views, after a look at the shapes.

    Raises
    ------
    ShapeError : shapes disagree
    """
    angles = torch.as_tensor(np.asarray(tilt, dtype=np.float64), device=views.device)
    if angles.shape != views.shape[:1] or weights.shape != views.shape or shape[2] != views.shape[2]:
        raise ShapeError(
            f"views {tuple(views.shape)}, weights {tuple(weights.shape)}, {len(angles)} angles, tomogram {shape}: "
            "expected one angle per view, one weight per sample and as many slices as rows along the axis"
        )
    return angles
