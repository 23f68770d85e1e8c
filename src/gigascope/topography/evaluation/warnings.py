"""What has to be said of a result before it is trusted, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gigascope.topography.evaluation.labels import ESTIMATORS, METHODS, OURS
from gigascope.topography.evaluation.tables import Scored

# From which on these are worth a warning; aims of section 12, some with room for chance.
LEAST_COVERAGE, MOST_SCATTER, MOST_LATERAL, LEAST_GAIN = 0.999, 0.2, 0.15, 0.9
# Error of the sharpest slice, z-steps: 1 / sqrt(12).
ONE_SLICE = 0.29
# Of pictures and of heights, whose relief beside the borders of few views may differ from elsewhere by chance.
MOST_SEAM = {"seam_energy": (1.05, "Picture"), "seam_energy_height": (1.2, "Heights")}


def warnings(values: Mapping[str, float], scored: Sequence[Scored], dz_um: float) -> list[str]:
    """Sentences for the reader.

    Parameters
    ----------
    values : by the names of LABELS
    scored : methods beside each other, ours among them
    dz_um : step between slices
    """
    found = [*_pixels(values), *_agreement(values), *_seams(values), *_heights(values, scored, dz_um)]
    gain = values.get("sharpness_gain", math.nan)
    if gain < LEAST_GAIN:
        found.append(
            f"The all-in-focus picture is less sharp than the sharpest single slice ({gain:.2f} of it): the sample is "
            "flat within the depth of field, or focus was not found."
        )
    return found


def _pixels(values: Mapping[str, float]) -> list[str]:
    covered, coverage = values["covered"], values.get("coverage", math.nan)
    found = []
    if coverage < 100 * LEAST_COVERAGE:
        lost = 100 - coverage
        found.append(f"The mosaic holds {coverage:.2f} % of the pixels that views see: {lost:.2f} % are lost.")
    if values.get("unseen_pixels", 0) > 0:
        found.append(f"{values['unseen_pixels']:.0f} pixels of the mosaic have values although no view sees them.")
    if covered < 50:
        found.append(f"Only {covered:.0f} % of the mosaic's rectangle is seen by any view.")
    return found


def _agreement(values: Mapping[str, float]) -> list[str]:
    found = []
    scatter, lateral = values.get("view_agreement_dz", math.nan), values.get("lateral_error", math.nan)
    if scatter > MOST_SCATTER:
        found.append(
            f"Heights of different views of a point scatter by {scatter:.2f} z-steps: the calibration, or the focus, "
            "is worse than a fifth of a step."
        )
    if lateral > MOST_LATERAL:
        found.append(f"The mosaic is displaced by {lateral:.2f} pixels from the truth.")
    return found


def _seams(values: Mapping[str, float]) -> list[str]:
    found = []
    for name, (most, what) in MOST_SEAM.items():
        energy = values.get(name, math.nan)
        if energy > most:
            found.append(
                f"{what}: borders of views can be seen, gradients there are {energy:.2f} times those elsewhere."
            )
    return found


def _heights(values: Mapping[str, float], scored: Sequence[Scored], dz_um: float) -> list[str]:
    found = []
    averaged = [r for r in scored if r.views == "mean" and math.isfinite(r.height_rmse)]
    best = min((r for r in averaged if r.method in ESTIMATORS), key=lambda r: r.height_rmse, default=None)
    ours = next((r.height_rmse for r in averaged if r.method == OURS), math.nan)
    if best is not None and ours > 1.02 * best.height_rmse:
        found.append(
            f"A classical estimator, {METHODS[best.method]}, finds better heights on the same pixels: "
            f"{best.height_rmse:.2f} µm against {ours:.2f} µm (RMSE). Set train.method: focus."
        )
    rmse = values.get("height_rmse", math.nan)
    if rmse > ONE_SLICE * dz_um:
        found.append(f"Heights are no better than the sharpest slice alone: {rmse:.1f} µm at a step of {dz_um:g} µm.")
    return found
