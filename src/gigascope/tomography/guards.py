"""What keeps the joint solve from running away: fallback when the residual rises, refused steps, flagged views."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gigascope.tomography.alignment import SolveState
from gigascope.tomography.geometry import remove_gauge

F64 = NDArray[np.float64]

# a rise from one update to the next, and above the best so far: the volumes alone, still settling, swing by up to 6 %
RISE = 1.01
ABOVE_BEST = 1.1
MIN_OVERLAP = 0.5
MAX_PRIOR_SIGMAS = 3.0
MAX_SIGMA_PX = 1.0
RESIDUAL_MADS = 5.0
# and only a view whose model explains less than half of its variance: the first and last views of a good section,
# with neighbours on one side only, reach rho 0.4 to 0.6 and twice the median around them; a view 25 px off reaches 1
RESIDUAL_FLOOR = 0.5**0.5
# half-width, in views, of the running median that a view's residual is compared with: rho grows with the tilt
NEIGHBOURS = 5
# a level whose predicted error exceeds this many of its pixels in most views has nothing to say
HOPELESS_SIGMA = 0.5


def fall_back(state: SolveState, rho: float) -> bool:
    """Take note of the residual at the state's shifts; after two rises in a row, well above the best, go back to it.

    Going back halves the step and stops the momentum. Returns whether it happened.
    """
    state.rises = state.rises + 1 if rho > RISE * state.last_rho else 0
    state.last_rho = rho
    if rho < state.best_rho:
        state.best_rho, state.best = rho, state.shifts.copy()
    if state.rises < 2 or state.best is None or rho <= ABOVE_BEST * state.best_rho:
        return False
    state.shifts, state.previous = state.best.copy(), np.zeros_like(state.previous)
    state.rises, state.last_rho = 0, float("inf")
    state.step, state.beta = state.step / 2, 0.0
    return True


def hopeless(sigma_level: F64) -> bool:
    """Whether more than half of the views have a predicted error above half a pixel of the level; (tilt, 2)."""
    return bool(np.mean(sigma_level.max(axis=1) > HOPELESS_SIGMA) > 0.5)


def suspicious(state: SolveState, tilt: F64, prior_px: float) -> list[str]:
    """Reason to flag each view, or "": shift (beyond 3 prior sigma), sigma (above 1 px), residual (5 MAD above its
    neighbours); several are joined by "+". (tilt,) list."""
    offset = remove_gauge(state.shifts - state.level_start, tilt, state.in_volume)
    excess = state.residual - running_median(state.residual)
    middle = np.nanmedian(excess)
    mad = 1.4826 * np.nanmedian(np.abs(excess - middle))
    tests = {
        "shift": np.linalg.norm(offset, axis=1) > MAX_PRIOR_SIGMAS * prior_px,
        "sigma": ~(state.sigma.max(axis=1) <= MAX_SIGMA_PX),
        "residual": ~((excess <= middle + RESIDUAL_MADS * mad) | (state.residual <= RESIDUAL_FLOOR)),
    }
    return ["+".join(name for name, bad in tests.items() if bad[i]) for i in range(len(tilt))]


def running_median(values: F64, half_width: int = NEIGHBOURS) -> F64:
    """Median over the 2 half_width + 1 entries around each; near the ends over as many of the nearest."""
    n = len(values)
    size = min(2 * half_width + 1, n)
    starts = np.clip(np.arange(n) - half_width, 0, n - size)
    return np.nanmedian(values[starts[:, None] + np.arange(size)], axis=1)


def interpolated(values: F64, good: NDArray[np.bool_]) -> F64:
    """`values` (tilt, 2) with the rows that are not good interpolated linearly between good ones."""
    filled = values.copy()
    if good.any():
        index = np.arange(len(values))
        for axis in range(values.shape[1]):
            filled[~good, axis] = np.interp(index[~good], index[good], values[good, axis])
    return filled
