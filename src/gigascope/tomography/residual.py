"""How well a model predicts the views: the residual rho, per view and for the series.

    rho = || sqrt(w) (m - b(f) - c) || / || sqrt(w) (b(f) - mean) ||,   c and mean: one number per view

When the model of a view comes from volumes that the view took no part in, rho is an honest measure: noise cannot
explain itself. It is the leave-group-out residual of the joint solve and of the half-sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.tomography.masks import weighted_mean


@dataclass(frozen=True)
class Residual:
    """Squared numerator and denominator of rho per view.

    Parameters
    ----------
    misfit, power : (tilt,) float64 sums over w
    """

    misfit: NDArray[np.float64]
    power: NDArray[np.float64]

    @property
    def per_view(self) -> NDArray[np.float64]:
        """rho of every view, NaN where a view has no weight."""
        ratio = np.full(len(self.power), np.nan)
        np.divide(self.misfit, self.power, out=ratio, where=self.power > 0)
        return np.sqrt(ratio)

    @property
    def total(self) -> float:
        """rho of the series."""
        return self.of(np.ones(len(self.power), dtype=bool))

    def of(self, use: NDArray[np.bool_]) -> float:
        """rho of the views in `use` (tilt,) taken together, NaN without any weight."""
        power = self.power[use].sum()
        return float(np.sqrt(self.misfit[use].sum() / power)) if power > 0 else float("nan")


def residual_sums(model: Tensor, views: Tensor, weights: Tensor) -> Tensor:
    """(tilt, 2) float64 on the device: misfit and power of :class:`Residual`; inputs (tilt, s, y)."""
    difference = model - views
    difference = difference - weighted_mean(difference, weights).to(views.dtype)[:, None, None]
    centred = views - weighted_mean(views, weights).to(views.dtype)[:, None, None]
    sums = [(weights * d * d).sum(dim=(1, 2), dtype=torch.float64) for d in (difference, centred)]
    return torch.stack(sums, dim=1)


def residual(model: Tensor, views: Tensor, weights: Tensor) -> Residual:
    """rho of `views` against `model`; all (tilt, s, y) float32, weights >= 0."""
    sums = residual_sums(model, views, weights).cpu().numpy()
    return Residual(sums[:, 0], sums[:, 1])


def interleaved(n_views: int, groups: int) -> list[NDArray[np.intp]]:
    """Indices of the interleaved groups k, k + K, k + 2 K, ... of views sorted by tilt angle."""
    return [np.arange(k, n_views, groups) for k in range(groups)]


def group_order(groups: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Order of views in which every group lies together."""
    return np.concatenate([np.asarray(group) for group in groups])
