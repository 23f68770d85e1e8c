"""The direction of the tilt axis from the views themselves: at the right one they predict each other best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.tomography.geometry import aligned_shifts, raw_translation
from gigascope.tomography.matching import match_projections
from gigascope.tomography.quick_residual import quick_residual

F64 = NDArray[np.float64]

GOLDEN = (math.sqrt(5.0) - 1) / 2
# width of the bracket at which the search ends, degrees
RESOLUTION_DEG = 0.5
# rounds of projection matching at every angle
ROUNDS = 3
# differences of the residual below this part of it mean nothing: simulated objects and sections at SNR 1 and 4 have
# their minimum where it is lower by 0.1 to 0.3 % than at the true angle
INDIFFERENT = 0.003


@dataclass(frozen=True)
class AxisSearch:
    """What a search of the tilt axis angle found.

    Parameters
    ----------
    start, found, sigma : degrees; the header's angle, the best one, and its standard deviation
    angles, residuals : degrees that were tried, and the leave-group-out residual at each
    """

    start: float
    found: float
    sigma: float
    angles: tuple[float, ...]
    residuals: tuple[float, ...]

    @property
    def taken(self) -> bool:
        """The result differs from the header's angle by more than its uncertainty (two standard deviations)."""
        return abs(self.found - self.start) > 2 * self.sigma

    @property
    def angle(self) -> float:
        """The angle to go on with, degrees."""
        return self.found if self.taken else self.start


def search_axis(
    views_at: Callable[[float], tuple[Tensor, Tensor]],
    tilt: F64,
    shifts: F64,
    use: NDArray[np.bool_],
    *,
    start_deg: float,
    range_deg: float,
    extent: str,
    taper: float,
) -> AxisSearch:
    """Golden-section search of the tilt axis angle on the leave-group-out residual.

    Parameters
    ----------
    views_at : prepared views and masks (tilt, s, y) in the frame of an angle in degrees
    tilt : (tilt,) radians, ascending
    shifts : (tilt, 2) pixels of those views, found with the axis at `start_deg`
    use : (tilt,) bool
    range_deg : the search covers `start_deg` +- this
    extent : "object", "section" or "crop"
    taper : as for :func:`match_projections`

    Notes
    -----
    The minimum is shallow: a parabola through the angles tried gives its place. Its uncertainty is how far the parabola
    stays within 0.3 % of the minimum, and the scatter about it (linear error propagation). Golden section: Kiefer,
    Proc. Am. Math. Soc. 4, 502 (1953).
    """
    fixed = raw_translation(shifts, math.radians(start_deg))
    tried: dict[float, float] = {}

    def rho(angle: float) -> float:
        if angle not in tried:
            views, valid = views_at(angle)
            # the same pixels of the raw views at every angle: corners come and go as the frame turns
            valid = valid * disc(valid)
            moved = aligned_shifts(fixed, math.radians(angle))
            moved = match_projections(views, valid, tilt, moved, use, extent, taper, rounds=ROUNDS)
            tried[angle] = quick_residual(views, valid, tilt, moved, use, extent=extent)
        return tried[angle]

    low, high = start_deg - range_deg, start_deg + range_deg
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    rho(start_deg)
    while high - low > RESOLUTION_DEG:
        if rho(left) < rho(right):
            high, right = right, left
            left = high - GOLDEN * (high - low)
        else:
            low, left = left, right
            right = low + GOLDEN * (high - low)
    found, sigma = minimum_of(tried)
    order = sorted(tried)
    return AxisSearch(start_deg, found, sigma, tuple(order), tuple(tried[angle] for angle in order))


def disc(valid: Tensor) -> Tensor:
    """1 inside the largest circle of the frame, (s, y) uint8."""
    axes = [torch.arange(n, device=valid.device) - (n - 1) / 2 for n in valid.shape[1:]]
    inside = axes[0][:, None] ** 2 + axes[1][None, :] ** 2 <= (min(valid.shape[1:]) / 2) ** 2
    return inside.to(valid.dtype)


def minimum_of(tried: dict[float, float]) -> tuple[float, float]:
    """Vertex of the parabola through the values tried, and its standard deviation from their scatter about it.

    Far values count less, because the curve is a parabola near its minimum only. Infinite where it has none.
    """
    x, y = np.array(list(tried)), np.array(list(tried.values()))
    best = float(x[np.argmin(y)])
    if len(x) < 4 or not np.isfinite(y).all():
        return best, math.inf
    scale = max(float(np.median(np.abs(x - best))), 1e-3)
    root = np.exp(-0.25 * ((x - best) / (2 * scale)) ** 2)
    u = (x - best) / scale
    columns = np.stack([np.ones_like(u), u, u * u], axis=1)
    fit = np.linalg.lstsq(columns * root[:, None], y * root, rcond=None)[0]
    b, c = float(fit[1]), float(fit[2])
    if c <= 0:
        return best, math.inf
    scatter = float((root**2 * (y - columns @ fit) ** 2).sum() / max(float((root**2).sum()) - 3, 0.5))
    covariance = scatter * np.linalg.inv((columns * root[:, None]).T @ (columns * root[:, None]))
    slope = np.array([-1 / (2 * c), b / (2 * c * c)])
    # the curvature: how far until the residual has risen by what is meaningless
    sigma = math.sqrt(float(slope @ covariance[1:, 1:] @ slope) + INDIFFERENT * float(y.min()) / c)
    place = float(np.clip(-b / (2 * c), u.min(), u.max()))
    return best + scale * place, scale * sigma
