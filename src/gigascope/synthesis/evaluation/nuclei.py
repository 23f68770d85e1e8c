"""How large, how deep, how crowded and how much cut the simulated nuclei are: histograms of their tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gigascope.synthesis.evaluation.tables import Table, table

Columns = Mapping[str, NDArray[Any]]
BINS = 24
# Neighbours are counted within this distance.
AROUND_UM = 20.0
QUANTITIES = {
    "diameter": ("diameter of a ball of its volume", "µm"),
    "depth": ("depth", "µm"),
    "neighbours": (f"nuclei within {AROUND_UM:.0f} µm", ""),
    "clip": ("volume lost to neighbours", "%"),
}


def histograms(tables: Sequence[Columns]) -> Table:
    """Histograms of the nuclei of all images.

    Parameters
    ----------
    tables : one for each image; of columns volume_um3, depth_um, clip_fraction, centroid_z, _y and _x (or z, y, x)
        those that are there
    """
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in QUANTITIES}
    for columns in tables:
        for name, values in _quantities(columns).items():
            found[name].append(values)
    rows: list[tuple[Any, ...]] = []
    for name, parts in found.items():
        values = np.concatenate(parts) if parts else np.zeros(0)
        values = values[np.isfinite(values)]
        if not values.size:
            continue
        low, high = float(values.min()), float(values.max())
        counts, edges = np.histogram(values, BINS, (low, high if high > low else low + 1.0))
        label, unit = QUANTITIES[name]
        rows += [(name, label, unit, a, b, n) for a, b, n in zip(edges[:-1], edges[1:], counts)]
    return table("quantity: label: unit: from to nuclei", rows)


def classes(columns: Columns) -> dict[int, int]:
    """Class of each label, of a table that has both; label ids are row + 1 where the table does not say them."""
    if "class" not in columns or columns["class"].dtype.kind not in "iu":
        return {}
    n = len(columns["class"])
    ids = next((columns[k] for k in ("label_id", "label", "id") if k in columns), np.arange(1, n + 1))
    return {int(k): int(c) for k, c in zip(ids, columns["class"])}


def _quantities(columns: Columns) -> dict[str, NDArray[np.float64]]:
    found = {}
    if "volume_um3" in columns:
        found["diameter"] = np.cbrt(6.0 / math.pi * np.asarray(columns["volume_um3"], np.float64))
    if "depth_um" in columns:
        found["depth"] = np.asarray(columns["depth_um"], np.float64)
    if "clip_fraction" in columns:
        found["clip"] = 100.0 * np.asarray(columns["clip_fraction"], np.float64)
    names = ("centroid_z", "centroid_y", "centroid_x") if "centroid_z" in columns else ("z", "y", "x")
    if all(name in columns for name in names) and len(columns[names[0]]) > 1:
        places = np.stack([np.asarray(columns[name], np.float64) for name in names], axis=1)
        near = cKDTree(places).query_ball_point(places, AROUND_UM, return_length=True)
        found["neighbours"] = np.asarray(near, np.float64) - 1.0
    return found
