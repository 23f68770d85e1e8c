"""Poses of all views from tie points: robust least squares in the mosaic plane, with exact geometry.

    min  sum_ties w |M_a(p_a) - M_b(p_b)|^2 / s^2  +  sum_v |x_v - camera(v) - stage(v)|^2 / prior^2  +  mounting priors

x_v are six numbers of a view: log of its height over the focal length, the two slopes of its normal, its angle, its
translation; one distortion is shared. A camera sits still and a stage position moves the sample under all cameras, so a
view departs little from the sum of the two: these departures have Gaussian priors, and with infinite ones every view
stands for itself. Gauss-Newton on the normal equations; ties are summed in pieces, one 6 x 6 block for each pair of
views, so the size of the system does not depend on their number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.topography.calibration.initial import refuse_unconnected
from gigascope.topography.calibration.layout import Layout
from gigascope.topography.calibration.system import Priors, Problem
from gigascope.topography.calibration.tie_points import TiePoints
from gigascope.topography.calibration.unknowns import N_POSE, parameters, with_parameters
from gigascope.topography.geometry.poses import Poses, to_mosaic

_log = logging.getLogger(__name__)
# Departures that priors of the right width do not make: their rms is at most 1.
LARGEST_DEPARTURE = 2.0
F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bundle:
    """Result of :func:`adjust`.

    Attributes
    ----------
    poses : gauge fixed
    residual : (T, 2) float64, mosaic pixels, first minus second point of each tie
    weight : (T,) float64, robust weight, 0..1
    scale : pixels, at which the weight is a half
    cost : at the start of every round
    departure : root mean square departure of views from their cameras and stage positions, in standard deviations of
        the prior; 0 for independent views
    """

    poses: Poses
    residual: F64
    weight: F64
    scale: float
    cost: tuple[float, ...]
    departure: float = 0.0

    @property
    def statistics(self) -> dict[str, float]:
        """Median, 95th percentile and rms of |residual| in pixels, number of ties, share of ties with
        weight < 0.1, and `departure`."""
        length = np.linalg.norm(self.residual, axis=1)
        return {
            "n_ties": float(len(length)),
            "median_px": float(np.median(length)),
            "p95_px": float(np.percentile(length, 95)),
            "rms_px": float(np.sqrt(np.average(length**2, weights=self.weight))),
            "rejected": float((self.weight < 0.1).mean()),
            "departure": self.departure,
        }


def adjust(
    ties: TiePoints,
    start: Poses,
    where: Layout,
    priors: Priors | None = None,
    *,
    rounds: int = 12,
    name: Callable[[int], str] = str,
) -> Bundle:
    """Poses of all views.

    Parameters
    ----------
    ties : of :func:`gigascope.topography.calibration.tie_points.tie_points`
    start : poses to start from; focal is kept, normals are what the mounting priors are about
    where : cameras and stage positions
    priors : none: the defaults
    rounds : of Gauss-Newton with new robust weights, at most
    name : what a view is called in messages

    Returns
    -------
    Bundle

    Raises
    ------
    UserError : views without tie points, or groups of views that no tie connects

    Notes
    -----
    Weights of Cauchy, 1 / (1 + (r / c)^2), c 2.4 times the robust spread of the residuals (Holland and Welsch, Comm.
    Statist. A6, 813 (1977)). Triggs et al., Bundle adjustment - a modern synthesis (2000), for the reduced system and
    the gauge: sums of log heights, angles and translations are held by Lagrange multipliers.
    """
    chosen = priors or Priors()
    refuse_unconnected(np.unique(ties.view, axis=0), start.n_views, where.present, name=name)
    if len(ties) * 2 < N_POSE * where.present.sum():
        raise UserError(
            f"{len(ties)} tie points cannot place {int(where.present.sum())} views.",
            do="Check that the flat target is textured and in focus, and that views overlap.",
        )
    problem = Problem(start, where, chosen)
    poses, costs, scale = start, [], max(_spread(ties, start), 0.02)
    residual, weight = _residual(ties, poses), np.ones(len(ties))
    for _ in range(rounds):
        length = np.linalg.norm(residual, axis=1)
        scale = max(2.4 * float(np.median(length)) / 1.1774, 0.02)
        weight = 1.0 / (1.0 + (length / scale) ** 2)
        costs.append(float((scale**2 * np.log1p((length / scale) ** 2)).sum()))
        poses, moved = problem.step(ties, poses, residual, weight, scale / 2.4)
        residual = _residual(ties, poses)
        if moved < 1e-3:
            break
    fixed = _without_absent(poses, where.present)
    result = Bundle(fixed, _residual(ties, fixed), weight, scale, tuple(costs), problem.departure(poses))
    _log.info("bundle: %s after %d rounds", result.statistics, len(costs))
    if result.departure > LARGEST_DEPARTURE:
        _log.warning(
            "views depart from their cameras and stage positions by %.1f standard deviations of the priors (%g px, "
            "%g, %g rad), which pull the poses away from the tie points. Make them wider, or infinite for "
            "independent views.",
            result.departure,
            *(chosen.residual_px, chosen.residual_height, chosen.residual_rad),
        )
    return result


def _without_absent(poses: Poses, present: NDArray[np.bool_]) -> Poses:
    """Views that are not there have neutral numbers, so that the gauge of all is that of those that are."""
    x = parameters(poses)
    x[~present] = 0.0
    return with_parameters(poses, x, poses.distortion)


def _spread(ties: TiePoints, poses: Poses) -> float:
    return float(np.median(np.linalg.norm(_residual(ties, poses), axis=1)))


def _residual(ties: TiePoints, poses: Poses) -> F64:
    return to_mosaic(poses, ties.view[:, 0], ties.first) - to_mosaic(poses, ties.view[:, 1], ties.second)
