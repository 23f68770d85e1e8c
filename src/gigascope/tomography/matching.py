"""Projection matching: every view is correlated with its reprojection from a volume of other views, and moved there.

Slower than the correlation of neighbours, but each view is compared with all others at once, so that errors do not add
up over tilt. It starts from shifts that are right to a few pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gigascope.tomography.correlation import Correlator, frame_taper
from gigascope.tomography.geometry import remove_gauge
from gigascope.tomography.quick_residual import quick_prediction

F64 = NDArray[np.float64]

ROUNDS = 8
# conjugate-gradient steps of the volumes: three sections at SNR 1 come to 0.42, 0.24 and 0.39 px with six steps, and to
# 0.48, 0.23 and 0.43 px with twelve, which fit more of the noise
ITERATIONS = 6
# RMS step, coarse pixels, at which it ends
CONVERGED = 0.02
# coarse pixels that a view may move in one round
SEARCH = 6.0
# cycles per coarse pixel: the volumes' own blur ends near the first, and specimens fill the field down to the second
LOW_PASS, HIGH_PASS = 0.2, 0.02


def match_projections(
    views: Tensor,
    valid: Tensor,
    tilt: F64,
    shifts: F64,
    use: NDArray[np.bool_],
    extent: str,
    taper: float,
    *,
    rounds: int = ROUNDS,
) -> F64:
    """Shifts (tilt, 2) in pixels of the views after at most so many rounds; views out of use keep theirs.

    Parameters
    ----------
    views : (tilt, s, y) float32, background removed
    valid : (tilt, s, y) uint8
    tilt : (tilt,) radians, ascending
    shifts : (tilt, 2) pixels to start from
    use : (tilt,) bool
    extent : "object", "section" or "crop"
    taper : cosine edge of the correlated images, fraction of each side

    Notes
    -----
    Dengler, Ultramicroscopy 30, 337 (1989); Owen, Landis, Ultramicroscopy 63, 27 (1996).
    """
    shifts = shifts.copy()
    for _ in range(rounds):
        found = quick_prediction(views, valid, tilt, shifts, use, extent=extent, iterations=ITERATIONS)
        if found is None:
            break
        shape = (int(found.data.shape[1]), int(found.data.shape[2]))
        correlator = Correlator(shape, LOW_PASS, HIGH_PASS, SEARCH, views.device)
        window = frame_taper(shape, taper, views.device)
        step = np.zeros_like(shifts)
        for k, i in enumerate(found.indices):
            # only what both know; a view that shares nothing has no peak and stays
            common = window * (found.weight[k] > 0)
            pair = (correlator.spectrum(image[k], common) for image in (found.model, found.data))
            peak = correlator.peak(*pair)
            if peak.height > 0 and not peak.at_limit:
                step[i] = found.factor * np.array(peak.shift)
        step = remove_gauge(step, tilt, use)[use]
        shifts[use] += step
        if np.sqrt((step**2).sum(axis=1).mean()) < CONVERGED * found.factor:
            break
    return shifts
