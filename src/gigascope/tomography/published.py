"""The joint iteration as it was published, with its defects: for comparison only.

Bogensperger et al., Histochem. Cell Biol. (2022), doi 10.1007/s00418-022-02095-z, as its code runs:

- tau is one number, 1 / A^T(1 + 4 + 2 / hz) at the centre voxel instead of 1 / (A^T 1 + 4 + 2 / hz): some 7 times too
  small;
- the extrapolated volume is the next iterate, and the one that views are compared with;
- every view is compared with a volume that it is part of, and the step of its shift follows the gradient of the noisy
  view instead of the model's;
- a mask of pixel values tells specimen from padding: view means are subtracted, and what is masked or outside is 0;
- a fixed number of iterations, one size of pixels, no gauge, no prior, no uncertainty, no view left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gigascope.kernels import projector, warp
from gigascope.tomography.alignment import Alignment, AlignParameters, AlignUpdate
from gigascope.tomography.geometry import alignment_bins, level_shape, volume_width
from gigascope.tomography.levels import BinnedViews, bin_views
from gigascope.tomography.masks import weighted_mean
from gigascope.tomography.primal_dual import PrimalDual
from gigascope.tomography.residual import residual
from gigascope.tomography.shift_update import MAX_STEP, normal_equations

F64 = NDArray[np.float64]

# values that the mask takes for padding
PADDING = 1e-6


class PublishedSolver:
    """The published iteration with the calls of :class:`gigascope.tomography.joint.JointSolver`.

    It runs at the finest of `parameters.bins`: `outer` times `inner` iterations, each with a step of the shifts, and
    one record per `inner` of them. Of the parameters `lam`, `bins`, `width`, `outer`, `inner` and `positivity` count.

    Parameters
    ----------
    views, valid, tilt, shifts, n_z, extent, hz, width, use, parameters, operator : as for `JointSolver`
    noise : not used; there are no weights
    """

    def __init__(
        self,
        views: Tensor | BinnedViews,
        valid: Tensor | BinnedViews,
        tilt: ArrayLike,
        shifts: ArrayLike,
        *,
        n_z: int,
        extent: str,
        hz: float = 1.0,
        width: int | None = None,
        noise: ArrayLike | None = None,
        use: ArrayLike | None = None,
        parameters: AlignParameters | None = None,
        operator: Any = projector,
    ) -> None:
        self.parameters = parameters or AlignParameters()
        tilt, self._shifts = np.asarray(tilt, dtype=np.float64), np.array(shifts, dtype=np.float64)
        n_views, n_s, n_y = views.shape
        self.bins = (self.parameters.bins or alignment_bins(n_s, n_y, n_z, self.parameters.width))[-1:]
        self.factor = self.bins[0]
        self._used = np.flatnonzero(np.ones(n_views, dtype=bool) if use is None else np.asarray(use, dtype=bool))
        n_x = width or volume_width(n_s, n_z, tilt, extent, hz, self.factor)
        n_z, n_x, n_y = level_shape((n_z, n_x, n_y), self.factor)
        binned, mask = bin_views(views[self._used], valid[self._used], self.factor)
        self._mask = mask
        self._views = (binned - weighted_mean(binned, mask.to(binned)).to(binned)[:, None, None]) * mask
        angles = torch.from_numpy(tilt[self._used]).to(views.device)
        self.problem = PrimalDual(
            angles,
            [len(angles)],
            (n_z, n_x, n_y),
            binned.shape[1],
            hz=hz,
            lam=self.parameters.lam,
            constants=False,
            positivity=self.parameters.positivity,
            dtype=views.dtype,
            operator=operator,
        )
        columns = projector.column_sums(angles, binned.shape[1], (n_z, n_x), hz)
        self.problem.tau[0].fill_(1 / float(columns[n_z // 2, n_x // 2] * (5 + 2 / hz)))
        self.history: list[AlignUpdate] = []
        self._residual = np.full(len(self._used), np.nan)
        self._area = mask.sum(dim=(1, 2), dtype=torch.float64).cpu().numpy()
        self._overlap = np.ones(len(self._used))

    @property
    def shifts(self) -> F64:
        """(tilt, 2) pixels, the present shifts of all views; left out ones keep their start."""
        return self._shifts.copy()

    def run(self) -> Alignment:
        """All updates that are left, then the result."""
        for _ in self.updates():
            pass
        return self.result()

    def updates(self) -> Iterator[AlignUpdate]:
        """Go on to the end, one record per `inner` iterations."""
        while len(self.history) < self.parameters.outer:
            before = self._shifts[self._used]
            for _ in range(self.parameters.inner):
                self._iterate()
            self.history.append(self._row(self._shifts[self._used] - before))
            yield self.history[-1]

    def result(self) -> Alignment:
        """What is known now: shifts, and the misfit of every view against a volume that it is part of."""
        n = len(self._shifts)
        flags, rho, overlap = ["excluded"] * n, np.full(n, np.nan), np.zeros(n)
        for k, i in enumerate(self._used):
            flags[i], rho[i], overlap[i] = "", self._residual[k], self._overlap[k]
        return Alignment(self.shifts, np.full((n, 2), np.nan), rho, overlap, flags, np.zeros(n))

    def volume(self) -> tuple[Tensor, int]:
        """(z, x, y) volume as it stands, and its bin."""
        return self.problem.u[0], self.factor

    def state_dict(self) -> dict[str, Any]:
        """All that a solver of the same inputs needs to go on exactly from here."""
        return {
            "shifts": self._shifts.copy(),
            "history": [asdict(row) for row in self.history],
            "residual": self._residual.copy(),
            "overlap": self._overlap.copy(),
            "volumes": self.problem.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self._shifts, self._residual = np.array(saved["shifts"]), np.array(saved["residual"])
        self._overlap = np.array(saved["overlap"])
        self.history = [AlignUpdate(**row) for row in saved["history"]]
        self.problem.load_state_dict(saved["volumes"])

    def _moved(self) -> tuple[Tensor, Tensor]:
        """Views under the present shifts and the mask of their values, both (tilt, s, y)."""
        steps = torch.from_numpy(self._shifts[self._used] / self.factor).to(self._views.device)
        moved, inside = warp.translate(self._views, steps, 1, self._mask)
        moved = moved * inside
        self._overlap = inside.sum(dim=(1, 2), dtype=torch.float64).cpu().numpy() / np.maximum(self._area, 1.0)
        return moved, (moved.abs() > PADDING).to(moved.dtype)

    def _iterate(self) -> None:
        """One primal-dual iteration and one step of all shifts."""
        problem = self.problem
        views, mask = self._moved()
        problem.set_data(views, mask)
        problem.iterate(1)
        problem.u.copy_(problem.ubar)
        model = problem.left_out_projections()
        # gradient of the views; r comes out as view minus model
        sums = warp.shift_sums(views, model, mask).cpu().numpy()
        equations = normal_equations(sums, centre=False, smooth=0.0)
        equations = dataclasses.replace(equations, gradient=-equations.gradient)
        step = equations.step(np.zeros((len(sums), 2)), prior=np.inf)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        self._shifts[self._used] += self.factor * step * np.minimum(1.0, MAX_STEP / np.maximum(length, MAX_STEP))

    def _row(self, step: F64) -> AlignUpdate:
        problem, length = self.problem, np.linalg.norm(step, axis=1)
        fit = residual(problem.left_out_projections(), problem.views, problem.weights)
        self._residual = fit.per_view
        return AlignUpdate(
            bin=self.factor,
            update=len(self.history),
            objective=float(problem.objective()),
            residual=fit.total,
            rms_step=float(np.sqrt(np.mean(length**2))),
            max_step=float(length.max()),
            overlap=float(self._overlap.min()),
            sigma=float("nan"),
            n_flagged=0,
            event="",
        )
