"""Every measure of the evaluation: what it is called and its unit, as report and workflow show it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Section 12's estimators: as :func:`gigascope.topography.focus.peak.estimate_peak` names them, and for people.
ESTIMATORS = {
    "argmax": "sharpest slice",
    "parabola": "parabola",
    "log_parabola": "log-parabola",
    "centroid": "centroid of (S - min S)²",
}
OURS, TRUE_INDEX, TRUE_NEAREST = "ours", "true_index", "true_nearest"
# What a picture could be if focus were known: of two slices, or of one.
TRUE = (TRUE_INDEX, TRUE_NEAREST)
METHODS = {
    OURS: "this result",
    **ESTIMATORS,
    TRUE_INDEX: "true slice, mixed of two",
    TRUE_NEAREST: "true slice, nearest",
}

# Tables beside the metrics.
TABLES = ("estimators", "height_deciles", "field_radius", "height_histogram", "seam_profile", "gauge_planes")

LABELS: dict[str, tuple[str, str]] = {
    "height_rmse": ("height error, RMSE", "µm"),
    "height_rmse_dz": ("height error, RMSE, in z-steps", "dz"),
    "height_p95": ("height error, 95th percentile", "µm"),
    "height_p95_dz": ("height error, 95th percentile, in z-steps", "dz"),
    "height_decile_bias_dz": ("largest bias of a tenth of the heights, in z-steps", "dz"),
    "height_rmse_steps": ("height error beside steps, RMSE", "µm"),
    "height_rmse_bare": ("height error without texture, RMSE", "µm"),
    "height_offset": ("common offset of the heights, removed", "µm"),
    "height_pixels": ("pixels of the mosaic that the height error is of", ""),
    "height_rmse_view": ("height error of single views, RMSE", "µm"),
    "all_in_focus_psnr": ("all-in-focus PSNR", "dB"),
    "all_in_focus_psnr_rgb": ("all-in-focus PSNR, all colours", "dB"),
    "all_in_focus_psnr_blended": ("all-in-focus PSNR where three or more views are averaged", "dB"),
    "all_in_focus_psnr_view": ("all-in-focus PSNR of single views", "dB"),
    "true_index_psnr_view": ("PSNR of single views with the true slice", "dB"),
    "true_index_psnr_mean": ("PSNR of the mean of views with the true slice", "dB"),
    "best_estimator_rmse": ("height error of the best classical estimator, mean over views, RMSE", "µm"),
    "step_error": ("largest error of a gauge step", "µm"),
    "step_plane_std": ("largest standard deviation of a gauge plane", "µm"),
    "confidence_auc": ("confidence tells texture from none, AUC", ""),
    "lateral_error": ("lateral error of the mosaic, median", "px"),
    "coverage": ("seen pixels that the mosaic holds", "%"),
    "unseen_pixels": ("pixels with values that no view sees", ""),
    "covered": ("pixels of the mosaic with values", "%"),
    "views_per_pixel": ("views per pixel, mean", ""),
    "view_agreement": ("views agree on heights, median standard deviation", ""),
    "view_agreement_dz": ("views agree on heights, median standard deviation, in z-steps", "dz"),
    "seam_energy": ("gradient at borders of views, over elsewhere", ""),
    "seam_energy_height": ("height gradient at borders of views, over elsewhere", ""),
    "sharpness_gain": ("sharpness over that of the best single slice", ""),
    "confidence_mean": ("confidence, mean", ""),
    "reprojection_median": ("calibration against true poses, median", "px"),
    "reprojection_p95": ("calibration against true poses, 95th percentile", "px"),
    "datum_rms_dz": ("plane of focus against the truth, rms, in z-steps", "dz"),
    "datum_offset": ("plane of focus against the truth, common offset", "µm"),
    "shading_rms": ("shading left after correction, rms", "%"),
    "tie_points": ("tie points of the calibration", ""),
    "tie_residual_median": ("residual of tie points, median", "px"),
    "tie_residual_p95": ("residual of tie points, 95th percentile", "px"),
    "focus_error": ("plane of focus, expected error of a view", "µm"),
    "light_residual": ("light of two views of a point, difference left", "%"),
}


def entries(values: Mapping[str, float], units: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Measures as metrics.json has them: value (none where it is not finite), unit and label.

    Parameters
    ----------
    units : in place of those of LABELS
    """
    found = {}
    for name in LABELS:
        if name in values:
            label, unit = LABELS[name]
            value = float(values[name])
            unit = (units or {}).get(name, unit)
            found[name] = {"value": value if math.isfinite(value) else None, "unit": unit, "label": label}
    return found
