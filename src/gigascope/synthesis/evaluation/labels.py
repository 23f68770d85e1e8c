"""Every measure of the evaluation: what it is called and its unit, as report and workflow show it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gigascope.synthesis.evaluation.volumes import ADAPTED, NAIVE, REAL, TITLES

# Which sets are compared, in this order; one with itself, by halves: distances of that size say that nothing differs.
PAIRS = {
    "real_naive": (REAL, NAIVE),
    "real_adapted": (REAL, ADAPTED),
    "naive_adapted": (NAIVE, ADAPTED),
    "real_real": (REAL, REAL),
    "naive_naive": (NAIVE, NAIVE),
}
PAIR_WORDS = {
    "real_naive": "real to simulated",
    "real_adapted": "real to adapted",
    "naive_adapted": "simulated to adapted",
    "real_real": "real to real",
    "naive_naive": "simulated to simulated",
}
# Distances: what they are of.
DISTANCES = {
    "w1": "intensities",
    "w1_nuclei": "intensities of nuclei",
    "w1_inner": "intensities between nuclei",
    "w1_outer": "intensities outside",
    "spectrum": "power spectrum",
    "patches": "small patches",
    "kernel": "features of crops, kernel distance",
    "classifier": "features of crops, how well a linear classifier tells them apart (0.5: not at all)",
    "edge": "edges by depth",
}
DISTANCE_UNITS = {"spectrum": "decades"}
# Tables beside the metrics.
TABLES = (
    "distances",
    "depth_distances",
    "depth_profiles",
    "edge_curves",
    "spectra",
    "intensities",
    "photon_transfer",
    "scores",
    "instances",
    "groups",
    "alignment",
    "shifts",
    "downstream",
    "nuclei",
    "parity",
)
CLASSES = {0: "unknown", 1: "interphase", 2: "metaphase", 3: "anaphase", 4: "pyknotic", 5: "ghost"}


def _labels() -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for measure, words in DISTANCES.items():
        unit = DISTANCE_UNITS.get(measure, "")
        for pair, between in PAIR_WORDS.items():
            found[f"{measure}_{pair}"] = (f"{words}, {between}", unit)
    for measure, words in (("w1", "intensities"), ("spectrum", "power spectrum"), ("kernel", "features of crops")):
        found[f"{measure}_gain"] = (f"adapted images are nearer to real ones than simulated ones are, {words}", "x")
    for key, title in TITLES.items():
        found |= {
            f"det_{key}": (f"DET of the segmenter, {title} images", ""),
            f"seg_{key}": (f"SEG of the segmenter, {title} images", ""),
            f"ap50_{key}": (f"AP at half overlap, {title} images", ""),
            f"f1_50_{key}": (f"F1 at half overlap, {title} images", ""),
            f"pq50_{key}": (f"panoptic quality at half overlap, {title} images", ""),
            f"merges_{key}": (f"nuclei to be split off, {title} images", ""),
            f"missed_{key}": (f"nuclei that were missed, {title} images", ""),
            f"false_{key}": (f"nuclei that are none, {title} images", ""),
            f"nuclei_{key}": (f"nuclei that scores are of, {title} images", ""),
            f"volume_bias_{key}": (f"volume of found nuclei against their labels, {title} images", "%"),
            f"centroid_{key}": (f"distance of the centres of found nuclei, {title} images, median", "µm"),
            f"gain_{key}": (f"grey values per electron, from the noise of {title} images", ""),
            f"offset_{key}": (f"grey value without light, from the noise of {title} images", ""),
            f"noise_axial_{key}": (f"correlation of the noise of neighbouring slices, {title} images", ""),
            f"noise_lateral_{key}": (f"correlation of the noise three pixels apart, {title} images", ""),
        }
    found |= {
        "auc_naive": ("nuclei brighter than what is beside them, simulated images, AUC", ""),
        "auc_adapted": ("nuclei brighter than what is beside them, adapted images, AUC", ""),
        "shift_global": ("shift of adapted images, largest of all images", "voxels"),
        "shift_median": ("shift of blocks of adapted images, median", "voxels"),
        "shift_p95": ("shift of blocks of adapted images, 95th percentile", "voxels"),
        "aligned": ("adapted images that show nuclei where their labels are", "%"),
        "new_blobs": ("nuclei in adapted images that no label and no simulated image has", ""),
        "images_real": ("real images", ""),
        "images_naive": ("simulated images", ""),
        "images_adapted": ("adapted images", ""),
    }
    for name in (NAIVE, ADAPTED, f"{NAIVE}+{ADAPTED}"):
        words = " and ".join(TITLES[key] for key in name.split("+"))
        key = name.replace("+", "_and_")
        found |= {
            f"downstream_det_{key}": (f"DET on real images, learned from {words} ones", ""),
            f"downstream_seg_{key}": (f"SEG on real images, learned from {words} ones", ""),
            f"downstream_ap50_{key}": (f"AP at half overlap on real images, learned from {words} ones", ""),
        }
    return found


LABELS = _labels()


def entries(values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Measures as metrics.json has them: value (none where it is not finite), unit and label."""
    found = {}
    for name, (label, unit) in LABELS.items():
        if name in values:
            value = float(values[name])
            found[name] = {"value": value if math.isfinite(value) else None, "unit": unit, "label": label}
    return found
