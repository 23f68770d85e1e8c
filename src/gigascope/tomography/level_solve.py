"""One level of the joint solve on its device: volumes of all groups, shifted views, and the sums an update needs.

Host arrays are in the order of the views (ascending tilt); on the device the views of a group lie together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels import projector, warp
from gigascope.tomography import masks
from gigascope.tomography.alignment import AlignParameters
from gigascope.tomography.levels import BinnedViews, LevelViews
from gigascope.tomography.linear_update import COLUMNS, LinearEquations, linear_equations
from gigascope.tomography.primal_dual import PrimalDual
from gigascope.tomography.residual import Residual, group_order, interleaved, residual_sums

F64 = NDArray[np.float64]

# weight of the total variation at every level, over that of bin 1. The same number of voxels of a level then costs the
# same everywhere, which suits pictures that look alike at all levels; growing with the bin, the weight takes a coarse
# level's structure away (512 px at bin 16: leave-group-out residual 0.25 against 0.18), and is too small for the noise
# at bin 2 (three seeds at SNR 1: 0.130 against 0.114 px on objects, 0.150 against 0.143 px on sections)
LEVEL_WEIGHT = 4.0


@dataclass(frozen=True)
class Measurement:
    """What leaves the device in one update.

    Parameters
    ----------
    sums : (tilt, 10) float64, see `kernels.warp.shift_sums`
    residual : leave-group-out residual per view
    objective : summed over groups
    linear : normal equations of rotation and magnification, where they are asked for
    """

    sums: F64
    residual: Residual
    objective: float
    linear: LinearEquations | None = None


class LevelSolve:
    """The primal-dual problem of one level and its data under the present shifts.

    Parameters
    ----------
    views, valid : (tilt, s, y) at bin 1, views in use, ascending tilt
    tilt : (tilt,) radians
    noise : (tilt,) relative noise variance, mean 1
    factor : bin of the level
    shape : (z, x, y) of the volume at bin 1
    hz, extent : as for :class:`JointSolver`
    parameters : tunables
    operator : see :class:`PrimalDual`
    """

    def __init__(
        self,
        views: Tensor | BinnedViews,
        valid: Tensor | BinnedViews,
        tilt: F64,
        noise: F64,
        *,
        factor: int,
        shape: tuple[int, int, int],
        hz: float,
        extent: str,
        parameters: AlignParameters,
        operator: Any = projector,
    ) -> None:
        self.factor, self._device = factor, views.device
        groups = interleaved(len(tilt), parameters.groups)
        self._order = group_order(groups)
        order = torch.from_numpy(self._order).to(self._device)
        self._data = LevelViews(views[order], valid[order], factor, parameters.smooth, parameters.order)
        angles = torch.from_numpy(tilt[self._order]).to(self._device)
        n_z, n_x, n_y = (n // factor for n in shape)
        self.problem = PrimalDual(
            angles,
            [len(group) for group in groups],
            (n_z, n_x, n_y),
            self._data.shape[0],
            hz=hz,
            lam=LEVEL_WEIGHT * parameters.lam,
            constants=extent != "object",
            positivity=parameters.positivity,
            dtype=views.dtype,
            operator=operator,
        )
        self._full = masks.full_rays(angles, self._data.shape[0], (n_z, n_x), hz, extent).to(views.dtype)
        self._precision = 1 / noise[self._order]
        self._smooth, self._dof = parameters.smooth, parameters.dof

    def set_shifts(self, shifts: F64, good: NDArray[np.bool_], linear: F64 | None = None) -> F64:
        """Resample the views under shifts (tilt, 2) in raw pixels, and under rotations and magnifications.

        Flagged views get no weight in the volume.

        Returns
        -------
        (tilt,) unmasked area of each view in raw pixels
        """
        moved = torch.from_numpy(shifts[self._order] / self.factor).to(self._device)
        data, self._blurred, valid = self._data.at(moved, None if linear is None else linear[self._order])
        self._mask = valid * self._full[:, :, None]
        in_volume = torch.from_numpy(self._precision * good[self._order])
        self.problem.set_data(data, self._mask * in_volume.to(data)[:, None, None])
        area = self._mask.sum(dim=(1, 2), dtype=torch.float64) * self.factor**2
        return self._sorted(area.cpu().numpy())

    def measure(self) -> Measurement:
        """Compare every view with the volumes of the other groups."""
        model = self.problem.left_out_projections()
        precision = torch.from_numpy(self._precision).to(model)[:, None, None]
        fit = residual_sums(model, self.problem.views, self._mask * precision)
        blurred = warp.gaussian_blur(model, self._smooth) if self._smooth > 0 else model
        sums = warp.shift_sums(blurred, self._blurred, self._mask)
        objective = self.problem.objective().expand(len(sums), 1)
        table = self._sorted(torch.cat([sums, fit, objective], dim=1).cpu().numpy())
        linear = self._linear(blurred) if set(COLUMNS) & set(self._dof) else None
        return Measurement(table[:, :10], Residual(table[:, 10], table[:, 11]), float(table[0, 12]), linear)

    def _linear(self, blurred: Tensor) -> LinearEquations:
        """Normal equations of rotation and magnification, from the blurred model, in the order of the views."""
        found = linear_equations(blurred, self._blurred, self._mask, centre=self.problem.constants, smooth=self._smooth)
        return LinearEquations(*(self._sorted(rows) for rows in (found.hessian, found.gradient, found.variance)))

    def offsets(self) -> F64:
        """(tilt,) constants o_i in units of the data."""
        return self._sorted(self.problem.o.cpu().numpy())

    def state_dict(self) -> dict[str, Any]:
        """Volumes and duals; the data follow from the shifts."""
        return self.problem.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.problem.load_state_dict(state)

    def _sorted(self, rows: F64) -> F64:
        result = np.empty_like(rows)
        result[self._order] = rows
        return result
