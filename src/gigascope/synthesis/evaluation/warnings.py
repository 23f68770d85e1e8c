"""What has to be said of images before they are trusted, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gigascope.synthesis.evaluation.alignment import MEDIAN, P95
from gigascope.synthesis.evaluation.volumes import ADAPTED, NAIVE, REAL

# Adapted images that the segmenter finds easier than real ones by this much of SEG; noise worth a remark.
EASIER, SHARED_NOISE, AUC_LOST = 0.1, 0.1, 0.1
FEW_NUCLEI = 30


def warnings(values: Mapping[str, float]) -> list[str]:
    """Sentences for the reader.

    Parameters
    ----------
    values : by the names of :data:`gigascope.synthesis.evaluation.labels.LABELS`
    """
    return [*_distances(values), *_alignment(values), *_segmenter(values)]


def _distances(v: Mapping[str, float]) -> list[str]:
    found = []
    for measure, words in (("w1", "intensities"), ("spectrum", "power spectrum"), ("kernel", "features of crops")):
        gain = v.get(f"{measure}_gain", math.nan)
        if gain < 1:
            found.append(
                f"Adaptation made the images less real by their {words}: the distance to real images is "
                f"{1 / gain:.2f} times that of the simulated ones." if gain > 0 else
                f"Adaptation made the images less real by their {words}."
            )  # fmt: skip
    if v.get("w1_gain", 0) >= 3 and v.get("spectrum_gain", math.inf) < 1.2:
        found.append(
            "The intensities of adapted images are those of real ones, their texture is not yet: train longer, and do "
            "not judge by intensities alone."
        )
    return found


def _alignment(v: Mapping[str, float]) -> list[str]:
    found = []
    aligned = v.get("aligned", math.nan)
    if aligned < 100:
        median, p95 = v.get("shift_median", math.nan), v.get("shift_p95", math.nan)
        found.append(
            f"Only {aligned:.0f} % of the adapted images show their nuclei where the labels have them: blocks moved by "
            f"{median:.2f} voxels (median) and {p95:.2f} (95 %); {MEDIAN:g} and {P95:g} are allowed. Do not train on "
            "the others."
        )
    lost = v.get("auc_naive", math.nan) - v.get("auc_adapted", math.nan)
    if lost > AUC_LOST:
        found.append(
            f"Nuclei stand out from what is beside them less in adapted images than in simulated ones (AUC less by "
            f"{lost:.2f}): labels may not fit everywhere. A larger train.weights.label holds the images to them."
        )
    blobs, nuclei = v.get("new_blobs", 0.0), v.get(f"nuclei_{ADAPTED}", math.nan)
    if blobs > 0.02 * nuclei:
        found.append(f"The network made up {blobs:.0f} nuclei that have no label, {100 * blobs / nuclei:.1f} % of all.")
    return found


def _segmenter(v: Mapping[str, float]) -> list[str]:
    found = []
    real, adapted = v.get(f"seg_{REAL}", math.nan), v.get(f"seg_{ADAPTED}", math.nan)
    if adapted > real + EASIER:
        found.append(
            f"Adapted images are easier than real ones: SEG of the segmenter is {adapted:.2f} against {real:.2f}. What "
            "learns from them meets harder images in earnest; a smaller train.weights.label may help."
        )
    for key in (NAIVE, REAL):
        n = v.get(f"nuclei_{key}", math.nan)
        if n < FEW_NUCLEI:
            found.append(f"Scores on {'real' if key == REAL else 'simulated'} images are of {n:.0f} nuclei only.")
        axial = v.get(f"noise_axial_{key}", math.nan)
        if key == REAL and abs(axial) > SHARED_NOISE:
            found.append(
                f"The noise of neighbouring slices of the real images is correlated ({axial:.2f}): they were resampled "
                "or denoised, which the simulated camera does not do."
            )
    return found
