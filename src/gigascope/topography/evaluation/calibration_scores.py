"""The calibration: its own residuals, and how far poses, plane of focus and light are from the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gigascope.topography.calibration.compare import reprojection_errors
from gigascope.topography.calibration.result import Calibration
from gigascope.topography.evaluation.stacks import Stacks
from gigascope.topography.evaluation.truth import Truth

# Pixels between those at which the plane of focus is compared.
DATUM_STEP = 4


def own_residuals(calibration: Calibration) -> dict[str, float]:
    """What a calibration says of itself, by the names of LABELS; nothing where poses were given."""
    names = {
        "n_ties": ("tie_points", 1.0),
        "median_px": ("tie_residual_median", 1.0),
        "p95_px": ("tie_residual_p95", 1.0),
        "focus_error_mm": ("focus_error", 1000.0),
        "light_residual": ("light_residual", 100.0),
    }
    statistics = calibration.statistics
    return {label: factor * statistics[name] for name, (label, factor) in names.items() if name in statistics}


def against_truth(
    calibration: Calibration, truth: Truth, stacks: Stacks, views: Sequence[int], dz_um: float
) -> dict[str, float]:
    """Errors of poses, plane of focus and light, by the names of LABELS.

    Parameters
    ----------
    views : whose planes of focus are compared
    dz_um : step between slices
    """
    errors = reprojection_errors(calibration.poses, truth.poses, truth.views)
    found = {
        "reprojection_median": float(np.median(errors)),
        "reprojection_p95": float(np.percentile(errors, 95)),
        "shading_rms": 100.0 * shading_left(calibration, truth),
    }
    if views and np.isfinite(calibration.focus_plane[list(views)]).all():
        offset, rms = datum_error(calibration, truth, stacks, views)
        found |= {"datum_offset": offset, "datum_rms_dz": rms / dz_um}
    return found


def datum_error(calibration: Calibration, truth: Truth, stacks: Stacks, views: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation in um of the height at which a view takes the flat target to be.

    Notes
    -----
    Where a point of true height h is in focus at slice k, height 0 is at the stage position Z(k) + s h.
    """
    sums = np.zeros(3)
    sign = calibration.instrument.stage_sign
    thin = slice(None, None, DATUM_STEP)
    for number in views:
        index = truth.view("index", number)[thin, thin].astype(np.float64)
        flow = truth.view("flow", number)[thin, thin].astype(np.float64)
        z = stacks.z_mm(number)
        within = (index >= 0) & (index <= len(z) - 1)
        stage = np.interp(index, np.arange(len(z)), z)
        flat = stage + sign * truth.surface(flow).height_um / 1000.0
        error = 1000.0 * sign * (calibration.focus_mm(number)[thin, thin] - flat)[within]
        sums += np.array([error.size, error.sum(), error @ error])
    if sums[0] == 0:
        return math.nan, math.nan
    mean = sums[1] / sums[0]
    return float(mean), math.sqrt(max(0.0, sums[2] / sums[0] - mean**2))


def shading_left(calibration: Calibration, truth: Truth) -> float:
    """Relative rms over all cameras' fields of what is left of their light after correction."""
    shade = np.asarray(truth.store.member("shade")[...], np.float64)
    instrument = calibration.instrument
    last = np.array(instrument.size) - 1
    at = [np.linspace(0, n, shade.shape[2]).round().astype(int) for n in last]
    camera = calibration.camera
    left = []
    for number in np.unique(camera[calibration.present]):
        view = int(np.flatnonzero(camera == number)[0])
        row, col = divmod(int(number), len(instrument.camera_cols))
        here = shade[instrument.camera_rows[row], instrument.camera_cols[col]]
        left.append(calibration.correction_field(view)[at[0][:, None], at[1]] * here)
    values = np.array(left)
    return float(values.std() / values.mean())
