"""Total variation plus least squares by the primal-dual method with diagonal steps, for one or several groups of views.

    min over u, o   lambda sum_v |(grad_h u)_v|_2 + 1/2 sum_i || sqrt(w_i) (A_i u + o_i - b_i) ||^2

Chambolle, Pock, J. Math. Imaging Vis. 40, 120 (2011); steps of Pock, Chambolle, ICCV 2011 (alpha = 1). The views are
split into groups that know nothing of each other, so that a view can be compared with a volume it took no part in.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels import projector, tv
from gigascope.tomography.masks import weighted_mean

F64 = NDArray[np.float64]


class PrimalDual:
    """State and iteration of K independent problems on one grid.

    Parameters
    ----------
    angles : (tilt,) float64 radians, in group order: views of one group lie together
    groups : sizes of the groups, their sum is the number of views
    shape : (z, x, y) of the volumes
    n_s : detector samples across the tilt axis
    hz : voxel size in z over voxel size in x
    lam : weight of the total variation
    constants : solve one unknown constant per view (section)
    positivity : keep the volumes at or above 0
    dtype : of volumes and data
    operator : stands in for `kernels.projector`, with the same calls
    """

    def __init__(
        self,
        angles: Tensor,
        groups: Sequence[int],
        shape: tuple[int, int, int],
        n_s: int,
        *,
        hz: float = 1.0,
        lam: float,
        constants: bool,
        positivity: bool = False,
        dtype: torch.dtype = torch.float32,
        operator: Any = projector,
    ) -> None:
        device, n_views = angles.device, len(angles)
        self._operator = operator
        self.angles, self.shape, self.n_s = angles, shape, n_s
        self.hz, self.lam, self.constants, self.positivity = hz, lam, constants, positivity
        edges = torch.tensor([0, *groups]).cumsum(0).tolist()
        self.slices = [slice(a, b) for a, b in itertools.pairwise(edges)]
        data = (n_views, n_s, shape[2])
        self.u = torch.zeros(len(groups), *shape, dtype=dtype, device=device)
        self.ubar = torch.zeros_like(self.u)
        self.p = torch.zeros(len(groups), 3, *shape, dtype=dtype, device=device)
        self.q = torch.zeros(data, dtype=dtype, device=device)
        self.o = torch.zeros(n_views, dtype=torch.float64, device=device)
        self.obar = torch.zeros_like(self.o)
        # one sigma for all three components: with different ones the radial projection is not the prox
        self.sigma = min(1.0, hz) / 2
        rows = projector.row_sums(angles, n_s, shape[:2], hz).to(dtype)
        self.sigma_q = 1 / (rows + 1) if constants else 1 / rows.clamp_min(torch.finfo(dtype).tiny ** 0.5)
        columns = [projector.column_sums(angles[g], n_s, shape[:2], hz) for g in self.slices]
        self.tau = [(1 / (c + 4 + 2 / hz)).to(dtype).contiguous() for c in columns]
        self._projection = torch.empty(max(groups), n_s, shape[2], dtype=dtype, device=device)
        self._volume = torch.empty(shape, dtype=dtype, device=device)

    def set_data(self, views: Tensor, weights: Tensor) -> None:
        """Views and weights, both (tilt, s, y) in group order; duals and volumes stay."""
        self.views, self.weights = views, weights
        unmasked = (weights > 0).sum(dim=(1, 2), dtype=torch.float64)
        self.tau_o = torch.where(unmasked > 0, 1 / unmasked.clamp_min(1), torch.zeros_like(unmasked))

    def iterate(self, n: int = 1) -> None:
        """n primal-dual iterations of every group; nothing leaves the device."""
        for _ in range(n):
            for k, group in enumerate(self.slices):
                self._iterate_group(k, group)

    def _iterate_group(self, k: int, group: slice) -> None:
        u, ubar, p, q = self.u[k], self.ubar[k], self.p[k], self.q[group]
        tv.dual_step_(p, ubar, self.lam, self.sigma, self.hz)
        projection = self.project(ubar, group, out=self._projection[: len(q)])
        sums = tv.data_step_(
            q, projection, self.views[group], self.weights[group], self.sigma_q[group], self.obar[group]
        )
        atq = self.backproject(q, group, out=self._volume)
        tv.primal_step_(u, ubar, p, atq, self.tau[k], self.hz, self.positivity)
        if self.constants:
            o = self.o[group] - self.tau_o[group] * sums
            self.obar[group] = 2 * o - self.o[group]
            self.o[group] = o

    def project(self, volume: Tensor, group: slice, out: Tensor | None = None) -> Tensor:
        """A of the views of one group, (n, s, y)."""
        return self._operator.project(volume, self.angles[group], self.n_s, self.hz, out=out)

    def backproject(self, data: Tensor, group: slice, out: Tensor | None = None) -> Tensor:
        """A^T of the views of one group, (z, x, y)."""
        return self._operator.backproject(data, self.angles[group], self.shape[:2], self.hz, out=out)

    def start_least_squares(self, iterations: int) -> None:
        """Put u at a few conjugate-gradient steps of A^T w A u = A^T w b from where it stands; duals to 0.

        The constants per view are eliminated exactly by centring residuals under w.
        """
        for k, group in enumerate(self.slices):
            weight = self.weights[group]
            u = self.u[k]
            residual = self._centred(self.views[group] - self.project(u, group), weight)
            r = self.backproject(residual, group)
            direction = r.clone()
            rr = (r * r).sum(dtype=torch.float64)
            for _ in range(iterations):
                normal = self.backproject(self._centred(self.project(direction, group), weight), group)
                curvature = (direction * normal).sum(dtype=torch.float64)
                step = torch.where(curvature > 0, rr / curvature, torch.zeros_like(rr)).to(u.dtype)
                u += step * direction
                r -= step * normal
                rr_new = (r * r).sum(dtype=torch.float64)
                ratio = torch.where(rr > 0, rr_new / rr, torch.zeros_like(rr)).to(u.dtype)
                direction = r + ratio * direction
                rr = rr_new
            if self.positivity:
                u.clamp_min_(0.0)
            if self.constants:
                self.o[group] = weighted_mean(self.views[group] - self.project(u, group), weight)
        self.ubar.copy_(self.u)
        self.obar.copy_(self.o)
        self.p.zero_()
        self.q.zero_()

    def _centred(self, data: Tensor, weight: Tensor) -> Tensor:
        if self.constants:
            data = data - weighted_mean(data, weight).to(data.dtype)[:, None, None]
        return weight * data

    def left_out_projections(self) -> Tensor:
        """m_i = A_i of the mean volume of the other groups, (tilt, s, y); with one group, of the volume itself."""
        model = torch.empty_like(self.q)
        total = self.u.sum(dim=0)
        others = len(self.slices) - 1
        for k, group in enumerate(self.slices):
            volume = (total - self.u[k]) / others if others else total
            self.project(volume, group, out=model[group])
        return model

    def objective(self) -> Tensor:
        """Value of the objective summed over groups, a float64 scalar on the device."""
        value = torch.zeros((), dtype=torch.float64, device=self.u.device)
        for k, group in enumerate(self.slices):
            projection = self.project(self.u[k], group, out=self._projection[: group.stop - group.start])
            misfit = tv.data_misfit(projection, self.views[group], self.weights[group], self.o[group])
            value += self.lam * tv.tv_norm(self.u[k], self.hz) + 0.5 * misfit.sum()
        return value

    def band_objectives(self, bands: Sequence[slice]) -> F64:
        """The objective slice by slice, in bands whose sums do not depend on what lies around them.

        Parameters
        ----------
        bands : slices y of the volumes; the slice behind a band belongs to its last difference, if there is one

        Returns
        -------
        (band, 2) float64: total variation times its weight, and half the misfit, summed over groups
        """
        values = torch.zeros(len(bands), 2, dtype=torch.float64, device=self.u.device)
        for k, group in enumerate(self.slices):
            u, count = self.u[k], group.stop - group.start
            projection = self.project(u, group, out=self._projection[:count])
            for n, rows in enumerate(bands):
                behind = min(rows.stop + 1, self.shape[2])
                variation = tv.tv_norm(u[:, :, rows.start : behind], self.hz)
                if behind > rows.stop:
                    variation = variation - tv.tv_norm(u[:, :, rows.stop : behind], self.hz)
                views, weights = self.views[group][:, :, rows], self.weights[group][:, :, rows]
                misfit = tv.data_misfit(projection[:, :, rows], views, weights, self.o[group])
                values[n] += torch.stack([self.lam * variation, 0.5 * misfit.sum()])
        found: F64 = values.cpu().numpy()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration depends on, except the data: the tensors themselves, not copies."""
        return {name: getattr(self, name) for name in ("u", "ubar", "p", "q", "o", "obar")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`; tensors may come from another device."""
        for name in ("u", "ubar", "p", "q", "o", "obar"):
            getattr(self, name).copy_(state[name])
